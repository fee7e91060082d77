"""Inspects one image file of a data folder: its record, and its pixels."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_flowers_runtime.decoding import (
    UnusableImageError,
    decode_image,
    identify_format,
)
from keras_flowers_runtime.images import DEFAULT_OPTIONS as DEFAULT_OPTIONS
from keras_flowers_runtime.images import HASH_DECODE_SIDE, decode_side, read_image_file
from keras_flowers_runtime.images import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from keras_flowers_runtime.images import ImageOptions as ImageOptions
from keras_flowers_runtime.images import Pixels as Pixels
from keras_flowers_runtime.images import Resize as Resize
from keras_flowers_runtime.images import fit_inside as fit_inside
from keras_flowers_runtime.images import load_image as load_image
from keras_flowers_runtime.images import load_thumbnail as load_thumbnail
from keras_flowers_runtime.images import resize_image as resize_image
from keras_flowers_runtime.images import starts_like_an_image as starts_like_an_image

from keras_flowers.data.near_duplicates import perceptual_hash


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
        labels: The classes of an image that may have several or none, sorted; None for
            an image of one class. An audit sets it.
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
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Sets the default of `class_name`."""
        if not self.class_name:
            object.__setattr__(self, "class_name", self.path.partition("/")[0])

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the image: `class_name` alone, or all of its `labels`."""
        return (self.class_name,) if self.labels is None else self.labels

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a dictionary for `json.dump`.

        Labels, which are those of a label file and not of the image, are left out.

        A path may contain bytes that are not valid text; `json.dump` preserves them
        only with its default `ensure_ascii=True`.
        """
        fields = dataclasses.asdict(self)
        del fields["labels"]
        return fields

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "ImageRecord":
        """Creates a record from the result of `to_json`.

        Raises:
            TypeError: The keys of `value` are not the fields of a record.
        """
        return cls(**value)


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
        data, status = read_image_file(root / relative_path)
        record = dataclasses.replace(
            record,
            size=status.st_size,
            modified_ns=status.st_mtime_ns,
            changed_ns=status.st_ctime_ns,
            inode=status.st_ino,
        )
        format_name = identify_format(data, status.st_size)
        record = dataclasses.replace(record, sha256=hashlib.sha256(data).hexdigest())
        decoded = decode_image(data, format_name, HASH_DECODE_SIDE, options)
        hashed = perceptual_hash(decoded.image)
        pixels = None
        if image_size is not None:
            side = decode_side(image_size)
            is_reduced = min(decoded.full_size) > min(decoded.image.size)
            if side > HASH_DECODE_SIDE and is_reduced:
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
