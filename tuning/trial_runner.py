"""Runs one trial: builds, trains, scores and saves, and records the outcome."""

import dataclasses
import gc
import math
import numbers
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import keras_tuner
from keras_flowers.callbacks import (
    CollapseDetector,
    CollapseWarning,
    HistoryLogger,
    TensorBoard,
    TensorBoardOptions,
    read_history,
)
from keras_flowers.tuning.keras_tuner_internals import (
    continued_trial,
    epochs_of_round,
    searched_values,
)
from keras_flowers.tuning.plan import SearchPlan
from keras_flowers.tuning.pruning import MedianPruner
from keras_flowers.tuning.records import (
    COMPLETED,
    FAILED,
    PRUNED,
    RUNNING,
    ExecutionRecord,
    TrialRecord,
    read_record,
    write_record,
)
from keras_flowers.tuning.trial_models import WEIGHTS_NAME, load_weights, save_weights

from keras_flowers.errors import InputError
from keras_flowers.files import temporary_sibling
from keras_flowers.history import COLLAPSED, History, is_collapsed, write_history

MAX_ATTEMPTS = 2
_LONGEST_ERROR = 300
_FEATURE_TRIALS_PER_COLLECTION = 10


class ObjectiveError(InputError):
    """Raised where training does not give the objective: every trial would fail."""


class TrialRunner:
    """Runs the trials that an oracle hands out, one after the other.

    Args:
        plan: The search.
        worker: Name of the worker that runs them, for the record.
        on_change: Called whenever the record of a trial has changed.
    """

    def __init__(
        self, plan: SearchPlan, worker: str, on_change: Callable[[], None]
    ) -> None:
        self._plan = plan
        self._worker = worker
        self._on_change = on_change
        self._count = 0
        self._pruner = (
            MedianPruner(plan.directory, plan.objective, plan.direction)
            if plan.pruning == "median"
            else None
        )
        space = keras_tuner.HyperParameters()
        plan.hypermodel.declare_hyperparameters(space)
        self._names = list(dict.fromkeys(item.name for item in space.space))

    def run(self, trial_id: str, hp: keras_tuner.HyperParameters) -> TrialRecord:
        """Runs a trial and returns its final record.

        An error in the trial makes it a failed trial. A trial that already has a
        final record, because a process died before it was reported, is not trained
        again.

        Raises:
            ObjectiveError: If training does not give the objective.
        """
        record = self._start_record(trial_id, hp)
        trial = _RunningTrial(record, self._write)
        trial.update()
        if trial.record.status != RUNNING:
            return trial.record
        try:
            with _start_session(collect=self._is_time_to_collect()):
                for execution in range(self._plan.executions_per_trial):
                    done = self._execute(trial, hp, execution)
                    executions = (*trial.record.executions, done)
                    trial.update(executions=executions)
                    if trial.is_pruned:
                        break
            scores = [execution.score for execution in trial.record.executions]
            score = math.fsum(scores) / len(scores)
            status = PRUNED if trial.is_pruned else COMPLETED
            trial.update(status=status, score=score)
        except ObjectiveError:
            raise
        except Exception as error:
            trial.update(status=FAILED, error=_in_one_line(error))
        return trial.record

    def _is_time_to_collect(self) -> bool:
        """Tells whether to collect garbage: it takes a tenth of a trial on features.

        The models of such trials are small, so a few may wait.
        """
        self._count += 1
        every = _FEATURE_TRIALS_PER_COLLECTION
        return not self._plan.hypermodel.trains_on_features or self._count % every == 0

    def _start_record(
        self, trial_id: str, hp: keras_tuner.HyperParameters
    ) -> TrialRecord:
        """Returns the record of a trial that starts, or its final one."""
        record = _new_record(trial_id, hp, self._worker, self._names)
        earlier = read_record(self._plan.directory.trial(trial_id))
        if earlier is None or earlier.hyperparameters != record.hyperparameters:
            return record
        if earlier.status != RUNNING:
            return earlier
        if earlier.attempts < MAX_ATTEMPTS:
            return dataclasses.replace(record, attempts=earlier.attempts + 1)
        error = f"its process ended {MAX_ATTEMPTS} times while it ran; out of memory?"
        return dataclasses.replace(earlier, status=FAILED, error=error)

    def _write(self, record: TrialRecord) -> None:
        write_record(record, self._plan.directory.trial(record.id))
        self._on_change()

    def _execute(
        self,
        trial: "_RunningTrial",
        hp: keras_tuner.HyperParameters,
        execution: int,
    ) -> ExecutionRecord:
        """Trains, scores and saves one model of a trial."""
        hypermodel, trial_id = self._plan.hypermodel, trial.record.id
        directory = self._plan.directory.execution(trial_id, execution)
        directory.mkdir(parents=True, exist_ok=True)
        seed = self._plan.execution_seed(trial_id, execution)
        model = hypermodel.build(hp, seed=seed)
        past = self._load_past(model, trial.record, execution)
        logger = HistoryLogger()
        epochs = epochs_of_round(hp)
        with warnings.catch_warnings():
            # The record says so, and the other trials go on.
            warnings.simplefilter("ignore", CollapseWarning)
            result = hypermodel.fit(
                hp,
                model,
                callbacks=[
                    # Before those that record what it notices.
                    *self._collapse_detectors(),
                    logger,
                    self._progress(trial, is_first=execution == 0),
                    self._tensorboard(trial.record, execution),
                    *self._best_weights(),
                ],
                verbose=0,
                **({"initial_epoch": epochs[0], "epochs": epochs[1]} if epochs else {}),
            )
        history = {n: [*past.get(n, []), *v] for n, v in logger.history.items()}
        write_history(history, directory)
        metrics, epoch = self._score(result, trial.record.epoch)
        if not trial.is_pruned:
            with temporary_sibling(directory / WEIGHTS_NAME) as path:
                save_weights(model, path)
        score = metrics[self._plan.objective]
        return ExecutionRecord(seed, score, epoch, metrics, is_collapsed(history))

    def _load_past(
        self, model: keras.Model, record: TrialRecord, execution: int
    ) -> History:
        """Loads the weights of the trial that this one continues; returns its history.

        Hyperband promotes trials this way.
        """
        if record.continues is None:
            return {}
        past = self._plan.directory.execution(record.continues, execution)
        load_weights(model, past / WEIGHTS_NAME)
        return read_history(past)

    def _collapse_detectors(self) -> list[keras.callbacks.Callback]:
        """Returns what notices a collapse.

        Of images with several labels, all may rightly have the same answer: none.
        """
        datasets = self._plan.hypermodel.datasets()
        if datasets.multi_label:
            return []
        return [CollapseDetector(class_counts=list(datasets.counts("train").values()))]

    def _progress(
        self, trial: "_RunningTrial", *, is_first: bool
    ) -> keras.callbacks.Callback:
        """Returns what records each epoch, and ends a training without prospects.

        Args:
            trial: The trial.
            is_first: Whether this is its first training, which decides whether it is
                pruned.
        """
        values: list[float] = []

        def end_epoch(epoch: int, logs: Mapping[str, Any] | None) -> None:
            logs, epochs = logs or {}, callback.params["epochs"]
            trial.update(epoch=epoch + 1, epochs=epochs)
            if not math.isfinite(logs.get("loss", 0.0)):
                callback.model.stop_training = True
            elif self._pruner is not None and is_first and epoch + 1 < epochs:
                values.append(self._find_objective(logs))
                trial.is_pruned = self._pruner.is_hopeless(values)
                callback.model.stop_training |= trial.is_pruned

        callback = keras.callbacks.LambdaCallback(on_epoch_end=end_epoch)
        return callback

    def _tensorboard(
        self, record: TrialRecord, execution: int
    ) -> keras.callbacks.Callback:
        """Returns what writes for TensorBoard, with an entry in its HParams tab.

        Trials on features write curves only: drawing a confusion matrix takes about as
        long as one of their epochs.
        """
        has_matrix = not self._plan.hypermodel.trains_on_features
        return TensorBoard(
            str(self._plan.directory.execution_logs(record.id, execution)),
            write_graph=False,  # it says no more than the hyperparameters
            class_names=self._plan.hypermodel.datasets().class_names,
            options=TensorBoardOptions(
                confusion_matrix=has_matrix, class_scores=has_matrix
            ),
            hparams={"trial": record.id, **record.hyperparameters},
        )

    def _best_weights(self) -> list[keras.callbacks.Callback]:
        """Returns what restores the epoch that the trial is judged by."""
        if self._plan.hypermodel.score == "last":
            return []
        return [
            keras.callbacks.EarlyStopping(
                monitor=self._plan.objective,
                mode=self._plan.direction,
                patience=10**9,  # never stops early; only restores
                restore_best_weights=True,
            )
        ]

    def _score(self, result: Any, last_epoch: int) -> tuple[dict[str, float], int]:
        """Returns the metrics in a result of `fit`, and their epoch."""
        objective, epoch = self._plan.objective, last_epoch
        if isinstance(result, keras.callbacks.History):
            columns = result.history
            count = len(next(iter(columns.values()), []))
            index = count - 1
            if self._plan.hypermodel.score == "best" and objective in columns:
                best = max if self._plan.direction == "max" else min
                index = columns[objective].index(best(columns[objective]))
            epoch = last_epoch - (count - 1 - index)
            result = {
                name: values[index]
                for name, values in columns.items()
                if name != COLLAPSED
            }
        elif isinstance(result, numbers.Real):
            result = {objective: result}
        metrics = {n: float(value) for n, value in result.items() if n != COLLAPSED}
        self._find_objective(metrics)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value} after epoch {epoch}")
        return metrics, epoch

    def _find_objective(self, metrics: Mapping[str, float]) -> float:
        """Returns the objective among metrics.

        Raises:
            ObjectiveError: If it is not there.
        """
        objective = self._plan.objective
        if objective not in metrics:
            raise ObjectiveError(
                f"`objective` must be one of {sorted(metrics)}. "
                f"Received: objective={objective!r}"
            )
        return float(metrics[objective])


class _RunningTrial:
    """The record of a trial, and the time since it started.

    Attributes:
        record: The record.
        is_pruned: Whether the training that ends now was ended early.
    """

    def __init__(
        self, record: TrialRecord, write: Callable[[TrialRecord], None]
    ) -> None:
        self.record = record
        self.is_pruned = False
        self._write = write
        self._started = time.monotonic()

    def update(self, **changes: Any) -> None:
        """Changes and writes the record."""
        if changes:
            changes["seconds"] = time.monotonic() - self._started
            self.record = dataclasses.replace(self.record, **changes)
        self._write(self.record)


def _new_record(
    trial_id: str, hp: keras_tuner.HyperParameters, worker: str, names: list[str]
) -> TrialRecord:
    """Returns the record of a trial that starts.

    Its hyperparameters are in the order of `names`: a chief sends them in another.
    """
    values = searched_values(hp)
    values = {name: values[name] for name in names if name in values} | values
    begin, end = epochs_of_round(hp) or (0, values.get("epochs", 0))
    if epochs_of_round(hp) is not None:
        values["epochs"] = end
    return TrialRecord(
        id=trial_id,
        status=RUNNING,
        hyperparameters=values,
        epoch=begin,
        epochs=end,
        worker=worker,
        continues=continued_trial(hp),
    )


@contextmanager
def _start_session(*, collect: bool) -> Iterator[None]:
    """Starts as in a new process, apart from the dtype policy; frees memory at the end.

    Args:
        collect: Whether to collect garbage at the end.
    """
    policy = keras.config.dtype_policy()
    keras.utils.clear_session(free_memory=False)  # done below
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        if collect:
            gc.collect()


def _in_one_line(error: Exception) -> str:
    # TensorFlow's messages start with a position in its graph.
    text = re.sub(r"\{\{.*?\}\} ?", "", str(error)).strip()
    first = (text.splitlines() or [""])[0][:_LONGEST_ERROR]
    name = type(error).__name__
    return f"{name}: {first}" if first else name
