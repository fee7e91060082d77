"""Draws images with their captions on one sheet."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_flowers.data.image_files import load_thumbnail
from keras_flowers.errors import InputError
from keras_flowers.plots.text import drawn_name, name_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 6
_THUMBNAIL_SIDE = 240
_TILE_WIDTH = 2.0  # inches
_IMAGE_HEIGHT = 1.65
_LINE_HEIGHT = 0.13
_FONT_SIZE = 6.5
_FAMILY = "monospace"  # so that the width of a caption is known before it is drawn
_CAPTION_COLUMNS = 32
_MARGIN = 0.08
_TITLE_HEIGHT = 0.45


@dataclass(frozen=True)
class Tile:
    """One image of a sheet.

    Attributes:
        path: The file.
        caption: Lines below the image; each is shortened to the width of the image.
    """

    path: Path
    caption: tuple[str, ...]


def draw_contact_sheet(tiles: Sequence[Tile], title: str) -> "Figure":
    """Draws images six in a row, in order, with their captions.

    The files are decoded one after the other and kept as thumbnails of 240 pixels.
    A file that cannot be read any more leaves its place empty, with a note.

    Args:
        tiles: The images.
        title: Line above them.

    Returns:
        A `matplotlib.figure.Figure`; it belongs to no window.
    """
    from matplotlib.figure import Figure

    columns = max(2, min(_COLUMNS, len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    lines = max((len(tile.caption) for tile in tiles), default=0)
    tile_height = _IMAGE_HEIGHT + (lines + 1) * _LINE_HEIGHT
    width, height = columns * _TILE_WIDTH, rows * tile_height + _TITLE_HEIGHT
    figure = Figure(figsize=(width, height))
    # One set of axes in inches for all: hundreds would take minutes.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.text(
        width / 2, _TITLE_HEIGHT / 2, title, ha="center", va="center", parse_math=False
    )
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        _draw_tile(axes, tile, column * _TILE_WIDTH, _TITLE_HEIGHT + row * tile_height)
    axes.set_aspect("auto")  # which imshow changes
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    return figure


def _draw_tile(axes: Any, tile: Tile, left: float, top: float) -> None:
    room_width, room_height = _TILE_WIDTH - 2 * _MARGIN, _IMAGE_HEIGHT - _MARGIN
    center = left + _TILE_WIDTH / 2
    bottom = top + room_height
    try:
        pixels = load_thumbnail(tile.path, _THUMBNAIL_SIDE)
    except InputError:
        middle = top + room_height / 2
        axes.text(center, middle, "cannot be read", ha="center", va="center", size=8)
    else:
        height, width, _ = pixels.shape
        scale = min(room_width / width, room_height / height)
        half = scale * width / 2
        axes.imshow(
            pixels,
            extent=(center - half, center + half, bottom, bottom - scale * height),
        )
    for number, line in enumerate(tile.caption):
        axes.text(
            center,
            bottom + _MARGIN / 2 + number * _LINE_HEIGHT,
            drawn_name(line, _CAPTION_COLUMNS, _FAMILY),
            ha="center",
            va="top",
            fontsize=_FONT_SIZE,
            **name_style(_FAMILY),
        )
