import csv
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import helpers
import keras
import numpy as np
import pytest
from helpers import draw_images
from keras_flowers_cli import devices, measure
from keras_flowers_cli.evaluate import _show
from keras_flowers_cli.main import run
from keras_flowers_cli.output import Output
from PIL import Image
from tensorboard_server import running_tensorboard, runs_of

from keras_flowers import Evaluation, ImageClassifier
from keras_flowers.files import json_text

# Names that Rich would take for markup or an emoji, one that breaks the line, and one
# with bytes that are no text.
ODD_NAMES = ("photo[copy].png", "x:rose:y.png", "a[b].png", "two\nlines.png")
NO_TEXT = os.fsdecode(b"caf\xe9.png")
COUNTS = {"daisy": 8, "roses": 7, "tulips": 6}
SMALL = ["--image-size", "8", "--hidden-units", "8", "--epochs", "2"]
RESULTS = set(helpers.RESULTS)
EVALUATION = {
    "confusion_matrix.png",
    "evaluation.json",
    "mistakes.png",
    "predictions.csv",
    "reliability.png",
}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run directory, trained once, and its photos."""
    folder = tmp_path_factory.mktemp("trained")
    images = draw_images(folder / "photos", COUNTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_FLOWERS_CACHE", str(folder / "cache"))
        code = run(["train", str(images), *SMALL, "--run-dir", str(folder / "run")])
    assert code == 0
    return folder


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """A folder like `trained`, whose run lost its weights to NaN."""
    folder = tmp_path_factory.mktemp("diverged")
    images = draw_images(folder / "photos", COUNTS)
    options = (
        "--image-size 8 --hidden-units 64,64,64,64 --epochs 1 --batch-size 2 "
        "--optimizer sgd --learning-rate 100 --json"
    )
    arguments = [*options.split(), "--run-dir", str(folder / "run")]
    with (
        pytest.MonkeyPatch.context() as patch,
        (folder / "train.json").open("w") as stdout,
    ):
        patch.setenv("KERAS_FLOWERS_CACHE", str(folder / "cache"))
        patch.setattr(sys, "stdout", stdout)
        code = run(["train", str(images), *arguments])
    assert code == 0
    return folder


@pytest.fixture
def odd_images(tmp_path):
    """Photos and broken files under odd names."""
    images = draw_images(tmp_path / "photos", COUNTS)
    for index, name in enumerate((*ODD_NAMES, NO_TEXT)):
        shutil.move(images / "daisy" / f"{index:03}.png", images / "daisy" / name)
        (images / "roses" / f"bad {name}").write_bytes(b"\xff\xd8\xff")
    return images


def printed(name):
    return name.replace("\n", "\\n").replace("\udce9", "\\udce9")


def strict_json(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def files(folder):
    return {path.name for path in folder.iterdir()}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_bad_input(capsys, arguments, *named):
    """Exit code 2, one or two lines on stderr that name what is wrong."""
    capsys.readouterr()
    assert run([str(argument) for argument in arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) <= 2, error
    assert error.startswith("error: ")
    assert "Traceback" not in error
    for text in named:
        assert text in error, error


# --- train


def test_train_says_what_it_found_and_writes_the_run(tmp_path, capsys):
    images = draw_images(tmp_path / "photos", COUNTS)
    (images / "daisy" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert run(["train", str(images), *SMALL]) == 0
    output = capsys.readouterr()
    # No progress bar where nobody looks.
    assert not set("\b\r\x1b") & set(output.out + output.err)
    shown = output.out
    for text in (
        "daisy/broken.jpg",
        "CPU",
        "epoch\tloss\taccuracy\tval_loss\tval_accuracy\tseconds\tbest\n1\t",
        "\n2\t",
        "class\ttrain\tvalidation\ndaisy\t6\t2\n",
        "; model.keras has",
        "model.keras",
    ):
        assert text in shown, text
    (directory,) = (tmp_path / "runs").iterdir()
    assert directory.name.startswith("photos-")
    assert files(directory) == RESULTS


def test_train_json_is_json_alone_on_stdout(tmp_path, capsys):
    images = draw_images(tmp_path / "photos", COUNTS)
    options = ["--run-dir", "run", "--json", "--disk-budget", "0"]
    assert run(["train", str(images), *SMALL, *options]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["run_directory"] == "run"
    assert len(result["history"]["val_accuracy"]) == 2
    assert result["counts"]["validation"] == {"daisy": 2, "roses": 1, "tulips": 1}
    assert "\n2\t" in shown.err
    # Beyond the disk budget, in one line.
    lines = shown.err.splitlines()
    assert len([line for line in lines if "decoded on the fly" in line]) == 1


def test_every_option_of_train_arrives(tmp_path):
    images = draw_images(tmp_path / "photos", COUNTS)
    options = (
        "--epochs 1 --batch-size 4 --image-size 8x10 --hidden-units 6,5 --dropout 0.1 "
        "--optimizer sgd --learning-rate 0.5 --validation-split 0.3 --test-split 0.2 "
        "--seed 7 --split-near-duplicates --no-augmentation --early-stopping 3 "
        "--class-weights balanced "
        "--mixed-precision --run-dir run --cache-dir other --disk-budget 1MB "
        "--max-extracted-size 2GB --max-extracted-files 50"
    )
    assert run(["train", str(images), *options.split()]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    loader = config["loader"]["config"]
    assert (
        loader
        | {
            "data": str(images.absolute()),
            "image_size": [8, 10],
            "batch_size": 4,
            "validation_split": 0.3,
            "test_split": 0.2,
            "seed": 7,
            "keep_near_duplicates_together": False,
            "cache_directory": "other",
            "disk_budget": 10**6,
            "max_extracted_size": 2 * 10**9,
            "max_extracted_files": 50,
        }
        == loader
    )
    model = config["model"]["config"]
    assert model["hidden_units"] == [6, 5]
    assert model["dropout"] == 0.1
    assert model["augmentation"] is False
    assert model["seed"] == 7
    assert (config["epochs"], config["early_stopping"]) == (1, 3)
    assert config["class_weights"] == "balanced"
    trained = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert isinstance(trained.optimizer, keras.optimizers.SGD)
    assert float(trained.optimizer.learning_rate) == 0.5
    assert trained.layers[-2].compute_dtype == "bfloat16"


def test_train_reproduces_a_run_from_its_config(trained, tmp_path):
    """Where things are kept may change, and what is written next to the results."""
    config = trained / "run" / "config.json"
    options = (
        "--cache-dir other --disk-budget 1MiB --max-extracted-size 2GiB "
        "--max-extracted-files 50 --run-dir again --no-tensorboard"
    )
    assert run(["train", "--config", str(config), *options.split()]) == 0
    first, second = (
        json.loads((folder / "history.json").read_text())
        for folder in (trained / "run", tmp_path / "again")
    )
    assert first["val_loss"] == second["val_loss"]
    assert files(tmp_path / "again") == RESULTS - {"tensorboard"}
    before, after = (
        json.loads(path.read_text())["loader"]["config"]
        for path in (config, tmp_path / "again" / "config.json")
    )
    changed = {
        "cache_directory": "other",
        "disk_budget": 2**20,
        "max_extracted_size": 2**31,
        "max_extracted_files": 50,
        "split_manifest": str(trained / "run" / "split.json"),
    }
    assert after == before | changed
    assert (tmp_path / "other").is_dir()


def test_train_says_how_many_images_a_manifest_does_not_name(trained, capsys):
    images = Path("photos")
    shutil.copytree(trained / "photos", images)
    draw_images(images, {"daisy": 10}, seed=1)
    shutil.copytree(trained / "photos", images, dirs_exist_ok=True)
    manifest = ["--split-manifest", str(trained / "run" / "split.json")]
    arguments = [*SMALL, *manifest, "--early-stopping", "1"]
    assert run(["train", str(images), *arguments]) == 0
    line = "2 images of the folder are not in the split manifest"
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("options", [[], ["--xla"], ["--no-xla"]])
def test_xla_is_an_option(tmp_path, monkeypatch, options):
    monkeypatch.setitem(ImageClassifier.compile.__kwdefaults__, "jit_compile", "auto")
    compiled = []

    def train(config, **others):
        model = config.build_model(config.loader.load())
        compiled.append(model.get_compile_config()["jit_compile"])
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_flowers.training.train.train", train)
    images = draw_images(tmp_path / "photos", COUNTS)
    assert run(["train", str(images), *SMALL, *options]) == 130
    expected = {"--xla": True, "--no-xla": False}
    assert compiled == [expected[options[0]] if options else "auto"]


def test_ctrl_c_saves_and_ends_with_130(tmp_path, capsys, monkeypatch):
    images = draw_images(tmp_path / "photos", COUNTS)
    fit = keras.Model.fit

    def interrupted(self, *arguments, **options):
        fit(self, *arguments, **options | {"epochs": 1})
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "fit", interrupted)
    assert run(["train", str(images), *SMALL, "--run-dir", "run"]) == 130
    assert "Interrupted" in capsys.readouterr().out
    assert files(tmp_path / "run") == RESULTS - {"last-checkpoint"} | {"checkpoint"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("train", ["DATA", "--config"]),
        ("train photos --config missing.json", ["--config"]),
        ("train photos --epochs 0", ["--epochs", "0"]),
        ("train photos --epochs many", ["--epochs", "many"]),
        ("train photos --batch-size -1", ["--batch-size"]),
        ("train photos --batch-size 99999999999", ["--batch-size", "99999999999"]),
        ("train photos --epochs 99999999999", ["--epochs", "99999999999"]),
        (f"train photos --image-size {'9' * 5000}", ["--image-size", "4096"]),
        ("train photos --hidden-units 8,1000001", ["--hidden-units", "1000000"]),
        (f"train photos --hidden-units {'9' * 5000}", ["--hidden-units"]),
        ("train photos --image-size 0", ["--image-size"]),
        ("train photos --image-size 100000", ["--image-size", "4096"]),
        ("train photos --image-size big", ["--image-size", "big"]),
        ("train photos --hidden-units 5,x", ["--hidden-units", "5,x"]),
        ("train photos --learning-rate 0", ["--learning-rate"]),
        ("train photos --learning-rate nan", ["--learning-rate"]),
        ("train photos --optimizer magic", ["--optimizer", "magic", "adam"]),
        ("train photos --validation-split 1", ["--validation-split"]),
        ("train photos --validation-split 0.6 --test-split 0.5", ["--test-split"]),
        ("train photos --early-stopping 2 --validation-split 0", ["--early-stopping"]),
        ("train photos --class-weights odd", ["--class-weights", "odd"]),
        ("train photos --disk-budget lots", ["--disk-budget", "lots"]),
        ("train photos --disk-budget 5iB", ["--disk-budget", "5iB"]),
        ("train photos --disk-budget 9e99", ["--disk-budget", "9e99"]),
        ("train photos --disk-budget -1", ["--disk-budget", "-1"]),
        ("train photos --disk-budget 99999999TB", ["--disk-budget"]),
        ("train photos --fast", ["--fast"]),
        ("fly", ["fly"]),
        ("predict m.keras photos --top 99999999999", ["--top"]),
        ("predict", ["MODEL"]),
        ("predict model.keras", ["model.keras"]),
        ("evaluate missing.keras photos", ["missing.keras"]),
        ("evaluate . photos", ["run directory", "without one"]),
        ("sample", ["DIRECTORY"]),
        ("sample photos --photos-per-class 0", ["--photos-per-class"]),
        ("audit", ["DATA"]),
        ("doctor now", ["now"]),
    ],
)
def test_usage_errors(capsys, tmp_path, arguments, named):
    before = files(tmp_path)
    assert_bad_input(capsys, arguments.split(), *named)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "option", ["--epochs 3", "--no-augmentation", "--split-manifest", "--class-weights"]
)
def test_an_option_with_config_is_refused(capsys, trained, option):
    config = trained / "run" / "config.json"
    values = {"--split-manifest": [config], "--class-weights": ["balanced"]}
    name, *value = option.split()
    arguments = ["train", "--config", config, name, *values.get(name, value)]
    assert_bad_input(capsys, arguments, f"--config replaces {name}.")


@pytest.mark.parametrize("option", ["--validation-split", "--test-split"])
def test_a_fraction_with_a_manifest_is_refused(capsys, trained, option):
    manifest = trained / "run" / "split.json"
    arguments = ["train", "photos", "--split-manifest", manifest, option, "0.1"]
    assert_bad_input(capsys, arguments, "--split-manifest", option)


def test_a_tilde_is_the_home_folder(trained, tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    asked = {}

    def train(config, *, run_directory, **options):
        asked["run"] = run_directory
        asked["cache"] = Path(config.loader.cache_directory)
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_flowers.training.train.train", train)
    images, model = str(trained / "photos"), str(trained / "run" / "model.keras")
    assert run(["train", images, "--run-dir=~/run", "--cache-dir=~/cache"]) == 130
    assert asked == {"run": home / "run", "cache": home / "cache"}
    assert run(["predict", model, images, "--csv=~/tables/out.csv"]) == 0
    assert run(["evaluate", model, images, "--output-dir=~/report"]) == 0
    assert files(home) == {"tables", "report"}
    assert not (tmp_path / "~").exists()


def empty_folder(folder):
    folder.mkdir()


def one_class(folder):
    draw_images(folder, {"daisy": 3})


def images_without_class_folders(folder):
    draw_images(folder, {"daisy": 3})
    for image in (folder / "daisy").iterdir():
        image.rename(folder / image.name)
    (folder / "daisy").rmdir()


def a_class_too_small_to_split(folder):
    draw_images(folder, {"daisy": 5, "roses": 1})


def no_readable_image(folder):
    for name in ("daisy", "roses"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.jpg").write_bytes(b"\xff\xd8\xff")


def a_text_file(folder):
    folder.write_text("not photos")


def an_archive_that_escapes(folder):
    with zipfile.ZipFile(folder, "w") as archive:
        archive.writestr("../evil.jpg", b"\xff\xd8\xff")


@pytest.mark.parametrize("command", ["train", "audit"])
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda folder: None, "bad"),
        (empty_folder, "bad"),
        (one_class, "daisy"),
        (images_without_class_folders, "class"),
        (a_class_too_small_to_split, "roses"),
        (no_readable_image, "bad"),
        (a_text_file, "bad"),
        (an_archive_that_escapes, "evil.jpg"),
    ],
)
def test_bad_data(capsys, tmp_path, command, make, named):
    if command == "audit" and make is a_class_too_small_to_split:
        return  # an audit is fine with it
    make(tmp_path / "bad")
    before = sorted(path for path in (tmp_path / "bad").rglob("*"))
    assert_bad_input(capsys, [command, "bad"], named)
    assert sorted(path for path in (tmp_path / "bad").rglob("*")) == before
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "evil.jpg").exists()


def test_a_url_that_does_not_answer(capsys):
    url = "http://127.0.0.1:9/photos.tgz"
    assert_bad_input(capsys, ["train", url], url)


def test_a_run_directory_that_holds_a_run(capsys, trained):
    images, directory = trained / "photos", trained / "run"
    before = contents(directory)
    assert_bad_input(
        capsys, ["train", images, *SMALL, "--run-dir", directory], str(directory)
    )
    assert contents(directory) == before


def test_a_run_directory_that_cannot_be_written(capsys, trained):
    (trained / "file").write_text("")
    place = trained / "file" / "run"
    arguments = [trained / "photos", "--run-dir", place]
    for command in ("train", "tune"):
        assert_bad_input(
            capsys, [command, *arguments], "file", "Not a directory", "--run-dir"
        )


def test_a_read_only_folder_of_runs_names_the_option(capsys, trained, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "runs")
    Path("runs").mkdir()
    for command in ("train", "tune"):
        arguments = [command, trained / "photos"]
        assert_bad_input(capsys, arguments, "runs/photos", "denied", "--run-dir")


def test_a_full_disk(capsys, trained, monkeypatch):
    def full(self, *arguments, **options):
        raise OSError(28, "No space left on device", "model.keras")

    monkeypatch.setattr(keras.Model, "save", full)
    arguments = ["train", trained / "photos", *SMALL, "--run-dir", "run"]
    assert_bad_input(capsys, arguments, "No space left", "model.keras")


def test_debug_shows_the_traceback(capsys):
    assert run(["train", "missing", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "error: " in shown


def test_a_defect_is_told_apart_from_bad_input(capsys, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("a defect\nwith details")

    monkeypatch.setattr("keras_flowers.data.dataset_loader.audit_images", broken)
    draw_images(Path("photos"), COUNTS)
    assert run(["audit", "photos"]) == 1
    shown = capsys.readouterr().err
    assert shown == "unexpected RuntimeError: a defect (--debug shows where)\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate"),
        type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor"),
    ],
)
def test_out_of_memory_is_explained(capsys, monkeypatch, error):
    def exhausted(*arguments, **options):
        raise error

    monkeypatch.setattr("keras_flowers.data.dataset_loader.audit_images", exhausted)
    draw_images(Path("photos"), COUNTS)
    assert_bad_input(capsys, ["audit", "photos"], "out of memory", "--batch-size")


def test_the_end_of_a_file_is_no_ctrl_c(capsys, monkeypatch):
    def ended(*arguments, **options):
        raise EOFError("the file ended early")

    monkeypatch.setattr("keras_flowers.data.dataset_loader.audit_images", ended)
    draw_images(Path("photos"), COUNTS)
    assert run(["audit", "photos"]) == 1
    shown = capsys.readouterr().err
    assert "unexpected EOFError: the file ended early" in shown
    assert "interrupted" not in shown


def test_an_error_names_a_path_that_is_no_text(capsys):
    name = os.fsdecode(b"caf\xe9")
    assert_bad_input(capsys, ["train", name], printed(name))


@pytest.mark.parametrize("backend", ["nonsense", "openvino"])
def test_a_backend_that_is_none(capsys, monkeypatch, backend):
    # Any real name would do where its package is not installed.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("KERAS_BACKEND", backend)
    assert_bad_input(capsys, ["audit", "photos"], "KERAS_BACKEND", backend)


# --- tensorboard


def test_tensorboard_shows_run_directories_and_folders_of_runs(trained):
    shutil.copytree(trained / "run", "other/run")
    shutil.copytree(trained / "run", "runs/first")
    parts = ("", "/train", "/validation")
    expected = {
        f"{run}/tensorboard{part}"
        for run in ("run", "run (2)", "runs/first")
        for part in parts
    }
    folders = (trained / "run", "other/run", "runs")
    with running_tensorboard(*folders) as address:
        assert expected <= runs_of(address, expected)


def test_tensorboard_shows_one_run_with_its_name(trained):
    shutil.copytree(trained / "run", "eff")
    for folder, inner in (("eff", "tensorboard/"), ("eff/tensorboard", "")):
        expected = {f"eff/{inner}{split}" for split in ("train", "validation")}
        with running_tensorboard(folder) as address:
            assert expected <= runs_of(address, expected)


def test_tensorboard_refuses_what_it_cannot_show(capsys, tmp_path, trained):
    assert_bad_input(capsys, ["tensorboard"], "RUNS")
    assert_bad_input(capsys, ["tensorboard", "missing"], "missing")
    Path("empty").mkdir()
    assert_bad_input(
        capsys, ["tensorboard", trained / "run", "empty"], "empty", "train"
    )
    assert_bad_input(capsys, ["tensorboard", trained, "--port", "65536"], "65536")


def test_tensorboard_names_a_port_that_is_taken(trained):
    program = "from keras_flowers_cli.main import main; main()"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ["--host", "127.0.0.1", "--port", port]
        result = subprocess.run(
            [sys.executable, "-c", program, "tensorboard", trained, *options],
            check=False,
            capture_output=True,
            text=True,
        )
    assert result.returncode == 2
    (error,) = result.stderr.strip().splitlines()
    assert error.startswith("error: ")
    assert port in error


# --- predict


def test_predict_images_and_folders(trained, capsys, tmp_path):
    model = trained / "run" / "model.keras"
    image = trained / "photos" / "roses" / "000.png"
    folder = trained / "photos" / "tulips"
    arguments = ["predict", model, image, folder, "--csv", "out.csv", "--json"]
    assert run(list(map(str, arguments))) == 0
    shown = capsys.readouterr()
    results = json.loads(shown.out)
    assert [result["path"] for result in results] == [
        str(image),
        *(str(folder / f"{i:03}.png") for i in range(6)),
    ]
    for result in results:
        assert len(result["top"]) == 3
        assert result["class"] == result["top"][0]["class"]
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert "written to out.csv" in shown.err
    assert lines[0] == "path,class,daisy,roses,tulips"
    assert len(lines) == 8


def test_predict_top(trained, capsys):
    arguments = ["predict", "run/model.keras", "photos/roses/000.png", "--top", "1"]
    arguments[1:3] = [str(trained / argument) for argument in arguments[1:3]]
    assert run([*arguments, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert len(result["top"]) == 1
    assert run(arguments) == 0
    assert "000.png" in capsys.readouterr().out


def test_predict_goes_on_after_a_bad_image(trained, capsys, tmp_path):
    (tmp_path / "note.jpg").write_text("not a photo")
    good = trained / "photos" / "roses" / "000.png"
    arguments = ["predict", trained / "run" / "model.keras", "note.jpg", good, "--json"]
    assert run(list(map(str, arguments))) == 2
    shown = capsys.readouterr()
    assert [result["path"] for result in json.loads(shown.out)] == [str(good)]
    errors = [line for line in shown.err.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert "note.jpg" in errors[0]


def test_predict_in_a_folder_a_bad_image_is_reported_only(trained, capsys, tmp_path):
    folder = draw_images(tmp_path / "new", {"daisy": 2}) / "daisy"
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    assert run(["predict", str(trained / "run" / "model.keras"), str(folder)]) == 0
    assert "broken.jpg" in capsys.readouterr().err


def test_predict_leaves_out_the_clutter_of_a_folder(trained, capsys, tmp_path):
    folder = draw_images(tmp_path / "new", {"daisy": 2}) / "daisy"
    for clutter in ("__MACOSX", "@eaDir", ".thumbnails"):
        (folder / clutter).mkdir()
        shutil.copy(folder / "000.png", folder / clutter / "000.png")
    (folder / "._000.png").write_bytes(b"")
    assert run(["predict", str(trained / "run/model.keras"), "new", "--json"]) == 0
    shown = capsys.readouterr()
    assert [Path(result["path"]).name for result in json.loads(shown.out)] == [
        "000.png",
        "001.png",
    ]
    assert "error" not in shown.err


def test_predict_shows_odd_names_as_they_are(trained, capsys, odd_images):
    names = (*ODD_NAMES, NO_TEXT)
    arguments = ["predict", str(trained / "run" / "model.keras"), str(odd_images)]
    assert run([*arguments, "--csv", "out.csv"]) == 0
    shown = capsys.readouterr()
    for name in names:
        assert f"daisy/{printed(name)}\t" in shown.out, name
        assert f"roses/bad {printed(name)}`" in shown.err, name
    text = Path("out.csv").read_bytes().decode("utf-8", "surrogateescape")
    written = {row["path"] for row in csv.DictReader(text.splitlines(keepends=True))}
    assert written >= {str(odd_images / "daisy" / name) for name in names}
    assert run([*arguments, "--json"]) == 0
    told = {result["path"] for result in json.loads(capsys.readouterr().out)}
    assert told == written


def test_predict_says_at_once_that_the_csv_cannot_be_written(capsys, trained):
    Path("file").touch()
    arguments = ["predict", trained / "run" / "model.keras", trained / "photos"]
    assert_bad_input(capsys, [*arguments, "--csv", "file/out.csv"], "--csv", "file")


def test_predict_without_a_image(trained, capsys, tmp_path):
    (tmp_path / "empty").mkdir()
    arguments = ["predict", trained / "run" / "model.keras", "empty"]
    assert_bad_input(capsys, arguments, "no image")


def an_h5_file(path):
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    return path.rename(path.with_suffix(".h5"))


def a_text(path):
    path.write_text("not a model")
    return path


def another_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "not a model")
    return path


def a_cut_model(path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def damaged_weights(path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["model.weights.h5"] = members["model.weights.h5"][:1000]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def more_class_names_than_outputs(path):
    model = ImageClassifier(["daisy", "roses"], (8, 8), hidden_units=())
    model._class_names = ("daisy", "roses", "tulips")
    model.save(path)
    return path


def unsafe_code(path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x)])
    model.save(path)
    return path


def another_model(path):
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(path)
    return path


@pytest.mark.parametrize("command", ["predict", "evaluate"])
@pytest.mark.parametrize(
    "make",
    [
        an_h5_file,
        a_text,
        another_zip,
        a_cut_model,
        damaged_weights,
        more_class_names_than_outputs,
        unsafe_code,
        another_model,
    ],
)
def test_model_files_that_are_none(capsys, trained, tmp_path, command, make):
    path = make(tmp_path / "model.keras")
    images = trained / "photos"
    assert_bad_input(capsys, [command, path, images], path.name)
    assert not (tmp_path / "evaluation").exists()


# --- evaluate


def test_evaluate_all_images(trained, capsys, tmp_path):
    model, images = trained / "run" / "model.keras", trained / "photos"
    arguments = ["evaluate", model, images, "--output-dir", "report", "--json"]
    assert run(list(map(str, arguments))) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["photos"] == 21
    assert sum(map(sum, result["confusion_matrix"])) == 21
    assert files(tmp_path / "report") == EVALUATION
    assert result == json.loads((tmp_path / "report/evaluation.json").read_text())
    assert (result["model"], result["data"]) == (str(model), str(images))
    assert (result["split"], result["split_manifest"]) == (None, None)


def test_evaluate_the_split_of_a_run(trained, capsys):
    images, manifest = trained / "photos", trained / "run" / "split.json"
    arguments = ["evaluate", trained / "run", images, "--split-manifest", manifest]
    assert run(list(map(str, arguments))) == 0
    shown = capsys.readouterr().out
    assert "4 images" in shown
    assert f"validation images of {manifest}" in shown
    assert "F1" in shown
    assert "expected calibration error" in shown
    assert files(trained / "run" / "evaluation") == EVALUATION
    history = json.loads((trained / "run" / "history.json").read_text())
    report = json.loads((trained / "run/evaluation/evaluation.json").read_text())
    assert report["accuracy"] == pytest.approx(history["val_accuracy"][-1])
    assert report["split"] == "validation"
    assert report["split_manifest"] == str(manifest)
    assert report["model"] == str(trained / "run" / "model.keras")


def test_evaluate_compares_two_models(trained, capsys, tmp_path):
    first, images = trained / "run" / "model.keras", trained / "photos"
    # It sees images of another size, and predicts the first class for each of them.
    names = list(COUNTS)
    other = ImageClassifier(names, image_size=(12, 10), hidden_units=(), seed=1)
    *_, kernel, bias = other.get_weights()
    other.set_weights([kernel * 0, 9 * np.eye(len(bias))[0]])
    other.save(tmp_path / "other.keras")
    arguments = ["evaluate", first, tmp_path / "other.keras", images]
    assert run([*map(str, arguments), "--json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert files(tmp_path / "comparison") == {"changed.csv", "comparison.json"}
    written = json.loads((tmp_path / "comparison/comparison.json").read_text())
    assert result == written
    assert result["model_b"] == str(tmp_path / "other.keras")
    assert result["images"] == sum(COUNTS.values())
    assert result["second_accuracy"] == COUNTS[names[0]] / sum(COUNTS.values())
    gained = result["second_accuracy"] - result["first_accuracy"]
    assert result["accuracy"]["value"] == pytest.approx(gained)
    assert result["fixed"] - result["broken"] == round(gained * result["images"])
    assert {one["second_class"] for one in result["changed"]} == {names[0]}
    for text in ("McNemar's test", "95 % interval", "changed images", "broken"):
        assert text in shown.err
    for wrong in (["--explain", "why"], ["third.keras"]):
        assert run([*map(str, arguments), *wrong]) == 2


def test_evaluate_explains_the_worst_mistakes(trained, capsys, tmp_path):
    images = draw_images(tmp_path / "swapped", COUNTS)
    first, second, *_ = COUNTS
    (images / first).rename(tmp_path / "moved")
    (images / second).rename(images / first)
    (tmp_path / "moved").rename(images / second)
    model = trained / "run" / "model.keras"
    arguments = ["evaluate", model, images, "--explain", "why", "--mistakes", "2"]
    assert run(list(map(str, arguments))) == 0
    assert "2 mistakes explained in why" in capsys.readouterr().out
    report = json.loads((trained / "run/evaluation/evaluation.json").read_text())
    for number, mistake in enumerate(report["worst_mistakes"], 1):
        for kind in ("predicted", "true"):
            stem = Path(mistake["path"]).stem
            with Image.open(f"why/{number}-{stem}-{kind}.png") as image:
                assert image.width > image.height > 100
    assert len(list(Path("why").iterdir())) == 4


def test_evaluate_shows_and_writes_the_mistakes(trained, capsys, tmp_path):
    images = trained / "photos"
    # Each name stands on the photos of another class: all that is learned is wrong.
    swapped = tmp_path / "swapped"
    for old, new in zip(COUNTS, [*list(COUNTS)[1:], *COUNTS][:3], strict=True):
        shutil.copytree(images / old, swapped / new)
    model = trained / "run" / "model.keras"
    arguments = ["evaluate", model, swapped, "--output-dir", "out", "--json"]
    arguments += ["--top", "2", "--mistakes", "3"]
    assert run(list(map(str, arguments))) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert "worst mistakes" in shown.err
    assert result["mistakes"] > 3
    worst = result["worst_mistakes"]
    assert len(worst) == 3
    assert [one["loss"] for one in worst] == sorted(
        (one["loss"] for one in worst), reverse=True
    )
    for one in worst:
        assert one["true_class"] == Path(one["path"]).parent.name
        assert one["predicted_class"] != one["true_class"]
        path = Path(one["path"]).relative_to(swapped)
        assert str(path) in shown.err
    with Path("out/predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["photos"] == 21
    assert "class_2" in rows[0]
    assert "class_3" not in rows[0]
    assert all((swapped / row["path"]).is_file() for row in rows)
    assert {Path(row["path"]).parent.name for row in rows} == {
        row["path"].split("/")[0] for row in rows
    }
    wrong = [row for row in rows if row["class_1"] != row["true_class"]]
    assert len(wrong) == result["mistakes"]
    bins = result["calibration"]["bins"]
    assert sum(one["count"] for one in bins) == 21


def test_evaluate_cuts_what_a_terminal_does_not_take(capsys):
    count = 60
    names = tuple(f"class {i}" for i in range(count))
    labels = np.arange(count, dtype=np.int32)
    paths = tuple(Path(f"{i}.jpg") for i in range(count))
    rows = np.roll(np.eye(count, dtype=np.float32), 1, axis=1)
    _show(Output(), Evaluation(names, paths, labels, rows))
    shown = capsys.readouterr().out
    assert "... and 10 more classes" in shown
    assert "... and 50 more confusions" in shown
    assert "... and 50 more mistakes" in shown
    assert "confusion matrix" not in shown
    assert max(map(len, shown.splitlines())) < 120


def test_evaluate_without_a_mistake(capsys):
    rows = np.eye(2, dtype=np.float32)
    labels = np.arange(2, dtype=np.int32)
    two = Evaluation(("a", "b"), (Path("0"), Path("1")), labels, rows)
    _show(Output(), two)
    assert "no mistake" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--top=0", "--mistakes=0", "--mistakes=1001"])
def test_evaluate_refuses_counts_out_of_range(trained, capsys, option):
    arguments = ["evaluate", trained / "run" / "model.keras", trained / "photos"]
    assert_bad_input(capsys, [*arguments, option], option.split("=")[0])


def test_evaluate_says_at_once_that_the_report_cannot_be_written(capsys, monkeypatch):
    Path("file").touch()
    Path("model.keras").touch()
    monkeypatch.setattr("keras_flowers_cli.runtime.start_keras", lambda: 1 / 0)
    arguments = ["evaluate", "model.keras", "photos", "--output-dir", "file/report"]
    assert_bad_input(capsys, arguments, "--output-dir", "file/report")


def test_evaluate_shows_odd_names_as_they_are(trained, capsys, odd_images):
    (odd_images / "daisy").rename(odd_images / "[red]:rose:")
    arguments = ["evaluate", str(trained / "run" / "model.keras"), str(odd_images)]
    assert_bad_input(capsys, arguments, "[red]:rose:")
    (odd_images / "[red]:rose:").rename(odd_images / "daisy")
    moved = odd_images.with_name(f"[red]:rose:{NO_TEXT}")
    odd_images.rename(moved)
    arguments = ["evaluate", arguments[1], str(moved), "--output-dir", f"{moved}/.out"]
    assert run(arguments) == 0
    assert f"written to {printed(str(moved))}/.out" in capsys.readouterr().out


def test_evaluate_unknown_classes(trained, capsys, tmp_path):
    images = draw_images(tmp_path / "photos", COUNTS)
    (images / "tulips").rename(images / "lilies")
    arguments = ["evaluate", trained / "run" / "model.keras", images]
    assert_bad_input(capsys, arguments, "lilies")


def test_split_needs_a_manifest(trained, capsys):
    arguments = ["evaluate", trained / "run" / "model.keras", "x", "--split", "test"]
    assert_bad_input(capsys, arguments, "--split-manifest")


def test_a_manifest_that_is_none(trained, capsys, tmp_path):
    (tmp_path / "split.json").write_text("{}")
    arguments = ["evaluate", trained / "run" / "model.keras", trained / "photos"]
    assert_bad_input(
        capsys, [*arguments, "--split-manifest", "split.json"], "split.json"
    )


# --- a run that diverged


def test_train_json_is_strict_after_a_diverged_run(diverged):
    result = strict_json((diverged / "train.json").read_text())
    assert result["history"]["loss"] == ["NaN"]


def test_evaluate_and_predict_json_are_strict_after_a_diverged_run(diverged, capsys):
    model, images = str(diverged / "run" / "model.keras"), str(diverged / "photos")
    assert run(["evaluate", model, images, "--json"]) == 0
    shown = capsys.readouterr()
    assert strict_json(shown.out)["loss"] == "NaN"
    assert "The predictions for 21 images are NaN" in shown.err
    report = diverged / "run" / "evaluation" / "evaluation.json"
    assert strict_json(report.read_text())["loss"] == "NaN"
    assert strict_json(report.read_text())["unanswered"] == 21
    assert files(report.parent) == EVALUATION
    assert run(["predict", model, images, "--json"]) == 0
    assert strict_json(capsys.readouterr().out)[0]["probability"] == "NaN"


def test_infinities_are_told_apart():
    content = {"a": (math.inf, -math.inf, 1.5), "b": [{"c": math.nan}]}
    assert strict_json(json_text(content)) == {
        "a": ["Infinity", "-Infinity", 1.5],
        "b": [{"c": "NaN"}],
    }


# --- the others


def test_audit_reports_findings(tmp_path, capsys):
    images = draw_images(tmp_path / "photos", COUNTS)
    (images / "daisy" / "empty.jpg").touch()
    (images / "roses" / "copy.png").write_bytes(
        (images / "daisy" / "000.png").read_bytes()
    )
    assert run(["audit", str(images), "--html", "pages/audit.html"]) == 0
    shown = capsys.readouterr().out
    assert "daisy/empty.jpg" in shown
    assert "label conflict (1), used, in the same split:\n" in shown
    assert shown.index("label conflict (1)") < shown.index("empty file (1)")
    *_, summary, written = shown.splitlines()
    assert summary.startswith("22 images in 3 classes can be used, 1 file cannot. ")
    assert "label conflict (1), empty file (1)" in summary
    assert written == "written to pages/audit.html"
    assert Path("pages/audit.html").read_text().count("<img ") >= 2
    assert run(["audit", str(images), "--json"]) == 0
    text = capsys.readouterr().out
    result = json.loads(text)
    assert result["counts"] == COUNTS | {"roses": 8}
    assert {f["kind"] for f in result["findings"]} >= {"empty_file", "label_conflict"}
    (conflict,) = (f for f in result["findings"] if f["kind"] == "label_conflict")
    assert conflict["action"] == "used, in the same split"
    assert conflict["paths"] == conflict["exclude"]
    assert conflict["paths"] == ["daisy/000.png", "roses/copy.png"]
    Path("audit.json").write_text(text)
    excluding = ["--exclude", "audit.json", "--exclude-kinds", "label_conflict"]
    arguments = ["train", str(images), *SMALL, *excluding, "--run-dir", "run"]
    assert run([*arguments, "--epochs", "1"]) == 0
    shown = capsys.readouterr().out
    assert "excluded (1), left out:" in shown
    assert "daisy/000.png, roses/copy.png" in shown
    config = json.loads(Path("run/config.json").read_text())
    assert config["loader"]["config"]["exclude"] == conflict["paths"]
    split = Path("run/split.json").read_text()
    assert "daisy/001.png" in split
    assert not any(path in split for path in conflict["paths"])
    evaluate = ["evaluate", "run/model.keras", str(images), *excluding, "--json"]
    assert run(evaluate) == 0
    evaluation = json.loads(capsys.readouterr().out)
    assert evaluation["photos"] == 20
    assert evaluation["excluded"] == conflict["paths"]
    # The same options resume the run, other ones are refused by name.
    assert run([*arguments[:-2], "--epochs", "1", "--resume", "run"]) == 0
    Path("audit.json").write_text("daisy/001.png")
    other = ["train", str(images), "--exclude", "audit.json", "--resume", "run"]
    assert_bad_input(capsys, other, "another --exclude than audit.json")


@pytest.mark.parametrize("command", ["train", "tune"])
def test_what_was_found_is_shown_before_an_error_about_the_split(
    capsys, tmp_path, command
):
    images = draw_images(tmp_path / "photos", {"daisy": 5, "roses": 1})
    for index in range(3):
        (images / "roses" / f"broken{index}.jpg").write_bytes(b"\xff\xd8\xff")
    assert run([command, str(images), "--image-size", "8"]) == 2
    shown = capsys.readouterr()
    assert "corrupt (3), left out:" in shown.out
    assert "roses/broken0.jpg: truncated" in shown.out
    assert "class roses is too small" in shown.err
    assert not (tmp_path / "runs").exists()


def test_audit_and_train_show_odd_names_as_they_are(capsys, odd_images):
    (odd_images / "tulips").rename(odd_images / "[red]:rose:")
    for arguments in (["audit", str(odd_images)], ["train", str(odd_images), *SMALL]):
        assert run(arguments) == 0
        shown = capsys.readouterr().out
        assert "[red]:rose:\t" in shown
        for name in (*ODD_NAMES, NO_TEXT):
            assert f"roses/bad {printed(name)}: " in shown, name


def test_sample_writes_plain_folders(tmp_path, capsys):
    assert run(["sample", "flowers", "--photos-per-class", "2"]) == 0
    assert len(list((tmp_path / "flowers").glob("*/*.jpg"))) == 10
    assert_bad_input(capsys, ["sample", "flowers"], "flowers")


def test_doctor(capsys, monkeypatch):
    monkeypatch.setattr(measure, "_SECONDS", 0.01)
    monkeypatch.setattr(measure, "_IMAGE_SIZE", (8, 8))
    monkeypatch.setattr(measure, "_IMAGES_PER_CLASS", 1)
    assert run(["doctor", "--measure", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    for name in ("loading", "training", "forward"):
        assert facts[f"{name}_images_per_second"] > 0
    assert facts["limit"].startswith(("loading: ", "the training step: "))
    assert "faster disk" in measure.describe_limit(10, 20)
    assert "provides 3 times as many images" in measure.describe_limit(30, 10)
    assert facts["devices"] == 1
    assert facts["keras"] == keras.__version__
    assert facts["xla"] == "works"
    assert {"device", "missing_for_a_gpu", "mixed_precision", "cache_size"} <= set(
        facts
    )


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch", "numpy"])
def test_what_a_gpu_lacks(monkeypatch, backend):
    monkeypatch.setattr(devices, "gpus", list)
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setattr(devices, "_has_nvidia_device", lambda: False)
    assert "no NVIDIA GPU" in devices.missing_for_gpu()
    monkeypatch.setattr(devices, "_has_nvidia_device", lambda: True)
    monkeypatch.setattr(devices, "_loads", lambda library: False)
    assert "driver (libcuda.so.1)" in devices.missing_for_gpu()
    monkeypatch.setattr(devices, "_loads", lambda library: library == "libcuda.so.1")
    monkeypatch.setattr(devices, "_in_site_packages", lambda library: False)
    named = {
        "tensorflow": "libcudart.so.12 is missing; install keras-flowers[gpu]",
        "jax": 'pip install "jax[cuda12]"',
        "torch": "PyTorch",
        "numpy": "numpy backend",
    }
    message = devices.missing_for_gpu()
    assert named[backend] in message
    assert ("libcudart" in message) == (backend == "tensorflow")
    if backend == "tensorflow":
        monkeypatch.setattr(devices, "_loads", lambda library: True)
        assert "CUDA_VISIBLE_DEVICES" in devices.missing_for_gpu()


def test_libraries_that_came_with_packages_are_found(monkeypatch, tmp_path):
    (tmp_path / "nvidia" / "cuda_runtime" / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "cuda_runtime" / "lib" / "libcudart.so.12").touch()
    monkeypatch.syspath_prepend(tmp_path)
    assert devices._in_site_packages("libcudart.so.12")
    assert not devices._in_site_packages("libcudart.so.99")


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, ValueError])
def test_a_backend_without_gpus(monkeypatch, error):
    def list_devices(kind):
        raise error

    monkeypatch.setattr(keras.distribution, "list_devices", list_devices)
    assert devices.gpus() == []
    assert devices.missing_for_gpu() is not None
    assert devices.describe_device().startswith("CPU with ")


def test_the_gpus_of_pytorch(monkeypatch):
    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(device_count=lambda: 2))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    assert devices.gpus() == ["cuda:0", "cuda:1"]
    assert devices.missing_for_gpu() is None


def test_without_a_command_help_is_shown(capsys):
    assert run([]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Usage: keras-flowers" in shown.err
    assert "evaluate" in shown.err


def run_program(program, **options):
    return subprocess.run(
        [sys.executable, "-c", program], check=False, stderr=subprocess.PIPE, **options
    )


@pytest.mark.parametrize(
    "printing", ["rich.print('line')", "click.echo('line')", "print('line')"]
)
def test_a_reader_that_goes_away_is_no_error(printing):
    program = (
        "import sys, click, rich\n"
        "from keras_flowers_cli.main import commands, main\n"
        "@commands.command()\n"
        "def talk():\n"
        f"    for _ in range(10_000): {printing}\n"
        "sys.argv = ['keras-flowers', 'talk']\n"
        "main()\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = run_program(program, stdout=writer)
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_crash_while_tensorflow_starts_leaves_a_trace():
    program = (
        "import os, resource\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "from keras_flowers_cli import runtime\n"
        "runtime._import_backend = os.abort\n"
        "runtime.start_keras()\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    ended = run_program(program, env=environment)
    assert ended.returncode != 0
    assert b"Fatal Python error: Aborted" in ended.stderr


def test_help_version_and_usage_errors_do_not_import_keras():
    script = (
        "import sys\n"
        "from keras_flowers_cli.main import run\n"
        "assert run(['--help']) == 0\n"
        "assert run(['train', '--help']) == 0\n"
        "assert run(['--version']) == 0\n"
        "assert run([]) == 2\n"
        "assert run(['train', 'photos', '--epochs', '0']) == 2\n"
        "slow = {'keras', 'tensorflow', 'numpy', 'keras_flowers'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_installed_command_answers():
    command = [sys.executable, "-c", "from keras_flowers_cli.main import main; main()"]
    shown = subprocess.run([*command, "--version"], check=True, capture_output=True)
    assert shown.stdout.decode().startswith("keras-flowers, version")
    failed = subprocess.run([*command, "fly"], check=False, capture_output=True)
    assert failed.returncode == 2
