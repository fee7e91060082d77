"""Assigns groups of images that stay together to the parts of a split."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_flowers.data.audit import Audit, count_classes, join_groups
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.layout import SPLIT_NAMES as SPLIT_NAMES
from keras_flowers.errors import InputError


@dataclass(frozen=True)
class ImageGroup:
    """Images that stay together, and their number in each class."""

    images: tuple[ImageRecord, ...]
    counts: Mapping[str, int]


def order_groups(
    images: Sequence[ImageRecord], linked: Iterable[Sequence[str]], seed: int
) -> list[ImageGroup]:
    """Returns all images in groups, in an order that depends on seed and content."""
    by_path = {record.path: record for record in images}
    members = [[by_path.pop(path) for path in group] for group in linked]
    members.extend([record] for record in by_path.values())
    groups = []
    for group in members:
        # One content represents the group, so more copies do not change its place.
        content = min(record.sha256 for record in group)
        key = hashlib.sha256(f"{seed}:{content}".encode()).digest()
        counts = count_classes(group)
        groups.append((key, ImageGroup(tuple(group), counts)))
    groups.sort(key=lambda keyed: keyed[0])
    return [group for _, group in groups]


class SplitAssignment:
    """Assigns groups of images to the parts of a split."""

    def __init__(
        self, groups: Sequence[ImageGroup], targets: Mapping[str, Mapping[str, int]]
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

    def fill_by_rarity(self, sizes: Mapping[str, int]) -> None:
        """Assigns groups of images that may have several classes, or none.

        This is iterative stratification (Sechidis et al., "On the Stratification of
        Multi-Label Data", 2011): the groups of the rarest class are assigned first,
        each to the part that lacks most images of this class, and of several such parts
        to the one that lacks most images. Groups without a class come last.

        Args:
            sizes: The number of images of each class.
        """
        images = sum(len(group.images) for group in self._groups)
        wanted = {part: Counter(target) for part, target in self._targets.items()}
        share = {
            part: target.total() / max(1, sum(sizes.values()))
            for part, target in wanted.items()
        }
        missing = {part: images * fraction for part, fraction in share.items()}
        wanted["train"], missing["train"] = Counter(sizes), float(images)
        for part in self._targets:
            wanted["train"].subtract(wanted[part])
            missing["train"] -= missing[part]
        of_class: dict[str, list[int]] = {name: [] for name in sizes}
        for index, group in enumerate(self._groups):
            for name in group.counts:
                of_class[name].append(index)
        waiting = set(range(len(self._groups)))
        left = Counter(sizes)

        def assign(index: int, name: str | None) -> None:
            group = self._groups[index]
            part = max(
                wanted, key=lambda p: (wanted[p][name] if name else 0, missing[p])
            )
            if part != "train" and self._leaves_training(group):
                self._move(index, part)
            else:
                part = "train"
            waiting.remove(index)
            wanted[part].subtract(group.counts)
            left.subtract(group.counts)
            missing[part] -= len(group.images)

        while left:
            name = min(left, key=lambda one: (left[one], one))
            for index in of_class[name]:
                if index in waiting:
                    assign(index, name)
            del left[name]
        for index in sorted(waiting):
            assign(index, None)

    def complete(self, sizes: Mapping[str, int]) -> list[str]:
        """Gives each part without an image of a class the smallest possible group.

        Returns:
            The classes for which there is none.
        """
        small = []
        for name in sizes:
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
                    small.append(name)
                    break
                smallest = min(movable, key=lambda i: len(self._groups[i].images))
                self._move(smallest, part)
        return small

    def parts(self) -> dict[str, tuple[ImageRecord, ...]]:
        """Returns the images of each part, sorted by path."""
        parts: dict[str, list[ImageRecord]] = {part: [] for part in SPLIT_NAMES}
        for part, group in zip(self._part_of, self._groups, strict=True):
            parts[part].extend(group.images)
        return {
            part: tuple(sorted(images, key=lambda record: record.path))
            for part, images in parts.items()
        }

    def _leaves_training(self, group: ImageGroup) -> bool:
        counts = self._counts["train"]
        return all(counts[name] > count for name, count in group.counts.items())

    def _move(self, index: int, part: str) -> None:
        counts = self._groups[index].counts
        self._counts[self._part_of[index]].subtract(counts)
        self._counts[part].update(counts)
        self._part_of[index] = part

    @property
    def part_names(self) -> list[str]:
        """The parts that need an image of each class."""
        return ["train", *self._targets]

    def count_groups(self, name: str) -> int:
        """Returns how many groups have an image of a class."""
        return sum(name in group.counts for group in self._groups)


def group_images(audit: Audit, group_by: str | None) -> dict[str, str]:
    r"""Returns the group of each image that has one.

    Args:
        audit: The images.
        group_by: "column" takes the groups of a label file. "folder" groups by the
            folders in the class folders, such as those of patients or videos; equal
            names in several classes are one group. Any other text is a regular
            expression that is searched for in the path of an image:
            its first group in parentheses, or the whole match, names the group. For
            example, `(patient\d+)` or `^[^/]+/([^_]+)_`. None for no groups.

    Returns:
        The names of the groups by path.

    Raises:
        InputError: If the expression is invalid, or no image matches.
    """
    if group_by is None:
        return {}
    if group_by == "column":
        if not audit.groups:
            raise InputError(
                "`group_by='column'` needs a label file with a column of groups"
            )
        return dict(audit.groups)
    if group_by == "folder":
        return {
            record.path: folder
            for record in audit.images
            if (folder := _folder_in_class(audit, record))
        }
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise InputError(
            "`group_by` must be 'folder' or a regular expression. "
            f"Received: group_by={group_by!r} ({error})"
        ) from error
    groups = {}
    for record in audit.images:
        if match := pattern.search(record.path):
            found = match.group(1 if pattern.groups else 0)
            if found:
                groups[record.path] = found
    if not groups:
        raise InputError(
            "`group_by` must match the paths of images, such as "
            f"{audit.images[0].path!r}. Received: group_by={group_by!r}"
        )
    return groups


def _folder_in_class(audit: Audit, record: ImageRecord) -> str:
    """Returns the folder of an image, relative to its class folder."""
    folder = audit.layout.class_folder_of(record.path) if audit.layout else None
    start = len(folder.path) + 1 if folder else record.path.find("/") + 1
    return record.path[start:].rpartition("/")[0]


def link_groups(
    audit: Audit, linked: Sequence[Sequence[str]], groups: Mapping[str, str]
) -> list[list[str]]:
    """Joins linked images with the images of the same group.

    Args:
        audit: The images.
        linked: Groups of paths that stay together.
        groups: The result of `group_images`.

    Returns:
        Groups of paths, each path in one of them at most.
    """
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for path, name in groups.items():
        by_name[name].append(path)
    return join_groups([r.path for r in audit.images], [*linked, *by_name.values()])


def number_groups(
    images: Sequence[ImageRecord], linked: Iterable[Sequence[str]]
) -> np.ndarray:
    """Returns a number for each image, the same for images that stay together.

    Args:
        images: The images.
        linked: The result of `link_groups`.

    Returns:
        int64 `(images,)`.
    """
    number_of = {path: number for number, group in enumerate(linked) for path in group}
    alone = len(number_of)
    numbers = (number_of.get(r.path, alone + index) for index, r in enumerate(images))
    return np.fromiter(numbers, np.int64, len(images))
