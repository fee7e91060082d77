"""Draws an image, and what decides its class over it."""

from typing import TYPE_CHECKING

import numpy as np

from keras_flowers.plots.text import drawn_name, name_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT = 5.0, 3.0  # inches
_COLUMNS = 60


def draw_heatmap(
    image: np.ndarray, heatmap: np.ndarray, title: str, name: str | None = None
) -> "Figure":
    """Draws the image on the left, and on the right with the heat over it.

    Cold parts are dimmed and hot ones keep their brightness and turn yellow to red.

    Args:
        image: uint8 `(height, width, 3)`.
        heatmap: `(height, width)`, 0..1.
        title: Line above the pictures.
        name: Line below them.

    Returns:
        A `matplotlib.figure.Figure`; it belongs to no window.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes in (left, right):
        axes.axis("off")
    left.imshow(image)
    right.imshow(blend_heat(image, heatmap))
    figure.suptitle(drawn_name(title, _COLUMNS), fontsize=11, **name_style())
    if name is not None:
        text = drawn_name(name, _COLUMNS)
        figure.supxlabel(text, fontsize=8, **name_style())
    return figure


def blend_heat(image: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """Returns the image in grey with the heat over it, uint8 `(height, width, 3)`.

    Args:
        image: uint8 `(height, width, 3)`.
        heatmap: `(height, width)`, 0..1.
    """
    from matplotlib import colormaps

    heat = np.clip(heatmap, 0, 1)[..., None]
    grey = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    colours = colormaps["inferno"](heat[..., 0])[..., :3] * 255
    # Half of the image stays visible everywhere.
    mixed = 0.55 * (0.35 + 0.65 * heat) * grey + 0.45 * colours
    blended: np.ndarray = mixed.round().astype(np.uint8)
    return blended
