"""Decodes every image once into uint8 rows on disk that all epochs share.

The cache of a data folder at one image size is a folder. `photos-NAME.u8` holds one row
of `height * width * 3` bytes per image, and `index.json` says which image is in which
row of which file. Rows are only appended, and the index is replaced once they are
safely on disk. A reader of the index therefore never sees an unfinished row, whatever
happens to a writer.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_flowers.data.cache_index import CacheIndex
from keras_flowers.data.image_files import (
    DEFAULT_OPTIONS,
    ImageOptions,
    ImageRecord,
    Pixels,
    load_image,
)
from keras_flowers.data.image_listing import FileEntry, ImageListing
from keras_flowers.data.inspection import default_workers, inspect_files
from keras_flowers.errors import FileAccessError, InputError
from keras_flowers.files import explain_os_error
from keras_flowers.locks import exclusive_lock
from keras_flowers.progress import Progress

# Raise it whenever a file would be decoded to other pixels than before, so that caches
# of older versions are not used. A test pins the pixels of a few files.
DECODER_VERSION = 2
DEFAULT_DISK_BUDGET = 32 * 2**30
_DISK_MARGIN = 512 * 2**20  # bytes to leave free on the disk
LOCK_HINT = "Pass another folder as `cache_directory` (--cache-dir)"


class ImageReader(ABC):
    """Reads the pixels of images by their position in a list.

    Attributes:
        image_shape: `(height, width, 3)`.
        parallel_reads: How many reads to run at once; None for one at a time.
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
                values from 0 to 255.
            positions: Integers `(count,)`.
        """


class CachedImages(ImageReader):
    """Reads rows of a cache through the page cache of the operating system.

    It uses `preadv` rather than a memory map: that is faster for whole rows in random
    order, and the pages do not count as memory of the process.
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
            try:
                count = os.preadv(self._file.descriptor, [image], row * image.nbytes)
            except OSError as error:
                raise explain_os_error(
                    error, self._file.path, LOCK_HINT, action="read"
                ) from error
            if count != image.nbytes:
                raise InputError(f"The image cache {self._file.path} was truncated.")


class DecodedImages(ImageReader):
    """Decodes the files on every read, for images that do not fit on the disk."""

    def __init__(
        self,
        paths: Sequence[Path],
        image_size: tuple[int, int],
        options: ImageOptions = DEFAULT_OPTIONS,
    ) -> None:
        super().__init__(image_size, parallel_reads=default_workers())
        self._paths = list(paths)
        self._image_size = image_size
        self._options = options

    def read_into(self, images: np.ndarray, positions: np.ndarray) -> None:
        """Decodes the images at `positions`."""
        for image, position in zip(images, positions.tolist(), strict=True):
            image[...] = load_image(
                self._paths[position], self._image_size, self._options
            )


class _RowFile:
    """An open file of rows; it remains readable when another process replaces it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)


@dataclasses.dataclass(frozen=True)
class CacheSettings:
    """Where image caches are and how large one may be.

    Attributes:
        cache_directory: The folder of all caches.
        disk_budget: Maximum size of one image cache in bytes. Images that would take
            more are decoded on the fly.
    """

    cache_directory: Path
    disk_budget: int = DEFAULT_DISK_BUDGET


@dataclasses.dataclass(frozen=True)
class ImageCache:
    """The inspected and decoded images of a data folder at one image size.

    Use `ImageCache.open` to create one.

    Attributes:
        directory: The folder of the cache.
        root: The data folder.
        image_size: `(height, width)` in pixels.
        options: How images become pixels.
        records: The record of every file of the listing, in its order.
        reason_not_cached: Why the images are decoded on the fly, in one line; None if
            their pixels are on disk.
    """

    directory: Path
    root: Path
    image_size: tuple[int, int]
    options: ImageOptions
    records: tuple[ImageRecord, ...]
    reason_not_cached: str | None
    _index: CacheIndex
    _file: _RowFile | None

    @classmethod
    def open(
        cls,
        listing: ImageListing,
        image_size: tuple[int, int],
        settings: CacheSettings,
        progress: Progress | None = None,
        options: ImageOptions = DEFAULT_OPTIONS,
    ) -> "ImageCache":
        """Opens the cache of a data folder; inspects and caches what it lacks.

        Where it cannot be written, the images are decoded on the fly.

        Args:
            listing: The files of the data folder.
            image_size: `(height, width)` in pixels.
            settings: Location and limits.
            progress: Called as `progress("decode", done, total)` with the number of
                images that are new or have changed.
            options: How images become pixels.

        Returns:
            The cache, which covers every file of the listing.
        """
        directory = image_cache_directory(
            settings.cache_directory, listing.root, image_size, options
        )
        update = _CacheUpdate(
            directory, listing, image_size, settings, progress, options
        )
        index, file, reason = update.open_rows()
        records = tuple(index.entries[file.path][0] for file in listing.files)
        return cls(
            directory, listing.root, image_size, options, records, reason, index, file
        )

    def reader(self, records: Sequence[ImageRecord]) -> ImageReader:
        """Returns a reader whose position `i` is the image of `records[i]`."""
        if self._file is None:
            paths = [self.root / record.path for record in records]
            return DecodedImages(paths, self.image_size, self.options)
        rows = [self._index.row_of(record) for record in records]
        return CachedImages(self._file, rows, self.image_size)


@dataclasses.dataclass(frozen=True)
class _CacheUpdate:
    """Brings the cache of a listing up to date."""

    directory: Path
    listing: ImageListing
    image_size: tuple[int, int]
    settings: CacheSettings
    progress: Progress | None
    options: ImageOptions
    _inspected: dict[str, ImageRecord] = dataclasses.field(default_factory=dict)

    @property
    def _row_bytes(self) -> int:
        return self.image_size[0] * self.image_size[1] * 3

    def open_rows(self) -> tuple[CacheIndex, _RowFile | None, str | None]:
        """Returns an index that covers the listing, and the rows it refers to.

        Where the pixels are not cached, there are no rows but a reason.
        """
        reason = self._find_reason_not_to_cache()
        try:
            index, file = self._open_rows(with_rows=reason is None)
        except FileAccessError as error:
            # A full disk or quota, a folder that is read-only or of somebody else.
            reason = f"{error}. Until then, images are decoded on the fly."
            return self._inspect_without_cache(), None, reason
        return index, file, reason

    def _find_reason_not_to_cache(self) -> str | None:
        """Returns why the pixels should not be cached, or None if they should."""
        files, budget = self.listing.files, self.settings.disk_budget
        needed = len(files) * self._row_bytes
        if needed > budget:
            return (
                f"The decoded images take {_format_size(needed)}, more than the disk "
                f"budget of {_format_size(budget)}: images are decoded on the fly."
            )
        missing = CacheIndex.read(self.directory).missing(files, with_rows=True)
        new = len(missing) * self._row_bytes
        free = _find_free_space(self.directory)
        if free is not None and new > free - _DISK_MARGIN:
            return (
                f"The decoded images take {_format_size(new)}, which do not fit on the "
                f"disk of {self.settings.cache_directory}: images are decoded on the "
                "fly."
            )
        return None

    def _open_rows(self, *, with_rows: bool) -> tuple[CacheIndex, _RowFile | None]:
        for _ in range(5):
            index = CacheIndex.read(self.directory)
            if not index.covers(self.listing.files, with_rows=with_rows):
                index = self._inspect_and_cache(with_rows=with_rows)
            if not with_rows:
                return index, None
            try:
                return index, _RowFile(self.directory / index.file_name)
            except FileNotFoundError:
                continue  # Another process has just replaced index and rows.
            except OSError as error:
                raise explain_os_error(
                    error, self.directory, LOCK_HINT, action="read"
                ) from error
        raise InputError(f"The image cache {self.directory} is damaged: remove it.")

    def _inspect_and_cache(self, *, with_rows: bool) -> CacheIndex:
        """Inspects new and changed files; with rows, also caches their pixels.

        Raises:
            FileAccessError: If the cache cannot be written.
        """
        try:
            return self._update_cache(with_rows=with_rows)
        except OSError as error:
            raise explain_os_error(error, self.directory, LOCK_HINT) from error

    def _update_cache(self, *, with_rows: bool) -> CacheIndex:
        files = self.listing.files
        with exclusive_lock(self.directory / "lock", hint=LOCK_HINT):
            # Another process may have done the work while this one waited.
            index = CacheIndex.read(self.directory).keep_unchanged(files)
            _remove_other_rows(self.directory, index.file_name)
            if not index.cached_paths():
                index = CacheIndex.empty(index.entries)
            missing = index.missing(files, with_rows=with_rows)
            if with_rows:
                path = self.directory / index.file_name
                with _RowWriter(path, index.row_count, self._row_bytes) as rows:
                    records = self._inspect(missing, rows)
            else:
                records = self._inspect(missing)
            index = index.append(records, with_rows=with_rows)
            if self._wastes_space(index):
                index = self._compact(index)
            index.write(self.directory, self._row_bytes)
            _remove_other_rows(self.directory, index.file_name)
            return index

    def _inspect(
        self, files: Sequence[FileEntry], rows: "_RowWriter | None" = None
    ) -> list[ImageRecord]:
        """Inspects files, and writes their pixels as rows if there is a writer."""

        def visit(position: int, record: ImageRecord, pixels: Pixels | None) -> None:
            self._inspected[record.path] = record
            if rows is not None:
                rows.write(position, pixels)

        return inspect_files(
            self.listing.root,
            files,
            image_size=None if rows is None else self.image_size,
            progress=self.progress,
            step="decode",
            options=self.options,
            visit=visit,
        )

    def _inspect_without_cache(self) -> CacheIndex:
        """Returns an index without rows; inspects what the failed update has not."""
        index = CacheIndex.read(self.directory).keep_unchanged(self.listing.files)
        known = CacheIndex.empty(index.entries).append(
            list(self._inspected.values()), with_rows=False
        )
        missing = [
            file
            for file in known.missing(self.listing.files, with_rows=False)
            if file.path not in self._inspected
        ]
        return known.append(self._inspect(missing), with_rows=False)

    def _wastes_space(self, index: CacheIndex) -> bool:
        """Returns whether rows without an image take too much space."""
        used = len(index.cached_paths())
        size = index.row_count * self._row_bytes
        is_over_budget = size > self.settings.disk_budget and index.row_count > used
        return is_over_budget or index.row_count > 2 * used

    def _compact(self, index: CacheIndex) -> CacheIndex:
        """Copies the rows in use into a new file; open readers keep the old one."""
        compact = index.renumber()
        source = self.directory / index.file_name
        target = self.directory / compact.file_name
        with source.open("rb") as old, target.open("xb") as new:
            for path in compact.cached_paths():
                old.seek(index.row_of(index.entries[path][0]) * self._row_bytes)
                new.write(old.read(self._row_bytes))
            new.flush()
            os.fsync(new.fileno())
        return compact


class _RowWriter:
    """Appends rows; they count only if it closes without an error.

    After an error of the system, further rows are dropped; the error is raised at the
    end of the `with` block.
    """

    def __init__(self, path: Path, first_row: int, row_bytes: int) -> None:
        self._path = path
        self._start = first_row * row_bytes
        self._row_bytes = row_bytes
        self._error: OSError | None = None

    def __enter__(self) -> "_RowWriter":
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        # A writer that was killed may have left unfinished rows.
        os.ftruncate(self._descriptor, self._start)
        return self

    def write(self, position: int, pixels: Pixels | None) -> None:
        """Writes the pixels of the file at `position`. Thread-safe."""
        if pixels is None or self._error is not None:
            return
        view = np.ascontiguousarray(pixels).data.cast("B")
        offset = self._start + position * self._row_bytes
        try:
            while view:
                written = os.pwrite(self._descriptor, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            self._error = error

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        try:
            if error is None and self._error is None:
                os.fsync(self._descriptor)
                return
            # Gives the space back.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._start)
        finally:
            os.close(self._descriptor)
        if error is None and self._error is not None:
            raise self._error


def image_cache_directory(
    cache_directory: Path,
    root: Path,
    image_size: tuple[int, int],
    options: ImageOptions = DEFAULT_OPTIONS,
) -> Path:
    """Returns the folder that caches the images of a data folder at an image size."""
    changes = dataclasses.asdict(options)
    key = json.dumps([DECODER_VERSION, str(root.resolve()), list(image_size), changes])
    name = hashlib.sha256(key.encode()).hexdigest()[:20]
    return cache_directory / "stores" / name


def _find_free_space(folder: Path) -> int | None:
    """Returns the free bytes of the disk that a folder is or will be on, if known."""
    for place in (folder, *folder.absolute().parents):
        with contextlib.suppress(OSError):
            return shutil.disk_usage(place).free
    return None


def _format_size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 10**9 else f"{count / 1e6:.1f} MB"


def _remove_other_rows(directory: Path, file_name: str) -> None:
    """Removes the row files that the index does not refer to."""
    for path in directory.glob("photos-*.u8"):
        if path.name != file_name:
            path.unlink(missing_ok=True)
