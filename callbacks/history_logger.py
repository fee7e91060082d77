"""Writes the history of a run to disk after each epoch."""

import contextlib
import itertools
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_flowers.errors import InputError
from keras_flowers.history import History, read_history, write_history


class HistoryLogger(keras.callbacks.Callback):
    """Writes `history.json` and `history.csv` after each epoch.

    Each epoch has one entry: its number (from 1, as in Keras's progress bar), the
    learning rate, the seconds it took, the images trained on per second, and every
    metric that Keras reports. Both files are replaced atomically. It works with any
    Keras model.

    The directory shows the latest run. A run that starts at the first epoch takes the
    place of the one before, whose files move to a folder `1`, `2` and so on in the
    directory, in the order of the runs. A run that starts at a later epoch
    (`fit(initial_epoch=...)`) continues the history in the directory and drops the
    epochs that it is about to repeat. No run overwrites another, even if you use one
    object or copies of it for several runs, as a tuner does, or train in several
    processes at once.

    JSON has no numbers for NaN and infinities: they are written as the strings `"NaN"`,
    `"Infinity"` and `"-Infinity"`, and as `nan`, `inf` and `-inf` in CSV.
    `read_history` returns them as floats.

    A metric with several values, such as one per class, becomes one entry per value:
    `f1_score_0`, `f1_score_1` and so on.

    Args:
        directory: Folder of the two files, created if missing; `None` keeps the history
            in memory only, in the attribute `history`.
        images_per_epoch: Number of images in an epoch, for the
            column `photos_per_second`; `None` leaves the column out.

    Attributes:
        history: The list of values, one per epoch, of each column.
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
        self._folder: Path | None = None
        # Its `history.json` as last written: it keeps its identity when it is moved.
        self._file: os.stat_result | None = None
        self._is_new_run = True
        self._started = 0.0
        self._training_end: float | None = None

    @property
    def folder(self) -> Path | None:
        """Folder of the two files of the current run, wherever they are by now.

        `None` before its first epoch and without a directory.
        """
        if self._folder is not None and self.directory is not None:
            for folder in (self._folder, *_list_earlier_folders(self.directory)):
                file = _stat_history(folder)
                if file and self._file and os.path.samestat(file, self._file):
                    self._folder = folder
                    break
        return self._folder

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Prepares for a run."""
        del logs
        self._is_new_run = True

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Starts the clock."""
        del logs
        if self._is_new_run:
            self._begin(epoch)
            self._is_new_run = False
        self._started = time.perf_counter()
        self._training_end = None

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Records when the training part of the epoch ended."""
        del logs
        self._training_end = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Adds the epoch and replaces both files."""
        now = time.perf_counter()
        entry = {"epoch": float(epoch + 1), **self._learning_rate()}
        entry["seconds"] = now - self._started
        if self.images_per_epoch is not None:
            training_seconds = (self._training_end or now) - self._started
            entry["photos_per_second"] = self.images_per_epoch / training_seconds
        for name, value in (logs or {}).items():
            entry |= _split_metric(name, value)
        self._append(entry)
        self._write()

    def get_state(self) -> dict[str, Any]:
        """Returns what a `TrainingCheckpoint` saves: the history so far."""
        folder = self.folder
        if self.directory is not None and folder is not None:
            place = folder.relative_to(self.directory).as_posix()
            return {"folder": place, "history": self.history}
        return {"folder": None, "history": self.history}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `get_state` returned, whatever is on disk."""
        self.history = {name: list(values) for name, values in state["history"].items()}
        if self.directory is not None and state["folder"] is None:
            self._claim(self.directory)
        elif self.directory is not None:
            # If another run has started there since, the files have been moved.
            earlier = _list_earlier_folders(self.directory)
            moved = (one for one in earlier if _holds_start(one, self.history))
            self._open(next(moved, self.directory / state["folder"]))
        self._is_new_run = False

    def _begin(self, epoch: int) -> None:
        """Claims the directory, or continues the history in it."""
        if self.directory is None:
            self.history = _keep_before(self.history, epoch)
        elif epoch == 0:
            self.history = {}
            self._claim(self.directory)
        else:
            self._open(self.folder or self.directory)
            history = {} if self._file is None else read_history(self._folder or "")
            self.history = _keep_before(history, epoch)

    def _claim(self, directory: Path) -> None:
        self._folder, self._file = directory, _claim_directory(directory)

    def _open(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._file = folder, _stat_history(folder)

    def _write(self) -> None:
        folder = self.folder
        if folder is not None:
            write_history(self.history, folder)
            self._file = _stat_history(folder)

    def _append(self, entry: Mapping[str, float]) -> None:
        done = len(self.history.get("epoch", []))
        for name, value in entry.items():
            # A metric that appears late has no earlier values.
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


def _keep_before(history: History, epoch: int) -> History:
    """Returns the history of the epochs before `epoch`, which counts from 0."""
    numbers = history.get("epoch", [])
    kept = [i for i, number in enumerate(numbers) if number <= epoch]
    return {name: [values[i] for i in kept] for name, values in history.items()}


def _claim_directory(directory: Path) -> os.stat_result:
    """Moves the history of an earlier run aside, and starts a new one.

    Exclusively, so that each of several processes gets its own file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            with (directory / "history.json").open("x") as file:
                file.write("{}")
                return os.fstat(file.fileno())
        except FileExistsError:
            _move_aside(directory)


def _move_aside(directory: Path) -> None:
    for number in itertools.count(1):
        folder = directory / str(number)
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            break
    try:
        # The file that others look for comes last. It is gone if another process
        # was faster.
        for name in ("history.csv", "history.json"):
            if (directory / name).exists():
                (directory / name).rename(folder / name)
    except FileNotFoundError:
        pass
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()  # if it is empty


def _list_earlier_folders(directory: Path) -> Iterator[Path]:
    for number in itertools.count(1):
        folder = directory / str(number)
        if not folder.is_dir():
            return
        yield folder


def _stat_history(folder: Path) -> os.stat_result | None:
    with contextlib.suppress(OSError):
        return (folder / "history.json").stat()
    return None


def _holds_start(folder: Path, history: History) -> bool:
    """Tells whether a folder has the history of the same run."""
    try:
        found = read_history(folder)
    except InputError:
        return False
    # No two runs take the same seconds.
    seconds = history.get("seconds", [])
    return bool(seconds) and found.get("seconds", [])[: len(seconds)] == seconds


def _split_metric(name: str, value: Any) -> dict[str, float]:
    """Returns a value by its name, or several values each by its own name."""
    values = np.asarray(value, dtype=float)
    if values.size == 1:
        return {name: values.item()}
    return {f"{name}_{i}": number for i, number in enumerate(values.ravel().tolist())}
