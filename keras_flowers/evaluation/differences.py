"""Differences of the scores of two models on the same images, with intervals."""

import dataclasses
import math

import numpy as np

# The 97.5th percentile of the normal distribution, for intervals of 95 %.
_Z = 1.959964


@dataclasses.dataclass(frozen=True)
class Difference:
    """A score of the second model minus that of the first, with its 95 % interval.

    Attributes:
        value: The difference.
        low: Lower end of the interval, or NaN where there is none.
        high: Upper end of the interval, or NaN.
    """

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def compute_p_value(fixed: int, broken: int) -> float:
    """Returns the p-value of McNemar's exact test.

    Args:
        fixed: Number of images that only the second model gets right.
        broken: Number of images that only the first model gets right.
    """
    from scipy.stats import binomtest

    if fixed + broken == 0:
        return 1.0
    return float(binomtest(fixed, fixed + broken).pvalue)


def compare_means(first: np.ndarray, second: np.ndarray) -> Difference:
    """Returns the difference of two means, with the interval of a paired t-test.

    Args:
        first: A value of each image, float `(images,)`.
        second: The values of the second model.

    Returns:
        The difference; its interval is NaN if a value is not finite or there is only
        one image.
    """
    from scipy.stats import ttest_1samp

    differences = second.astype(float) - first
    value = float(differences.mean())
    if len(differences) < 2 or not math.isfinite(value):
        return Difference(value, math.nan, math.nan)
    if np.ptp(differences) == 0:
        return Difference(value, value, value)
    interval = ttest_1samp(differences, 0).confidence_interval()
    return Difference(value, float(interval.low), float(interval.high))


def compare_shares(fixed: int, broken: int, count: int) -> Difference:
    """Returns the difference of two paired shares.

    The interval is that of Bonett and Price (2012).

    Args:
        fixed: Number of images that only the second model gets right.
        broken: Number of images that only the first model gets right.
        count: Number of images.
    """
    gained, lost = (fixed + 1) / (count + 2), (broken + 1) / (count + 2)
    variance = (gained + lost - (gained - lost) ** 2) / (count + 2)
    spread = _Z * math.sqrt(variance)
    return Difference(
        (fixed - broken) / count,
        max(-1.0, gained - lost - spread),
        min(1.0, gained - lost + spread),
    )


def order_changes(
    is_changed: np.ndarray, first: np.ndarray, second: np.ndarray, losses: np.ndarray
) -> list[tuple[int, str]]:
    """Returns the images that two models answer differently, in order.

    Args:
        is_changed: Bool `(images,)`, whether the answers differ.
        first: Bool `(images,)`, whether the first model is right.
        second: Bool `(images,)`, whether the second model is right.
        losses: Float `(images,)`, by how much the loss of the second model is higher.

    Returns:
        Positions with `"broken"`, `"fixed"` or `"moved"`, in this order. Within each,
        the images whose loss changes most come first.
    """
    sizes = np.where(np.isnan(losses), np.inf, np.abs(losses))
    groups = np.where(first, 0, np.where(second, 1, 2))
    indices = np.flatnonzero(is_changed)
    order = np.lexsort((-sizes[indices], groups[indices]))
    names = ("broken", "fixed", "moved")
    return [(index, names[groups[index]]) for index in indices[order].tolist()]
