"""Decodes one image file to RGB pixels, or says why it cannot be used.

Training, prediction and reports decode every image to 8-bit RGB in the same way:

- The EXIF orientation is applied.
- The first frame of an animated or multi-page file is used.
- Transparent areas become white.
- 16-bit samples are scaled to 8 bits, not truncated. 32-bit integers and floats have no
  standard white level: it is the smallest of 1 (floats only), 255, 65535 and 2**31 - 1
  that no sample exceeds.
- CMYK is converted to RGB without a color profile.
- A large JPEG is decoded at a half, a quarter or an eighth of its size, as long as that
  leaves at least twice the requested pixels on each side. The JPEG decoder does this
  itself and still reads the whole file. For 12-megapixel images it is three times
  faster and changes pixel values by 0.2 on average.
"""

import dataclasses
import hashlib
import io
import os
import re
import stat
import threading
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageChops, ImageFile, ImageOps, UnidentifiedImageError

from keras_flowers.data.near_duplicates import perceptual_hash
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path

Pixels = npt.NDArray[np.uint8]

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
    }
)
"""The usual suffixes of supported formats, in lower case.

The content of a file decides whether it is an image, not its suffix. The suffixes
serve file dialogs and error messages.
"""

_CLUTTER = frozenset({"__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini"})
_SUPPORTED = "JPEG, PNG, WEBP, BMP, GIF or TIFF"
_SIGNATURE_BYTES = 32
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"RIFF.{4}WEBP", "WEBP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    # Texts may start with "BM" too; the header length tells them apart.
    (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
)
_UNSUPPORTED_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb".{4}ftyp(?:hei|hev|mif|msf)", "HEIC"),
    (rb".{4}ftypavi[fs]", "AVIF"),
    (rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n", "JPEG XL"),
    (rb"8BPS", "Photoshop"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"%PDF-", "PDF"),
    (rb"\0\0[\1\2]\0[^\0]", "Windows icon"),
    (rb"P[1-6][ \t\r\n]", "PNM"),
    (rb"<svg|<\?xml.{0,20}<svg", "SVG"),
)

# Larger than any uncompressed image within Pillow's pixel limit.
_MAX_FILE_BYTES = 2**30
# The perceptual hash is computed from an image decoded to at least this side, so that
# it does not depend on the requested image size.
_HASH_DECODE_SIDE = 512


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The result of inspecting one file in a data folder.

    Attributes:
        path: Relative to the data folder, with `/` as the separator.
        size: File size in bytes.
        modified_ns: Modification time in nanoseconds since 1970.
        sha256: Hexadecimal SHA-256 of the content; "" if the file was not read to the
            end because it is unreadable or does not start like an image.
        width: In pixels, after applying the EXIF orientation; 0 if unusable.
        height: In pixels, after applying the EXIF orientation; 0 if unusable.
        format: One of "JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"; "" if unusable.
        perceptual_hash: See `keras_flowers.data.near_duplicates.perceptual_hash`; "" if
            unusable.
        problem_kind: None for a usable image, otherwise one of "not_an_image",
            "corrupt", "empty_file", "decompression_bomb", "unsupported_format",
            "unreadable". "unreadable" says nothing about the content: the same file
            may be readable next time.
        problem: None for a usable image, otherwise the reason in one line.
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
        """The class folder that contains the file."""
        return self.path.partition("/")[0]

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


def is_clutter(name: str) -> bool:
    """Returns whether a file or folder is hidden or belongs to a system or program."""
    return name.startswith(".") or name.lower() in _CLUTTER


def inspect_image(
    root: Path, relative_path: str, image_size: tuple[int, int] | None = None
) -> tuple[ImageRecord, Pixels | None]:
    """Reads, hashes and fully decodes one file in a data folder.

    An unusable file does not raise: its record holds the reason. Thread-safe.

    Args:
        root: The data folder.
        relative_path: The path of the file in `root`, with `/` as the separator.
        image_size: `(height, width)` of the pixels to return; None returns no pixels.

    Returns:
        `(record, pixels)`. `pixels` is uint8 `(height, width, 3)`, RGB, 0 to 255: the
        whole image, resized bilinearly with antialiasing; the aspect ratio is not
        preserved. It is None for an unusable file or without `image_size`.
    """
    record = ImageRecord(relative_path, 0, 0, "", 0, 0, "", "", None, None)
    try:
        data, status = _read(root / relative_path)
        record = dataclasses.replace(
            record, size=status.st_size, modified_ns=status.st_mtime_ns
        )
        format_name = _identify_format(data, status.st_size)
        record = dataclasses.replace(record, sha256=hashlib.sha256(data).hexdigest())
        with _strict_pillow:
            image, (width, height) = _decode(data, format_name, _HASH_DECODE_SIDE)
            hashed = perceptual_hash(image)
            pixels = None
            if image_size is not None:
                side = _decode_side(image_size)
                if side > _HASH_DECODE_SIDE and min(width, height) > min(image.size):
                    image, _ = _decode(data, format_name, side)
                pixels = _resize(image, image_size)
    except _UnusableError as error:
        record = dataclasses.replace(
            record, problem_kind=error.kind, problem=error.reason
        )
        return record, None
    record = dataclasses.replace(
        record,
        width=width,
        height=height,
        format=format_name,
        perceptual_hash=hashed,
    )
    return record, pixels


def load_image(
    path: str | os.PathLike[str], image_size: tuple[int, int] | None = None
) -> Pixels:
    """Loads one image, decoded exactly as in training.

    Args:
        path: The image file.
        image_size: `(height, width)` to resize to, bilinearly with antialiasing; the
            aspect ratio is not preserved. None keeps the original size.

    Returns:
        uint8 `(height, width, 3)`, RGB, 0 to 255.

    Raises:
        InputError: If the file cannot be read or decoded, with the reason.
    """
    side = None if image_size is None else _decode_side(image_size)
    return _resize(_load(path, side), image_size)


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
    image = _load(path, 2 * side)
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    return np.array(image)


def _load(path: str | os.PathLike[str], side: int | None) -> Image.Image:
    """Decodes an image that the user named; for `side` see `_decode`."""
    try:
        data, status = _read(Path(path))
        format_name = _identify_format(data, status.st_size)
        with _strict_pillow:
            image, _ = _decode(data, format_name, side)
            return image
    except _UnusableError as error:
        raise InputError(
            f"`{printable_path(path)}` must be a {_SUPPORTED} image. "
            f"Received: {error.reason}"
        ) from error


class _UnusableError(Exception):
    """Raised for a file that is not a usable image.

    Attributes:
        kind: The `problem_kind` of its record.
        reason: The `problem` of its record.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """Reads a file, or only its start if that is not the start of an image."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _UnusableError("unreadable", "not a file")
        with path.open("rb") as file:
            head = file.peek(_SIGNATURE_BYTES)
            if (
                _match_signature(_SIGNATURES, head)
                and status.st_size <= _MAX_FILE_BYTES
            ):
                return file.read(), status
            return head, status
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _UnusableError("unreadable", f"cannot be read: {reason}") from error


def _identify_format(data: bytes, size: int) -> str:
    """Returns the supported format that the first bytes belong to."""
    if not data:
        raise _UnusableError("empty_file", "empty file")
    name = _match_signature(_SIGNATURES, data)
    if name is None:
        unsupported = _match_signature(_UNSUPPORTED_SIGNATURES, data)
        if unsupported is None:
            raise _UnusableError("not_an_image", "not an image")
        reason = f"unsupported format {unsupported}; use {_SUPPORTED}"
        raise _UnusableError("unsupported_format", reason)
    if size > _MAX_FILE_BYTES:
        reason = f"{size} bytes; the limit is {_MAX_FILE_BYTES}"
        raise _UnusableError("decompression_bomb", reason)
    return name


def _match_signature(
    signatures: tuple[tuple[bytes, str], ...], data: bytes
) -> str | None:
    for pattern, name in signatures:
        if re.match(pattern, data, re.DOTALL):
            return name
    return None


def _decode_side(image_size: tuple[int, int]) -> int:
    """Returns the minimum side to which decoding may reduce an image."""
    return max(_HASH_DECODE_SIDE, 2 * max(image_size))


def _decode(
    data: bytes, format_name: str, side: int | None
) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes an image to RGB; reduces a large JPEG, but not below `side`.

    Returns:
        The image and its full `(width, height)`.
    """
    try:
        # Only this decoder may read the data, so no other format can hide in it.
        image: Image.Image = Image.open(io.BytesIO(data), formats=(format_name,))
        width, height = image.size
        _refuse_bomb(width, height)
        if side is not None:
            image.draft(None, (side, side))
        image.load()
        orientation = _orientation(image)
        if orientation != 1:
            image = ImageOps.exif_transpose(image)
        if orientation >= 5:
            width, height = height, width
        return _to_rgb(image, format_name), (width, height)
    except _UnusableError:
        raise
    except Image.DecompressionBombError as error:
        raise _UnusableError("decompression_bomb", _reason(error)) from error
    except UnidentifiedImageError as error:
        reason = f"truncated or corrupt: a {format_name} file without a usable header"
        raise _UnusableError("corrupt", reason) from error
    except MemoryError as error:  # The file may be sound.
        reason = "cannot be read: not enough memory"
        raise _UnusableError("unreadable", reason) from error
    except Exception as error:  # Pillow raises whatever hostile bytes lead it to.
        reason = f"truncated or corrupt: {_reason(error)}"
        raise _UnusableError("corrupt", reason) from error


def _refuse_bomb(width: int, height: int) -> None:
    # Pillow itself only warns up to twice the limit.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        reason = f"{width} x {height} pixels; the limit is {limit} pixels"
        raise _UnusableError("decompression_bomb", reason)


def _reason(error: Exception) -> str:
    return printable_path(str(error) or type(error).__name__)[:200]


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 if it is missing or invalid."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Broken EXIF data must not cost an image its intact pixels.
        return 1
    return orientation if orientation in range(1, 9) else 1


def _to_rgb(image: Image.Image, format_name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    if image.mode == "CMYK" and format_name == "JPEG" and "adobe" not in image.info:
        # Adobe stores CMYK inverted, and Pillow assumes every file is from Adobe.
        return ImageChops.invert(image).convert("RGB")
    return image.convert("RGB")


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit integers, 32-bit integers or floats to 0 to 255, rounded."""
    samples = np.nan_to_num(np.asarray(image, dtype=np.float64))
    white = _white_level(image, float(samples.max(initial=0.0)))
    levels = np.rint(np.clip(samples, 0.0, white) * (255.0 / white))
    return Image.fromarray(levels.astype(np.uint8))


def _white_level(image: Image.Image, brightest: float) -> float:
    if image.mode.startswith("I;16"):
        # A TIFF file may declare that it uses only 12 of the 16 bits.
        tags: dict[int, tuple[int, ...]] = getattr(image, "tag_v2", {})
        bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
        return float(2**bits - 1)
    levels = [255.0, 65535.0, float(2**31 - 1)]
    if image.mode == "F":
        levels.insert(0, 1.0)
    return next((level for level in levels if brightest <= level), brightest)


def _resize(image: Image.Image, image_size: tuple[int, int] | None) -> Pixels:
    if image_size is not None:
        height, width = image_size
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image)


class _StrictPillow:
    """Makes Pillow refuse truncated files and suppresses its warnings.

    Both are settings of the whole process. They change when the first thread enters
    and are restored when the last one leaves; threads may overlap in any order.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._restore = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._threads == 0:
                self._restore.callback(
                    setattr,
                    ImageFile,
                    "LOAD_TRUNCATED_IMAGES",
                    ImageFile.LOAD_TRUNCATED_IMAGES,
                )
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                self._restore.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._threads += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._restore.close()


_strict_pillow = _StrictPillow()
