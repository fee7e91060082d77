import io
import json
import shlex

import keras
import pytest
from helpers import draw_images
from keras_flowers.tuning import ExecutionRecord, TrialRecord, worker_choice
from keras_flowers_cli.main import run
from keras_flowers_cli.output import Output
from keras_flowers_cli.search_view import SearchView
from keras_flowers_cli.tune import _warn_of_chance
from rich.console import Console

COUNTS = {"daisy": 8, "roses": 7, "tulips": 6}
SMALL = shlex.split(
    "tune photos --image-size 8 --units 8:16:8 --layers 1 --max-epochs 2 --workers 0 "
    "--trials 2"
)


@pytest.fixture(autouse=True)
def small_world(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    # Compiling takes longer than training here.
    draw_images(tmp_path / "photos", COUNTS)


def assert_bad_input(capsys, arguments, *named):
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert 1 <= len(error.splitlines()) <= 2, error
    assert error.startswith("error: ")
    for text in named:
        assert text in error, error


def test_tune_says_what_it_found_and_what_comes_next(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(worker_choice, "processors", lambda: 1)
    assert run([*SMALL, "--retrain", "--workers", "auto"]) == 0
    shown = capsys.readouterr().out
    (directory,) = (tmp_path / "runs").iterdir()
    assert directory.name.startswith("photos-search-")
    for text in (
        "1 worker: a network this small keeps the only core busy\n",
        "trial 0 (1 of 2): 0.",
        "trial 1 (2 of 2): 0.",
        "units_1",
        "class\ttrain\tvalidation\n",
        "2 trials, 0 failed",
        "model.keras has the weights of trial ",
        "trials.csv",
        f"Next: keras-flowers predict {directory.relative_to(tmp_path)}/model.keras",
    ):
        assert text in shown, text
    model = keras.models.load_model(directory / "model.keras")
    assert model.hidden_units in ((8,), (16,))
    assert (directory / "retrained" / "model.keras").exists()


def test_tune_json_is_json_alone_on_stdout_and_resume_goes_on(capsys):
    assert run([*SMALL, "--run-dir", "search", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert [trial["status"] for trial in first["trials"]] == ["completed"] * 2
    assert first["best"] in first["trials"]
    assert first["workers"] == 0
    more = [*SMALL[:-1], "3", "--run-dir", "search", "--json", "--resume"]
    assert run(more) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["trials"][:2] == first["trials"]
    assert len(second["trials"]) == 3


def test_every_option_reaches_the_search(tmp_path):
    options = """
        --strategy grid --max-epochs 1 --units 8 --layers 0:1 --dropout 0:0.5:0.5
        --learning-rate 0.01 --batch-size 4,8 --executions 2 --objective val_loss
        --score best --validation-split 0.3 --test-split 0.1 --no-augmentation
        --seed 5 --run-dir search --pruning median --no-calibrate
    """
    assert run([*SMALL, *shlex.split(options)]) == 0
    search = json.loads((tmp_path / "search" / "search.json").read_text())
    assert search["strategy"] == "grid"
    assert search["objective"] == "val_loss"
    assert search["direction"] == "min"
    assert search["executions"] == 2
    assert search["score"] == "best"
    assert search["pruning"] == "median"
    assert search["seed"] == 5
    assert search["augmentation"] is False
    assert search["data"]["validation_split"] == 0.3
    assert search["data"]["test_split"] == 0.1
    space = search["space"]
    assert space["layers"]["max_value"] == 1
    assert space["units_1"]["value"] == 8
    assert space["epochs"]["value"] == 1
    assert space["dropout"]["step"] == 0.5
    assert space["learning_rate"]["value"] == 0.01
    assert space["batch_size"]["values"] == [4, 8]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--units", "8:"], "neither a number nor LOW:HIGH"),
        (["--units", "16:8"], "--units must"),
        (["--units", "0:8"], "--units must"),
        (["--layers", "-1:2"], "--layers must"),
        (["--dropout", "0:2"], "--dropout must"),
        (["--learning-rate", "0:1"], "--learning-rate must"),
        (["--batch-size", "8,8"], "--batch-size must"),
        (["--strategy", "lucky"], "--strategy"),
        (["--objective", "accuracy"], "--objective must"),
        (["--objective", "val_beauty"], "val_beauty"),
        (["--workers", "-1"], "--workers"),
        (["--workers", "some"], "neither a number from 0 to 1000 nor 'auto'"),
        (["--pruning", "mean"], "--pruning"),
        (["--pruning", "median", "--strategy", "hyperband"], "--pruning does not go"),
        (["--trials", "0"], "--trials"),
        (["--resume"], "--resume needs the --run-dir"),
        (["--run-dir", "photos"], "not empty"),
    ],
)
def test_bad_input_is_named_in_one_or_two_lines(tmp_path, capsys, options, named):
    assert_bad_input(capsys, [*SMALL, *options], named)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("workers", "strategy", "pruning", "is_said"),
    [
        (2, "random", "none", False),
        (2, "bayesian", "none", True),
        (2, "random", "median", True),
        (1, "bayesian", "median", False),
    ],
)
def test_a_search_that_depends_on_the_timing_of_workers_says_so(
    capsys, workers, strategy, pruning, is_said
):
    _warn_of_chance(Output(), workers, strategy, pruning, seed=1)
    assert ("a resumed search may differ" in capsys.readouterr().out) == is_said


def test_another_search_is_refused(tmp_path, capsys):
    search = [*SMALL, "--trials", "1", "--run-dir", "search"]
    assert run(search) == 0
    before = (tmp_path / "search" / "trials.csv").read_text()
    assert_bad_input(capsys, search, "search holds a search already")
    assert_bad_input(
        capsys,
        [*search, "--resume", "--units", "8:24:8"],
        "another search",
        "space.units_1.max_value is 16, not 24",
        "Name a new directory",
    )
    assert (tmp_path / "search" / "trials.csv").read_text() == before


def test_a_machine_of_many_needs_the_directory_and_the_same_options(
    capsys, monkeypatch
):
    assert run([*SMALL, "--trials", "1", "--run-dir", "search"]) == 0
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker")
    assert_bad_input(capsys, SMALL, "needs the --run-dir")
    other = [*SMALL, "--run-dir", "search", "--units", "8:32:8"]
    assert_bad_input(capsys, other, "another search", "units_1.max_value is 16, not 32")
    both = [*SMALL, "--run-dir", "search", "--workers", "auto"]
    assert_bad_input(capsys, both, "--workers starts its own chief")
    monkeypatch.delenv("KERASTUNER_TUNER_ID")
    assert_bad_input(capsys, [*SMALL, "--run-dir", "search"], "KERASTUNER_TUNER_ID")


def test_a_search_without_a_completed_trial_is_bad_input(capsys):
    impossible = [
        "--units",
        "1000000000000000000",
        "--trials",
        "1",
        "--run-dir",
        "search",
    ]
    capsys.readouterr()
    assert run([*SMALL, *impossible]) == 2
    output = capsys.readouterr()
    assert "no trial was completed" in output.err
    assert "failed" in output.out


def record(number, status="completed", **arguments):
    values = {"layers": 1, "units_1": 8, "epochs": 4}
    return TrialRecord(str(number), status, values, epoch=2, epochs=4, **arguments)


class Terminal:
    """A file that says it is a terminal."""

    def __init__(self, file):
        self._file = file

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_terminal_shows_a_live_table_with_a_bar_and_the_time_left(tmp_path):
    path = tmp_path / "terminal.txt"
    with path.open("w") as file:
        output = Output()
        console = Console(file=Terminal(file), force_terminal=True, width=120)
        output._console = console
        with SearchView(output, "val_accuracy", 1) as view:
            view([record(0, "running")], 4)
            view([record(0, score=0.25), record(1, "running")], 4)
            view(
                [
                    record(0, score=0.25),
                    record(1, score=0.75),
                    record(2, "failed", error="MemoryError"),
                    record(3, "running"),
                ],
                4,
            )
            view._live.refresh()
    text = path.read_text()
    shown = ("val accuracy", "0.7500", "failed: MemoryError", "2/4", "3/4", "left")
    assert [part for part in shown if part not in text] == []


def test_the_table_has_the_running_first_then_the_best():
    trials = [
        record(0, score=0.25),
        record(1, "failed", error="MemoryError"),
        record(2, score=0.75),
        record(3, "running"),
        record(4, "pruned", score=0.9),
    ]
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(SearchView(Output(), "val_accuracy", 1).table(trials))
    header, _, *rows = console.export_text().strip().splitlines()
    assert [row.split()[0] for row in rows if row.strip()] == ["3", "2", "0", "4", "1"]
    assert "0.9000 pruned" in rows[3]
    # All trials have the same epochs, and the widths tell the number of layers.
    assert header.split() == ["trial", "units", "epoch", "val", "accuracy", "seconds"]


def test_the_table_marks_networks_that_have_collapsed():
    trials = [
        TrialRecord(
            str(number),
            "completed",
            {"units_1": 8},
            score=0.5 + number / 10,
            executions=(ExecutionRecord(1, 0.5, 3, {}, collapsed=number == 1),),
        )
        for number in range(2)
    ]
    console = Console(width=80, record=True, file=io.StringIO(), soft_wrap=True)
    console.print(SearchView(Output(), "val_accuracy", 1).table(trials))
    lines = console.export_text().splitlines()
    assert [line for line in lines if "0.6000 collapsed" in line]
    assert not [line for line in lines if "0.5000 collapsed" in line]


def test_the_table_of_many_hyperparameters_fits_a_terminal_of_80_columns():
    trials = [
        TrialRecord(
            str(number),
            "completed",
            {
                "layers": 3,
                "units_1": 512,
                "units_2": 448 + number,
                "units_3": 64,
                "dropout": 0.25 * number,
                "learning_rate": 0.00123 * (number + 1),
                "batch_size": 32,
                "epochs": 15,
            },
            epoch=15,
            epochs=15,
            score=0.5,
            seconds=100.0,
        )
        for number in range(2)
    ]
    console = Console(width=80, record=True, file=io.StringIO(), soft_wrap=True)
    console.print(SearchView(Output(), "val_accuracy", 1).table(trials))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for part in ("512,448,64", "512,449,64", "dropout", "0.00246", "15/15"):
        assert part in text
