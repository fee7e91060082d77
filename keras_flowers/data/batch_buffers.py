"""Reuses the memory of the batches of a pipeline."""

import ctypes
import weakref
from typing import Any

import numpy as np


class BatchBuffers:
    """Allocates batches and reuses their memory once nothing refers to them.

    Fresh memory costs as much time as filling it, because the kernel clears every page.
    TensorFlow and JAX take over an array without a copy only if it is aligned.

    Args:
        image_shape: `(height, width, channels)`.
    """

    _ALIGNMENT = 64
    _MOST_FREE = 4

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self._image_shape = image_shape
        self._free: dict[int, list[np.ndarray]] = {}

    def array(self, count: int) -> np.ndarray:
        """Returns an uninitialized uint8 array `(count, *image_shape)`."""
        free = self._free.setdefault(count, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = self._allocate(count)
        # Views and slices of the array keep this object alive. They would not if it
        # were an array: NumPy lets them refer to the memory behind it instead.
        owner: Any = (ctypes.c_uint8 * len(memory)).from_buffer(memory.data)
        weakref.finalize(owner, self._reclaim, free, memory)
        array: np.ndarray = np.frombuffer(owner, np.uint8)
        return array.reshape(count, *self._image_shape)

    def _reclaim(self, free: list[np.ndarray], memory: np.ndarray) -> None:
        if len(free) < self._MOST_FREE:
            free.append(memory)

    def _allocate(self, count: int) -> np.ndarray:
        size = count * int(np.prod(self._image_shape))
        memory = np.empty(size + self._ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % self._ALIGNMENT
        return memory[start : start + size]
