"""Everything this package knows about KerasTuner that its interface does not promise.

Each function names the reason. tests/tuning/test_keras_tuner_internals.py fails when
KerasTuner changes one of them.
"""

from typing import Any

import keras
import keras_tuner


def is_checkpoint(callback: keras.callbacks.Callback) -> bool:
    """Tells whether a callback is the one with which a tuner saves a model.

    A tuner saves the epoch with the best objective, and adds this callback to those
    that it passes to `HyperModel.fit`. Its class is not exported.
    """
    return type(callback).__name__ == "SaveBestEpoch"


def keep_serving(oracle: keras_tuner.Oracle, name: str) -> None:
    """Keeps a chief from ending by itself, by counting it among the workers.

    A chief ends as soon as it told all workers that asked so far that the search is
    over. Another worker may still be starting.
    """
    oracle.tuner_ids.add(name)


def workers_of(oracle: keras_tuner.Oracle) -> set[str]:
    """Returns the names of all workers that have not been told to stop."""
    return {*oracle.tuner_ids, *oracle.ongoing_trials}


def discard_worker(oracle: keras_tuner.Oracle, name: str) -> None:
    """Gives the trial of a worker that is gone to the next worker that asks.

    KerasTuner waits forever for a worker that does not report its trial.
    """
    trial = oracle.ongoing_trials.get(name)
    if trial is not None:
        retry_later(oracle, trial, f"its worker {name} is gone")
    oracle.tuner_ids.discard(name)


def release_trials(oracle: keras_tuner.Oracle) -> None:
    """Hands the trials out again that were running when the state was saved.

    KerasTuner saves its state before it forgets a trial that has ended, so such a
    trial is dropped here.
    """
    for trial in list(oracle.ongoing_trials.values()):
        if trial.status == keras_tuner.engine.trial.TrialStatus.RUNNING:
            retry_later(oracle, trial, "the search was interrupted")
    oracle.ongoing_trials.clear()


def retry_later(
    oracle: keras_tuner.Oracle, trial: keras_tuner.engine.trial.Trial, reason: str
) -> None:
    """Hands a trial that nobody runs any more out again.

    Documented: a trial that ends as invalid is tried again.
    """
    trial.status = keras_tuner.engine.trial.TrialStatus.INVALID
    trial.message = reason
    oracle.end_trial(trial)


def epochs_of_round(hp: keras_tuner.HyperParameters) -> tuple[int, int] | None:
    """Returns the epochs before and after the round of Hyperband that a trial is in.

    Documented: `HyperbandOracle` describes these hyperparameters. `None` with other
    oracles.
    """
    if "tuner/epochs" not in hp.values:
        return None
    return hp.values["tuner/initial_epoch"], hp.values["tuner/epochs"]


def continued_trial(hp: keras_tuner.HyperParameters) -> str | None:
    """Returns the id of the trial whose weights a trial of Hyperband starts from."""
    trial_id: str | None = hp.values.get("tuner/trial_id")
    return trial_id


def searched_values(hp: keras_tuner.HyperParameters) -> dict[str, Any]:
    """Returns the values of a trial without those that Hyperband adds for itself."""
    return {k: v for k, v in hp.values.items() if not k.startswith("tuner/")}
