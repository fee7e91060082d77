"""Audits a data folder: its classes, its usable images and its flaws.

`list_images` finds the files, `inspect_files` decodes each of them and `audit_images`
draws the conclusions; `scan` does all three. The data folder is never changed.

Duplicates are reported and kept: whether a copy is a mistake is up to the user.
`keras_flowers.data.splits` keeps copies on one side of the split.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.image_listing import (
    ImageListing,
    list_images,
    require_two_classes,
)
from keras_flowers.data.inspection import inspect_files
from keras_flowers.data.near_duplicates import near_duplicate_pairs
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path
from keras_flowers.notebook import html_table
from keras_flowers.progress import Progress

_IMBALANCED = 3.0  # largest class to smallest


@dataclass(frozen=True)
class Finding:
    """Something about a data folder that its owner should know.

    Attributes:
        kind: For a file that is left out, "not_an_image", "corrupt", "empty_file",
            "decompression_bomb", "unsupported_format" or "unreadable". For copies,
            "duplicate" (equal bytes within a class), "label_conflict" (equal bytes in
            several classes) or "near_duplicate" (the same picture in other bytes).
            For folders, "empty_class", "clutter", "ignored" or "imbalance".
        paths: The files or folders concerned, relative to the data folder.
        message: One line for people.
    """

    kind: str
    paths: tuple[str, ...]
    message: str


_LEFT_OUT = frozenset(
    {
        "not_an_image",
        "corrupt",
        "empty_file",
        "decompression_bomb",
        "unsupported_format",
        "unreadable",
    }
)


@dataclass(frozen=True)
class Audit:
    """The usable images of a data folder, and the findings about it.

    Attributes:
        root: The data folder.
        class_names: The classes that have a usable image; the position is the label.
        images: The usable images, sorted by path.
        findings: What the owner of the folder should know.
        duplicate_groups: The paths of images with equal bytes; each group is sorted.
        near_duplicate_groups: The paths of images that show the same picture, whether
            or not their bytes are equal. Each group of `duplicate_groups` is part of
            one of these.
    """

    root: Path
    class_names: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    findings: tuple[Finding, ...]
    duplicate_groups: tuple[tuple[str, ...], ...] = ()
    near_duplicate_groups: tuple[tuple[str, ...], ...] = ()

    def __repr__(self) -> str:
        """Returns the root and the sizes, not the images."""
        return (
            f"Audit({printable_path(self.root)}: {len(self.class_names)} classes, "
            f"{len(self.images)} images, {len(self.findings)} findings)"
        )

    def _repr_html_(self) -> str:
        found = Counter(finding.kind.replace("_", " ") for finding in self.findings)
        rows = [*self.counts.items(), *(found.items())]
        return html_table(repr(self), ["class or finding", "count"], rows)

    @cached_property
    def _labels(self) -> dict[str, int]:
        return {name: label for label, name in enumerate(self.class_names)}

    def label_of(self, record: ImageRecord) -> int:
        """Returns the label of an image: the position of its class in `class_names`."""
        return self._labels[record.class_name]

    @property
    def counts(self) -> dict[str, int]:
        """The number of usable images of each class, in the order of the labels."""
        counts = Counter(record.class_name for record in self.images)
        return {name: counts[name] for name in self.class_names}

    @property
    def left_out(self) -> tuple[Finding, ...]:
        """The findings about files that are not used, one for each."""
        return tuple(found for found in self.findings if found.kind in _LEFT_OUT)

    def to_json(self) -> dict[str, Any]:
        """Returns everything except the records as a dictionary for `json.dump`."""
        return {
            "root": str(self.root),
            "class_names": list(self.class_names),
            "photos": len(self.images),
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
        }


def scan(
    root: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Inspects every file of a data folder once and reports what training would use.

    Args:
        root: A folder with one folder of images per class.
        workers: The number of threads; None uses one more than there are processors.
        progress: Called as `progress("inspect", done, total)` in the calling thread
            after each file.

    Returns:
        The audit. Its findings include the files that cannot be used.

    Raises:
        InputError: If the folder is missing, fewer than two class folders contain a
            usable image, or `workers` is not positive.
    """
    listing = list_images(Path(root))
    records = inspect_files(
        listing.root, listing.files, workers=workers, progress=progress
    )
    return audit_images(listing, records)


def audit_images(listing: ImageListing, records: Iterable[ImageRecord]) -> Audit:
    """Draws the conclusions from the inspection of all files of a listing.

    Args:
        listing: The result of `list_images`.
        records: The results of `inspect_files` for its files, in any order.

    Returns:
        The audit, without the classes that have no usable image.

    Raises:
        InputError: If fewer than two classes have a usable image.
    """
    ordered = sorted(records, key=lambda record: record.path)
    images = tuple(record for record in ordered if record.problem is None)
    if not images:
        raise InputError(
            f"`{printable_path(listing.root)}` must contain readable images. "
            f"Received: {len(ordered)} files, none of them readable as an image"
        )
    present = {record.class_name for record in images}
    class_names = tuple(name for name in listing.class_names if name in present)
    require_two_classes(listing.root, class_names, "with readable images")
    duplicates = _duplicate_groups(images)
    near_duplicates = _near_duplicate_groups(images, duplicates)
    counts = Counter(record.class_name for record in images)
    findings = (
        *_unusable_files(ordered, listing),
        *_copies(duplicates),
        *_same_pictures(near_duplicates),
        *_empty_classes(listing, present),
        *_ignored_entries(listing),
        *_imbalance(counts),
    )
    return Audit(
        root=listing.root,
        class_names=class_names,
        images=images,
        findings=findings,
        duplicate_groups=tuple(_paths(group) for group in duplicates),
        near_duplicate_groups=tuple(_paths(group) for group in near_duplicates),
    )


_Group = list[ImageRecord]


def _paths(group: Iterable[ImageRecord]) -> tuple[str, ...]:
    return tuple(record.path for record in group)


def _duplicate_groups(images: Sequence[ImageRecord]) -> list[_Group]:
    by_content: defaultdict[str, _Group] = defaultdict(list)
    for record in images:
        by_content[record.sha256].append(record)
    return [group for group in by_content.values() if len(group) > 1]


def _near_duplicate_groups(
    images: Sequence[ImageRecord], duplicates: Sequence[_Group]
) -> list[_Group]:
    """Groups copies and near-duplicates; a chain of them forms one group."""
    position = {record.path: index for index, record in enumerate(images)}
    links = near_duplicate_pairs([record.perceptual_hash for record in images])
    for group in duplicates:
        links.extend(pairwise(position[record.path] for record in group))
    if not links:
        return []
    count, (first, second) = len(images), np.array(links).T
    graph = coo_array((np.ones(len(links)), (first, second)), (count, count))
    groups: defaultdict[int, _Group] = defaultdict(list)
    for record, group in zip(images, connected_components(graph)[1], strict=True):
        groups[group].append(record)
    return [group for group in groups.values() if len(group) > 1]


def _unusable_files(
    records: Iterable[ImageRecord], listing: ImageListing
) -> Iterator[Finding]:
    for record in records:
        if record.problem_kind is not None:
            message = f"{printable_path(record.path)}: {record.problem}"
            yield Finding(record.problem_kind, (record.path,), message)
    for folder in listing.unreadable:
        message = f"{printable_path(folder)}: folder cannot be read"
        yield Finding("unreadable", (folder,), message)


def _copies(duplicates: Iterable[_Group]) -> Iterator[Finding]:
    for group in duplicates:
        if len({record.class_name for record in group}) > 1:
            kind, text = "label_conflict", "the same file in several classes"
        else:
            kind, text = "duplicate", "the same file"
        yield Finding(kind, _paths(group), f"{text}: {_list_paths(_paths(group))}")


def _same_pictures(near_duplicates: Iterable[_Group]) -> Iterator[Finding]:
    for group in near_duplicates:
        if len({record.sha256 for record in group}) > 1:
            message = f"nearly the same picture: {_list_paths(_paths(group))}"
            yield Finding("near_duplicate", _paths(group), message)


def _empty_classes(listing: ImageListing, present: set[str]) -> Iterator[Finding]:
    for name in listing.empty_classes:
        message = f"{printable_path(name)}: folder without files"
        yield Finding("empty_class", (name,), message)
    for name in listing.class_names:
        if name not in present:
            message = f"{printable_path(name)}: class without a readable image"
            yield Finding("empty_class", (name,), message)


def _ignored_entries(listing: ImageListing) -> Iterator[Finding]:
    if listing.clutter:
        message = (
            "ignored files and folders of systems and programs: "
            f"{_list_paths(listing.clutter)}"
        )
        yield Finding("clutter", listing.clutter, message)
    if listing.ignored:
        message = (
            "ignored images outside the class folders, links to folders and special "
            f"files: {_list_paths(listing.ignored)}"
        )
        yield Finding("ignored", listing.ignored, message)


def _imbalance(counts: Mapping[str, int]) -> Iterator[Finding]:
    largest = max(counts, key=lambda name: counts[name])
    smallest = min(counts, key=lambda name: counts[name])
    if counts[largest] > _IMBALANCED * counts[smallest]:
        message = (
            f"{printable_path(largest)} has {counts[largest]} images, "
            f"{printable_path(smallest)} only {counts[smallest]}"
        )
        yield Finding("imbalance", (largest, smallest), message)


def _list_paths(paths: Sequence[str]) -> str:
    """Returns the first few paths on one line."""
    shown = ", ".join(printable_path(path) for path in paths[:3])
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"
