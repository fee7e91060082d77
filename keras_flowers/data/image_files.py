"""Inspects one image file of a data folder: what it holds, or the reason why not."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_flowers_runtime.decoding import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from keras_flowers_runtime.decoding import (
    REDUCED_SIDE,
    UnusableImageError,
    decode_rgb,
    detect_format,
    read_image_file,
    reduced_side,
    resize_pixels,
    strict_pillow,
)
from keras_flowers_runtime.decoding import Pixels as Pixels
from keras_flowers_runtime.decoding import is_clutter as is_clutter
from keras_flowers_runtime.decoding import load_image as load_image
from keras_flowers_runtime.decoding import load_thumbnail as load_thumbnail

from keras_flowers.data.near_duplicates import perceptual_hash


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """What is known about one file of a data folder after it was read.

    Attributes:
        path: Relative to the data folder, with `/` between its parts.
        size: Length of the file in bytes.
        modified_ns: When it was changed last, in nanoseconds since 1970.
        sha256: Hexadecimal SHA-256 of its bytes; "" where the file was not read to its
            end, because it could not be or because its first bytes are no image's.
        width: In pixels, after the EXIF orientation; 0 if unreadable.
        height: In pixels, after the EXIF orientation; 0 if unreadable.
        format: One of "JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"; "" if unreadable.
        perceptual_hash: See `keras_flowers.data.near_duplicates.perceptual_hash`; "" if
            unreadable.
        problem_kind: None for an image that can be used, otherwise one of
            "not_an_image", "corrupt", "empty_file", "decompression_bomb",
            "unsupported_format", "unreadable". The last one says nothing about the
            content: the same file may be readable the next time.
        problem: None for an image that can be used, otherwise the reason in one line.
    """

    path: str
    size: int
    modified_ns: int
    sha256: str
    width: int
    height: int
    format: str
    perceptual_hash: str
    problem_kind: str | None
    problem: str | None

    @property
    def class_name(self) -> str:
        """The folder within the data folder that the file stands in."""
        return self.path.partition("/")[0]

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a dictionary that `json.dump` takes.

        A path may hold bytes that are no text; `json.dump` keeps them with its
        default `ensure_ascii=True` only.
        """
        return {
            "path": self.path,
            "size": self.size,
            "modified_ns": self.modified_ns,
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "format": self.format,
            "perceptual_hash": self.perceptual_hash,
            "problem_kind": self.problem_kind,
            "problem": self.problem,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ImageRecord":
        """Builds the record that `to_json` described.

        Raises:
            TypeError: The keys of `value` are not the fields of a record.
        """
        return cls(**value)


def inspect_image(
    root: Path, relative_path: str, image_size: tuple[int, int] | None = None
) -> tuple[ImageRecord, Pixels | None]:
    """Reads, hashes and fully decodes one file of a data folder.

    A bad file never raises: the reason stands in the record. Safe to call from
    several threads at once.

    Args:
        root: The data folder.
        relative_path: The file below `root`, with `/` between its parts.
        image_size: `(height, width)` of the pixels to return, or None for none.

    Returns:
        The record, and the pixels as uint8 [height, width, 3] in RGB, 0 to 255: the
        whole image resized bilinearly with antialiasing, without regard to its aspect
        ratio. None instead of the pixels for a file that cannot be used, and where no
        `image_size` is given.
    """
    size = modified_ns = 0
    sha256 = ""
    try:
        data, status = read_image_file(root / relative_path)
        size, modified_ns = status.st_size, status.st_mtime_ns
        format_name = detect_format(data, size)
        sha256 = hashlib.sha256(data).hexdigest()
        with strict_pillow:
            image, (width, height) = decode_rgb(data, format_name, REDUCED_SIDE)
            hashed = perceptual_hash(image)
            pixels = None
            if image_size is not None:
                side = reduced_side(image_size)
                if side > REDUCED_SIDE and min(width, height) > min(image.size):
                    image, _ = decode_rgb(data, format_name, side)
                pixels = resize_pixels(image, image_size)
    except UnusableImageError as unusable:
        record = ImageRecord(
            path=relative_path,
            size=size,
            modified_ns=modified_ns,
            sha256=sha256,
            width=0,
            height=0,
            format="",
            perceptual_hash="",
            problem_kind=unusable.kind,
            problem=unusable.reason,
        )
        return record, None
    record = ImageRecord(
        path=relative_path,
        size=size,
        modified_ns=modified_ns,
        sha256=sha256,
        width=width,
        height=height,
        format=format_name,
        perceptual_hash=hashed,
        problem_kind=None,
        problem=None,
    )
    return record, pixels
