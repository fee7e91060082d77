"""Calibration: whether a classifier is right as often as it is confident."""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_flowers.argument_checks import check_integer
from keras_flowers.plots.reliability import draw_reliability

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_BINS = 10_000
# With fewer images, chance decides the temperature.
MIN_IMAGES = 50
_TEMPERATURES = (0.05, 20.0)


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
    """The images whose confidence lies in one interval.

    The confidence of an image is the probability of its predicted class.

    Attributes:
        lower: Lower end of the interval, excluded.
        upper: Upper end of the interval, included.
        count: Number of images.
        confidence: Their mean confidence, 0..1; `None` without images.
        accuracy: The fraction of them that is right, 0..1; `None` without images.
    """

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How well the confidence of a classifier matches its accuracy.

    Attributes:
        bins: Intervals of equal width that cover 0..1.
        non_finite: Number of images whose prediction is non-finite; they are in no bin.
        of_labels: Whether what is in the bins is not an image with the probability of
            its predicted class, but a label of an image with its probability: then the
            accuracy is the fraction of them that is a true label.
    """

    bins: tuple[CalibrationBin, ...]
    non_finite: int
    of_labels: bool = False

    @property
    def error(self) -> float:
        """The expected calibration error, 0..1; lower is better.

        The mean distance between confidence and accuracy of the bins, weighted by
        their counts (Guo et al., "On Calibration of Modern Neural Networks", 2017).
        NaN if a prediction is non-finite.
        """
        if self.non_finite:
            return math.nan
        return self._mean(lambda confidence, accuracy: abs(confidence - accuracy))

    @property
    def confidence(self) -> float:
        """The mean confidence of all images with a finite prediction, or NaN.

        Above the accuracy, the classifier is overconfident; below, underconfident.
        """
        return self._mean(lambda confidence, _: confidence)

    @property
    def accuracy(self) -> float:
        """The fraction of finite predictions that is right, or NaN without any."""
        return self._mean(lambda _, accuracy: accuracy)

    def to_json(self) -> dict[str, Any]:
        """Returns the error and the bins as plain numbers, strings and lists."""
        return {
            "expected_calibration_error": self.error,
            "mean_confidence": self.confidence,
            "bins": [dataclasses.asdict(one) for one in self.bins],
        }

    def plot(self) -> "Figure":
        """Draws the reliability diagram, with the number of images in each bin below.

        The bars are the accuracy of each bin. A bar that ends below the diagonal means
        that the classifier is overconfident; one that ends above, underconfident. The
        distance to the mean confidence of the bin is hatched.

        Returns:
            A `matplotlib.figure.Figure` without a window.
        """
        title = f"expected calibration error {self.error:.3f}"
        if self.non_finite:
            title += f"\n{self.non_finite} non-finite predictions (NaN)"
        return draw_reliability(
            counts=np.array([one.count for one in self.bins]),
            confidence=np.array([one.confidence for one in self.bins], dtype=float),
            accuracy=np.array([one.accuracy for one in self.bins], dtype=float),
            title=title,
            of_labels=self.of_labels,
        )

    def _mean(self, value: Callable[[float, float], float]) -> float:
        total = sum(one.count for one in self.bins)
        terms = (
            one.count * value(one.confidence, one.accuracy)
            for one in self.bins
            if one.confidence is not None and one.accuracy is not None
        )
        return math.fsum(terms) / total if total else math.nan


def measure_calibration(
    confidences: np.ndarray, is_right: np.ndarray, bins: int = 15
) -> Calibration:
    """Sorts images by confidence into bins of equal width.

    Args:
        confidences: Float `(count,)`, the probability of each predicted class, 0..1;
            NaN for a non-finite prediction.
        is_right: Bool `(count,)`, whether the prediction is right.
        bins: Number of intervals, a positive integer.

    Returns:
        `Calibration`.

    Raises:
        InputError: If `bins` is no integer from 1 to 10000.
    """
    bins = check_integer("bins", bins, lowest=1, highest=_MOST_BINS)
    is_finite = np.isfinite(confidences)
    values = confidences[is_finite]
    edges = np.linspace(0, 1, bins + 1)
    # A value on an edge belongs to the bin that ends there (scikit-learn's
    # `calibration_curve` puts it into the next one and returns no counts); 0 belongs
    # to the first bin, and what rounding brought above 1 to the last. Compared in the
    # precision of the values: 0.2 in 32 bits is a little more than 0.2 in 64.
    position = np.searchsorted(edges.astype(values.dtype), values, side="left") - 1
    position = np.clip(position, 0, bins - 1)
    counts = np.bincount(position, minlength=bins)
    sums = (
        np.bincount(position, weights, minlength=bins)
        for weights in (values, is_right[is_finite].astype(np.float64))
    )
    columns = (column.tolist() for column in (edges[:-1], edges[1:], counts, *sums))
    return Calibration(
        bins=tuple(
            CalibrationBin(
                lower,
                upper,
                count,
                confidence / count if count else None,
                right / count if count else None,
            )
            for lower, upper, count, confidence, right in zip(*columns, strict=True)
        ),
        non_finite=int(np.count_nonzero(~is_finite)),
    )


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature with the lowest cross-entropy.

    Args:
        probabilities: Float `(count, classes)`, of images that the model was not
            trained on.
        labels: Integers `(count,)`, the true labels, for a softmax; or, for a sigmoid
            of each class, `(count, classes)`, 0 or 1.

    Returns:
        The temperature, from 0.05 to 20. 1 where it cannot be known: of fewer than 50
        images, if none of them is a mistake, or if a prediction is non-finite.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) < MIN_IMAGES or not np.isfinite(probabilities).all():
        return 1.0
    if labels.ndim == 1:
        is_right = probabilities.argmax(axis=1) == labels
        loss_of = _softmax_loss(probabilities, labels)
    else:
        is_right = (probabilities >= 0.5) == (labels == 1)
        loss_of = _sigmoid_loss(probabilities, labels)
    if is_right.all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return loss_of(math.exp(-log_temperature))

    limits = [math.log(limit) for limit in _TEMPERATURES]
    found = minimize_scalar(loss, bounds=limits, method="bounded")
    return math.exp(found.x) if loss(found.x) < loss(0.0) else 1.0


def _softmax_loss(
    probabilities: np.ndarray, labels: np.ndarray
) -> Callable[[float], float]:
    """Returns the loss as a function of what the logits are multiplied by."""
    from scipy.special import logsumexp

    # The logits but for a constant of each row.
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny), dtype=float)
    of_true = logits[np.arange(len(labels)), labels]
    return lambda scale: float(
        (logsumexp(logits * scale, axis=1) - of_true * scale).mean()
    )


def _sigmoid_loss(
    probabilities: np.ndarray, labels: np.ndarray
) -> Callable[[float], float]:
    """Returns the loss as a function of what the logits are multiplied by."""
    tiny = float(np.finfo(np.float32).eps)
    found = np.clip(np.asarray(probabilities, dtype=float), tiny, 1 - tiny)
    logits = np.log(found) - np.log1p(-found)
    return lambda scale: float(
        (np.logaddexp(0.0, logits * scale) - labels * logits * scale).mean()
    )


def fit_thresholds(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[float, ...] | None:
    """Returns the threshold of each label with the highest F1.

    Args:
        probabilities: Float `(count, classes)`, of images that the model was not
            trained on.
        labels: `(count, classes)`, 0 or 1.

    Returns:
        Midway between the lowest probability of the images that get the label and the
        next lower one. 0.5 for a label that no image has. `None` where they cannot be
        known: of fewer than 50 images, or if a prediction is non-finite.
    """
    if len(labels) < MIN_IMAGES or not np.isfinite(probabilities).all():
        return None
    columns = zip(probabilities.T, labels.T == 1, strict=True)
    return tuple(_fit_threshold(found, true) for found, true in columns)


def _fit_threshold(found: np.ndarray, true: np.ndarray) -> float:
    from sklearn.metrics import precision_recall_curve

    if not true.any():
        return 0.5
    precision, recall, thresholds = precision_recall_curve(true, found)
    total = np.maximum(precision + recall, np.finfo(float).tiny)
    best = int(np.argmax((2 * precision * recall / total)[:-1]))
    below = float(thresholds[best - 1]) if best else 0.0
    return (below + float(thresholds[best])) / 2
