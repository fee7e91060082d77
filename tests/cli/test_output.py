import contextlib
import gc
import importlib
import io
import logging
import math
import os
import pty
import subprocess
import sys
import types

import numpy as np
import pytest
from keras_flowers_cli import epoch_lines, runtime
from keras_flowers_cli.epoch_lines import EpochLines, best_epoch
from keras_flowers_cli.errors import name_options
from keras_flowers_cli.evaluate import _show_matrix
from keras_flowers_cli.main import run
from keras_flowers_cli.output import Output, TextTable
from keras_flowers_cli.train_view import show_run
from rich.console import Console

from keras_flowers import Evaluation, ImageClassifier

LEVEL = "TF_CPP_MIN_LOG_LEVEL"
LONG = "/a/folder with spaces/" + "x" * 90 + ".png"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def output_to(file, width=80):
    output = Output()
    output._console = Console(
        file=file,
        width=width,
        force_terminal=file.isatty(),
        color_system=None,
        highlight=False,
        soft_wrap=True,
    )
    return output


@pytest.fixture(params=[Terminal, io.StringIO])
def file(request):
    return request.param()


def test_a_path_is_never_broken(file):
    table = TextTable("probability", "image")
    table.add_row("0.5", LONG)
    output_to(file).show(table)
    assert any(line.rstrip().endswith(LONG) for line in file.getvalue().splitlines())


def test_a_pipe_gets_lines_with_tabs():
    file = io.StringIO()
    table = TextTable("class name", "images", title="counts")
    table.add_row("a\tb", "12")
    output_to(file).show(table)
    assert file.getvalue() == "counts\nclass name\timages\na\\tb\t12\n"


def test_numbers_are_right_aligned_and_text_is_left_aligned():
    file = Terminal()
    table = TextTable("class", "predicted", "images", "share")
    table.add_row("a", "x", "5", "")
    table.add_row("bcd", "yz", "1,234", "5.0%")
    output_to(file).show(table)
    _, header, _, first, second = file.getvalue().splitlines()[:5]
    assert header.split() == ["class", "predicted", "images", "share"]
    assert first.index("x") == second.index("yz") == header.index("predicted")
    assert first.index("5") == second.index("1,234") + 4


def test_a_confusion_matrix_of_ten_classes_fits_a_terminal():
    names = tuple(f"a long class name {i}" for i in range(10))
    rows = np.roll(np.eye(10, dtype=np.float32), 1, axis=1)
    evaluation = Evaluation(names, (), np.arange(10), rows)
    file = Terminal()
    _show_matrix(output_to(file), evaluation)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    for number, name in enumerate(names):
        assert any(line.strip().startswith(f"{number + 1} {name} ") for line in lines)
    file = io.StringIO()
    _show_matrix(output_to(file), evaluation)
    assert file.getvalue().splitlines()[1].split("\t")[1:] == list(names)


def train(lines, epochs, scores, first=0):
    """Calls the callback as `fit` does."""
    lines.set_params({"epochs": epochs, "steps": 2})
    for epoch in range(first, epochs):
        lines.on_epoch_begin(epoch)
        for batch in range(2):
            lines.on_train_batch_end(batch, {"loss": 2.0})
            lines._bars.refresh()
        lines.on_test_begin()
        logs = {"loss": 123456.0, "accuracy": 0.5, "val_accuracy": scores[epoch]}
        lines.on_epoch_end(epoch, logs)
    lines.on_train_end()


def test_one_line_an_epoch_that_fits_and_the_best_are_marked():
    file = Terminal()
    with EpochLines(output_to(file)) as lines:
        train(lines, 3, [0.25, 0.75, 0.5])
    text = file.getvalue()
    rows = [line for line in text.splitlines() if "1.2e+05" in line]
    assert [row.rstrip().endswith("*") for row in rows] == [True, True, False]
    assert max(map(len, rows)) <= 80
    assert "epoch 3 of 3" in text
    assert "loss 2.0000" in text
    assert "writing the results" in text


def test_a_pipe_has_no_bar_and_earlier_epochs_once():
    file = io.StringIO()
    history = {
        "epoch": [1.0, 2.0, 3.0],
        "loss": [1.0, 1.0, 1.0],
        "val_accuracy": [0.5, 0.25, 0.9],
        "seconds": [1.0, 1.0, 1.0],
    }
    with EpochLines(output_to(file), history) as lines:
        # The third epoch is trained again: the checkpoint is older.
        train(lines, 4, [0, 0, 0.75, 0.5], first=2)
        lines.show(history | {"epoch": [1.0, 2.0, 4.0]})
    header, *rows = [line.split("\t") for line in file.getvalue().splitlines()]
    assert header == ["epoch", "loss", "val_accuracy", "seconds", "best"]
    assert [(row[0], row[2], row[4]) for row in rows] == [
        ("1", "0.5000", "*"),
        ("2", "0.2500", ""),
        ("3", "0.7500", "*"),
        ("4", "0.5000", ""),
    ]


@pytest.mark.parametrize(
    ("limit", "gpus", "advises"), [(1e9, [], 0), (-1, ["gpu"], 0), (-1, [], 1)]
)
def test_advice_on_speed_only_where_it_helps(monkeypatch, limit, gpus, advises):
    monkeypatch.setattr(epoch_lines, "SLOW_EPOCH", limit)
    monkeypatch.setattr(epoch_lines, "gpus", lambda: gpus)
    file = io.StringIO()
    with EpochLines(output_to(file)) as lines:
        train(lines, 2, [0.5, 0.5])
    assert file.getvalue().count("No GPU is in use") == advises


def test_the_time_to_compile_is_no_reason_for_advice(monkeypatch):
    now = iter([0.0, 30.0, 31.0, 32.0, 33.0, 34.0, 50.0, 51.0])
    monkeypatch.setattr(epoch_lines.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(epoch_lines, "gpus", list)
    file = io.StringIO()
    lines = EpochLines(output_to(file))
    lines.set_params({"epochs": 2, "steps": 2})
    advice = []
    for epoch in range(2):
        lines.on_epoch_begin(epoch)
        lines.on_train_batch_end(0)
        lines.on_train_batch_end(1)
        lines.on_epoch_end(epoch, {"accuracy": 0.5})
        advice.append("No GPU is in use" in file.getvalue())
    assert advice == [False, True]


@pytest.mark.parametrize(
    ("history", "best"),
    [
        ({"epoch": [1.0, 2.0, 3.0], "val_accuracy": [0.5, 0.75, 0.75]}, 2),
        ({"epoch": [1.0, 2.0], "accuracy": [0.5, 0.25]}, 1),
        ({"epoch": [1.0, 2.0], "val_accuracy": [math.nan, 0.25]}, 2),
        ({"epoch": [1.0], "val_accuracy": [math.nan]}, None),
        ({}, None),
    ],
)
def test_the_best_epoch(history, best):
    assert best_epoch(history) == best


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (2, "in epoch 2; model.keras has it"),
        (4, "model.keras has epoch 4 (0.700), the lowest validation loss"),
        (5, "model.keras has epoch 5 (0.500), the last one"),
        (None, "model.keras has the last weights"),
    ],
)
def test_which_epoch_is_saved_is_said(tmp_path, capsys, saved, said):
    run = types.SimpleNamespace(
        history={
            "epoch": [1.0, 2.0, 3.0, 4.0, 5.0],
            "val_accuracy": [0.1, 0.8, 0.2, 0.7, 0.5],
            "val_loss": [0.9, 0.2, 0.8, 0.1, 0.4],
        },
        interrupted=False,
        saved_epoch=saved,
        model=types.SimpleNamespace(temperature=1.25),
        precision_difference=None,
        cross_validation=None,
    )
    show_run(Output(), run, tmp_path, 1.0)
    shown = capsys.readouterr().out
    assert said in shown
    assert "calibrated with the temperature 1.25" in shown


@pytest.mark.parametrize(
    ("command", "message", "shown"),
    [
        (
            "train",
            "Pass another `cache_directory`, or `disk_budget=0` to decode on the fly.",
            "Pass another --cache-dir, or --disk-budget 0 to decode on the fly.",
        ),
        (
            "evaluate",
            "`batch_size` must be a positive integer. Received: batch_size=0",
            "--batch-size must be a positive integer. Received: 0",
        ),
        (
            "audit",
            "Choose --cache-dir, `cache_directory=...` in Python, or X",
            "Choose --cache-dir, or X",
        ),
        (
            "train",
            "`epochs` and `fine_tuning` of `a b`",
            "--epochs and `fine_tuning` of `a b`",
        ),
        (
            "train",
            "leave out with `small_classes` (--small-classes), or `split='random'` "
            "(--split random); `run_directory` (--run-dir)",
            "leave out with --small-classes, or --split random; --run-dir",
        ),
        ("doctor", "`epochs`", "`epochs`"),
        ("", "`epochs`", "`epochs`"),
    ],
)
def test_messages_speak_of_options(command, message, shown):
    assert name_options(message, command) == shown


@pytest.mark.parametrize("command", ["train", "evaluate", "audit"])
def test_an_unwritable_cache_is_named_with_its_option(
    tmp_path, monkeypatch, capsys, command
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "file" / "cache"))
    model = tmp_path / "model.keras"
    ImageClassifier(["a", "b"], (8, 8), hidden_units=()).save(model)
    models = [str(model)] if command == "evaluate" else []
    assert run([command, *models, "sample"]) == 2
    error = capsys.readouterr().err
    assert "--cache-dir" in error
    assert "cache_directory" not in error


def test_doctor_says_whether_the_cache_can_be_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for folder, shown in (("new", "yes"), ("file/cache", "no; choose another")):
        monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / folder))
        assert run(["doctor"]) == 0
        assert f"cache writable\t{shown}" in capsys.readouterr().out


def start_in_terminal(level):
    """Returns what a terminal shows while Keras starts with a log level."""
    program = (
        "import os\n"
        "from keras_flowers_cli import runtime\n"
        "runtime._import_backend = lambda: os.write(2, b'I0000 start-up line\\n')\n"
        "runtime.start_keras()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"TERM": "xterm"} | ({} if level is None else {LEVEL: level})
    reader, writer = pty.openpty()
    subprocess.run(
        [sys.executable, "-c", program], check=True, stderr=writer, env=environment
    )
    os.close(writer)
    shown = b""
    with contextlib.suppress(OSError):  # Linux raises at the end
        while part := os.read(reader, 4096):
            shown += part
    os.close(reader)
    return shown.decode()


def test_commands_do_not_warn_that_each_model_is_traced(caplog):
    runtime.start_keras()
    logger = logging.getLogger("tensorflow")
    logger.warning("5 out of the last 7 calls to f triggered tf.function retracing.")
    logger.warning("something else")
    assert [record.message for record in caplog.records] == ["something else"]


@pytest.mark.parametrize(
    ("level", "shows_log"),
    [(None, False), ("3", False), ("2", False), ("0", True), ("1", True)],
)
def test_the_start_is_announced_and_silent_where_silence_is_asked_for(level, shows_log):
    shown = start_in_terminal(level)
    assert "Starting Keras" in shown
    assert shown.endswith("\x1b[2K")  # the line is gone
    assert ("start-up line" in shown) == shows_log


def test_packages_are_hidden_while_keras_is_imported_only(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", sys)  # imported already: it stays
    monkeypatch.delitem(sys.modules, "wave", raising=False)
    with runtime._hide_packages("cv2", "wave"):
        assert sys.modules["cv2"] is sys
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("wave")
    assert importlib.import_module("wave").__name__ == "wave"
    # JAX is hidden only where Keras does not need it.
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert runtime._find_backend() == "tensorflow"
    for text, backend in (('{"backend": "jax"}', "jax"), ("[]", "tensorflow")):
        (tmp_path / "keras.json").write_text(text)
        assert runtime._find_backend() == backend
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert runtime._find_backend() == "torch"


def test_garbage_collection_is_paused_and_what_was_imported_is_left_alone():
    frozen = gc.get_freeze_count()
    try:
        with runtime._pause_garbage_collection():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
