"""Verifies that an exported model predicts the same as its original."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from keras_flowers_runtime.exported import ExportedClassifier
from keras_flowers_runtime.images import ImageOptions, load_image

from keras_flowers.distribution import predict_batch
from keras_flowers.errors import InputError
from keras_flowers.export.sources import LabelledImage
from keras_flowers.models.classifying import build_feature_predictor
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress
from keras_flowers.scores import wilson_interval

MIN_IMAGES = 64
# More images make a proof slower, not surer.
MAX_IMAGES = 2000
_BATCH_SIZE = 32
_WORST = 10
_AT_ORIGINAL_SIZE = 8


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How much the predictions of an exported model may differ from the original.

    Attributes:
        largest_difference: The largest difference of a probability; `None` for no
            limit.
        equal_answers: The minimum fraction of images with the same predicted class.
        accuracy_loss: How much the accuracy may drop.
        similarity_difference: The largest difference of the similarity of an image to
            the training images; `None` for no limit.
    """

    largest_difference: float | None
    equal_answers: float
    accuracy_loss: float
    similarity_difference: float | None


# Where two classes are close, 8-bit integers change the probabilities a lot. The
# predicted class must stay the same.
TOLERANCES = {
    "float32": Tolerance(1e-4, 0.98, 0.02, 1e-4),
    "float16": Tolerance(5e-2, 0.98, 0.02, 1e-2),
    "int8": Tolerance(None, 0.9, 0.03, None),
}


class ProofError(Exception):
    """Raised when an exported model does not predict the same as its original."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much two models differ on one image.

    Attributes:
        path: The image, relative to its data folder.
        difference: The largest difference of a probability.
        keras_class: The most probable class of the Keras model.
        keras_probability: Its probability.
        exported_class: The most probable class of the exported model.
        exported_probability: Its probability.
    """

    path: str
    difference: float
    keras_class: str
    keras_probability: float
    exported_class: str
    exported_probability: float


@dataclasses.dataclass(frozen=True)
class Score:
    """A fraction of images with its 95 % interval (Wilson, 1927).

    Attributes:
        value: The fraction, 0..1.
        low: Lower end of the interval.
        high: Upper end of the interval.
        images: Number of images.
    """

    value: float
    low: float
    high: float
    images: int


@dataclasses.dataclass(frozen=True)
class SimilarityProof:
    """A comparison of how two models tell unknown images, by their similarity.

    Attributes:
        largest_difference: The largest difference of the similarity of an image to the
            training images.
        equal_answers: Fraction of images that both models find known or both unknown.
        keras_unknown: Fraction of the validation images that the Keras model finds
            unknown, although they show its classes; `None` without such images.
        exported_unknown: That of the exported model, or `None`.
    """

    largest_difference: float
    equal_answers: float
    keras_unknown: Score | None
    exported_unknown: Score | None


@dataclasses.dataclass(frozen=True)
class Proof:
    """A comparison of an exported model with its original.

    Attributes:
        images: Number of images that both models classified.
        image_source: Where the images come from.
        precision: Precision of the exported model.
        tolerance: How much the predictions may differ.
        largest_difference: The largest difference of a probability in any image.
        mean_difference: The mean over all images of the largest difference of each.
        equal_answers: Fraction of images with the same predicted class; where they may
            have several labels, fraction of all pairs of an image and a label with the
            same answer.
        largest_difference_at_original_size: The largest difference for images that the
            exported model resizes itself; `None` if it cannot resize.
        keras_accuracy: Accuracy of the Keras model: the fraction of images whose class,
            or whose labels, are right; `None` if those of the images are unknown.
        exported_accuracy: Accuracy of the exported model, or `None`.
        keras_recall: Recall of the Keras model for each class.
        exported_recall: Recall of the exported model for each class.
        worst: The images with the largest differences.
        similarity: How the models tell unknown images; `None` if the exported model
            does not compare images with training images.
    """

    images: int
    image_source: str
    precision: str
    tolerance: Tolerance
    largest_difference: float
    mean_difference: float
    equal_answers: float
    largest_difference_at_original_size: float | None
    keras_accuracy: Score | None
    exported_accuracy: Score | None
    keras_recall: dict[str, Score]
    exported_recall: dict[str, Score]
    worst: tuple[Difference, ...]
    similarity: SimilarityProof | None = None

    @property
    def lost_classes(self) -> dict[str, float]:
        """The classes whose recall dropped, and by how much."""
        losses = {
            name: score.value - self.exported_recall[name].value
            for name, score in self.keras_recall.items()
        }
        lost = {name: loss for name, loss in losses.items() if loss > 0}
        return dict(sorted(lost.items(), key=lambda item: -item[1]))

    @property
    def failure(self) -> str | None:
        """What exceeds the tolerance, in one line, or `None`."""
        tolerance, limit = self.tolerance, self.tolerance.largest_difference
        differences = {
            "": self.largest_difference,
            " at their original size": self.largest_difference_at_original_size,
        }
        for where, found in differences.items():
            if limit is not None and found is not None and not found <= limit:
                return (
                    f"probabilities of images{where} differ by up to {found:.2g}; "
                    f"{self.precision} allows {limit:g}"
                )
        if not self.equal_answers >= tolerance.equal_answers:
            return (
                f"{self.equal_answers:.1%} of the answers are the same; "
                f"{self.precision} needs {tolerance.equal_answers:.0%}"
            )
        if self.similarity is not None:
            found, limit = (
                self.similarity.largest_difference,
                tolerance.similarity_difference,
            )
            if limit is not None and not found <= limit:
                return (
                    f"the similarity to training images differs by up to {found:.2g}; "
                    f"{self.precision} allows {limit:g}"
                )
            if not self.similarity.equal_answers >= tolerance.equal_answers:
                return (
                    f"{self.similarity.equal_answers:.1%} of the images are known or "
                    f"unknown in both models; {self.precision} needs "
                    f"{tolerance.equal_answers:.0%}"
                )
        if self.keras_accuracy is not None and self.exported_accuracy is not None:
            lost = self.keras_accuracy.value - self.exported_accuracy.value
            if lost > tolerance.accuracy_loss:
                return (
                    f"the accuracy falls from {self.keras_accuracy.value:.3f} to "
                    f"{self.exported_accuracy.value:.3f}; {self.precision} may lose "
                    f"{tolerance.accuracy_loss:g}"
                )
        return None

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes and the verdict as plain numbers and strings."""
        return {
            **dataclasses.asdict(self),
            "lost_classes": self.lost_classes,
            "passed": self.failure is None,
        }


def prove(
    model: ImageClassifier,
    exported: ExportedClassifier,
    images: Sequence[LabelledImage],
    image_source: str,
    labelled: int,
    progress: Progress | None = None,
    tta: int = 1,
) -> Proof:
    """Classifies images with both models and compares the probabilities.

    Args:
        model: The original.
        exported: The exported model, loaded from its folder.
        images: At least one.
        image_source: Where the images come from, for the record.
        labelled: Only the first `labelled` images count for the accuracy.
        progress: Called as `progress("prove", done, total)`.
        tta: Over how many views of an image the exported model averages.

    Raises:
        InputError: If no image can be read, or the Keras model returns NaN because
            its training diverged.
    """
    predict_keras, predict_exported = _build_predictors(model, exported, tta)
    expected, found, read = [], [], []
    for batch in _batches(images):
        pixels, readable = _load(batch, model)
        if readable:
            expected.append(predict_keras(pixels))
            found.append(predict_exported(pixels))
            read += readable
        if progress is not None:
            progress("prove", min(len(images), len(read)), len(images))
    if not read:
        raise InputError("None of the images for the proof can be read.")
    (before, *similarity), (after, *exported_similarity) = (
        [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        for batches in (expected, found)
    )
    if not np.isfinite(before).all():
        raise InputError(
            "The model returns NaN because its training diverged, so it cannot be "
            "exported."
        )
    differences = np.abs(before - after).max(axis=1)
    order = np.argsort(-np.where(np.isnan(differences), np.inf, differences))
    answers = [
        model.label_mode.find_labels(rows, model.thresholds) for rows in (before, after)
    ]
    labels = _find_labels(model, read[:labelled])
    keras_scores, exported_scores = (
        _scores(rows[: len(labels)], labels, model.class_names) for rows in answers
    )
    return Proof(
        images=len(read),
        image_source=image_source,
        precision=exported.precision,
        tolerance=TOLERANCES[exported.precision],
        largest_difference=float(differences.max()),
        mean_difference=float(differences.mean()),
        equal_answers=model.label_mode.agreement(*answers),
        largest_difference_at_original_size=_difference_at_original_size(
            model, exported, read
        ),
        keras_accuracy=keras_scores[0],
        exported_accuracy=exported_scores[0],
        keras_recall=keras_scores[1],
        exported_recall=exported_scores[1],
        worst=tuple(
            Difference(
                read[index].name,
                float(differences[index]),
                model.class_names[before[index].argmax()],
                float(before[index].max()),
                model.class_names[after[index].argmax()],
                float(after[index].max()),
            )
            for index in order[:_WORST].tolist()
        ),
        similarity=_compare_similarities(
            model, similarity[0], exported_similarity[0], len(labels)
        )
        if similarity
        else None,
    )


def _build_predictors(
    model: ImageClassifier, exported: ExportedClassifier, tta: int
) -> tuple[Callable[[Any], tuple[np.ndarray, ...]], ...]:
    """Returns functions that predict with both models.

    Each returns the probabilities, and the similarity if the exported model has it.
    """
    if exported.similarity_threshold is None:
        network = model.averaging_views(tta)
        return (
            lambda images: (np.asarray(predict_batch(network, images)),),
            lambda images: (exported.predict(images),),
        )
    predict_both = build_feature_predictor(model, tta)
    detector = model.unknown_detector
    assert detector is not None

    def predict_keras(images: Any) -> tuple[np.ndarray, ...]:
        probabilities, features = predict_both(images)
        return probabilities, detector.similarities(features)

    return predict_keras, exported.predict_similarity


def _compare_similarities(
    model: ImageClassifier, before: np.ndarray, after: np.ndarray, labelled: int
) -> SimilarityProof:
    detector = model.unknown_detector
    assert detector is not None
    threshold = detector.similarity_threshold
    is_unknown = [~(values >= threshold) for values in (before, after)]
    keras_unknown, exported_unknown = (
        score(int(found[:labelled].sum()), labelled) if labelled else None
        for found in is_unknown
    )
    return SimilarityProof(
        float(np.abs(before - after).max()),
        float(np.equal(*is_unknown).mean()),
        keras_unknown,
        exported_unknown,
    )


def score_images(
    model: ImageClassifier,
    images: Sequence[LabelledImage],
    progress: Progress | None = None,
) -> tuple[Score | None, dict[str, Score]]:
    """Returns the accuracy of a model, and the recall of each class that has images.

    Args:
        model: The model.
        images: Those that cannot be read do not count.
        progress: Called as `progress("prove", done, total)`.
    """
    rows, read = [], []
    for batch in _batches(images):
        pixels, readable = _load(batch, model)
        if readable:
            rows.append(np.asarray(predict_batch(model, pixels)))
            read += readable
        if progress is not None:
            progress("prove", min(len(images), len(read)), len(images))
    if not read:
        return None, {}
    answers = model.label_mode.find_labels(np.concatenate(rows), model.thresholds)
    return _scores(answers, _find_labels(model, read), model.class_names)


def _find_labels(
    model: ImageClassifier, images: Sequence[LabelledImage]
) -> list[np.ndarray | None]:
    """Returns the labels of each image, bool `(classes,)`; `None` for others."""
    names = model.class_names
    return [
        np.isin(names, one.class_names) if set(one.class_names) <= set(names) else None
        for one in images
    ]


def _batches(images: Sequence[LabelledImage]) -> Iterator[Sequence[LabelledImage]]:
    for start in range(0, len(images), _BATCH_SIZE):
        yield images[start : start + _BATCH_SIZE]


def _load(
    images: Sequence[LabelledImage], model: ImageClassifier
) -> tuple[np.ndarray, list[LabelledImage]]:
    """Returns the images that can be read, and their pixels."""
    options = ImageOptions(resize=model.resize)
    pixels, readable = [], []
    for image in images:
        try:
            pixels.append(load_image(image.path, model.image_size, options))
        except InputError:
            continue
        readable.append(image)
    return np.array(pixels), readable


def _difference_at_original_size(
    model: ImageClassifier,
    exported: ExportedClassifier,
    images: Sequence[LabelledImage],
) -> float | None:
    # Views are taken of images of the size of the model.
    if not exported.description["any_size"] or exported.description["tta"] > 1:
        return None
    differences = []
    for image in itertools.islice(images, _AT_ORIGINAL_SIZE):
        pixels = load_image(image.path)[None]
        before = np.asarray(predict_batch(model, pixels))
        differences.append(float(np.abs(before - exported.predict(pixels)).max()))
    return max(differences)


def _scores(
    answers: np.ndarray, labels: Sequence[np.ndarray | None], class_names: Sequence[str]
) -> tuple[Score | None, dict[str, Score]]:
    """Returns the accuracy, and the recall of each class that has images."""
    pairs = [
        (answer, true)
        for answer, true in zip(answers, labels, strict=True)
        if true is not None
    ]
    if not pairs:
        return None, {}
    found, truth = map(np.stack, zip(*pairs, strict=True))
    recall = {
        name: score(int((found & truth)[:, label].sum()), int(truth[:, label].sum()))
        for label, name in enumerate(class_names)
        if truth[:, label].any()
    }
    return score(int((found == truth).all(axis=1).sum()), len(truth)), recall


def score(right: int, images: int) -> Score:
    """Returns the fraction of images that are right, with Wilson's interval."""
    return Score(right / images, *wilson_interval(right, images), images)
