"""Audits a data folder: its classes, its usable images and its flaws.

`list_images` finds the files, `inspect_files` decodes each of them and `audit_images`
draws the conclusions; `scan` does all three. The data folder is never changed.

Duplicates are reported and kept: whether a copy is a mistake is up to the user.
`keras_flowers.data.splits` keeps copies on one side of the split.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_flowers.data.findings import (
    AuditError,
    adding_findings,
    list_paths,
    summarize_findings,
)
from keras_flowers.data.findings import Finding as Finding
from keras_flowers.data.image_files import (
    DEFAULT_OPTIONS,
    ImageOptions,
    ImageRecord,
)
from keras_flowers.data.image_listing import (
    ImageListing,
    list_images,
    require_two_classes,
)
from keras_flowers.data.inspection import inspect_files
from keras_flowers.data.layout import (
    SPLIT_NAMES,
    Layout,
    normalize_name,
    similar_names,
)
from keras_flowers.data.near_duplicates import near_duplicate_pairs
from keras_flowers.files import printable_path
from keras_flowers.notebook import html_table
from keras_flowers.progress import Progress

_IMBALANCED = 3.0  # largest class to smallest
# A fifth of them validates: fewer images say little about a threshold.
_RARE = 20


_UNUSABLE_FILES = frozenset(
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
        layout: Which folders are classes, and why; None for images without a folder.
        groups: The names of groups by path, from a label file.
        excluded: The images that the user has excluded, which are in no other field.
        multi_label: Whether an image may have several classes, or none.
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
    layout: Layout | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()
    multi_label: bool = False

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
        counts = count_classes(self.images)
        return {name: counts[name] for name in self.class_names}

    @property
    def left_out(self) -> tuple[Finding, ...]:
        """The findings about files that are not used, one for each."""
        return tuple(found for found in self.findings if found.kind in _UNUSABLE_FILES)

    @property
    def summary(self) -> str:
        """What can be used, what is left out, and the findings, in one line."""
        count = len({path for found in self.left_out for path in found.paths})
        files = f"{count:,} file{'' if count == 1 else 's'}"
        return (
            f"{len(self.images):,} images in {len(self.class_names):,} classes can be "
            f"used, {files} cannot. {summarize_findings(self.findings)}"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns everything except the records as a dictionary for `json.dump`."""
        return {
            "root": str(self.root),
            "layout": self.layout.description if self.layout else None,
            "class_names": list(self.class_names),
            "multi_label": self.multi_label,
            "photos": len(self.images),
            "counts": self.counts,
            "summary": self.summary,
            "findings": [finding.to_json() for finding in self.findings],
        }


def scan(
    root: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    class_depth: int | None = None,
    options: ImageOptions = DEFAULT_OPTIONS,
) -> Audit:
    """Inspects every file of a data folder once and reports what training would use.

    Args:
        root: A folder with one folder of images per class.
        workers: The number of threads; None uses one more than there are processors.
        progress: Called as `progress("inspect", done, total)` in the calling thread
            after each file.
        class_depth: How many levels below `root` the class folders are; None decides
            by the names and the content of the folders.
        options: How images are decoded.

    Returns:
        The audit. Its findings include the files that cannot be used.

    Raises:
        InputError: If the folder is missing, fewer than two class folders contain a
            usable image, or `workers` is not positive.
    """
    listing = list_images(Path(root), class_depth=class_depth)
    records = inspect_files(
        listing.root,
        listing.files,
        workers=workers,
        progress=progress,
        options=options,
    )
    return audit_images(listing, records)


def audit_images(
    listing: ImageListing,
    records: Iterable[ImageRecord],
    *,
    one_class_is_enough: bool = False,
) -> Audit:
    """Draws the conclusions from the inspection of all files of a listing.

    Args:
        listing: The result of `list_images`.
        records: The results of `inspect_files` for its files, in any order.
        one_class_is_enough: Whether a single class is enough, as for an evaluation.

    Returns:
        The audit, without the classes that have no usable image. In a ready-made split,
        also without those that have none in the training part.

    Raises:
        AuditError: If fewer than two classes have a usable image. It has the findings.
    """
    folders = {
        file.path: folder
        for file, folder in zip(listing.files, listing.classes, strict=True)
    }
    ordered = [
        replace(
            record,
            class_name=folders[record.path].class_name,
            part=folders[record.path].part,
            labels=None if listing.labels is None else listing.labels[record.path],
        )
        for record in sorted(records, key=lambda record: record.path)
        if record.path in folders
    ]
    usable = tuple(record for record in ordered if record.problem is None)
    images, untrained = _separate_untrained(usable)
    counts = count_classes(images)
    present = set(counts)
    class_names = tuple(name for name in listing.class_names if name in present)
    duplicates = _duplicate_groups(images)
    near_duplicates = _near_duplicate_groups(images, duplicates)
    is_multi_label = listing.labels is not None
    findings = (
        *listing.findings,
        *_unusable_files(ordered, listing),
        *_copies(duplicates),
        *_same_pictures(near_duplicates),
        *_leaks(near_duplicates),
        *_notes(images),
        *_missing_classes(images, untrained),
        *_similar_classes(listing),
        *_empty_classes(listing, set(count_classes(usable))),
        *_ignored_entries(listing),
        *_imbalance(counts),
        *(_rare_classes(counts) if is_multi_label else ()),
    )
    name = f"`{printable_path(listing.root)}`"
    if not images:
        raise AuditError(
            f"{name} must contain readable images. "
            f"Received: {len(ordered)} files, none of them readable as an image",
            findings,
        )
    if not one_class_is_enough:
        with adding_findings(findings):
            require_two_classes(name, class_names, "with readable images")
    return Audit(
        root=listing.root,
        class_names=class_names,
        images=images,
        findings=findings,
        duplicate_groups=tuple(_paths(group) for group in duplicates),
        near_duplicate_groups=tuple(_paths(group) for group in near_duplicates),
        layout=listing.layout,
        groups=listing.groups,
        excluded=listing.excluded,
        multi_label=is_multi_label,
    )


def count_classes(images: Iterable[ImageRecord]) -> Counter[str]:
    """Returns the number of images of each class that has any."""
    return Counter(name for record in images for name in record.class_names)


def keep_classes(
    images: Iterable[ImageRecord], names: Collection[str]
) -> tuple[ImageRecord, ...]:
    """Returns the images of some classes.

    An image that may have several classes stays, without the others.
    """
    kept = []
    for record in images:
        if record.labels is not None:
            labels = tuple(name for name in record.labels if name in names)
            kept.append(replace(record, labels=labels))
        elif record.class_name in names:
            kept.append(record)
    return tuple(kept)


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
    return [
        [images[index] for index in group] for group in _connect(len(images), links)
    ]


def _connect(count: int, links: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Returns the sets of numbers below `count` that links connect, sorted."""
    if not links:
        return []
    first, second = np.array(links).T
    graph = coo_array((np.ones(len(links)), (first, second)), (count, count))
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(connected_components(graph)[1].tolist()):
        groups[group].append(number)
    return [group for group in groups.values() if len(group) > 1]


def join_groups(
    paths: Sequence[str], groups: Iterable[Sequence[str]]
) -> list[list[str]]:
    """Joins groups that have a path in common.

    Args:
        paths: All paths.
        groups: Groups of some of them, which may overlap.

    Returns:
        Groups that do not overlap, in the order of their first paths.
    """
    position = {path: index for index, path in enumerate(paths)}
    links = [
        pair
        for group in groups
        for pair in pairwise(position[path] for path in group if path in position)
    ]
    return [[paths[index] for index in group] for group in _connect(len(paths), links)]


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
        paths = _paths(group)
        if len({record.class_names for record in group}) > 1:
            message = f"the same file in several classes: {list_paths(paths)}"
            yield Finding("label_conflict", paths, message)
        else:
            message = f"the same file: {list_paths(paths)}"
            yield Finding("duplicate", paths, message, exclude=all_but_best(group))


def all_but_best(group: Sequence[ImageRecord]) -> tuple[str, ...]:
    """Returns the paths without that of the largest image, or of the shortest name."""
    best = min(group, key=lambda r: (-r.width * r.height, -r.size, len(r.path), r.path))
    return _paths(record for record in group if record is not best)


def _same_pictures(near_duplicates: Iterable[_Group]) -> Iterator[Finding]:
    for group in near_duplicates:
        if len({record.sha256 for record in group}) > 1:
            message = f"nearly the same picture: {list_paths(_paths(group))}"
            copies = all_but_best(group)
            yield Finding("near_duplicate", _paths(group), message, exclude=copies)


def _separate_untrained(
    images: tuple[ImageRecord, ...],
) -> tuple[tuple[ImageRecord, ...], list[ImageRecord]]:
    """Separates images whose class is not in the training part of their split."""
    trained = set(count_classes(r for r in images if r.part == "train"))
    if not trained:
        return images, []
    kept: list[ImageRecord] = []
    untrained = []
    for record in images:
        kept.extend(keep_classes([record], trained) if record.part else [record])
        if record.part and not trained.issuperset(record.class_names):
            untrained.append(record)
    return tuple(kept), untrained


def _leaks(near_duplicates: Iterable[_Group]) -> Iterator[Finding]:
    for group in near_duplicates:
        parts = sorted({record.part for record in group if record.part})
        if len(parts) > 1:
            message = (
                f"the same picture in {' and '.join(parts)}: "
                f"{list_paths(_paths(group))}"
            )
            # What trains goes first: without it, the scores are those of new images.
            kept = max(parts, key=SPLIT_NAMES.index)
            copies = _paths(record for record in group if record.part != kept)
            yield Finding("leakage", _paths(group), message, exclude=copies)


def _notes(images: Iterable[ImageRecord]) -> Iterator[Finding]:
    for record in images:
        if record.note_kind is not None:
            message = f"{printable_path(record.path)}: {record.note}"
            yield Finding(record.note_kind, (record.path,), message)


def _missing_classes(
    images: Iterable[ImageRecord], untrained: Iterable[ImageRecord]
) -> Iterator[Finding]:
    by_class: defaultdict[str, list[str]] = defaultdict(list)
    trained = set(count_classes(images))
    for record in untrained:
        for name in record.class_names:
            if name not in trained:
                by_class[name].append(record.path)
    for name, paths in by_class.items():
        message = (
            f"{printable_path(name)}: not in the training part, so its {len(paths)} "
            f"images are left out: {list_paths(paths)}"
        )
        yield Finding("missing_class", tuple(paths), message, "left out")
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for record in images:
        if record.part is not None:
            parts[record.part].update(record.class_names)
    everything = set[str]().union(*parts.values())
    for part, present in sorted(parts.items()):
        for name in sorted(everything - present):
            message = f"{printable_path(name)}: no images in the {part} part"
            yield Finding("missing_class", (name,), message)


def _similar_classes(listing: ImageListing) -> Iterator[Finding]:
    for group in similar_names(listing.class_names):
        message = f"classes with nearly the same name: {list_paths(group)}"
        yield Finding("similar_classes", group, message)
    spellings: defaultdict[str, set[str]] = defaultdict(set)
    for folder in listing.layout.class_folders:
        spellings[folder.class_name].update(
            name
            for name in folder.path.split("/")
            if normalize_name(name) == folder.class_name
        )
    for name, found in spellings.items():
        if len(found) > 1:
            paths = tuple(
                folder.path
                for folder in listing.layout.class_folders
                if folder.class_name == name
            )
            message = (
                f"{printable_path(name)}: {len(found)} folders whose names differ only "
                "in their Unicode form are one class"
            )
            yield Finding("similar_classes", paths, message)


def _empty_classes(listing: ImageListing, present: set[str]) -> Iterator[Finding]:
    for name in listing.empty_classes:
        message = f"{printable_path(name)}: folder without images"
        yield Finding("empty_class", (name,), message)
    for name in listing.class_names:
        if name not in present:
            message = f"{printable_path(name)}: class without a readable image"
            yield Finding("empty_class", (name,), message)


def _ignored_entries(listing: ImageListing) -> Iterator[Finding]:
    if listing.clutter:
        message = (
            "ignored files and folders of systems and programs: "
            f"{list_paths(listing.clutter)}"
        )
        yield Finding("clutter", listing.clutter, message)
    if listing.ignored:
        message = (
            "ignored images outside the class folders and special files: "
            f"{list_paths(listing.ignored)}"
        )
        yield Finding("ignored", listing.ignored, message)
    for folder in listing.unlabeled:
        message = (
            f"{printable_path(folder)}: left out, because it is in no class folder"
        )
        yield Finding("unlabeled", (folder,), message)
    for link in listing.circles:
        message = (
            f"{printable_path(link)}: not followed, because it leads to a folder that "
            "contains it or is listed already"
        )
        yield Finding("circular_link", (link,), message)


def _imbalance(counts: Mapping[str, int]) -> Iterator[Finding]:
    if not counts:
        return
    largest = max(counts, key=lambda name: counts[name])
    smallest = min(counts, key=lambda name: counts[name])
    if counts[largest] > _IMBALANCED * counts[smallest]:
        message = (
            f"{printable_path(largest)} has {counts[largest]} images, "
            f"{printable_path(smallest)} only {counts[smallest]}"
        )
        yield Finding("imbalance", (largest, smallest), message)


def _rare_classes(counts: Mapping[str, int]) -> Iterator[Finding]:
    for name, count in sorted(counts.items()):
        if count < _RARE:
            message = f"{printable_path(name)}: only {count} images have this label"
            yield Finding("rare_class", (name,), message)
