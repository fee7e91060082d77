"""Metrics of single batches, by the steps of the optimizer."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import keras
from keras_flowers.callbacks.event_files import TRAIN, EventFiles

from keras_flowers.errors import InputError


class BatchLog:
    """Writes the metrics of every n-th batch.

    The steps count on from where the optimizer stands, so they go on after a resumed
    start. Summaries that a model writes itself get the same step.

    Args:
        files: Where to write.
        model: Whose optimizer counts.
        every: Batches from one entry to the next.
        with_speed: Whether to write the batches per second.
    """

    def __init__(
        self, files: EventFiles, model: keras.Model, every: int, with_speed: bool
    ) -> None:
        self._files = files
        self._every = every
        self._with_speed = with_speed
        self._model = model
        self._before_epoch = files.steps_before + steps_done(model)
        self._in_epoch = 0
        self._started = 0.0
        self._context: contextlib.ExitStack | None = None

    def begin_epoch(self) -> None:
        """Counts on."""
        # Not asked of the optimizer: it knows only the steps that it applied.
        self._before_epoch += self._in_epoch
        self._in_epoch = 0

    def begin_batch(self, batch: int) -> None:
        """Makes the writer that of the summaries of the model."""
        step = self._before_epoch + batch + 1
        self._context = contextlib.ExitStack()
        self._context.enter_context(self._files.writer(TRAIN).as_default(step))
        self._context.enter_context(self._files.record_if(step % self._every == 0))
        self._started = time.perf_counter()

    def end_batch(self, batch: int, logs: Mapping[str, Any] | None) -> None:
        """Writes the metrics."""
        self._in_epoch = batch + 1
        step = self._before_epoch + self._in_epoch
        if step % self._every == 0:
            values = {name: float(value) for name, value in (logs or {}).items()}
            if self._with_speed:
                values["steps_per_second"] = 1 / (time.perf_counter() - self._started)
            for name, value in values.items():
                self._files.scalar(f"batch_{name}", value, step=step)
        self.leave()

    def leave(self) -> None:
        """Gives back the place of the default writer."""
        if self._context is not None:
            self._context.close()
            self._context = None


def steps_done(model: keras.Model) -> int:
    """Returns how many batches the optimizer of a model has seen; 0 without one."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 0
    applied = int(keras.ops.convert_to_numpy(optimizer.iterations))
    return applied * (getattr(optimizer, "gradient_accumulation_steps", None) or 1)


def checked_batch_frequency(update_freq: Any) -> int | None:
    """Returns batches from one entry to the next; `None` for epochs alone.

    Raises:
        InputError: If it is none of what Keras's callback takes.
    """
    if update_freq == "epoch":
        return None
    every = 1 if update_freq == "batch" else update_freq
    if not hasattr(every, "__index__") or isinstance(every, bool) or every < 1:
        raise InputError(
            "`update_freq` must be 'epoch', 'batch' or a positive integer. "
            f"Received: update_freq={update_freq!r}"
        )
    return int(every)
