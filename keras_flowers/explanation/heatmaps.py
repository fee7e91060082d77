"""Computes which parts of an image speak for a class, on every backend."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from PIL import Image

from keras_flowers.errors import InputError
from keras_flowers.layers.preprocessing import ResizeAndRescale
from keras_flowers.models.image_classifier import ImageClassifier

_BATCH_SIZE = 32
# Patches per side; each overlaps half of the next one.
_PATCHES = 8


def find_maps(model: ImageClassifier) -> Any | None:
    """Returns the last feature maps of the backbone, `(batch, rows, columns, n)`.

    `None` for a model without a backbone, and for one whose maps have one position.
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
    """Weighs the feature maps of the backbone by their gradients.

    At each position the products of the maps and of the gradients of the class's log
    odds are added, and what speaks against the class is dropped: Grad-CAM (Selvaraju
    et al. 2017) without its average over the positions (HiResCAM, Draelos and Carin
    2020). Where the backbone ends in a mean over all positions both are the same. The
    log odds tell a class from the others, and their gradient does not vanish when the
    model is sure.
    """

    def __init__(self, model: ImageClassifier, maps: Any) -> None:
        at = model.layers.index(model.backbone)
        network = model.layers[at].network
        self._before = model.layers[1:at]
        self._to_maps = keras.Model(network.inputs[0], maps)
        self._to_features = keras.Model(maps, network.outputs[0])
        self._head = model.layers[at + 1 :]

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
        return ops.sum(_log_odds(_logits(self._head[-1], values), labels))


class Occlusion:
    """Covers one patch after the other and measures what that costs the class.

    After Zeiler and Fergus (2014). Patches have an eighth of each side, overlap by
    half, and show the mean colour of the image. It needs nothing but predictions, so
    it also explains a dense network, whose layers have no positions.
    """

    def __init__(self, model: ImageClassifier) -> None:
        self._to_hidden = keras.Model(model.inputs[0], model.layers[-1].input)
        self._output = model.layers[-1]

    def __call__(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Returns the heat, float32 `(batch, rows, columns)`, from 0 up.

        Args:
            images: uint8 `(batch, height, width, 3)`.
            labels: int32 `(batch,)`, the class to explain for each image.
        """
        pairs = zip(images, labels, strict=True)
        return np.stack([self._heat(image, label) for image, label in pairs])

    def _heat(self, image: np.ndarray, label: int) -> np.ndarray:
        height, width, _ = image.shape
        mean = image.mean(axis=(0, 1)).round().astype(np.uint8)
        tops, tall = _places(height)
        lefts, wide = _places(width)
        windows = [
            (slice(top, top + tall), slice(left, left + wide))
            for top in tops
            for left in lefts
        ]
        whole = self._odds(image[None], label)[0]
        drop, covered = np.zeros((height, width)), np.zeros((height, width))
        for start in range(0, len(windows), _BATCH_SIZE):
            some = windows[start : start + _BATCH_SIZE]
            batch = np.repeat(image[None], len(some), axis=0)
            for row, window in zip(batch, some, strict=True):
                row[window] = mean
            for window, odds in zip(some, self._odds(batch, label), strict=True):
                drop[window] += whole - odds
                covered[window] += 1
        return np.maximum(drop / covered, 0.0).astype(np.float32)

    def _odds(self, images: np.ndarray, label: int) -> np.ndarray:
        hidden = self._to_hidden(images, training=False)
        labels = np.full(len(images), label)
        odds: np.ndarray = ops.convert_to_numpy(
            _log_odds(_logits(self._output, hidden), labels)
        )
        return odds


def resize_heat(heat: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Returns heat as float32 of the size of the image, the hottest part at 1.

    All zero where nothing speaks for the class.
    """
    highest = float(heat.max())
    scaled = heat / highest if highest > 0 else heat
    height, width = image_size
    image = Image.fromarray(scaled.astype(np.float32))
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def _places(side: int) -> tuple[np.ndarray, int]:
    """Returns where patches begin along a side, and their length."""
    length = max(1, round(side / _PATCHES))
    count = 1 if length >= side else -(-2 * (side - length) // length) + 1
    return np.linspace(0, side - length, count).round().astype(int), length


def _logits(output: keras.layers.Dense, hidden: Any) -> Any:
    """Returns what the last layer computes before its softmax."""
    values = ops.matmul(ops.cast(hidden, "float32"), ops.cast(output.kernel, "float32"))
    return values + ops.cast(output.bias, "float32")


def _log_odds(logits: Any, labels: np.ndarray) -> Any:
    """Returns the log odds of a class against all others, `(batch,)`."""
    chosen = ops.one_hot(labels, logits.shape[-1], dtype="float32")
    others = logits - 1e9 * chosen
    return ops.sum(logits * chosen, axis=-1) - ops.logsumexp(others, axis=-1)


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
