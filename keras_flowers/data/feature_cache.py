"""Caches feature vectors on disk by the checksums of their images.

`features-NAME.f32` holds one float32 row per image, and `features-NAME.json` says which
row belongs to which checksum. Rows are only appended, and the index is replaced once
they are safely on disk. A reader of the index therefore never sees an unfinished row.
"""

import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from keras_flowers.data.image_cache import LOCK_HINT
from keras_flowers.errors import InputError
from keras_flowers.files import write_text_atomically
from keras_flowers.locks import exclusive_lock

_FORMAT = 1


class FeatureCache:
    """The features of images from one backbone.

    Args:
        directory: The folder of the image cache.
        key: Identifies the backbone.
        size: Length of the feature vector of an image.
    """

    def __init__(self, directory: Path, key: str, size: int) -> None:
        self._directory = directory
        self._path = directory / f"features-{key[:20]}.f32"
        self._size = size
        self._rows: dict[str, int] = {}

    def lock(self) -> AbstractContextManager[None]:
        """Keeps other processes from computing the same features at the same time.

        Raises:
            InputError: If the folder cannot be written.
        """
        return exclusive_lock(self._path.with_suffix(".lock"), hint=LOCK_HINT)

    def missing(self, checksums: Sequence[str]) -> set[str]:
        """Reads the index; returns the checksums whose features are not cached."""
        self._rows = self._read_index()
        return set(checksums) - self._rows.keys()

    def add(self, checksums: Sequence[str], features: np.ndarray) -> None:
        """Appends features. Hold `lock()` while calling it.

        Args:
            checksums: The SHA-256 of each image.
            features: Float array `(images, size)`.

        Raises:
            InputError: If the disk is full.
        """
        row_bytes = 4 * self._size
        start = len(self._rows) * row_bytes
        try:
            with self._path.open("ab") as file:
                # A writer that was killed may have left unfinished rows.
                file.truncate(start)
                file.write(np.ascontiguousarray(features, "<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"The features cannot be cached in {self._directory}: {error.strerror}."
            ) from error
        for checksum in checksums:
            self._rows[checksum] = len(self._rows)
        self._write_index()

    def read(self, checksums: Sequence[str]) -> np.ndarray:
        """Returns features, float32 `(images, size)`, in the order of `checksums`."""
        rows = np.array([self._rows[checksum] for checksum in checksums], np.int64)
        if not len(rows):
            return np.empty((0, self._size), np.float32)
        shape = (len(self._rows), self._size)
        return np.asarray(np.memmap(self._path, "<f4", "r", shape=shape)[rows])

    @property
    def _index(self) -> Path:
        return self._path.with_suffix(".json")

    def _read_index(self) -> dict[str, int]:
        """Returns the row of each checksum; none if the index is missing or damaged."""
        try:
            content = json.loads(self._index.read_text())
            checksums = content["checksums"]
            is_whole = self._path.stat().st_size >= 4 * self._size * len(checksums)
            rows = {checksum: row for row, checksum in enumerate(checksums)}
            is_sound = content["format"] == _FORMAT and len(rows) == len(checksums)
            return rows if is_sound and is_whole else {}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return {}

    def _write_index(self) -> None:
        content = {"format": _FORMAT, "checksums": list(self._rows)}
        write_text_atomically(self._index, json.dumps(content))
