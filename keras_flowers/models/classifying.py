"""The functions with which a classifier classifies batches of images."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras_flowers_runtime.classification import (
    check_unknown,
    no_detector_error,
    refuse_threshold,
)

from keras_flowers.distribution import predict_batch, strategy_scope
from keras_flowers.inference import build_batch_predictor
from keras_flowers.layers.views import average_views
from keras_flowers.models.unknown import UnknownDetector

if TYPE_CHECKING:
    from keras_flowers.models.image_classifier import ImageClassifier


def build_classifying_function(
    model: "ImageClassifier", unknown: str | float | None, tta: int, count: int
) -> Callable[[Any], Any]:
    """Returns a function that classifies batches; see `ImageClassifier.predictor`."""
    unknown = check_unknown(unknown)
    if model.multi_label:
        # An image below all thresholds is unknown, which needs no detector.
        refuse_threshold(unknown)
        unknown = None
    network = model.averaging_views(tta)
    predict_plainly: Callable[[Any], Any] = partial(predict_batch, network)
    # A temperature is no part of the network that OpenVINO computes.
    if model.backbone is not None and (tta > 1 or model.temperature == 1):
        predict_plainly = build_batch_predictor(network, tta * count)
    if unknown is None:
        return predict_plainly
    detector = model.unknown_detector
    if isinstance(unknown, float):
        detector = UnknownDetector(unknown)
    if detector is None:
        raise no_detector_error(
            "it was not trained by `train`, or with fewer than 50 validation images"
        )
    find_unknown = detector.find_unknown
    if detector.examples is None:

        def predict(images: Any) -> Any:
            probabilities = np.asarray(predict_plainly(images))
            return probabilities, find_unknown(probabilities, None)

        return predict
    predict_both = build_feature_predictor(model, tta)

    def predict_and_compare(images: Any) -> Any:
        probabilities, features = predict_both(images)
        return probabilities, find_unknown(probabilities, features)

    return predict_and_compare


def build_feature_predictor(
    model: "ImageClassifier", tta: int
) -> Callable[[Any], tuple[np.ndarray, np.ndarray]]:
    """Returns a function that predicts probabilities and features of a batch.

    The probabilities are averaged over the views of an image, with the temperature of
    the model; the features are those of the image itself.

    Args:
        model: A classifier with a backbone.
        tta: As for `ImageClassifier.classify`.
    """
    with strategy_scope(model):
        both = keras.Model(model.inputs[0], [model.outputs[0], model.features])
        both = average_views(both, model.image_size, tta, model.scale_probabilities)

    def predict(images: Any) -> tuple[np.ndarray, np.ndarray]:
        probabilities, features = predict_batch(both, images)
        if tta == 1:
            probabilities = model.scale_probabilities(probabilities)
        to_numpy = keras.ops.convert_to_numpy
        return to_numpy(probabilities), to_numpy(features)

    return predict
