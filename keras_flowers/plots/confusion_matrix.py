"""Draws which classes are taken for which, for two classes or for thousands."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from keras_flowers.plots.text import Colour, draw_text, fit_name, text_width

_MOST_WITH_COUNTS = 25
_MOST_WITH_NAMES = 60
_MOST_CELLS = 500  # on a side: more cells than a screen has pixels for
_PAPER: Colour = (255, 255, 255)
_INK: Colour = (32, 32, 32)
_FAINT: Colour = (110, 110, 110)
_LIGHT, _DARK = np.array([247, 251, 255]), np.array([8, 48, 107])
# In pixels, before they are multiplied by `scale`.
_FONT = 13
_LABEL_WIDTH = 170
_MARGIN = 8
_MIN_WIDTH = 300


@dataclass(frozen=True)
class ConfusionGrid:
    """What a drawing of a confusion matrix shows.

    Attributes:
        shares: Float `(size, size)`, how dark each cell is, 0..1: the fraction of the
            images of its true class.
        counts: The number in each cell; `None` where there are too many.
        names: The class of each row and column; `None` where there are too many.
        block: Number of classes that share a row, and a column.
        title: Lines above the matrix.
    """

    shares: np.ndarray
    counts: tuple[tuple[str, ...], ...] | None
    names: tuple[str, ...] | None
    block: int
    title: tuple[str, ...]


def arrange_confusions(
    matrix: Any,
    class_names: Sequence[str],
    title: str = "",
    totals: np.ndarray | None = None,
) -> ConfusionGrid:
    """Decides what a drawing of a confusion matrix shows.

    Up to 25 classes each cell shows its count, up to 60 each row its name. Of more
    than 500 classes, neighbours share a cell.

    Args:
        matrix: Counts `(classes, classes)`, rows true, columns predicted; a NumPy
            array or a sparse array of SciPy.
        class_names: Position `i` is the name of label `i`; any text.
        title: Lines above the matrix.
        totals: `(classes,)`, images of each true class; by default the sum of its row.
            More than that where some were not predicted as any class.
    """
    from scipy import sparse

    cells = sparse.coo_array(matrix)
    classes = len(class_names)
    block = math.ceil(classes / _MOST_CELLS)
    size = math.ceil(classes / block)
    if totals is None:
        totals = np.asarray(cells.sum(axis=1)).ravel()
    starts = np.arange(0, classes, block)
    totals = np.add.reduceat(np.asarray(totals, np.float64), starts)
    places = tuple(positions // block for positions in cells.coords)
    counts = sparse.coo_array((cells.data, places), (size, size)).toarray()
    lines = title.splitlines()
    if block > 1:
        lines.append(f"each cell covers {block} x {block} classes")
    has_counts, has_names = classes <= _MOST_WITH_COUNTS, classes <= _MOST_WITH_NAMES
    return ConfusionGrid(
        shares=counts / np.where(totals > 0, totals, 1)[:, np.newaxis],
        counts=tuple(tuple(f"{count:.6g}" for count in row) for row in counts.tolist())
        if has_counts
        else None,
        names=tuple(class_names) if has_names else None,
        block=block,
        title=tuple(lines),
    )


def draw_confusion_matrix(
    grid: ConfusionGrid, side: int = 480, cell: int = 44, scale: int = 1
) -> Image.Image:
    """Draws a confusion matrix in a few milliseconds.

    Counts and names that do not fit into their cells are left out.

    Args:
        grid: What `arrange_confusions` returned.
        side: Pixels that all cells may take together, if each has two.
        cell: Pixels, the maximum side of a cell. With the default, five classes are
            as wide as TensorBoard's cards.
        scale: Multiplies all lengths and fonts, for sharper prints.

    Returns:
        An RGB image.
    """
    size = len(grid.shares)
    cell = max(2, min(cell, side // size)) * scale
    font, margin = _FONT * scale, _MARGIN * scale
    names = grid.names if grid.names is not None and cell >= font else ()
    labels = [_draw_label(name, font, _LABEL_WIDTH * scale) for name in names]
    room = max((label.width for label in labels), default=0) + 2 * margin
    line = font + margin // 2
    left = room + font + margin
    top = line * (len(grid.title) + 1) + 2 * margin
    width = max(left + cell * size + margin, _MIN_WIDTH * scale)
    bottom = top + cell * size
    image = Image.new("RGB", (width, bottom + room + font + margin), _PAPER)
    draw = ImageDraw.Draw(image)
    for number, text in enumerate(grid.title):
        draw_text(draw, (margin, margin + number * line), text, font, _INK)
    _draw_legend(image, (margin, margin + len(grid.title) * line), font)
    image.paste(_draw_cells(grid.shares, cell, scale), (left, top))
    for index, label in enumerate(labels):
        middle = index * cell + cell // 2
        x = left - margin - label.width
        image.paste(label, (x, top + middle - label.height // 2))
        upright = label.rotate(90, expand=True)
        x = left + middle - upright.width // 2
        image.paste(upright, (x, bottom + margin))
    suffix = "" if grid.names is not None else " (number of the class, from 0)"
    center = left + cell * size // 2, bottom + room
    draw_text(draw, center, f"predicted{suffix}", font, _FAINT, "ma")
    true = _draw_label(f"true{suffix}", font, cell * size, _FAINT)
    true = true.rotate(90, expand=True)
    image.paste(true, (margin // 2, top + (cell * size - true.height) // 2))
    if grid.counts is not None:
        _draw_counts(draw, grid, (left, top), cell, font)
    return image


def _draw_legend(image: Image.Image, corner: tuple[int, int], font: int) -> None:
    """Draws what the shades mean, a line of text and a scale from 0 to 1."""
    x, y = corner
    draw = ImageDraw.Draw(image)
    text = "fraction of the true class: 0"
    draw_text(draw, (x, y), text, font, _FAINT)
    x += round(text_width(f"{text} ", font))
    steps = np.linspace(0, 1, 4 * font)[np.newaxis]
    image.paste(_draw_cells(steps, 1, 1).resize((4 * font, font - 2)), (x, y + 2))
    draw_text(draw, (x + 4.5 * font, y), "1", font, _FAINT)


def _draw_cells(shares: np.ndarray, cell: int, scale: int) -> Image.Image:
    colours = np.rint(_LIGHT + shares[..., np.newaxis] * (_DARK - _LIGHT))
    pixels = colours.astype(np.uint8).repeat(cell, axis=0).repeat(cell, axis=1)
    if cell > 8 * scale:
        for gap in range(cell - scale, cell):
            pixels[gap::cell], pixels[:, gap::cell] = _PAPER, _PAPER
    return Image.fromarray(pixels)


def _draw_label(name: str, font: int, width: int, colour: Colour = _INK) -> Image.Image:
    text = fit_name(name, font, width)
    size = max(1, round(text_width(text, font))), font * 4 // 3
    image = Image.new("RGB", size, _PAPER)
    draw_text(ImageDraw.Draw(image), (0, 0), text, font, colour)
    return image


def _draw_counts(
    draw: ImageDraw.ImageDraw,
    grid: ConfusionGrid,
    corner: tuple[int, int],
    cell: int,
    font: int,
) -> None:
    assert grid.counts is not None
    longest = max((text for row in grid.counts for text in row), key=len)
    if text_width(longest, font) > cell - font // 3 or cell < font * 4 // 3:
        return
    left, top = (start + cell // 2 for start in corner)
    for (row, column), share in np.ndenumerate(grid.shares):
        colour = _PAPER if share > 0.5 else _INK
        place = left + column * cell, top + row * cell
        draw_text(draw, place, grid.counts[row][column], font, colour, "mm")
