"""Finds the confusion matrix that a metric of a model has counted."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np


def find_matrix(model: keras.Model) -> np.ndarray | None:
    """Returns the counts of the first metric that has them.

    Args:
        model: A compiled model.

    Returns:
        The attribute `matrix` of that metric, float64 `(classes, classes)`: rows are
        true, columns predicted. `None` if no metric has one.
    """
    for metric in _iterate_metrics(model):
        matrix = getattr(metric, "matrix", None)
        if matrix is not None:
            counts = np.asarray(keras.ops.convert_to_numpy(matrix), np.float64)
            if counts.ndim == 2 and counts.shape[0] == counts.shape[1]:
                return counts
    return None


def _iterate_metrics(model: keras.Model) -> Iterator[Any]:
    for metric in model.metrics:
        yield metric
        # Those passed to `compile` are in a metric that holds them.
        yield from getattr(metric, "metrics", ())
