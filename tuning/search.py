"""`search(...)`: from a space of models to the best of them, with everything seen."""

import copy
import os
from collections.abc import Callable

import keras_tuner

from keras_flowers.errors import InputError
from keras_flowers.splits import write_manifest
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel
from keras_flowers.tuning.plan import SearchPlan, make_plan
from keras_flowers.tuning.records import TrialRecord, best_record, write_tables
from keras_flowers.tuning.results import SearchResult, write_results
from keras_flowers.tuning.search_directory import SearchDirectory, back_up_oracle
from keras_flowers.tuning.trial_loop import run_trials
from keras_flowers.tuning.trial_runner import TrialRunner

Progress = Callable[[tuple[TrialRecord, ...], int], None]


def search(
    hypermodel: ImageClassifierHyperModel,
    directory: str | os.PathLike[str],
    *,
    strategy: str = "random",
    trials: int = 20,
    objective: str | keras_tuner.Objective = "val_accuracy",
    executions: int = 1,
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
    description = plan.description()
    plan.directory.check(description, resume=resume)
    _load(plan)
    interrupted = False
    with plan.directory.claimed(description, resume=resume):
        write_manifest(plan.hypermodel.datasets().split, plan.directory.manifest)
        try:
            run_here(plan, progress or _no_progress)
        except KeyboardInterrupt:
            interrupted = True
        records = write_results(
            plan.directory.path, plan.hypermodel, plan.settings, is_over=not interrupted
        )
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
    datasets = plan.hypermodel.datasets()
    if datasets.validation is None:
        raise InputError("A search needs a validation split above 0.")


def run_here(plan: SearchPlan, progress: Progress) -> None:
    """Runs all trials in this process."""
    planned = plan.planned
    tuner = plan.tuner()
    if (plan.directory.trials / "oracle.json").exists():
        tuner.oracle.reload()

    def show() -> None:
        progress(plan.records(), planned)

    def after_trial() -> bool:
        back_up_oracle(plan.directory.trials)
        write_tables(plan.records(), plan.directory.path)
        return True

    runner = TrialRunner(plan.hypermodel, plan.settings, tuner.tuner_id, show)
    run_trials(tuner.oracle, tuner.tuner_id, runner, after_trial=after_trial)


def _no_progress(records: tuple[TrialRecord, ...], planned: int) -> None:
    del records, planned
