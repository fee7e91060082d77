"""Draws an image and a heat map of what decides its class."""

from typing import TYPE_CHECKING

import numpy as np
from keras_flowers_runtime.heat import blend_heat

from keras_flowers.plots.rendering import DPI
from keras_flowers.plots.text import figure_text_style, fit_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 5.0, 3.0  # inches
_TITLE_SIZE, _NAME_SIZE = 11, 8  # points


def draw_heatmap(
    image: np.ndarray, heatmap: np.ndarray, title: str, name: str | None = None
) -> "Figure":
    """Draws the image on the left, and the image with the heat over it on the right.

    Cold parts are dimmed. Hot parts keep their brightness and turn yellow to red.

    Args:
        image: uint8 `(height, width, 3)`.
        heatmap: `(height, width)`, 0..1.
        title: Line above the pictures.
        name: Line below them.

    Returns:
        A `matplotlib.figure.Figure` without a window.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.axis("off")
    left.imshow(image)
    right.imshow(blend_heat(image, heatmap))
    text = _fit_line(title, _TITLE_SIZE)
    figure.suptitle(text, fontsize=_TITLE_SIZE, **figure_text_style(text))
    if name is not None:
        text = _fit_line(name, _NAME_SIZE)
        figure.supxlabel(text, fontsize=_NAME_SIZE, **figure_text_style(text))
    return figure


def _fit_line(text: str, points: int) -> str:
    return fit_name(text, round(points / 72 * DPI), 0.95 * _WIDTH * DPI)
