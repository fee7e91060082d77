"""What is known of each trial, as it stands on disk."""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from keras_flowers.files import json_text, write_text_atomically

RUNNING, COMPLETED, FAILED = "running", "completed", "failed"
RECORD_NAME = "record.json"


@dataclasses.dataclass(frozen=True)
class ExecutionRecord:
    """One training of a trial.

    Attributes:
        seed: What its initial weights, augmentation and dropout followed from.
        score: Value of the objective that its saved model has.
        epoch: The epoch that the saved model and the score are of, from 1.
        metrics: All values of the epoch that the score is from, by name.
    """

    seed: int
    score: float
    epoch: int
    metrics: dict[str, float]


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """One trial of a search.

    Attributes:
        id: Its number within the search, as text, such as `"03"`.
        status: `"running"`, `"completed"` or `"failed"`.
        hyperparameters: The values that it was built with, by name.
        score: The objective, the mean over the executions; `None` without one.
        executions: Its trainings that are complete.
        epoch: How many epochs it was trained, or has been so far.
        epochs: How many epochs it is to be trained.
        seconds: How long it took, or has taken so far.
        worker: Who ran it.
        attempts: How often it was begun; more than once after a process died.
        error: What made it fail, in one line, or `None`.
        continues: The id of the trial whose training it continued, as Hyperband
            does, or `None`.
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

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Returns the record that `to_json` wrote."""
        executions = tuple(
            ExecutionRecord(
                item["seed"], float(item["score"]), item["epoch"], _floats(item)
            )
            for item in content["executions"]
        )
        return cls(**{**content, "executions": executions})


def _floats(item: Mapping[str, Any]) -> dict[str, float]:
    # NaN is a string in strict JSON.
    return {name: float(value) for name, value in item["metrics"].items()}


def write_record(record: TrialRecord, trial_directory: Path) -> None:
    """Writes or replaces the record of a trial in its directory."""
    trial_directory.mkdir(parents=True, exist_ok=True)
    write_text_atomically(trial_directory / RECORD_NAME, json_text(record.to_json()))


def read_record(trial_directory: Path) -> TrialRecord | None:
    """Returns the record in the directory of a trial, or `None`."""
    try:
        text = (trial_directory / RECORD_NAME).read_text()
    except FileNotFoundError:
        return None
    return TrialRecord.from_json(json.loads(text))


def read_records(trials_directory: Path) -> tuple[TrialRecord, ...]:
    """Returns the records of all trials by the number of the trial."""
    return RecordReader(trials_directory).read()


def _by_number(records: Sequence[TrialRecord]) -> tuple[TrialRecord, ...]:
    return tuple(sorted(records, key=lambda record: int(record.id)))


class RecordReader:
    """Reads the records of all trials again and again, final ones once.

    Args:
        trials_directory: Folder that holds one folder per trial.
    """

    def __init__(self, trials_directory: Path) -> None:
        self._directory = trials_directory
        self._final: dict[str, TrialRecord] = {}

    def read(self) -> tuple[TrialRecord, ...]:
        """Returns what `read_records` does."""
        records = []
        for path in self._directory.glob("trial_*"):
            record = self._final.get(path.name) or read_record(path)
            if record is None:
                continue
            records.append(record)
            if record.status != RUNNING:
                self._final[path.name] = record
        return _by_number(records)


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
    write_text_atomically(directory / "trials.csv", _table(records))


def hyperparameter_names(records: Sequence[TrialRecord]) -> list[str]:
    """Returns the names of all hyperparameters in the order of their declaration."""
    longest = sorted(records, key=lambda record: -len(record.hyperparameters))
    return list(dict.fromkeys(name for r in longest for name in r.hyperparameters))


def _table(records: Sequence[TrialRecord]) -> str:
    names = hyperparameter_names(records)
    metrics = list(dict.fromkeys(n for r in records for n in mean_metrics(r)))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(
        ["trial", "status", "score", *names, *metrics, "seconds", "attempts", "error"]
    )
    for record in records:
        values = mean_metrics(record)
        rows.writerow(
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
        )
    return text.getvalue()


def mean_metrics(record: TrialRecord) -> dict[str, float]:
    """Returns the mean of each metric over the executions of a trial."""
    executions = record.executions
    names = dict.fromkeys(name for e in executions for name in e.metrics)
    return {
        name: math.fsum(e.metrics.get(name, math.nan) for e in executions)
        / len(executions)
        for name in names
    }
