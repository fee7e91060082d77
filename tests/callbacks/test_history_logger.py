import copy
import csv
import json
import math
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from keras_flowers.callbacks import (
    HistoryLogger,
    history_logger,
    plot_history,
    read_history,
)

from keras_flowers import InputError
from keras_flowers.history import write_history


def fit(folder, *, epochs=3, initial_epoch=0, images_per_epoch=None):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.25), "mse", metrics=["mae"])
    data = np.ones((8, 2)), np.ones(8)
    logger = HistoryLogger(folder, images_per_epoch)
    history = model.fit(
        *data,
        validation_data=data,
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=[logger],
        verbose=0,
    )
    return logger, history.history


def test_history_is_on_disk_after_every_epoch(tmp_path):
    logger, keras_history = fit(tmp_path, images_per_epoch=8)
    history = read_history(tmp_path)
    assert history == logger.history
    assert history["epoch"] == [1, 2, 3]
    assert history["learning_rate"] == [0.25] * 3
    assert all(seconds > 0 for seconds in history["seconds"])
    assert all(speed > 0 for speed in history["photos_per_second"])
    for name, values in keras_history.items():
        assert history[name] == values
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [np.float32(row["val_loss"]) for row in rows] == history["val_loss"]
    assert [float(row["seconds"]) for row in rows] == history["seconds"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "history.csv",
        "history.json",
    ]


def test_a_later_start_continues_without_gap_or_repeat(tmp_path):
    fit(tmp_path, epochs=4)
    first = read_history(tmp_path)
    fit(tmp_path, epochs=6, initial_epoch=3)
    history = read_history(tmp_path)
    assert history["epoch"] == [1, 2, 3, 4, 5, 6]
    assert history["loss"][:3] == first["loss"][:3]


def test_the_csv_has_the_shortest_text_of_each_number(tmp_path):
    rate = float(np.float32(0.001))
    third, whole = 1 / 3, 2.0
    history = {"epoch": [1.0], "rate": [rate], "third": [third], "whole": [whole]}
    write_history(history | {"huge": [1e300]}, tmp_path)
    assert (tmp_path / "history.csv").read_text() == (
        "epoch,rate,third,whole,huge\n1,0.001,0.3333333333333333,2.0,1e+300\n"
    )
    assert read_history(tmp_path)["rate"] == [rate]


def test_a_directory_shows_the_latest_run_and_keeps_the_earlier_ones(tmp_path):
    logger, _ = fit(tmp_path, epochs=4)
    assert logger.folder == tmp_path
    other, _ = fit(tmp_path, epochs=2)
    assert other.folder == tmp_path
    assert logger.folder == tmp_path / "1"
    assert read_history(tmp_path)["epoch"] == [1, 2]
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3
    assert read_history(tmp_path / "1")["epoch"] == [1, 2, 3, 4]
    assert len((tmp_path / "1" / "history.csv").read_text().splitlines()) == 5
    fit(tmp_path, epochs=1)
    assert read_history(tmp_path)["epoch"] == [1]
    assert read_history(tmp_path / "2") == other.history
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1",
        "2",
        "history.csv",
        "history.json",
    ]


def started(folder):
    """A logger whose run has one epoch so far."""
    logger = HistoryLogger(folder)
    logger.set_model(keras.Sequential([keras.layers.Dense(1)]))
    logger.model.compile("sgd", "mse")
    logger.on_train_begin()
    end_epoch(logger, 0)
    return logger


def end_epoch(logger, epoch):
    logger.on_epoch_begin(epoch)
    logger.on_epoch_end(epoch, {"loss": 1.0})


def test_a_run_in_progress_is_recorded_where_its_files_were_moved(tmp_path):
    slow, quick = started(tmp_path), started(tmp_path)
    end_epoch(slow, 1)
    assert read_history(tmp_path) == quick.history
    assert read_history(tmp_path / "1") == slow.history
    assert len(slow.history["epoch"]) == 2


def test_a_resumed_run_does_not_overwrite_one_that_started_since(tmp_path):
    state = started(tmp_path).get_state()
    other = started(tmp_path)
    resumed = HistoryLogger(tmp_path)
    resumed.set_model(other.model)
    resumed.set_state(state)
    resumed.on_train_begin()
    resumed._is_new_run = False
    end_epoch(resumed, 1)
    assert read_history(tmp_path) == other.history
    assert read_history(tmp_path / "1")["epoch"] == [1, 2]


def train_with(logger, epochs, initial_epoch=0):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(
        np.ones((8, 2)),
        np.ones(8),
        epochs=epochs,
        initial_epoch=initial_epoch,
        callbacks=[logger],
        verbose=0,
    )


def test_an_object_serves_several_runs_and_goes_on_with_its_last(tmp_path):
    logger = HistoryLogger(tmp_path)
    train_with(logger, 1)
    train_with(logger, 2)
    train_with(logger, 3, initial_epoch=2)
    assert read_history(tmp_path)["epoch"] == [1, 2, 3]
    assert read_history(tmp_path / "1")["epoch"] == [1]


def test_copies_of_one_object_do_not_write_over_each_other(tmp_path):
    """As KerasTuner does with the callbacks of its trials."""
    logger = HistoryLogger(tmp_path, images_per_epoch=8)
    copies = [copy.deepcopy(logger) for _ in range(3)]
    for epochs, trial in enumerate(copies, start=1):
        train_with(trial, epochs)
    assert logger.history == {}
    for epochs, trial in enumerate(copies, start=1):
        assert len(read_history(trial.folder)["epoch"]) == epochs
    assert len({trial.folder for trial in copies}) == 3


def test_processes_do_not_take_the_same_file(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(history_logger._claim_directory, [tmp_path] * 40))
    assert len({file.st_ino for file in files}) == 40
    found = {path.stat().st_ino for path in tmp_path.rglob("history.json")}
    assert found == {file.st_ino for file in files}


def test_an_untouched_folder_of_a_run_is_an_empty_history(tmp_path):
    history_logger._claim_directory(tmp_path)
    assert read_history(tmp_path) == {}


def test_numbers_that_json_lacks(tmp_path):
    logger = HistoryLogger(tmp_path)
    logger.set_model(keras.Sequential([keras.layers.Dense(1)]))
    logger.model.compile("sgd", "mse")
    logger.on_train_begin()
    logger.on_epoch_begin(0)
    logger.on_epoch_end(0, {"loss": math.nan, "up": math.inf, "down": -math.inf})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    text = (tmp_path / "history.json").read_text()
    content = json.loads(text, parse_constant=refuse)
    assert content["loss"] == ["NaN"]
    history = read_history(tmp_path / "history.json")
    assert math.isnan(history["loss"][0])
    assert (history["up"], history["down"]) == ([math.inf], [-math.inf])
    with (tmp_path / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert math.isnan(float(row["loss"]))
    assert float(row["down"]) == -math.inf


def test_a_metric_with_several_values_has_an_entry_for_each(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "mse", metrics=[keras.metrics.F1Score(average=None)])
    logger = HistoryLogger(tmp_path)
    model.fit(np.ones((4, 2)), np.eye(3)[[0, 1, 2, 0]], callbacks=[logger], verbose=0)
    assert {"f1_score_0", "f1_score_1", "f1_score_2"} <= set(read_history(tmp_path))


def test_without_a_directory_the_history_is_kept_in_memory():
    logger, history = fit(None)
    assert logger.history["val_loss"] == history["val_loss"]


def test_a_metric_that_comes_late_was_nan_before(tmp_path):
    logger = HistoryLogger(tmp_path)
    logger.set_model(keras.Sequential([keras.layers.Dense(1)]))
    logger.model.compile("sgd", "mse")
    logger.on_train_begin()
    for epoch, logs in enumerate([{"loss": 1.0}, {"loss": 2.0, "val_loss": 3.0}]):
        logger.on_epoch_begin(epoch)
        logger.on_epoch_end(epoch, logs)
    assert math.isnan(logger.history["val_loss"][0])
    assert logger.history["val_loss"][1] == 3.0


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"loss": 1}', '{"loss": ["x"]}'])
def test_what_is_no_history_is_named(tmp_path, content):
    path = tmp_path / "history.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"history\.json is not the history"):
        read_history(path)
    with pytest.raises(InputError, match="no history at"):
        read_history(tmp_path / "missing.json")


HISTORY = {
    "epoch": [1.0, 2.0, 3.0],
    "loss": [3.0, 2.0, 1.0],
    "val_loss": [3.0, 1.5, 2.5],
    "accuracy": [0.1, 0.5, 0.9],
    "val_accuracy": [0.1, 0.6, 0.4],
}


def lines(figure):
    return [[line.get_label() for line in axes.lines] for axes in figure.axes]


def test_plot_shows_both_splits_and_marks_the_best_epoch():
    figure = plot_history(HISTORY)
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    for axes, best in zip(figure.axes, (1.5, 0.6), strict=True):
        training, validation, mark = axes.lines
        assert (training.get_label(), validation.get_label()) == (
            "training",
            "validation",
        )
        assert list(mark.get_xdata()) == [2.0]
        assert list(mark.get_ydata()) == [best]


def test_the_plot_is_not_flattened_by_a_first_loss_far_above_the_others():
    loss, validation = [58.2, 1.4, 1.3, 1.2], [1.5, 1.35, 1.25, 1.3]
    axes = plot_history({"loss": loss, "val_loss": validation}).axes[0]
    low, high = axes.get_ylim()
    assert 0.9 < low < 1.2
    assert 1.5 < high < 1.7
    assert axes.get_title("right") == "off the scale: epoch 1: 58.2"
    # A loss that falls as usual is shown as a whole.
    usual = [2.0 * 0.9**i for i in range(50)]
    for history in ({"loss": usual}, {"loss": [1.5]}, {"loss": [3.0, 1.0]}, HISTORY):
        axes = plot_history(history).axes[0]
        assert axes.get_ylim()[1] > max(history["loss"])
        assert axes.get_title("right") == ""


def test_plot_lays_runs_over_each_other(tmp_path):
    (tmp_path / "history.json").write_text(json.dumps(HISTORY))
    figure = plot_history({"wide": HISTORY, "narrow": tmp_path})
    labels = lines(figure)[0]
    assert "wide: validation" in labels
    assert "narrow: validation" in labels
    assert len(plot_history([HISTORY, HISTORY]).axes[0].lines) == 6


def test_plot_takes_what_fit_returns(tmp_path):
    _, history = fit(tmp_path)
    keras_history = keras.callbacks.History()
    keras_history.history = history
    assert len(plot_history(keras_history).axes[0].lines) == 3


def test_plot_draws_what_there_is_of_a_broken_run(tmp_path):
    broken = {"loss": [1.0, math.nan], "val_loss": [math.nan, math.nan]}
    plot_history(broken).savefig(tmp_path / "plot.png")


@pytest.mark.parametrize("runs", [{}, {"loss": []}, [], 5])
def test_nothing_to_draw_is_said(runs):
    with pytest.raises(InputError):
        plot_history(runs)
