"""`lr-find`, `--learning-rate auto`, `--warm-up` and the line on a collapse."""

import json

import pytest
from event_reading import read_runs
from helpers import draw_images
from keras_flowers_cli.main import run

from keras_flowers.training import learning_rate
from keras_flowers.training import train as training
from keras_flowers.training.config_difference import difference

COUNTS = {"daisy": 8, "roses": 7, "tulips": 6}
SMALL = ["--image-size", "8", "--hidden-units", "8"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lr")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_FLOWERS_CACHE", str(folder / "cache"))
        yield str(draw_images(folder / "photos", COUNTS))


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def rate_of(folder):
    optimizer = config_of(folder)["model"]["compile_config"]["optimizer"]
    return optimizer["config"]["learning_rate"]


def test_lr_find_suggests_a_rate_and_draws_the_losses(images, tmp_path, capsys):
    plot = tmp_path / "new" / "rates.png"
    arguments = ["--steps", "30", "--plot", str(plot), "--json"]
    assert run(["lr-find", images, *SMALL, *arguments]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert f"Suggestion: --learning-rate {result['suggestion']:g}" in shown.err
    assert len(result["rates"]) == len(result["losses"]) <= 30
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert run(["lr-find", images, "--lowest", "2", "--highest", "1"]) == 2
    assert "--lowest" in capsys.readouterr().err


def test_auto_uses_the_suggestion_and_a_resumed_run_does_not_search_again(
    images, tmp_path, capsys, monkeypatch
):
    class CutOff(training.FollowEpochs):
        """Ctrl-C in the second epoch."""

        def on_epoch_begin(self, epoch, logs=None):
            super().on_epoch_begin(epoch)
            if epoch == 1:
                raise KeyboardInterrupt

    command = ["train", images, *SMALL, "--epochs", "2", "--no-tensorboard"]
    command += ["--batch-size", "4"]
    auto = [*command, "--learning-rate", "auto", "--warm-up", "0.2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "FollowEpochs", CutOff)
        assert run([*auto, "--run-dir", str(tmp_path / "auto")]) == 130
    shown = capsys.readouterr().out
    schedule = rate_of(tmp_path / "auto")["config"]
    rate = schedule["warmup_target"]
    assert f"Learning rate {rate:g}: found by a range test" in shown

    def search_again(*_, **__):
        raise AssertionError

    monkeypatch.setattr(learning_rate, "find_learning_rate", search_again)
    assert run([*auto, "--resume", str(tmp_path / "auto")]) == 0
    # The same run with the rate given: the search has changed nothing else.
    given = [*command, "--learning-rate", str(rate), "--warm-up", "0.2"]
    assert run([*given, "--run-dir", str(tmp_path / "given")]) == 0
    histories = [
        json.loads((tmp_path / name / "history.json").read_text())
        for name in ("auto", "given")
    ]
    for name in ("loss", "val_loss", "learning_rate"):
        assert histories[0][name] == histories[1][name]
    assert not difference(*(config_of(tmp_path / name) for name in ("auto", "given")))


def test_a_collapse_is_one_line_and_marked_in_the_results(
    images, tmp_path, capsys, monkeypatch
):
    folder = tmp_path / "run"
    arguments = ["--epochs", "4", "--learning-rate", "90", "--optimizer", "sgd"]
    command = ["train", images, *SMALL, *arguments, "--run-dir", str(folder), "--json"]
    assert run(command) == 0
    shown = capsys.readouterr()
    (line,) = [
        text for text in shown.err.splitlines() if "the network has collapsed" in text
    ]
    assert "for every image" in line and "lower --learning-rate" in line
    assert json.loads(shown.out)["history"]["collapsed"][-1] == 1
    assert "collapsed" in (folder / "history.csv").read_text().splitlines()[0]
    assert "The network collapsed" in (folder / "report.html").read_text()
    assert any(
        "epoch_collapsed" in tags for tags in read_runs(folder / "tensorboard").values()
    )
