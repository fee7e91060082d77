"""Recognizes image files and loads them as pixels of one size."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from keras_flowers_runtime.decoding import (
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
from keras_flowers_runtime.errors import InputError
from keras_flowers_runtime.files import printable_path
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Resize = Literal["stretch", "crop", "pad"]
RESIZE_MODES: tuple[Resize, ...] = get_args(Resize)

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

# Recycle bins, thumbnails, caches and system folders of Windows, macOS, Linux, Synology
# and QNAP, in lower case. Hidden files and folders are recognized by their dot.
_CLUTTER = frozenset(
    {
        "$recycle.bin",
        "$windows.~bt",
        "config.msi",
        "desktop.ini",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "found.000",
        "recycled",
        "recycler",
        "system volume information",
        "thumbs.db",
        "__macosx",
        "icon\r",
        "network trash folder",
        "temporary items",
        "lost+found",
        "thumbnails",
        "_thumbs",
        "_thumbnails",
        "#recycle",
        "#snapshot",
        "@eadir",
        "@tmp",
        "@sharebin",
        "@recycle",
        "@recently-snapshot",
        "@transcode",
        "@__thumb",
        "__pycache__",
        "node_modules",
    }
)

# Folders in which programs that manage photos keep them, and their previews.
_LIBRARIES = (".photoslibrary", ".photolibrary", ".aplibrary", ".lrdata", ".cocatalog")

# The perceptual hash is computed from an image decoded to at least this side, so that
# it does not depend on the requested image size.
HASH_DECODE_SIDE = 512


@dataclass(frozen=True)
class ImageOptions(DecodeOptions):
    """How images become pixels of one size.

    Attributes:
        resize: "stretch" ignores the aspect ratio; "crop" keeps it and cuts off what is
            too much on both sides; "pad" keeps it and adds black borders.
    """

    resize: Resize = "stretch"


DEFAULT_OPTIONS = ImageOptions()


def is_clutter(name: str) -> bool:
    """Returns whether a file or folder is hidden or belongs to a system or program."""
    lower = name.lower()
    return lower.startswith(".") or lower in _CLUTTER or lower.endswith(_LIBRARIES)


def starts_like_an_image(path: Path) -> bool:
    """Returns whether a file starts like an image of a supported format."""
    try:
        with path.open("rb", buffering=0) as file:
            return looks_like_an_image(file.read(SIGNATURE_BYTES))
    except OSError:
        return False


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
    image = _load(path, decode_side(image_size), options).image
    return resize_image(image, image_size, options.resize)


def load_image_bytes(
    data: bytes,
    image_size: tuple[int, int] | None = None,
    options: ImageOptions = DEFAULT_OPTIONS,
    name: str = "the image",
) -> Pixels:
    """Decodes an image file that is in memory, exactly as in training.

    Args:
        data: The content of the file.
        image_size: As for `load_image`.
        options: How images become pixels.
        name: What to call the image in an error message.

    Returns:
        uint8 `(height, width, 3)`, RGB, 0 to 255.

    Raises:
        InputError: As for `load_image`.
    """
    side = None if image_size is None else decode_side(image_size)
    try:
        image = decode_image(
            data, identify_format(data, len(data)), side, options
        ).image
    except UnusableImageError as error:
        raise _explain_unusable(error, name) from error
    if image_size is None:
        return np.array(image)
    return resize_image(image, image_size, options.resize)


def load_thumbnail(
    path: str | os.PathLike[str], side: int, options: ImageOptions = DEFAULT_OPTIONS
) -> Pixels:
    """Loads a small version of an image for display, decoded as in training.

    Args:
        path: The image file.
        side: The maximum length of the longer side in pixels; images are not enlarged.
        options: How to decode it; `resize` does not matter.

    Returns:
        uint8 `(height, width, 3)`, RGB, 0 to 255. The aspect ratio is preserved.

    Raises:
        InputError: As for `load_image`.
    """
    image = _load(path, 2 * side, options).image
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    return np.array(image)


def _load(
    path: str | os.PathLike[str], side: int | None, options: DecodeOptions
) -> DecodedImage:
    """Decodes an image that the user named; for `side` see `decode_image`."""
    try:
        data, status = read_image_file(Path(path))
        return decode_image(data, identify_format(data, status.st_size), side, options)
    except UnusableImageError as error:
        raise _explain_unusable(error, path) from error


def _explain_unusable(
    error: UnusableImageError, name: str | os.PathLike[str]
) -> InputError:
    return InputError(
        f"`{printable_path(name)}` must be a {SUPPORTED_FORMATS} image. "
        f"Received: {error.reason}"
    )


def read_image_file(path: Path) -> tuple[bytes, os.stat_result]:
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


def decode_side(image_size: tuple[int, int]) -> int:
    """Returns the minimum side to which decoding may reduce an image."""
    return max(HASH_DECODE_SIDE, 2 * max(image_size))


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
        # The product may exceed the side by its rounding.
        columns = min(image.width, width * scale)
        rows = min(image.height, height * scale)
        left, top = (image.width - columns) / 2, (image.height - rows) / 2
        box = (left, top, left + columns, top + rows)
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
