import csv
import dataclasses
import json
import math
import os
import re
import socket
import sys

import filelock
import keras
import keras_tuner
import numpy as np
import pytest
from event_reading import read_runs
from helpers import small_loader
from keras_flowers.callbacks import read_history
from keras_flowers.tuning import (
    SearchError,
    TrialRecord,
    search,
    search_plots,
    supervisor,
)
from keras_flowers.tuning.plan import make_plan
from keras_flowers.tuning.search_directory import SearchDirectory
from keras_flowers.tuning.workers import ChiefAddress, ChiefMonitor
from tuning_helpers import SmallGraphSpace, SmallSpace, small_space

from keras_flowers import InputError

# `keras_flowers.tuning.search` is the function.
search_module = sys.modules["keras_flowers.tuning.search"]
RESULTS = {
    "best_hyperparameters.json",
    "history.csv",
    "history.json",
    "history.png",
    "hyperparameters.png",
    "model.keras",
    "parallel_coordinates.png",
    "report.html",
    "scores.png",
    "search.json",
    "split.json",
    "tensorboard",
    "trials",
    "trials.csv",
    "trials.json",
    "workers",
}


def run(tmp_path, hypermodel=None, *, directory="search", **options):
    return search(
        hypermodel or small_space(tmp_path),
        tmp_path / directory,
        **{"trials": 3, "objective": "val_loss"} | options,
    )


def values_of(trials):
    """What must be equal in two searches that are equal."""
    return [(t.id, t.status, t.hyperparameters, t.score, t.executions) for t in trials]


def files(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def graph_space(folder, **arguments):
    """The space of the search that is trained as users train: with a graph."""
    options = {"batch_size": (4, 8), "augmentation": True} | arguments
    return small_space(folder, SmallGraphSpace, **options)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A random search, its folder, and what its progress callback was told."""
    folder = tmp_path_factory.mktemp("found")
    told = []
    result = run(
        folder,
        graph_space(folder),
        trials=3,
        executions_per_trial=2,
        progress=lambda trials, planned: told.append((trials, planned)),
    )
    return folder, result, told


def test_a_search_leaves_everything_in_its_directory(found):
    folder, result, _ = found
    assert files(result.directory) == RESULTS
    assert result.directory == folder / "search"
    assert not result.interrupted
    assert [trial.status for trial in result.trials] == ["completed"] * 3
    for name in RESULTS:
        if name.endswith(".png"):
            content = (result.directory / name).read_bytes()
            assert content.startswith(b"\x89PNG")


def test_the_report_shows_the_best_trial_all_trials_and_the_classes(found):
    _, result, _ = found
    page = (result.directory / "report.html").read_text()
    best = result.best
    assert f"trial {best.id}, whose weights are in model.keras" in page
    scores = re.findall(r'<th scope="row">(\d+)</th><td>([\d.]+)</td>', page)
    ranked = sorted(result.trials, key=lambda trial: trial.score)
    expected = [(trial.id, f"{trial.score:.4f}") for trial in ranked]
    assert scores[: len(expected)] == expected
    for name in (*best.hyperparameters, "daisy", "roses", "tulips"):
        assert f'<th scope="row">{name}</th>' in page
    assert page.count("<svg") == 3
    heads = re.findall(r'<th scope="col">([^<]+)</th>', page)
    for name, value in best.hyperparameters.items():
        values = {trial.hyperparameters.get(name) for trial in result.trials}
        assert (name in heads) is (len(values) > 1), (name, value)
    assert "layers" in best.hyperparameters and "units_1" in heads
    assert "pruning" not in page
    assert "http" not in re.sub(r"http-equiv", "", page)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("execution", [0, 1])
def test_evaluating_a_saved_model_gives_its_score(found, number, execution):
    folder, result, _ = found
    trial = result.trials[number]
    record = trial.executions[execution]
    model = result.load_model(trial, execution)
    hypermodel = graph_space(folder)
    images = hypermodel.datasets(trial.hyperparameters["batch_size"]).validation
    loss, accuracy = model.evaluate(images, verbose=0)
    assert loss == record.score == record.metrics["val_loss"]
    assert accuracy == record.metrics["val_accuracy"]
    assert record.epoch == trial.epoch == trial.hyperparameters["epochs"]


def test_the_score_of_a_trial_is_the_mean_of_its_executions(found):
    _, result, _ = found
    for trial in result.trials:
        first, second = trial.executions
        assert trial.score == pytest.approx((first.score + second.score) / 2)
        assert first.seed != second.seed
        assert first.score != second.score


def test_the_best_model_is_that_of_the_best_trial(found):
    folder, result, _ = found
    best = min(result.trials, key=lambda trial: trial.score)
    assert result.best == best
    execution = min(range(2), key=lambda k: best.executions[k].score)
    model = keras.models.load_model(result.directory / "model.keras")
    images = small_space(folder).datasets().validation
    np.testing.assert_array_equal(
        model.predict(images, verbose=0),
        result.load_model(best, execution).predict(images, verbose=0),
    )
    written = json.loads((result.directory / "best_hyperparameters.json").read_text())
    assert written["trial"] == best.id
    assert written["hyperparameters"] == best.hyperparameters
    assert written["seed"] == best.executions[execution].seed
    history = read_history(result.directory)
    assert history["epoch"] == [i + 1 for i in range(best.hyperparameters["epochs"])]
    assert history["val_loss"][-1] == best.executions[execution].score


def test_the_tables_hold_every_trial(found):
    _, result, _ = found
    with (result.directory / "trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["trial"] for row in rows] == [trial.id for trial in result.trials]
    for row, trial in zip(rows, result.trials, strict=True):
        assert float(row["score"]) == trial.score
        for name, value in trial.hyperparameters.items():
            assert float(row[name]) == value
        assert float(row["val_accuracy"]) <= 1
    content = json.loads((result.directory / "trials.json").read_text())
    assert [item["hyperparameters"] for item in content] == [
        trial.hyperparameters for trial in result.trials
    ]


def test_progress_tells_of_every_epoch(found):
    _, result, told = found
    assert {planned for _, planned in told} == {3}
    first = [t[0] for t, _ in told if len(t) == 1 and t[0].status == "running"]
    epochs = result.trials[0].hyperparameters["epochs"]
    assert {trial.epoch for trial in first} == set(range(epochs + 1))
    assert told[-1][0] == result.trials


def tags_of(folder):
    return {tag for tags in read_runs(folder).values() for tag in tags}


def test_every_training_has_a_tensorboard_folder_and_an_hparams_entry(found):
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    _, result, _ = found
    for trial in result.trials:
        for execution in range(2):
            folder = result.directory / "tensorboard" / trial.id
            events = event_accumulator.EventAccumulator(
                str(folder / f"execution_{execution}")
            ).Reload()
            assert {"precision/daisy", "recall/tulips"} <= tags_of(folder)
            content = events.PluginTagToContent("hparams")
            start = plugin_data_pb2.HParamsPluginData.FromString(
                content["_hparams_/session_start_info"]
            ).session_start_info
            shown = {name: v.number_value for name, v in start.hparams.items()}
            assert start.hparams["trial"].string_value == trial.id
            assert shown == {**trial.hyperparameters, "trial": 0}


def test_a_score_needs_a_trial_that_is_there(found):
    _, result, _ = found
    with pytest.raises(InputError, match="`execution` must be from 0 to 1"):
        result.load_model(result.best, 2)
    failed = dataclasses.replace(result.best, status="failed")
    with pytest.raises(InputError, match="`trial` must be a completed trial"):
        result.load_model(failed)


@pytest.mark.parametrize(
    ("strategy", "trials"),
    # Of Bayesian search the first three are random, of Hyperband promoted ones last.
    [("random", 2), ("bayesian", 4), ("hyperband", 4)],
)
def test_the_same_seed_gives_the_same_search(tmp_path, strategy, trials):
    options = {"strategy": strategy, "trials": trials, "seed": 7}
    space = {
        "layers": 1,
        "epochs": 3 if strategy == "hyperband" else (1, 2),
        "augmentation": strategy == "random",
    }
    first, second = (
        run(tmp_path, small_space(tmp_path, **space), directory=name, **options)
        for name in ("first", "second")
    )
    assert values_of(first.trials) == values_of(second.trials)
    assert all(trial.status == "completed" for trial in first.trials)


def test_another_seed_gives_another_search(tmp_path):
    first = run(tmp_path, directory="first", trials=1, seed=0)
    second = run(tmp_path, directory="second", trials=1, seed=1)
    assert first.trials[0].executions != second.trials[0].executions


def test_hyperband_goes_on_with_the_weights_of_the_trial_it_promotes(tmp_path):
    hypermodel = small_space(tmp_path, layers=1, epochs=3)
    result = run(tmp_path, hypermodel, strategy="hyperband", trials=4)
    promoted = [trial for trial in result.trials if trial.continues]
    assert promoted
    for trial in promoted:
        past = next(t for t in result.trials if t.id == trial.continues)
        assert trial.hyperparameters["epochs"] == 3
        assert past.hyperparameters["epochs"] == 1
        folder = result.directory / "trials" / f"trial_{trial.id}" / "execution_0"
        history = read_history(folder)
        assert history["epoch"] == [1, 2, 3]
        assert history["val_loss"][0] == past.score
        assert history["val_loss"][2] == trial.score


def test_a_space_that_is_exhausted_ends_the_search(tmp_path):
    space = small_space(tmp_path, layers=1, units=(8, 16, 8), epochs=1)
    for strategy in ("grid", "random"):
        result = run(tmp_path, space, directory=strategy, strategy=strategy, trials=50)
        assert sorted(t.hyperparameters["units_1"] for t in result.trials) == [8, 16]


class Unlearning(SmallSpace):
    """Goes uphill, so that each epoch is worse than the one before."""

    def compile(self, hp, model):
        model.compile(keras.optimizers.SGD(-0.01), run_eagerly=True, jit_compile=False)


def test_the_best_epoch_is_an_option(tmp_path):
    hypermodel = small_space(tmp_path, Unlearning, epochs=3, score="best")
    result = run(tmp_path, hypermodel, trials=2)
    at = []
    for trial in result.trials:
        folder = result.directory / "trials" / f"trial_{trial.id}" / "execution_0"
        losses = read_history(folder)["val_loss"]
        assert trial.score == min(losses)
        assert losses[trial.executions[0].epoch - 1] == trial.score
        at.append(trial.executions[0].epoch)
        loss, _ = result.load_model(trial).evaluate(
            hypermodel.datasets().validation, verbose=0
        )
        assert loss == trial.score
    assert at == [1, 1]


# --- what fails


class Dead(SmallSpace):
    """Its hidden units are 0 for every image, so they have no gradient."""

    def compile(self, hp, model):
        super().compile(hp, model)
        kernel, bias = model.get_layer("hidden_1").get_weights()
        model.get_layer("hidden_1").set_weights([kernel * 0, bias - 1])


@pytest.mark.parametrize("score", ["last", "best"])
def test_a_trial_whose_network_has_collapsed_is_marked(tmp_path, score):
    hypermodel = small_space(tmp_path, Dead, layers=1, units=8, epochs=4, score=score)
    (trial,) = run(tmp_path, hypermodel, trials=1).trials
    assert trial.status == "completed"
    assert trial.has_collapsed
    assert "collapsed" not in trial.executions[0].metrics
    folder = SearchDirectory(tmp_path / "search").execution(trial.id, 0)
    assert read_history(folder)["collapsed"][-1] == 1


class Failing(SmallSpace):
    """Fails for some widths, in three ways."""

    def compile(self, hp, model):
        width = model.hidden_units[0]
        if width == 8:
            raise MemoryError("no memory for 8 units")
        rate = 1e30 if width == 16 else 1e-3
        model.compile(keras.optimizers.SGD(rate), run_eagerly=True, jit_compile=False)


def test_a_trial_that_fails_is_recorded_and_the_search_goes_on(tmp_path):
    hypermodel = small_space(tmp_path, Failing, layers=1, units=(8, 24, 8), epochs=2)
    result = run(tmp_path, hypermodel, strategy="grid", trials=10)
    by_width = {trial.hyperparameters["units_1"]: trial for trial in result.trials}
    assert by_width[8].error == "MemoryError: no memory for 8 units"
    assert "nan" in by_width[16].error or "inf" in by_width[16].error
    assert [by_width[w].status for w in (8, 16, 24)] == [
        "failed",
        "failed",
        "completed",
    ]
    assert result.best == by_width[24]
    text = (result.directory / "trials.csv").read_text()
    assert "no memory for 8 units" in text


def test_an_impossible_width_is_a_failed_trial(tmp_path):
    hypermodel = small_space(tmp_path, layers=1, units=10**18, epochs=1)
    result = run(tmp_path, hypermodel, trials=1)
    (trial,) = result.trials
    assert trial.status == "failed"
    assert trial.error
    assert result.best is None
    assert "model.keras" not in files(result.directory)
    assert {"trials.csv", "trials.json"} <= files(result.directory)


def test_more_failures_than_keras_tuner_puts_up_with(tmp_path):
    hypermodel = small_space(tmp_path, Failing, layers=1, units=8, epochs=(1, 9))
    result = run(tmp_path, hypermodel, trials=4)
    assert [trial.status for trial in result.trials] == ["failed"] * 4


def test_a_metric_that_training_does_not_give_ends_the_search(tmp_path):
    with pytest.raises(InputError, match=r"`objective` must be one of \['accuracy'"):
        run(tmp_path, objective=keras_tuner.Objective("val_beauty", "max"))


def test_a_metric_of_ones_own_can_be_the_objective(tmp_path):
    class WithTopTwo(SmallSpace):
        def compile(self, hp, model):
            top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_two")
            model.compile(
                metrics=["accuracy", top], run_eagerly=True, jit_compile=False
            )

    objective = keras_tuner.Objective("val_top_two", "max")
    result = run(
        tmp_path, small_space(tmp_path, WithTopTwo), trials=1, objective=objective
    )
    assert result.best.score == result.best.executions[0].metrics["val_top_two"]


def test_the_result_of_a_fit_of_ones_own_is_the_score(tmp_path):
    class Own(SmallSpace):
        def fit(self, hp, model, *args, **kwargs):
            super().fit(hp, model, *args, **kwargs)
            return 0.25

    result = run(tmp_path, small_space(tmp_path, Own), trials=1)
    assert result.best.score == 0.25


# --- interrupted and resumed


def interrupt_at(count):
    def progress(trials, planned):
        if len(trials) == count and trials[-1].epoch == 1:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("strategy", ["random", "hyperband", "grid"])
def test_a_resumed_search_equals_one_that_was_not_interrupted(tmp_path, strategy):
    options = {"strategy": strategy, "trials": 4 if strategy == "hyperband" else 3}
    augmentation = strategy == "random"
    space = small_space(tmp_path, layers=1, epochs=3, augmentation=augmentation)
    whole = run(tmp_path, space, directory="whole", **options)
    part = run(tmp_path, space, progress=interrupt_at(2), **options)
    assert part.interrupted
    assert [trial.status for trial in part.trials] == ["completed", "running"]
    weights = part.directory.glob("trials/*/*/*.weights.h5")
    written = {path: path.stat().st_mtime_ns for path in weights}
    rest = run(tmp_path, space, resume=True, **options)
    assert values_of(rest.trials) == values_of(whole.trials)
    assert rest.trials[1].attempts == 2
    assert len(written) == 1
    for path, time in written.items():
        assert path.stat().st_mtime_ns == time, "a finished trial was trained again"


def test_a_resumed_search_may_have_more_trials(tmp_path):
    first = run(tmp_path, trials=1)
    second = run(tmp_path, trials=2, resume=True)
    assert values_of(second.trials[:1]) == values_of(first.trials)
    assert len(second.trials) == 2


def test_resume_begins_where_nothing_was_begun(tmp_path):
    assert len(run(tmp_path, trials=1, resume=True).trials) == 1


@pytest.mark.parametrize("cut", ["oracle_state.json", "trial_2/trial.json"])
def test_files_that_were_cut_short_keep_no_finished_trial_from_being_kept(
    tmp_path, cut
):
    part = run(tmp_path, progress=interrupt_at(3), trials=4)
    path = part.directory / "trials" / cut
    path.write_text(path.read_text()[:50])
    rest = run(tmp_path, trials=4, resume=True)
    assert values_of(rest.trials[:2]) == values_of(part.trials[:2])
    assert [trial.attempts for trial in rest.trials[:2]] == [1, 1]
    assert len(rest.trials) == 4


def test_a_process_that_dies_twice_in_a_trial_has_that_trial_failed(tmp_path):
    part = run(tmp_path, progress=interrupt_at(2), trials=3)
    record = part.directory / "trials" / "trial_1" / "record.json"
    content = json.loads(record.read_text())
    assert content["status"] == "running"
    record.write_text(json.dumps({**content, "attempts": 2}))
    rest = run(tmp_path, trials=3, resume=True)
    assert rest.trials[1].status == "failed"
    assert "ended 2 times" in rest.trials[1].error
    assert rest.trials[2].status == "completed"


def test_a_trial_that_was_finished_but_not_reported_is_not_trained_again(tmp_path):
    part = run(tmp_path, progress=interrupt_at(2), trials=2)
    folder = part.directory / "trials" / "trial_1"
    content = json.loads((folder / "record.json").read_text())
    done = {"status": "completed", "score": 99.0, "executions": []}
    (folder / "record.json").write_text(json.dumps({**content, **done}))
    rest = run(tmp_path, trials=2, resume=True)
    assert rest.trials[1].score == 99.0
    assert not (folder / "execution_0" / "model.weights.h5").exists()


# --- what cannot be used


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": "lucky"}, "`strategy` must be one of"),
        ({"trials": 0}, "`trials` must be a positive integer"),
        (
            {"executions_per_trial": 0},
            "`executions_per_trial` must be a positive integer",
        ),
        ({"workers": 0}, "`workers` must be a positive integer"),
        ({"workers": "many"}, "`workers` must be a positive integer, 'auto' or None"),
        ({"pruning": "mean"}, r"`pruning` must be one of \('none', 'median'\)"),
        (
            {"pruning": "median", "strategy": "hyperband"},
            "`pruning` does not go with the strategy 'hyperband'",
        ),
        ({"seed": -1}, "`seed` must be an integer from 0"),
        ({"objective": "accuracy"}, "`objective` must be a metric of the validation"),
        ({"objective": 3}, "`objective` must be a metric of the validation"),
        ({"objective": "val_beauty"}, "says whether more of it is better"),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_touched(
    tmp_path, options, message
):
    with pytest.raises(InputError, match=message):
        run(tmp_path, **options)
    assert not (tmp_path / "search").exists()
    assert not (tmp_path / "cache").exists()


def test_a_search_needs_validation_images(tmp_path):
    space = small_space(tmp_path, loader=small_loader(tmp_path, validation_split=0.0))
    with pytest.raises(InputError, match="validation split"):
        run(tmp_path, space)
    assert not (tmp_path / "search").exists()


def test_a_directory_is_never_overwritten(tmp_path):
    run(tmp_path, trials=1)
    before = (tmp_path / "search" / "trials.csv").read_text()
    with pytest.raises(InputError, match="holds a search already"):
        run(tmp_path, trials=1)
    assert (tmp_path / "search" / "trials.csv").read_text() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").touch()
    for resume in (False, True):
        with pytest.raises(InputError, match="is not empty"):
            run(tmp_path, directory="other", resume=resume)
    with pytest.raises(InputError, match="is a file"):
        run(tmp_path, directory="other/mine.txt")


@pytest.mark.parametrize(
    ("space", "options", "named"),
    [
        ({"units": (8, 32, 8)}, {}, r"its space\.units_1\.max_value is 24, not 32"),
        ({"epochs": (1, 4)}, {}, r"its space\.epochs\.max_value is 2, not 4"),
        ({"score": "best"}, {}, 'its score is "last", not "best"'),
        ({}, {"strategy": "grid"}, 'its strategy is "random", not "grid"'),
        ({}, {"seed": 1}, "its seed is 42, not 1"),
        ({}, {"executions_per_trial": 3}, "its executions is 2, not 3"),
        ({}, {"objective": "val_accuracy"}, "its objective is"),
    ],
)
def test_another_search_cannot_be_resumed(found, space, options, named):
    folder, _, _ = found
    hypermodel = graph_space(folder, **space)
    options = {"executions_per_trial": 2, "resume": True} | options
    with pytest.raises(InputError, match=f"holds another search: {named}"):
        run(folder, hypermodel, **options)


def test_two_processes_do_not_search_in_one_directory(found):
    folder, _, _ = found
    hypermodel = graph_space(folder)
    with (
        filelock.FileLock(folder / "search" / ".lock"),
        pytest.raises(InputError, match="Another process searches"),
    ):
        run(folder, hypermodel, executions_per_trial=2, resume=True)


@pytest.mark.parametrize("missing", ["TUNER_ID", "ORACLE_IP", "ORACLE_PORT"])
def test_keras_tuners_variables_belong_together(tmp_path, monkeypatch, missing):
    values = {"TUNER_ID": "a", "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": "8000"}
    for name, value in values.items():
        if name != missing:
            monkeypatch.setenv(f"KERASTUNER_{name}", value)
    with pytest.raises(InputError, match=f"KERASTUNER_{missing} must be set"):
        run(tmp_path)


def test_workers_and_a_chief_elsewhere_exclude_each_other(tmp_path, monkeypatch):
    for name, value in {
        "TUNER_ID": "a",
        "ORACLE_IP": "127.0.0.1",
        "ORACLE_PORT": "8000",
    }.items():
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    with pytest.raises(InputError, match="`workers` starts its own chief"):
        run(tmp_path, workers=2)
    with pytest.raises(InputError, match="`workers` starts its own chief"):
        run(tmp_path, workers="auto")


# --- the winner once more


def test_the_winner_is_trained_on_training_and_validation_images(tmp_path):
    loader = small_loader(tmp_path, test_split=0.2)
    space = small_space(tmp_path, loader=loader)
    result = run(tmp_path, space, trials=1, retrain=True)
    folder = result.directory / "retrained"
    split = json.loads((folder / "split.json").read_text())
    parts = {image["path"]: image["split"] for image in split["photos"]}
    searched = json.loads((result.directory / "split.json").read_text())
    for image in searched["photos"]:
        expected = "test" if image["split"] == "test" else "train"
        assert parts[image["path"]] == expected
    history = read_history(folder)
    assert len(history["epoch"]) == result.best.hyperparameters["epochs"]
    assert "val_loss" not in history
    model = keras.models.load_model(folder / "model.keras")
    widths = result.best.hyperparameters
    assert model.hidden_units[0] == widths["units_1"]
    again = run(
        tmp_path, small_space(tmp_path, loader=loader), resume=True, retrain=True
    )
    assert (again.directory / "retrained-2" / "model.keras").exists()


# --- drawn


def records_with(**columns):
    count = len(next(iter(columns.values())))
    rows = [{name: values[i] for name, values in columns.items()} for i in range(count)]
    return [
        TrialRecord(
            str(i),
            "completed",
            {name: value for name, value in row.items() if value is not None},
            score=0.1 * i,
        )
        for i, row in enumerate(rows)
    ]


def test_texts_and_inactive_values_can_be_drawn(tmp_path):
    records = records_with(
        layers=[1, 2, 2],
        units_2=[None, 8, 16],
        optimizer=["adam", "sgd", "adam"],
        learning_rate=[0.1, 0.01, 0.001],
    )
    figure = search_plots.plot_parallel_coordinates(records, "val_accuracy", "max")
    (axes,) = figure.axes
    shown = {text.get_text() for text in axes.texts}
    assert {"adam", "sgd", "8", "16", "1", "2", "0.001", "0.1"} <= shown
    lines = [line for line in axes.lines if len(line.get_xdata()) > 2]
    drawn = [np.isfinite(line.get_ydata()) for line in lines]
    assert sorted(map(sum, drawn)) == [4, 5, 5]
    (unused,) = (list(used).index(False) for used in drawn if not all(used))
    assert axes.get_xticklabels()[unused].get_text() == "units_2"
    (dotted,) = (line for line in axes.lines if line.get_linestyle() == ":")
    assert axes.get_title() == "brighter is better; dotted: not used"
    assert list(dotted.get_xdata()) == [unused - 1, unused + 1]
    figure = search_plots.plot_hyperparameters(records, "val_accuracy")
    ticks = [tick.get_text() for tick in figure.axes[2].get_xticklabels()]
    assert ticks == ["adam", "sgd"]
    assert figure.axes[3].get_xscale() == "log"
    figure.draw_without_rendering()
    assert all(tick == round(tick) for tick in figure.axes[0].get_xticks())
    assert len({panel.get_ylim() for panel in figure.axes[:4]}) == 1


def test_learning_rates_are_drawn_by_order_of_magnitude():
    records = records_with(learning_rate=[0.1, 0.01, 0.001])
    figure = search_plots.plot_parallel_coordinates(records, "val_accuracy", "max")
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert figure.axes[0].get_title() == "brighter is better"
    heights = sorted(line.get_ydata()[0] for line in lines if line.get_alpha())
    assert heights == pytest.approx([0.0, 0.5, 1.0])


@pytest.mark.parametrize("direction", ["min", "max"])
def test_a_search_with_one_trial_and_with_failed_ones_can_be_drawn(direction):
    records = records_with(layers=[1])
    failed = dataclasses.replace(records[0], id="1", status="failed", score=None)
    pruned = dataclasses.replace(records[0], id="2", status="pruned", score=0.5)
    for drawn in ([*records], [*records, failed], [*records, failed, pruned]):
        search_plots.plot_scores(drawn, "val_loss", direction)
        search_plots.plot_parallel_coordinates(drawn, "val_loss", direction)
        search_plots.plot_hyperparameters(drawn, "val_loss")
    (axes,) = search_plots.plot_scores(drawn, "val_loss", direction).axes
    lines = {line.get_label(): list(line.get_xdata()) for line in axes.lines}
    assert lines == {"best so far": [0], "trial": [0], "failed": [1], "pruned": [2]}


# --- the chief


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def oracle_of(tmp_path, directory):
    oracle = keras_tuner.oracles.RandomSearchOracle(
        keras_tuner.Objective("val_loss", "min"), max_trials=2, max_retries_per_trial=1
    )
    oracle.verbose = 0
    keras_tuner.engine.base_tuner.BaseTuner(
        oracle, directory=str(directory.path), project_name="trials"
    )
    oracle.hyperparameters.Int("units", 1, 1000)
    return oracle


def test_the_trial_of_a_lost_worker_goes_to_another_one(tmp_path, capsys):
    directory = SearchDirectory(tmp_path)
    directory.workers.mkdir()
    oracle, clock = oracle_of(tmp_path, directory), Clock()
    monitor = ChiefMonitor(oracle, directory, clock)
    lost = oracle.create_trial("lost")
    oracle.create_trial("alive")
    for second in range(0, 200, 10):
        clock.now = float(second)
        heartbeat = directory.heartbeat("alive")
        heartbeat.touch()
        os.utime(heartbeat, (second, second))
        monitor.check()
    assert set(oracle.ongoing_trials) == {"alive"}
    assert oracle.tuner_ids == {"alive"}
    again = oracle.create_trial("third")
    assert again.trial_id == lost.trial_id
    assert not monitor.is_over


def test_a_chief_is_done_when_every_worker_was_told_so(tmp_path):
    directory = SearchDirectory(tmp_path)
    directory.workers.mkdir()
    oracle, clock = oracle_of(tmp_path, directory), Clock()
    monitor = ChiefMonitor(oracle, directory, clock)
    monitor.check()
    clock.now = 1000.0
    monitor.check()
    assert not monitor.is_over, "no worker has come yet"
    for score in (1.0, 2.0):
        trial = oracle.create_trial("one")
        oracle.update_trial(trial.trial_id, {"val_loss": score})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        monitor.check()
    assert oracle.create_trial("one").status == "STOPPED"
    monitor.check()
    assert not monitor.is_over, "another worker may be on its way"
    clock.now += 60
    monitor.check()
    assert monitor.is_over
    assert math.isfinite(oracle.get_best_trials(1)[0].score)


# --- a search without progress


def test_a_search_without_progress_says_what_it_waits_for(
    tmp_path, monkeypatch, caplog
):
    plan = make_plan(
        small_space(tmp_path),
        SearchDirectory(tmp_path / "search"),
        strategy="random",
        trials=1,
        objective="val_loss",
        executions_per_trial=1,
        seed=0,
    )
    observe = search_module._Observer(plan, None)
    observe()
    observe()
    assert not caplog.messages
    monkeypatch.setattr(search_module, "_STALL_SECONDS", 0.0)
    observe()
    assert "Waiting for workers" in caplog.text
    assert str(tmp_path / "search" / "workers") in caplog.text


def test_a_worker_says_that_it_waits_for_its_chief_and_gives_up(monkeypatch, caplog):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = ChiefAddress("127.0.0.1", server.getsockname()[1])
        clock = Clock()
        monkeypatch.setattr(supervisor.time, "monotonic", clock)
        watch = supervisor._ChiefWatch(address)
        clock.now = 20.0
        watch.check()
    assert not caplog.messages
    clock.now = 40.0
    watch.check()
    clock.now = 45.0
    watch.check()
    assert caplog.messages == [f"Waiting for the chief at 127.0.0.1:{address.port}."]
    clock.now = 55.0
    with pytest.raises(SearchError, match="no answer from the chief at 127"):
        watch.check()
