"""Decodes every photo once into uint8 rows on disk that all epochs share.

A store is a folder of the cache: `photos-N.u8` holds one row of
`height * width * 3` bytes per photo, `index.json` says which photo stands in which
row. Rows are only ever appended, and the index is replaced when they are safely on
disk: whoever reads the index reads finished rows, whatever happens to a writer.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from keras_flowers.catalog import FileEntry, PhotoListing, inspect_files
from keras_flowers.errors import InputError
from keras_flowers.files import write_text_atomically
from keras_flowers.photo_files import PhotoRecord, load_photo

# Part of a store's key: raise it when the same file would give other pixels.
DECODER_VERSION = 1
DEFAULT_DISK_BUDGET = 32 * 2**30
_INDEX_FORMAT = 1
# What is left free on the disk for everybody else.
_DISK_MARGIN = 512 * 2**20

Progress = Callable[[str, int, int | None], None]


class PhotoReader(ABC):
    """Gives the pixels of photos, by position in the list it was made for.

    Attributes:
        photo_shape: `(height, width, 3)`.
        parallel_reads: How many reads at once pay; `None` for one after the other.
    """

    def __init__(
        self, image_size: tuple[int, int], parallel_reads: int | None = None
    ) -> None:
        self.photo_shape = (*image_size, 3)
        self.parallel_reads = parallel_reads

    def read(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the photos at `positions`.

        Args:
            positions: Integers, `(count,)`.

        Returns:
            A uint8 array `(count, height, width, 3)`, values 0..255.
        """
        photos = np.empty((len(positions), *self.photo_shape), np.uint8)
        self.read_into(photos, positions)
        return photos

    @abstractmethod
    def read_into(
        self, photos: np.ndarray, positions: Sequence[int] | np.ndarray
    ) -> None:
        """Reads the photos at `positions` into an array of the shape of `read`."""


class StoredPhotos(PhotoReader):
    """Reads rows of a store through the page cache of the operating system.

    It reads with `preadv` rather than through a mapping: twice as fast for whole
    rows in random order, and the pages do not count as memory of the process.
    """

    def __init__(
        self, path: Path, rows: Sequence[int], image_size: tuple[int, int]
    ) -> None:
        super().__init__(image_size)
        self._rows = np.asarray(rows, dtype=np.int64)
        self._row_bytes = _row_bytes(image_size)
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def read_into(
        self, photos: np.ndarray, positions: Sequence[int] | np.ndarray
    ) -> None:
        """Reads the photos at `positions`."""
        rows = self._rows[np.asarray(positions, dtype=np.int64)]
        for photo, row in zip(photos, rows.tolist(), strict=True):
            done = os.preadv(self._descriptor, [photo], row * self._row_bytes)
            if done != self._row_bytes:
                raise OSError(f"The image store {self._path} was cut short.")


class DecodedPhotos(PhotoReader):
    """Decodes the files each time, for photos that do not fit on the disk."""

    def __init__(self, paths: Sequence[Path], image_size: tuple[int, int]) -> None:
        super().__init__(image_size, parallel_reads=os.cpu_count())
        self._paths = list(paths)
        self._image_size = image_size

    def read_into(
        self, photos: np.ndarray, positions: Sequence[int] | np.ndarray
    ) -> None:
        """Decodes the photos at `positions`."""
        for photo, position in zip(photos, positions, strict=True):
            photo[...] = load_photo(self._paths[int(position)], self._image_size)


@dataclasses.dataclass(frozen=True)
class StoreSettings:
    """Where and how large image stores may be.

    Attributes:
        cache_directory: The folder that holds all stores.
        disk_budget: Bytes that one store may take; beyond it photos are decoded on
            the fly.
        workers: Threads that decode; `None` for one per core.
    """

    cache_directory: Path
    disk_budget: int = DEFAULT_DISK_BUDGET
    workers: int | None = None


class ImageStore:
    """The photos of one data folder at one size, as of the last `update`.

    Attributes:
        directory: The folder of the store.
        records: What is known of every file of the listing, in its order.
        is_stored: Whether pixels are on disk; if not, they are decoded on the fly.
        reason_not_stored: One line that says why not, or `None`.
    """

    def __init__(
        self,
        listing: PhotoListing,
        image_size: tuple[int, int],
        settings: StoreSettings,
        progress: Progress | None = None,
    ) -> None:
        """Opens the store of a folder, decoding what it does not hold yet.

        Args:
            listing: The files of the data folder.
            image_size: `(height, width)` in pixels.
            settings: Location and limits.
            progress: Called with `"decode"`, photos done and photos in all.

        Raises:
            InputError: If the cache folder cannot be written.
            OSError: If the disk is full, in spite of the check beforehand.
        """
        self._root = listing.root
        self._image_size = image_size
        self.directory = store_directory(
            settings.cache_directory, listing.root, image_size
        )
        self.reason_not_stored = _reason_not_to_store(
            len(listing.files), image_size, settings, self.directory
        )
        self.is_stored = self.reason_not_stored is None
        index = _Index.read(self.directory)
        if not index.covers(listing.files, with_rows=self.is_stored):
            index = self._update(listing, settings.workers, progress)
        self._index = index
        self.records = tuple(index.entries[f.path][0] for f in listing.files)

    def reader(self, records: Sequence[PhotoRecord]) -> PhotoReader:
        """Returns a reader whose position `i` is the photo of `records[i]`."""
        if not self.is_stored:
            paths = [self._root / record.path for record in records]
            return DecodedPhotos(paths, self._image_size)
        rows = [self._index.entries[record.path][1] for record in records]
        path = self.directory / self._index.file_name
        return StoredPhotos(
            path, [-1 if r is None else r for r in rows], self._image_size
        )

    def _update(
        self,
        listing: PhotoListing,
        workers: int | None,
        progress: Progress | None,
    ) -> "_Index":
        with _locked(self.directory):
            # Another process may have done the work while this one waited.
            index = _Index.read(self.directory).kept(listing.files)
            missing = index.missing(listing.files, with_rows=self.is_stored)
            if missing:
                records = self._inspect(index, missing, workers, progress)
                rows = range(index.row_count, index.row_count + len(missing))
                index = index.extended(records, rows if self.is_stored else None)
            if index.is_sparse():
                index = self._compacted(index)
            index.write(self.directory)
            _remove_other_row_files(self.directory, index.file_name)
            return index

    def _inspect(
        self,
        index: "_Index",
        missing: Sequence[FileEntry],
        workers: int | None,
        progress: Progress | None,
    ) -> Sequence[PhotoRecord]:
        """Looks at the missing files; writes their pixels behind the last row."""

        def report(done: int, total: int) -> None:
            if progress is not None:
                progress("decode", done, total)

        if not self.is_stored:
            return inspect_files(self._root, missing, workers=workers, progress=report)
        row_bytes = _row_bytes(self._image_size)
        committed = index.row_count * row_bytes
        flags = os.O_RDWR | os.O_CREAT
        descriptor = os.open(self.directory / index.file_name, flags, 0o644)

        def write_row(position: int, record: PhotoRecord, pixels: Any) -> None:
            del record
            if pixels is not None:
                _write_all(descriptor, pixels, committed + position * row_bytes)

        try:
            # Left behind by a writer that was killed, perhaps.
            os.ftruncate(descriptor, committed)
            try:
                records = inspect_files(
                    self._root,
                    missing,
                    image_size=self._image_size,
                    workers=workers,
                    progress=report,
                    visit=write_row,
                )
                os.ftruncate(descriptor, committed + len(missing) * row_bytes)
                os.fsync(descriptor)
            except BaseException:
                os.ftruncate(descriptor, committed)
                raise
        finally:
            os.close(descriptor)
        return records

    def _compacted(self, index: "_Index") -> "_Index":
        """Copies the living rows into a new file; readers keep the old one."""
        compacted = index.renumbered()
        row_bytes = _row_bytes(self._image_size)
        source = self.directory / index.file_name
        target = self.directory / compacted.file_name
        with source.open("rb") as old, target.open("wb") as new:
            for path in compacted.stored_paths():
                row = index.entries[path][1]
                old.seek(0 if row is None else row * row_bytes)
                new.write(old.read(row_bytes))
            new.flush()
            os.fsync(new.fileno())
        return compacted


def store_directory(
    cache_directory: Path, root: Path, image_size: tuple[int, int]
) -> Path:
    """Returns the folder of the store of a data folder at an image size."""
    key = json.dumps([DECODER_VERSION, str(root.resolve()), list(image_size)])
    name = hashlib.sha256(key.encode()).hexdigest()[:20]
    return cache_directory / "stores" / name


@dataclasses.dataclass(frozen=True)
class _Index:
    """Which photo stands in which row, and what was found in each file."""

    generation: int
    row_count: int
    entries: dict[str, tuple[PhotoRecord, int | None]]

    @classmethod
    def read(cls, directory: Path) -> "_Index":
        """Reads the index; whatever cannot be trusted counts as an empty one."""
        empty = cls(generation=1, row_count=0, entries={})
        try:
            content = json.loads((directory / "index.json").read_text())
            if content["format"] != _INDEX_FORMAT:
                return empty
            entries = {}
            for fields, row in content["entries"]:
                record = PhotoRecord.from_json(fields)
                entries[record.path] = (record, row)
            index = cls(content["generation"], content["row_count"], entries)
            if index.row_count:
                size = (directory / index.file_name).stat().st_size
                if size < index.row_count * content["row_bytes"]:
                    return empty
        except (OSError, ValueError, KeyError, TypeError):
            return empty
        return index

    def write(self, directory: Path) -> None:
        size = 0
        if self.row_count:
            size = (directory / self.file_name).stat().st_size
        content = {
            "format": _INDEX_FORMAT,
            "generation": self.generation,
            "row_count": self.row_count,
            "row_bytes": size // self.row_count if self.row_count else 0,
            "entries": [[r.to_json(), row] for r, row in self.entries.values()],
        }
        write_text_atomically(directory / "index.json", json.dumps(content))

    @property
    def file_name(self) -> str:
        return f"photos-{self.generation}.u8"

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

    def extended(self, records: Sequence[PhotoRecord], rows: range | None) -> "_Index":
        """Returns the index with new records, whose pixels stand in `rows`."""
        entries = dict(self.entries)
        for position, record in enumerate(records):
            row = None if rows is None or record.problem else rows[position]
            entries[record.path] = (record, row)
        row_count = self.row_count if rows is None else rows.stop
        return dataclasses.replace(self, entries=entries, row_count=row_count)

    def stored_paths(self) -> list[str]:
        return [path for path, (_, row) in self.entries.items() if row is not None]

    def is_sparse(self) -> bool:
        """Says whether more than half of the rows belong to no photo any more."""
        return self.row_count > 2 * len(self.stored_paths())

    def renumbered(self) -> "_Index":
        """Returns the index of the next generation, with rows from 0 up."""
        rows = {path: row for row, path in enumerate(self.stored_paths())}
        return _Index(
            generation=self.generation + 1,
            row_count=len(rows),
            entries={p: (r, rows.get(p)) for p, (r, _) in self.entries.items()},
        )


def _is_unchanged(record: PhotoRecord, file: FileEntry) -> bool:
    return (record.size, record.modified_ns) == (file.size, file.modified_ns)


def _row_bytes(image_size: tuple[int, int]) -> int:
    return image_size[0] * image_size[1] * 3


def _reason_not_to_store(
    count: int, image_size: tuple[int, int], settings: StoreSettings, directory: Path
) -> str | None:
    needed = count * _row_bytes(image_size)
    if needed > settings.disk_budget:
        return (
            f"{_gigabytes(needed)} of decoded photos exceed the disk budget of "
            f"{_gigabytes(settings.disk_budget)}: photos are decoded on the fly."
        )
    present = sum(file.stat().st_size for file in directory.glob("photos-*.u8"))
    existing = next(p for p in (directory, *directory.parents) if p.exists())
    free = shutil.disk_usage(existing).free - _DISK_MARGIN
    if needed - present > free:
        return (
            f"{_gigabytes(needed)} of decoded photos do not fit on the disk of "
            f"{settings.cache_directory}: photos are decoded on the fly."
        )
    return None


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _locked(directory: Path) -> AbstractContextManager[Any]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return filelock.FileLock(directory / "lock").acquire()
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise InputError(
            f"The cache folder {directory} cannot be written: {error.strerror}. "
            "Pass another one as `cache_directory`."
        ) from error


def _write_all(descriptor: int, pixels: np.ndarray, offset: int) -> None:
    view = np.ascontiguousarray(pixels).data.cast("B")
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _remove_other_row_files(directory: Path, file_name: str) -> None:
    for path in directory.glob("photos-*.u8"):
        if path.name != file_name:
            path.unlink(missing_ok=True)
