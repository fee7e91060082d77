"""What a run finds out on its validation images once it is trained."""

import contextlib
import dataclasses
from typing import Any

import keras
import numpy as np

from keras_flowers.distribution import predict_batch
from keras_flowers.errors import InputError
from keras_flowers.evaluation.calibration import (
    MIN_IMAGES,
    fit_temperature,
    fit_thresholds,
)
from keras_flowers.evaluation.evaluate import AnyEvaluation, evaluate
from keras_flowers.evaluation.multi_label import MultiLabelEvaluation
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.models.unknown import UnknownDetector
from keras_flowers.training.feature_datasets import with_validation_views
from keras_flowers.training.preparation import PreparedRun
from keras_flowers.training.stages import Stage

# Training images to which new ones are compared: these many, or these many of a class.
_EXAMPLES = 1000
_EXAMPLES_PER_CLASS = 20


@dataclasses.dataclass(frozen=True)
class Judgement:
    """How good a trained model is.

    Attributes:
        evaluation: That of the model on the validation images, or a sentence that says
            why there is none.
        uncalibrated: The same without the temperature of the model, or `None` if that
            is 1.
    """

    evaluation: AnyEvaluation | str
    uncalibrated: AnyEvaluation | None = None


def judge(
    prepared: PreparedRun, last: Stage, *, is_reported: bool, tta: int = 1
) -> Judgement:
    """Evaluates a trained model on validation images, and calibrates it.

    Args:
        prepared: The run. The temperature and the detector of unknown images of its
            model are set, or the thresholds of its labels.
        last: The stage that was trained last: the model that is evaluated, and the
            images or features that it is evaluated on.
        is_reported: Whether the evaluation is needed even if there is nothing to fit.
        tta: Number of views over which the evaluation that is reported averages.
    """
    judgement = _judge_single_view(prepared, last, is_reported=is_reported)
    if tta == 1 or isinstance(judgement.evaluation, str):
        return judgement
    evaluation = _evaluate_views(prepared, last, tta)
    return Judgement(_with_thresholds(evaluation, prepared.model))


def _evaluate_views(prepared: PreparedRun, last: Stage, tta: int) -> AnyEvaluation:
    if not last.is_on_features:
        return evaluate(last.model, last.datasets, tta=tta)
    precision = prepared.config.inference_precision
    return evaluate(
        *with_validation_views(
            prepared.datasets, prepared.model, last.model, tta, precision
        )
    )


def _judge_single_view(
    prepared: PreparedRun, last: Stage, *, is_reported: bool
) -> Judgement:
    model, validation = prepared.model, prepared.datasets.split.validation
    is_fitted = isinstance(model, ImageClassifier) and prepared.config.calibrate
    is_fitted = is_fitted and len(validation) >= MIN_IMAGES
    if not is_fitted and not is_reported:
        return Judgement("There was nothing to evaluate the model for.")
    if not validation:
        return Judgement("There is no validation split.")
    try:
        evaluation = evaluate(last.model, last.datasets)
    except InputError as error:
        # Such as a model without a softmax: it is trained and saved all the same.
        return Judgement(f"The model could not be evaluated. {error}")
    if not is_fitted:
        return Judgement(evaluation)
    return learn_confidence(model, evaluation, last)


def learn_confidence(
    model: ImageClassifier, evaluation: AnyEvaluation, last: Stage
) -> Judgement:
    """Sets the temperature and the detector of unknown images of a trained model.

    Where images may have several labels, it sets their thresholds in place of the
    detector.

    Args:
        model: The model.
        evaluation: Its evaluation on the validation images.
        last: The stage that was trained last.

    Returns:
        The evaluation with the temperature, and without it.
    """
    uncalibrated: AnyEvaluation | None = None
    temperature = fit_temperature(evaluation.probabilities, evaluation.labels)
    if temperature != 1:
        model.temperature = temperature
        scaled = _scale(model, evaluation.probabilities)
        uncalibrated = evaluation
        evaluation = dataclasses.replace(evaluation, probabilities=scaled)
    if isinstance(evaluation, MultiLabelEvaluation):
        model.thresholds = fit_thresholds(evaluation.probabilities, evaluation.labels)
        evaluation = _with_thresholds(evaluation, model)
    elif not evaluation.non_finite:
        with contextlib.suppress(InputError):  # of an image that is gone by now
            detector = _fit_detector(model, evaluation.probabilities, last)
            model.unknown_detector = detector
    return Judgement(evaluation, uncalibrated)


def _with_thresholds(evaluation: AnyEvaluation, model: keras.Model) -> AnyEvaluation:
    """Returns the evaluation with the thresholds of the model, if it has any."""
    if isinstance(evaluation, MultiLabelEvaluation):
        thresholds = getattr(model, "thresholds", None)
        return dataclasses.replace(evaluation, thresholds=thresholds)
    return evaluation


def _fit_detector(
    model: ImageClassifier, probabilities: np.ndarray, last: Stage
) -> UnknownDetector:
    """Returns what tells unknown images from those of the validation images."""
    if model.backbone is None:
        return UnknownDetector.fit(probabilities)
    most = max(_EXAMPLES, _EXAMPLES_PER_CLASS * len(model.class_names))
    return UnknownDetector.fit(
        probabilities,
        _read_features(model, last, "validation"),
        _read_features(model, last, "train", most),
    )


def _read_features(
    model: ImageClassifier, last: Stage, split: str, most: int | None = None
) -> np.ndarray:
    """Returns the features of the images of a split, or of some all over it."""
    datasets = last.datasets
    count = len(datasets.labels(split))
    chosen = np.unique(np.linspace(0, count - 1, min(most or count, count)).round())
    batches: Any = datasets.in_order(split)
    rows, start = [], 0
    with datasets.naming_unreadable_images():
        for batch, _ in batches.as_numpy_iterator():
            inside = chosen[(chosen >= start) & (chosen < start + len(batch))]
            rows.extend(batch[inside.astype(int) - start])
            start += len(batch)
    if last.is_on_features:
        return np.stack(rows)
    extractor, size = model.feature_extractor(), datasets.batch_size
    features = [
        np.asarray(predict_batch(extractor, np.stack(rows[first : first + size])))
        for first in range(0, len(rows), size)
    ]
    return np.concatenate(features)


def _scale(model: ImageClassifier, probabilities: np.ndarray) -> np.ndarray:
    """Returns the probabilities of the model with its new temperature."""
    scaled = model.scale_probabilities(keras.ops.convert_to_tensor(probabilities))
    return np.asarray(keras.ops.convert_to_numpy(scaled))
