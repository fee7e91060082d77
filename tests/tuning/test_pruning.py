"""Trials that are ended early."""

import json
import re

import keras
import numpy as np
import pytest
from helpers import small_loader
from keras_flowers.callbacks import read_history
from keras_flowers.tuning import ExecutionRecord, TrialRecord, search
from keras_flowers.tuning.pruning import MedianPruner
from keras_flowers.tuning.records import write_record
from keras_flowers.tuning.search_directory import SearchDirectory
from tuning_helpers import SmallSpace, small_space

from keras_flowers import InputError
from keras_flowers.history import write_history


def add_trial(directory, number, values, status="completed"):
    execution = ExecutionRecord(1, values[-1], len(values), {})
    trial = TrialRecord(str(number), status, {}, values[-1], (execution,))
    folder = directory.execution(trial.id, 0)
    folder.mkdir(parents=True)
    epochs = list(range(1, len(values) + 1))
    write_history({"epoch": epochs, "score": values}, folder)
    write_record(trial, directory.trial(trial.id))


@pytest.mark.parametrize("direction", ["max", "min"])
def test_a_trial_whose_best_is_below_the_median_is_hopeless(tmp_path, direction):
    directory = SearchDirectory(tmp_path)
    sign = 1 if direction == "max" else -1
    pruner = MedianPruner(directory, "score", direction)

    def is_hopeless(*values):
        return pruner.is_hopeless([sign * value for value in values])

    curves = [[0, 0, 8, 1, 4], [0, 0, 1, 2, 1, 1], [5, 5, 5, 3]]
    for number, curve in enumerate(curves):
        assert not is_hopeless(-9, -9, -9, -9), "before three trials are completed"
        add_trial(directory, number, [float(sign * value) for value in curve])
    assert is_hopeless(0, 0, 0, 1.9)
    assert not is_hopeless(0, 0, 0, 2)
    assert not is_hopeless(0, 2.1, 0, 0), "what counts is the best so far"
    assert not is_hopeless(-9, -9, -9), "before the fourth epoch"
    assert not is_hopeless(-9, -9, -9, -9, -9), "only two trials are as long"
    for number, status in enumerate(("pruned", "failed", "running"), start=3):
        add_trial(directory, number, [sign * 100.0] * 5, status)
    assert not is_hopeless(0, 0, 0, 2)
    add_trial(directory, 6, [sign * 100.0] * 5)
    assert is_hopeless(0, 0, 0, 2.4), "a fourth trial has been completed since"
    assert not is_hopeless(0, 0, 0, 2.5)
    assert is_hopeless(3.9, -9, -9, -9, -9)
    assert not is_hopeless(4, -9, -9, -9, -9)


class Hopeless(SmallSpace):
    """Widths above 24 start from weights that are far off, and learn nothing."""

    def compile(self, hp, model):
        width = hp.get("units_1")
        rate = 0.01 if width <= 24 else 0.0
        model.compile(keras.optimizers.SGD(rate), run_eagerly=True, jit_compile=False)
        if width > 24:
            last = model.layers[-1]
            last.set_weights([100 * weights for weights in last.get_weights()])


def find(tmp_path, name="search", **options):
    space = small_space(
        tmp_path,
        Hopeless,
        small_loader(tmp_path, batch_size=32),
        layers=1,
        units=(8, 40, 8),
        epochs=5,
    )
    options = {"strategy": "grid", "trials": 5, "pruning": "median"} | options
    return search(space, tmp_path / name, objective="val_loss", **options)


def content_of(trial):
    """What must be equal in two searches that are equal."""
    return {**trial.to_json(), "seconds": 0, "attempts": 1}


def test_hopeless_trials_are_pruned_also_in_a_search_that_is_resumed(tmp_path):
    result = find(tmp_path)
    assert [trial.status for trial in result.trials] == ["completed"] * 3 + [
        "pruned"
    ] * 2
    assert [trial.epoch for trial in result.trials] == [5] * 3 + [4] * 2
    assert result.best.status == "completed"
    assert "3 of 5 trials completed, 2 pruned, best" in repr(result)
    shown = re.findall(r">(completed|pruned)<", result._repr_html_())
    assert shown == ["completed"] * 3 + ["pruned"] * 2
    for trial in result.trials[3:]:
        folder = result.directory / "trials" / f"trial_{trial.id}" / "execution_0"
        history = read_history(folder)
        assert history["epoch"] == [1, 2, 3, 4]
        assert trial.score == history["val_loss"][-1]
        assert not (folder / "model.weights.h5").exists()
        with pytest.raises(InputError, match="must be a completed trial"):
            result.load_model(trial)
    page = (result.directory / "report.html").read_text()
    assert "Hopeless trials were ended early, with median pruning." in page
    assert "0 failed, 2 pruned" in page
    assert page.count("<td>pruned</td>") == 2
    # KerasTuner, whose Bayesian search learns from their scores, knows them as well.
    state = json.loads((result.directory / "trials" / "oracle_state.json").read_text())
    known = {item["trial_id"]: item["score"] for item in state["trials"]}
    assert known == {t.id: pytest.approx(t.score) for t in result.trials}

    def interrupt(trials, planned):
        if len(trials) == 4 and trials[-1].epoch == 1:
            raise KeyboardInterrupt

    assert find(tmp_path, "part", progress=interrupt).interrupted
    with pytest.raises(InputError, match='its pruning is "median", not "none"'):
        find(tmp_path, "part", pruning="none", resume=True)
    rest = find(tmp_path, "part", resume=True)
    assert list(map(content_of, rest.trials)) == list(map(content_of, result.trials))


def test_the_best_model_learns_how_sure_it_may_be(tmp_path):
    loader = small_loader(
        tmp_path,
        {"daisy": 60, "roses": 60, "tulips": 60},
        validation_split=0.4,
        batch_size=32,
    )
    space = small_space(tmp_path, loader=loader, units=8, layers=1, epochs=1)
    models = []
    for name, calibrate in (("yes", True), ("no", False)):
        result = search(space, tmp_path / name, trials=1, calibrate=calibrate)
        models.append(keras.models.load_model(tmp_path / name / "model.keras"))
        assert result.load_model().temperature == 1
    calibrated, plain = models
    assert (plain.temperature, plain.unknown_detector) == (1, None)
    assert calibrated.temperature != 1
    assert calibrated.unknown_detector is not None
    images = space.datasets().validation
    before, after = (m.evaluate(images, verbose=0) for m in (plain, calibrated))
    assert after[0] < before[0]
    assert after[1] == before[1] == result.best.score
    for here, there in zip(plain.weights, calibrated.weights, strict=True):
        np.testing.assert_array_equal(here, there)
