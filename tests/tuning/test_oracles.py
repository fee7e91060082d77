"""The strategies, without training anything."""

import keras_tuner
import pytest
from keras_flowers.tuning.oracles import make_oracle
from tuning_helpers import small_space

OBJECTIVE = keras_tuner.Objective("val_loss", "min")
TRIALS = 5


@pytest.mark.parametrize("strategy", ["random", "bayesian"])
def test_trials_are_the_same_if_the_oracle_is_loaded_before_each(tmp_path, strategy):
    """Of Bayesian search, the first three trials are random."""
    hypermodel = small_space(tmp_path, layers=0, learning_rate=(1e-5, 1e-1), epochs=1)

    def start(name):
        oracle = make_oracle(
            strategy,
            hypermodel,
            OBJECTIVE,
            trials=TRIALS,
            seed=3,
            state_file=tmp_path / name / "state.json",
        )
        keras_tuner.engine.base_tuner.BaseTuner(
            oracle, directory=str(tmp_path), project_name=name
        )
        oracle.reload()
        return oracle

    def run_trial(oracle):
        trial = oracle.create_trial("one")
        rate = trial.hyperparameters.values["learning_rate"]
        oracle.update_trial(trial.trial_id, {"val_loss": (rate - 0.01) ** 2})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        return rate

    oracle = start("whole")
    whole = [run_trial(oracle) for _ in range(TRIALS)]
    assert len(set(whole)) == TRIALS
    assert [run_trial(start("parts")) for _ in range(TRIALS)] == whole
