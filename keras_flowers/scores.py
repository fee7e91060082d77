"""What predictions are worth: labels, scores of each class, and the worst mistakes.

One definition for the evaluation of a model and for what TensorBoard shows of it. A
prediction that holds a NaN or an infinity is a mistake, and never the first class.
"""

import dataclasses
import math

import numpy as np

# The 97.5th percentile of the normal distribution.
_NORMAL_95 = 1.959963984540054


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """The scores of one class, in 0..1, and its number of images.

    Attributes:
        precision: Of the images predicted as this class, the fraction that belongs to
            it; 0 if there are none.
        recall: Of the images of this class, the fraction predicted as such; 0 if there
            are none.
        f1: Harmonic mean of precision and recall.
        count: Number of images of this class.
    """

    precision: float
    recall: float
    f1: float
    count: int


def predict_labels(probabilities: np.ndarray) -> np.ndarray:
    """Returns the most probable label of each row, -1 for a row that is not finite.

    Args:
        probabilities: Float `(count, classes)`.

    Returns:
        int32 `(count,)`.
    """
    is_finite = np.isfinite(probabilities).all(axis=1)
    return np.where(is_finite, probabilities.argmax(axis=1), -1).astype(np.int32)


def rank_mistakes(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the rows with a wrong prediction, the highest cross-entropy first.

    Rows that are not finite come before all others; rows of equal loss keep their
    order.

    Args:
        probabilities: Float `(count, classes)`.
        labels: Integers `(count,)`, the true labels.

    Returns:
        int64 `(mistakes,)`, positions in `labels`.
    """
    predictions = predict_labels(probabilities)
    of_true = probabilities[np.arange(len(labels)), labels]
    order = np.argsort(np.where(predictions < 0, -np.inf, of_true), kind="stable")
    ranked: np.ndarray = order[predictions[order] != labels[order]]
    return ranked


def score_classes(
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: int,
    counts: np.ndarray | None = None,
) -> list[ClassScores]:
    """Returns the scores of each class, in the order of the labels.

    Args:
        labels: Integers `(count,)`, the true labels.
        predictions: Integers `(count,)`, the predicted labels; -1 for a prediction
            that is not finite.
        classes: Number of classes.
        counts: Float `(count,)`, how many images each pair of labels stands for; by
            default one.
    """
    # Not with scikit-learn: to import it takes longer than to train a head.
    weights = np.ones(len(labels)) if counts is None else counts

    def count(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        return np.bincount(values[chosen], weights[chosen], minlength=classes)

    right = count(labels, labels == predictions)
    predicted = count(predictions, predictions >= 0)
    true = count(labels, labels >= 0)
    columns = (
        np.divide(one, other, out=np.zeros(classes), where=other > 0).tolist()
        for one, other in (
            (right, predicted),
            (right, true),
            (2 * right, predicted + true),
        )
    )
    rows = zip(*columns, map(round, true.tolist()), strict=True)
    return [ClassScores(*row) for row in rows]


def wilson_interval(successes: int, total: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of a proportion (Wilson, 1927).

    Args:
        successes: Number of successes.
        total: Number of trials. Without any, the interval is all of 0..1.
    """
    if not total:
        return 0.0, 1.0
    # Not with `scipy.stats`, which takes half a second to import.
    squared, rate = _NORMAL_95**2 / total, successes / total
    center = (rate + squared / 2) / (1 + squared)
    variance = rate * (1 - rate) * squared + squared**2 / 4
    half = math.sqrt(variance) / (1 + squared)
    # At the ends, rounding must not take the proportion out of its interval.
    low = 0.0 if successes == 0 else center - half
    return low, 1.0 if successes == total else center + half
