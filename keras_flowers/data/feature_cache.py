"""Caches feature vectors on disk by the checksums of their images.

`features-NAME.f32` holds one float32 row per image, and `features-NAME.json` says which
row belongs to which checksum. Rows are only appended, and the index is replaced once
they are safely on disk. A reader of the index therefore never sees an unfinished row.
"""

import contextlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_flowers.data.image_cache import LOCK_HINT
from keras_flowers.errors import FileAccessError
from keras_flowers.files import explain_os_error, write_text_atomically
from keras_flowers.locks import exclusive_lock

_FORMAT = 1


class CacheWarning(UserWarning):
    """Issued where a cache cannot be written, so that work is repeated later."""


class FeatureCache:
    """The features of images from one backbone.

    Features that cannot be written, as on a full disk, are kept in memory, and a
    `CacheWarning` says so.

    Args:
        directory: The folder of the image cache.
        key: Identifies the backbone.
        size: Length of the feature vector of an image.

    Attributes:
        size: See above.
    """

    def __init__(self, directory: Path, key: str, size: int) -> None:
        self._directory = directory
        self._path = directory / f"features-{key[:20]}.f32"
        self.size = size
        self._rows: dict[str, int] = {}
        self._in_memory: dict[str, np.ndarray] = {}
        self._is_writable = True
        self._is_locked = False

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from computing the same features at the same time.

        It may be locked already by this object.
        """
        with contextlib.ExitStack() as stack:
            if self._is_writable and not self._is_locked:
                try:
                    path = self._path.with_suffix(".lock")
                    stack.enter_context(exclusive_lock(path, hint=LOCK_HINT))
                except FileAccessError as error:
                    self._give_up(error)
                else:
                    self._is_locked = True
                    stack.callback(setattr, self, "_is_locked", False)
            yield

    def missing(self, checksums: Sequence[str]) -> set[str]:
        """Reads the index; returns the checksums whose features are not cached."""
        self._rows = self._read_index()
        return set(checksums) - self._rows.keys() - self._in_memory.keys()

    def add(self, checksums: Sequence[str], features: np.ndarray) -> None:
        """Appends features. Hold `lock()` while calling it.

        Args:
            checksums: The SHA-256 of each image.
            features: Float array `(images, size)`.
        """
        rows = np.ascontiguousarray(features, "<f4")
        if self._is_writable:
            try:
                self._append(checksums, rows)
                return
            except FileAccessError as error:
                self._give_up(error)
            except OSError as error:
                self._give_up(explain_os_error(error, self._directory, LOCK_HINT))
        self._in_memory |= dict(zip(checksums, rows, strict=True))

    def add_missing(self, rows: Mapping[str, np.ndarray]) -> None:
        """Appends the features that no other process has cached meanwhile.

        Args:
            rows: The features of images by their SHA-256, float `(size,)`.
        """
        with self.lock():
            missing = self.missing(list(rows))
            new = [checksum for checksum in rows if checksum in missing]
            if new:
                self.add(new, np.stack([rows[checksum] for checksum in new]))

    def _append(self, checksums: Sequence[str], rows: np.ndarray) -> None:
        start = len(self._rows) * 4 * self.size
        added = {name: len(self._rows) + row for row, name in enumerate(checksums)}
        with self._path.open("ab") as file:
            # A writer that was killed may have left unfinished rows.
            file.truncate(start)
            try:
                file.write(rows.tobytes())
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(start)  # gives the space back
                raise
        self._write_index([*self._rows, *added])
        self._rows |= added

    def _give_up(self, error: FileAccessError) -> None:
        self._is_writable = False
        message = f"{error}. Until then, features are not cached."
        warnings.warn(CacheWarning(message), stacklevel=3)

    def read(self, checksums: Sequence[str]) -> np.ndarray:
        """Returns features, float32 `(images, size)`, in the order of `checksums`."""
        features = np.empty((len(checksums), self.size), np.float32)
        on_disk = [index for index, name in enumerate(checksums) if name in self._rows]
        if on_disk:
            shape = (len(self._rows), self.size)
            rows = [self._rows[checksums[index]] for index in on_disk]
            features[on_disk] = np.memmap(self._path, "<f4", "r", shape=shape)[rows]
        for index, name in enumerate(checksums):
            if name not in self._rows:
                features[index] = self._in_memory[name]
        return features

    @property
    def _index(self) -> Path:
        return self._path.with_suffix(".json")

    def _read_index(self) -> dict[str, int]:
        """Returns the row of each checksum; none if the index is missing or damaged."""
        try:
            content = json.loads(self._index.read_text())
            checksums = content["checksums"]
            is_whole = self._path.stat().st_size >= 4 * self.size * len(checksums)
            rows = {checksum: row for row, checksum in enumerate(checksums)}
            is_sound = content["format"] == _FORMAT and len(rows) == len(checksums)
            return rows if is_sound and is_whole else {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    def _write_index(self, checksums: Sequence[str]) -> None:
        content = {"format": _FORMAT, "checksums": list(checksums)}
        write_text_atomically(self._index, json.dumps(content))
