"""Finds what a metric of a model has counted for each class."""

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


def find_average_precisions(model: keras.Model) -> np.ndarray | None:
    """Returns the average precision of each label, by the first metric that has it.

    Args:
        model: A compiled model.

    Returns:
        The attribute `per_class` of that metric, float64 `(classes,)`, NaN where it is
        not defined. `None` if no metric has one.
    """
    for metric in _iterate_metrics(model):
        values = getattr(metric, "per_class", None)
        if values is not None:
            found = np.asarray(keras.ops.convert_to_numpy(values), np.float64)
            if found.ndim == 1:
                return found
    return None


def _iterate_metrics(model: keras.Model) -> Iterator[Any]:
    for metric in model.metrics:
        yield metric
        # Those passed to `compile` are in a metric that holds them.
        yield from getattr(metric, "metrics", ())
