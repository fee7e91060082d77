"""What KerasTuner does not promise, and this package relies on."""

import contextlib

import keras
import keras_tuner
import pytest
from keras_flowers.tuning.keras_tuner_internals import (
    continued_trial,
    discard_worker,
    epochs_of_round,
    is_checkpoint,
    keep_serving,
    searched_values,
    workers_of,
)
from keras_flowers.tuning.workers import ChiefAddress

OBJECTIVE = keras_tuner.Objective("val_loss", "min")


def tuner_of(oracle, tmp_path):
    """Returns a tuner that has given the oracle its directory."""
    oracle.verbose = 0
    return keras_tuner.engine.base_tuner.BaseTuner(
        oracle, directory=str(tmp_path), project_name="trials"
    )


def random_oracle(trials=3):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        OBJECTIVE, max_trials=trials, max_retries_per_trial=1
    )
    oracle.hyperparameters.Int("units", 1, 1000)
    return oracle


def complete(oracle, trial, score):
    oracle.update_trial(trial.trial_id, {"val_loss": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def test_a_tuner_saves_with_one_callback_that_is_recognized(tmp_path):
    passed = []

    class Model(keras_tuner.HyperModel):
        def build(self, hp):
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            model.compile()
            return model

        def fit(self, hp, model, *args, callbacks=(), **kwargs):
            passed.extend(callbacks)
            return {"val_loss": 1.0}

    keras_tuner.RandomSearch(
        Model(), OBJECTIVE, max_trials=1, directory=tmp_path, project_name="one"
    ).search(verbose=0, callbacks=[keras.callbacks.Callback()])
    found = [callback for callback in passed if is_checkpoint(callback)]
    assert len(found) == 1
    assert len(passed) > 1
    # What the hypermodel does with it.
    found[0].set_model(Model().build(keras_tuner.HyperParameters()))
    path = tmp_path / "saved.weights.h5"
    found[0].filepath = str(path)
    found[0].on_epoch_end(0, {"val_loss": 1.0})
    assert path.exists()


def test_workers_are_known_until_they_are_told_to_stop(tmp_path):
    oracle = random_oracle(trials=1)
    tuner_of(oracle, tmp_path)
    trial = oracle.create_trial("one")
    assert workers_of(oracle) == {"one"}
    complete(oracle, trial, 1.0)
    assert workers_of(oracle) == {"one"}
    assert oracle.create_trial("one").status == "STOPPED"
    assert workers_of(oracle) == set()


def test_the_trial_of_a_discarded_worker_is_the_next_one(tmp_path, capsys):
    oracle = random_oracle()
    tuner_of(oracle, tmp_path)
    lost = oracle.create_trial("lost")
    discard_worker(oracle, "lost")
    assert workers_of(oracle) == set()
    again = oracle.create_trial("other")
    assert again.trial_id == lost.trial_id
    assert again.hyperparameters.values == lost.hyperparameters.values
    discard_worker(oracle, "unknown")


@pytest.mark.parametrize("serves_on", [True, False])
def test_a_chief_serves_as_long_as_it_counts_itself(tmp_path, monkeypatch, serves_on):
    """Without `keep_serving` it would end, which it must not before its last worker."""
    oracle = random_oracle(trials=1)
    monkeypatch.setenv("no_grpc_proxy", "")
    for name in ("ORACLE_IP", "ORACLE_PORT", "TUNER_ID"):
        monkeypatch.setenv(f"KERASTUNER_{name}", "")
    ChiefAddress("127.0.0.1", 0).announce("chief")
    tuner = tuner_of(oracle, tmp_path)
    complete(oracle, oracle.create_trial("one"), 1.0)
    if serves_on:
        keep_serving(oracle, "chief")

    class AskedError(Exception):
        pass

    def stop_or_sleep(seconds):
        # The loop of the chief sleeps for long only while it waits for workers.
        if seconds > 1:
            raise AskedError
        oracle.create_trial("one")
        servicers[0].stop_triggered = True

    servicers = []
    from keras_tuner.src.distribute import oracle_chief

    original = oracle_chief.OracleServicer
    monkeypatch.setattr(
        oracle_chief,
        "OracleServicer",
        lambda oracle: servicers.append(original(oracle)) or servicers[0],
    )
    monkeypatch.setattr(oracle_chief.time, "sleep", stop_or_sleep)
    expected = pytest.raises(AskedError) if serves_on else contextlib.nullcontext()
    with expected:
        tuner.search(verbose=0)


def test_hyperband_tells_a_trial_its_epochs_and_its_past(tmp_path):
    oracle = keras_tuner.oracles.HyperbandOracle(OBJECTIVE, max_epochs=3, factor=3)
    oracle.hyperparameters.Int("units", 1, 1000)
    tuner_of(oracle, tmp_path)
    trials = []
    for score in range(4):
        trial = oracle.create_trial("one")
        trials.append(trial.hyperparameters)
        complete(oracle, trial, float(score))
    assert [epochs_of_round(hp) for hp in trials] == [(0, 1)] * 3 + [(1, 3)]
    assert [continued_trial(hp) for hp in trials] == [None] * 3 + ["0000"]
    assert [set(searched_values(hp)) for hp in trials] == [{"units"}] * 4
    assert epochs_of_round(keras_tuner.HyperParameters()) is None
