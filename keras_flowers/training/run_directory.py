"""The folder of one run: its paths, its lock, and who may write to it."""

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.data.split_manifest import write_manifest
from keras_flowers.errors import InputError, first_line
from keras_flowers.files import (
    find_existing_folder,
    printable_path,
    remove_leftovers,
    require_writable_folder,
    write_text_atomically,
)
from keras_flowers.locks import LockHeldError, exclusive_lock
from keras_flowers.training.config import (
    READABLE_FORMATS,
    TrainingConfig,
    recorded_keep,
)
from keras_flowers.training.config_difference import difference
from keras_flowers.training.continuation import is_extension

_INPUTS = ("config.json", "audit.json", "split.json")
_HISTORY = ("history.json", "history.csv")
_LOCK = ".lock"
_DISCARDED = ".checkpoint"
_KEPT = "last-checkpoint"
_HINT = "Name another folder with `run_directory` (--run-dir)"


class RunDirectory:
    """A folder for the results of one run.

    Creating the object only checks the place, which is quick and comes before the
    data is loaded. `lock` keeps other processes out; while it is locked, `claim` takes
    the folder for a new run. The folder `checkpoint` is in it from the first step of
    the training until `complete`.

    Args:
        path: The folder.
        resume: Whether it may hold a run that is to be resumed.

    Attributes:
        path: The folder.
        existing_folder: The folder, or the nearest one above that exists.

    Raises:
        InputError: If the place is a file, cannot be written, or holds anything but a
            run that is to be resumed.
    """

    def __init__(self, path: str | os.PathLike[str], *, resume: bool = False) -> None:
        self.path = Path(path).expanduser()
        name = printable_path(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"The run directory {name} is a file.")
        # A process that died before it claimed the folder leaves the lock alone.
        is_empty = not self.path.is_dir() or all(
            place.name == _LOCK for place in self.path.iterdir()
        )
        if not is_empty and not (resume and (self.path / "config.json").is_file()):
            raise self._no_run_error() if resume else self._not_empty_error()
        require_writable_folder(self.path, _HINT)
        self.existing_folder = find_existing_folder(self.path)
        self._existed = self.path.is_dir()
        self._is_claimed = False

    @property
    def manifest(self) -> Path:
        """The file that says which images train, validate and test."""
        return self.path / "split.json"

    @property
    def checkpoint(self) -> Path:
        """The folder of what only an incomplete run needs."""
        return self.path / "checkpoint"

    @property
    def fine_tuning_checkpoint(self) -> Path:
        """The same for the second stage of a run."""
        return self.checkpoint / "fine-tuning"

    @property
    def out_of_fold(self) -> Path:
        """The file of the predictions of a cross-validation."""
        return self.path / "out_of_fold.csv"

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
        """Whether it holds a run that has finished."""
        return (self.path / "model.keras").is_file() and not self.checkpoint.exists()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from training in the folder at the same time.

        Raises:
            InputError: If another process has locked it, or it cannot be written.
        """
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(
                    exclusive_lock(self.path / _LOCK, wait=False, hint=_HINT)
                )
            except LockHeldError:
                raise InputError(
                    f"Another process is training in {printable_path(self.path)}."
                ) from None
            stack.callback(self._remove_if_new_and_empty)
            # While it is locked: nobody else may have locked it by then.
            stack.callback((self.path / _LOCK).unlink, missing_ok=True)
            remove_leftovers(self.path)
            shutil.rmtree(self.path / _DISCARDED, ignore_errors=True)
            yield

    def claim(self, config: dict[str, Any], datasets: ImageDatasets) -> None:
        """Takes the locked folder for a new run and writes what is known before it.

        A run that dies can then be explained.

        Args:
            config: `TrainingConfig.to_json` of the run.
            datasets: Their audit and split are written.

        Raises:
            InputError: If another run took the folder in the meantime, or it cannot
                be written.
        """
        text = json.dumps(config, indent=1)
        audit = json.dumps(datasets.audit.to_json(), indent=1)
        try:
            if self.is_started:
                raise self._not_empty_error()
            # First: it marks everything in the folder as part of a run.
            (self.path / "config.json").touch()
            self._is_claimed = True
            write_text_atomically(self.path / "audit.json", audit)
            write_manifest(datasets.split, self.manifest)
            # Last: a run is started when its configuration can be read.
            write_text_atomically(self.path / "config.json", text)
        except BaseException:
            self.discard()
            raise

    def complete_configuration(self, config: TrainingConfig) -> TrainingConfig:
        """Returns a configuration with what only the started run knows.

        That is its split and, if version 0.1 has started it, that it is not calibrated
        and which epoch it keeps.

        Raises:
            InputError: If the configuration asks for another split.
        """
        config = config.with_manifest(self.manifest)
        # `require_same_run` complains about a damaged file.
        with contextlib.suppress(OSError, ValueError, TypeError, RecursionError):
            recorded = dict(json.loads((self.path / "config.json").read_text()))
            if "keep" not in recorded:
                keep = recorded_keep(recorded)
                return dataclasses.replace(config, keep=keep, calibrate=False)
        return config

    def require_same_run(self, config: dict[str, Any]) -> None:
        """Makes sure that the run was started with the same configuration.

        Args:
            config: `TrainingConfig.to_json` of the run that is to be resumed.

        Raises:
            InputError: If it was started with another one; the message names the first
                difference.
        """
        path = self.path / "config.json"
        try:
            saved = json.loads(path.read_text())
            if saved["format"] not in READABLE_FORMATS:
                raise ValueError(f"format {saved['format']!r} is unknown")
            found = difference(saved, config)
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(
                f"{printable_path(path)} is not a run configuration: "
                f"{first_line(error)}"
            ) from error
        if found is not None:
            raise InputError(
                f"The run in {printable_path(self.path)} was started with another "
                f"configuration: {found}."
            )

    def reopen(self, config: dict[str, Any]) -> bool:
        """Makes a finished run one that is to be resumed, if it should train further.

        Args:
            config: `TrainingConfig.to_json` of what the run should be.

        Returns:
            Whether `config` is the finished run with more epochs.

        Raises:
            InputError: If its last checkpoint was not kept.
        """
        path = self.path / "config.json"
        try:
            saved = json.loads(path.read_text())
            if not self.is_complete or not is_extension(saved, config):
                return False
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return False  # `require_same_run` says what is wrong with it
        kept = self.path / _KEPT
        if not kept.is_dir():
            name = printable_path(self.path)
            raise InputError(
                f"The run in {name} cannot be trained further: its last checkpoint was "
                "not kept. To start a new run from its weights, use "
                f"`init_from={printable_path(self.path / 'model.keras')}`."
            )
        kept.replace(self.checkpoint)
        write_text_atomically(path, json.dumps(config, indent=1))
        return True

    def remove_progress(self) -> None:
        """Removes what was recorded of epochs that left no checkpoint."""
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        for name in _HISTORY:
            (self.path / name).unlink(missing_ok=True)

    def complete(self, *, keep_checkpoint: bool) -> None:
        """Ends the run.

        Args:
            keep_checkpoint: Whether the checkpoint of the last stage becomes
                `last-checkpoint`, from which the run can be trained further; else
                nothing is left of what only an incomplete run needs.
        """
        if keep_checkpoint and any(self.checkpoint.rglob("*.safetensors")):
            if any(self.fine_tuning_checkpoint.glob("*.safetensors")):
                for file in self.checkpoint.glob("*.safetensors"):
                    file.unlink()  # that of the first stage
            self.checkpoint.replace(self.path / _KEPT)
        elif self.checkpoint.exists():
            # Renamed first: a run whose checkpoint is half removed would start again.
            discarded = self.checkpoint.replace(self.path / _DISCARDED)
            shutil.rmtree(discarded, ignore_errors=True)

    def discard(self) -> None:
        """Removes what this object has claimed, so that the place can be used again."""
        if not self._is_claimed:
            return
        for folder in (self.checkpoint, self.tensorboard):
            shutil.rmtree(folder, ignore_errors=True)
        for name in (*_INPUTS, *_HISTORY):
            (self.path / name).unlink(missing_ok=True)
        self._remove_if_new_and_empty()

    def _remove_if_new_and_empty(self) -> None:
        is_new = self._is_claimed and not self._existed
        if is_new and self.path.is_dir() and not any(self.path.iterdir()):
            self.path.rmdir()

    def _not_empty_error(self) -> InputError:
        return InputError(
            f"The run directory {printable_path(self.path)} is not empty. Name a new "
            "one: an earlier run is never overwritten."
        )

    def _no_run_error(self) -> InputError:
        return InputError(
            f"The directory {printable_path(self.path)} does not hold a run: there is "
            "no config.json in it."
        )
