"""Decodes the bytes of an image file to RGB, or says why they cannot be used.

Training, prediction and reports decode every image in the same way:

- The content decides what a file is, not its suffix.
- The EXIF orientation is applied.
- The first frame of an animated or multi-page file is used.
- Transparent areas become white.
- 16-bit samples are scaled to 8 bits, not truncated; 12-bit samples in 16-bit files by
  the depth that the file states. 32-bit integers and floats have no standard white
  level: it is the smallest of 1 (floats only), 255, 65535 and 2**31 - 1 that no sample
  exceeds.
- CMYK is converted to RGB without a color profile.
- A large JPEG is decoded at a half, a quarter or an eighth of its size, as long as that
  leaves at least twice the requested pixels on each side. The JPEG decoder does this
  itself and still reads the whole file. For 12-megapixel images it is three times
  faster and changes pixel values by 0.2 on average.
- Broken metadata never costs an image its intact pixels.
"""

import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pi_heif
from keras_flowers_runtime.containers import has_all_scans, strip_metadata
from keras_flowers_runtime.files import printable_path
from PIL import ExifTags, Image, ImageChops, ImageFile, UnidentifiedImageError

SUPPORTED_FORMATS = "JPEG, PNG, WEBP, BMP, GIF, TIFF, HEIC, AVIF or JPEG 2000"
SIGNATURE_BYTES = 64

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"RIFF.{4}WEBP", "WEBP"),
    (rb"GIF8[79]a", "GIF"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb".{4}ftyp(?:avi[fs]|mif1.{4}(?:.{4}){0,10}avif)", "AVIF"),
    (rb".{4}ftyp(?:hei|hev|mif1|msf1)", "HEIF"),
    (rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51", "JPEG2000"),
    # Texts may start with "BM" too; the header length tells them apart.
    (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
)
_UNSUPPORTED_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"\xff\x0a|\0\0\0\x0cJXL \r\n", "JPEG XL"),
    (rb"8BPS", "Photoshop"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"%PDF-", "PDF"),
    (rb"\0\0[\1\2]\0[^\0]", "Windows icon"),
    (rb"P[1-6][ \t\r\n]", "PNM"),
    (rb"<svg|<\?xml.{0,20}<svg", "SVG"),
)

# What people have in place of an image without knowing it.
_OTHER_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"version https://git-lfs", "a pointer of Git LFS (git lfs pull fetches it)"),
    (rb"\s*<(?:!doctype html|html|!DOCTYPE HTML|HTML|!DOCTYPE html)", "a web page"),
    (rb".{4}ftyp", "a video"),
    (rb"PK\x03\x04", "a zip archive"),
)

# Larger than any uncompressed image within the default pixel limit.
_MAX_FILE_BYTES = 2**30
# A reduced JPEG allocates little, but its decoder still reads every pixel.
_MOST_REDUCTION = 8
# Only missing pixels would be decoded from these bytes.
_JUNK = (b"\xf0" * 256, b"\xaa" * 256)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class DecodeOptions:
    """How to decode images that leave a choice.

    Attributes:
        max_pixels: The largest number of pixels to allocate for an image; None for the
            limit of Pillow, 89,478,485 unless a program has changed it.
        truncated: What to do with a file that ends early: "refuse" it, or "keep" the
            pixels that are there.
        gray_bits: The bits in use of 16-bit gray images that do not state it, 8 to 16;
            None for 16.
    """

    max_pixels: int | None = None
    truncated: Literal["refuse", "keep"] = "refuse"
    gray_bits: int | None = None


DEFAULT_DECODE_OPTIONS = DecodeOptions()


@dataclass(frozen=True)
class DecodedImage:
    """An image and what there is to say about it.

    Attributes:
        image: RGB pixels.
        full_size: `(width, height)` in pixels before any reduction.
        note_kind: None, or "truncated", "no_end_marker", "broken_metadata" or
            "low_bit_depth".
        note: The note in one line, or None.
    """

    image: Image.Image
    full_size: tuple[int, int]
    note_kind: str | None = None
    note: str | None = None


class UnusableImageError(Exception):
    """Raised for a file that is not a usable image.

    Attributes:
        kind: The `problem_kind` of its record.
        reason: The `problem` of its record.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason


def looks_like_an_image(head: bytes) -> bool:
    """Returns whether the first bytes of a file are those of a supported format."""
    return _match_signature(_SIGNATURES, head) is not None


def is_worth_reading(head: bytes, size: int) -> bool:
    """Returns whether a file with this start and size may be a usable image."""
    return looks_like_an_image(head) and size <= _MAX_FILE_BYTES


def identify_format(data: bytes, size: int) -> str:
    """Returns the supported format that the first bytes belong to.

    Raises:
        UnusableImageError: If there is none, or the file is too large.
    """
    if not data:
        raise UnusableImageError("empty_file", "empty file")
    name = _match_signature(_SIGNATURES, data)
    if name is None:
        unsupported = _match_signature(_UNSUPPORTED_SIGNATURES, data)
        if unsupported is None:
            other = _match_signature(_OTHER_SIGNATURES, data)
            reason = f"{other}, not an image" if other else "not an image"
            raise UnusableImageError("not_an_image", reason)
        reason = f"unsupported format {unsupported}; use {SUPPORTED_FORMATS}"
        raise UnusableImageError("unsupported_format", reason)
    if size > _MAX_FILE_BYTES:
        reason = f"{size} bytes; the limit is {_MAX_FILE_BYTES}"
        raise UnusableImageError("decompression_bomb", reason)
    return name


def _match_signature(
    signatures: tuple[tuple[bytes, str], ...], data: bytes
) -> str | None:
    for pattern, name in signatures:
        if re.match(pattern, data, re.DOTALL):
            return name
    return None


def decode_image(
    data: bytes,
    format_name: str,
    side: int | None = None,
    options: DecodeOptions = DEFAULT_DECODE_OPTIONS,
) -> DecodedImage:
    """Decodes an image to RGB; reduces a large JPEG, but not below `side`.

    Args:
        data: The content of the file.
        format_name: The result of `identify_format`.
        side: The minimum length of the shorter side in pixels; None for the full size.
        options: How to decode images that leave a choice.

    Returns:
        The image. Thread-safe.

    Raises:
        UnusableImageError: If the image cannot be decoded, with the reason.
    """
    decode = _Decoder(format_name, side, options)
    with strict_pillow:
        try:
            return decode(data)
        except UnusableImageError as error:
            if error.kind != "corrupt":
                raise
            for repaired in decode.repair(data, error.reason):
                return repaired
            raise


@dataclass(frozen=True)
class _Decoder:
    """Decodes the content of files of one format."""

    format_name: str
    side: int | None
    options: DecodeOptions

    def __call__(self, data: bytes, *, keep_partial: bool = False) -> DecodedImage:
        try:
            return self._decode(data, keep_partial=keep_partial)
        except UnusableImageError:
            raise
        except Image.DecompressionBombError as error:
            raise UnusableImageError("decompression_bomb", _describe(error)) from error
        except UnidentifiedImageError as error:
            reason = (
                f"truncated or corrupt: a {self.format_name} file without a usable "
                "header"
            )
            raise UnusableImageError("corrupt", reason) from error
        except MemoryError as error:  # The file may be sound.
            reason = "cannot be read: not enough memory"
            raise UnusableImageError("unreadable", reason) from error
        except Exception as error:  # Pillow raises anything for hostile bytes.
            reason = f"truncated or corrupt: {_describe(error)}"
            raise UnusableImageError("corrupt", reason) from error

    def _decode(self, data: bytes, *, keep_partial: bool) -> DecodedImage:
        if self.format_name == "HEIF":
            return self._decode_heif(data)
        # Only this decoder may read the data, so no other format can hide in it.
        image: Image.Image = Image.open(io.BytesIO(data), formats=(self.format_name,))
        width, height = image.size
        if self.side is not None:
            image.draft(None, (self.side, self.side))
        self._check_pixels(image, width * height)
        try:
            image.load()
        except OSError:
            if not keep_partial:
                raise
            image.tile = []  # type: ignore[attr-defined]
            image.load()
        orientation = _read_orientation(image)
        if orientation in _TRANSPOSE:
            rgb = _convert_to_rgb(image, data, self.format_name, self.options)
            rgb = rgb.transpose(_TRANSPOSE[orientation])
        else:
            rgb = _convert_to_rgb(image, data, self.format_name, self.options)
        if orientation >= 5:
            width, height = height, width
        if _wastes_bits(image, data, self.options):
            return DecodedImage(
                rgb,
                (width, height),
                "low_bit_depth",
                "16-bit gray with values below 4096 and no stated depth; it is nearly "
                "black unless gray_bits (--gray-bits) says how many bits are in use",
            )
        return DecodedImage(rgb, (width, height))

    def _decode_heif(self, data: bytes) -> DecodedImage:
        # libheif applies the orientation, so the EXIF data must not.
        file = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=True)
        self._check_pixels(None, file.size[0] * file.size[1])
        image = file.to_pillow()
        return DecodedImage(
            _convert_to_rgb(image, data, "HEIF", self.options), image.size
        )

    def _check_pixels(self, image: Image.Image | None, full: int) -> None:
        """Refuses an image that would take too much memory."""
        limit = self.options.max_pixels
        if limit is None:
            limit = strict_pillow.max_pixels
        if limit is None:
            return
        needed = full
        # The decoder of a progressive JPEG holds all coefficients at full size.
        if image is not None and not image.info.get("progressive"):
            needed = image.size[0] * image.size[1]
        if needed > limit or full > _MOST_REDUCTION * limit:
            reason = (
                f"{full} pixels; the limit is {limit} pixels (max_pixels, --max-pixels)"
            )
            raise UnusableImageError("decompression_bomb", reason)

    def repair(self, data: bytes, reason: str) -> Iterator[DecodedImage]:
        """Yields the image if something but its pixels is broken."""
        for stripped in strip_metadata(data, self.format_name):
            try:
                found = self(stripped)
            except UnusableImageError:
                continue
            note = f"metadata ignored, {reason.removeprefix('truncated or corrupt: ')}"
            yield DecodedImage(found.image, found.full_size, "broken_metadata", note)
            return
        if self.format_name == "JPEG":
            yield from self._complete_jpeg(data)
        elif self.options.truncated == "keep":
            try:
                found = self(data, keep_partial=True)
            except UnusableImageError:
                return
            if np.asarray(found.image).any():
                yield _note_truncation(found)

    def _complete_jpeg(self, data: bytes) -> Iterator[DecodedImage]:
        """Yields a JPEG without its end, if all of its pixels are there."""
        data = data.rstrip(b"\xff")
        try:
            found = self(data + b"\xff\xd9")
            others = [self(data + junk + b"\xff\xd9") for junk in _JUNK]
        except UnusableImageError:
            return
        is_complete = has_all_scans(data) and all(
            ImageChops.difference(found.image, other.image).getbbox() is None
            for other in others
        )
        if is_complete:
            note = "the file ends early, but all pixels are there"
            yield DecodedImage(found.image, found.full_size, "no_end_marker", note)
        elif self.options.truncated == "keep":
            yield _note_truncation(found)


def _note_truncation(found: DecodedImage) -> DecodedImage:
    note = "the file ends early; the missing pixels are gray or black"
    return DecodedImage(found.image, found.full_size, "truncated", note)


def _describe(error: Exception) -> str:
    text = re.sub(r" at 0x[0-9a-f]+", "", str(error)) or type(error).__name__
    return printable_path(text)[:200]


def _read_orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 if it is missing or invalid."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Broken EXIF data must not cost an image its intact pixels.
        return 1
    return orientation if orientation in range(1, 9) else 1


# Colors and depths


def _convert_to_rgb(
    image: Image.Image, data: bytes, format_name: str, options: DecodeOptions
) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8_bits(image, data, options).convert("RGB")
    if image.has_transparency_data:
        try:
            layer = image.convert("RGBA")
        except (ValueError, TypeError):  # Broken transparency.
            return image.convert("RGB")
        ground = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(ground, layer).convert("RGB")
    if image.mode == "CMYK" and format_name == "JPEG" and "adobe" not in image.info:
        # Adobe stores CMYK inverted, and Pillow assumes every file is from Adobe.
        return ImageChops.invert(image).convert("RGB")
    return image.convert("RGB")


def _scale_to_8_bits(
    image: Image.Image, data: bytes, options: DecodeOptions
) -> Image.Image:
    """Scales 16-bit integers, 32-bit integers or floats to 0 to 255, rounded."""
    samples = np.nan_to_num(np.asarray(image, dtype=np.float64))
    brightest = float(samples.max(initial=0.0))
    if image.mode.startswith("I;16"):
        bits = _read_stated_bits(image, data) or options.gray_bits or 16
        white = max(1.0, float(2**bits - 1))
    else:
        levels = [255.0, 65535.0, float(2**31 - 1)]
        if image.mode == "F":
            levels.insert(0, 1.0)
        white = next((level for level in levels if brightest <= level), brightest)
    scaled = np.rint(np.clip(samples, 0.0, white) * (255.0 / white))
    return Image.fromarray(scaled.astype(np.uint8))


def _read_stated_bits(image: Image.Image, data: bytes) -> int | None:
    """Returns how many of the 16 bits a file says it uses, or None."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        bits = tags.get(ExifTags.Base.BitsPerSample, (16,))
        brightest = tags.get(281) or tags.get(341)  # MaxSampleValue, SMaxSampleValue
        found = bits[0] if isinstance(bits, tuple) else bits
        if isinstance(brightest, tuple):
            brightest = brightest[0] if brightest else None
        if brightest and found == 16:
            found = int(brightest).bit_length()
        return found if isinstance(found, int) and 1 <= found < 16 else None
    # sBIT comes before the palette and the pixels.
    place = data.find(b"sBIT", 8, data.find(b"IDAT"))
    if image.format == "PNG" and place > 0 and place + 4 < len(data):
        return data[place + 4] if 1 <= data[place + 4] < 16 else None
    return None


def _wastes_bits(image: Image.Image, data: bytes, options: DecodeOptions) -> bool:
    """Returns whether a 16-bit image is nearly black for want of a stated depth."""
    if not image.mode.startswith("I;16") or options.gray_bits is not None:
        return False
    if _read_stated_bits(image, data) is not None:
        return False
    brightest = image.getextrema()[1]
    return 255 < brightest < 4096  # type: ignore[operator]


class _StrictPillow:
    """Makes Pillow refuse truncated files and suppresses its warnings and limit.

    These are settings of the whole process. They change when the first thread enters
    and are restored when the last one leaves; threads may overlap in any order.

    Attributes:
        max_pixels: The limit of Pillow, which `DecodeOptions` replaces.
    """

    def __init__(self) -> None:
        self.max_pixels: int | None = None
        self._lock = threading.Lock()
        self._threads = 0
        self._restore = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._threads == 0:
                self.max_pixels = Image.MAX_IMAGE_PIXELS
                self._change(Image, "MAX_IMAGE_PIXELS", None)
                self._change(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
                self._restore.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._threads += 1

    def _change(self, module: object, name: str, value: object) -> None:
        self._restore.callback(setattr, module, name, getattr(module, name))
        setattr(module, name, value)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0:
                self._restore.close()


strict_pillow = _StrictPillow()
