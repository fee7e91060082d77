"""The folder of a run: taken once, filled file by file, given back if nothing came."""

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import keras

from keras_flowers.callbacks import plot_history
from keras_flowers.callbacks.history_logger import History, write_history
from keras_flowers.dataset_loader import ImageDatasets
from keras_flowers.errors import InputError
from keras_flowers.evaluation import Evaluation
from keras_flowers.files import (
    printable_path,
    temporary_sibling,
    write_text_atomically,
)
from keras_flowers.report import write_report
from keras_flowers.splits import write_manifest

_INPUTS = ("config.json", "audit.json", "split.json")


class RunDirectory:
    """A new folder for the results of one run.

    Creating the object only checks the place, which is quick and comes before the
    data is loaded; `claim` takes it.

    Attributes:
        path: The folder.

    Raises:
        InputError: If the place is a file, holds anything, or cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        name = printable_path(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"The run directory {name} is a file.")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise self._is_taken()
        places = (self.path, *self.path.absolute().parents)
        self._existing = next(place for place in places if place.exists())
        is_writable = os.access(self._existing, os.W_OK | os.X_OK)
        if not self._existing.is_dir() or not is_writable:
            raise InputError(f"The run directory {name} cannot be written.")
        self._was_there = self.path.is_dir()

    def require_space(self, model: keras.Model) -> None:
        """Makes sure that the trained model will fit on the disk.

        Better known before hours of training than after.

        Args:
            model: A compiled model. Its weights and the state of its optimizer are
                what the file will hold.

        Raises:
            InputError: If the disk has less free space than that.
        """
        if not model.built:
            return  # It gets its weights with the first batch.
        model.optimizer.build(model.trainable_variables)
        variables = [*model.variables, *model.optimizer.variables]
        needed = sum(4 * math.prod(variable.shape) for variable in variables)
        free = shutil.disk_usage(self._existing).free
        if needed > free:
            raise InputError(
                f"The disk of the run directory {printable_path(self.path)} is full: "
                f"the model takes {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free."
            )

    def claim(self, config: dict[str, Any], datasets: ImageDatasets) -> None:
        """Takes the folder and writes what is known before training.

        A run that dies can then be explained.

        Args:
            config: What repeats the run; JSON types only.
            datasets: Their audit and split are written.

        Raises:
            InputError: If another run took the folder in the meantime, or it cannot
                be written.
        """
        text = json.dumps(config, indent=1)
        audit = json.dumps(datasets.catalog.to_json(), indent=1)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            # Exclusive: of two runs that got here at once, one must stop.
            (self.path / "config.json").touch(exist_ok=False)
        except FileExistsError:
            raise self._is_taken() from None
        except OSError as error:
            raise InputError(
                f"The run directory {printable_path(self.path)} cannot be written: "
                f"{error.strerror}"
            ) from error
        try:
            write_text_atomically(self.path / "config.json", text)
            write_text_atomically(self.path / "audit.json", audit)
            write_manifest(datasets.split, self.path / "split.json")
        except BaseException:
            self.give_back()
            raise

    def write_results(self, model: keras.Model, history: History) -> None:
        """Writes the model, the history and its plot."""
        with temporary_sibling(self.path / "model.keras") as path:
            model.save(path)
        write_history(history, self.path)
        if history:
            with temporary_sibling(self.path / "history.png") as path:
                plot_history(history).savefig(path, dpi=120)

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

    def give_back(self) -> None:
        """Removes what `claim` wrote, so that the place can be used again."""
        for name in _INPUTS:
            (self.path / name).unlink(missing_ok=True)
        if not self._was_there and not any(self.path.iterdir()):
            self.path.rmdir()

    def _is_taken(self) -> InputError:
        return InputError(
            f"The run directory {printable_path(self.path)} is not empty. Name a new "
            "one: an earlier run is never overwritten."
        )
