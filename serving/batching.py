"""Classifies the images of many requests together."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np
from keras_flowers_runtime.images import Pixels

_Prediction = tuple[np.ndarray, bool | None]


class Batcher:
    """Collects images while one batch is classified, and classifies them as the next.

    An image never waits for others to arrive: if the model is idle, a batch of one
    starts at once. The busier the server, the larger the batches.

    Args:
        predict: See `ServedModel`.
        executor: Where `predict` runs, one call at a time.
        batch_size: The most images in one batch.
        report: Called with the size of each batch and the seconds it took.
    """

    def __init__(
        self,
        predict: Callable[[Pixels], Any],
        executor: Executor,
        batch_size: int,
        report: Callable[[int, float], None],
    ) -> None:
        self._predict = predict
        self._executor = executor
        self._batch_size = batch_size
        self._report = report
        self._waiting: deque[tuple[Pixels, asyncio.Future[_Prediction]]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def classify(self, image: Pixels) -> _Prediction:
        """Classifies one image.

        Args:
            image: uint8 `(height, width, 3)`.

        Returns:
            The probabilities, `(classes,)`, and whether the image shows none of the
            classes; `None` if the model does not tell.
        """
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((image, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        prediction: _Prediction = await future
        return prediction

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                count = min(self._batch_size, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(count)]
                begin = loop.time()
                try:
                    predictions = await loop.run_in_executor(
                        self._executor, self._compute, [image for image, _ in batch]
                    )
                except Exception as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                self._report(count, loop.time() - begin)
                for (_, future), prediction in zip(batch, predictions, strict=True):
                    if not future.done():
                        future.set_result(prediction)
        finally:
            self._running = None

    def _compute(self, images: list[Pixels]) -> list[_Prediction]:
        found = self._predict(np.stack(images))
        rows, unknown = found if isinstance(found, tuple) else (found, None)
        flags = [None] * len(images) if unknown is None else map(bool, unknown)
        return list(zip(np.asarray(rows), flags, strict=True))
