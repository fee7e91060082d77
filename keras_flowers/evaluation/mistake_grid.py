"""Draws the worst mistakes of an evaluation side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_flowers.data.image_files import load_thumbnail
from keras_flowers.errors import InputError
from keras_flowers.plots.image_grid import Tile, draw_image_grid
from keras_flowers.plots.rendering import show_in_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IN_GRID = 1000
"""How many mistakes fit into a grid."""

_COLUMNS = 6
_THUMBNAIL_SIDE = 240


def draw_mistakes(tiles: Sequence[Tile], mistakes: int, images: int) -> "Figure":
    """Draws mistakes in a grid.

    Args:
        tiles: Those that are shown, highest loss first.
        mistakes: How many there are.
        images: How many images were evaluated.
    """
    shown = f"{len(tiles)} of {mistakes} mistakes, highest loss first"
    title = shown if tiles else f"no mistake in {images} images"
    columns = max(2, min(_COLUMNS, len(tiles)))
    return show_in_figure(draw_image_grid(tiles, title, _THUMBNAIL_SIDE, columns))


def load_tile_image(path: Path) -> np.ndarray | None:
    """Returns a small version of an image, `None` for one that cannot be read."""
    try:
        return load_thumbnail(path, _THUMBNAIL_SIDE)
    except InputError:
        return None
