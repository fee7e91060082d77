"""Sorting, explaining and batches of `predict`; `export` as a command."""

import csv
import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import keras
import pytest
from helpers import draw_images, tiny_network
from keras_flowers_cli import sorting
from keras_flowers_cli.main import run
from PIL import Image

from keras_flowers import Backbone, ImageClassifier
from keras_flowers.export import export, export_model
from keras_flowers.models.frozen_prediction import choose_precision
from keras_flowers.models.unknown import UnknownDetector

COUNTS = {"daisy": 3, "roses": 2}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A `.keras` file and the same model exported."""
    folder = tmp_path_factory.mktemp("models")
    model = ImageClassifier(
        ["x", "y"], image_size=(8, 8), hidden_units=(4,), seed=1, temperature=1.7
    )
    model.unknown_detector = UnknownDetector(0.5)
    model.save(folder / "model.keras")
    export_model(model, folder / "onnx")
    return folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return draw_images(tmp_path / "photos", COUNTS)


def predict(capsys, *arguments, code=0):
    capsys.readouterr()
    assert run(["predict", *map(os.fspath, arguments)]) == code
    return capsys.readouterr()


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_exported_and_saved_models_answer_alike(models, photos, capsys):
    answers = []
    for name in ("model.keras", "onnx"):
        for size in ("1", "2", "64"):
            shown = predict(
                capsys, models / name, photos, "--json", "--batch-size", size
            )
            answers.append(json.loads(shown.out))
    for answer in answers[1:]:
        for one, other in zip(answers[0], answer, strict=True):
            assert (one["path"], one["class"]) == (other["path"], other["class"])
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_none_of_these_is_said_on_request(models, photos, capsys, tmp_path):
    plain = json.loads(predict(capsys, models / "model.keras", photos, "--json").out)
    assert "unknown" not in plain[0]
    probabilities = sorted(answer["probability"] for answer in plain)
    assert 0.5 < probabilities[0] < probabilities[-1]
    limit = str((probabilities[1] + probabilities[2]) / 2)
    for name in ("model.keras", "onnx"):
        arguments = (models / name, photos, "--unknown")
        shown = json.loads(predict(capsys, *arguments, limit, "--json").out)
        for one, other in zip(shown, plain, strict=True):
            assert one["unknown"] is (other["probability"] < float(limit))
            assert one["class"] == other["class"]
        # No probability of two classes is below 0.5, the threshold of the model.
        auto = json.loads(predict(capsys, *arguments, "auto", "--json").out)
        assert not any(answer["unknown"] for answer in auto)
        shown = predict(
            capsys, *arguments, limit, "--copy-to", "sorted", "--csv", "answers.csv"
        ).out
        assert shown.count("none of these") == 2
        assert "3 images copied" in shown
        assert "2 show none of the classes and stay where they are" in shown
        rows = list(csv.reader(Path("answers.csv").read_text().splitlines()))
        assert rows[0] == ["path", "class", "unknown", "x", "y"]
        assert [row[2] for row in rows[1:]].count("1") == 2
        shutil.rmtree("sorted")
    description = json.loads((models / "onnx" / "model.json").read_text())
    assert (description["temperature"], description["unknown_threshold"]) == (1.7, 0.5)
    for wrong in ("1.5", "often"):
        arguments = ["predict", str(models / "onnx"), str(photos), "--unknown", wrong]
        assert run(arguments) == 2
        assert "--unknown must be auto or a probability" in capsys.readouterr().err
    ImageClassifier(["x", "y"], (8, 8), hidden_units=()).save("plain.keras")
    assert run(["predict", "plain.keras", str(photos), "--unknown", "auto"]) == 2
    assert "cannot tell which images show none" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--move-to", "--copy-to"])
def test_images_are_sorted_by_class_and_none_is_overwritten(
    models, photos, capsys, option
):
    before = contents(photos)
    (photos.parent / "sorted" / "x").mkdir(parents=True)
    (photos.parent / "sorted" / "y").mkdir()
    for name in ("x", "y"):
        (photos.parent / "sorted" / name / "000.png").write_text("mine")
    shown = predict(capsys, models / "onnx", photos, option, "sorted", "--json")
    answers = json.loads(shown.out)
    assert len(answers) == 5
    for answer in answers:
        placed = Path(answer["placed"])
        assert placed.parent == Path("sorted", answer["class"])
        original = Path(answer["path"]).relative_to(photos).as_posix()
        assert placed.read_bytes() == before[original]
        assert Path(answer["path"]).exists() == (option == "--copy-to")
    assert contents(photos) == (before if option == "--copy-to" else {})
    # Two images are called 000.png, and so were two that were there.
    sorted_files = contents(photos.parent / "sorted")
    assert sorted_files["x/000.png"] == sorted_files["y/000.png"] == b"mine"
    assert len(sorted_files) == 7


def test_a_dry_run_promises_what_happens(models, photos, capsys):
    before = contents(photos)
    options = ("--move-to", "sorted", "--json")
    dry = predict(capsys, models / "onnx", photos, *options, "--dry-run")
    assert contents(photos) == before
    assert not Path("sorted").exists()
    assert "5 images would be moved to sorted" in dry.err
    assert dry.err.count(" -> ") == 5
    wet = predict(capsys, models / "onnx", photos, *options)
    assert json.loads(wet.out) == json.loads(dry.out)
    assert "5 images moved to sorted" in wet.err


def test_sorting_in_place_is_done_once(models, photos, capsys):
    predict(capsys, models / "onnx", photos, "--move-to", photos)
    first = contents(photos)
    shown = predict(capsys, models / "onnx", photos, "--move-to", photos)
    assert contents(photos) == first
    assert "0 images moved to" in shown.out
    assert "5 are there already" in shown.out


@pytest.mark.parametrize("option", ["--move-to", "--copy-to"])
def test_a_link_arrives_as_the_image(models, photos, capsys, option):
    target = photos / "daisy" / "000.png"
    Path("link.png").symlink_to(target)
    predict(capsys, models / "onnx", "link.png", option, "sorted")
    (placed,) = Path("sorted").glob("*/link.png")
    assert not placed.is_symlink()
    assert placed.read_bytes() == target.read_bytes()
    assert Path("link.png").is_symlink() == (option == "--copy-to")


def test_without_hard_links_images_are_copied(models, photos, capsys, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "no hard links", os.fspath(source))

    before = contents(photos)
    monkeypatch.setattr(sorting.os, "link", refuse)
    predict(capsys, models / "onnx", photos, "--move-to", "sorted")
    assert contents(photos) == {}
    assert sorted(contents(Path("sorted")).values()) == sorted(before.values())


def test_a_disk_that_is_full_loses_no_image(models, photos, capsys, monkeypatch):
    def fail(source, target):
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device", os.fspath(target))

    before = contents(photos)
    monkeypatch.setattr(sorting.shutil, "copy2", fail)
    shown = predict(capsys, models / "onnx", photos, "--copy-to", "sorted", code=2)
    assert "No space left on device" in shown.err
    assert contents(photos) == before
    assert contents(Path("sorted")) == {}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--dry-run"], "--move-to"),
        (["--move-to", "a", "--copy-to", "b"], "exclude each other"),
        (["--move-to", "file/a"], "--move-to"),
        (["--batch-size", "0"], "--batch-size"),
        (["--explain", "file/a"], "--explain"),
    ],
)
def test_bad_options_are_named_before_the_model_is_read(photos, capsys, options, named):
    Path("file").touch()
    shown = predict(capsys, "file", photos, *options, code=2)
    assert named in shown.err


def test_a_class_that_is_no_folder_is_refused(photos, capsys):
    names = ["../up", "b"]
    ImageClassifier(names, image_size=(8, 8), hidden_units=()).save("odd.keras")
    shown = predict(capsys, "odd.keras", photos, "--copy-to", "sorted", code=2)
    assert "../up" in shown.err
    assert not Path("sorted").exists()


def test_explanations_are_written_for_each_image(models, photos, capsys):
    shown = predict(capsys, models / "model.keras", photos, "--explain", "why")
    assert "5 explanations written to why" in shown.out
    names = sorted(path.name for path in Path("why").iterdir())
    assert names == ["1-000.png", "2-001.png", "3-002.png", "4-000.png", "5-001.png"]
    for path in Path("why").iterdir():
        with Image.open(path) as picture:
            assert picture.width > 400


def test_export_writes_the_folder_and_says_how_to_use_it(models, photos, capsys):
    shutil.copy(models / "model.keras", "flowers.keras")
    assert run(["export", "flowers.keras"]) == 0
    shown = capsys.readouterr()
    assert "64 images (drawn images" in shown.out
    assert "keras-flowers predict flowers-onnx PHOTO" in shown.out
    assert {path.name for path in Path("flowers-onnx").iterdir()} == {
        "README.md",
        "labels.txt",
        "model.json",
        "model.onnx",
        "proof.json",
    }
    assert run(["export", "flowers.keras"]) == 2
    assert "new or an empty folder" in capsys.readouterr().err


def test_export_json_is_the_proof(models, photos, capsys):
    arguments = ["export", str(models / "model.keras"), "--format", "saved_model"]
    assert run([*arguments, "--output", "out", "--json"]) == 0
    proof = json.loads(capsys.readouterr().out)
    assert proof["passed"] is True
    assert proof["directory"] == "out"
    assert proof["images"] == 64


def test_an_export_that_answers_otherwise_exits_with_3(
    models, photos, capsys, monkeypatch
):
    convert = export.convert

    def convert_another(model, *arguments):
        weights = model.get_weights()
        model.set_weights([*weights[:-1], weights[-1] + [1.0, 0.0]])
        try:
            convert(model, *arguments)
        finally:
            model.set_weights(weights)

    monkeypatch.setattr(export, "convert", convert_another)
    code = run(["export", str(models / "model.keras"), "--output", "out"])
    assert code == 3
    shown = capsys.readouterr()
    assert shown.err.startswith("error: The exported model gives other answers")
    assert "Nothing was written" in shown.err
    assert not Path("out").exists()
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


def test_export_of_int8_without_a_run_is_refused(models, photos, capsys):
    arguments = ["export", str(models / "model.keras"), "--quantize", "int8"]
    assert run([*arguments, "--output", "out"]) == 2
    assert "int8 needs training images" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_lower_precision_needs_a_keras_file_with_a_backbone(models, photos, capsys):
    exported = predict(
        capsys, models / "onnx", photos, "--inference-precision", "bf16", code=2
    )
    assert "has the precision that it was exported with" in exported.err
    plain = predict(
        capsys, models / "model.keras", photos, "--inference-precision", "bf16", code=2
    )
    if keras.backend.backend() == "tensorflow" and importlib.util.find_spec("openvino"):
        reason = "--inference-precision is that of the features of a backbone"
    else:
        reason = "The inference precision bf16 needs"
    assert reason in plain.err


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="OpenVINO needs TensorFlow here"
)
def test_evaluate_and_predict_say_what_a_lower_precision_changes(
    photos, capsys, tmp_path
):
    pytest.importorskip("openvino")
    backbone = Backbone(tiny_network(), "own")
    model = ImageClassifier(["daisy", "roses"], (8, 8), (4,), backbone=backbone)
    if choose_precision(model, "bf16") != "bf16":
        pytest.skip("the processor has no bfloat16")
    model.save(tmp_path / "tiny.keras")
    shown = predict(
        capsys, tmp_path / "tiny.keras", photos, "--inference-precision", "bf16"
    )
    pattern = (
        r"Features in bf16 change the answer for \d of 5 images; prob.* at most \d"
    )
    assert re.search(pattern, shown.out)
    command = ["evaluate", tmp_path / "tiny.keras", photos, "--json"]
    command += ["--inference-precision", "bf16", "--output-dir", tmp_path / "out"]
    assert run([*map(os.fspath, command)]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    found = report["precision_difference"]
    assert report["inference_precision"] == found["precision"] == "bf16"
    assert found["images"] == 5
    assert re.search(pattern, shown.err)
