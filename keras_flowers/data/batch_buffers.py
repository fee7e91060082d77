"""Memory for the batches of a pipeline."""

import weakref

import numpy as np


class BatchBuffers:
    """Memory for batches, used again once nobody holds the array made of it.

    Fresh memory costs as much as reading into it: the kernel clears every page. And
    TensorFlow takes an array over without a copy only if it is aligned.

    For arrays that are handed over whole: a slice of one does not keep it.

    Args:
        photo_shape: `(height, width, channels)`.
    """

    _ALIGNMENT = 64
    _KEPT = 4

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        self._image_shape = image_shape
        self._free: dict[int, list[np.ndarray]] = {}

    def array(self, count: int) -> np.ndarray:
        """Returns a uint8 array `(count, *photo_shape)` with any content."""
        free = self._free.setdefault(count, [])
        try:
            memory = free.pop()
        except IndexError:
            memory = self._allocated(count)
        # A view of its own: `memory` itself is what outlives it.
        array = np.frombuffer(memory, np.uint8).reshape(count, *self._image_shape)
        weakref.finalize(array, self._give_back, free, memory)
        return array

    def _give_back(self, free: list[np.ndarray], memory: np.ndarray) -> None:
        if len(free) < self._KEPT:
            free.append(memory)

    def _allocated(self, count: int) -> np.ndarray:
        size = count * int(np.prod(self._image_shape))
        memory = np.empty(size + self._ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % self._ALIGNMENT
        return memory[start : start + size]
