import pickle

import keras
import keras_tuner
import numpy as np
import pytest
from helpers import small_loader
from keras_flowers.tuning import ImageClassifierHyperModel
from keras_flowers.tuning.oracles import (
    STRATEGIES,
    combinations,
    hyperband_trials,
    make_oracle,
    planned_trials,
)
from tuning_helpers import SmallSpace, small_space

from keras_flowers import ImageAugmentation, InputError


def space_of(hypermodel):
    hp = keras_tuner.HyperParameters()
    hypermodel.declare_hyperparameters(hp)
    return hp


def test_everything_is_declared_without_building_a_model(tmp_path):
    hypermodel = small_space(
        tmp_path, dropout=(0.0, 0.5, 0.1), learning_rate=(1e-4, 1e-2), batch_size=(4, 8)
    )
    names = [item.name for item in space_of(hypermodel).space]
    assert names == [
        "layers",
        "units_1",
        "units_2",
        "epochs",
        "dropout",
        "learning_rate",
        "batch_size",
    ]
    assert not (tmp_path / "cache").exists(), "the data was loaded"


def test_data_is_what_a_loader_loaded_or_is_refused(tmp_path):
    loader = small_loader(tmp_path)
    assert ImageClassifierHyperModel(loader.load()).loader is loader
    for wrong in (None, np.zeros((2, 8, 8, 3)), (np.zeros((2, 8, 8, 3)), [0, 1])):
        with pytest.raises(InputError, match="`data` must be a folder"):
            ImageClassifierHyperModel(wrong)


def test_the_oracle_sees_all_of_it_before_the_first_trial(tmp_path):
    hypermodel = small_space(tmp_path, batch_size=(4, 8))
    tuner = keras_tuner.RandomSearch(
        hypermodel, "val_accuracy", directory=tmp_path, project_name="stock"
    )
    declared = {item.name for item in tuner.oracle.get_space().space}
    assert declared == {"layers", "units_1", "units_2", "epochs", "batch_size"}


@pytest.mark.parametrize(
    ("values", "units", "dropout"),
    [
        ({}, (8,), 0.0),
        ({"layers": 1, "units_1": 24, "dropout": 0.5}, (24,), 0.5),
        ({"layers": 2, "units_1": 24, "units_2": 8, "dropout": 0.25}, (24, 8), 0.25),
        # As NumPy and oracles give them.
        ({"layers": np.int64(1), "units_1": np.int64(16)}, (16,), 0.0),
    ],
)
def test_build_gives_the_model_of_the_values(tmp_path, values, units, dropout):
    hypermodel = small_space(tmp_path, dropout=(0.0, 0.5), seed=1)
    hp = keras_tuner.HyperParameters()
    hp.values = dict(values)
    model = hypermodel.build(hp)
    assert model.hidden_units == units
    assert model.dropout == dropout
    assert model.image_size == (8, 8)
    assert model.compiled


def test_widths_are_active_in_trials_with_so_many_layers(tmp_path):
    hypermodel = small_space(tmp_path, layers=(0, 2), units=(8, 16, 8), epochs=1)
    found = [
        (values["layers"], values.get("units_1"), values.get("units_2"))
        for values in combinations(space_of(hypermodel))
    ]
    assert found == [
        (0, None, None),
        (1, 8, None),
        (1, 16, None),
        (2, 8, 8),
        (2, 8, 16),
        (2, 16, 8),
        (2, 16, 16),
    ]
    assert planned_trials("grid", hypermodel, 100) == 7
    assert planned_trials("grid", hypermodel, 3) == 3


def test_a_range_of_one_value_is_not_searched(tmp_path):
    hypermodel = small_space(tmp_path, layers=1, units=8, epochs=(2, 2))
    assert len(list(combinations(space_of(hypermodel)))) == 1


def test_the_top_of_a_range_is_the_last_step(tmp_path):
    assert small_space(tmp_path, units=(8, 30, 8)).units.high == 24


def test_both_ends_of_a_range_of_real_numbers_are_searched(tmp_path):
    hypermodel = small_space(
        tmp_path, layers=1, units=8, epochs=1, dropout=(0.0, 0.5, 0.1)
    )
    values = [v["dropout"] for v in combinations(space_of(hypermodel))]
    assert values == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    sampled = {
        round(space_of(hypermodel).space[3].random_sample(s), 6) for s in range(99)
    }
    assert sampled == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5}


def test_the_learning_rate_is_that_of_adam(tmp_path):
    hypermodel = ImageClassifierHyperModel(
        small_loader(tmp_path), learning_rate=(1e-4, 1e-2)
    )
    hp = keras_tuner.HyperParameters()
    hp.values = {"learning_rate": 0.005}
    optimizer = hypermodel.build(hp).optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.005)


def test_each_model_has_an_augmentation_of_its_own(tmp_path):
    layer = ImageAugmentation(zoom=0.3, value_range=(0, 1), seed=3)
    hypermodel = small_space(tmp_path, augmentation=layer)
    first, second = (
        hypermodel.build(keras_tuner.HyperParameters()).augmentation for _ in range(2)
    )
    assert first is not second
    assert first.get_config()["zoom"] == 0.3


def test_a_hypermodel_can_be_sent_to_another_process(tmp_path):
    hypermodel = small_space(tmp_path, seed=5)
    hypermodel.datasets()
    copy = pickle.loads(pickle.dumps(hypermodel))
    hp = keras_tuner.HyperParameters()
    weights = [h.build(hp).get_weights()[0] for h in (hypermodel, copy)]
    np.testing.assert_array_equal(*weights)
    other = copy.build(hp, seed=6).get_weights()[0]
    assert (other != weights[0]).any(), "it does not depend on the seed"


@pytest.mark.parametrize(
    "arguments",
    [
        {"layers": -1},
        {"layers": (3, 1)},
        {"units": 0},
        {"units": (8, 16, 0)},
        {"units": (8, 16, 8, 8)},
        {"units": "many"},
        {"units": 8.5},
        {"epochs": 0},
        {"dropout": 1.0},
        {"dropout": (0.5, 0.1)},
        {"dropout": (0.0, 0.5, 0)},
        {"dropout": (0.0, float("nan"))},
        {"learning_rate": 0},
        {"learning_rate": (1e-4, 1e-2, 1e-3)},
        {"batch_size": 0},
        {"batch_size": ()},
        {"batch_size": (8, 8)},
    ],
)
def test_wrong_ranges_are_named(tmp_path, arguments):
    (name,) = arguments
    with pytest.raises(InputError, match=f"`{name}` must be .*Received: {name}="):
        small_space(tmp_path, **arguments)


def test_a_score_is_last_or_best(tmp_path):
    with pytest.raises(InputError, match="`score`"):
        small_space(tmp_path, score="middle")


# --- with the tuners of KerasTuner


class Swinging(SmallSpace):
    """Learns so fast that the last epoch is seldom the best."""

    def compile(self, hp, model):
        model.compile(keras.optimizers.Adam(0.03), run_eagerly=True, jit_compile=False)


def stock_search(tmp_path, hypermodel, **options):
    tuner = keras_tuner.RandomSearch(
        hypermodel,
        "val_loss",
        max_trials=3,
        seed=3,
        directory=tmp_path,
        project_name="stock",
        **options,
    )
    tuner.search(verbose=0)
    return tuner


# KerasTuner saves the optimizer's state and loads into an optimizer without any.
loads_weights = pytest.mark.filterwarnings("ignore:Skipping variable loading")


@loads_weights
@pytest.mark.parametrize("score", ["last", "best"])
def test_a_saved_model_has_the_score_that_keras_tuner_reports(tmp_path, score):
    hypermodel = small_space(tmp_path, Swinging, epochs=(3, 6), score=score, seed=1)
    tuner = stock_search(tmp_path, hypermodel)
    trials = tuner.oracle.get_best_trials(3)
    validation = hypermodel.datasets().validation
    for trial in trials:
        model = tuner.load_model(trial)
        assert model.evaluate(validation, verbose=0)[0] == trial.score
    assert {trial.status for trial in trials} == {"COMPLETED"}


def test_last_and_best_differ_where_training_swings(tmp_path):
    scores = []
    for score in ("last", "best"):
        hypermodel = small_space(tmp_path, Swinging, epochs=(3, 6), score=score, seed=1)
        (tmp_path / score).mkdir()
        tuner = stock_search(tmp_path / score, hypermodel)
        scores.append([t.score for t in tuner.oracle.get_best_trials(3)])
    assert scores[0] != scores[1], "the two tests above compare nothing"


@loads_weights
def test_the_epochs_of_hyperband_win(tmp_path):
    hypermodel = small_space(tmp_path, epochs=(5, 9))
    tuner = keras_tuner.Hyperband(
        hypermodel,
        "val_loss",
        max_epochs=2,
        factor=2,
        directory=tmp_path,
        project_name="band",
        seed=1,
    )
    seen = []

    class Count(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            seen.append(self.params["epochs"])

    tuner.search(verbose=0, callbacks=[Count()])
    assert set(seen) == {1, 2}


def test_data_of_ones_own_can_be_passed_to_a_tuner(tmp_path):
    hypermodel = small_space(tmp_path, epochs=1)
    datasets = hypermodel.datasets()
    tuner = keras_tuner.GridSearch(
        hypermodel, "loss", max_trials=1, directory=tmp_path, project_name="own"
    )
    tuner.search(datasets.train, verbose=0)
    (trial,) = tuner.oracle.get_best_trials(1)
    assert not trial.metrics.exists("val_loss")


# --- the strategies


@pytest.mark.parametrize("epochs", [1, 3, 8, 9, 27])
def test_hyperband_has_as_many_trials_as_planned(tmp_path, epochs):
    hypermodel = small_space(tmp_path, units=(1, 999), epochs=epochs)
    oracle = make_oracle(
        "hyperband",
        hypermodel,
        keras_tuner.Objective("val_loss", "min"),
        trials=10_000,
        seed=0,
        state_file=tmp_path / "oracle_state.json",
    )
    tuner = keras_tuner.engine.base_tuner.BaseTuner(oracle, directory=str(tmp_path))
    count = 0
    while (trial := tuner.oracle.create_trial("one")).status == "RUNNING":
        assert trial.hyperparameters.values["tuner/epochs"] <= epochs
        tuner.oracle.update_trial(trial.trial_id, {"val_loss": float(count)})
        trial.status = "COMPLETED"
        tuner.oracle.end_trial(trial)
        count += 1
    assert count == hyperband_trials(epochs)


def next_trial(oracle, score, worker="one"):
    """Completes the next trial of an oracle; returns its id and its values."""
    trial = oracle.create_trial(worker)
    oracle.update_trial(trial.trial_id, {"val_loss": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    return trial.trial_id, trial.hyperparameters.values


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_oracle_resumes_from_its_state(tmp_path, strategy, capsys):
    hypermodel = small_space(tmp_path, layers=1, units=(1, 999), epochs=9)

    def oracle_in(folder, max_trials=10):
        oracle = make_oracle(
            strategy,
            hypermodel,
            keras_tuner.Objective("val_loss", "min"),
            trials=max_trials,
            seed=0,
            state_file=tmp_path / folder / "trials" / "oracle_state.json",
        )
        keras_tuner.engine.base_tuner.BaseTuner(
            oracle, directory=str(tmp_path / folder), project_name="trials"
        )
        (tmp_path / folder / "trials").mkdir(parents=True, exist_ok=True)
        return oracle

    whole = oracle_in("whole")
    expected = [next_trial(whole, 1 / (1 + number)) for number in range(7)]
    part = oracle_in("part")
    part.reload()  # nothing yet
    found = [next_trial(part, 1 / (1 + number)) for number in range(3)]
    part = oracle_in("part")
    part.reload()
    found += [next_trial(part, 1 / 4)]
    part.create_trial("killed")
    rest = oracle_in("part")
    rest.reload()
    assert rest.get_best_trials()[0].trial_id == found[3][0]
    found += [next_trial(rest, 1 / (1 + number), "other") for number in (4, 5, 6)]
    assert found == expected
    assert capsys.readouterr().out == ""


def test_an_unknown_strategy_is_named(tmp_path):
    objective = keras_tuner.Objective("val_loss", "min")
    with pytest.raises(InputError, match="`strategy` must be one of .*lucky"):
        make_oracle(
            "lucky",
            small_space(tmp_path),
            objective,
            trials=1,
            seed=0,
            state_file=tmp_path / "state.json",
        )
