import json
import subprocess
import sys

import pytest
from helpers import draw_images
from keras_flowers_cli.main import _TASKS, commands, run


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "cache"))


def test_the_script_and_the_notebook_run_as_they_are(tmp_path, capsys, monkeypatch):
    draw_images(tmp_path / 'my "photos"', {"daisy": 8, "roses": 7})
    assert run(["new", "work/mine", "--data", 'my "photos"']) == 0
    shown = capsys.readouterr().out
    assert "python work/mine.py" in shown
    assert "jupyter lab work/mine.ipynb" in shown
    monkeypatch.chdir(tmp_path / "work")
    script = (tmp_path / "work" / "mine.py").read_text()
    notebook = json.loads((tmp_path / "work" / "mine.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    code = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    prose = [c["source"] for c in notebook["cells"] if c["cell_type"] == "markdown"]
    magic, _, code[0] = code[0].partition("\n")
    assert magic == "%matplotlib inline"
    assert all(cell in script for cell in code)
    assert all(lines and not lines[-1].startswith("#") for lines in prose[1:])
    checks = []
    for name, text in (("script", script), ("notebook", "\n".join(code))):
        path = tmp_path / f"{name}.py"
        path.write_text(text.replace("EPOCHS = 15", "EPOCHS = 1"))
        checks += [
            f"runpy.run_path({str(path)!r})",
            "model = keras.models.load_model('mine.keras')",
            "assert model.class_names == ('daisy', 'roses')",
            "pathlib.Path('mine.keras').unlink()",
            "pathlib.Path('mine.png').unlink()",
        ]
    # In a process of its own, whose memory ends with it: the model has 200 MB.
    program = "\n".join(["import pathlib, runpy, keras", *checks])
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "mine.ipynb").write_text("precious")
    for name in ("mine", "mine.py", "mine.ipynb"):
        assert run(["new", name]) == 2
        assert "mine.ipynb exists already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.ipynb"]
    assert (tmp_path / "mine.ipynb").read_text() == "precious"


def test_data_that_does_not_exist_is_named(tmp_path, capsys):
    assert run(["new", "mine", "--data", "missing"]) == 2
    assert "--data: there is nothing at missing" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", ["sample", "https://example.com/photos.zip"])
def test_names_and_addresses_stay_as_they_are(tmp_path, data):
    assert run(["new", "v1.2", "--data", data]) == 0
    assert f'DATA = "{data}"' in (tmp_path / "v1.2.py").read_text()


# --- help and completion


def test_the_help_lists_each_command_under_one_task(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert sorted(c.name for members in _TASKS.values() for c in members) == sorted(
        commands.commands
    )
    for task in _TASKS:
        assert f"\n{task}:\n" in shown
    for name in commands.commands:
        assert shown.count(f"\n  {name} ") == 1
    assert "..." not in shown.partition("Options:")[2]  # no sentence is cut


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_program_for_the_shell(capsys, shell):
    assert run(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert "_KERAS_FLOWERS_COMPLETE" in shown
    assert "keras-flowers" in shown


def test_what_the_program_asks_is_answered():
    program = "from keras_flowers_cli.main import main; main()"
    environment = {
        "COMP_WORDS": "keras-flowers train --ep",
        "COMP_CWORD": "2",
        "_KERAS_FLOWERS_COMPLETE": "bash_complete",
    }
    answer = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        env=environment,
    )
    assert answer.stdout.decode().splitlines() == ["plain,--epochs"]


def test_an_unknown_shell_is_named(capsys):
    assert run(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
