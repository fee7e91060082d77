"""Computes which parts of an image support a class."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from keras_flowers_runtime.heat import occlude

from keras_flowers.errors import InputError
from keras_flowers.layers.preprocessing import ResizeAndRescale
from keras_flowers.models.image_classifier import ImageClassifier


def find_maps(model: ImageClassifier) -> Any | None:
    """Returns the last feature maps of the backbone, `(batch, rows, columns, n)`.

    `None` for a model without a backbone, and if the maps have only one position.
    """
    if model.backbone is None:
        return None
    for layer in reversed(model.backbone.network.layers):
        outputs = layer.output
        shape: tuple[Any, ...] = getattr(outputs, "shape", ())
        if len(shape) == 4 and None not in shape[1:] and shape[1] * shape[2] > 1:
            is_input = isinstance(layer, keras.layers.InputLayer)
            return None if is_input else outputs
    return None


class GradCam:
    """Weights the feature maps of the backbone by their gradients.

    At each position, the feature maps are multiplied by the gradients of the log odds
    of the class and summed, and negative sums are set to zero. This is Grad-CAM
    (Selvaraju et al., 2017) without the average over positions (HiResCAM, Draelos and
    Carin, 2020); for a backbone that ends in global average pooling, both are the
    same. The log odds compare a class with all others, and their gradient does not
    vanish if the model is certain.
    """

    def __init__(self, model: ImageClassifier, maps: Any) -> None:
        at = model.layers.index(model.backbone)
        network = model.layers[at].network
        self._before = model.layers[1:at]
        self._to_maps = keras.Model(network.inputs[0], maps)
        self._to_features = keras.Model(maps, network.outputs[0])
        self._head = model.layers[at + 1 :]
        self._log_odds = model.label_mode.log_odds

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the heat, float32 `(batch, rows, columns)`, from 0 up.

        Args:
            images: uint8 `(batch, height, width, 3)`.
            labels: int32 `(batch,)`, the class to explain for each image.
        """
        values = ops.convert_to_tensor(images)
        for layer in self._before:
            if isinstance(layer, ResizeAndRescale):  # the others augment in training
                values = layer(values)
        maps = self._to_maps(values, training=False)
        gradients = _gradient(
            lambda x: self._odds(x, labels), ops.cast(maps, "float32")
        )
        products = ops.convert_to_numpy(ops.cast(maps, "float32")) * gradients
        heat: np.ndarray = np.maximum(products.sum(axis=-1), 0.0)
        return heat

    def _odds(self, maps: Any, labels: np.ndarray) -> Any:
        values = self._to_features(maps, training=False)
        for layer in self._head[:-1]:
            values = layer(values, training=False)
        return ops.sum(self._log_odds(_logits(self._head[-1], values), labels))


class Occlusion:
    """Covers one patch after the other and measures how much the class loses.

    It needs only predictions, so it also explains a dense network, whose layers have
    no spatial positions. See `keras_flowers_runtime.heat.occlude`.
    """

    def __init__(self, model: ImageClassifier) -> None:
        self._to_hidden = keras.Model(model.inputs[0], model.layers[-1].input)
        self._output = model.layers[-1]
        self._log_odds = model.label_mode.log_odds

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the heat, float32 `(batch, rows, columns)`, from 0 up.

        Args:
            images: uint8 `(batch, height, width, 3)`.
            labels: int32 `(batch,)`, the class to explain for each image.
        """
        return np.stack(
            [
                occlude(image, functools.partial(self._odds, label=int(label)))
                for image, label in zip(images, labels, strict=True)
            ]
        )

    def _odds(self, images: np.ndarray, label: int) -> np.ndarray:
        hidden = self._to_hidden(images, training=False)
        labels = np.full(len(images), label)
        odds: np.ndarray = ops.convert_to_numpy(
            self._log_odds(_logits(self._output, hidden), labels)
        )
        return odds


def _logits(output: keras.layers.Dense, hidden: Any) -> Any:
    """Returns the logits of the last layer."""
    values = ops.matmul(ops.cast(hidden, "float32"), ops.cast(output.kernel, "float32"))
    return values + ops.cast(output.bias, "float32")


def _gradient(function: Callable[[Any], Any], point: Any) -> np.ndarray:
    """Returns the gradient of a function, a scalar, at a point."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(point)
            value = function(point)
        return np.asarray(tape.gradient(value, point))
    if backend == "jax":
        import jax

        return np.asarray(jax.grad(function)(point))
    raise InputError(
        "Heat maps of a backbone need the TensorFlow or the JAX backend. "
        f"Received: KERAS_BACKEND={backend}"
    )
