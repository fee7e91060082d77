"""Reads one image file: from its bytes to RGB pixels, or the reason why not.

Every image becomes 8-bit RGB in the same way, whoever reads it:

- The orientation that a camera noted in the EXIF data is applied.
- Of an animated or multi-page file the first frame is taken.
- Transparent parts show a white ground.
- 16-bit samples are scaled to 8 bits, not cut off. 32-bit integers and floats have no
  agreed white: it is the smallest of 1 (floats only), 255, 65535 and 2**31 - 1 that no
  sample exceeds.
- CMYK becomes RGB by the plain formula, without a colour profile.
- A large JPEG image is decoded at a half, a quarter or an eighth of its size (the
  decoder's own scaling; it reads the whole file nevertheless) while that leaves at
  least twice the pixels of the wanted size on each side. On images of 12 megapixels
  this is three times faster and changes a value by 0.2 grey levels on average.
"""

import hashlib
import io
import os
import re
import stat
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

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
"""The usual suffixes of the formats that can be read, in lower case.

Whether a file is a photo is decided by its content; these are for file dialogs and
for guessing what a user meant.
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
    # "BM" alone begins many a text; the length of the header makes it sure.
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

# An image within Pillow's limit of pixels is smaller even without any compression.
_MAX_FILE_BYTES = 2**30
# The perceptual hash never depends on the size wanted by the caller: it is taken from
# the image decoded for at least this side.
_HASH_DECODE_SIDE = 512


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


def is_clutter(name: str) -> bool:
    """Says whether a file or folder of this name belongs to a system or a program.

    Hidden ones do, and those that unpacking and thumbnails leave behind.
    """
    return name.startswith(".") or name.lower() in _CLUTTER


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
        data, status = _read(root / relative_path)
        size, modified_ns = status.st_size, status.st_mtime_ns
        format_name = _format(data, size)
        sha256 = hashlib.sha256(data).hexdigest()
        with _strict_pillow:
            image, (width, height) = _decode(data, format_name, _HASH_DECODE_SIDE)
            hashed = perceptual_hash(image)
            pixels = None
            if image_size is not None:
                side = _decode_side(image_size)
                if side > _HASH_DECODE_SIDE and min(width, height) > min(image.size):
                    image, _ = _decode(data, format_name, side)
                pixels = _resized(image, image_size)
    except _UnusableError as unusable:
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


def load_image(
    path: str | os.PathLike[str], image_size: tuple[int, int] | None = None
) -> Pixels:
    """Reads one image, decoded exactly as in training.

    Args:
        path: The image.
        image_size: `(height, width)` to resize to, bilinearly with antialiasing and
            without regard to the aspect ratio; None keeps the size of the image.

    Returns:
        uint8 [height, width, 3] in RGB, 0 to 255.

    Raises:
        InputError: The file cannot be read or is no image that can be decoded, with
            the reason.
    """
    side = None if image_size is None else _decode_side(image_size)
    return _resized(_loaded(path, side), image_size)


def load_thumbnail(path: str | os.PathLike[str], side: int) -> Pixels:
    """Reads one image for people to look at: decoded as in training, and small.

    Args:
        path: The image.
        side: The longer side of the result in pixels at most; no image is enlarged.

    Returns:
        uint8 [height, width, 3] in RGB, 0 to 255, with the aspect ratio of the image.

    Raises:
        InputError: As for `load_image`.
    """
    image = _loaded(path, 2 * side)
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    return np.array(image)


def _loaded(path: str | os.PathLike[str], side: int | None) -> Image.Image:
    """Decodes an image for a user who named it, a large JPEG no smaller than `side`."""
    try:
        data, status = _read(Path(path))
        format_name = _format(data, status.st_size)
        with _strict_pillow:
            image, _ = _decode(data, format_name, side)
            return image
    except _UnusableError as unusable:
        raise InputError(
            f"`{printable_path(path)}` must be a photo as {_SUPPORTED}. "
            f"Received: {unusable.reason}"
        ) from unusable


class _UnusableError(Exception):
    """Says why a file is no image: the kind to programs, the reason to people."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """Reads a file; of one that cannot be an image only the beginning."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _UnusableError("unreadable", "not a file")
        with path.open("rb") as file:
            head = file.peek(_SIGNATURE_BYTES)
            if _matching(_SIGNATURES, head) and status.st_size <= _MAX_FILE_BYTES:
                return file.read(), status
            return head, status
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise _UnusableError("unreadable", f"cannot be read: {reason}") from error


def _format(data: bytes, size: int) -> str:
    """Returns which of the supported formats the first bytes announce."""
    if not data:
        raise _UnusableError("empty_file", "empty file")
    name = _matching(_SIGNATURES, data)
    if name is None:
        unsupported = _matching(_UNSUPPORTED_SIGNATURES, data)
        if unsupported is None:
            raise _UnusableError("not_an_image", "not an image")
        reason = f"unsupported format {unsupported}; use {_SUPPORTED}"
        raise _UnusableError("unsupported_format", reason)
    if size > _MAX_FILE_BYTES:
        reason = f"{size} bytes are more than the {_MAX_FILE_BYTES} that are read"
        raise _UnusableError("decompression_bomb", reason)
    return name


def _matching(signatures: tuple[tuple[bytes, str], ...], data: bytes) -> str | None:
    for pattern, name in signatures:
        if re.match(pattern, data, re.DOTALL):
            return name
    return None


def _decode_side(image_size: tuple[int, int]) -> int:
    """Returns the side down to which an image may be reduced while it is decoded."""
    return max(_HASH_DECODE_SIDE, 2 * max(image_size))


def _decode(
    data: bytes, format_name: str, side: int | None
) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes an image to RGB, a large JPEG reduced to no less than `side`.

    Returns:
        The image, and the (width, height) that it has in full.
    """
    try:
        # Only this decoder may see the data: no other format can hide in the file.
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
    # Pillow itself only warns of up to twice the limit.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        reason = f"{width} x {height} pixels are more than the {limit} that are decoded"
        raise _UnusableError("decompression_bomb", reason)


def _reason(error: Exception) -> str:
    return printable_path(str(error) or type(error).__name__)[:200]


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 where it is missing or makes no sense."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Broken EXIF data beside sound pixels: what the camera wrote.
        return 1
    return orientation if orientation in range(1, 9) else 1


def _to_rgb(image: Image.Image, format_name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _with_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    if image.mode == "CMYK" and format_name == "JPEG" and "adobe" not in image.info:
        # Adobe stores ink inverted, and Pillow takes every file for one of Adobe's.
        return ImageChops.invert(image).convert("RGB")
    return image.convert("RGB")


def _with_8_bits(image: Image.Image) -> Image.Image:
    """Scales 16-bit integers, 32-bit integers or floats to 0 to 255, rounded."""
    samples = np.nan_to_num(np.asarray(image, dtype=np.float64))
    white = _white_level(image, float(samples.max(initial=0.0)))
    levels = np.rint(np.clip(samples, 0.0, white) * (255.0 / white))
    return Image.fromarray(levels.astype(np.uint8))


def _white_level(image: Image.Image, brightest: float) -> float:
    if image.mode.startswith("I;16"):
        # A TIFF file may use 12 of the 16 bits only, and says so.
        tags: dict[int, tuple[int, ...]] = getattr(image, "tag_v2", {})
        bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
        return float(2**bits - 1)
    levels = [255.0, 65535.0, float(2**31 - 1)]
    if image.mode == "F":
        levels.insert(0, 1.0)
    return next((level for level in levels if brightest <= level), brightest)


def _resized(image: Image.Image, image_size: tuple[int, int] | None) -> Pixels:
    if image_size is not None:
        height, width = image_size
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image)


class _StrictPillow:
    """Pillow refuses truncated files and warns nobody while a thread is inside.

    Both are settings of the whole process: they are changed when the first thread
    enters and restored when the last one leaves. `warnings.catch_warnings` would not
    do, because threads leave in another order than they entered.
    """

    _FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._load_truncated = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._load_truncated = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._load_truncated
                filters = cast(list[Any], warnings.filters)
                if self._FILTER in filters:  # else somebody restored older filters
                    filters.remove(self._FILTER)


_strict_pillow = _StrictPillow()
