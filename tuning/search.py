"""`search(...)`: from a space of models to the best of them."""

import logging
import os
import time
from collections.abc import Callable
from typing import Any

import keras_tuner
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel
from keras_flowers.tuning.plan import SearchPlan, make_plan
from keras_flowers.tuning.records import (
    RUNNING,
    TrialRecord,
    best_record,
    read_records,
    write_tables,
)
from keras_flowers.tuning.results import SearchResult, write_results
from keras_flowers.tuning.retraining import retrain_best
from keras_flowers.tuning.search_directory import SearchDirectory
from keras_flowers.tuning.supervisor import (
    address_from_environment,
    run_chief_alone,
    run_on_this_machine,
    run_worker_alone,
)
from keras_flowers.tuning.trial_loop import run_trials
from keras_flowers.tuning.trial_runner import TrialRunner
from keras_flowers.tuning.worker_choice import choose_workers

from keras_flowers.argument_checks import check_integer
from keras_flowers.data.split_manifest import write_manifest
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path

Progress = Callable[[tuple[TrialRecord, ...], int], None]
Run = Callable[[SearchPlan, Callable[[], None]], None]

AUTO = "auto"

_LOGGER = logging.getLogger(__name__)
_JOIN_SECONDS = 600.0
_STALL_SECONDS = 60.0


def search(
    hypermodel: ImageClassifierHyperModel,
    directory: str | os.PathLike[str],
    *,
    strategy: str = "random",
    trials: int = 20,
    objective: str | keras_tuner.Objective | None = None,
    executions_per_trial: int = 1,
    workers: int | str | None = None,
    pruning: str = "none",
    calibrate: bool = True,
    seed: int = 42,
    resume: bool = False,
    retrain: bool = False,
    progress: Progress | None = None,
) -> SearchResult:
    """Searches for the best model of a space.

    The directory gets `trials.csv` and `trials.json`, updated whenever a trial ends;
    at the end `best_hyperparameters.json`, `model.keras`, the saved model of the best
    trial, its `history.json`, `history.csv` and `history.png`, and the plots
    `scores.png`, `parallel_coordinates.png` and `hyperparameters.png`. `split.json`
    says which images train and which validate. `tensorboard/` holds one folder per
    trial for TensorBoard and its HParams tab, and `trials/` the record, the history
    and the weights of each trial.

    A trial that fails is recorded with its error, and the search continues. With the
    same seed, and one worker or none, a search gives the same results on the same
    machine, also if it is interrupted and resumed. With several workers, the next trial
    of a Bayesian or Hyperband search and what is pruned depend on which trials are
    finished.

    If KerasTuner's variables `KERASTUNER_TUNER_ID`, `KERASTUNER_ORACLE_IP` and
    `KERASTUNER_ORACLE_PORT` are set, the call takes part in a search over several
    processes or machines that share the directory: as its chief if the id contains
    `chief`, otherwise as a worker.

    Args:
        hypermodel: The space, and how a model is trained.
        directory: Directory for the results, new or empty.
        strategy: `"random"`, `"bayesian"`, `"hyperband"` or `"grid"`. Hyperband sets
            the number of epochs of each trial, up to the maximum of the hypermodel.
        trials: Maximum number of trials. A search ends earlier when its space is
            exhausted, and with Hyperband when its brackets are done.
        objective: A metric of the validation images: `"val_accuracy"`, `"val_loss"`,
            or that of a metric with which the hypermodel compiles; a
            `keras_tuner.Objective` if its direction is not known. `None` is
            `"val_accuracy"`; where images may have several labels, it is
            `"val_mean_average_precision"`.
        executions_per_trial: How often each trial is trained, each time from other
            initial weights. Its score is the mean.
        workers: `None` runs the trials in this process. An integer starts a chief and
            that many worker processes on this machine, with a new process for each
            trial. A script must then guard its main part with
            `if __name__ == "__main__":`. `"auto"` starts one worker per GPU or, without
            GPUs, as many as speed up the search; the logger
            `keras_flowers.tuning.search` says how many and why, at level `INFO`.
        pruning: `"median"` ends a trial early if its best objective so far is worse
            than the median of at least three completed trials after the same epoch,
            from the fourth epoch on. With `executions_per_trial`, the first training
            decides. `"none"` trains every trial to its end. Not for Hyperband, which
            has its own rule.
        calibrate: Whether to calibrate the model in `model.keras` on the validation
            images, as `keras_flowers.train` does: to fit the temperature of its
            probabilities and the detector of unknown images. This needs an
            `ImageClassifier` and at least 50 validation images.
        seed: Integer seed of everything random.
        resume: Resume the search in the directory, if there is one; all finished
            trials are kept. It must be the same search; `trials` may differ.
        retrain: Afterwards, train the best hyperparameters on training and validation
            images together, into the run directory `retrained`.
        progress: Called as `progress(trials, planned)` whenever something changed,
            with a `TrialRecord` for each trial started so far and the maximum number
            of trials.

    Returns:
        `SearchResult`.

    Raises:
        InputError: If the data, an argument or the directory cannot be used.
        SearchError: If the chief dies, or a worker several times in a row. The search
            can be resumed.

    Example:
    ```python
    hypermodel = ImageClassifierHyperModel("flower_photos", epochs=(5, 15))
    result = search(hypermodel, "runs/search", trials=20)
    print(result.best.score, result.best.hyperparameters)
    ```
    """
    plan = make_plan(
        hypermodel,
        SearchDirectory(directory),
        strategy=strategy,
        trials=trials,
        objective=objective,
        executions_per_trial=executions_per_trial,
        seed=seed,
        pruning=pruning,
        calibrate=calibrate,
    )
    _check_workers(workers)
    elsewhere = address_from_environment()
    if elsewhere is not None and workers is not None:
        raise InputError(
            "`workers` starts its own chief, and KERASTUNER_ORACLE_IP names "
            "another one. Leave one of them out."
        )
    if workers == AUTO:
        choice = choose_workers(hypermodel, plan.planned)
        _LOGGER.info("%s", choice)
        workers = choice.count

    def run(plan: SearchPlan, show: Callable[[], None]) -> None:
        if elsewhere is None and workers is None:
            _run_here(plan, show)
        elif elsewhere is None:
            run_on_this_machine(plan, int(workers or 0), show)
        elif "chief" in elsewhere[1]:  # as KerasTuner decides
            run_chief_alone(plan, elsewhere[0], show)
        else:
            run_worker_alone(plan, elsewhere[1], elsewhere[0], show)

    if elsewhere is not None and "chief" not in elsewhere[1]:
        return _join(plan, run, progress)
    return _lead(plan, run, progress, resume=resume, retrain=retrain)


def _check_workers(workers: Any) -> None:
    """Refuses what is neither a positive integer nor `"auto"` nor `None`."""
    if isinstance(workers, str) and workers != AUTO:
        raise InputError(
            "`workers` must be a positive integer, 'auto' or None. "
            f"Received: workers={workers!r}"
        )
    if workers is not None and workers != AUTO:
        check_integer("workers", workers, lowest=1)


def _lead(
    plan: SearchPlan,
    run: Run,
    progress: Progress | None,
    *,
    resume: bool,
    retrain: bool,
) -> SearchResult:
    """Runs a search whose directory this process writes."""
    description = plan.description()
    plan.directory.check(description, resume=resume)
    plan = _load_data(plan)
    observer = _Observer(plan, progress, writes=True)
    with plan.directory.claim(description, resume=resume):
        write_manifest(plan.hypermodel.datasets().split, plan.directory.manifest)
        try:
            is_interrupted = _run(plan, run, observer)
        finally:
            write_tables(plan.records(), plan.directory.path)
        write_results(plan, is_over=not is_interrupted)
    observer()
    result = _result(plan, interrupted=is_interrupted)
    if retrain and result.best is not None and not is_interrupted:
        retrain_best(plan.directory.path, plan.hypermodel, result.best)
    return result


def _join(plan: SearchPlan, run: Run, progress: Progress | None) -> SearchResult:
    """Works for a search that a chief on another machine has started or will start."""
    description = plan.description()
    deadline = time.monotonic() + _JOIN_SECONDS
    if not plan.directory.compare(description):
        name = printable_path(plan.directory.path)
        _LOGGER.warning("Waiting for the chief to start its search in %s.", name)
    while not plan.directory.compare(description):
        if time.monotonic() > deadline:
            raise InputError(
                f"There is no search in {printable_path(plan.directory.path)} to join. "
                "All machines must share the chief's directory."
            )
        time.sleep(1)
    plan = _load_data(plan)
    is_interrupted = _run(plan, run, _Observer(plan, progress))
    return _result(plan, interrupted=is_interrupted)


def _run(plan: SearchPlan, run: Run, show: Callable[[], None]) -> bool:
    """Runs a search; returns whether Ctrl-C ended it."""
    try:
        run(plan, show)
    except KeyboardInterrupt:
        return True
    return False


def _run_here(plan: SearchPlan, show: Callable[[], None]) -> None:
    """Runs all trials in this process."""
    tuner = plan.tuner()
    tuner.oracle.reload()
    run_trials(tuner, TrialRunner(plan, tuner.tuner_id, show))


def _load_data(plan: SearchPlan) -> SearchPlan:
    """Loads the data, with the split of the search if there is one already."""
    if plan.directory.manifest.exists():
        plan = plan.with_split(plan.directory.manifest)
    if plan.hypermodel.datasets().validation is None:
        raise InputError("A search needs a validation split above 0.")
    # Here, once, and not in each worker.
    plan.hypermodel.load()
    return plan


def _result(plan: SearchPlan, *, interrupted: bool) -> SearchResult:
    records = plan.records()
    return SearchResult(
        directory=plan.directory.path,
        trials=records,
        best=best_record(records, plan.direction),
        interrupted=interrupted,
        _plan=plan,
    )


class _Observer:
    """Passes the records of the trials on whenever they have changed.

    Args:
        plan: The search.
        progress: Gets the records.
        writes: Whether to write the tables as well when a trial has ended.
    """

    def __init__(
        self, plan: SearchPlan, progress: Progress | None, *, writes: bool = False
    ) -> None:
        self._directory = plan.directory
        self._planned = plan.planned
        self._progress = progress
        self._writes = writes
        self._records: tuple[TrialRecord, ...] | None = None
        self._finished: int | None = None
        self._changed = time.monotonic()

    def __call__(self) -> None:
        """Reads the records and passes them on."""
        records = read_records(self._directory.trials, self._records or ())
        finished = sum(record.status != RUNNING for record in records)
        if records == self._records:
            self._warn_of_stall(is_idle=finished == len(records))
            return
        self._records, self._changed = records, time.monotonic()
        if self._writes and finished != self._finished:
            self._finished = finished
            write_tables(records, self._directory.path)
        if self._progress is not None:
            self._progress(records, self._planned)

    def _warn_of_stall(self, *, is_idle: bool) -> None:
        if is_idle and time.monotonic() - self._changed > _STALL_SECONDS:
            self._changed = time.monotonic()
            _LOGGER.warning(
                "No trial has been running for %.0f s. Waiting for workers; the logs "
                "in %s may say why.",
                _STALL_SECONDS,
                printable_path(self._directory.workers),
            )
