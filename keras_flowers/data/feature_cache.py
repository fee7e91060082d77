"""Feature vectors on disk, each under the checksum of its image.

`features-NAME.f32` holds one row of float32 per image, `features-NAME.json` says which
row is whose. Rows are only appended, and the index is replaced when they are safely on
disk: whoever reads the index reads finished rows, whatever happens to a writer.
"""

import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from keras_flowers.data.image_cache import locked
from keras_flowers.errors import InputError
from keras_flowers.files import write_text_atomically

_FORMAT = 1


class FeatureCache:
    """The features that one backbone gives of images.

    Args:
        directory: The folder of the image cache of the images.
        key: What tells the backbone from others.
        size: Numbers in the feature vector of an image.
    """

    def __init__(self, directory: Path, key: str, size: int) -> None:
        self._directory = directory
        self._path = directory / f"features-{key[:20]}.f32"
        self._size = size
        self._rows: dict[str, int] = {}

    def held(self) -> AbstractContextManager[Any]:
        """Keeps other processes from computing the same features meanwhile.

        Raises:
            InputError: If the folder cannot be written.
        """
        return locked(self._path.with_suffix(".lock"))

    def missing(self, checksums: Sequence[str]) -> set[str]:
        """Returns those of which no features are stored, as the index is now."""
        self._rows = self._read_index()
        return set(checksums) - self._rows.keys()

    def add(self, checksums: Sequence[str], features: np.ndarray) -> None:
        """Writes features behind the others; for a store that is `held`.

        Args:
            checksums: One per image.
            features: Float array `(images, size)`.

        Raises:
            InputError: If the disk is full.
        """
        row_bytes = 4 * self._size
        start = len(self._rows) * row_bytes
        try:
            with self._path.open("ab") as file:
                # Left behind by a writer that was killed, perhaps.
                file.truncate(start)
                file.write(np.ascontiguousarray(features, "<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(
                f"The features cannot be stored in {self._directory}: {error.strerror}."
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
        """Returns the row of each image; of what cannot be trusted, none."""
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
