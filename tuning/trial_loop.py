"""Asks an oracle for trials, runs them, and reports them, until it has no more."""

import time
import warnings
from collections.abc import Callable

import keras_tuner
from keras_flowers.tuning.records import COMPLETED, TrialRecord
from keras_flowers.tuning.trial_runner import TrialRunner

IDLE_SECONDS = 0.5


def run_trials(
    oracle: keras_tuner.Oracle,
    worker: str,
    runner: TrialRunner,
    *,
    after_trial: Callable[[], bool],
) -> bool:
    """Runs trials until the oracle has no more.

    This is what `keras_tuner.Tuner.search` does, but for three things: it waits where
    the oracle is waiting, in place of asking it without a pause; it prints nothing;
    and a trial that fails does so at once, with its error on record.

    Args:
        oracle: An oracle, or what stands for one in a worker.
        worker: The id under which it is asked.
        runner: Runs a trial.
        after_trial: Called after each one; returns whether to go on.

    Returns:
        Whether the oracle has no more, rather than `after_trial` having stopped it.
    """
    while True:
        trial = _next_trial(oracle, worker)
        if trial.status == "STOPPED":
            return True
        if trial.status == "IDLE":
            time.sleep(IDLE_SECONDS)
            continue
        _report(oracle, trial, runner.run(trial.trial_id, trial.hyperparameters))
        if not after_trial():
            return False


def _next_trial(
    oracle: keras_tuner.Oracle, worker: str
) -> keras_tuner.engine.trial.Trial:
    with warnings.catch_warnings():
        # Bayesian search fits a model to few scores, and scikit-learn says so.
        warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
        return oracle.create_trial(worker)


def _report(
    oracle: keras_tuner.Oracle,
    trial: keras_tuner.engine.trial.Trial,
    record: TrialRecord,
) -> None:
    objective = oracle.objective.name
    if record.status == COMPLETED:
        metrics = {objective: record.score}
        oracle.update_trial(trial.trial_id, metrics, step=record.epoch)
        trial.status = "COMPLETED"
    else:
        trial.status, trial.message = "FAILED", record.error
    oracle.end_trial(trial)
