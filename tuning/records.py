"""The record of each trial, in memory and on disk."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pydantic

from keras_flowers.files import (
    json_text,
    write_csv_atomically,
    write_text_atomically,
)

RUNNING, COMPLETED, FAILED = "running", "completed", "failed"
# Ended early because it promised less than other trials.
PRUNED = "pruned"
RECORD_NAME = "record.json"


@dataclasses.dataclass(frozen=True)
class ExecutionRecord:
    """One training of a trial.

    Attributes:
        seed: Seed of its initial weights, augmentation and dropout.
        score: Objective of its saved model.
        epoch: The epoch of the saved model and the score, from 1.
        metrics: All metrics of that epoch, by name.
        collapsed: Whether the network had collapsed at the end: it gave every image
            the same answer.
    """

    seed: int
    score: float
    epoch: int
    metrics: dict[str, float]
    collapsed: bool = False


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial of a search.

    Attributes:
        id: Its number in the search, as text, such as `"03"`.
        status: `"running"`, `"completed"`, `"pruned"` or `"failed"`.
        hyperparameters: The values that the model was built with, by name.
        score: Mean objective over the executions; that of the last epoch of a pruned
            trial; `None` for a trial that is running or has failed.
        executions: Its trainings that have ended. Of a pruned trial it is the one that
            was ended early, whose model is not saved.
        epoch: Number of epochs trained so far.
        epochs: Number of epochs to train.
        seconds: Time taken so far, in seconds.
        worker: Name of the worker that ran it.
        attempts: Number of times it was started; above 1 after a process died.
        error: Why it failed, in one line, or `None`.
        continues: The id of the trial whose training it continued, as in Hyperband,
            or `None`.
    """

    id: str
    status: str
    hyperparameters: dict[str, Any]
    score: float | None = None
    executions: tuple[ExecutionRecord, ...] = ()
    epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    worker: str = ""
    attempts: int = 1
    error: str | None = None
    continues: str | None = None

    @property
    def has_collapsed(self) -> bool:
        """Whether the network of an execution had collapsed at the end."""
        return any(execution.collapsed for execution in self.executions)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return dataclasses.asdict(self)


_PARSER = pydantic.TypeAdapter(TrialRecord)


def write_record(record: TrialRecord, trial_directory: Path) -> None:
    """Writes or replaces the record of a trial in its directory."""
    trial_directory.mkdir(parents=True, exist_ok=True)
    write_text_atomically(trial_directory / RECORD_NAME, json_text(record.to_json()))


def read_record(trial_directory: Path) -> TrialRecord | None:
    """Returns the record in the directory of a trial, or `None`."""
    try:
        text = (trial_directory / RECORD_NAME).read_bytes()
    except FileNotFoundError:
        return None
    return _PARSER.validate_json(text)


def read_records(
    trials_directory: Path, earlier: Iterable[TrialRecord] = ()
) -> tuple[TrialRecord, ...]:
    """Returns the records of all trials by the number of the trial.

    Args:
        trials_directory: Folder that holds one folder per trial.
        earlier: What an earlier call returned. Final records are not read again.
    """
    final = {record.id: record for record in earlier if record.status != RUNNING}
    found = (
        final.get(path.name.removeprefix("trial_")) or read_record(path)
        for path in trials_directory.glob("trial_*")
    )
    return tuple(sorted(filter(None, found), key=lambda record: int(record.id)))


def best_record(records: Sequence[TrialRecord], direction: str) -> TrialRecord | None:
    """Returns the completed trial with the best score, the first of equals."""
    scored = [record for record in records if record.status == COMPLETED]
    sign = 1 if direction == "min" else -1
    return min(scored, key=lambda record: sign * _score(record), default=None)


def _score(record: TrialRecord) -> float:
    return math.nan if record.score is None else record.score


def write_tables(records: Sequence[TrialRecord], directory: Path) -> None:
    """Writes `trials.json` and `trials.csv`."""
    content = [record.to_json() for record in records]
    write_text_atomically(directory / "trials.json", json_text(content))
    names = hyperparameter_names(records)
    means = [mean_metrics(record) for record in records]
    metrics = list(dict.fromkeys(name for values in means for name in values))
    header = ["trial", "status", "score", *names, *metrics]
    rows = [
        [
            record.id,
            record.status,
            record.score,
            *(record.hyperparameters.get(name) for name in names),
            *(values.get(name) for name in metrics),
            f"{record.seconds:.1f}",
            record.attempts,
            record.error,
        ]
        for record, values in zip(records, means, strict=True)
    ]
    write_csv_atomically(
        directory / "trials.csv", [[*header, "seconds", "attempts", "error"], *rows]
    )


def hyperparameter_names(records: Sequence[TrialRecord]) -> list[str]:
    """Returns the names of all hyperparameters in the order of their declaration."""
    longest = sorted(records, key=lambda record: -len(record.hyperparameters))
    return list(dict.fromkeys(name for r in longest for name in r.hyperparameters))


def varied_hyperparameters(records: Sequence[TrialRecord]) -> list[str]:
    """Returns the names of the hyperparameters that differ between trials."""
    names = hyperparameter_names(records)
    return [n for n in names if len({r.hyperparameters.get(n) for r in records}) > 1]


def mean_metrics(record: TrialRecord) -> dict[str, float]:
    """Returns the mean of each metric over the executions of a trial."""
    executions = record.executions
    names = dict.fromkeys(name for e in executions for name in e.metrics)
    return {
        name: math.fsum(e.metrics.get(name, math.nan) for e in executions)
        / len(executions)
        for name in names
    }
