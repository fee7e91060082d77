"""Decides which images train, validate and test, and writes that to a manifest.

A split is stratified: the same fraction of each class validates. It depends only on the
content of the images and the seed, not on the order or names of files or on the
machine, and a new image moves few others. Copies of an image, and images that show
nearly the same picture, stay on one side.
"""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    model_validator,
)

from keras_flowers.argument_checks import check_integer
from keras_flowers.data.audit import Audit
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path, write_text_atomically
from keras_flowers.notebook import html_table

SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Which images train, validate and test.

    Attributes:
        class_names: The position of a name is its label.
        seed: The seed of the split.
        validation_split: The requested fraction of each class.
        test_split: The requested fraction of each class.
        train: The training images, sorted by path.
        validation: The validation images, sorted by path; may be empty.
        test: The test images, sorted by path; may be empty.
        not_in_manifest: The images that the manifest of the split does not list. They
            are in none of the three parts.
    """

    class_names: tuple[str, ...]
    seed: int
    validation_split: float
    test_split: float
    train: tuple[ImageRecord, ...]
    validation: tuple[ImageRecord, ...]
    test: tuple[ImageRecord, ...]
    not_in_manifest: tuple[ImageRecord, ...] = ()

    def __repr__(self) -> str:
        """Returns the sizes, not the images."""
        sizes = ", ".join(f"{len(getattr(self, name))} {name}" for name in SPLIT_NAMES)
        left = len(self.not_in_manifest)
        more = f", {left} not in the manifest" if left else ""
        return f"Split({len(self.class_names)} classes: {sizes}{more})"

    def _repr_html_(self) -> str:
        counts = [
            Counter(record.class_name for record in getattr(self, name))
            for name in SPLIT_NAMES
        ]
        rows = [[name, *(count[name] for count in counts)] for name in self.class_names]
        total = ["all classes", *(count.total() for count in counts)]
        return html_table(repr(self), ["class", *SPLIT_NAMES], [total, *rows])


def split_audit(
    audit: Audit,
    *,
    validation_split: float = 0.2,
    test_split: float = 0.0,
    seed: int = 42,
    keep_near_duplicates_together: bool = True,
) -> Split:
    """Splits the images of each class by the same fractions.

    Of a class of `n` images, `round(validation_split * n)` validate and
    `round(test_split * n)` test, but at least one unless the fraction is 0. Because
    copies stay together, a class may miss these numbers by less than the size of its
    largest group of copies, or by more if groups contain several classes.

    Args:
        audit: The images.
        validation_split: Fraction of each class, 0 to less than 1; 0 for none.
        test_split: Fraction of each class, 0 to less than 1; 0 for none.
        seed: Any integer.
        keep_near_duplicates_together: Whether images that show nearly the same
            picture stay on one side. Images with equal bytes always do.

    Returns:
        The split. Every image of the audit is in exactly one part of it.

    Raises:
        InputError: If a fraction is out of range, no fraction is left for training,
            the seed is not an integer, or a class has too few different images for all
            parts.
    """
    fractions = check_fractions(validation_split, test_split)
    seed = check_integer("seed", seed)
    sizes = audit.counts
    targets = {
        part: {name: max(1, round(fraction * n)) for name, n in sizes.items()}
        for part, fraction in fractions.items()
        if fraction > 0
    }
    linked = (
        audit.near_duplicate_groups
        if keep_near_duplicates_together
        else audit.duplicate_groups
    )
    assignment = _Assignment(_ordered_groups(audit.images, linked, seed), targets)
    assignment.fill()
    assignment.complete(sizes)
    parts = assignment.parts()
    return Split(
        class_names=audit.class_names,
        seed=seed,
        validation_split=fractions["validation"],
        test_split=fractions["test"],
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
    )


def check_fractions(validation_split: Any, test_split: Any) -> dict[str, float]:
    """Returns the fractions as floats by the name of the part.

    Raises:
        InputError: If one is out of range, or nothing is left for training.
    """
    fractions = {}
    for part, value in (("validation", validation_split), ("test", test_split)):
        name = f"{part}_split"
        try:
            number = math.nan if isinstance(value, bool | str) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 <= number < 1:
            raise InputError(
                f"`{name}` must be a number from 0 to less than 1. "
                f"Received: {name}={value!r}"
            )
        fractions[part] = number
    if sum(fractions.values()) >= 1:
        raise InputError(
            "`validation_split` and `test_split` must leave images for training: "
            "together less than 1. Received: "
            f"validation_split={validation_split!r}, test_split={test_split!r}"
        )
    return fractions


@dataclass(frozen=True)
class _Group:
    """Images that stay together, and their number in each class."""

    images: tuple[ImageRecord, ...]
    counts: Mapping[str, int]


def _ordered_groups(
    images: Sequence[ImageRecord], linked: Iterable[Sequence[str]], seed: int
) -> list[_Group]:
    """Returns all images in groups, in an order that depends on seed and content."""
    by_path = {record.path: record for record in images}
    members = [[by_path.pop(path) for path in group] for group in linked]
    members.extend([record] for record in by_path.values())
    groups = []
    for group in members:
        # One content represents the group, so more copies do not change its place.
        content = min(record.sha256 for record in group)
        key = hashlib.sha256(f"{seed}:{content}".encode()).digest()
        counts = Counter(record.class_name for record in group)
        groups.append((key, _Group(tuple(group), counts)))
    groups.sort(key=lambda keyed: keyed[0])
    return [group for _, group in groups]


class _Assignment:
    """Assigns groups of images to the parts of a split."""

    def __init__(
        self, groups: Sequence[_Group], targets: Mapping[str, Mapping[str, int]]
    ) -> None:
        self._groups = groups
        self._targets = targets
        self._part_of = ["train"] * len(groups)
        self._counts = {part: Counter[str]() for part in SPLIT_NAMES}
        for group in groups:
            self._counts["train"].update(group.counts)

    def fill(self) -> None:
        """Assigns each group to the first part that still needs all of its images."""
        for index, group in enumerate(self._groups):
            for part, target in self._targets.items():
                counts = self._counts[part]
                if all(counts[c] + n <= target[c] for c, n in group.counts.items()):
                    if self._leaves_training(group):
                        self._move(index, part)
                    break

    def complete(self, sizes: Mapping[str, int]) -> None:
        """Gives each part without an image of a class the smallest possible group."""
        for name, size in sizes.items():
            for part in self._targets:
                if self._counts[part][name]:
                    continue
                movable = [
                    index
                    for index, group in enumerate(self._groups)
                    if self._part_of[index] == "train"
                    and name in group.counts
                    and self._leaves_training(group)
                ]
                if not movable:
                    raise InputError(self._too_small(name, size))
                smallest = min(movable, key=lambda i: len(self._groups[i].images))
                self._move(smallest, part)

    def parts(self) -> dict[str, tuple[ImageRecord, ...]]:
        """Returns the images of each part, sorted by path."""
        parts: dict[str, list[ImageRecord]] = {part: [] for part in SPLIT_NAMES}
        for part, group in zip(self._part_of, self._groups, strict=True):
            parts[part].extend(group.images)
        return {
            part: tuple(sorted(images, key=lambda record: record.path))
            for part, images in parts.items()
        }

    def _leaves_training(self, group: _Group) -> bool:
        counts = self._counts["train"]
        return all(counts[name] > count for name, count in group.counts.items())

    def _move(self, index: int, part: str) -> None:
        counts = self._groups[index].counts
        self._counts[self._part_of[index]].subtract(counts)
        self._counts[part].update(counts)
        self._part_of[index] = part

    def _too_small(self, name: str, size: int) -> str:
        groups = sum(name in group.counts for group in self._groups)
        parts = " and ".join(["train", *self._targets])
        different = (
            f", in {groups} groups of copies or similar images that stay together "
            "(`keep_near_duplicates_together=False` or --split-near-duplicates "
            "separates similar ones)"
        )
        return (
            f"class {printable_path(name)} is too small to split into {parts}. "
            f"Received: {size} images{different if groups < size else ''}"
        )


def _check_relative_path(path: str) -> str:
    parts = path.split("/")
    if PurePosixPath(path).is_absolute() or not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError("not a path in the data folder")
    return path


class ManifestEntry(BaseModel):
    """One image of a manifest.

    Attributes:
        path: Relative to the data folder, with `/` as the separator.
        sha256: Hexadecimal SHA-256 of its content.
        split: "train", "validation" or "test".
    """

    model_config = ConfigDict(frozen=True, strict=True)

    # InstanceOf, because pydantic refuses text with bytes that are not valid UTF-8.
    path: Annotated[InstanceOf[str], AfterValidator(_check_relative_path)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    split: Literal["train", "validation", "test"]


class SplitManifest(BaseModel):
    """A split as a file that reproduces it on another machine.

    Attributes:
        format: Identifies the file format.
        version: Version of the file format.
        class_names: The position of a name is its label.
        seed: See `Split`.
        validation_split: See `Split`.
        test_split: See `Split`.
        images: One entry per image, sorted by path.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    format: Literal["keras_flowers.split"] = "keras_flowers.split"
    version: Literal[1] = 1
    seed: int
    validation_split: float
    test_split: float
    class_names: Annotated[list[InstanceOf[str]], Field(min_length=2)]
    images: Annotated[
        list[ManifestEntry],
        Field(min_length=1, alias="photos"),
        AfterValidator(lambda entries: sorted(entries, key=lambda entry: entry.path)),
    ]

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        check_fractions(self.validation_split, self.test_split)
        if not all(self.class_names) or len(set(self.class_names)) < len(
            self.class_names
        ):
            raise ValueError("`class_names` must be different names")
        paths = set()
        for entry in self.images:
            class_name, separator, _ = entry.path.partition("/")
            if not separator or class_name not in self.class_names:
                raise ValueError(
                    f"{printable_path(entry.path)} is in none of the class folders"
                )
            if entry.path in paths:
                raise ValueError(f"{printable_path(entry.path)} appears twice")
            paths.add(entry.path)
        if not any(entry.split == "train" for entry in self.images):
            raise ValueError("no image for training")
        return self


def write_manifest(split: Split, path: str | os.PathLike[str]) -> None:
    """Writes a split as JSON: the path, SHA-256 and part of every image.

    Args:
        split: The split.
        path: The file, which appears or is replaced atomically.

    Raises:
        InputError: If the file cannot be written.
    """
    images = [
        {"path": record.path, "sha256": record.sha256, "split": part}
        for part in SPLIT_NAMES
        for record in getattr(split, part)
    ]
    manifest = SplitManifest.model_validate(
        {
            "seed": split.seed,
            "validation_split": split.validation_split,
            "test_split": split.test_split,
            "class_names": list(split.class_names),
            "photos": images,
        }
    )
    content = manifest.model_dump(by_alias=True)
    write_text_atomically(path, json.dumps(content, indent=1) + "\n")


def read_manifest(path: str | os.PathLike[str]) -> SplitManifest:
    """Reads and validates a manifest.

    Args:
        path: A file from `write_manifest`.

    Returns:
        The manifest.

    Raises:
        InputError: If the file cannot be read or is not a manifest of this version,
            with the first error in it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return SplitManifest.model_validate(content)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValidationError as error:
        reason = _describe_first_error(error, content)
    except (ValueError, RecursionError):
        reason = "a file that is not JSON"
    raise InputError(
        f"`{printable_path(path)}` must be a split manifest. Received: {reason}"
    )


def _describe_first_error(error: ValidationError, content: Any) -> str:
    """Returns where in the manifest the first error is, and what it is."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    match first["loc"]:
        case ("photos", int(row), *_) if isinstance(content["photos"][row], dict):
            place += f" ({printable_path(str(content['photos'][row].get('path')))})"
    message = first["msg"].removeprefix("Value error, ")
    value = "" if first["type"] == "missing" else repr(first["input"])
    shown = f", got {value}" if place and 0 < len(value) < 100 else ""
    return f"{place}{': ' if place else ''}{message}{shown}"


def apply_manifest(audit: Audit, manifest: SplitManifest) -> Split:
    """Splits the images of a folder exactly as a manifest says.

    Args:
        audit: The images of the folder.
        manifest: The result of `read_manifest`.

    Returns:
        The split, with the labels of the manifest. Images that the manifest does not
        list are in `not_in_manifest` and in no part.

    Raises:
        InputError: If an image of the manifest is missing, cannot be read or has
            different content.
    """
    present = {record.path: record for record in audit.images}
    parts: dict[str, list[ImageRecord]] = {part: [] for part in SPLIT_NAMES}
    missing, changed = [], []
    for entry in manifest.images:
        record = present.pop(entry.path, None)
        if record is None:
            missing.append(entry.path)
        elif record.sha256 != entry.sha256:
            changed.append(entry.path)
        else:
            parts[entry.split].append(record)
    _refuse_other_images(audit.root, "missing or unreadable", missing)
    _refuse_other_images(audit.root, "with different content", changed)
    return Split(
        class_names=tuple(manifest.class_names),
        seed=manifest.seed,
        validation_split=manifest.validation_split,
        test_split=manifest.test_split,
        train=tuple(parts["train"]),
        validation=tuple(parts["validation"]),
        test=tuple(parts["test"]),
        not_in_manifest=tuple(present.values()),
    )


def _refuse_other_images(root: Path, what: str, paths: Sequence[str]) -> None:
    if not paths:
        return
    shown = ", ".join(printable_path(path) for path in paths[:3])
    raise InputError(
        f"`{printable_path(root)}` must contain the images of the split manifest. "
        f"Received: {len(paths)} {what}: {shown}{' ...' if len(paths) > 3 else ''}"
    )
