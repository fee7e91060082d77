"""Classifies many images with a model whose weights do not change meanwhile.

OpenVINO computes the features of the backbone, where it is installed and pays, in the
precision that was asked for. Keras computes the rest, which is small, in float32: the
head, the temperature and the average over views.
"""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops
from keras_flowers_runtime.images import ImageOptions, Resize, load_image

from keras_flowers.data.pipelines import choose_spread
from keras_flowers.distribution import predict_batch
from keras_flowers.errors import InputError
from keras_flowers.inference import (
    CALIBRATION_IMAGES,
    Predictor,
    build_openvino_predictor,
    check_precision,
    supported_precision,
)
from keras_flowers.layers.views import take_view

if TYPE_CHECKING:
    from keras_flowers.models.image_classifier import ImageClassifier

# A graph of each batch size would be traced: one size for all of them.
_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class PredictionDifference:
    """What a lower inference precision changes in the predictions for some images.

    Attributes:
        precision: The precision of the features.
        images: Number of images that were predicted in both precisions.
        changed: How many of them get another answer than in float32.
        largest_difference: The largest difference of a probability.
    """

    precision: str
    images: int
    changed: int
    largest_difference: float


class FrozenClassifier:
    """Classifies batches of images with the features that a function computes.

    Args:
        model: A classifier with a backbone.
        extract: Maps images to the features of its backbone.
        tta: Number of views over which the probabilities are averaged.
    """

    def __init__(self, model: "ImageClassifier", extract: Predictor, tta: int) -> None:
        self._model = model
        self._extract = extract
        self._head = keras.Model(model.features, model.outputs[0])
        self._tta = tta

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns the probabilities, as `predict_both` does."""
        return self.predict_both(images)[0]

    def predict_both(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns probabilities and features.

        Args:
            images: uint8 or float32 `(batch, height, width, 3)`.

        Returns:
            The probabilities, `(batch, classes)`, averaged over the views, with the
            temperature of the model; and the features of the images themselves.
        """
        features = self._extract(images)
        total = self._classify(features)
        for view in range(1, self._tta):
            seen = ops.convert_to_numpy(take_view(images, view))
            total = total + self._classify(self._extract(seen))
        return total / np.float32(self._tta), features

    def _classify(self, features: np.ndarray) -> np.ndarray:
        probabilities = self._head(features, training=False)
        probabilities = self._model.scale_probabilities(probabilities)
        return np.asarray(ops.convert_to_numpy(probabilities), np.float32)


def build_frozen_classifier(
    model: "ImageClassifier",
    images: int,
    sample: np.ndarray,
    precision: str = "float32",
    tta: int = 1,
) -> FrozenClassifier | None:
    """Returns what classifies images with OpenVINO; `None` where that does not pay.

    Args:
        model: Any classifier.
        images: How many images there will be in all, or 0 if that is not known.
        sample: Some of the images, as for `keras_flowers.inference.build_predictor`.
        precision: What `choose_precision` returned.
        tta: Number of views over which the probabilities are averaged.
    """
    if model.backbone is None:
        return None
    extract = build_openvino_predictor(
        model.feature_extractor(), tta * images, sample, precision
    )
    return None if extract is None else FrozenClassifier(model, extract, tta)


def choose_precision(model: keras.Model, precision: Any) -> str:
    """Returns the precision of a pass: the one asked for, if the processor has it.

    Raises:
        InputError: If it is none, needs a library that is not installed, or the model
            has no backbone whose features it could be the precision of.
    """
    if check_precision(precision) == "float32":
        return "float32"
    if getattr(model, "backbone", None) is None:
        raise InputError(
            "`inference_precision` is that of the features of a backbone, and the "
            f"model has none. Received: inference_precision={precision!r}"
        )
    return supported_precision(precision)


def measure_difference(
    model: "ImageClassifier",
    classifier: FrozenClassifier,
    images: np.ndarray,
    precision: str,
    tta: int = 1,
) -> PredictionDifference:
    """Compares predictions in a lower precision with those of Keras in float32.

    Args:
        model: The model.
        classifier: What `build_frozen_classifier` returned for it.
        images: `(count, height, width, 3)`; the first `CALIBRATION_IMAGES` count.
        precision: The precision of the classifier.
        tta: As for `build_frozen_classifier`.
    """
    images = images[:CALIBRATION_IMAGES]
    network = model.averaging_views(tta)
    lower, exact = (
        np.concatenate(
            [
                np.asarray(predict(images[first : first + _BATCH_SIZE]))
                for first in range(0, len(images), _BATCH_SIZE)
            ]
        )
        for predict in (classifier.predict, lambda batch: predict_batch(network, batch))
    )
    first, second = (
        model.label_mode.find_labels(probabilities, model.thresholds)
        for probabilities in (lower, exact)
    )
    return PredictionDifference(
        precision,
        images=len(images),
        changed=int((first != second).any(axis=1).sum()),
        largest_difference=float(np.abs(lower - exact).max(initial=0.0)),
    )


def load_spread(
    paths: Sequence[str | os.PathLike[str]],
    image_size: tuple[int, int],
    resize: Resize,
) -> np.ndarray | None:
    """Loads `CALIBRATION_IMAGES` images from all over a list of files, or all of them.

    Args:
        paths: Image files. Those that cannot be read are left out.
        image_size: `(height, width)` of the result.
        resize: See `ImageOptions`.

    Returns:
        uint8 `(count, height, width, 3)`; `None` if no image can be read.
    """
    images = []
    for position in choose_spread(len(paths), CALIBRATION_IMAGES):
        with contextlib.suppress(InputError):
            images.append(
                load_image(paths[position], image_size, ImageOptions(resize=resize))
            )
    return np.stack(images) if images else None
