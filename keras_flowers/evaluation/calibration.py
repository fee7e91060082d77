"""Whether a classifier is right as often as it is sure: calibration."""

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_flowers.argument_checks import check_integer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_BINS = 10_000


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
    """The images whose confidence lies in one interval.

    The confidence of an image is the probability of its predicted class.

    Attributes:
        lower: Beginning of the interval, which is not part of it.
        upper: End of the interval, which is part of it.
        count: Number of images.
        confidence: Their mean confidence, 0..1; `None` without images.
        accuracy: The part of them that is right, 0..1; `None` without images.
    """

    lower: float
    upper: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclasses.dataclass(frozen=True)
class Calibration:
    """How well the confidence of a classifier tells how often it is right.

    Attributes:
        bins: Intervals of equal width that cover 0..1.
        unanswered: Images whose probabilities are no numbers, and which are in no bin.
    """

    bins: tuple[CalibrationBin, ...]
    unanswered: int

    @property
    def error(self) -> float:
        """The expected calibration error, 0..1: the lower, the better.

        The mean distance between confidence and accuracy of the bins, weighted by
        their counts (Guo et al., "On Calibration of Modern Neural Networks", 2017).
        NaN where an image has no probabilities.
        """
        if self.unanswered:
            return math.nan
        return self._mean(lambda confidence, accuracy: abs(confidence - accuracy))

    @property
    def confidence(self) -> float:
        """The mean confidence of all images that have one; NaN without any.

        Above the accuracy, the classifier is too sure of itself; below, not enough.
        """
        return self._mean(lambda confidence, _: confidence)

    @property
    def accuracy(self) -> float:
        """The part that is right of the images with a confidence; NaN without any."""
        return self._mean(lambda _, accuracy: accuracy)

    def to_json(self) -> dict[str, Any]:
        """Returns the error and the bins as plain numbers, strings and lists."""
        return {
            "expected_calibration_error": self.error,
            "mean_confidence": self.confidence,
            "bins": [dataclasses.asdict(one) for one in self.bins],
        }

    def plot(self) -> "Figure":
        """Draws the reliability diagram, and below it how many images each bin has.

        The bars are the accuracy of each bin. Where one ends below the diagonal, the
        classifier is too sure; where above, not sure enough. The distance to the mean
        confidence of the bin is hatched.

        Returns:
            A `matplotlib.figure.Figure`; it belongs to no window.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.2, 6.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        filled = [one for one in self.bins if one.count]
        centers = [(one.lower + one.upper) / 2 for one in filled]
        accuracy = np.array([one.accuracy for one in filled], dtype=float)
        confidence = np.array([one.confidence for one in filled], dtype=float)
        width = 1 / len(self.bins)
        style: dict[str, Any] = {"width": width, "linewidth": 0.8}
        above.plot([0, 1], [0, 1], "--", color="0.45", label="perfect", zorder=3)
        above.bar(
            centers, accuracy, color="C0", edgecolor="white", label="accuracy", **style
        )
        above.bar(
            centers,
            confidence - accuracy,
            bottom=accuracy,
            color="none",
            edgecolor="C3",
            hatch="////",
            label="distance to the confidence",
            **style,
        )
        above.set_ylim(0, 1)
        above.set_ylabel("accuracy")
        above.legend(loc="upper left")
        above.set_title(_title(self))
        counts = [one.count for one in filled]
        below.bar(centers, counts, color="0.55", edgecolor="white", **style)
        below.set_xlim(0, 1)
        below.yaxis.get_major_locator().set_params(integer=True)
        below.set_ylabel("photos")
        below.set_xlabel("confidence: the probability of the predicted class")
        for axes in (above, below):
            axes.grid(alpha=0.3)
            axes.set_axisbelow(True)
        return figure

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
            NaN where there is none.
        is_right: Bool `(count,)`, whether the prediction is right.
        bins: Number of intervals, a positive integer.

    Returns:
        `Calibration`.

    Raises:
        InputError: If `bins` is no integer from 1 to 10000.
    """
    bins = check_integer("bins", bins, lowest=1, highest=_MOST_BINS)
    answered = np.isfinite(confidences)
    values = confidences[answered]
    right = is_right[answered].astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    # A value on an edge belongs to the bin that ends there; 0 to the first bin, and
    # what rounding brought above 1 to the last. Compared in the precision of the
    # values: 0.2 in 32 bits is a little more than 0.2 in 64.
    position = np.searchsorted(edges.astype(values.dtype), values, side="left") - 1
    position = np.clip(position, 0, bins - 1)
    counts = np.bincount(position, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(position, values, minlength=bins) / counts
        accuracy = np.bincount(position, right, minlength=bins) / counts
    rows = zip(
        edges[:-1].tolist(),
        edges[1:].tolist(),
        counts.tolist(),
        confidence.tolist(),
        accuracy.tolist(),
        strict=True,
    )
    return Calibration(
        bins=tuple(
            CalibrationBin(lower, upper, count, *(means if count else (None, None)))
            for lower, upper, count, *means in rows
        ),
        unanswered=int(np.count_nonzero(~answered)),
    )


def _title(calibration: Calibration) -> str:
    title = f"expected calibration error {calibration.error:.3f}"
    if calibration.unanswered:
        title += f"\n{calibration.unanswered} photos without probabilities (NaN)"
    return title
