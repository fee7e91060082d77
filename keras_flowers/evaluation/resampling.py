"""Bootstrap: how far a score varies with the images that it is measured on."""

from collections.abc import Iterator

import numpy as np

RESAMPLES = 1000
"""How often images are drawn with replacement."""
_SEED = 0
# Weights of images in memory at a time.
_MOST_WEIGHTS = 4_000_000


def draw_weights(count: int) -> Iterator[np.ndarray]:
    """Yields how often each image is drawn, in parts of all draws, each time the same.

    Args:
        count: Number of images.

    Yields:
        float32 `(draws, count)`.
    """
    generator = np.random.default_rng(_SEED)
    rows = max(1, min(RESAMPLES, _MOST_WEIGHTS // count))
    for start in range(0, RESAMPLES, rows):
        draws = min(rows, RESAMPLES - start)
        weights = generator.multinomial(count, np.full(count, 1 / count), draws)
        yield weights.astype(np.float32)


def compute_interval(resampled: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % interval of a score in all draws; NaN where it is unknown."""
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def compute_average_precisions(
    true: np.ndarray, probabilities: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Returns the average precision of one label for several weightings of the images.

    Args:
        true: Which images have the label, bool `(images,)`.
        probabilities: Float `(images,)`.
        weights: Float `(weightings, images)`.

    Returns:
        Float `(weightings,)`; NaN where no image with a weight has the label.
    """
    order = np.argsort(-probabilities, kind="stable")
    descending = -probabilities[order]
    positions = np.flatnonzero(true[order])
    # Images of equal probability are found together.
    ends = np.searchsorted(descending, descending[positions], side="right") - 1
    weights = weights[:, order]
    found = np.cumsum(weights, axis=1)[:, ends]
    right = np.cumsum(weights * true[order], axis=1)[:, ends]
    weights = weights[:, positions]
    totals = weights.sum(axis=1)
    sums = (weights * right / np.maximum(found, 1)).sum(axis=1)
    return np.where(totals > 0, sums / np.maximum(totals, 1), np.nan)


def average_known(values: np.ndarray) -> np.ndarray:
    """Returns the mean of each row without its NaN; NaN if there is nothing else."""
    is_known = np.isfinite(values)
    sums, counts = np.where(is_known, values, 0).sum(axis=1), is_known.sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
