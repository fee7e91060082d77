"""Writes the metrics of single batches by optimizer step."""

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import keras
from keras_flowers.callbacks.event_writer import TRAIN, EventWriter

from keras_flowers.argument_checks import check_integer
from keras_flowers.errors import InputError


class BatchLog:
    """Writes the metrics of every n-th batch.

    Steps continue from the step of the optimizer, also in a resumed run. Summaries
    that the model writes itself get the same step.

    Args:
        events: Where to write.
        model: The model whose optimizer counts.
        every: Batches from one entry to the next.
        with_speed: Whether to write the batches per second.
    """

    def __init__(
        self, events: EventWriter, model: keras.Model, every: int, with_speed: bool
    ) -> None:
        self._events = events
        self._every = every
        self._with_speed = with_speed
        self._model = model
        self._before_epoch = events.steps_before + count_steps(model)
        self._in_epoch = 0
        self._started = 0.0
        self._context: contextlib.AbstractContextManager[None] | None = None

    def begin_epoch(self) -> None:
        """Continues the count."""
        # Not asked of the optimizer: it knows only the steps that it applied.
        self._before_epoch += self._in_epoch
        self._in_epoch = 0

    def begin_batch(self, batch: int) -> None:
        """Receives the summaries that the model writes itself."""
        step = self._before_epoch + batch + 1
        is_recorded = step % self._every == 0
        self._context = self._events.receive_summaries(TRAIN, step, is_recorded)
        self._context.__enter__()
        self._started = time.perf_counter()

    def end_batch(self, batch: int, logs: Mapping[str, Any] | None) -> None:
        """Writes the metrics."""
        self._in_epoch = batch + 1
        step = self._before_epoch + self._in_epoch
        if step % self._every == 0:
            values = {name: float(value) for name, value in (logs or {}).items()}
            if self._with_speed:
                values["steps_per_second"] = 1 / (time.perf_counter() - self._started)
            scalars = {f"batch_{name}": value for name, value in values.items()}
            self._events.write_scalars(TRAIN, step, scalars)
        self.stop_receiving()

    def stop_receiving(self) -> None:
        """Stops receiving the summaries of the model."""
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = None


def count_steps(model: keras.Model) -> int:
    """Returns the number of batches that the optimizer has seen, 0 without one."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        return 0
    applied = int(keras.ops.convert_to_numpy(optimizer.iterations))
    return applied * (getattr(optimizer, "gradient_accumulation_steps", None) or 1)


def check_update_freq(update_freq: Any) -> int | None:
    """Returns the batches from one entry to the next; `None` for epochs only.

    Raises:
        InputError: If it is not what Keras's callback takes.
    """
    if update_freq == "epoch":
        return None
    try:
        every = 1 if update_freq == "batch" else update_freq
        return check_integer("update_freq", every, lowest=1)
    except InputError as error:
        raise InputError(
            "`update_freq` must be 'epoch', 'batch' or a positive integer. "
            f"Received: update_freq={update_freq!r}"
        ) from error
