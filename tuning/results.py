"""What a search leaves: tables, plots, and the best model with its history."""

import dataclasses
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_flowers.callbacks import plot_history, read_history
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel
from keras_flowers.tuning.records import (
    COMPLETED,
    FAILED,
    RUNNING,
    TrialRecord,
    best_record,
    read_records,
    write_record,
    write_tables,
)
from keras_flowers.tuning.search_plots import write_plots
from keras_flowers.tuning.trial_runner import (
    WEIGHTS_NAME,
    TrialSettings,
    load_weights,
)

from keras_flowers.errors import InputError
from keras_flowers.files import (
    json_text,
    printable_path,
    temporary_sibling,
    write_text_atomically,
)
from keras_flowers.history import write_history
from keras_flowers.notebook import html_table

_LOST = "its process ended before it was done"


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What `search` returns.

    Attributes:
        directory: The folder with all results.
        trials: One `TrialRecord` per trial, by number.
        best: The completed trial with the best score, or `None` where all failed.
        interrupted: Whether Ctrl-C ended the search.
    """

    directory: Path
    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None
    interrupted: bool
    _hypermodel: ImageClassifierHyperModel = dataclasses.field(repr=False)
    _settings: TrialSettings = dataclasses.field(repr=False)

    def __repr__(self) -> str:
        """Returns a line: how many trials there are, the best one, and the folder."""
        completed = sum(trial.status == COMPLETED for trial in self.trials)
        best = f"best {self.best.id} with {self.best.score:.4g}, " if self.best else ""
        state = ", interrupted" if self.interrupted else ""
        return (
            f"SearchResult({completed} of {len(self.trials)} trials completed, "
            f"{best}{printable_path(self.directory)}{state})"
        )

    def _repr_html_(self) -> str:
        """Shows the trials, the best one first."""
        sign = 1 if self._settings.direction == "min" else -1

        def rank(trial: TrialRecord) -> tuple[bool, float]:
            return trial.score is None, sign * (trial.score or 0.0)

        names = list(dict.fromkeys(n for t in self.trials for n in t.hyperparameters))
        heads = ["trial", "status", "score", "epochs", "seconds", *names]
        rows = [
            [
                trial.id,
                trial.status,
                "" if trial.score is None else trial.score,
                trial.epoch,
                trial.seconds,
                *(trial.hyperparameters.get(name, "") for name in names),
            ]
            for trial in sorted(self.trials, key=rank)
        ]
        return html_table(repr(self), heads, rows)

    def load_model(
        self, trial: TrialRecord | None = None, execution: int = 0
    ) -> keras.Model:
        """Returns the trained model of a trial.

        Args:
            trial: One of `trials` that is completed; `None` for the best.
            execution: Which of its trainings, from 0.

        Raises:
            InputError: If there is no such model.
        """
        trial = trial or self.best
        if trial is None or trial.status != COMPLETED:
            raise InputError(f"`trial` must be a completed trial. Received: {trial!r}")
        return load_trial_model(self._hypermodel, self._settings, trial, execution)


def load_trial_model(
    hypermodel: ImageClassifierHyperModel,
    settings: TrialSettings,
    trial: TrialRecord,
    execution: int,
) -> keras.Model:
    """Builds the model of a trial and loads the weights of one of its trainings."""
    if not 0 <= execution < len(trial.executions):
        raise InputError(
            f"`execution` must be from 0 to {len(trial.executions) - 1}. "
            f"Received: execution={execution!r}"
        )
    hypermodel.seed = trial.executions[execution].seed
    model = hypermodel.build(hyperparameters_of(trial))
    directory = settings.execution_directory(trial.id, execution)
    load_weights(model, directory / WEIGHTS_NAME)
    return model


def hyperparameters_of(trial: TrialRecord) -> keras_tuner.HyperParameters:
    """Returns the values of a trial as KerasTuner passes them to a hypermodel."""
    hp = keras_tuner.HyperParameters()
    hp.values = dict(trial.hyperparameters)
    return hp


def write_results(
    directory: Path,
    hypermodel: ImageClassifierHyperModel,
    settings: TrialSettings,
    *,
    is_over: bool,
) -> tuple[TrialRecord, ...]:
    """Writes everything that follows from the trials so far; returns their records.

    Args:
        directory: The folder of the search.
        hypermodel: Builds the best model.
        settings: Where the trials are.
        is_over: Whether no trial can be running any more.
    """
    if is_over:
        _close_lost_trials(settings)
    records = read_records(settings.trials_directory)
    write_tables(records, directory)
    best = best_record(records, settings.direction)
    if best is not None:
        write_plots(records, settings, directory)
        _write_best(directory, hypermodel, settings, best)
    return records


def _close_lost_trials(settings: TrialSettings) -> None:
    for record in read_records(settings.trials_directory):
        if record.status == RUNNING:
            lost = dataclasses.replace(record, status=FAILED, error=_LOST)
            write_record(lost, settings.trial_directory(record.id))


def _write_best(
    directory: Path,
    hypermodel: ImageClassifierHyperModel,
    settings: TrialSettings,
    best: TrialRecord,
) -> None:
    sign = 1 if settings.direction == "min" else -1
    scores = [sign * execution.score for execution in best.executions]
    execution = scores.index(min(scores))
    text = json_text(_description(best, settings, execution))
    write_text_atomically(directory / "best_hyperparameters.json", text)
    history = read_history(settings.execution_directory(best.id, execution))
    write_history(history, directory)
    with temporary_sibling(directory / "history.png") as path:
        plot_history(history).savefig(path, dpi=120)
    model = load_trial_model(hypermodel, settings, best, execution)
    # A saved model of Keras has an optimizer that is built, or loading it warns.
    model.optimizer.build(model.trainable_variables)
    with temporary_sibling(directory / "model.keras") as path:
        model.save(path)


def _description(
    best: TrialRecord, settings: TrialSettings, execution: int
) -> dict[str, Any]:
    return {
        "trial": best.id,
        "objective": settings.objective,
        "score": best.score,
        "hyperparameters": best.hyperparameters,
        "execution": execution,
        "seed": best.executions[execution].seed,
        "metrics": best.executions[execution].metrics,
    }
