"""Writes the results of a search: tables, plots, the best model and its history."""

import contextlib
import dataclasses
from pathlib import Path

import keras
import keras_tuner
from keras_flowers.callbacks import plot_history, read_history
from keras_flowers.tuning.plan import SearchPlan
from keras_flowers.tuning.records import (
    COMPLETED,
    FAILED,
    PRUNED,
    RUNNING,
    TrialRecord,
    best_record,
    write_record,
    write_tables,
)
from keras_flowers.tuning.search_plots import draw_plots, write_plots
from keras_flowers.tuning.search_report import write_search_report
from keras_flowers.tuning.trial_models import WEIGHTS_NAME, load_weights

from keras_flowers.distribution import build_optimizer
from keras_flowers.errors import InputError
from keras_flowers.evaluation.calibration import MIN_IMAGES
from keras_flowers.evaluation.evaluate import evaluate
from keras_flowers.files import (
    json_text,
    printable_path,
    temporary_sibling,
    write_text_atomically,
)
from keras_flowers.history import write_history
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.notebook import html_table
from keras_flowers.training.judgement import learn_confidence

_LOST = "its process ended before it was done"


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What `search` returns.

    Attributes:
        directory: The directory with all results.
        trials: One `TrialRecord` per trial, by number.
        best: The completed trial with the best score, or `None` if there is none.
        interrupted: Whether Ctrl-C ended the search.
    """

    directory: Path
    trials: tuple[TrialRecord, ...]
    best: TrialRecord | None
    interrupted: bool
    _plan: SearchPlan = dataclasses.field(repr=False)

    def __repr__(self) -> str:
        """Returns a line: how many trials there are, the best one, and the folder."""
        completed = sum(trial.status == COMPLETED for trial in self.trials)
        pruned = sum(trial.status == PRUNED for trial in self.trials)
        pruned_text = f"{pruned} pruned, " if pruned else ""
        best = f"best {self.best.id} with {self.best.score:.4g}, " if self.best else ""
        state = ", interrupted" if self.interrupted else ""
        return (
            f"SearchResult({completed} of {len(self.trials)} trials completed, "
            f"{pruned_text}{best}{printable_path(self.directory)}{state})"
        )

    def _repr_html_(self) -> str:
        """Shows the trials, the best one first."""
        sign = 1 if self._plan.direction == "min" else -1

        def rank(trial: TrialRecord) -> tuple[bool, float]:
            return trial.status != COMPLETED, sign * (trial.score or 0.0)

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
        return load_trial_model(self._plan, trial, execution)


def load_trial_model(
    plan: SearchPlan, trial: TrialRecord, execution: int
) -> keras.Model:
    """Builds the model of a trial and loads the weights of one of its trainings."""
    if not 0 <= execution < len(trial.executions):
        raise InputError(
            f"`execution` must be from 0 to {len(trial.executions) - 1}. "
            f"Received: execution={execution!r}"
        )
    seed = trial.executions[execution].seed
    model = plan.hypermodel.build(hyperparameters_of(trial), seed=seed)
    directory = plan.directory.execution(trial.id, execution)
    load_weights(model, directory / WEIGHTS_NAME)
    return model


def hyperparameters_of(trial: TrialRecord) -> keras_tuner.HyperParameters:
    """Returns the values of a trial as KerasTuner passes them to a hypermodel."""
    hp = keras_tuner.HyperParameters()
    hp.values = dict(trial.hyperparameters)
    return hp


def write_results(plan: SearchPlan, *, is_over: bool) -> None:
    """Writes everything that follows from the trials so far.

    Args:
        plan: The search.
        is_over: Whether no trial can still be running.
    """
    directory = plan.directory.path
    if is_over:
        for record in plan.records():
            if record.status == RUNNING:
                lost = dataclasses.replace(record, status=FAILED, error=_LOST)
                write_record(lost, plan.directory.trial(record.id))
    records = plan.records()
    write_tables(records, directory)
    best = best_record(records, plan.direction)
    if best is not None:
        figures = draw_plots(records, plan.objective, plan.direction)
        write_plots(figures, directory)
        write_search_report(
            directory / "report.html",
            records,
            best,
            datasets=plan.hypermodel.datasets(),
            objective=plan.objective,
            direction=plan.direction,
            pruning=plan.pruning,
            figures=figures,
        )
        _write_best(plan, best)


def _write_best(plan: SearchPlan, best: TrialRecord) -> None:
    directory = plan.directory.path
    sign = 1 if plan.direction == "min" else -1
    scores = [sign * execution.score for execution in best.executions]
    number = scores.index(min(scores))
    description = {
        "trial": best.id,
        "objective": plan.objective,
        "score": best.score,
        "hyperparameters": best.hyperparameters,
        "execution": number,
        "seed": best.executions[number].seed,
        "metrics": best.executions[number].metrics,
    }
    path = directory / "best_hyperparameters.json"
    write_text_atomically(path, json_text(description))
    history = read_history(plan.directory.execution(best.id, number))
    write_history(history, directory)
    with temporary_sibling(directory / "history.png") as path:
        plot_history(history).savefig(path, dpi=120)
    model = load_trial_model(plan, best, number)
    if plan.calibrate and isinstance(model, ImageClassifier):
        _learn_confidence(plan, model)
    with temporary_sibling(directory / "model.keras") as path:
        if isinstance(model, ImageClassifier):
            model.save(path, include_optimizer=False)
        else:
            # Keras warns when it loads a model whose optimizer was saved unbuilt.
            build_optimizer(model)
            model.save(path)


def _learn_confidence(plan: SearchPlan, model: ImageClassifier) -> None:
    """Calibrates the model on the validation images, as `train` does."""
    if len(plan.hypermodel.datasets().split.validation) < MIN_IMAGES:
        return
    stage = plan.hypermodel.last_stage(model)
    # Such as a model without a softmax: it is saved all the same.
    with contextlib.suppress(InputError):
        evaluation = evaluate(stage.model, stage.datasets)
        learn_confidence(model, evaluation, stage)
