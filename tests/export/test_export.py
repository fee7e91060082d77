"""Exports of a tiny run, each run by the runtime that it is made for."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
from helpers import draw_images, small_loader, tiny_network
from keras_flowers_runtime.images import load_image
from keras_flowers_serving.model import serve_exported

import keras_flowers
import keras_flowers.export
from keras_flowers import Backbone, ImageClassifier, InputError
from keras_flowers.export import ProofError, export, export_model, load_exported
from keras_flowers.export.conversion import in_float32
from keras_flowers.export.proof import score
from keras_flowers.export.sources import find_source
from keras_flowers.models.unknown import UnknownDetector

FILES = {"README.md", "labels.txt", "model.json", "proof.json"}
MODEL_FILES = {
    "onnx": {"model.onnx"},
    "litert": {"model.tflite"},
    "openvino": {"model.xml", "model.bin"},
    "saved_model": {"saved_model"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory of a model with a convolutional backbone."""
    folder = tmp_path_factory.mktemp("run")
    loader = small_loader(folder, {"daisy": 30, "roses": 26, "tulips": 24})

    def build(datasets):
        backbone = Backbone(tiny_network(), "own")
        model = ImageClassifier(
            datasets.class_names, hidden_units=(8,), seed=1, backbone=backbone
        )
        model.compile(keras.optimizers.Adam(0.02))
        return model

    trained = keras_flowers.train(
        loader,
        build,
        run_directory=folder / "run",
        epochs=6,
        verbose=0,
        tensorboard=False,
    )
    # Of more images than these, the run would find out both.
    trained.model.temperature = 1.5
    trained.model.unknown_detector = fit_detector(trained.model, images_in(folder))
    trained.model.save(folder / "run" / "model.keras")
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """Returns the folder of the run in a format and a precision, written once."""
    written = {}

    def find(model_format, quantize=None):
        key = (model_format, quantize)
        if key not in written:
            folder = tmp_path_factory.mktemp("exported") / "model"
            written[key] = folder, export_model(run, folder, model_format, quantize)
        return written[key]

    return find


def fit_detector(model, paths):
    """Returns a detector with a threshold that is far from the similarity of images."""
    images = np.stack([load_image(path, model.image_size) for path in paths])
    features = model.feature_extractor().predict(images, verbose=0)
    detector = UnknownDetector.fit(np.full((len(paths), 3), 0.3), features, features)
    found = np.sort(detector.similarities(features))[: len(paths) // 2]
    gap = np.diff(found).argmax()
    threshold = float(found[gap : gap + 2].mean())
    return dataclasses.replace(detector, similarity_threshold=threshold)


def images_in(folder):
    return sorted((folder / "photos").glob("*/*.png"))


def images_of(run):
    return images_in(run.parent)


def contents(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("model_format", MODEL_FILES)
def test_an_exported_model_answers_as_keras_does(run, exported, model_format):
    folder, proof = exported(model_format)
    assert contents(folder) == FILES | MODEL_FILES[model_format]
    paths = images_of(run)
    model, classifier = (
        keras.models.load_model(run / "model.keras"),
        load_exported(folder),
    )
    expected = model.classify(paths, unknown="auto")
    found = classifier.classify(paths, batch_size=7, unknown="auto")
    assert 0 < sum(one.is_unknown for one in expected) < len(paths)
    for one, other in zip(expected, found, strict=True):
        assert (one.path, one.label, one.is_unknown) == (
            *(other.path, other.label, other.is_unknown),
        )
        np.testing.assert_allclose(
            [one.probabilities[name] for name in sorted(one.probabilities)],
            [other.probabilities[name] for name in sorted(other.probabilities)],
            atol=1e-5,
        )
    assert proof.largest_difference < 1e-5
    assert proof.equal_answers == 1.0
    assert proof.images == 64
    assert proof.image_source == "16 validation images of the run, 48 drawn ones"
    assert proof.keras_accuracy == proof.exported_accuracy
    assert proof.keras_accuracy.images == 16
    assert proof.similarity.largest_difference < 1e-5
    assert proof.similarity.equal_answers == 1.0
    assert proof.similarity.keras_unknown == proof.similarity.exported_unknown
    assert proof.similarity.keras_unknown.images == 16
    served = serve_exported(folder)
    assert served.finds_unknown and served.unknown_threshold is None
    pixels = np.stack([load_image(path, (8, 8)) for path in paths])
    _, unknown = served.predict(pixels)
    assert unknown.tolist() == [one.is_unknown for one in expected]


@pytest.mark.parametrize("model_format", ["onnx", "saved_model"])
def test_images_of_any_size_are_resized_by_the_model(run, exported, model_format):
    folder, proof = exported(model_format)
    images = np.random.default_rng(0).integers(0, 256, (2, 31, 19, 3), dtype=np.uint8)
    expected = keras.models.load_model(run / "model.keras").predict(images, verbose=0)
    found = load_exported(folder).predict(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert proof.largest_difference_at_original_size < 1e-5


@pytest.mark.parametrize("model_format", ["litert", "openvino"])
def test_a_format_of_one_size_says_who_resizes(exported, model_format):
    folder, proof = exported(model_format)
    description = json.loads((folder / "model.json").read_text())
    assert description["input"]["shape"] == [None, 8, 8, 3]
    assert description["resize"]["by"] == "the caller"
    assert proof.largest_difference_at_original_size is None


@pytest.mark.parametrize("model_format", ["onnx", "litert", "openvino"])
@pytest.mark.parametrize("quantize", ["float16", "int8"])
def test_a_quantized_model_is_smaller_and_proven(
    exported, model_format, quantize, monkeypatch
):
    # Of a network this small, eight bits cost more than of one that is of use.
    loose = export_tolerance(0.7, 0.3)
    monkeypatch.setitem(keras_flowers.export.proof.TOLERANCES, "int8", loose)
    folder, proof = exported(model_format, quantize)
    assert load_exported(folder).precision == quantize
    assert proof.precision == quantize
    assert proof.largest_difference > 0
    if quantize == "float16":
        assert proof.largest_difference < 0.02
        assert proof.similarity.largest_difference < 0.005
    assert proof.similarity.equal_answers > 0.9
    before, after = proof.keras_recall, proof.exported_recall
    lost = {name for name in before if after[name].value < before[name].value}
    assert set(proof.lost_classes) == lost
    card = (folder / "README.md").read_text()
    assert f"{proof.exported_accuracy.value:.3f}" in card
    assert f"in {quantize}" in card


def export_tolerance(equal_answers, accuracy_loss):
    limits = keras_flowers.export.proof.Tolerance
    return limits(None, equal_answers, accuracy_loss, None)


def test_float16_weights_are_half_as_long(tmp_path):
    model = ImageClassifier(["a", "b"], image_size=(32, 32), hidden_units=(64,))
    sizes = {}
    for quantize in (None, "float16"):
        folder = tmp_path / str(quantize)
        export_model(model, folder, "onnx", quantize)
        sizes[quantize] = (folder / "model.onnx").stat().st_size
    assert sizes["float16"] < 0.55 * sizes[None]


def test_the_onnx_file_knows_its_classes(exported):
    folder, _ = exported("onnx")
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model)
    properties = {item.key: item.value for item in model.metadata_props}
    assert json.loads(properties["class_names"]) == ["daisy", "roses", "tulips"]
    assert json.loads(properties["image_size"]) == [8, 8]
    assert [value.name for value in model.graph.input] == ["images"]
    names = [value.name for value in model.graph.output]
    assert names == ["probabilities", "similarity"]


def test_the_description_names_classes_versions_and_origin(run, exported):
    folder, _ = exported("onnx")
    description = json.loads((folder / "model.json").read_text())
    assert description["class_names"] == ["daisy", "roses", "tulips"]
    assert description["image_size"] == [8, 8]
    assert description["resize"]["mode"] == "stretch"
    assert description["source"]["run"] == "run"
    assert description["source"]["data"] == "photos"
    assert len(description["source"]["sha256"]) == 64
    assert description["versions"]["keras"] == keras.__version__
    assert "onnxruntime" in description["versions"]
    assert (folder / "labels.txt").read_text() == "daisy\nroses\ntulips\n"
    # A folder that is given away says nothing of the machine it was made on.
    for path in folder.iterdir():
        assert os.fspath(run.parent).encode() not in path.read_bytes(), path.name


def test_the_proof_names_the_images_that_differ_most(exported):
    folder, proof = exported("onnx")
    content = json.loads((folder / "proof.json").read_text())
    assert content["passed"] is True
    assert content["tolerance"]["largest_difference"] == 1e-4
    worst = content["worst"]
    assert len(worst) == 10
    differences = [one["difference"] for one in worst]
    assert differences == sorted(differences, reverse=True)
    assert differences[0] == proof.largest_difference
    assert all("/" in one["path"] and one["path"][0] != "/" for one in worst)


@pytest.mark.parametrize("model_format", MODEL_FILES)
def test_the_python_of_the_model_card_runs(run, exported, model_format, tmp_path):
    folder, _ = exported(model_format)
    card = (folder / "README.md").read_text()
    assert card.count("```") >= 6, "three languages"
    image = images_of(run)[0]
    expected = keras.models.load_model(run / "model.keras").classify([image])[0]
    programs = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(programs) == 2
    for program in programs:
        code = program.replace("photo.jpg", os.fspath(image))
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert expected.label in result.stdout


def test_the_card_shows_scores_counts_and_limits(exported):
    folder, proof = exported("onnx")
    card = (folder / "README.md").read_text()
    assert f"{proof.exported_accuracy.value:.3f}" in card
    assert "| daisy | 24 | 6 |" in card
    assert "## Limits" in card


def test_a_model_whose_answers_differ_is_not_left_behind(run, tmp_path, monkeypatch):
    convert = export.convert

    def convert_another(model, *arguments):
        weights = model.get_weights()
        model.set_weights([*weights[:-1], weights[-1] + [0.1, 0.0, -0.1]])
        try:
            convert(model, *arguments)
        finally:
            model.set_weights(weights)

    monkeypatch.setattr(export, "convert", convert_another)
    with pytest.raises(ProofError, match="differ by up to .* float32 allows 0.0001"):
        export_model(run, tmp_path / "new" / "model")
    assert list((tmp_path / "new").iterdir()) == []


def test_an_exported_linear_head_averages_over_views(run, tmp_path):
    backbone = Backbone(tiny_network(), "own")
    model = ImageClassifier(["a", "b", "c"], backbone=backbone, dtype="mixed_bfloat16")
    generator = np.random.default_rng(0)
    model.adapt(generator.gamma(1, 1, (20, 6)))
    model.layers[-1].kernel.assign(generator.normal(0, 1, (6, 3)))
    paths = images_of(run)
    model.unknown_detector = fit_detector(in_float32(model), paths)
    proof = export_model(model, tmp_path / "model", tta=3)
    assert proof.failure is None
    content = json.loads((tmp_path / "model" / "model.json").read_text())
    assert content["tta"] == 3
    assert "a linear head" in (tmp_path / "model" / "README.md").read_text()
    wanted = in_float32(model).classify(paths, unknown="auto", tta=3)
    single = in_float32(model).classify(paths, unknown="auto")
    found = load_exported(tmp_path / "model").classify(paths, unknown="auto")
    assert 0 < sum(one.is_unknown for one in single) < len(paths)
    for got, averaged, one in zip(found, wanted, single, strict=True):
        assert got.is_unknown == averaged.is_unknown == one.is_unknown
        assert got.probabilities == pytest.approx(averaged.probabilities, abs=1e-4)
    for got, one in zip(found[:4], single, strict=False):
        assert got.probabilities != pytest.approx(one.probabilities, abs=1e-4)


def test_without_a_run_the_images_are_drawn(tmp_path):
    model = ImageClassifier(["a", "b"], image_size=(8, 8), hidden_units=())
    proof = export_model(model, tmp_path / "model")
    assert proof.images == 64
    assert proof.image_source.startswith("drawn images")
    assert proof.keras_accuracy is None
    assert proof.failure is None
    with pytest.raises(InputError, match="int8 needs training images"):
        export_model(model, tmp_path / "int8", quantize="int8")
    assert not (tmp_path / "int8").exists()


def test_classes_of_images_are_those_of_the_layout(tmp_path):
    for year in ("2023", "2024"):
        draw_images(
            tmp_path / "photos" / year, {"daisy": 6, "roses": 5}, seed=int(year)
        )
    keras_flowers.train(
        tmp_path / "photos",
        lambda datasets: ImageClassifier(datasets.class_names, (8, 8), ()),
        run_directory=tmp_path / "run",
        epochs=1,
        verbose=0,
        tensorboard=False,
    )
    images = find_source(tmp_path / "run").find_images()
    assert images.reason_missing is None
    assert len(images.train) + len(images.validation) == 22
    for image in (*images.train, *images.validation):
        assert (image.path.parent.name,) == image.class_names
        assert image.path.is_file()
    for name in ("daisy", "roses"):
        found = sum(image.class_names == (name,) for image in images.train)
        assert images.counts[name] == found > 0


def test_data_that_is_gone_is_replaced_by_drawn_images(run, tmp_path):
    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("model.keras", "config.json", "split.json"):
        (copy / name).write_bytes((run / name).read_bytes())
    config = json.loads((copy / "config.json").read_text())
    config["loader"]["config"]["data"] = "./gone"
    (copy / "config.json").write_text(json.dumps(config))
    proof = export_model(copy / "model.keras", tmp_path / "model")
    assert proof.image_source.startswith("drawn images: ")
    assert "gone" in proof.image_source


@pytest.mark.parametrize("weights", ["own", None])
def test_mixed_precision_is_exported_in_float32(tmp_path, weights):
    backbone = Backbone(tiny_network(), weights, dtype="mixed_bfloat16")
    model = ImageClassifier(
        ["a", "b"], hidden_units=(4,), backbone=backbone, dtype="mixed_bfloat16"
    )
    exact = in_float32(model)
    for one, other in zip(model.get_weights(), exact.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        model.predict(images, verbose=0), exact.predict(images, verbose=0), atol=0.05
    )
    proof = export_model(model, tmp_path / "model")
    assert proof.largest_difference < 1e-5


def test_a_model_that_diverged_is_refused(tmp_path):
    model = ImageClassifier(["a", "b"], image_size=(8, 8), hidden_units=())
    model.set_weights([weight * np.nan for weight in model.get_weights()])
    with pytest.raises(InputError, match="NaN"):
        export_model(model, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "coreml"}, "`format` must be one of onnx, litert"),
        ({"quantize": "int4"}, "`quantize` must be float16, int8 or None"),
        ({"format": "saved_model", "quantize": "int8"}, "cannot be quantized"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_read(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        export_model(tmp_path / "no such model", tmp_path / "model", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "keras-flowers\[onnx\]"'):
        export_model(tmp_path / "no such model", tmp_path / "model")


def test_a_folder_that_is_taken_stays(run, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="new or an empty folder"):
        export_model(run, tmp_path / "model")
    assert contents(tmp_path / "model") == {"mine.txt"}


@pytest.mark.parametrize("kind", ["nothing", "folder", "text", "other model", "number"])
def test_what_is_no_classifier_is_refused(tmp_path, kind):
    path = tmp_path / "model.keras"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("no model")
    elif kind == "other model":
        tiny_network().save(path)
    with pytest.raises(InputError):
        export_model(5 if kind == "number" else path, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_intervals_are_those_of_wilson():
    half = score(50, 100)
    assert (half.value, half.images) == (0.5, 100)
    assert half.low == pytest.approx(0.4038, abs=1e-4)
    assert half.high == pytest.approx(0.5962, abs=1e-4)
    assert score(10, 10).high == pytest.approx(1.0)
    assert score(0, 10).low == pytest.approx(0.0)
