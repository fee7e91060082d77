"""Batches of NumPy arrays, for backends that need no `tf.data` pipeline."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Self

import keras
import numpy as np

Batch = tuple[Any, ...]


class ArrayBatches(keras.utils.PyDataset):
    """Batches that ask for their order at the start of each pass.

    A pass starts with the batch 0 and reads the batches in their order. Threads read
    the next batches meanwhile.

    Iterating over it, or over `as_numpy_iterator()`, is one pass.

    Args:
        fetch: Maps a batch of positions, int64 `(batch,)`, to arrays. Called in
            threads.
        positions: Called at the start of a pass; returns its order, int64 `(count,)`.
        count: Number of positions.
        batch_size: Positions in a batch; the last batch may be smaller.
        parallel_calls: How many batches to read at once; `None` for one.
    """

    def __init__(
        self,
        fetch: Callable[[np.ndarray], Batch],
        positions: Callable[[], np.ndarray],
        count: int,
        batch_size: int,
        parallel_calls: int | None = None,
    ) -> None:
        super().__init__()
        self._fetch = fetch
        self._positions = positions
        self._count = count
        self._batch_size = batch_size
        self._reads_ahead = parallel_calls or 1
        self._order = np.empty(0, np.int64)
        self._pending: dict[int, Future[Batch]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        """Returns the number of batches in a pass."""
        return math.ceil(self._count / self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        """Returns a batch, and starts to read those that follow it."""
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} batches, no batch {index}")
        if index == 0 or not len(self._order):
            self._begin_pass()
        batch = self._read(index)
        self._pending.pop(index)
        for ahead in range(index + 1, min(index + 1 + self._reads_ahead, len(self))):
            self._read(ahead)
        return batch.result()

    def as_numpy_iterator(self) -> Iterator[Batch]:
        """Returns an iterator over a pass, as a `tf.data.Dataset` does."""
        return iter(self)

    def with_fetch(self, change: Callable[[Callable[..., Batch]], Any]) -> Self:
        """Returns the same batches, in the same order, read by another function.

        Args:
            change: Called with the function that fetches a batch; returns the one to
                call instead.
        """
        return type(self)(
            change(self._fetch),
            self._positions,
            self._count,
            self._batch_size,
            self._reads_ahead,
        )

    def take_batches(self, numbers: Sequence[int]) -> Self:
        """Returns some of the batches: a pass reads these alone.

        Args:
            numbers: Which batches of each pass, rising, from 0.
        """
        size = self._batch_size
        parts = [np.arange(n * size, min((n + 1) * size, self._count)) for n in numbers]
        chosen = np.concatenate([np.empty(0, np.int64), *parts])
        return type(self)(
            self._fetch,
            lambda: self._positions()[chosen],
            len(chosen),
            size,
            self._reads_ahead,
        )

    def _begin_pass(self) -> None:
        for future in self._pending.values():
            future.cancel()
        self._pending.clear()
        self._order = self._positions()

    def _read(self, index: int) -> Future[Batch]:
        if index not in self._pending:
            if self._threads is None:
                # Not earlier: a process that forks must not have threads.
                self._threads = ThreadPoolExecutor(self._reads_ahead, "read-images")
            start = index * self._batch_size
            batch = self._order[start : start + self._batch_size]
            self._pending[index] = self._threads.submit(self._fetch, batch)
        return self._pending[index]
