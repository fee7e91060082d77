"""Knows the class folders of a data folder: their files, images and flaws.

`list_images` finds the files, `inspect_files` looks at each of them, `build_audit`
draws the conclusions; `scan` does all three. Nothing is ever changed in the folder.

Images that stand in it twice are reported and stay in the audit: whether a copy is
a mistake is for the user to decide. What matters for training is that copies stand on
one side of a split, and `keras_flowers.data.splits` sees to that.
"""

import os
import queue
import stat
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from keras_flowers.data.image_files import (
    IMAGE_SUFFIXES,
    ImageRecord,
    Pixels,
    inspect_image,
    is_clutter,
)
from keras_flowers.data.near_duplicates import near_duplicate_pairs
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path

Progress = Callable[[int, int], None]
Visit = Callable[[int, ImageRecord, Pixels | None], None]

_IMBALANCED = 3.0  # largest class to smallest
_MOST_WORKERS = 16  # more threads than this wait for Python's lock


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file as the file system describes it.

    Attributes:
        path: Relative to the data folder, with `/` between its parts.
        size: Length in bytes.
        modified_ns: When it was changed last, in nanoseconds since 1970.
    """

    path: str
    size: int
    modified_ns: int


@dataclass(frozen=True)
class ImageListing:
    """What stands in a data folder before any file was opened.

    All paths are relative to `root`, with `/` between their parts, and sorted.

    Attributes:
        root: The data folder.
        class_names: The folders in it that hold files, sorted as Python sorts text:
            the position of a name is its label, as in Keras.
        files: Every file in a class folder, at any depth and of any suffix.
        empty_classes: The folders in it without any file.
        clutter: Files and folders of systems and programs, which are passed over:
            hidden ones, `__MACOSX`, `Thumbs.db`, `desktop.ini`.
        ignored: What else is passed over although it may hold images: those that
            stand outside of the class folders, links to folders below a class
            folder, links back to the data folder, pipes and devices.
        unreadable: Folders whose content may not be listed.
    """

    root: Path
    class_names: tuple[str, ...]
    files: tuple[FileEntry, ...]
    empty_classes: tuple[str, ...] = ()
    clutter: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing about a data folder that its owner should know.

    Attributes:
        kind: A file that is left out is "not_an_image", "corrupt", "empty_file",
            "decompression_bomb", "unsupported_format" or "unreadable". Copies are
            "duplicate" (equal bytes within a class), "label_conflict" (equal bytes in
            several classes) or "near_duplicate" (the same picture in other bytes).
            A folder is "empty_class", "clutter", "ignored" or "imbalance".
        paths: The files or folders that it is about, relative to the data folder.
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
    """The images of a data folder that can be used, and what was found beside them.

    Attributes:
        root: The data folder.
        class_names: The classes that hold a usable image; the position is the label.
        images: The usable images, sorted by path.
        findings: What the owner of the folder should know.
        duplicate_groups: The paths of images with equal bytes, each group sorted.
        near_duplicate_groups: The paths of images that show the same picture, with
            equal bytes or not: every group of `duplicate_groups` is part of one.
    """

    root: Path
    class_names: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    findings: tuple[Finding, ...]
    duplicate_groups: tuple[tuple[str, ...], ...] = ()
    near_duplicate_groups: tuple[tuple[str, ...], ...] = ()

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
        """Returns a summary that `json.dump` takes: everything but the records."""
        return {
            "root": str(self.root),
            "class_names": list(self.class_names),
            "photos": len(self.images),
            "counts": self.counts,
            "findings": [
                {
                    "kind": found.kind,
                    "paths": list(found.paths),
                    "message": found.message,
                }
                for found in self.findings
            ],
        }


def scan(
    root: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Looks at every file of a data folder once and reports what training would meet.

    Args:
        root: A folder that holds one folder of images for each class.
        workers: The number of threads; None for one more than there are processors.
        progress: Called as `progress(done, total)` in the calling thread after each
            file.

    Returns:
        The audit. Files that cannot be used are among its findings.

    Raises:
        InputError: The folder is missing, has fewer than two class folders, or fewer
            than two of them hold an image that can be used; or `workers` is not
            positive.
    """
    listing = list_images(Path(root))
    records = inspect_files(
        listing.root, listing.files, workers=workers, progress=progress
    )
    return build_audit(listing, records)


def list_images(root: Path) -> ImageListing:
    """Finds the class folders of a data folder and the files in them.

    A class is a folder, or a link to one, that stands directly in `root`; its images
    may stand in folders of it, at any depth. There, links to files are followed and
    links to folders are not, so that no circle of links is walked.

    Args:
        root: The data folder.

    Returns:
        The listing. No file was opened for it.

    Raises:
        InputError: `root` is no folder that can be listed, or holds fewer than two
            class folders with files in them.
    """
    walk = _Walk(root)
    class_names: list[str] = []
    empty_classes: list[str] = []
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"`{printable_path(root)}` must be a folder with one folder of photos per "
            f"class. Received: {error.strerror or type(error).__name__}"
        ) from error
    for entry in entries:
        if is_clutter(entry.name):
            walk.clutter.append(entry.name)
        elif not _is_folder(entry):
            # A LICENSE.txt here is nobody's mistake; an image may be.
            if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                walk.ignored.append(entry.name)
        elif _leads_back(entry, root):
            walk.ignored.append(entry.name)
        else:
            before = len(walk.files)
            walk.visit(entry.name)
            found = class_names if len(walk.files) > before else empty_classes
            found.append(entry.name)
    _require_two_classes(root, class_names, "with files in them")
    return ImageListing(
        root=root,
        class_names=tuple(class_names),
        files=tuple(sorted(walk.files, key=lambda file: file.path)),
        empty_classes=tuple(empty_classes),
        clutter=tuple(sorted(walk.clutter)),
        ignored=tuple(sorted(walk.ignored)),
        unreadable=tuple(sorted(walk.unreadable)),
    )


class _Walk:
    """Collects what stands below the class folders."""

    def __init__(self, root: Path) -> None:
        self.files: list[FileEntry] = []
        self.clutter: list[str] = []
        self.ignored: list[str] = []
        self.unreadable: list[str] = []
        self._root = root

    def visit(self, folder: str) -> None:
        folders = [folder]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self._root / folder) as entries:
                    folders.extend(self._sort_in(folder, entries))
            except OSError:
                self.unreadable.append(folder)

    def _sort_in(
        self, folder: str, entries: Iterable[os.DirEntry[str]]
    ) -> Iterator[str]:
        """Sorts the entries of a folder in and yields the folders to visit next."""
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if is_clutter(entry.name):
                self.clutter.append(path)
            elif entry.is_dir(follow_symlinks=False):
                yield path
            else:
                self._add_file(path, entry)

    def _add_file(self, path: str, entry: os.DirEntry[str]) -> None:
        try:
            status = entry.stat()
        except OSError:  # A broken link: the inspection will say what is wrong.
            self.files.append(FileEntry(path, 0, 0))
            return
        if stat.S_ISREG(status.st_mode):
            self.files.append(FileEntry(path, status.st_size, status.st_mtime_ns))
        else:
            self.ignored.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link that leads to itself.
        return False


def _leads_back(entry: os.DirEntry[str], root: Path) -> bool:
    """Says whether a link leads to the data folder or to one that holds it."""
    if not entry.is_symlink():
        return False
    return root.resolve().is_relative_to(Path(entry.path).resolve())


def _require_two_classes(root: Path, class_names: Sequence[str], which: str) -> None:
    if len(class_names) >= 2:
        return
    received = "none" if not class_names else f"one: {printable_path(class_names[0])}"
    raise InputError(
        f"`{printable_path(root)}` must hold at least two class folders {which}. "
        f"Received: {received}"
    )


def inspect_files(
    root: Path,
    files: Sequence[FileEntry],
    *,
    image_size: tuple[int, int] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    visit: Visit | None = None,
) -> list[ImageRecord]:
    """Looks at files in several threads, each holding one decoded image at a time.

    Args:
        root: The data folder.
        files: The files to look at, below `root`.
        image_size: `(height, width)` of the pixels to pass to `visit`.
        workers: The number of threads; None for one more than there are processors,
            16 at most: while one waits for the disk, the others decode.
        progress: Called as `progress(done, total)` in the calling thread after each
            file.
        visit: Called as `visit(index, record, pixels)` after each file, with its
            position in `files` and what `inspect_image` returned. It runs in the
            threads, several at once and in no order; what it raises ends the
            inspection and is raised here.

    Returns:
        The records, in the order of `files`.

    Raises:
        InputError: `workers` is not positive.
    """
    if workers is not None and workers < 1:
        raise InputError(f"`workers` must be positive. Received: workers={workers}")
    workers = min(workers or default_workers(), max(1, len(files)))
    records: dict[int, ImageRecord] = {}
    outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    todo = iter(range(len(files)))
    lock = threading.Lock()
    stopped = threading.Event()

    def inspect_next() -> bool:
        with lock:
            index = next(todo, None)
        if index is None:
            return False
        record, pixels = inspect_image(root, files[index].path, image_size)
        if visit is not None:
            visit(index, record, pixels)
        records[index] = record
        return True

    def work() -> None:
        try:
            while not stopped.is_set() and inspect_next():
                outcomes.put(None)
        except BaseException as error:
            outcomes.put(error)

    with ThreadPoolExecutor(workers, thread_name_prefix="inspect") as pool:
        try:
            for _ in range(workers):
                pool.submit(work)
            for done in range(1, len(files) + 1):
                error = outcomes.get()
                if error is not None:
                    raise error
                if progress is not None:
                    progress(done, len(files))
        finally:
            # Also on Ctrl-C: each thread ends with the image in its hands.
            stopped.set()
    return [records[index] for index in range(len(files))]


def default_workers() -> int:
    """Returns how many threads read and decode images well at once."""
    return min(_MOST_WORKERS, processors() + 1)


def processors() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def build_audit(listing: ImageListing, records: Iterable[ImageRecord]) -> Audit:
    """Draws the conclusions from a listing and the inspection of its files.

    Args:
        listing: What `list_images` found.
        records: What `inspect_files` found in each of its files, in any order.

    Returns:
        The audit. A class without a usable image is not part of it.

    Raises:
        InputError: Fewer than two classes hold an image that can be used.
    """
    ordered = sorted(records, key=lambda record: record.path)
    images = tuple(record for record in ordered if record.problem is None)
    if not images:
        raise InputError(
            f"`{printable_path(listing.root)}` must hold photos that can be read. "
            f"Received: {len(ordered)} files, none of which is one"
        )
    present = {record.class_name for record in images}
    class_names = tuple(name for name in listing.class_names if name in present)
    _require_two_classes(listing.root, class_names, "with readable photos in them")
    duplicates = _duplicate_groups(images)
    near_duplicates = _near_duplicate_groups(images, duplicates)
    counts = Counter(record.class_name for record in images)
    findings = (
        *_unusable_files(ordered, listing),
        *_copies(duplicates),
        *_same_pictures(near_duplicates),
        *_empty_classes(listing, present),
        *_passed_over(listing),
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
    """Joins images with equal bytes and near-duplicates, through any chain of them."""
    position = {record.path: index for index, record in enumerate(images)}
    links = near_duplicate_pairs([record.perceptual_hash for record in images])
    for group in duplicates:
        links.extend(pairwise(position[record.path] for record in group))
    return [[images[index] for index in group] for group in _joined(links)]


def _joined(links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Returns the sets of numbers that the links connect, sorted."""
    parent: dict[int, int] = {}

    def find(number: int) -> int:
        while (above := parent.setdefault(number, number)) != number:
            parent[number] = parent[above]
            number = above
        return number

    for one, other in links:
        first, second = sorted((find(one), find(other)))
        parent[second] = first
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for number in sorted(parent):
        groups[find(number)].append(number)
    return [groups[first] for first in sorted(groups)]


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
        yield Finding(kind, _paths(group), f"{text}: {_listed(_paths(group))}")


def _same_pictures(near_duplicates: Iterable[_Group]) -> Iterator[Finding]:
    for group in near_duplicates:
        if len({record.sha256 for record in group}) > 1:
            message = f"nearly the same picture: {_listed(_paths(group))}"
            yield Finding("near_duplicate", _paths(group), message)


def _empty_classes(listing: ImageListing, present: set[str]) -> Iterator[Finding]:
    for name in listing.empty_classes:
        message = f"{printable_path(name)}: folder without files"
        yield Finding("empty_class", (name,), message)
    for name in listing.class_names:
        if name not in present:
            message = f"{printable_path(name)}: class without a readable photo"
            yield Finding("empty_class", (name,), message)


def _passed_over(listing: ImageListing) -> Iterator[Finding]:
    if listing.clutter:
        message = (
            "files and folders of systems and programs are ignored: "
            f"{_listed(listing.clutter)}"
        )
        yield Finding("clutter", listing.clutter, message)
    if listing.ignored:
        message = (
            "photos outside of the class folders, links to folders and special files "
            f"are ignored: {_listed(listing.ignored)}"
        )
        yield Finding("ignored", listing.ignored, message)


def _imbalance(counts: Mapping[str, int]) -> Iterator[Finding]:
    largest = max(counts, key=lambda name: counts[name])
    smallest = min(counts, key=lambda name: counts[name])
    if counts[largest] > _IMBALANCED * counts[smallest]:
        message = (
            f"{printable_path(largest)} has {counts[largest]} photos, "
            f"{printable_path(smallest)} only {counts[smallest]}"
        )
        yield Finding("imbalance", (largest, smallest), message)


def _listed(paths: Sequence[str]) -> str:
    """Names the first few paths on one line."""
    shown = ", ".join(printable_path(path) for path in paths[:3])
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"
