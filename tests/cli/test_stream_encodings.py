import contextlib
import io
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from keras_flowers_cli.main import run
from keras_flowers_cli.output import Output, TextTable, echo_error
from keras_flowers_cli.train_view import show_run

ENCODINGS = ["ascii", "latin-1", "cp932", "cp437", "utf-8"]
CLASS = "雛菊 é"


@contextlib.contextmanager
def streams(encoding: str) -> Iterator[Callable[[], list[str]]]:
    """Replaces stdout and stderr by strict streams; gives what reads them."""
    files = [io.TextIOWrapper(io.BytesIO(), encoding, "strict") for _ in range(2)]

    def read() -> list[str]:
        for file in files:
            file.flush()
        return [file.buffer.getvalue().decode(encoding) for file in files]

    out, err = files
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield read


def shown(encoding: str) -> str:
    return CLASS.encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("as_json", [False, True])
def test_text_and_tables_fit_any_stream(encoding, as_json):
    with streams(encoding) as read:
        output = Output(as_json)
        output.say(f"{CLASS} is a class")
        table = TextTable("class", CLASS, title=f"All of {CLASS}")
        table.add_row(CLASS, "7")
        table.add_row("daisy", "8")
        output.show(table)

    text = read()[1 if as_json else 0]
    lines = text.splitlines()
    assert lines[0] == f"{shown(encoding)} is a class"
    assert text.count(shown(encoding)) == 4
    assert lines[-2:] == [f"{shown(encoding)}\t7", "daisy\t8"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_errors_fit_any_stream(encoding):
    with streams(encoding) as read:
        echo_error(f"error: {CLASS}")

    assert read() == ["", f"error: {shown(encoding)}\n"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_command_fits_any_stream_whoever_prints(encoding, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with streams(encoding) as read:
        assert run(["audit", CLASS]) == 2
        sys.stdout.write(f"a library prints {CLASS}\n")
    out, err = read()
    assert shown(encoding) in err
    assert "Traceback" not in err
    assert out == f"a library prints {shown(encoding)}\n"


@pytest.mark.parametrize("name", ["run", "my run", "it's", "$(date)", "a;b", "雛菊"])
def test_commands_to_run_next_are_quoted_for_the_shell(tmp_path, capsys, name):
    directory = tmp_path / name
    directory.mkdir()
    run_of_nothing = SimpleNamespace(
        interrupted=True,
        history={},
        saved_epoch=None,
        model=SimpleNamespace(temperature=1.0),
        precision_difference=None,
        cross_validation=None,
    )
    show_run(Output(), run_of_nothing, directory, 1.0)

    lines = capsys.readouterr().out.splitlines()
    assert shlex.split(lines[-1])[1:] == [
        *("keras-flowers", "predict", str(Path(directory, "model.keras")), "PHOTO")
    ]
    assert shlex.split(lines[1])[:4] == [
        *("keras-flowers", "train", "--resume", str(directory))
    ]
