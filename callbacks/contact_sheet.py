"""Draws images side by side, each with its caption."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_flowers.files import printable_path

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

_GAP = 6
_TEXT = 12
_LINE = 16
_INK = (32, 32, 32)
PAPER = (255, 255, 255)


def contact_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[Sequence[str]] = (),
    title: str = "",
    side: int = 128,
) -> np.ndarray:
    """Draws images side by side, in as many rows as columns or one less.

    Args:
        images: Arrays `(height, width, 1 or 3)` as `displayable` returns them; may be
            empty.
        captions: The lines below each image; any text, of which the end is cut where
            it does not fit.
        title: A line above them.
        side: Pixels, the longer side of each image on the sheet. Smaller images are
            enlarged without smoothing.

    Returns:
        uint8 `(height, width, 3)`.
    """
    from PIL import Image, ImageDraw

    columns = max(1, math.ceil(math.sqrt(len(images))))
    rows = max(1, math.ceil(len(images) / columns))
    lines = max((len(caption) for caption in captions), default=0)
    tiles = [thumbnail(image, side) for image in images]
    width = max((tile.width for tile in tiles), default=side) + _GAP
    height = max((tile.height for tile in tiles), default=0) + _GAP + lines * _LINE
    top = _LINE + _GAP if title else 0
    font = text_font(_TEXT)
    size = (max(columns, 2) * width + _GAP, top + rows * height + _GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, _GAP), fitted(title, font, size[0] - 2 * _GAP), _INK, font)
    for index, tile in enumerate(tiles):
        x = _GAP + index % columns * width
        y = top + _GAP + index // columns * height
        sheet.paste(tile, (x, y))
        for number, line in enumerate(captions[index] if captions else ()):
            place = (x, y + tile.height + number * _LINE)
            draw.text(place, fitted(line, font, width - _GAP), _INK, font)
    return np.asarray(sheet)


def displayable(images: Any) -> np.ndarray:
    """Returns images as pixels: uint8, of the same shape.

    Bytes stay as they are. Of other numbers the range is guessed from their values:
    0..1, -1..1 or 0..255, and what is none of these is stretched from its lowest to
    its highest value.

    Args:
        images: Array `(batch, height, width, channels)` of any number type.
    """
    array = np.asarray(images)
    if array.dtype == np.uint8:
        return array
    values = np.nan_to_num(array.astype(np.float32), posinf=0.0, neginf=0.0)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    for lowest, highest in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        margin = 0.01 * (highest - lowest)
        if low >= lowest - margin and high <= highest + margin:
            low, high = lowest, highest
            break
    scaled = (values - low) / (high - low) * 255
    pixels: np.ndarray = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return pixels


def fitted(text: str, font: "FreeTypeFont", width: float) -> str:
    """Returns the text on one line, its end cut where it is wider than `width`."""
    text = printable_path(text)
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if font.getlength(text[:middle] + "…") <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low] + "…"


@cache
def text_font(size: int) -> "FreeTypeFont":
    """Returns a font that has the letters of many scripts; matplotlib brings it."""
    import matplotlib
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return ImageFont.truetype(folder / "DejaVuSans.ttf", size)


def thumbnail(image: np.ndarray, side: int) -> "Image":
    """Returns the image as an RGB image whose longer side has `side` pixels."""
    from PIL import Image

    if image.shape[-1] == 1:
        image = image.repeat(3, axis=-1)
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = side / max(picture.size)
    size = tuple(max(1, round(length * scale)) for length in picture.size)
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    return picture.resize(size, kind)
