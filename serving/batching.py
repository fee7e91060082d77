"""Classifies the images of many requests together."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
from keras_flowers_runtime.images import Pixels


class Batcher:
    """Collects images while one batch is classified, and classifies them as the next.

    An image never waits for others to arrive: if the model is idle, a batch of one
    starts at once. The busier the server, the larger the batches.

    Args:
        predict: Maps uint8 `(batch, height, width, 3)` to probabilities.
        executor: Where `predict` runs, one call at a time.
        batch_size: The most images in one batch.
        report: Called with the size of each batch and the seconds it took.
    """

    def __init__(
        self,
        predict: Callable[[Pixels], np.ndarray],
        executor: Executor,
        batch_size: int,
        report: Callable[[int, float], None],
    ) -> None:
        self._predict = predict
        self._executor = executor
        self._batch_size = batch_size
        self._report = report
        self._waiting: deque[tuple[Pixels, asyncio.Future[np.ndarray]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def classify(self, image: Pixels) -> np.ndarray:
        """Returns the probabilities of one image, `(classes,)`.

        Args:
            image: uint8 `(height, width, 3)`.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((image, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        row: np.ndarray = await future
        return row

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                count = min(self._batch_size, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(count)]
                begin = loop.time()
                try:
                    rows = await loop.run_in_executor(
                        self._executor,
                        lambda images: np.asarray(self._predict(np.stack(images))),
                        [image for image, _ in batch],
                    )
                except Exception as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                self._report(count, loop.time() - begin)
                for (_, future), row in zip(batch, rows, strict=True):
                    if not future.done():
                        future.set_result(row)
        finally:
            self._running = None
