import json
import re
import sys
from pathlib import Path

import click
import keras
import pytest
from helpers import RESULTS, assert_same_weights, draw_images, tiny_network
from keras_flowers_cli.main import run

from keras_flowers import ImageClassifier
from keras_flowers.models.backbone_presets import (
    FLOWERS_ACCURACY,
    IMAGENET_TOP1,
    backbone_names,
    named_network,
)
from keras_flowers.training import train as training

COUNTS = {"daisy": 8, "roses": 7, "tulips": 6}
TUNED = [
    *("--epochs", "2", "--hidden-units", "8"),
    *("--fine-tune-epochs", "2", "--fine-tune-learning-rate", "0.01"),
    *("--unfreeze-from", "last"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos, networks in files, and a run in two phases."""
    folder = tmp_path_factory.mktemp("place")
    draw_images(folder / "photos", COUNTS)
    network = tiny_network()
    network.save(folder / "tiny.keras")
    network.save(folder / "tiny.h5")
    (folder / "text.keras").write_text("no network")
    ImageClassifier(["daisy", "roses"], (8, 8), (2,)).save(folder / "classifier.keras")
    with pytest.MonkeyPatch.context() as patch:
        # Compiling takes longer than training here.
        patch.chdir(folder)
        patch.setenv("KERAS_FLOWERS_CACHE", str(folder / "cache"))
        line = ["train", "photos", "--backbone", "tiny.keras", *TUNED]
        assert run([*line, "--run-dir", "whole"]) == 0
    return folder


@pytest.fixture(autouse=True)
def in_the_place(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(place / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


def read(path):
    return json.loads(Path(path).read_text())


# --- train


def test_a_run_in_two_stages(capsys):
    history = read("whole/history.json")
    assert history["epoch"] == [1, 2, 3, 4]
    # Each phase has a schedule of its own, which ends at zero.
    assert history["learning_rate"][1] == history["learning_rate"][3] == 0
    assert history["learning_rate"][0] > 0 < history["learning_rate"][2]
    config = read("whole/config.json")
    assert config["loader"]["config"]["image_size"] == [8, 8]
    tuning = config["fine_tuning"]
    assert (tuning["epochs"], tuning["learning_rate"]) == (2, 0.01)
    assert tuning["unfreeze_from"] == "last"
    model = keras.models.load_model("whole/model.keras")
    assert model.backbone.pretrained_weights == str(Path("tiny.keras").absolute())
    assert sorted(path.name for path in Path("whole").iterdir()) == RESULTS
    assert run(["predict", "whole/model.keras", "photos/roses/000.png"]) == 0
    assert "roses" in capsys.readouterr().out


def test_other_options_reach_the_model(capsys, tmp_path):
    line = (
        "train photos --backbone tiny.keras --weights none --epochs 1 --dropout 0.1 "
        "--no-augmentation --schedule constant --hidden-units 5,4 --optimizer sgd "
        f"--learning-rate 0.5 --mixed-precision --json --run-dir {tmp_path}/run"
    )
    assert run(line.split()) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["history"]["learning_rate"] == [0.5]
    assert "features of" not in shown.err
    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert (model.hidden_units, model.dropout) == ((5, 4), 0.1)
    assert model.augmentation is False
    assert not model.backbone.is_pretrained
    assert model.backbone.compute_dtype == "bfloat16"
    assert isinstance(model.optimizer, keras.optimizers.SGD)


def test_features_are_computed_once_and_announced(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "cache"))
    announced = []
    for name in ("first", "second"):
        line = "train photos --backbone tiny.keras --epochs 1 --hidden-units none"
        assert run([*line.split(), "--run-dir", str(tmp_path / name)]) == 0
        shown = capsys.readouterr()
        announced.append("The features of 21 images are computed once" in shown.out)
        assert "Traceback" not in shown.err
    assert announced == [True, False]
    models = [
        keras.models.load_model(tmp_path / name / "model.keras")
        for name in ("first", "second")
    ]
    assert_same_weights(*models)


def failing_download(**options):
    raise Exception("URL fetch failure on https://storage.googleapis.com/x.h5: None")


BACKBONE = "--backbone tiny.keras"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--backbone mobilnet", ["'mobilnet'", "Did you mean mobilenet"]),
        ("--backbone missing.keras", ["no file", "missing.keras"]),
        ("--backbone text.keras", ["text.keras", "holds no model"]),
        ("--backbone tiny.h5", ["tiny.h5", "holds no model"]),
        ("--backbone photos/", ["photos"]),
        ("--backbone classifier.keras", ["classifier.keras", "a classifier"]),
        (f"{BACKBONE} --image-size 16", ["tiny.keras", "8x8", "16"]),
        ("--backbone mobilenet --image-size 16", ["at least 32x32", "16"]),
        (
            "--backbone mobilenet_0.25 --image-size 32 --pretrained-weights tiny.h5",
            ["tiny.h5", "do not fit mobilenet_0.25"],
        ),
        (
            "--backbone mobilenet_0.25 --weights gone.h5",
            ["no weights file", "gone.h5"],
        ),
        ("--backbone mobilenet", ["URL fetch failure", "--pretrained-weights FILE"]),
        (
            "--backbone small_convnet --pretrained-weights imagenet",
            ["no ImageNet weights"],
        ),
        (f"{BACKBONE} --pretrained-weights imagenet", ["tiny.keras", "ImageNet"]),
        ("--pretrained-weights imagenet", ["--pretrained-weights needs a --backbone"]),
        ("--fine-tune-epochs 1", ["--fine-tune-epochs needs a --backbone"]),
        (f"{BACKBONE} --unfreeze-from last", ["--unfreeze-from needs --fine-tune-ep"]),
        (
            f"{BACKBONE} --fine-tune-learning-rate 1",
            ["--fine-tune-learning-rate needs --fine-tune-epochs"],
        ),
        (
            f"{BACKBONE} --fine-tune-epochs 1 --unfreeze-from lst",
            ["--unfreeze-from", "Did you mean last", "'lst'"],
        ),
        ("--backbone small_convnet --fine-tune-epochs 1", ["pretrained weights"]),
        (f"{BACKBONE} --fine-tune-epochs 0", ["--fine-tune-epochs"]),
        (
            f"{BACKBONE} --fine-tune-epochs 1 --fine-tune-learning-rate nan",
            ["--fine-tune-learning-rate"],
        ),
        ("--schedule linear", ["--schedule", "linear"]),
    ],
)
def test_bad_input(capsys, tmp_path, monkeypatch, options, named):
    monkeypatch.setattr(keras.applications, "MobileNet", MobileNet())
    capsys.readouterr()
    line = ["train", "photos", *options.split(), "--run-dir", str(tmp_path / "run")]
    assert run(line) == 2
    assert_named(capsys, *named)
    assert not (tmp_path / "run").exists()


class MobileNet:
    """That of Keras, as long as it downloads nothing."""

    def __init__(self):
        self.of_keras = keras.applications.MobileNet

    def __call__(self, weights, **options):
        if weights == "imagenet":
            failing_download()
        return self.of_keras(weights=weights, **options)


def assert_named(capsys, *named):
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert len(error.splitlines()) <= 2, error
    assert "Traceback" not in error
    for text in named:
        assert text in error, error


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (BACKBONE, "--backbone"),
        (f"{BACKBONE} --pretrained-weights none", "--backbone, --pretrained-weights"),
        ("--no-augmentation", "--no-augmentation"),
        ("--augmentation", "--augmentation"),
        ("--schedule cosine", "--schedule"),
        ("--fine-tune-epochs 1", "--fine-tune-epochs"),
    ],
)
def test_a_configuration_takes_the_place_of_options(capsys, options, named):
    capsys.readouterr()
    assert run(["train", "--config", "whole/config.json", *options.split()]) == 2
    assert_named(capsys, f"replaces {named}.")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (f"{BACKBONE} --pretrained-weights none", "another --backbone than tiny.keras"),
        ("--augmentation", "--augmentation no"),
        ("--schedule constant", "--schedule cosine"),
        ("--fine-tune-epochs 1", "--fine-tune-epochs 2"),
        ("--epochs 1", "--epochs 2"),
    ],
)
def test_an_option_that_contradicts_the_run_is_named(capsys, options, named):
    capsys.readouterr()
    assert run(["train", "--resume", "whole", *options.split()]) == 2
    assert_named(capsys, f"--resume whole: the run has {named}")


# --- resume


def cut_off_in(epoch):
    """Returns what presses Ctrl-C in an epoch."""

    class CutOff(training.FollowEpochs):
        def on_epoch_begin(self, now, logs=None):
            super().on_epoch_begin(now)
            self.epoch = now

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == epoch:
                raise KeyboardInterrupt

    return CutOff


@pytest.mark.parametrize(("epoch", "with_options"), [(1, True), (3, False)])
def test_a_run_is_resumed_in_both_stages(capsys, tmp_path, epoch, with_options):
    directory = tmp_path / "cut"
    line = ["train", "photos", "--backbone", "tiny.keras", *TUNED]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "FollowEpochs", cut_off_in(epoch))
        assert run([*line, "--run-dir", str(directory)]) == 130
    assert f"--resume {directory} resumes it" in capsys.readouterr().out
    line = line if with_options else ["train"]
    assert run([*line, "--resume", str(directory)]) == 0
    assert sorted(path.name for path in directory.iterdir()) == RESULTS
    histories = [read(f"{folder}/history.json") for folder in ("whole", directory)]
    for name in ("epoch", "loss", "val_loss", "accuracy", "learning_rate"):
        assert histories[0][name] == histories[1][name]
    models = [
        keras.models.load_model(f"{folder}/model.keras")
        for folder in ("whole", directory)
    ]
    assert_same_weights(*models)


# --- backbones


def test_the_list_of_backbones(capsys):
    assert run(["backbones"]) == 0
    shown = capsys.readouterr().out
    for name in backbone_names():
        row = next(row for row in shown.splitlines() if row.startswith(f"{name}\t"))
        network = named_network(name)
        assert f"{network.parameters:,}" in row
        assert row.split("\t")[1:3] == [str(network.side), str(network.smallest_side)]
    assert "\nresnet50\t224\t32\t2048\t23,587,712\t94.4\t74.9\t\n" in shown


def test_published_accuracies_are_of_networks_with_weights():
    assert IMAGENET_TOP1.keys() <= set(backbone_names())
    for name, accuracy in IMAGENET_TOP1.items():
        assert named_network(name).has_imagenet_weights
        assert 0.7 < accuracy < 0.9


def test_the_list_of_backbones_fits_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert run(["backbones"]) == 0
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert len(lines) > len(backbone_names())
    assert max(len(line.rstrip()) for line in lines) <= 80


def test_the_list_of_backbones_as_json(capsys):
    assert run(["backbones", "--json"]) == 0
    shown = capsys.readouterr()
    found = {entry.pop("name"): entry for entry in json.loads(shown.out)}
    assert tuple(found) == backbone_names()
    assert found["mobilenet_0.25"] == {
        "image_size": [224, 224],
        "smallest_side": 32,
        "features": 256,
        "parameters": 218544,
        "imagenet_weights": True,
        "imagenet_top1": None,
        "flowers_accuracy": 0.844,
    }
    assert found["xception"]["imagenet_top1"] == 0.79
    table = (Path(__file__).parents[2] / "docs" / "accuracy.md").read_text()
    for name, accuracy in FLOWERS_ACCURACY.items():
        assert found[name]["flowers_accuracy"] == accuracy
        row = (
            rf"^\| `--backbone {name}(?: --pretrained-weights \S+)?` \| {accuracy:.3f} "
        )
        assert re.search(row, table, re.MULTILINE)
    assert found["small_convnet"]["imagenet_top1"] is None
    assert not found["small_convnet"]["imagenet_weights"]
