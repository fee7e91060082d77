"""The folder of a run: taken once, held while it trains, filled, taken up again."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import keras

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.data.splits import write_manifest
from keras_flowers.errors import InputError, first_line
from keras_flowers.evaluation.evaluate import Evaluation
from keras_flowers.evaluation.report import write_report
from keras_flowers.files import (
    printable_path,
    remove_leftovers,
    temporary_sibling,
    write_text_atomically,
)
from keras_flowers.history import History, write_history
from keras_flowers.plots.history import plot_history
from keras_flowers.training.config_difference import difference

_INPUTS = ("config.json", "audit.json", "split.json")
_HISTORY = ("history.json", "history.csv")
_LOCK = ".lock"
_DISCARDED = ".checkpoint"


class RunDirectory:
    """A folder for the results of one run.

    Creating the object only checks the place, which is quick and comes before the
    data is loaded. `held` keeps other processes out, and `claim` takes it for a new
    run meanwhile. The folder `checkpoint` in it stands there from the first
    step of the training until `complete`.

    Args:
        path: The folder.
        resume: Whether it may hold a run, which is then taken up again.

    Attributes:
        path: The folder.

    Raises:
        InputError: If the place is a file, cannot be written, or holds anything but a
            run that is to be taken up again.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False) -> None:
        self.path = Path(path).expanduser()
        name = printable_path(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"The run directory {name} is a file.")
        # The lock alone is of a process that died before it took the folder.
        is_empty = not self.path.is_dir() or all(
            place.name == _LOCK for place in self.path.iterdir()
        )
        if not is_empty and not (resume and (self.path / "config.json").is_file()):
            raise self._holds_no_run() if resume else self._is_taken()
        places = (self.path, *self.path.absolute().parents)
        self._existing = next(place for place in places if place.exists())
        is_writable = os.access(self._existing, os.W_OK | os.X_OK)
        if not self._existing.is_dir() or not is_writable:
            raise InputError(f"The run directory {name} cannot be written.")
        self._was_there = self.path.is_dir()
        self._is_claimed = False

    @property
    def manifest(self) -> Path:
        """The file that says which images train, validate and test."""
        return self.path / "split.json"

    @property
    def checkpoint(self) -> Path:
        """The folder of what a run needs that is not complete."""
        return self.path / "checkpoint"

    @property
    def fine_tuning_checkpoint(self) -> Path:
        """The same for the second stage of a run."""
        return self.checkpoint / "fine-tuning"

    @property
    def tensorboard(self) -> Path:
        """The folder that TensorBoard shows."""
        return self.path / "tensorboard"

    @property
    def is_started(self) -> bool:
        """Whether it holds a run, not only what a process left that died in `claim`."""
        config = self.path / "config.json"
        return config.is_file() and config.stat().st_size > 0

    @property
    def is_complete(self) -> bool:
        """Whether it holds a run that went to its end."""
        return (self.path / "model.keras").is_file() and not self.checkpoint.exists()

    def require_same_run(self, config: dict[str, Any]) -> None:
        """Makes sure that the run was started as it is now to go on.

        Args:
            config: What repeats the run; JSON types only.

        Raises:
            InputError: If it was started with another configuration.
        """
        path = self.path / "config.json"
        try:
            saved = json.loads(path.read_text())
            found = difference(dict(saved), config)
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise InputError(
                f"{printable_path(path)} is no configuration of a run: {error}"
            ) from error
        if found is not None:
            raise InputError(
                f"The run in {printable_path(self.path)} was started otherwise: "
                f"{found}."
            )

    def require_space(self, model: keras.Model, *, with_checkpoints: bool) -> None:
        """Makes sure that the trained model and its checkpoints will fit on the disk.

        Better known before hours of training than after.

        Args:
            model: A compiled model. Its weights and the state of its optimizer are
                what each of the files will hold.
            with_checkpoints: Whether a checkpoint stands beside the next one, and
                beside the model at the end.

        Raises:
            InputError: If the disk has less free space than that.
        """
        model.optimizer.build(model.trainable_variables)
        variables = [*model.variables, *model.optimizer.variables]
        size = sum(4 * math.prod(variable.shape) for variable in variables)
        is_one_there = any(self.checkpoint.glob("*"))
        needed = size * (2 if with_checkpoints and not is_one_there else 1)
        free = shutil.disk_usage(self._existing).free
        if needed > free:
            what = "model and checkpoints take" if with_checkpoints else "model takes"
            raise InputError(
                f"The disk of the run directory {printable_path(self.path)} is full: "
                f"the {what} {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free."
            )

    def claim(self, config: dict[str, Any], datasets: ImageDatasets) -> None:
        """Takes the folder and writes what is known before training.

        A run that dies can then be explained. For a directory that is `held`.

        Args:
            config: What repeats the run; JSON types only.
            datasets: Their audit and split are written.

        Raises:
            InputError: If another run took the folder in the meantime, or it cannot
                be written.
        """
        text = json.dumps(config, indent=1)
        audit = json.dumps(datasets.audit.to_json(), indent=1)
        try:
            if self.is_started:
                raise self._is_taken()
            # First: what stands here from now on is known to be of a run.
            (self.path / "config.json").touch()
            self._is_claimed = True
            write_text_atomically(self.path / "audit.json", audit)
            write_manifest(datasets.split, self.manifest)
            # Last: a run is started when its configuration can be read.
            write_text_atomically(self.path / "config.json", text)
        except BaseException:
            self.give_back()
            raise

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training in the folder at the same time.

        Raises:
            InputError: If another one is.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / _LOCK)
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise InputError(
                f"Another process is training in {printable_path(self.path)}."
            ) from None
        except OSError as error:
            raise InputError(
                f"The run directory {printable_path(self.path)} cannot be written: "
                f"{error.strerror}"
            ) from error
        try:
            remove_leftovers(self.path)
            shutil.rmtree(self.path / _DISCARDED, ignore_errors=True)
            yield
        finally:
            (self.path / _LOCK).unlink(missing_ok=True)
            lock.release()
            self._remove_if_new_and_empty()

    def remove_progress(self) -> None:
        """Removes what was recorded of epochs that left no checkpoint."""
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        for name in _HISTORY:
            (self.path / name).unlink(missing_ok=True)

    def write_results(self, model: keras.Model, history: History) -> None:
        """Writes the model, the history and its plot."""
        with temporary_sibling(self.path / "model.keras") as path:
            model.save(path)
        write_history(history, self.path)
        if history:
            with temporary_sibling(self.path / "history.png") as path:
                plot_history(history).savefig(path, dpi=120)

    def read_model_into(self, model: keras.Model) -> None:
        """Puts the trained weights and the optimizer's state into a model.

        Args:
            model: A built and compiled model like the one that was trained. Unlike
                one that Keras makes from the file, it may be of any classes.

        Raises:
            InputError: If the file is damaged or of another model.
        """
        path = self.path / "model.keras"
        model.optimizer.build(model.trainable_variables)
        try:
            model.load_weights(path)
        except Exception as error:
            # Keras raises nearly anything for a file that is not what it should be.
            raise InputError(
                f"{printable_path(path)} cannot be loaded: {first_line(error)}"
            ) from error

    def write_report(
        self, datasets: ImageDatasets, history: History, evaluation: Evaluation | str
    ) -> None:
        """Writes the run as one page, `report.html`.

        Args:
            datasets: Its data.
            history: Its history; may be empty.
            evaluation: Its evaluation, or a sentence that says why there is none.
        """
        write_report(
            self.path / "report.html",
            config=json.loads((self.path / "config.json").read_text()),
            datasets=datasets,
            history=history,
            evaluation=evaluation,
        )

    def complete(self) -> None:
        """Removes what only a run that is not complete needs."""
        if self.checkpoint.exists():
            # At once: without its file alone, the run would be trained anew.
            discarded = self.checkpoint.replace(self.path / _DISCARDED)
            shutil.rmtree(discarded, ignore_errors=True)

    def give_back(self) -> None:
        """Removes what `claim` wrote, so that the place can be used again."""
        if not self._is_claimed:
            return
        for folder in (self.checkpoint, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for name in (*_INPUTS, *_HISTORY):
            (self.path / name).unlink(missing_ok=True)
        self._remove_if_new_and_empty()

    def _remove_if_new_and_empty(self) -> None:
        is_there = self._is_claimed and not self._was_there and self.path.is_dir()
        if is_there and not any(self.path.iterdir()):
            self.path.rmdir()

    def _is_taken(self) -> InputError:
        return InputError(
            f"The run directory {printable_path(self.path)} is not empty. Name a new "
            "one: an earlier run is never overwritten."
        )

    def _holds_no_run(self) -> InputError:
        return InputError(
            f"The directory {printable_path(self.path)} holds something else than a "
            "run: there is no config.json in it."
        )
