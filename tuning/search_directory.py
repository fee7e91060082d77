"""The directory of a search: where everything is, and which search it belongs to."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_flowers.errors import InputError
from keras_flowers.files import (
    json_text,
    printable_path,
    require_writable_folder,
    write_text_atomically,
)
from keras_flowers.locks import LockHeldError, exclusive_lock

_FORMAT = 1
_NAME = "search.json"
_LOCK = ".lock"
_HINT = "Name another folder with `directory` (--run-dir)"
_OWN_NAMES = (_NAME, _LOCK, "trials", "tensorboard", "workers")
# Neither changes what a trial is.
_MAY_CHANGE = ("trials", "versions")
# What a search was before it had a name.
_EARLIER = {"pruning": "none"}


class SearchDirectory:
    """The directory of one search.

    Creating the object touches nothing.

    Attributes:
        path: The directory.
        trials: KerasTuner's project, with a directory per trial.
        logs: The directory that TensorBoard reads.
        workers: The log and the heartbeat of each process.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.trials = self.path / "trials"
        self.logs = self.path / "tensorboard"
        self.workers = self.path / "workers"

    @property
    def manifest(self) -> Path:
        """The split of the images."""
        return self.path / "split.json"

    @property
    def oracle_state(self) -> Path:
        """The state of the oracle."""
        return self.trials / "oracle_state.json"

    def trial(self, trial_id: str) -> Path:
        """Returns the directory of a trial."""
        return self.trials / f"trial_{trial_id}"

    def execution(self, trial_id: str, execution: int) -> Path:
        """Returns the directory of one training of a trial."""
        return self.trial(trial_id) / f"execution_{execution}"

    def execution_logs(self, trial_id: str, execution: int) -> Path:
        """Returns the directory of one training for TensorBoard."""
        return self.logs / trial_id / f"execution_{execution}"

    def heartbeat(self, name: str) -> Path:
        """Returns the file that a process touches while it lives."""
        return self.workers / f"{name}.json"

    def log(self, name: str) -> Path:
        """Returns the file for the output of a process."""
        return self.workers / f"{name}.log"

    def error(self, name: str) -> Path:
        """Returns the file in which a process says which input it cannot use."""
        return self.workers / f"{name}.error"

    def check(self, description: Mapping[str, Any], *, resume: bool) -> None:
        """Refuses the directory where `claim` would, without touching it."""
        name = printable_path(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"The search directory {name} is a file.")
        require_writable_folder(self.path, _HINT)
        if not self.path.is_dir():
            return
        if not (self.path / _NAME).exists():
            if any(path.name not in _OWN_NAMES for path in self.path.iterdir()):
                raise InputError(
                    f"The search directory {name} is not empty. Name a new one."
                )
        elif resume:
            self.compare(description)
        else:
            raise InputError(
                f"{name} holds a search already. Name a new directory, or resume that "
                "search."
            )

    @contextlib.contextmanager
    def claim(self, description: Mapping[str, Any], *, resume: bool) -> Iterator[None]:
        """Locks the directory for a search, new or resumed.

        Args:
            description: What the search is; JSON types only.
            resume: Whether to resume the search in the directory, if there is one.

        Raises:
            InputError: If the directory holds anything else, cannot be written, or
                another process searches in it.
        """
        self.check(description, resume=resume)
        try:
            with exclusive_lock(self.path / _LOCK, wait=False, hint=_HINT):
                # Again: another process may have been first.
                self.check(description, resume=resume)
                for folder in (self.trials, self.logs, self.workers):
                    folder.mkdir(exist_ok=True)
                text = json_text({"format": _FORMAT, **description})
                write_text_atomically(self.path / _NAME, text)
                yield
        except LockHeldError:
            raise InputError(
                f"Another process searches in {printable_path(self.path)}. Wait until "
                "it is done, or name a new directory."
            ) from None

    def compare(self, description: Mapping[str, Any]) -> bool:
        """Compares a search with the one in the directory.

        Returns:
            Whether there is one.

        Raises:
            InputError: If it is another search.
        """
        path = self.path / _NAME
        try:
            found = {**_EARLIER, **json.loads(path.read_text())}
        except FileNotFoundError:
            return False
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{printable_path(path)} cannot be read: {error}"
            ) from error
        wanted = json.loads(json_text({"format": _FORMAT, **description}))
        for name, value in wanted.items():
            if found.get(name) != value and name not in _MAY_CHANGE:
                raise InputError(
                    f"{printable_path(self.path)} holds another search: its "
                    f"{_difference(name, found.get(name), value)}. Name a new "
                    "directory, or resume with the original arguments."
                )
        return True


def _difference(name: str, found: Any, wanted: Any) -> str:
    """Names the first entry in which two values differ, with both values."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in {**found, **wanted}:
            if found.get(key) != wanted.get(key):
                return _difference(f"{name}.{key}", found.get(key), wanted.get(key))
    return f"{name} is {json.dumps(found)}, not {json.dumps(wanted)}"
