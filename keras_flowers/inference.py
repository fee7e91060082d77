"""Runs a frozen network over many images, with the fastest library that agrees.

TensorFlow computes a graph with constant weights. OpenVINO, where it is installed, is
faster on CPUs; it is only used if its answers for the first images are those of Keras.
"""

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_flowers.distribution import has_strategy, predict_batch
from keras_flowers.errors import InputError, first_line

Predictor = Callable[[np.ndarray], np.ndarray]

PRECISIONS = ("float32", "bf16", "int8")
# Converting a network takes OpenVINO two seconds.
_FEWEST_FOR_OPENVINO = 1000
_COMPARED = 2
# Of the largest answer; sums of floats in another order differ by less.
_TOLERANCE = 1e-3
CALIBRATION_IMAGES = 128
# A graph of TensorFlow, constants included, must stay below 2 GB.
_MOST_CONSTANT_BYTES = 1 << 30
# What OpenVINO calls the precisions.
_HINTS = {"float32": "f32", "bf16": "bf16", "int8": "f32"}
_CAPABILITIES = {"bf16": "BF16", "int8": "INT8"}


def check_precision(precision: Any) -> str:
    """Returns a precision.

    Raises:
        InputError: If it is none of `PRECISIONS`, or a library that it needs is not
            installed.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"`inference_precision` must be one of {', '.join(PRECISIONS)}. "
            f"Received: inference_precision={precision!r}"
        )
    needed = {"float32": (), "bf16": ("openvino",), "int8": ("openvino", "nncf")}
    missing = [n for n in needed[precision] if importlib.util.find_spec(n) is None]
    if missing or (needed[precision] and keras.backend.backend() != "tensorflow"):
        why = f"{', '.join(missing)}, which is not installed" if missing else ""
        raise InputError(
            f"The inference precision {precision} needs "
            f"{why or 'the TensorFlow backend of Keras'}: "
            'pip install "keras-flowers[openvino]"'
        )
    return str(precision)


def supported_precision(precision: str) -> str:
    """Returns a precision, or `"float32"` where the processor lacks it.

    A warning says so in one line.
    """
    if precision == "float32":
        return precision
    import openvino

    found = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if _CAPABILITIES[precision] in found:
        return precision
    warnings.warn(
        f"This processor does not compute in {precision}; float32 is used instead.",
        stacklevel=2,
    )
    return "float32"


def build_predictor(
    network: keras.Model,
    images: int,
    sample: np.ndarray,
    precision: str = "float32",
) -> Predictor:
    """Returns a function that computes what a network returns in inference.

    Args:
        network: A model whose weights do not change meanwhile. It takes one input,
            `(batch, height, width, 3)`.
        images: How many images it will be called with in all.
        sample: Some of the images, float32 or uint8 `(count, height, width, 3)`: the
            first are compared, and all of them calibrate int8.
        precision: One of `PRECISIONS`. `bf16` and `int8` need OpenVINO.

    Returns:
        Maps a batch of images to float32 answers. Batches of one size are fastest.
    """
    predictor = build_openvino_predictor(network, images, sample, precision)
    if predictor is not None:
        return predictor
    is_on_tensorflow = keras.backend.backend() == "tensorflow"
    if not is_on_tensorflow or _count_bytes(network) > _MOST_CONSTANT_BYTES:
        return lambda batch: np.asarray(predict_batch(network, batch), np.float32)
    return _build_constant_graph(network)


def build_openvino_predictor(
    network: keras.Model,
    images: int,
    sample: np.ndarray,
    precision: str = "float32",
) -> Predictor | None:
    """Returns what `build_predictor` does, or `None` where OpenVINO does not pay.

    It does not pay for few images, on a GPU, and in half precision. If its answers
    differ from those of Keras, a warning says so in one line.
    """
    if precision == "float32" and (
        images < _FEWEST_FOR_OPENVINO or not _is_for_openvino(network)
    ):
        return None
    return _try_openvino(network, sample, precision)


def _is_for_openvino(network: keras.Model) -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return (
        importlib.util.find_spec("openvino") is not None
        and not tf.config.get_visible_devices("GPU")
        and not has_strategy(network)
        and network.outputs[0].dtype == "float32"
        and _count_bytes(network) <= _MOST_CONSTANT_BYTES
    )


def _try_openvino(
    network: keras.Model, sample: np.ndarray, precision: str
) -> Predictor | None:
    """Returns the predictor of OpenVINO; `None`, with a warning, if it is not right."""
    try:
        predictor = _load_into_openvino(network, sample, precision)
        compared = sample[:_COMPARED]
        got = predictor(compared)
        wanted = keras.ops.convert_to_numpy(
            network(np.asarray(compared, np.float32), training=False)
        )
    except Exception as error:
        # A converter raises nearly anything for a layer that it does not know.
        reason = first_line(error)
    else:
        difference = float(np.abs(got - wanted).max(initial=0.0))
        largest = float(np.abs(wanted).max(initial=0.0))
        # Half precision and integers are meant to differ.
        if precision != "float32" or difference <= _TOLERANCE * max(largest, 1e-6):
            return predictor
        reason = f"its results differ by {difference:.2g} of {largest:.2g}"
    warnings.warn(
        f"OpenVINO is not used for {network.name}, Keras is: {reason}.", stacklevel=3
    )
    return None


def _load_into_openvino(
    network: keras.Model, sample: np.ndarray, precision: str
) -> Predictor:
    import openvino
    import tensorflow as tf

    shape = (None, *sample.shape[1:])
    function = tf.function(
        lambda images: network(images, training=False),
        input_signature=[tf.TensorSpec(shape, tf.float32)],
    )
    converted = openvino.convert_model(function.get_concrete_function())
    if precision == "int8":
        converted = _quantize(converted, sample)
    compiled = openvino.Core().compile_model(
        converted, "CPU", {"INFERENCE_PRECISION_HINT": _HINTS[precision]}
    )
    request = compiled.create_infer_request()
    # A copy, because the next call writes to the same memory.
    return lambda batch: np.array(
        request.infer([np.asarray(batch, np.float32)])[0], np.float32
    )


def _quantize(converted: Any, sample: np.ndarray) -> Any:
    import nncf

    images = sample[:CALIBRATION_IMAGES]
    batches: Sequence[np.ndarray] = [np.asarray(i[None], np.float32) for i in images]
    return nncf.quantize(converted, nncf.Dataset(batches), subset_size=len(batches))


def _build_constant_graph(network: keras.Model) -> Predictor:
    import tensorflow as tf

    # TensorFlow folds constant weights: batch normalization becomes part of the
    # convolutions, and the pass takes a quarter less time.
    trained, others = (
        [np.asarray(keras.ops.convert_to_numpy(v)) for v in variables]
        for variables in (network.trainable_variables, network.non_trainable_variables)
    )

    def predict(images: Any) -> Any:
        constants = ([tf.constant(a) for a in arrays] for arrays in (trained, others))
        answers, _ = network.stateless_call(*constants, images, training=False)
        return tf.cast(answers, tf.float32)

    compiled = tf.function(predict)
    return lambda batch: compiled(tf.constant(batch)).numpy()


def _count_bytes(network: keras.Model) -> int:
    return sum(4 * int(np.prod(variable.shape)) for variable in network.variables)
