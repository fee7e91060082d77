"""Writes the history of a run to disk after every epoch."""

import itertools
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_flowers.history import History, read_history, write_history


class HistoryLogger(keras.callbacks.Callback):
    """Keeps `history.json` and `history.csv` complete on disk, epoch by epoch.

    One entry per epoch: its number (from 1, as in Keras's progress bar), the
    learning rate, the seconds it took, the images trained on per second, and every
    metric that Keras reports. Both files are replaced atomically, so a reader never
    sees half of one. Serves any Keras model.

    A run that starts at a later epoch (`fit(initial_epoch=...)`) continues the
    history that stands in the directory and drops what it is about to repeat. One that
    starts at the first epoch writes to the directory if that holds no history yet, and
    else to a folder `2`, `3` and so on in it: no run writes over another, also where
    one object or copies of it serve several, as the trials of a tuner.

    NaN and infinities are written as the strings `"NaN"`, `"Infinity"` and
    `"-Infinity"` in JSON, which has no numbers for them, and as `nan`, `inf` and
    `-inf` in CSV; `read_history` gives them back as floats.

    A metric with several values, one per class say, becomes one entry per value:
    `f1_score_0`, `f1_score_1` and so on.

    Args:
        directory: Folder of the two files, created when missing; `None` keeps the
            history in memory only, in the attribute `history`.
        photos_per_epoch: Number of images in an epoch, for `photos_per_second`,
            which is left out without it.

    Attributes:
        history: The list of values, one per epoch, of each column.
        folder: Where the two files of the present run stand; `None` before its first
            epoch and without a directory.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        images_per_epoch: int | None = None,
    ) -> None:
        super().__init__()
        self.directory = None if directory is None else Path(directory)
        self.images_per_epoch = images_per_epoch
        self.history: History = {}
        self.folder: Path | None = None
        self._is_new_run = True
        self._started = 0.0
        self._trained: float | None = None

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Makes ready for a run."""
        del logs
        self._is_new_run = True

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Starts the clock."""
        del logs
        if self._is_new_run:
            self._begin(epoch)
            self._is_new_run = False
        self._started = time.perf_counter()
        self._trained = None

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Notes when the training part of the epoch ended."""
        del logs
        self._trained = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Adds the epoch and replaces both files."""
        now = time.perf_counter()
        entry = {"epoch": float(epoch + 1), **self._learning_rate()}
        entry["seconds"] = now - self._started
        if self.images_per_epoch is not None:
            training_seconds = (self._trained or now) - self._started
            entry["photos_per_second"] = self.images_per_epoch / training_seconds
        for name, value in (logs or {}).items():
            entry |= _numbers(name, value)
        self._append(entry)
        if self.folder is not None:
            write_history(self.history, self.folder)

    def get_state(self) -> dict[str, Any]:
        """Returns what a `TrainingCheckpoint` keeps: the history so far."""
        folder = None
        if self.directory is not None and self.folder is not None:
            folder = self.folder.relative_to(self.directory).as_posix()
        return {"folder": folder, "history": self.history}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `get_state` returned, whatever stands on disk."""
        self.history = {name: list(values) for name, values in state["history"].items()}
        if self.directory is not None and state["folder"] is None:
            self.folder = _claimed_folder(self.directory)
        elif self.directory is not None:
            self.folder = self.directory / state["folder"]
            self.folder.mkdir(parents=True, exist_ok=True)
        self._is_new_run = False

    def _begin(self, epoch: int) -> None:
        """Takes a folder of its own, or goes on with what stands in the last one."""
        if self.directory is None:
            self.history = _until(self.history, epoch)
        elif epoch == 0:
            self.history = {}
            self.folder = _claimed_folder(self.directory)
        else:
            self.folder = self.folder or self.directory
            self.folder.mkdir(parents=True, exist_ok=True)
            is_there = (self.folder / "history.json").exists()
            history = read_history(self.folder) if is_there else {}
            self.history = _until(history, epoch)

    def _append(self, entry: Mapping[str, float]) -> None:
        done = len(self.history.get("epoch", []))
        for name, value in entry.items():
            # A metric that appears late was not measured before.
            column = self.history.setdefault(name, [math.nan] * done)
            column.append(value)
        for column in self.history.values():
            column.extend([math.nan] * (done + 1 - len(column)))

    def _learning_rate(self) -> dict[str, float]:
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is None:
            return {}
        rate = keras.ops.convert_to_numpy(optimizer.learning_rate)
        return {"learning_rate": float(rate)}


def _until(history: History, epoch: int) -> History:
    """Returns the history of the epochs before `epoch`, which counts from 0."""
    numbers = history.get("epoch", [])
    kept = [i for i, number in enumerate(numbers) if number <= epoch]
    return {name: [values[i] for i in kept] for name, values in history.items()}


def _claimed_folder(directory: Path) -> Path:
    """Returns the first folder without a history, and begins one there.

    Exclusively, so that of several processes each gets a folder of its own.
    """
    for number in itertools.count(1):
        folder = directory if number == 1 else directory / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with (folder / "history.json").open("x") as file:
                file.write("{}")
        except FileExistsError:
            continue
        return folder
    raise AssertionError  # the numbers do not end


def _numbers(name: str, value: Any) -> dict[str, float]:
    """Returns the value by its name, or each value of several by a name of its own."""
    values = np.asarray(value, dtype=float)
    if values.size == 1:
        return {name: values.item()}
    return {f"{name}_{i}": number for i, number in enumerate(values.ravel().tolist())}
