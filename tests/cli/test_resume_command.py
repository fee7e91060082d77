import json
import shutil
from pathlib import Path

import keras
import pytest
from helpers import RESULTS, draw_images
from keras_flowers_cli.main import run

from keras_flowers.files import write_text_atomically
from keras_flowers.training import train as training

COUNTS = {"daisy": 8, "roses": 7, "tulips": 6}
OPTIONS = "--image-size 8 --hidden-units 8 --epochs 3 --dropout 0.2".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with photos, a whole run, and one that was cut off in its second epoch.

    Both as the command line leaves them.
    """
    folder = tmp_path_factory.mktemp("runs")
    images = str(draw_images(folder / "photos", COUNTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_FLOWERS_CACHE", str(folder / "cache"))
        arguments = ["train", images, *OPTIONS, "--run-dir"]
        assert run([*arguments, str(folder / "whole")]) == 0
        patch.setattr(training, "FollowEpochs", CutOff)
        assert run([*arguments, str(folder / "cut")]) == 130
    return folder


class CutOff(training.FollowEpochs):
    """Ctrl-C in the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch)
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 1:
            raise KeyboardInterrupt


@pytest.fixture
def cut(runs, tmp_path, monkeypatch):
    """A copy of the run that was cut off."""
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(runs / "cache"))
    return Path(shutil.copytree(runs / "cut", tmp_path / "cut"))


def assert_complete(runs, folder):
    histories = [json.loads((p / "history.json").read_text()) for p in (runs, folder)]
    for name in ("epoch", "loss", "val_loss", "accuracy", "val_accuracy"):
        assert histories[0][name] == histories[1][name]
    models = [keras.models.load_model(p / "model.keras") for p in (runs, folder)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        assert a.tobytes() == b.tobytes()
    assert sorted(path.name for path in folder.iterdir()) == RESULTS


def test_an_interrupted_run_says_how_it_goes_on(runs, capsys):
    images = str(runs / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_FLOWERS_CACHE", str(runs / "cache"))
        patch.setattr(training, "FollowEpochs", CutOff)
        assert run(["train", images, *OPTIONS, "--run-dir", str(runs / "x")]) == 130
    shown = capsys.readouterr().out
    assert f"keras-flowers train --resume {runs / 'x'} resumes it" in shown


def test_an_interrupted_run_without_checkpoint_says_that_it_begins_anew(
    runs, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(runs / "cache"))
    monkeypatch.setattr(training, "FollowEpochs", CutOff)
    arguments = ["--run-dir", str(tmp_path / "x"), "--checkpoint-every", "0"]
    assert run(["train", str(runs / "photos"), *OPTIONS, *arguments]) == 130
    shown = capsys.readouterr().out
    assert f"keras-flowers train --resume {tmp_path / 'x'} starts it again" in shown


@pytest.mark.parametrize("content", ["[]", "3", '{"versions": 3}', "[" * 100_000])
@pytest.mark.parametrize("with_data", [True, False])
def test_a_damaged_configuration_is_named(runs, cut, capsys, content, with_data):
    (cut / "config.json").write_text(content)
    arguments = [str(runs / "photos"), *OPTIONS] if with_data else []
    assert run(["train", *arguments, "--resume", str(cut)]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert "is not a run configuration" in error


def test_a_run_that_died_before_it_began_needs_its_data(cut, capsys):
    (cut / "config.json").write_text("")
    assert run(["train", "--resume", str(cut)]) == 2
    assert "no run in" in capsys.readouterr().err


def test_resume_alone(runs, cut, capsys):
    assert run(["train", "--resume", str(cut)]) == 0
    assert_complete(runs / "whole", cut)
    assert "differ" not in capsys.readouterr().out


def test_resume_with_the_same_line_again(runs, cut):
    line = ["train", str(runs / "photos"), *OPTIONS, "--resume", str(cut)]
    assert run(line) == 0
    assert_complete(runs / "whole", cut)
    assert run(line) == 0  # complete: nothing is trained
    assert_complete(runs / "whole", cut)


def test_resume_with_data_alone_takes_the_rest_from_the_run(runs, cut, tmp_path):
    moved = shutil.copytree(runs / "photos", tmp_path / "moved")
    line = ["train", str(moved), "--epochs", "3", "--split-manifest"]
    assert run([*line, str(runs / "whole/split.json"), "--resume", str(cut)]) == 0
    assert_complete(runs / "whole", cut)


def test_resume_starts_a_run(runs, cut, tmp_path):
    line = ["train", str(runs / "photos"), *OPTIONS, "--resume", str(tmp_path / "new")]
    assert run(line) == 0
    assert_complete(runs / "whole", tmp_path / "new")


def test_other_versions_are_mentioned(cut, capsys):
    config = json.loads((cut / "config.json").read_text())
    config["versions"]["keras"] = "3.0.1"
    write_text_atomically(cut / "config.json", json.dumps(config))
    assert run(["train", "--resume", str(cut)]) == 0
    assert f"keras 3.0.1 is now {keras.__version__}" in capsys.readouterr().out


def test_checkpoints_as_rare_as_asked_for(runs, cut, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "FollowEpochs", CutOff)
    for every, count in (("1", 1), ("0", 0), ("2", 0)):
        folder = tmp_path / f"every-{every}"
        arguments = ["--run-dir", str(folder), "--checkpoint-every", every]
        assert run(["train", str(runs / "photos"), *OPTIONS, *arguments]) == 130
        assert len(list((folder / "checkpoint").iterdir())) == count


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("train --resume missing", "no run in missing"),
        ("train --resume CUT --epochs 5", "the run has --epochs 3."),
        ("train --resume CUT --run-dir x", "--run-dir"),
        (
            "train PHOTOS --image-size 9 --resume CUT --hidden-units 8 --optimizer sgd",
            "has --image-size 8; --optimizer adam.",
        ),
        ("train --resume CUT --backbone mobilenet_v2", "another --backbone than mobil"),
        ("train --resume CUT --exclude SPLIT --exclude-kinds corrupt", "split.json"),
        (
            "train --resume CUT --fine-tune-learning-rate 0.1",
            "learning-rate none",
        ),
        ("train PHOTOS --checkpoint-every -1", "--checkpoint-every"),
    ],
)
def test_wrong_ways_to_resume(runs, cut, capsys, monkeypatch, arguments, named):
    monkeypatch.chdir(cut.parent)
    before = {p: p.stat().st_mtime_ns for p in cut.rglob("*") if p.is_file()}
    places = {"CUT": str(cut), "PHOTOS": str(runs / "photos")}
    places["SPLIT"] = str(cut / "split.json")
    capsys.readouterr()
    assert run([places.get(word, word) for word in arguments.split()]) == 2
    error = capsys.readouterr().err.strip()
    assert named in error
    assert len(error.splitlines()) <= 2
    assert {p: p.stat().st_mtime_ns for p in cut.rglob("*") if p.is_file()} == before


def test_a_damaged_checkpoint_is_named(cut, capsys):
    path = cut / "checkpoint" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert run(["train", "--resume", str(cut)]) == 2
    assert "last.safetensors cannot be used" in capsys.readouterr().err


def test_a_finished_run_is_trained_further_and_others_start_from_it(
    runs, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(runs / "cache"))
    longer = Path(shutil.copytree(runs / "whole", tmp_path / "longer"))
    assert run(["train", "--resume", str(longer), "--epochs", "4"]) == 0
    shown = capsys.readouterr().out
    assert f"--resume {longer} --epochs 8. Only this needs last-checkpoint" in shown
    before, after = (
        json.loads((folder / "history.json").read_text())
        for folder in (runs / "whole", longer)
    )
    assert after["epoch"] == [1, 2, 3, 4]
    assert after["loss"][:3] == before["loss"]
    model = longer / "model.keras"
    line = ["train", str(runs / "photos"), "--init-from", str(model), "--epochs", "1"]
    assert run([*line, "--run-dir", str(tmp_path / "other")]) == 0
    shown = capsys.readouterr().out
    assert f"Started from {model}: hidden_1; 3 of 3 classes\n" in shown
    assert keras.models.load_model(tmp_path / "other/model.keras").image_size == (8, 8)
    assert run([*line, "--hidden-units", "3"]) == 2
    assert "--init-from replaces --hidden-units" in capsys.readouterr().err
