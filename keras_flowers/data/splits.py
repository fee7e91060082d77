"""Decides which images train, validate and test, and writes that down.

A split is stratified: of each class the same fraction validates. It is decided by the
content of the images and the seed alone, so it depends neither on the order or the
names of files nor on the machine, and an image that is added moves few others. Copies
of an image, and images that show nearly the same picture, stand on one side.
"""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from keras_flowers.data.audit import Audit
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path, write_text_atomically

SPLIT_NAMES = ("train", "validation", "test")

_FORMAT = "keras_flowers.split"
_VERSION = 1


@dataclass(frozen=True)
class Split:
    """Which images train, validate and test.

    Attributes:
        class_names: The position of a name is its label.
        seed: What decided among the images of a class.
        validation_split: The fraction of each class that was asked for.
        test_split: The fraction of each class that was asked for.
        train: The training images, sorted by path, as all of the following.
        validation: The validation images; empty if none were asked for.
        test: The test images; empty if none were asked for.
        not_in_manifest: Images of the folder that the manifest, by which it was
            split, does not name. They are in none of the three.
    """

    class_names: tuple[str, ...]
    seed: int
    validation_split: float
    test_split: float
    train: tuple[ImageRecord, ...]
    validation: tuple[ImageRecord, ...]
    test: tuple[ImageRecord, ...]
    not_in_manifest: tuple[ImageRecord, ...] = ()


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
    `round(test_split * n)` test, at least one each where any are asked for. Where
    copies have to stay together, a class may miss these numbers by less than the size
    of its largest group of copies, or by more if the groups reach across classes.

    Args:
        audit: The images.
        validation_split: Fraction of each class, 0 to less than 1; 0 for none.
        test_split: Fraction of each class, 0 to less than 1; 0 for none.
        seed: Any integer.
        keep_near_duplicates_together: Whether images that show nearly the same
            picture stand on one side. Those with equal bytes always do.

    Returns:
        The split. Every image of the audit is in exactly one part of it.

    Raises:
        InputError: A fraction is out of range, both together leave nothing for
            training, the seed is no integer, or a class has too few different images
            to give each part one.
    """
    fractions = check_fractions(validation_split, test_split)
    seed = _checked_seed(seed)
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
    """Returns the fractions as floats by the name of their part.

    Raises:
        InputError: If one is out of range, or both leave nothing for training.
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
            "`validation_split` and `test_split` must leave photos for training: "
            "together less than 1. Received: "
            f"validation_split={validation_split!r}, test_split={test_split!r}"
        )
    return fractions


def _checked_seed(seed: Any) -> int:
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise InputError(f"`seed` must be an integer. Received: seed={seed!r}")
    return int(seed)


@dataclass(frozen=True)
class _Group:
    """Images that stay together, and how many of each class they are."""

    images: tuple[ImageRecord, ...]
    counts: Mapping[str, int]


def _ordered_groups(
    images: Sequence[ImageRecord], linked: Iterable[Sequence[str]], seed: int
) -> list[_Group]:
    """Returns all images in groups, in an order that seed and content decide."""
    by_path = {record.path: record for record in images}
    members = [[by_path.pop(path) for path in group] for group in linked]
    members.extend([record] for record in by_path.values())
    groups = []
    for group in members:
        # The first content of a group stands for it: further copies change nothing.
        content = min(record.sha256 for record in group)
        key = hashlib.sha256(f"{seed}:{content}".encode()).digest()
        counts = Counter(record.class_name for record in group)
        groups.append((key, _Group(tuple(group), counts)))
    groups.sort(key=lambda keyed: keyed[0])
    return [group for _, group in groups]


class _Assignment:
    """Gives groups of images to the parts of a split."""

    def __init__(
        self, groups: Sequence[_Group], targets: Mapping[str, Mapping[str, int]]
    ) -> None:
        self._groups = groups
        self._targets = targets
        self._part_of = ["train"] * len(groups)
        self._held: dict[str, Counter[str]] = {part: Counter() for part in SPLIT_NAMES}
        for group in groups:
            self._held["train"].update(group.counts)

    def fill(self) -> None:
        """Gives each group to the first part that still wants all of its images."""
        for index, group in enumerate(self._groups):
            for part, target in self._targets.items():
                held = self._held[part]
                if all(held[c] + n <= target[c] for c, n in group.counts.items()):
                    if self._leaves_training(group):
                        self._move(index, part)
                    break

    def complete(self, sizes: Mapping[str, int]) -> None:
        """Gives each part that got no image of a class the smallest group it can."""
        for name, size in sizes.items():
            for part in self._targets:
                if self._held[part][name]:
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
        held = self._held["train"]
        return all(held[name] > count for name, count in group.counts.items())

    def _move(self, index: int, part: str) -> None:
        counts = self._groups[index].counts
        self._held[self._part_of[index]].subtract(counts)
        self._held[part].update(counts)
        self._part_of[index] = part

    def _too_small(self, name: str, size: int) -> str:
        groups = sum(name in group.counts for group in self._groups)
        parts = " and ".join(["train", *self._targets])
        different = (
            f", in {groups} groups that must stay together because they are copies of "
            "each other or look alike (`keep_near_duplicates_together=False` or "
            "--split-near-duplicates parts the latter)"
        )
        return (
            f"class {printable_path(name)} is too small to split into {parts}. "
            f"Received: {size} photos{different if groups < size else ''}"
        )


@dataclass(frozen=True)
class ManifestEntry:
    """One image of a manifest.

    Attributes:
        path: Relative to the data folder, with `/` between its parts.
        sha256: Hexadecimal SHA-256 of its bytes.
        split: "train", "validation" or "test".
    """

    path: str
    sha256: str
    split: str


@dataclass(frozen=True)
class SplitManifest:
    """A split as it stands in a file: what reproduces it on another machine.

    Attributes:
        class_names: The position of a name is its label.
        seed: See `Split`.
        validation_split: See `Split`.
        test_split: See `Split`.
        images: One entry for each image, sorted by path.
    """

    class_names: tuple[str, ...]
    seed: int
    validation_split: float
    test_split: float
    images: tuple[ManifestEntry, ...]


def write_manifest(split: Split, path: str | os.PathLike[str]) -> None:
    """Writes a split as JSON: for each image its path, its SHA-256 and its part.

    Args:
        split: The split.
        path: The file, which appears or is replaced at once.

    Raises:
        InputError: The file cannot be written.
    """
    images = [
        {"path": record.path, "sha256": record.sha256, "split": part}
        for part in SPLIT_NAMES
        for record in getattr(split, part)
    ]
    content = {
        "format": _FORMAT,
        "version": _VERSION,
        "seed": split.seed,
        "validation_split": split.validation_split,
        "test_split": split.test_split,
        "class_names": list(split.class_names),
        "photos": sorted(images, key=lambda image: image["path"]),
    }
    write_text_atomically(path, json.dumps(content, indent=1) + "\n")


def read_manifest(path: str | os.PathLike[str]) -> SplitManifest:
    """Reads a manifest and checks everything in it.

    Args:
        path: A file that `write_manifest` wrote.

    Returns:
        The manifest.

    Raises:
        InputError: The file cannot be read or is no manifest of this version, with
            the first thing that is wrong in it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return _checked_manifest(content)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except _ManifestError as error:
        reason = str(error)
    except (ValueError, RecursionError):
        reason = "a file that is not JSON"
    raise InputError(
        f"`{printable_path(path)}` must be a split manifest. Received: {reason}"
    )


class _ManifestError(Exception):
    """Says in a few words what is wrong in a manifest."""


def _checked_manifest(content: Any) -> SplitManifest:
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise _ManifestError(f'JSON without "format": "{_FORMAT}"')
    if content.get("version") != _VERSION:
        raise _ManifestError(
            f"version {content.get('version')!r}; this package reads {_VERSION}"
        )
    class_names = _checked_class_names(content.get("class_names"))
    images = content.get("photos")
    if not isinstance(images, list) or not images:
        raise _ManifestError('no list of "photos"')
    entries = tuple(_checked_entry(image, set(class_names)) for image in images)
    twice = [p for p, n in Counter(entry.path for entry in entries).items() if n > 1]
    if twice:
        raise _ManifestError(f"{printable_path(twice[0])} more than once")
    if not any(entry.split == "train" for entry in entries):
        raise _ManifestError("no photo for training")
    try:
        fractions = check_fractions(
            content.get("validation_split"), content.get("test_split")
        )
        seed = _checked_seed(content.get("seed"))
    except InputError as error:
        raise _ManifestError(str(error)) from error
    return SplitManifest(
        class_names=class_names,
        seed=seed,
        validation_split=fractions["validation"],
        test_split=fractions["test"],
        images=tuple(sorted(entries, key=lambda entry: entry.path)),
    )


def _checked_class_names(names: Any) -> tuple[str, ...]:
    is_list = isinstance(names, list) and all(isinstance(n, str) and n for n in names)
    if not is_list or len(names) < 2 or len(set(names)) < len(names):
        raise _ManifestError('"class_names" that are not two or more different names')
    return tuple(names)


def _checked_entry(image: Any, class_names: set[str]) -> ManifestEntry:
    if not isinstance(image, dict) or not all(
        isinstance(image.get(key), str) for key in ("path", "sha256", "split")
    ):
        raise _ManifestError('a photo without "path", "sha256" and "split" as texts')
    path, sha256, part = image["path"], image["sha256"], image["split"]
    shown = printable_path(path)
    parts = path.split("/")
    if PurePosixPath(path).is_absolute() or not {"", ".", ".."}.isdisjoint(parts):
        raise _ManifestError(f"{shown}, which is not a path below the data folder")
    if len(parts) < 2 or parts[0] not in class_names:
        raise _ManifestError(f"{shown}, which stands in none of the class folders")
    if part not in SPLIT_NAMES:
        raise _ManifestError(f"{shown} with the unknown split {part!r}")
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise _ManifestError(f"{shown} with a sha256 that is none")
    return ManifestEntry(path, sha256, part)


def apply_manifest(audit: Audit, manifest: SplitManifest) -> Split:
    """Splits the images of a folder exactly as a manifest says.

    Args:
        audit: The images of the folder.
        manifest: What `read_manifest` returned.

    Returns:
        The split, with the labels of the manifest. Images that the manifest does not
        name are in `not_in_manifest` and in no part.

    Raises:
        InputError: An image of the manifest is missing in the folder, cannot be read
            or has another content.
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
    _refuse_other_images(audit.root, "of another content", changed)
    return Split(
        class_names=manifest.class_names,
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
        f"`{printable_path(root)}` must hold the photos of the split manifest. "
        f"Received: {len(paths)} {what}: {shown}{' ...' if len(paths) > 3 else ''}"
    )
