"""The folder of a search: what it is a search of, and that nobody else writes there."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

from keras_flowers.errors import InputError
from keras_flowers.files import json_text, printable_path, write_text_atomically

_FORMAT = 1
_NAME = "search.json"


class SearchDirectory:
    """The folder of one search.

    Creating the object touches nothing.

    Attributes:
        path: The folder.
        trials: KerasTuner's project, with a folder for each trial.
        logs: What TensorBoard reads.
        workers: Log and sign of life of each process.
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

    @contextlib.contextmanager
    def claimed(
        self, description: Mapping[str, Any], *, resume: bool
    ) -> Iterator[None]:
        """Holds the folder for a search, new or resumed.

        Args:
            description: What the search is; JSON types only.
            resume: Whether to go on with the search in the folder, if there is one.

        Raises:
            InputError: If the folder holds anything else, cannot be written, or
                another process searches in it.
        """
        self.check(description, resume=resume)
        try:
            for folder in (self.path, self.trials, self.logs, self.workers):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The search directory {self._shown} cannot be written: "
                f"{error.strerror}"
            ) from error
        lock = filelock.FileLock(self.path / ".lock")
        try:
            with lock.acquire(timeout=0):
                # Again: another one may have been first.
                self.check(description, resume=resume)
                text = json_text({"format": _FORMAT, **description})
                write_text_atomically(self.path / _NAME, text)
                self._repair_project()
                yield
        except filelock.Timeout:
            raise InputError(
                f"Another process searches in {self._shown}. Wait for its end, or name "
                "a new directory."
            ) from None

    def check_joined(self, description: Mapping[str, Any]) -> bool:
        """Compares with the search that another process began.

        Returns:
            Whether it has begun.

        Raises:
            InputError: If it is another search.
        """
        return self._compare(description)

    @property
    def _shown(self) -> str:
        return printable_path(self.path)

    def check(self, description: Mapping[str, Any], *, resume: bool) -> None:
        """Refuses the folder where `claimed` would, without touching it."""
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"The search directory {self._shown} is a file.")
        if not self.path.is_dir():
            return
        holds_search = self._compare(description) if resume else self._has_search()
        if holds_search and not resume:
            raise InputError(
                f"{self._shown} holds a search already. Name a new directory, or "
                "resume that search."
            )
        others = [path for path in self.path.iterdir() if path.name not in _OWN_NAMES]
        if not holds_search and others:
            raise InputError(
                f"The search directory {self._shown} is not empty. Name a new one."
            )

    def _has_search(self) -> bool:
        return (self.path / _NAME).exists()

    def _compare(self, description: Mapping[str, Any]) -> bool:
        try:
            found = json.loads((self.path / _NAME).read_text())
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self._shown}/{_NAME} cannot be read: {error}"
            ) from error
        wanted = json.loads(json_text({"format": _FORMAT, **description}))
        for name, value in wanted.items():
            if found.get(name) != value and name not in _MAY_CHANGE:
                difference = _difference(name, found.get(name), value)
                raise InputError(
                    f"{self._shown} holds another search: its {difference}. Name a "
                    "new directory, or resume with what it was begun with."
                )
        return True

    def _repair_project(self) -> None:
        """Makes KerasTuner's files readable after a process died while writing one."""
        for path in self.trials.glob("trial_*/trial.json"):
            if _read(path) is None:
                write_text_atomically(path, json.dumps(_failed_trial(path.parent)))
        oracle, backup = self.trials / "oracle.json", self.trials / "oracle.backup"
        if oracle.exists() and _read(oracle) is None:
            oracle.unlink()
            if backup.exists():
                write_text_atomically(oracle, backup.read_text())
        state = _read(oracle)
        if state is not None:
            write_text_atomically(oracle, json.dumps(self._without_lost(state)))

    def _without_lost(self, state: dict[str, Any]) -> dict[str, Any]:
        """Drops from an oracle's state the trials whose file is gone or final."""
        final = {}
        for path in self.trials.glob("trial_*/trial.json"):
            trial = _read(path) or {}
            final[trial.get("trial_id")] = trial.get("status") in (
                "COMPLETED",
                "FAILED",
            )
        ongoing = {
            worker: trial
            for worker, trial in state["ongoing_trials"].items()
            if final.get(trial) is False
        }
        queue = [trial for trial in state["retry_queue"] if final.get(trial) is False]
        return {**state, "ongoing_trials": ongoing, "retry_queue": queue}


_OWN_NAMES = (_NAME, ".lock", "trials", "tensorboard", "workers")
# Neither changes what a trial is.
_MAY_CHANGE = ("trials", "versions")


def back_up_oracle(trials: Path) -> None:
    """Keeps a whole copy of KerasTuner's `oracle.json`, which it writes in place."""
    path = trials / "oracle.json"
    with contextlib.suppress(OSError):
        text = path.read_text()
        if _parsed(text) is not None:
            write_text_atomically(trials / "oracle.backup", text)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return _parsed(path.read_text())
    except OSError:
        return None


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text)
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _failed_trial(directory: Path) -> dict[str, Any]:
    """Returns a trial as KerasTuner writes it; its number must not be given again."""
    return {
        "trial_id": directory.name.removeprefix("trial_"),
        "hyperparameters": {"space": [], "values": {}},
        "metrics": {"metrics": {}},
        "score": None,
        "best_step": 0,
        "status": "FAILED",
        "message": "its file was cut short when a process died",
    }


def _difference(name: str, found: Any, wanted: Any) -> str:
    """Says in a few words where two values differ, and how."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in {**found, **wanted}:
            if found.get(key) != wanted.get(key):
                return _difference(f"{name}.{key}", found.get(key), wanted.get(key))
    return f"{name} is {json.dumps(found)}, not {json.dumps(wanted)}"
