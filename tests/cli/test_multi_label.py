"""Several labels per image, from the label file to the answers of all commands."""

import csv
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from event_reading import read_runs
from helpers import tiny_network
from keras import ops
from keras_flowers.tuning import ImageClassifierHyperModel, results
from keras_flowers_cli.main import run
from keras_flowers_cli.serve import _load_model
from keras_flowers_serving import create_app
from PIL import Image
from starlette.testclient import TestClient

import keras_flowers
from keras_flowers import Backbone, FineTuning, ImageClassifier, ImageDatasetLoader
from keras_flowers.data.split_manifest import read_manifest
from keras_flowers.history import read_history
from keras_flowers.training import feature_datasets
from keras_flowers.training.feature_datasets import measure_precision, with_features

NAMES = ("blue", "green", "red")
LABELS = ("--label-separator", "|")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images with up to three bright squares, one color for each, and a label file."""
    root = tmp_path_factory.mktemp("squares")
    (root / "images").mkdir()
    generator = np.random.default_rng(0)
    rows = [["path", "labels"]]
    for number in range(130):
        pixels = generator.integers(0, 40, (12, 12, 3), dtype=np.uint8)
        has = generator.random(3) < 0.4
        for channel in np.flatnonzero(has):
            pixels[4 * channel : 4 * channel + 4, :, 2 - channel] += 190
        Image.fromarray(pixels).save(root / "images" / f"{number:03}.png")
        found = [name for name, there in zip(NAMES, has, strict=True) if there]
        rows.append([f"{number:03}.png", "|".join(found)])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


@pytest.fixture(scope="module")
def trained(folder):
    """A run of `train` in the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_FLOWERS_CACHE", str(folder / "cache"))
        options = ["--image-size", "12", "--hidden-units", "8", "--epochs", "12"]
        options += ["--no-augmentation", "--learning-rate", "0.02"]
        options += ["--validation-split", "0.4", "--run-dir", str(folder / "run")]
        labels = ["--labels", str(folder / "labels.csv"), *LABELS]
        assert run(["train", str(folder / "images"), *labels, *options]) == 0
        yield folder / "run"


def answer(capsys, *arguments, code=0):
    capsys.readouterr()
    assert run([*map(os.fspath, arguments)]) == code
    shown = capsys.readouterr()
    return shown.err if code else json.loads(shown.out)


def true_labels(folder):
    with (folder / "labels.csv").open() as file:
        return {
            row["path"]: {name for name in row["labels"].split("|") if name}
            for row in csv.DictReader(file)
        }


def test_a_run_has_learned_the_labels(trained, folder, capsys, tmp_path):
    history = read_history(trained)
    assert {"mean_average_precision", "val_mean_average_precision"} <= set(history)
    assert "collapsed" not in history
    expected = true_labels(folder)
    entries = read_manifest(trained / "split.json").images
    assert {entry.path: set(entry.labels) for entry in entries} == expected
    report = (trained / "report.html").read_text()
    for text in ("Mean average precision, validation", "Scores of each label"):
        assert text in report
    assert "Confusion matrix" not in report
    assert ">all images</th>" in report and ">all classes</th>" not in report
    config = json.loads((trained / "config.json").read_text())
    assert config["loader"]["config"]["label_separator"] == "|"
    assert config["model"]["config"]["multi_label"] is True

    images = folder / "images"
    table = tmp_path / "answers.csv"
    rows = answer(capsys, "predict", trained, images, "--json", "--csv", table)
    assert len(rows) == 130
    found = {
        Path(row["path"]).name: {one["class"] for one in row["labels"]} for row in rows
    }
    right = sum(found[name] == labels for name, labels in expected.items())
    assert right >= 0.95 * 130
    assert "class" not in rows[0]
    assert len(rows[0]["top"]) == 3
    with table.open() as file:
        for row in csv.DictReader(file):
            names = set(row["labels"].split("|")) - {""}
            assert names == found[Path(row["path"]).name]
    again = answer(capsys, "predict", trained, images, "--unknown", "auto", "--json")
    for row in again:
        assert row["unknown"] is (not row["labels"])
    # A number is the lowest probability of each label.
    lowest = np.median([one["probability"] for row in again for one in row["labels"]])
    options = ("--unknown", str(lowest), "--json")
    strict = answer(capsys, "predict", trained, images, *options)
    for row, plain in zip(strict, again, strict=True):
        sure = [one for one in plain["labels"] if one["probability"] >= lowest]
        assert row["labels"] == sure
        assert row["unknown"] is (not sure)
    assert strict != again
    copies = tmp_path / "sorted"
    assert run(["predict", str(trained), str(images), "--copy-to", str(copies)]) == 0
    capsys.readouterr()
    for name in NAMES:
        copied = {path.name for path in (copies / name).iterdir()}
        assert copied == {path for path, labels in found.items() if name in labels}
    assert run(["predict", str(trained), str(images / "000.png")]) == 0
    shown = capsys.readouterr().out
    for name in found["000.png"] or {"none of these"}:
        assert name in shown


def test_evaluate_writes_what_suits_labels(trained, folder, capsys, tmp_path):
    arguments = ("--labels", folder / "labels.csv", *LABELS, "--json")
    of_split = ("--split-manifest", trained / "split.json", "--output-dir", tmp_path)
    model, images = trained / "model.keras", folder / "images"
    content = answer(capsys, "evaluate", model, images, *arguments, *of_split)
    assert content["mean_average_precision"] > 0.95
    assert content["split"] == "validation"
    thresholds = keras.models.load_model(model).thresholds
    assert thresholds == tuple(content["per_class"][n]["threshold"] for n in NAMES)
    assert {path.name for path in tmp_path.iterdir()} == {
        "evaluation.json",
        "predictions.csv",
        "average_precision.png",
        "precision_recall.png",
        "reliability.png",
        "mistakes.png",
    }


def test_evaluate_compares_two_models(trained, folder, capsys, tmp_path):
    model, other = trained / "model.keras", tmp_path / "other.keras"
    twin = keras.models.load_model(model)
    twin.layers[-1].kernel.assign(0.2 * twin.layers[-1].kernel[::-1])
    twin.save(other)
    of_split = ("--split-manifest", trained / "split.json", "--output-dir", tmp_path)
    labels = ("--labels", folder / "labels.csv", *LABELS)
    paths = (other, model, folder / "images")
    content = answer(capsys, "evaluate", *paths, *labels, *of_split, "--json")
    assert content["mean_average_precision"]["low"] > 0
    assert content["first_mean_average_precision"] < 0.95
    assert json.loads((tmp_path / "comparison.json").read_text())["fixed"] > 10
    assert len((tmp_path / "changed.csv").read_text().splitlines()) > 10
    assert run(["evaluate", *map(str, [*paths, *labels, *of_split])]) == 0
    shown = capsys.readouterr().out
    for text in (
        "the models differ in mean average precision",
        "the models differ in exact matches",
        "difference of average precision",
    ):
        assert text in shown


def compile_eagerly(hypermodel, hp, model):
    model.compile(keras.optimizers.Adam(0.03), run_eagerly=True, jit_compile=False)


def test_tune_searches_by_mean_average_precision(folder, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(folder / "cache"))
    # Tracing and drawing take longer than training.
    monkeypatch.setattr(results, "draw_plots", lambda *arguments: {})
    monkeypatch.setattr(ImageClassifierHyperModel, "compile", compile_eagerly)
    options = ["--image-size", "12", "--layers", "1", "--units", "4:16:4"]
    options += ["--no-augmentation", "--max-epochs", "3", "--batch-size", "78"]
    options += ["--validation-split", "0.4", "--workers", "0", "--pruning", "median"]
    labels = ["--labels", folder / "labels.csv", *LABELS]
    options += [*labels, "--run-dir", tmp_path / "search", "--json", "--trials"]
    tune = ("tune", folder / "images", *options)
    first = answer(capsys, *tune, "3")
    done = [one for one in first["trials"] if one["status"] == "completed"]
    assert len(done) >= 3
    best = max(done, key=lambda one: one["score"])
    assert first["best"] == best
    more = answer(capsys, *tune, "4", "--resume")
    assert more["trials"][:3] == first["trials"]
    search = json.loads((tmp_path / "search" / "search.json").read_text())
    assert search["objective"] == "val_mean_average_precision"
    assert search["direction"] == "max"
    page = (tmp_path / "search" / "report.html").read_text()
    assert "Best val_mean_average_precision" in page
    model = keras.models.load_model(tmp_path / "search" / "model.keras")
    assert model.multi_label
    assert model.thresholds is not None
    manifest = tmp_path / "search" / "split.json"
    evaluation = answer(
        capsys,
        *("evaluate", tmp_path / "search" / "model.keras", folder / "images", *labels),
        *("--split-manifest", manifest, "--output-dir", tmp_path / "e", "--json"),
    )
    expected = more["best"]["score"]
    found = evaluation["mean_average_precision"]
    assert found == pytest.approx(expected, abs=0.01)


def test_tensorboard_shows_each_label(trained):
    runs = read_runs(trained / "tensorboard")
    history = read_history(trained)
    curves = [runs["validation"][f"average_precision/{name}"] for name in NAMES]
    steps = [step for step, _ in curves[0]]
    assert steps == list(range(12))
    means = np.mean([[value for _, value in curve] for curve in curves], axis=0)
    np.testing.assert_allclose(means, history["val_mean_average_precision"], atol=1e-5)
    results = runs["."]["Validation mean average precision"]
    assert results[-1][1] == pytest.approx(means[-1])


def test_an_exported_model_and_a_server_answer_the_same(
    trained, folder, capsys, tmp_path, with_heat_maps
):
    assert run(["export", str(trained), "--output", str(tmp_path / "onnx")]) == 0
    description = json.loads((tmp_path / "onnx" / "model.json").read_text())
    assert description["version"] == 2
    proof = json.loads((tmp_path / "onnx" / "proof.json").read_text())
    assert proof["equal_answers"] > 0.98
    assert proof["keras_accuracy"]["value"] > 0.9
    images = [folder / "images" / f"{number:03}.png" for number in range(6)]
    plain = answer(capsys, "predict", trained, *images, "--json")
    exported = answer(capsys, "predict", tmp_path / "onnx", *images, "--json")
    for one, other in zip(plain, exported, strict=True):
        assert [p["class"] for p in one["labels"]] == [
            p["class"] for p in other["labels"]
        ]
    for path in (trained, tmp_path / "onnx"):
        app = create_app(_load_model(path))
        with TestClient(app, base_url="http://localhost") as client:
            model = client.get("/v1/model").json()
            assert set(model["thresholds"]) == set(NAMES)
            assert model["finds_unknown"]
            for row, image in zip(plain, images, strict=True):
                files = {"files": ("a.png", image.read_bytes())}
                url = "/v1/classify?explain=true"
                (result,) = client.post(url, files=files).json()["results"]
                found = [one["name"] for one in result["labels"]]
                assert found == [one["class"] for one in row["labels"]]
                assert result["unknown"] is (not found)
                assert result["heatmap"]["picture"].startswith("data:image/jpeg")


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("predict", ["--move-to", "sorted"], "has no single folder"),
        ("train", ["--class-weights", "balanced"], "must be None for images with sev"),
        ("audit", ["--no-label-file"], "need a label file"),
    ],
)
def test_what_makes_no_sense_is_refused(
    command, options, message, trained, folder, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    images = str(folder / "images")
    labels = ["--labels", str(folder / "labels.csv"), *LABELS]
    if command == "predict":
        arguments = [str(trained), images, *options]
    elif command == "audit":
        arguments = [images, *LABELS]
    else:
        arguments = [images, *labels, "--image-size", "12", *options]
    assert message in answer(capsys, command, *arguments, code=2)
    assert not (tmp_path / "sorted").exists()


def test_a_model_of_one_class_is_refused(folder, tmp_path):
    loader = loader_of(folder, tmp_path)
    with pytest.raises(keras_flowers.InputError, match="multi_label=True. Received"):
        keras_flowers.train(loader, lambda d: ImageClassifier(d.class_names, (12, 12)))
    model = ImageClassifier(NAMES, (12, 12), (2,))
    with pytest.raises(keras_flowers.InputError, match="knows one class per image"):
        keras_flowers.evaluate(model, loader)


def loader_of(folder, tmp_path):
    return ImageDatasetLoader(
        folder / "images",
        (12, 12),
        labels=folder / "labels.csv",
        label_separator="|",
        validation_split=0.4,
        cache_directory=tmp_path / "cache",
    )


def test_features_views_and_fine_tuning(folder, tmp_path, monkeypatch):
    """The linear head trains on cached features, and then all of the network."""
    tiny_network((12, 12), pooled=True).save(tmp_path / "tiny.keras")

    def build(datasets):
        backbone = Backbone(tmp_path / "tiny.keras", image_size=(12, 12))
        return ImageClassifier(
            datasets.class_names, seed=1, backbone=backbone, multi_label=True
        )

    def train(resume):
        return keras_flowers.train(
            loader_of(folder, tmp_path),
            build,
            epochs=2,
            fine_tuning=FineTuning(1, augmentation="none"),
            feature_views=2,
            tta=2,
            run_directory=tmp_path / "run",
            resume=resume,
            tensorboard=False,
            verbose=0,
        )

    run = train(resume=False)
    assert run.model.has_linear_head
    frequency = run.datasets.labels("train").mean(axis=0)
    model = build(run.datasets)
    features = with_features(run.datasets, model, views=2)
    bias = ops.convert_to_numpy(model.layers[-1].bias)
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), frequency, atol=0.01)
    model.layers[-1].bias.assign(bias + 1)
    model.adapt(features.train_in_order.as_numpy_iterator().next()[0], labels=None)
    np.testing.assert_allclose(model.layers[-1].bias, bias + 1)
    monkeypatch.setattr(feature_datasets, "supported_precision", lambda name: name)
    difference = measure_precision(run.datasets, run.model, run.model.head(), "bf16")
    assert difference.score_name == "mean average precision"
    assert 0 < difference.float32_score <= 1
    assert difference.score == pytest.approx(difference.float32_score, abs=0.1)
    assert run.history["epoch"] == [1, 2, 3]
    assert len(run.model.thresholds) == 3
    assert "mean_average_precision" in repr(run)
    loaded = train(resume=True)
    assert loaded.model.thresholds == run.model.thresholds
    assert loaded.model.temperature == run.model.temperature
    evaluation = keras_flowers.evaluate(loaded.model, run.datasets)
    assert evaluation.thresholds == run.model.thresholds
    assert evaluation.loss < 3 * np.log(2)
