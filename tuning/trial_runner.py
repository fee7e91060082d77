"""Runs one trial: builds, trains, scores and saves, and records what came of it."""

import dataclasses
import gc
import math
import numbers
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_flowers.callbacks import (
    HistoryLogger,
    TensorBoard,
    TensorBoardOptions,
    read_history,
)
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel
from keras_flowers.tuning.records import (
    COMPLETED,
    FAILED,
    RUNNING,
    ExecutionRecord,
    TrialRecord,
    read_record,
    write_record,
)
from keras_flowers.tuning.trial_models import trained_part

from keras_flowers.errors import InputError
from keras_flowers.files import temporary_sibling
from keras_flowers.history import History, write_history

MAX_ATTEMPTS = 2
_LONGEST_ERROR = 300
_FEATURE_TRIALS_PER_COLLECTION = 10
WEIGHTS_NAME = "model.weights.h5"


class ObjectiveError(InputError):
    """Raised where training does not give the objective: every trial would fail."""


@dataclasses.dataclass(frozen=True)
class TrialSettings:
    """How every trial of a search is run.

    Attributes:
        trials_directory: Folder that holds one folder per trial.
        logs_directory: Folder for TensorBoard.
        objective: Metric that is the score.
        direction: `"min"` or `"max"`.
        executions: Trainings per trial.
        seed: What the seeds of all trainings follow from.
    """

    trials_directory: Path
    logs_directory: Path
    objective: str
    direction: str
    executions: int
    seed: int

    def trial_directory(self, trial_id: str) -> Path:
        """Returns the folder of a trial."""
        return self.trials_directory / f"trial_{trial_id}"

    def execution_directory(self, trial_id: str, execution: int) -> Path:
        """Returns the folder of one training of a trial."""
        return self.trial_directory(trial_id) / f"execution_{execution}"

    def execution_logs(self, trial_id: str, execution: int) -> Path:
        """Returns the folder of one training for TensorBoard."""
        return self.logs_directory / trial_id / f"execution_{execution}"

    def execution_seed(self, trial_id: str, execution: int) -> int:
        """Returns the seed of one training, a function of all three numbers."""
        text = f"{self.seed} trial {int(trial_id)} execution {execution}"
        return zlib.crc32(text.encode())


class TrialRunner:
    """Runs the trials that an oracle hands out, one after the other.

    Args:
        hypermodel: Builds and trains the models.
        settings: How.
        worker: Name of who runs them, for the record.
        on_change: Called whenever the record of a trial has changed.
    """

    def __init__(
        self,
        hypermodel: ImageClassifierHyperModel,
        settings: TrialSettings,
        worker: str,
        on_change: Callable[[], None],
    ) -> None:
        self._hypermodel = hypermodel
        self._settings = settings
        self._worker = worker
        self._on_change = on_change
        self._count = 0
        space = keras_tuner.HyperParameters()
        hypermodel.declare_hyperparameters(space)
        self._names = list(dict.fromkeys(item.name for item in space.space))

    def run(self, trial_id: str, hp: keras_tuner.HyperParameters) -> TrialRecord:
        """Runs a trial and returns its final record.

        What goes wrong within it makes it a failed trial. A trial that has a final
        record already, because a process died before it was reported, is not
        trained again.

        Raises:
            ObjectiveError: If training does not give the objective.
        """
        record = self._begun(trial_id, hp)
        if record.status != RUNNING:
            return self._written(record)
        running = _RunningTrial(record, self._written)
        try:
            with _fresh_session(with_collection=self._is_time_to_collect()):
                for execution in range(self._settings.executions):
                    running.add(self._execute(running, hp, execution))
            return running.completed()
        except ObjectiveError:
            raise
        except Exception as error:
            return running.failed(_in_one_line(error))

    def _is_time_to_collect(self) -> bool:
        """Tells whether to look for garbage: it takes a tenth of a trial on features.

        The models of such trials are small, and few may wait.
        """
        self._count += 1
        every = _FEATURE_TRIALS_PER_COLLECTION
        return not self._hypermodel.trains_on_features or self._count % every == 0

    def _begun(self, trial_id: str, hp: keras_tuner.HyperParameters) -> TrialRecord:
        """Returns the record to begin with, or a final one."""
        record = _new_record(trial_id, hp, self._worker, self._names)
        earlier = read_record(self._settings.trial_directory(trial_id))
        if earlier is None or earlier.hyperparameters != record.hyperparameters:
            return record
        if earlier.status != RUNNING:
            return earlier
        if earlier.attempts < MAX_ATTEMPTS:
            return dataclasses.replace(record, attempts=earlier.attempts + 1)
        error = f"its process ended {MAX_ATTEMPTS} times while it ran; out of memory?"
        return dataclasses.replace(earlier, status=FAILED, error=error)

    def _written(self, record: TrialRecord) -> TrialRecord:
        write_record(record, self._settings.trial_directory(record.id))
        self._on_change()
        return record

    def _execute(
        self, running: "_RunningTrial", hp: keras_tuner.HyperParameters, execution: int
    ) -> ExecutionRecord:
        settings, trial_id = self._settings, running.record.id
        directory = settings.execution_directory(trial_id, execution)
        directory.mkdir(parents=True, exist_ok=True)
        seed = settings.execution_seed(trial_id, execution)
        self._hypermodel.seed = seed
        model = self._hypermodel.build(hp)
        past = self._continue_past(model, running.record, execution)
        logger = HistoryLogger()
        result = self._hypermodel.fit(
            hp,
            model,
            callbacks=[
                logger,
                running.progress(),
                self._tensorboard(running.record, execution),
                *self._best_weights(),
            ],
            verbose=0,
            **_epochs_of_tuner(hp),
        )
        write_history(_joined(past, logger.history), directory)
        metrics, epoch = self._scored(result, running.record.epoch)
        with temporary_sibling(directory / WEIGHTS_NAME) as path:
            save_weights(model, path)
        return ExecutionRecord(seed, metrics[settings.objective], epoch, metrics)

    def _continue_past(
        self, model: keras.Model, record: TrialRecord, execution: int
    ) -> History:
        """Loads the weights of the trial that this one continues; returns its history.

        Hyperband promotes trials so.
        """
        if record.continues is None:
            return {}
        past = self._settings.execution_directory(record.continues, execution)
        load_weights(model, past / WEIGHTS_NAME)
        return read_history(past)

    def _tensorboard(
        self, record: TrialRecord, execution: int
    ) -> keras.callbacks.Callback:
        """Returns what writes for TensorBoard, with an entry in its HParams tab.

        Of a trial on features it is the curves alone: an epoch takes about as long as
        drawing its confusion matrix.
        """
        has_matrix = not self._hypermodel.trains_on_features
        return TensorBoard(
            str(self._settings.execution_logs(record.id, execution)),
            write_graph=False,  # it says no more than the hyperparameters
            options=TensorBoardOptions(
                confusion_matrix=has_matrix, class_scores=has_matrix
            ),
            hparams={"trial": record.id, **record.hyperparameters},
        )

    def _best_weights(self) -> list[keras.callbacks.Callback]:
        """Returns what brings back the epoch that the trial is judged by."""
        if self._hypermodel.score == "last":
            return []
        return [
            keras.callbacks.EarlyStopping(
                monitor=self._settings.objective,
                mode=self._settings.direction,
                patience=10**9,  # never early; only the restoring is wanted
                restore_best_weights=True,
            )
        ]

    def _scored(self, result: Any, last_epoch: int) -> tuple[dict[str, float], int]:
        """Returns the metrics that a result of `fit` stands for, and their epoch."""
        objective, epoch = self._settings.objective, last_epoch
        if isinstance(result, keras.callbacks.History):
            history = result.history
            columns = {name: list(values) for name, values in history.items()}
            count = len(next(iter(columns.values()), []))
            index = count - 1
            if self._hypermodel.score == "best" and objective in columns:
                best = max if self._settings.direction == "max" else min
                index = columns[objective].index(best(columns[objective]))
            epoch = last_epoch - (count - 1 - index)
            result = {name: values[index] for name, values in columns.items()}
        elif isinstance(result, numbers.Real):
            result = {objective: result}
        metrics = {name: float(value) for name, value in result.items()}
        if objective not in metrics:
            raise ObjectiveError(
                f"`objective` must be one of {sorted(metrics)}. "
                f"Received: objective={objective!r}"
            )
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise FloatingPointError(f"{name} is {value} after epoch {epoch}")
        return metrics, epoch


class _RunningTrial:
    """The record of a trial as it grows."""

    def __init__(
        self, record: TrialRecord, write: Callable[[TrialRecord], TrialRecord]
    ) -> None:
        self._write = write
        self._started = time.monotonic()
        self.record = write(record)

    def add(self, execution: ExecutionRecord) -> None:
        """Adds a training that is complete."""
        self._update(executions=(*self.record.executions, execution))

    def completed(self) -> TrialRecord:
        """Closes the record with the mean of the scores."""
        scores = [execution.score for execution in self.record.executions]
        return self._update(status=COMPLETED, score=math.fsum(scores) / len(scores))

    def failed(self, error: str) -> TrialRecord:
        """Closes the record with an error."""
        return self._update(status=FAILED, error=error)

    def progress(self) -> keras.callbacks.Callback:
        """Returns what notes each epoch, and ends a training that has diverged."""

        def end(epoch: int, logs: Mapping[str, Any] | None) -> None:
            self._update(epoch=epoch + 1, epochs=callback.params["epochs"])
            if not math.isfinite((logs or {}).get("loss", 0.0)):
                callback.model.stop_training = True

        callback = keras.callbacks.LambdaCallback(on_epoch_end=end)
        return callback

    def _update(self, **changes: Any) -> TrialRecord:
        seconds = time.monotonic() - self._started
        record = dataclasses.replace(self.record, seconds=seconds, **changes)
        self.record = self._write(record)
        return self.record


def save_weights(model: keras.Model, path: Path) -> None:
    """Saves the weights that a trial has trained, without the state of its optimizer.

    That is twice their size, and nothing here reads it. A frozen backbone is the same
    in all trials.
    """
    _without_optimizer(trained_part(model)).save_weights(path)


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads what `save_weights` saved."""
    _without_optimizer(trained_part(model)).load_weights(path)


def _without_optimizer(model: keras.Model) -> keras.Model:
    """Returns a functional model of the same layers, or another one as it is."""
    if not hasattr(model, "inputs"):
        return model
    return keras.Model(model.inputs, model.outputs)


def _new_record(
    trial_id: str,
    hp: keras_tuner.HyperParameters,
    worker: str,
    names: Sequence[str],
) -> TrialRecord:
    """Returns the record of a trial that begins.

    Its hyperparameters are in the order of `names`: a chief sends them in another.
    """
    values = {name: hp.values[name] for name in names if name in hp.values} | hp.values
    shown = {k: v for k, v in values.items() if not k.startswith("tuner/")}
    if "tuner/epochs" in values:
        shown["epochs"] = values["tuner/epochs"]
    return TrialRecord(
        id=trial_id,
        status=RUNNING,
        hyperparameters=shown,
        epoch=values.get("tuner/initial_epoch", 0),
        epochs=shown.get("epochs", 0),
        worker=worker,
        continues=values.get("tuner/trial_id"),
    )


def _epochs_of_tuner(hp: keras_tuner.HyperParameters) -> dict[str, int]:
    if "tuner/epochs" not in hp.values:
        return {}
    return {
        "epochs": hp.values["tuner/epochs"],
        "initial_epoch": hp.values["tuner/initial_epoch"],
    }


def _joined(past: History, now: History) -> History:
    return {name: [*past.get(name, []), *values] for name, values in now.items()}


@contextmanager
def _fresh_session(*, with_collection: bool) -> Iterator[None]:
    """Begins as in a new process, but for the dtype policy, and frees memory."""
    policy = keras.config.dtype_policy()
    keras.utils.clear_session(free_memory=False)  # that is done below
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        if with_collection:
            gc.collect()


def _in_one_line(error: Exception) -> str:
    # TensorFlow begins with where in its graph that was.
    text = re.sub(r"\{\{.*?\}\} ?", "", str(error)).strip()
    first = (text.splitlines() or [""])[0][:_LONGEST_ERROR]
    name = type(error).__name__
    return f"{name}: {first}" if first else name
