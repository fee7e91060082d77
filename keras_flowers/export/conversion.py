"""Converts a classifier to the file of another runtime."""

import contextlib
import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_flowers.errors import InputError
from keras_flowers.export.onnx_conversion import convert_to_onnx
from keras_flowers.export.similarity import (
    OUTPUTS,
    find_own_nodes,
    with_similarity,
)
from keras_flowers.layers.preprocessing import ResizeAndRescale
from keras_flowers.layers.views import average_views
from keras_flowers.models.backbone import Backbone
from keras_flowers.models.image_classifier import ImageClassifier

# The packages that writing and verifying each format needs, in addition to Keras.
_PACKAGES: dict[str, tuple[str, ...]] = {
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
    "openvino": ("openvino",),
    "saved_model": ("tensorflow",),
}
PRECISIONS = ("float32", "float16", "int8")
FILES = {
    "onnx": "model.onnx",
    "litert": "model.tflite",
    "openvino": "model.xml",
    "saved_model": "saved_model",
}


def check_format(format: str, precision: str) -> None:  # noqa: A002
    """Checks that a conversion is possible, before anything is read or written.

    Args:
        format: `"onnx"`, `"litert"`, `"openvino"` or `"saved_model"`.
        precision: `"float32"`, `"float16"` or `"int8"`.

    Raises:
        InputError: If an argument has another value, the format does not support the
            precision, Keras's backend cannot write it, or a package is not installed.
    """
    if format not in FILES:
        raise InputError(
            f"`format` must be one of {', '.join(FILES)}. Received: format={format!r}"
        )
    if precision not in PRECISIONS:
        raise InputError(
            "`quantize` must be float16, int8 or None. "
            f"Received: quantize={precision!r}"
        )
    if format == "saved_model" and precision != "float32":
        raise InputError(
            "A SavedModel cannot be quantized; the formats onnx, litert and openvino "
            f"can. Received: quantize={precision!r}"
        )
    backend = keras.backend.backend()
    if backend != "tensorflow" and not (backend == "jax" and format == "saved_model"):
        works = " (the JAX backend writes saved_model)" if backend == "jax" else ""
        raise InputError(
            f"The format {format} needs Keras's TensorFlow backend{works}. A .keras "
            "file works with all backends: set KERAS_BACKEND=tensorflow and export it "
            f"again. Received: the backend {backend}"
        )
    packages = _PACKAGES[format]
    if format == "openvino" and precision == "int8":
        packages += ("nncf",)
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"The format {format} needs {', '.join(missing)}, which is not installed: "
            f'pip install "keras-flowers[{format}]"'
        )


def takes_any_size(format: str, precision: str) -> bool:  # noqa: A002
    """Returns whether the converted model resizes images itself.

    LiteRT allocates memory for one size. OpenVINO 2026.4 computes wrong results for a
    branch that depends on the size. Calibration needs one size, and so does JAX when
    the size of the batch is unknown.
    """
    is_tensorflow = keras.backend.backend() == "tensorflow"
    can = format in ("onnx", "saved_model") and precision != "int8"
    return is_tensorflow and can


def convert(
    model: ImageClassifier,
    format: str,  # noqa: A002
    precision: str,
    folder: Path,
    calibration: Sequence[np.ndarray] = (),
    tta: int = 1,
) -> None:
    """Writes a model in the format of another runtime.

    Args:
        model: A model that computes in float32; see `in_float32`.
        format: `"onnx"`, `"litert"`, `"openvino"` or `"saved_model"`.
        precision: `"float32"`, `"float16"` or `"int8"`.
        folder: An existing folder. `FILES` names the file that is written there.
        calibration: Images to calibrate int8 with, each uint8 `(height, width, 3)` in
            the image size of the model.
        tta: Over how many views of an image the model averages.
    """
    path = folder / FILES[format]
    serving = _serving_model(model, takes_any_size(format, precision), tta)
    batches = [image[None] for image in calibration]
    with _quiet():
        if format == "saved_model":
            serving.export(
                path,
                format="tf_saved_model",
                verbose=False,
                input_signature=_signature(serving),
            )
        elif format == "onnx":
            convert_to_onnx(serving, model, precision, path, batches)
        elif format == "litert":
            _convert_to_litert(serving, precision, path, batches)
        else:
            _convert_to_openvino(serving, precision, path, batches)


def in_float32(model: ImageClassifier) -> ImageClassifier:
    """Returns the model, or a copy of it that computes in float32.

    A model that trained in half precision would be exported in half precision, which
    few runtimes compute fast on a CPU and some do not support.
    """
    backbone = model.backbone
    layers = [*model.layers, *(() if backbone is None else backbone.network.layers)]
    if all(layer.compute_dtype == "float32" for layer in layers):
        return model
    copy = _copy_in_float32(model)
    copy.temperature = model.temperature
    return copy


def fold_temperature(model: ImageClassifier) -> ImageClassifier:
    """Returns the model, or one of temperature 1 that gives the same answers.

    The weights of its last layer are divided by the temperature, which every runtime
    and eight bits can do.
    """
    if model.temperature == 1:
        return model
    folded = _copy_in_float32(model)
    last = folded.get_layer(folded.head_layer_names[-1])
    last.set_weights([weight / model.temperature for weight in last.get_weights()])
    return folded


def _copy_in_float32(model: ImageClassifier) -> ImageClassifier:
    backbone = model.backbone
    if backbone is not None:
        backbone = Backbone(
            backbone.network,
            # The head has other layers behind a backbone with random weights.
            "own" if backbone.is_pretrained else None,
            image_size=backbone.image_size,
            dtype="float32",
        )
    copy = ImageClassifier(
        model.class_names,
        image_size=model.image_size,
        hidden_units=model.hidden_units,
        dropout=None if model.has_linear_head else 0.0,
        augmentation=False,
        backbone=backbone,
        resize=model.resize,
        multi_label=model.multi_label,
        thresholds=model.thresholds,
        dtype="float32",
    )
    copy.set_weights(model.get_weights())
    copy.unknown_detector = model.unknown_detector
    return copy


class _FitSize(keras.layers.Layer):
    """Resizes images to the size of the model, unless they have it already."""

    def __init__(self, image_size: tuple[int, int], resize: str) -> None:
        super().__init__(dtype="float32")
        self._size = image_size
        self._resize = ResizeAndRescale(
            image_size, scale=1.0, resize=resize, dtype="float32"
        )

    def call(self, images: Any) -> Any:
        height, width = self._size
        shape = ops.shape(images)
        has_size = ops.logical_and(
            ops.equal(shape[1], height), ops.equal(shape[2], width)
        )
        # Without the branch, images of the right size would be multiplied by two
        # identity matrices, which takes a quarter of the time of a small network.
        fitted = ops.cond(
            has_size,
            lambda: ops.cast(images, "float32"),
            lambda: self._resize(images),
        )
        return ops.reshape(fitted, (-1, height, width, 3))

    def compute_output_spec(self, images: Any) -> keras.KerasTensor:
        return keras.KerasTensor((images.shape[0], *self._size, 3), dtype="float32")


def _serving_model(model: ImageClassifier, any_size: bool, tta: int) -> keras.Model:
    """Returns a model that maps uint8 images to probabilities.

    A model that compares images with training images also returns their similarity.
    """
    sides = (None, None) if any_size else model.image_size
    inputs = keras.Input((*sides, 3), dtype="uint8", name="images")
    if any_size:
        images = _FitSize(model.image_size, model.resize)(inputs)
    else:
        images = ops.cast(inputs, "float32")
    network = average_views(with_similarity(model), model.image_size, tta)
    # Explicit, because the augmentation layers of Keras default to training=True.
    outputs = network(images, training=False)
    if isinstance(outputs, list):
        outputs = dict(zip(OUTPUTS, outputs, strict=True))
    return keras.Model(inputs, outputs, name="classifier")


def _signature(serving: keras.Model) -> list[keras.InputSpec]:
    # Without a signature, Keras exports only models that have been called.
    inputs = serving.inputs[0]
    return [keras.InputSpec(inputs.dtype, inputs.shape, name=inputs.name)]


def _similarity_nodes_of_openvino(model: Any) -> list[str]:
    if len(model.outputs) == 1:
        return []
    inputs = {
        node.get_friendly_name(): [
            value.get_node().get_friendly_name() for value in node.input_values()
        ]
        for node in model.get_ordered_ops()
    }
    probabilities, similarity = (
        output.get_node().get_friendly_name()
        for output in sorted(model.outputs, key=lambda one: -len(one.partial_shape))
    )
    return find_own_nodes(inputs, similarity, probabilities)


def _convert_to_litert(
    serving: keras.Model, precision: str, path: Path, batches: Sequence[np.ndarray]
) -> None:
    import tensorflow as tf

    options: dict[str, Any] = {}
    if precision != "float32":
        options["optimizations"] = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    if precision == "int8":
        options["representative_dataset"] = lambda: ([batch] for batch in batches)
    serving.export(
        path,
        format="litert",
        verbose=False,
        input_signature=_signature(serving),
        **options,
    )


def _convert_to_openvino(
    serving: keras.Model, precision: str, path: Path, batches: Sequence[np.ndarray]
) -> None:
    import openvino

    serving.export(
        os.fspath(path),
        format="openvino",
        verbose=False,
        input_signature=_signature(serving),
    )
    if precision == "float32":
        return
    converted = openvino.Core().read_model(path)
    if precision == "int8":
        import nncf

        names = _similarity_nodes_of_openvino(converted)
        converted = nncf.quantize(
            converted,
            nncf.Dataset(batches),
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=names) if names else None,
        )
    quantized = path.with_stem("quantized")
    openvino.save_model(converted, quantized, compress_to_fp16=precision == "float16")
    del converted  # it has mapped the file that is replaced
    quantized.with_suffix(".bin").replace(path.with_suffix(".bin"))
    quantized.replace(path)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps converters from logging what they could not simplify, and from reporting.

    OpenVINO and NNCF send usage statistics unless they run in continuous integration.
    """
    levels = {name: logging.getLogger(name).level for name in ("tf2onnx", "nncf")}
    variables = {name: os.environ.get(name) for name in ("CI", "NNCF_CI")}
    os.environ.update(dict.fromkeys(variables, "true"))
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # Keras's path to ONNX asks NumPy for names that are gone.
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name, value in variables.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
