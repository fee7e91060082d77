"""Draws a confusion matrix, quickly enough for every epoch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from keras_flowers.callbacks.contact_sheet import PAPER, fitted, text_font

if TYPE_CHECKING:
    from PIL.Image import Image

_LIGHT, _DARK = np.array([247, 251, 255]), np.array([8, 48, 107])
_INK, _FAINT = (32, 32, 32), (110, 110, 110)
_TEXT = 13
_SIDE = 480
_MOST_LABEL = 170
_MARGIN = 8


def confusion_image(matrix: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Draws the counts, shaded by the part of the true class.

    Rows are true, columns predicted. With many classes the counts, and with very
    many the names, are left out.

    Args:
        matrix: Numbers from 0 up, `(classes, classes)`.
        class_names: One name per class; any text.

    Returns:
        uint8 `(height, width, 3)`.
    """
    from PIL import Image, ImageDraw

    count = len(matrix)
    cell = max(2, min(60, _SIDE // count))
    labels = _labels(class_names, cell)
    margin = max((label.width for label in labels), default=0) + 2 * _MARGIN
    left, top = margin + _TEXT + _MARGIN, _TEXT + 3 * _MARGIN
    side = cell * count
    size = (max(left + side + _MARGIN, 260), top + side + margin + _TEXT + _MARGIN)
    image = Image.new("RGB", size, PAPER)
    image.paste(_cells(matrix, cell), (left, top))
    draw = ImageDraw.Draw(image)
    font = text_font(_TEXT)
    draw.text((_MARGIN, _MARGIN), _title(matrix), _INK, font)
    for index, label in enumerate(labels):
        middle = index * cell + cell // 2
        x = left - _MARGIN - label.width
        image.paste(label, (x, top + middle - label.height // 2))
        standing = label.rotate(90, expand=True)
        x = left + middle - standing.width // 2
        image.paste(standing, (x, top + side + _MARGIN))
    below = size[1] - _TEXT - _MARGIN
    draw.text((left + side // 2, below), "predicted", _FAINT, font, anchor="ma")
    true = _label("true", _MOST_LABEL, _FAINT).rotate(90, expand=True)
    image.paste(true, (_MARGIN // 2, top + side // 2 - true.height // 2))
    _write_counts(draw, matrix, cell, (left, top))
    return np.asarray(image)


def _title(matrix: np.ndarray) -> str:
    total = float(matrix.sum())
    accuracy = float(np.trace(matrix)) / total if total else 0.0
    return f"{total:.10g} photos, accuracy {accuracy:.3f}"


def _shares(matrix: np.ndarray) -> np.ndarray:
    totals = matrix.sum(axis=1, keepdims=True)
    shares: np.ndarray = matrix / np.where(totals > 0, totals, 1)
    return shares


def _cells(matrix: np.ndarray, cell: int) -> "Image":
    from PIL import Image

    shares = _shares(matrix)[..., None]
    colours = np.rint(_LIGHT + shares * (_DARK - _LIGHT)).astype(np.uint8)
    pixels = colours.repeat(cell, axis=0).repeat(cell, axis=1)
    if cell > 8:
        pixels[cell - 1 :: cell], pixels[:, cell - 1 :: cell] = PAPER, PAPER
    return Image.fromarray(pixels)


def _labels(class_names: Sequence[str], cell: int) -> list["Image"]:
    if cell < _TEXT:
        return []
    return [_label(name, _MOST_LABEL, _INK) for name in class_names]


def _label(text: str, most: int, colour: tuple[int, int, int]) -> "Image":
    from PIL import Image, ImageDraw

    font = text_font(_TEXT)
    text = fitted(text, font, most)
    image = Image.new("RGB", (max(1, round(font.getlength(text))), _TEXT + 4), PAPER)
    ImageDraw.Draw(image).text((0, 0), text, colour, font)
    return image


def _write_counts(
    draw: "object", matrix: np.ndarray, cell: int, corner: tuple[int, int]
) -> None:
    font = text_font(_TEXT)
    texts = [[f"{value:.6g}" for value in row] for row in matrix.tolist()]
    widest = max(font.getlength(text) for row in texts for text in row)
    if widest > cell - 4 or cell < _TEXT + 4:
        return
    shares = _shares(matrix)
    for (row, column), share in np.ndenumerate(shares):
        place = (
            corner[0] + column * cell + cell // 2,
            corner[1] + row * cell + cell // 2,
        )
        colour = PAPER if share > 0.5 else _INK
        draw.text(place, texts[row][column], colour, font, anchor="mm")
