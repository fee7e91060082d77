"""What an exported model computes to tell unknown images, and at which precision."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.models.unknown import NEIGHBORS

# Sorted: TensorFlow and ONNX return the outputs of a dictionary in the order of its
# keys. LiteRT and OpenVINO may change it: there, the rank tells the outputs apart.
OUTPUTS = ("probabilities", "similarity")


class _Similarity(keras.layers.Layer):
    """The similarity of images to training images, as of an `UnknownDetector`.

    Args:
        examples: float16 `(count, features)`, features of training images, each of
            length 1.

    Input shape:
        Float `(batch, features)`.

    Output shape:
        float32 `(batch,)`, from -1 to 1.
    """

    def __init__(self, examples: np.ndarray) -> None:
        super().__init__(dtype="float32", name="similarity")
        self._examples = self.add_weight(
            shape=examples.shape, dtype="float16", trainable=False, name="examples"
        )
        self._examples.assign(examples)

    def call(self, features: Any) -> Any:
        # In half precision, a smaller limit would be zero; and eight bits may not
        # divide by a length that they round to zero.
        squares = ops.sum(ops.square(features), axis=-1, keepdims=True)
        features = features * ops.rsqrt(ops.maximum(squares, 1e-6))
        examples = ops.transpose(ops.cast(self._examples, "float32"))
        products = ops.matmul(features, examples)
        if keras.backend.backend() == "jax":
            # TensorFlow cannot load JAX's `top_k`.
            return ops.sort(products, axis=-1)[:, -NEIGHBORS]
        return ops.top_k(products, NEIGHBORS)[0][:, -1]

    def compute_output_spec(self, features: Any) -> keras.KerasTensor:
        return keras.KerasTensor((features.shape[0],), dtype="float32")


def has_similarity(model: ImageClassifier) -> bool:
    """Returns whether a model compares images with training images."""
    detector = model.unknown_detector
    return detector is not None and detector.examples is not None


def with_similarity(model: ImageClassifier) -> keras.Model:
    """Returns a model of `[probabilities, similarity]`, or the model itself.

    Args:
        model: A model of temperature 1.
    """
    detector = model.unknown_detector
    if detector is None or detector.examples is None:
        return model
    similarity = _Similarity(detector.examples)(model.features)
    return keras.Model(model.inputs[0], [model.outputs[0], similarity])


def find_own_nodes(
    inputs: Mapping[str, Iterable[str]], similarity: str, probabilities: str
) -> list[str]:
    """Returns the nodes of a graph that compute nothing but the similarity.

    Products of features of length 1 are too small for eight bits.

    Args:
        inputs: By the name of a node, those of the nodes that it takes.
        similarity: The name of the last node of the similarity.
        probabilities: The name of the last node of the probabilities.
    """
    shared = _find_ancestors(inputs, probabilities)
    return sorted(_find_ancestors(inputs, similarity) - shared)


def _find_ancestors(inputs: Mapping[str, Iterable[str]], name: str) -> set[str]:
    found, waiting = set(), [name]
    while waiting:
        node = waiting.pop()
        if node in inputs and node not in found:
            found.add(node)
            waiting.extend(inputs[node])
    return found
