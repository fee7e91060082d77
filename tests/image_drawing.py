"""Draws tiny photos and data sets for tests."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def blobs(seed: int, size: tuple[int, int] = (48, 36)) -> Image.Image:
    """Returns an RGB picture of soft blobs, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format_name: str = "JPEG", **options: Any) -> bytes:
    """Returns the bytes of a file that holds the image."""
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def draw_image(
    path: Path,
    seed: int,
    *,
    size: tuple[int, int] = (48, 36),
    format_name: str = "JPEG",
    **options: Any,
) -> Path:
    """Writes a photo, unlike that of any other seed, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(blobs(seed, size), format_name, **options))
    return path


def draw_data_set(root: Path, counts: Mapping[str, int]) -> Path:
    """Writes `counts[name]` different JPEG photos into each folder `root/name`."""
    seed = 0
    for name, count in counts.items():
        for number in range(count):
            draw_image(root / name / f"{number:03}.jpg", seed)
            seed += 1
    return root
