"""What consoles and notebooks show of an object: short, whatever it holds."""

import dataclasses
import types
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import small_loader
from html_reading import read_html
from keras_flowers.tuning import SearchResult, TrialRecord

from keras_flowers import Evaluation, TrainingRun
from keras_flowers.notebook import html_table


def rows_of(html):
    return [
        [cell.text for cell in row.all("th", "td")] for row in read_html(html).all("tr")
    ]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """24 images of three classes, 19 of them for training."""
    return small_loader(tmp_path_factory.mktemp("data")).load()


def test_a_table_shows_text_and_stays_small():
    html = html_table("<b>", ["a", "b"], [["<i>\n", 1234], ["x", 0.123456]] * 500)
    rows = rows_of(html)
    assert rows[:3] == [["a", "b"], ["<i>\\n", "1,234"], ["x", "0.1235"]]
    assert len(rows) == 31
    assert "and 970 more" in html
    assert [item.text for item in read_html(html).all("strong")] == ["<b>"]
    assert not [*read_html(html).all("b", "i")]


def test_data_sets_show_their_classes_and_an_image_of_each(datasets):
    assert repr(datasets) == (
        "ImageDatasets(3 classes: 19 train, 5 validation, 0 test images, "
        f"8x8, batch_size={datasets.batch_size})"
    )
    html = datasets._repr_html_()
    assert rows_of(html)[:2] == [
        ["class", "train", "validation", "test"],
        ["all classes", "19", "5", "0"],
    ]
    assert rows_of(html)[2][0] == "daisy"
    images = [*read_html(html).all("img")]
    assert [image.attributes["alt"] for image in images] == list(datasets.class_names)


def test_a_split_and_an_audit_show_their_sizes(datasets):
    split = "Split(3 classes: 19 train, 5 validation, 0 test"
    assert repr(datasets.split) == f"{split})"
    some = datasets.split.validation[:2]
    partial = dataclasses.replace(datasets.split, not_in_manifest=some)
    assert repr(partial) == f"{split}, 2 not in the manifest)"
    assert rows_of(datasets.split._repr_html_())[1] == ["all classes", "19", "5", "0"]
    audit = datasets.audit
    assert repr(audit) == f"Audit({audit.root}: 3 classes, 24 images, 0 findings)"
    assert rows_of(audit._repr_html_())[1:] == [
        [name, str(count)] for name, count in audit.counts.items()
    ]


def test_a_run_shows_how_far_it_was_trained(datasets):
    history = {"epoch": [1.0, 2.0], "val_accuracy": [0.25, 0.75]}
    run = TrainingRun(keras.Sequential(), history, datasets, Path("runs/a\n"), True)
    assert repr(run) == (
        "TrainingRun(Sequential, 2 epochs, val_accuracy 0.750, runs/a\\n, interrupted)"
    )
    assert rows_of(run._repr_html_()) == [
        ["epoch", "val_accuracy"],
        ["2", "0.75"],
        ["1", "0.25"],
    ]
    nothing = TrainingRun(keras.Sequential(), {}, datasets, None, False)
    assert repr(nothing) == "TrainingRun(Sequential, 0 epochs, not saved)"
    assert rows_of(nothing._repr_html_()) == []


def test_an_evaluation_shows_its_scores():
    rows = np.array([[0.75, 0.25], [0.75, 0.25]], np.float32)
    paths = (Path("a"), Path("b"))
    result = Evaluation(("daisy", "roses"), paths, np.array([0, 1]), rows, None, "test")
    assert repr(result) == (
        "Evaluation(2 images of test, 2 classes: accuracy 0.500 (0.095 to 0.905), "
        f"loss {result.loss:.3f}, 1 mistakes)"
    )
    assert rows_of(result._repr_html_())[1:] == [
        ["daisy", "0.5", "1", "0.6667", "1"],
        ["roses", "0", "0", "0", "1"],
    ]


@pytest.mark.parametrize(("direction", "best"), [("max", "2"), ("min", "1")])
def test_a_search_shows_its_trials_the_best_first(direction, best):
    trials = (
        TrialRecord("0", "failed", {"units": 4}),
        TrialRecord("1", "completed", {"units": 8}, 0.5, epoch=3),
        TrialRecord("2", "completed", {"units": 8, "rate": 0.1}, 0.75, epoch=3),
    )
    settings = types.SimpleNamespace(direction=direction)
    result = SearchResult(Path("s"), trials, trials[int(best)], False, settings)
    score = {"1": "0.5", "2": "0.75"}[best]
    assert repr(result) == (
        f"SearchResult(2 of 3 trials completed, best {best} with {score}, s)"
    )
    rows = rows_of(result._repr_html_())
    heads = ["trial", "status", "score", "epochs", "seconds", "units", "rate"]
    assert rows[0] == heads
    assert rows[1][:3] == [best, "completed", score]
    assert rows[3] == ["0", "failed", "", "0", "0", "4", ""]
