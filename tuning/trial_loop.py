"""Asks an oracle for trials, runs them, and reports them, until it has no more."""

import time
from collections.abc import Callable

import keras_tuner
from keras_flowers.tuning.records import COMPLETED, PRUNED
from keras_flowers.tuning.trial_runner import TrialRunner

_IDLE_SECONDS = 0.5


def run_trials(
    tuner: keras_tuner.engine.base_tuner.BaseTuner,
    runner: TrialRunner,
    after_trial: Callable[[], None] = lambda: None,
) -> None:
    """Runs trials until the oracle has no more.

    Unlike `Tuner.search` it waits while the oracle has no trial to give instead of
    asking without a pause, and an error outside a trial ends the search instead of
    counting as a trial to be repeated.

    Args:
        tuner: Has the oracle, or a connection to it in a worker.
        runner: Runs a trial.
        after_trial: Called when a trial has been reported.
    """
    oracle, status = tuner.oracle, keras_tuner.engine.trial.TrialStatus
    while True:
        trial = oracle.create_trial(tuner.tuner_id)
        if trial.status == status.STOPPED:
            return
        if trial.status == status.IDLE:
            time.sleep(_IDLE_SECONDS)
            continue
        record = runner.run(trial.trial_id, trial.hyperparameters)
        if record.status in (COMPLETED, PRUNED):
            # The score of a pruned trial tells a Bayesian search where not to look.
            metrics = {oracle.objective.name: record.score}
            oracle.update_trial(trial.trial_id, metrics, step=record.epoch)
            trial.status = status.COMPLETED
        else:
            trial.status, trial.message = status.FAILED, record.error
        oracle.end_trial(trial)
        after_trial()
