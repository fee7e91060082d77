"""Heat maps that need nothing but the predictions of a model, and how they look."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from keras_flowers_runtime.images import Pixels, Resize, fit_inside
from PIL import Image

Heat = npt.NDArray[np.float32]

_BATCH_SIZE = 32
# Patches per side; each overlaps half of the next one.
_PATCHES = 8
# Seventeen colors of Matplotlib's "inferno", from cold to hot.
_COLORS = (
    *((0, 0, 4), (11, 7, 36), (33, 12, 74), (61, 9, 101), (87, 16, 110)),
    *((113, 25, 110), (138, 34, 106), (163, 44, 97), (188, 55, 84), (210, 70, 68)),
    *((228, 90, 49), (241, 115, 29), (249, 142, 9), (252, 172, 17), (249, 203, 53)),
    *((242, 234, 105), (252, 255, 164)),
)


def occlude(image: Pixels, log_odds: Callable[[Pixels], np.ndarray]) -> Heat:
    """Covers one patch after the other and measures how much a class loses.

    After Zeiler and Fergus (2014). Each patch is an eighth of the image high and wide,
    overlaps its neighbors by half, and has the mean color of the image.

    Args:
        image: uint8 `(height, width, 3)`.
        log_odds: Maps images, uint8 `(batch, height, width, 3)`, to the log odds of
            the class, `(batch,)`.

    Returns:
        float32 `(height, width)`, from 0 up.
    """
    height, width, _ = image.shape
    mean = image.mean(axis=(0, 1)).round().astype(np.uint8)
    tops, tall = _place_patches(height)
    lefts, wide = _place_patches(width)
    windows = [
        (slice(top, top + tall), slice(left, left + wide))
        for top in tops
        for left in lefts
    ]
    whole = log_odds(image[None])[0]
    drop, covered = np.zeros((height, width)), np.zeros((height, width))
    for start in range(0, len(windows), _BATCH_SIZE):
        some = windows[start : start + _BATCH_SIZE]
        batch = np.repeat(image[None], len(some), axis=0)
        for row, window in zip(batch, some, strict=True):
            row[window] = mean
        for window, odds in zip(some, log_odds(batch), strict=True):
            drop[window] += whole - odds
            covered[window] += 1
    heat: Heat = np.maximum(drop / covered, 0.0).astype(np.float32)
    return heat


def log_odds_of(probabilities: np.ndarray, label: int) -> np.ndarray:
    """Returns the log odds of a class against all others, `(batch,)`.

    Args:
        probabilities: `(batch, classes)`.
        label: The class.
    """
    tiny = np.finfo(np.float32).tiny
    chosen = probabilities[:, label].astype(np.float64)
    # The sum of the others, because 1 minus a probability near 1 has no digits left.
    others = np.delete(probabilities, label, axis=1).sum(axis=1, dtype=np.float64)
    odds: np.ndarray = np.log(np.maximum(chosen, tiny)) - np.log(
        np.maximum(others, tiny)
    )
    return odds


def resize_heat(heat: np.ndarray, image_size: Sequence[int]) -> Heat:
    """Returns heat in the size of the image, scaled so that the hottest part is 1.

    If nothing supports the class, all values are 0.

    Args:
        heat: `(rows, columns)`, from 0 up.
        image_size: `(height, width)`.
    """
    highest = float(heat.max())
    scaled = heat / highest if highest > 0 else heat
    height, width = image_size
    image = Image.fromarray(scaled.astype(np.float32))
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.float32)


def place_heat(heat: Heat, resize: Resize, size: tuple[int, int]) -> Heat:
    """Maps heat of the image that a model sees back to the original image.

    Args:
        heat: `(height, width)` of the model's image.
        resize: How the original became that image; see `ImageOptions`.
        size: `(height, width)` of the original, or of a smaller version of it.

    Returns:
        float32 `size`. What the model does not see is cold.
    """
    height, width = size
    if resize == "stretch":
        return resize_heat(heat, size)
    rows, columns = heat.shape
    if resize == "pad":
        inner_width, inner_height = fit_inside((width, height), (columns, rows))
        top, left = (rows - inner_height) // 2, (columns - inner_width) // 2
        seen = heat[top : top + inner_height, left : left + inner_width]
        return resize_heat(seen, size)
    scale = min(width / columns, height / rows)
    inner = (
        min(height, max(1, round(rows * scale))),
        min(width, max(1, round(columns * scale))),
    )
    placed: Heat = np.zeros(size, np.float32)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    placed[top : top + inner[0], left : left + inner[1]] = resize_heat(heat, inner)
    return placed


def blend_heat(image: Pixels, heatmap: np.ndarray) -> Pixels:
    """Returns the image in gray with the heat over it, uint8 `(height, width, 3)`.

    Args:
        image: uint8 `(height, width, 3)`.
        heatmap: `(height, width)`, 0..1.
    """
    heat = np.clip(heatmap, 0, 1)[..., None]
    gray = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    positions = np.linspace(0, 1, len(_COLORS))
    colors = np.stack(
        [
            np.interp(heat[..., 0], positions, channel)
            for channel in zip(*_COLORS, strict=True)
        ],
        axis=-1,
    )
    # Half of the image stays visible everywhere.
    mixed = 0.55 * (0.35 + 0.65 * heat) * gray + 0.45 * colors
    blended: Pixels = mixed.round().astype(np.uint8)
    return blended


def _place_patches(side: int) -> tuple[np.ndarray, int]:
    """Returns where patches begin along a side, and their length."""
    length = max(1, round(side / _PATCHES))
    count = 1 if length >= side else -(-2 * (side - length) // length) + 1
    return np.linspace(0, side - length, count).round().astype(int), length
