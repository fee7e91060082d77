"""Tells images of none of the classes from images of a known class."""

import dataclasses
from typing import Any, Self

import numpy as np

# The part of images of known classes that is taken for unknown.
ERROR_RATE = 0.05
# An image is as similar to the training images as to the fifth most similar of them.
NEIGHBORS = 5


@dataclasses.dataclass(frozen=True)
class UnknownDetector:
    """Tells images of none of the classes, by what a model computes of them.

    With features of a backbone, an image is unknown if it is unlike the training
    images: the cosine similarity of its features to those of the fifth nearest of them
    is below a threshold (Sun et al., "Out-of-Distribution Detection with Deep Nearest
    Neighbors", 2022). Without features, it is unknown if the probability of its most
    probable class is below a threshold. `fit` chooses both thresholds such that 5 % of
    the validation images are below.

    Attributes:
        probability_threshold: The lowest probability of a known image, 0..1.
        similarity_threshold: The lowest similarity of a known image, -1..1; `None`
            without features.
        examples: float16 `(count, features)`, features of training images, each of
            length 1; `None` without features.
    """

    probability_threshold: float
    similarity_threshold: float | None = None
    examples: np.ndarray | None = None

    @classmethod
    def fit(
        cls,
        probabilities: np.ndarray,
        features: np.ndarray | None = None,
        examples: np.ndarray | None = None,
    ) -> Self:
        """Returns the detector of a trained model.

        Args:
            probabilities: Float `(count, classes)`, of the validation images.
            features: Float `(count, features)`, of the validation images.
            examples: Float `(others, features)`, of training images.
        """
        lowest = float(np.quantile(probabilities.max(axis=1), ERROR_RATE))
        if features is None or examples is None or len(examples) < NEIGHBORS:
            return cls(lowest)
        detector = cls(lowest, 0.0, _normalize(examples).astype(np.float16))
        similarities = detector.similarities(features)
        threshold = float(np.quantile(similarities, ERROR_RATE))
        return dataclasses.replace(detector, similarity_threshold=threshold)

    def similarities(self, features: np.ndarray) -> np.ndarray:
        """Returns how similar images are to the training images, float `(batch,)`.

        Args:
            features: Float `(batch, features)`.
        """
        assert self.examples is not None
        products = _normalize(features) @ self.examples.astype(np.float32).T
        nearest: np.ndarray = np.partition(products, -NEIGHBORS, axis=1)
        return nearest[:, -NEIGHBORS]

    def find_unknown(
        self, probabilities: np.ndarray, features: np.ndarray | None
    ) -> np.ndarray:
        """Returns whether images show none of the classes, bool `(batch,)`.

        Args:
            probabilities: Float `(batch, classes)`.
            features: Float `(batch, features)`; `None` for a model without a backbone.
        """
        if features is None or self.similarity_threshold is None:
            unknown: np.ndarray = ~(
                probabilities.max(axis=1) >= self.probability_threshold
            )
        else:
            unknown = ~(self.similarities(features) >= self.similarity_threshold)
        return unknown

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Returns the attributes as arrays, for a file of weights."""
        arrays = dataclasses.asdict(self)
        return {
            name: np.asarray(value)
            for name, value in arrays.items()
            if value is not None
        }

    @classmethod
    def from_arrays(cls, arrays: Any) -> Self:
        """Returns the detector that `to_arrays` was called on."""
        similarity = arrays.get("similarity_threshold")
        examples = arrays.get("examples")
        return cls(
            float(np.asarray(arrays["probability_threshold"])),
            None if similarity is None else float(np.asarray(similarity)),
            None if examples is None else np.asarray(examples),
        )


def _normalize(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float32)
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    normalized: np.ndarray = features / np.maximum(lengths, 1e-12)
    return normalized
