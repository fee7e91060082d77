import json
import shutil

import pytest
from keras_flowers_cli.compare import name_runs
from keras_flowers_cli.main import run
from PIL import Image

from keras_flowers.files import write_text_atomically
from keras_flowers.history import write_history

CONFIG = {
    "loader": {"config": {"data": "photos", "batch_size": 32, "seed": 1}},
    "model": {
        "class_name": "ImageClassifier",
        "registered_name": "keras_flowers>ImageClassifier",
        "config": {"dropout": 0.0, "hidden_units": [8], "backbone": None},
    },
    "epochs": 3,
}


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    """Two complete runs, and one that is still training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name, scores, batch_size in (
        ("first", [0.25, 0.75, 0.5], 32),
        ("second", [0.5, 0.625, 0.625], 64),
        ("running", [0.125], 32),
    ):
        directory = tmp_path / "runs" / name
        directory.mkdir(parents=True)
        numbers = [float(index + 1) for index in range(len(scores))]
        history = {
            "epoch": numbers,
            "loss": numbers,
            "val_loss": [1 / number for number in numbers],
            "val_accuracy": scores,
            "seconds": [2.0 for _ in numbers],
        }
        write_history(history, directory)
        config = json.loads(json.dumps(CONFIG))
        config["loader"]["config"]["batch_size"] = batch_size
        write_text_atomically(directory / "config.json", json.dumps(config))
        if name != "running":
            (directory / "model.keras").write_bytes(b"x" * 2_500_000)
    return tmp_path / "runs"


def test_compare_shows_what_runs_achieved_and_their_differences(runs, capsys):
    assert run(["compare", "runs/first", "runs/second", "runs/running"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == [
        "first\t0.7500\t2\t0.3333\t3\t6.0\t2.5",
        "second\t0.6250\t2\t0.3333\t3\t6.0\t2.5",
        "running\t0.1250\t1\t1.0000\t1\t2.0\t",
    ]
    assert lines[4:-1] == [
        "different settings",
        "setting\tfirst\tsecond\trunning",
        "batch size\t32\t64\t32",
    ]
    with Image.open(runs / "comparison.png") as picture:
        assert picture.format == "PNG"


def test_compare_as_json(runs, capsys):
    line = "compare runs/first runs/second --plot new/curves.png --json"
    assert run(line.split()) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["plot"] == "new/curves.png"
    differences = {"batch size": {"first": "32", "second": "64"}}
    assert result["different_settings"] == differences
    first = result["runs"][0]
    assert (first["best_accuracy"], first["best_epoch"]) == (0.75, 2)
    assert (first["epochs"], first["last_accuracy"]) == (3, 0.5)
    assert (first["seconds"], first["model_bytes"]) == (6.0, 2_500_000)
    assert first["settings"]["hidden units"] == "8"
    assert (runs.parent / "new" / "curves.png").exists()
    assert not (runs / "comparison.png").exists()


def test_runs_with_the_same_settings_and_the_same_name(runs, capsys):
    shutil.copytree(runs / "first", "other/first")
    assert run(["compare", "runs/first", "other/first"]) == 0
    shown = capsys.readouterr().out
    assert "All settings are the same." in shown
    assert "\nruns/first\t" in shown
    assert "\nother/first\t" in shown
    assert name_runs([runs / "first"] * 2) == [
        str(runs / "first"),
        f"{runs / 'first'} (2)",
    ]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("compare", "RUNS"),
        ("compare missing", "missing"),
        ("compare runs", "There is no history"),
        ("compare runs/first --plot runs/first/history.json/x.png", "--plot"),
    ],
)
def test_what_is_no_run_is_named(capsys, line, named):
    assert run(line.split()) == 2
    assert named in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[]", "{}", "no JSON", "3"])
def test_a_damaged_configuration_is_named(runs, capsys, content):
    (runs / "first" / "config.json").write_text(content)
    assert run(["compare", "runs/first"]) == 2
    error = capsys.readouterr().err
    assert "config.json is not a run configuration" in error
