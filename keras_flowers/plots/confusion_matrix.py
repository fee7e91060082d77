"""Draws which classes are taken for which, for few classes or for thousands."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_flowers.plots.text import drawn_name, name_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_WITH_COUNTS = 25
_MOST_WITH_NAMES = 60
_MOST_CELLS = 500  # on a side: more than the pixels that they are drawn on
_NAME_COLUMNS = 24


def draw_confusion_matrix(
    labels: np.ndarray,
    predictions: np.ndarray,
    class_names: Sequence[str],
    title: str = "",
) -> "Figure":
    """Draws the confusion matrix, shaded by the part of the true class.

    Up to 25 classes each cell shows its count, up to 60 each row its name. Of more
    than 500 classes, neighbours share a cell, so that the drawing stays as large and
    as quick.

    Args:
        labels: Integers `(count,)`, the true labels.
        predictions: Integers `(count,)`, the predicted labels; -1 for none.
        class_names: Position `i` is the name of label `i`.
        title: Line above the matrix.

    Returns:
        A `matplotlib.figure.Figure`; it belongs to no window.
    """
    from matplotlib.figure import Figure

    classes = len(class_names)
    block = math.ceil(classes / _MOST_CELLS)
    size = math.ceil(classes / block)
    answered = predictions >= 0
    rows, columns = labels // block, predictions[answered] // block
    totals = np.bincount(rows, minlength=size)
    cells = rows[answered].astype(np.int64) * size + columns
    counts = np.bincount(cells, minlength=size * size).reshape(size, size)
    shares = counts / np.maximum(totals, 1)[:, np.newaxis]

    side = 1.5 + 0.7 * classes if classes <= _MOST_WITH_COUNTS else 12.0
    side = max(4.5, side)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    extent = (-0.5, size * block - 0.5, size * block - 0.5, -0.5)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, extent=extent)
    figure.colorbar(image, label="part of the true class", shrink=0.8)
    if classes <= _MOST_WITH_NAMES:
        _name_axes(axes, class_names)
    suffix = "" if classes <= _MOST_WITH_NAMES else " (number of the class, from 0)"
    axes.set_xlabel(f"predicted{suffix}")
    axes.set_ylabel(f"true{suffix}")
    if block > 1:
        title += f"\na cell stands for {block} x {block} classes"
    axes.set_title(title, parse_math=False)
    if classes <= _MOST_WITH_COUNTS:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=colour)
    return figure


def _name_axes(axes: Any, class_names: Sequence[str]) -> None:
    names = [drawn_name(name, _NAME_COLUMNS) for name in class_names]
    style = name_style()
    if len(names) > _MOST_WITH_COUNTS:
        style["fontsize"] = 7
    positions = range(len(names))
    axes.set_xticks(
        positions, names, rotation=45, ha="right", rotation_mode="anchor", **style
    )
    axes.set_yticks(positions, names, **style)
