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
    """

    bins: tuple[CalibrationBin, ...]
    non_finite: int

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
        probabilities: Float `(count, classes)`, a softmax, of images that the model was
            not trained on.
        labels: Integers `(count,)`, the true labels.

    Returns:
        The temperature, from 0.05 to 20. 1 where it cannot be known: of fewer than 50
        images, if none of them is a mistake, or if a prediction is non-finite.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    is_known = len(labels) >= MIN_IMAGES and np.isfinite(probabilities).all()
    if not is_known or (probabilities.argmax(axis=1) == labels).all():
        return 1.0
    # The logits but for a constant of each row.
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny), dtype=float)
    of_true = logits[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        terms = logsumexp(logits * inverse, axis=1) - of_true * inverse
        return float(terms.mean())

    limits = [math.log(limit) for limit in _TEMPERATURES]
    found = minimize_scalar(loss, bounds=limits, method="bounded")
    return math.exp(found.x) if loss(found.x) < loss(0.0) else 1.0
