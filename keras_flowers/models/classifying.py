"""The functions with which a classifier classifies batches of images."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras_flowers_runtime.classification import (
    check_unknown,
    no_detector_error,
)

from keras_flowers.distribution import predict_batch, strategy_scope
from keras_flowers.layers.views import average_views
from keras_flowers.models.frozen_prediction import (
    FrozenClassifier,
    PredictionDifference,
    build_frozen_classifier,
    choose_precision,
    measure_difference,
)
from keras_flowers.models.unknown import UnknownDetector

if TYPE_CHECKING:
    from keras_flowers.models.image_classifier import ImageClassifier


def build_classifying_function(
    model: "ImageClassifier",
    unknown: str | float | None,
    tta: int,
    count: int,
    precision: str = "float32",
    sample: np.ndarray | None = None,
    on_difference: Callable[[PredictionDifference], None] | None = None,
) -> Callable[[Any], Any]:
    """Returns a function that classifies batches; see `ImageClassifier.predictor`."""
    precision = choose_precision(model, precision)
    unknown = check_unknown(unknown)
    if model.multi_label:
        # An image below all thresholds is unknown, which needs no detector.
        unknown = None
    # None once it is known that Keras computes everything.
    chosen: list[FrozenClassifier | None] = []

    def find_classifier(images: Any) -> FrozenClassifier | None:
        """Returns what computes with OpenVINO; the first batch decides."""
        if not chosen:
            some = images if sample is None else sample
            found = build_frozen_classifier(model, count, some, precision, tta)
            chosen.append(found)
            if found is not None and on_difference and precision != "float32":
                on_difference(measure_difference(model, found, some, precision, tta))
        return chosen[0]

    network = model.averaging_views(tta)

    def predict_plainly(images: Any) -> Any:
        classifier = find_classifier(images)
        return (classifier.predict if classifier else predict_with_keras)(images)

    predict_with_keras = partial(predict_batch, network)
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
        classifier = find_classifier(images)
        predict = predict_both if classifier is None else classifier.predict_both
        probabilities, features = predict(images)
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
