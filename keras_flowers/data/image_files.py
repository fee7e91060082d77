"""Reads one image file: its record, and its pixels at a given size."""

import dataclasses
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from keras_flowers.data.image_decoding import (
    SIGNATURE_BYTES,
    SUPPORTED_FORMATS,
    DecodedImage,
    DecodeOptions,
    UnusableImageError,
    decode_image,
    identify_format,
    is_worth_reading,
    looks_like_an_image,
)
from keras_flowers.data.near_duplicates import perceptual_hash
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path

Pixels = npt.NDArray[np.uint8]
Resize = Literal["stretch", "crop", "pad"]

IMAGE_SUFFIXES: frozenset[str] = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".heic",
        ".heif",
        ".hif",
        ".avif",
        ".jp2",
        ".j2k",
        ".jpx",
        ".mpo",
    }
)
"""The usual suffixes of supported formats, in lower case.

The content of a file decides whether it is an image, not its suffix. The suffixes
serve file dialogs and error messages.
"""

# The perceptual hash is computed from an image decoded to at least this side, so that
# it does not depend on the requested image size.
_HASH_DECODE_SIDE = 512


@dataclass(frozen=True)
class ImageOptions(DecodeOptions):
    """How images become pixels of one size.

    Attributes:
        resize: "stretch" ignores the aspect ratio; "crop" keeps it and cuts off what is
            too much on both sides; "pad" keeps it and adds black borders.
    """

    resize: Resize = "stretch"


DEFAULT_OPTIONS = ImageOptions()


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The result of inspecting one file in a data folder.

    Attributes:
        path: Relative to the data folder, with `/` as the separator.
        size: File size in bytes.
        modified_ns: Modification time in nanoseconds since 1970.
        sha256: Hexadecimal SHA-256 of the content; "" if the file was not read to the
            end because it is unreadable or does not start like an image.
        width: In pixels, after applying the orientation; 0 if unusable.
        height: In pixels, after applying the orientation; 0 if unusable.
        format: One of "JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "HEIF", "AVIF",
            "JPEG2000"; "" if unusable.
        perceptual_hash: See `keras_flowers.data.near_duplicates.perceptual_hash`; "" if
            unusable.
        problem_kind: None for a usable image, otherwise one of "not_an_image",
            "corrupt", "empty_file", "decompression_bomb", "unsupported_format",
            "unreadable". "unreadable" says nothing about the content: the same file
            may be readable next time.
        problem: None for a usable image, otherwise the reason in one line.
        note_kind: What there is to say about a usable image: None, "truncated",
            "no_end_marker", "broken_metadata" or "low_bit_depth".
        note: The note in one line, or None.
        changed_ns: Time of the last change of content, name or permissions in
            nanoseconds since 1970.
        inode: The number of the file in its file system.
        class_name: The class of the image. An audit sets it; before, it is the first
            folder of the path.
        part: "train", "validation" or "test" in a ready-made split, otherwise None.
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
    note_kind: str | None = None
    note: str | None = None
    changed_ns: int = 0
    inode: int = 0
    class_name: str = ""
    part: str | None = None

    def __post_init__(self) -> None:
        """Sets the default of `class_name`."""
        if not self.class_name:
            object.__setattr__(self, "class_name", self.path.partition("/")[0])

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a dictionary for `json.dump`.

        A path may contain bytes that are not valid text; `json.dump` preserves them
        only with its default `ensure_ascii=True`.
        """
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ImageRecord":
        """Creates a record from the result of `to_json`.

        Raises:
            TypeError: The keys of `value` are not the fields of a record.
        """
        return cls(**value)


def starts_like_an_image(path: Path) -> bool:
    """Returns whether a file starts like an image of a supported format."""
    try:
        with path.open("rb", buffering=0) as file:
            return looks_like_an_image(file.read(SIGNATURE_BYTES))
    except OSError:
        return False


def inspect_image(
    root: Path,
    relative_path: str,
    image_size: tuple[int, int] | None = None,
    options: ImageOptions = DEFAULT_OPTIONS,
) -> tuple[ImageRecord, Pixels | None]:
    """Reads, hashes and fully decodes one file in a data folder.

    An unusable file does not raise: its record holds the reason. Thread-safe.

    Args:
        root: The data folder.
        relative_path: The path of the file in `root`, with `/` as the separator.
        image_size: `(height, width)` of the pixels to return; None returns no pixels.
        options: How images become pixels.

    Returns:
        `(record, pixels)`. `pixels` is uint8 `(height, width, 3)`, RGB, 0 to 255: the
        image resized bilinearly with antialiasing. It is None for an unusable file or
        without `image_size`.
    """
    record = ImageRecord(relative_path, 0, 0, "", 0, 0, "", "", None, None)
    try:
        data, status = _read(root / relative_path)
        record = dataclasses.replace(
            record,
            size=status.st_size,
            modified_ns=status.st_mtime_ns,
            changed_ns=status.st_ctime_ns,
            inode=status.st_ino,
        )
        format_name = identify_format(data, status.st_size)
        record = dataclasses.replace(record, sha256=hashlib.sha256(data).hexdigest())
        decoded = decode_image(data, format_name, _HASH_DECODE_SIDE, options)
        hashed = perceptual_hash(decoded.image)
        pixels = None
        if image_size is not None:
            side = _decode_side(image_size)
            is_reduced = min(decoded.full_size) > min(decoded.image.size)
            if side > _HASH_DECODE_SIDE and is_reduced:
                decoded = decode_image(data, format_name, side, options)
            pixels = resize_image(decoded.image, image_size, options.resize)
    except UnusableImageError as error:
        record = dataclasses.replace(
            record, problem_kind=error.kind, problem=error.reason
        )
        return record, None
    record = dataclasses.replace(
        record,
        width=decoded.full_size[0],
        height=decoded.full_size[1],
        format=format_name,
        perceptual_hash=hashed,
        note_kind=decoded.note_kind,
        note=decoded.note,
    )
    return record, pixels


def load_image(
    path: str | os.PathLike[str],
    image_size: tuple[int, int] | None = None,
    options: ImageOptions = DEFAULT_OPTIONS,
) -> Pixels:
    """Loads one image, decoded exactly as in training.

    Args:
        path: The image file.
        image_size: `(height, width)` to resize to, bilinearly with antialiasing. None
            keeps the original size.
        options: How images become pixels.

    Returns:
        uint8 `(height, width, 3)`, RGB, 0 to 255.

    Raises:
        InputError: If the file cannot be read or decoded, with the reason.
    """
    if image_size is None:
        return np.array(_load(path, None, options).image)
    image = _load(path, _decode_side(image_size), options).image
    return resize_image(image, image_size, options.resize)


def load_thumbnail(path: str | os.PathLike[str], side: int) -> Pixels:
    """Loads a small version of an image for display, decoded as in training.

    Args:
        path: The image file.
        side: The maximum length of the longer side in pixels; images are not enlarged.

    Returns:
        uint8 `(height, width, 3)`, RGB, 0 to 255. The aspect ratio is preserved.

    Raises:
        InputError: As for `load_image`.
    """
    image = _load(path, 2 * side, ImageOptions()).image
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    return np.array(image)


def _load(
    path: str | os.PathLike[str], side: int | None, options: DecodeOptions
) -> DecodedImage:
    """Decodes an image that the user named; for `side` see `decode_image`."""
    try:
        data, status = _read(Path(path))
        return decode_image(data, identify_format(data, status.st_size), side, options)
    except UnusableImageError as error:
        raise InputError(
            f"`{printable_path(path)}` must be a {SUPPORTED_FORMATS} image. "
            f"Received: {error.reason}"
        ) from error


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """Reads a file, or only its start if that is not the start of an image."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # Opening a pipe would wait.
            raise UnusableImageError("unreadable", "not a file")
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            head = file.peek(SIGNATURE_BYTES)[:SIGNATURE_BYTES]
            if not is_worth_reading(head, status.st_size):
                return head, status
            data = file.read()
            after = os.fstat(file.fileno())
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UnusableImageError("unreadable", f"cannot be read: {reason}") from error
    if (after.st_size, after.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
        raise UnusableImageError("unreadable", "changed while it was read")
    return data, status


def _decode_side(image_size: tuple[int, int]) -> int:
    """Returns the minimum side to which decoding may reduce an image."""
    return max(_HASH_DECODE_SIDE, 2 * max(image_size))


def resize_image(
    image: Image.Image, image_size: tuple[int, int], resize: Resize = "stretch"
) -> Pixels:
    """Resizes an image bilinearly with antialiasing.

    Args:
        image: An RGB image.
        image_size: `(height, width)` of the result.
        resize: See `ImageOptions`.

    Returns:
        uint8 `(height, width, 3)`.
    """
    height, width = image_size
    box: tuple[float, float, float, float] | None = None
    inner_width, inner_height = width, height
    if resize == "crop":
        # The largest box of the target's aspect ratio, in the middle.
        scale = min(image.width / width, image.height / height)
        left = (image.width - width * scale) / 2
        top = (image.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
    elif resize == "pad":
        inner_width, inner_height = fit_inside(image.size, (width, height))
    pixels = np.array(
        image.resize((inner_width, inner_height), Image.Resampling.BILINEAR, box)
    )
    if resize != "pad":
        return pixels
    padded = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    padded[top : top + inner_height, left : left + inner_width] = pixels
    return padded


def fit_inside(size: tuple[int, int], outer: tuple[int, int]) -> tuple[int, int]:
    """Returns the largest size of the same aspect ratio in `outer`, rounded.

    Args:
        size: `(width, height)`.
        outer: `(width, height)`.
    """
    (width, height), (outer_width, outer_height) = size, outer
    if outer_width * height <= outer_height * width:
        inner = (2 * height * outer_width + width) // (2 * width)
        return outer_width, max(1, inner)
    return max(1, (2 * width * outer_height + height) // (2 * height)), outer_height
