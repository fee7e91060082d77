"""Decodes every image once into uint8 rows on disk that all epochs share.

A store is a folder of the cache: `images-NAME.u8` holds one row of
`height * width * 3` bytes per image, `index.json` says which image stands in which
row of which file. Rows are only ever appended, and the index is replaced when they
are safely on disk: whoever reads the index reads finished rows, whatever happens to a
writer.
"""

import dataclasses
import errno
import hashlib
import json
import os
import secrets
import shutil
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from keras_flowers.data.audit import (
    FileEntry,
    ImageListing,
    default_workers,
    inspect_files,
)
from keras_flowers.data.image_files import ImageRecord, load_image
from keras_flowers.errors import InputError
from keras_flowers.files import write_text_atomically
from keras_flowers.progress import Progress

# Part of a store's key: raise it when the same file would give other pixels.
DECODER_VERSION = 1
DEFAULT_DISK_BUDGET = 32 * 2**30
_INDEX_FORMAT = 1
# What is left free on the disk for everybody else.
_DISK_MARGIN = 512 * 2**20


class ImageReader(ABC):
    """Gives the pixels of images, by position in the list it was made for.

    Attributes:
        photo_shape: `(height, width, 3)`.
        parallel_reads: How many reads at once pay; `None` for one after the other.
    """

    def __init__(
        self, image_size: tuple[int, int], parallel_reads: int | None = None
    ) -> None:
        self.image_shape = (*image_size, 3)
        self.parallel_reads = parallel_reads

    @abstractmethod
    def read_into(self, images: np.ndarray, positions: np.ndarray) -> None:
        """Reads images into an array.

        Args:
            images: A contiguous uint8 array `(count, height, width, 3)` that receives
                values 0..255.
            positions: Integers, `(count,)`.
        """


class StoredImages(ImageReader):
    """Reads rows of a store through the page cache of the operating system.

    It reads with `preadv` rather than through a mapping: faster for whole rows in
    random order, and the pages do not count as memory of the process.
    """

    def __init__(
        self, file: "_RowFile", rows: Sequence[int], image_size: tuple[int, int]
    ) -> None:
        super().__init__(image_size)
        self._file = file
        self._rows = np.asarray(rows, dtype=np.int64)

    def read_into(self, images: np.ndarray, positions: np.ndarray) -> None:
        """Reads the images at `positions`."""
        for image, row in zip(images, self._rows[positions].tolist(), strict=True):
            done = os.preadv(self._file.descriptor, [image], row * image.nbytes)
            if done != image.nbytes:
                raise InputError(f"The image store {self._file.path} was cut short.")


class DecodedImages(ImageReader):
    """Decodes the files each time, for images that do not fit on the disk."""

    def __init__(self, paths: Sequence[Path], image_size: tuple[int, int]) -> None:
        super().__init__(image_size, parallel_reads=default_workers())
        self._paths = list(paths)
        self._image_size = image_size

    def read_into(self, images: np.ndarray, positions: np.ndarray) -> None:
        """Decodes the images at `positions`."""
        for image, position in zip(images, positions.tolist(), strict=True):
            image[...] = load_image(self._paths[position], self._image_size)


class _RowFile:
    """An open file of rows; it stays readable when another process replaces it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)


@dataclasses.dataclass(frozen=True)
class CacheSettings:
    """Where and how large image caches may be.

    Attributes:
        cache_directory: The folder that holds all stores.
        disk_budget: Bytes that one store may take; beyond it images are decoded on
            the fly.
    """

    cache_directory: Path
    disk_budget: int = DEFAULT_DISK_BUDGET


class ImageCache:
    """The images of one data folder at one size, as they are now.

    Attributes:
        directory: The folder of the store.
        records: What is known of every file of the listing, in its order.
        is_stored: Whether pixels are on disk; if not, they are decoded on the fly.
        reason_not_stored: One line that says why not, or `None`.
    """

    def __init__(
        self,
        listing: ImageListing,
        image_size: tuple[int, int],
        settings: CacheSettings,
        progress: Progress | None = None,
    ) -> None:
        """Opens the store of a folder, decoding what it does not hold yet.

        Args:
            listing: The files of the data folder.
            image_size: `(height, width)` in pixels.
            settings: Location and limits.
            progress: Called with `"decode"`, images done and images in all.

        Raises:
            InputError: If the cache folder cannot be written, or its disk is full in
                spite of the check beforehand.
        """
        self._root = listing.root
        self._image_size = image_size
        self._row_bytes = image_size[0] * image_size[1] * 3
        self._settings = settings
        self.directory = image_cache_directory(
            settings.cache_directory, listing.root, image_size
        )
        index = _Index.read(self.directory)
        self.reason_not_cached = self._reason_not_to_store(listing.files, index)
        self.is_stored = self.reason_not_cached is None
        self._index, self._file = self._opened(listing.files, index, progress)
        self.records = tuple(self._index.entries[f.path][0] for f in listing.files)

    def reader(self, records: Sequence[ImageRecord]) -> ImageReader:
        """Returns a reader whose position `i` is the image of `records[i]`."""
        if self._file is None:
            paths = [self._root / record.path for record in records]
            return DecodedImages(paths, self._image_size)
        rows = [self._index.row_of(record) for record in records]
        return StoredImages(self._file, rows, self._image_size)

    def _reason_not_to_store(
        self, files: Sequence[FileEntry], index: "_Index"
    ) -> str | None:
        needed, budget = len(files) * self._row_bytes, self._settings.disk_budget
        if needed > budget:
            return (
                f"{_size(needed)} of decoded photos exceed the disk budget of "
                f"{_size(budget)}: photos are decoded on the fly."
            )
        missing = index.missing(files, with_rows=True)
        new = len(missing) * self._row_bytes
        places = (self.directory, *self.directory.absolute().parents)
        existing = next(place for place in places if place.exists())
        if new > shutil.disk_usage(existing).free - _DISK_MARGIN:
            return (
                f"{_size(new)} of decoded photos do not fit on the disk of "
                f"{self._settings.cache_directory}: photos are decoded on the fly."
            )
        return None

    def _opened(
        self, files: Sequence[FileEntry], index: "_Index", progress: Progress | None
    ) -> tuple["_Index", _RowFile | None]:
        """Returns an index that covers the files, and the rows it speaks of."""
        for _ in range(5):
            if not index.covers(files, with_rows=self.is_stored):
                index = self._update(files, progress)
            if not self.is_stored:
                return index, None
            try:
                return index, _RowFile(self.directory / index.file_name)
            except FileNotFoundError:
                # Another process replaced the rows in between; its index says where.
                index = _Index.read(self.directory)
        raise InputError(f"The image store {self.directory} is damaged: remove it.")

    def _update(
        self, files: Sequence[FileEntry], progress: Progress | None
    ) -> "_Index":
        with locked(self.directory / "lock"):
            # Another process may have done the work while this one waited.
            index = _Index.read(self.directory).kept(files)
            _remove_other_rows(self.directory, index.file_name)
            if not index.stored_paths():
                index = _Index.empty(index.entries)
            missing = index.missing(files, with_rows=self.is_stored)
            records = self._inspect(index, missing, progress)
            index = index.extended(records, with_rows=self.is_stored)
            if self._wastes_space(index):
                index = self._compacted(index)
            index.write(self.directory, self._row_bytes)
            _remove_other_rows(self.directory, index.file_name)
            return index

    def _inspect(
        self,
        index: "_Index",
        missing: Sequence[FileEntry],
        progress: Progress | None,
    ) -> Sequence[ImageRecord]:
        """Looks at the missing files; writes their pixels behind the last row."""

        def report(done: int, total: int) -> None:
            if progress is not None:
                progress("decode", done, total)

        if not self.is_stored:
            return inspect_files(self._root, missing, progress=report)
        path = self.directory / index.file_name
        with _RowWriter(path, index.row_count, self._row_bytes) as rows:
            return inspect_files(
                self._root,
                missing,
                image_size=self._image_size,
                progress=report,
                visit=rows.write,
            )

    def _wastes_space(self, index: "_Index") -> bool:
        """Says whether rows that belong to no image any more take too much."""
        living = len(index.stored_paths())
        size = index.row_count * self._row_bytes
        is_over_budget = size > self._settings.disk_budget and index.row_count > living
        return is_over_budget or index.row_count > 2 * living

    def _compacted(self, index: "_Index") -> "_Index":
        """Copies the living rows into a new file; readers keep the old one."""
        compacted = index.renumbered()
        source = self.directory / index.file_name
        target = self.directory / compacted.file_name
        with source.open("rb") as old, target.open("xb") as new:
            for path in compacted.stored_paths():
                old.seek(index.row_of(index.entries[path][0]) * self._row_bytes)
                new.write(old.read(self._row_bytes))
            new.flush()
            os.fsync(new.fileno())
        return compacted


class _RowWriter:
    """Writes rows behind those that are in use; they count once it closed well."""

    def __init__(self, path: Path, first_row: int, row_bytes: int) -> None:
        self._path = path
        self._start = first_row * row_bytes
        self._row_bytes = row_bytes

    def __enter__(self) -> "_RowWriter":
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        # Left behind by a writer that was killed, perhaps.
        os.ftruncate(self._descriptor, self._start)
        return self

    def write(
        self, position: int, record: ImageRecord, pixels: np.ndarray | None
    ) -> None:
        """Writes the pixels of the file at `position`; called by several threads."""
        del record
        if pixels is None:
            return
        view = np.ascontiguousarray(pixels).data.cast("B")
        offset = self._start + position * self._row_bytes
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        try:
            if error is None:
                os.fsync(self._descriptor)
            else:
                os.ftruncate(self._descriptor, self._start)
        finally:
            os.close(self._descriptor)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise InputError(
                f"The disk of the image store {self._path.parent} is full. Pass "
                "another `cache_directory`, or `disk_budget=0` to decode on the fly."
            ) from error


def image_cache_directory(
    cache_directory: Path, root: Path, image_size: tuple[int, int]
) -> Path:
    """Returns the folder of the store of a data folder at an image size."""
    key = json.dumps([DECODER_VERSION, str(root.resolve()), list(image_size)])
    name = hashlib.sha256(key.encode()).hexdigest()[:20]
    return cache_directory / "stores" / name


@dataclasses.dataclass(frozen=True)
class _Index:
    """Which image stands in which row of which file, and what each file holds."""

    file_name: str
    row_count: int
    entries: dict[str, tuple[ImageRecord, int | None]]

    @classmethod
    def empty(cls, entries: dict[str, Any] | None = None) -> "_Index":
        """Returns an index without rows, whose file name was never used before."""
        return cls(f"photos-{secrets.token_hex(8)}.u8", 0, entries or {})

    @classmethod
    def read(cls, directory: Path) -> "_Index":
        """Reads the index; whatever cannot be trusted counts as an empty one."""
        try:
            content = json.loads((directory / "index.json").read_text())
            if content["format"] != _INDEX_FORMAT:
                return cls.empty()
            entries = {}
            for fields, row in content["entries"]:
                record = ImageRecord.from_json(fields)
                entries[record.path] = (record, row)
            index = cls(content["file_name"], content["row_count"], entries)
            size = index.row_count * content["row_bytes"]
            if size and (directory / index.file_name).stat().st_size < size:
                return cls.empty()
        except (OSError, ValueError, KeyError, TypeError):
            return cls.empty()
        return index

    def write(self, directory: Path, row_bytes: int) -> None:
        """Replaces the index of the store."""
        # The file has the length of all rows also where the last ones are unreadable.
        if self.row_count:
            os.truncate(directory / self.file_name, self.row_count * row_bytes)
        content = {
            "format": _INDEX_FORMAT,
            "file_name": self.file_name,
            "row_count": self.row_count,
            "row_bytes": row_bytes,
            "entries": [[r.to_json(), row] for r, row in self.entries.values()],
        }
        write_text_atomically(directory / "index.json", json.dumps(content))

    def row_of(self, record: ImageRecord) -> int:
        """Returns the row of an image that can be read."""
        row = self.entries[record.path][1]
        if row is None:
            raise ValueError(f"{record.path} has no row: {record.problem}")
        return row

    def missing(
        self, files: Sequence[FileEntry], *, with_rows: bool
    ) -> list[FileEntry]:
        """Returns the files that are new or changed, or lack a row they need."""
        return [file for file in files if not self._holds(file, with_rows)]

    def covers(self, files: Sequence[FileEntry], *, with_rows: bool) -> bool:
        """Says whether the index describes exactly these files."""
        same_count = len(files) == len(self.entries)
        return same_count and not self.missing(files, with_rows=with_rows)

    def _holds(self, file: FileEntry, with_rows: bool) -> bool:
        record, row = self.entries.get(file.path, (None, None))
        if record is None or not _is_unchanged(record, file):
            return False
        if record.problem_kind == "unreadable":
            return False  # a permission may have changed, which no time stamp tells
        return row is not None or record.problem is not None or not with_rows

    def kept(self, files: Sequence[FileEntry]) -> "_Index":
        """Returns the index without the entries of removed and changed files."""
        present = {file.path: file for file in files}
        entries = {
            path: (record, row)
            for path, (record, row) in self.entries.items()
            if path in present and _is_unchanged(record, present[path])
        }
        return dataclasses.replace(self, entries=entries)

    def extended(self, records: Sequence[ImageRecord], *, with_rows: bool) -> "_Index":
        """Returns the index with new records, whose rows follow the last one."""
        entries = dict(self.entries)
        for row, record in enumerate(records, start=self.row_count):
            has_row = with_rows and record.problem is None
            entries[record.path] = (record, row if has_row else None)
        row_count = self.row_count + (len(records) if with_rows else 0)
        return dataclasses.replace(self, entries=entries, row_count=row_count)

    def stored_paths(self) -> list[str]:
        """Returns the images that have a row."""
        return [path for path, (_, row) in self.entries.items() if row is not None]

    def renumbered(self) -> "_Index":
        """Returns the index of a new file, with rows from 0 up."""
        rows = {path: row for row, path in enumerate(self.stored_paths())}
        entries = {p: (r, rows.get(p)) for p, (r, _) in self.entries.items()}
        return dataclasses.replace(_Index.empty(entries), row_count=len(rows))


def _is_unchanged(record: ImageRecord, file: FileEntry) -> bool:
    return (record.size, record.modified_ns) == (file.size, file.modified_ns)


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"


def locked(path: Path) -> AbstractContextManager[Any]:
    """Holds a lock file in a folder of the cache, which is made where it is missing.

    Raises:
        InputError: If the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(path).acquire()
    except OSError as error:
        raise InputError(
            f"The cache folder {path.parent} cannot be written: {error.strerror}. "
            "Pass another one as `cache_directory`."
        ) from error


def _remove_other_rows(directory: Path, file_name: str) -> None:
    """Removes the files of rows that no index speaks of."""
    for path in directory.glob("photos-*.u8"):
        if path.name != file_name:
            path.unlink(missing_ok=True)
