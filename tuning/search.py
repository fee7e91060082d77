"""`search(...)`: from a space of models to the best of them, with everything seen."""

import copy
import os
import time
from collections.abc import Callable

import keras_tuner

from keras_flowers.arguments import checked_integer
from keras_flowers.errors import InputError
from keras_flowers.splits import write_manifest
from keras_flowers.tuning.crew import (
    address_from_environment,
    run_chief_alone,
    run_crew,
    run_worker_alone,
)
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel
from keras_flowers.tuning.plan import SearchPlan, make_plan
from keras_flowers.tuning.processes import CHIEF
from keras_flowers.tuning.records import (
    RUNNING,
    TrialRecord,
    best_record,
    write_tables,
)
from keras_flowers.tuning.results import SearchResult, write_results
from keras_flowers.tuning.search_directory import SearchDirectory, back_up_oracle
from keras_flowers.tuning.trial_loop import run_trials
from keras_flowers.tuning.trial_runner import TrialRunner

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
    progress: Progress | None = None,
) -> SearchResult:
    """Searches for the best model of a space."""
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
        return _own(plan, _run_on_this_machine(workers), show, resume=resume)
    if workers is not None:
        raise InputError(
            "`workers` starts a chief of its own, and KERASTUNER_ORACLE_IP names "
            "another one. Leave one of them out."
        )
    address, name = elsewhere
    if "chief" in name:  # as KerasTuner tells
        return _own(
            plan,
            lambda plan, show: run_chief_alone(plan, address, show),
            show,
            resume=resume,
        )
    return _join(
        plan, lambda plan, show: run_worker_alone(plan, name, address, show), show
    )


def _run_on_this_machine(workers: int | None) -> Run:
    if workers is None:
        return _run_here
    count = checked_integer("workers", workers, lowest=1)
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


def _load(plan: SearchPlan) -> None:
    """Loads the data, by the split of the search where there is one already."""
    if plan.directory.manifest.exists():
        plan.hypermodel.use_split(plan.directory.manifest)
    if plan.hypermodel.datasets().validation is None:
        raise InputError("A search needs a validation split above 0.")


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
        self._progress = progress
        self._planned = plan.planned
        self._shown: tuple[TrialRecord, ...] | None = None
        self._finished = -1

    def plain(self) -> None:
        """Passes the records on."""
        self._pass_on(self._plan.records())

    def with_tables(self) -> None:
        """Passes the records on, and writes the tables when a trial has ended."""
        records = self._plan.records()
        finished = sum(record.status != RUNNING for record in records)
        if finished != self._finished:
            self._finished = finished
            write_tables(records, self._plan.directory.path)
        self._pass_on(records)

    def _pass_on(self, records: tuple[TrialRecord, ...]) -> None:
        if self._progress is not None and records != self._shown:
            self._shown = records
            self._progress(records, self._planned)
