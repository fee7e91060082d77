"""`search(...)`: from a space of models to the best of them, with everything seen."""

import copy
import os
import time
from collections.abc import Callable

import keras_tuner
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel
from keras_flowers.tuning.plan import SearchPlan, make_plan
from keras_flowers.tuning.records import (
    RUNNING,
    RecordReader,
    TrialRecord,
    best_record,
    write_tables,
)
from keras_flowers.tuning.results import SearchResult, write_results
from keras_flowers.tuning.retraining import retrain_best
from keras_flowers.tuning.search_directory import SearchDirectory, back_up_oracle
from keras_flowers.tuning.supervisor import (
    address_from_environment,
    run_chief_alone,
    run_crew,
    run_worker_alone,
)
from keras_flowers.tuning.trial_loop import run_trials
from keras_flowers.tuning.trial_runner import TrialRunner

from keras_flowers.argument_checks import check_integer
from keras_flowers.data.splits import write_manifest
from keras_flowers.errors import InputError

Progress = Callable[[tuple[TrialRecord, ...], int], None]
Run = Callable[[SearchPlan, Callable[[], None]], None]

_JOIN_SECONDS = 600.0


def search(
    hypermodel: ImageClassifierHyperModel,
    directory: str | os.PathLike[str],
    *,
    strategy: str = "random",
    trials: int = 20,
    objective: str | keras_tuner.Objective = "val_accuracy",
    executions: int = 1,
    workers: int | None = None,
    seed: int = 42,
    resume: bool = False,
    retrain: bool = False,
    progress: Progress | None = None,
) -> SearchResult:
    """Searches for the best model of a space.

    The directory gets `trials.csv` and `trials.json`, kept up to date as trials end;
    at the end `best_hyperparameters.json`, `model.keras`, which is the saved model of
    the best trial, its `history.json`, `history.csv` and `history.png`, and the plots
    `scores.png`, `parallel_coordinates.png` and `hyperparameters.png`. `split.json`
    says which images trained and which validated. `tensorboard/` holds one folder
    per trial for TensorBoard and its HParams tab, and `trials/` the record, the
    history and the weights of each trial.

    A trial that fails is recorded with its error, and the search goes on. With the
    same seed, and one worker or none, a search gives the same results on the same
    machine.

    With KerasTuner's variables `KERASTUNER_TUNER_ID`, `KERASTUNER_ORACLE_IP` and
    `KERASTUNER_ORACLE_PORT` set, the same call takes part in a search over many
    processes or machines that see one directory: as its chief, where the id contains
    `chief`, or as a worker.

    Args:
        hypermodel: The space, and how a model is trained.
        directory: Folder for the results, new or empty.
        strategy: `"random"`, `"bayesian"`, `"hyperband"` or `"grid"`. Hyperband gives
            each trial its number of epochs, up to the highest of the hypermodel.
        trials: How many trials at most. A search ends earlier where its space has no
            more, and Hyperband's where its brackets are done.
        objective: A metric of the validation images: `"val_accuracy"`, `"val_loss"`,
            or that of a metric with which the hypermodel compiles; a
            `keras_tuner.Objective` where its direction is not known.
        executions: How often each trial is trained, from other initial weights. Its
            score is the mean.
        workers: `None` runs the trials in this process. An integer starts a chief
            and so many worker processes on this machine, a new process for each
            trial. A script must then guard its main part with
            `if __name__ == "__main__":`.
        seed: Integer that everything random follows from.
        resume: Go on with the search in the directory, if there is one, with all
            finished trials kept. It must be the same search; `trials` may differ.
        retrain: Afterwards, train the best hyperparameters on training and validation
            images together, into the run directory `retrained`.
        progress: Called as `progress(trials, planned)` whenever something changed,
            with a `TrialRecord` for each trial begun so far and the number of trials
            there will be at most.

    Returns:
        `SearchResult`.

    Raises:
        InputError: If the data, an argument or the directory cannot be used.
        SearchError: If the chief died, or workers again and again. The search can
            be resumed.

    Example:
    ```python
    hypermodel = ImageClassifierHyperModel("flower_photos", epochs=(5, 15))
    result = search(hypermodel, "runs/search", trials=20)
    print(result.best.score, result.best.hyperparameters)
    ```
    """
    plan = make_plan(
        copy.deepcopy(hypermodel),  # its seed and its split are set below
        SearchDirectory(directory),
        strategy=strategy,
        trials=trials,
        objective=objective,
        executions=executions,
        seed=seed,
    )
    show = _Show(plan, progress)
    elsewhere = address_from_environment()
    if elsewhere is None:
        result = _own(plan, _run_on_this_machine(workers), show, resume=resume)
        return _retrained(plan, result) if retrain else result
    if workers is not None:
        raise InputError(
            "`workers` starts a chief of its own, and KERASTUNER_ORACLE_IP names "
            "another one. Leave one of them out."
        )
    address, name = elsewhere
    if "chief" in name:  # as KerasTuner tells
        result = _own(
            plan,
            lambda plan, show: run_chief_alone(plan, address, show),
            show,
            resume=resume,
        )
        return _retrained(plan, result) if retrain else result
    return _join(
        plan, lambda plan, show: run_worker_alone(plan, name, address, show), show
    )


def _run_on_this_machine(workers: int | None) -> Run:
    if workers is None:
        return _run_here
    count = check_integer("workers", workers, lowest=1)
    return lambda plan, show: run_crew(plan, count, show)


def _own(plan: SearchPlan, run: Run, show: "_Show", *, resume: bool) -> SearchResult:
    """Runs a search whose directory is this process's to write."""
    description = plan.description()
    plan.directory.check(description, resume=resume)
    _load(plan)
    interrupted = False
    with plan.directory.claimed(description, resume=resume):
        write_manifest(plan.hypermodel.datasets().split, plan.directory.manifest)
        try:
            run(plan, show.with_tables)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            write_tables(plan.records(), plan.directory.path)
        write_results(
            plan.directory.path, plan.hypermodel, plan.settings, is_over=not interrupted
        )
    show.plain()
    return _result(plan, interrupted=interrupted)


def _join(plan: SearchPlan, run: Run, show: "_Show") -> SearchResult:
    """Works for a search that a chief elsewhere has begun, or is about to begin."""
    description = plan.description()
    deadline = time.monotonic() + _JOIN_SECONDS
    while not plan.directory.check_joined(description):
        if time.monotonic() > deadline:
            raise InputError(
                f"There is no search in {plan.directory.path} to join. All machines "
                "must see the chief's directory."
            )
        time.sleep(1)
    _load(plan)
    interrupted = False
    try:
        run(plan, show.plain)
    except KeyboardInterrupt:
        interrupted = True
    return _result(plan, interrupted=interrupted)


def _result(plan: SearchPlan, *, interrupted: bool) -> SearchResult:
    records = plan.records()
    return SearchResult(
        directory=plan.directory.path,
        trials=records,
        best=best_record(records, plan.direction),
        interrupted=interrupted,
        _hypermodel=plan.hypermodel,
        _settings=plan.settings,
    )


def _retrained(plan: SearchPlan, result: SearchResult) -> SearchResult:
    if result.best is not None and not result.interrupted:
        retrain_best(plan.directory.path, plan.hypermodel, result.best)
    return result


def _load(plan: SearchPlan) -> None:
    """Loads the data, by the split of the search where there is one already."""
    if plan.directory.manifest.exists():
        plan.hypermodel.use_split(plan.directory.manifest)
    if plan.hypermodel.datasets().validation is None:
        raise InputError("A search needs a validation split above 0.")
    # Here, once, and not in each worker.
    plan.hypermodel.load()


def _run_here(plan: SearchPlan, show: Callable[[], None]) -> None:
    """Runs all trials in this process."""
    tuner = plan.tuner()
    if (plan.directory.trials / "oracle.json").exists():
        tuner.oracle.reload()

    def after_trial() -> bool:
        back_up_oracle(plan.directory.trials)
        return True

    runner = TrialRunner(plan.hypermodel, plan.settings, tuner.tuner_id, show)
    run_trials(tuner.oracle, tuner.tuner_id, runner, after_trial=after_trial)


class _Show:
    """Passes on what is known of the trials whenever it has changed."""

    def __init__(self, plan: SearchPlan, progress: Progress | None) -> None:
        self._plan = plan
        self._records = RecordReader(plan.directory.trials)
        self._progress = progress
        self._planned = plan.planned
        self._shown: tuple[TrialRecord, ...] | None = None
        self._finished = -1

    def plain(self) -> None:
        """Passes the records on."""
        self._pass_on(self._records.read())

    def with_tables(self) -> None:
        """Passes the records on, and writes the tables when a trial has ended."""
        records = self._records.read()
        finished = sum(record.status != RUNNING for record in records)
        if finished != self._finished:
            self._finished = finished
            write_tables(records, self._plan.directory.path)
        self._pass_on(records)

    def _pass_on(self, records: tuple[TrialRecord, ...]) -> None:
        if self._progress is not None and records != self._shown:
            self._shown = records
            self._progress(records, self._planned)
