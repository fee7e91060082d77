"""Draws images side by side, with captions or as the sprite of the projector."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from keras_flowers.plots.text import Colour, draw_text, fit_name

_GAP = 6
_FONT = 12
_LINE = 16
_INK: Colour = (32, 32, 32)
_FAINT: Colour = (110, 110, 110)
_PAPER: Colour = (255, 255, 255)
_BLANK: Colour = (240, 240, 240)


@dataclass(frozen=True)
class Tile:
    """One image of a grid.

    Attributes:
        image: uint8 `(height, width, 1 or 3)`; `None` for a file that cannot be read.
        caption: Lines below the image, any text; shortened to the width of a column.
    """

    image: np.ndarray | None
    caption: tuple[str, ...] = ()


def draw_image_grid(
    tiles: Sequence[Tile], title: str = "", side: int = 128, columns: int | None = None
) -> Image.Image:
    """Draws images in rows, in order, each with its caption.

    Args:
        tiles: The images; may be empty.
        title: A line above them.
        side: Pixels, the longer side of each image in the drawing. Smaller images are
            enlarged without smoothing.
        columns: Number of images in a row; by default as many as there are rows, or
            one more.

    Returns:
        An RGB image.
    """
    columns = max(1, columns or math.ceil(math.sqrt(len(tiles))))
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    images = [[_resize_tile(tile, side) for tile in row] for row in rows]
    lines = max((len(tile.caption) for tile in tiles), default=0)
    heights = [
        max(image.height for image in row) + _GAP + lines * _LINE for row in images
    ]
    top = _LINE + _GAP if title else 0
    width = max(columns, 2) * (side + _GAP) + _GAP
    grid = Image.new("RGB", (width, top + sum(heights) + _GAP), _PAPER)
    draw = ImageDraw.Draw(grid)
    title = fit_name(title, _FONT, width - 2 * _GAP)
    draw_text(draw, (_GAP, _GAP), title, _FONT, _INK)
    y = top + _GAP
    for row, images_of_row, height in zip(rows, images, heights, strict=True):
        for column, (tile, image) in enumerate(zip(row, images_of_row, strict=True)):
            x = _GAP + column * (side + _GAP)
            grid.paste(image, (x, y))
            for number, line in enumerate(tile.caption):
                place = x, y + image.height + number * _LINE
                draw_text(draw, place, fit_name(line, _FONT, side), _FONT, _INK)
        y += height
    return grid


def draw_sprite(images: Sequence[np.ndarray], side: int) -> Image.Image:
    """Draws small images into equal squares, as TensorBoard's projector reads them.

    Args:
        images: uint8 arrays `(height, width, 1 or 3)`.
        side: Pixels, the side of each square.

    Returns:
        An RGB image of as many rows as columns.
    """
    columns = max(1, math.ceil(math.sqrt(len(images))))
    sprite = Image.new("RGB", (columns * side, columns * side), _PAPER)
    for index, array in enumerate(images):
        image = resize_image(array, side)
        x, y = index % columns * side, index // columns * side
        place = x + (side - image.width) // 2, y + (side - image.height) // 2
        sprite.paste(image, place)
    return sprite


def resize_image(image: np.ndarray, side: int) -> Image.Image:
    """Returns an image as an RGB image whose longer side has `side` pixels.

    Args:
        image: uint8 `(height, width, 1 or 3)`.
        side: A positive integer.
    """
    if image.shape[-1] == 1:
        image = image.repeat(3, axis=-1)
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    return picture.resize((width, height), kind)


def scale_to_pixels(images: Any) -> np.ndarray:
    """Returns images as pixels: uint8 of the same shape.

    Bytes stay as they are. The range of other numbers is guessed from their values:
    0..1, -1..1 or 0..255. Values outside these are stretched from the lowest to the
    highest.

    Args:
        images: Array `(..., height, width, channels)` of any number type.
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


def _resize_tile(tile: Tile, side: int) -> Image.Image:
    if tile.image is not None:
        return resize_image(tile.image, side)
    blank = Image.new("RGB", (side, side * 3 // 4), _BLANK)
    middle = side / 2, blank.height / 2
    draw_text(ImageDraw.Draw(blank), middle, "cannot be read", _FONT, _FAINT, "mm")
    return blank
