"""Loading an exported model, and doing so without Keras and TensorFlow."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from helpers import draw_images
from keras_flowers_runtime import InputError, load_exported
from keras_flowers_runtime.classification import UnreadableImage
from keras_flowers_runtime.exported import is_exported
from keras_flowers_runtime.images import ImageOptions, load_image, load_image_bytes
from PIL import Image, ImageOps

import keras_flowers
from keras_flowers import ImageClassifier
from keras_flowers.export import export_model

FORMATS = ("onnx", "litert", "openvino")

# Runs the command line and says which heavy packages it imported.
PROGRAM = """
import sys
from keras_flowers_cli.main import run
code = run(sys.argv[1:])
heavy = {"keras", "tensorflow", "jax", "keras_flowers", "matplotlib", "sklearn"}
print("IMPORTED", sorted(heavy & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def model():
    return ImageClassifier(
        ["a", "b", "c"], image_size=(8, 8), hidden_units=(4,), seed=1
    )


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for name in FORMATS:
        export_model(model, folder / name, name)
    return folder


@pytest.fixture
def photos(tmp_path):
    return draw_images(tmp_path / "photos", {"daisy": 3, "roses": 2})


def run_command(*arguments):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(os.fspath, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("model_format", FORMATS)
def test_the_command_line_answers_without_keras(model, exported, photos, model_format):
    result = run_command("predict", exported / model_format, photos, "--json")
    assert result.returncode == 0, result.stderr
    assert "IMPORTED []" in result.stderr
    answers = json.loads(result.stdout)
    expected = model.classify(sorted(photos.rglob("*.png")))
    assert [answer["path"] for answer in answers] == [one.path for one in expected]
    for answer, one in zip(answers, expected, strict=True):
        assert answer["class"] == one.label
        assert answer["probability"] == pytest.approx(one.probability, abs=1e-5)


def test_bad_input_is_named_without_keras(exported, photos, tmp_path):
    (tmp_path / "note.jpg").write_text("no image")
    (tmp_path / "empty").mkdir()
    for arguments, named in (
        ((exported / "onnx", tmp_path / "note.jpg", photos), "note.jpg"),
        ((exported / "onnx", tmp_path / "empty"), "no image"),
        ((photos, photos), "folder of an exported model"),
        ((exported / "onnx", photos, "--explain", tmp_path / "why"), "--explain"),
    ):
        result = run_command("predict", *arguments)
        assert result.returncode == 2, result.stderr
        assert "IMPORTED []" in result.stderr
        assert "error: " in result.stderr
        assert named in result.stderr


@pytest.mark.parametrize("model_format", FORMATS)
def test_several_threads_may_ask_at_once(model, exported, model_format):
    classifier = load_exported(exported / model_format)
    generator = np.random.default_rng(0)
    batches = [
        generator.integers(0, 256, (size, 8, 8, 3), dtype=np.uint8)
        for size in (1, 5, 2, 7, 3, 4)
    ]
    expected = [model.predict(batch, verbose=0) for batch in batches]
    found = [None] * len(batches)

    def ask(index):
        for _ in range(20):
            found[index] = classifier.predict(batches[index])
            np.testing.assert_allclose(found[index], expected[index], atol=1e-5)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_unreadable_files_are_named_in_their_place(exported, photos, tmp_path):
    (tmp_path / "note.jpg").write_text("no image")
    good = sorted(photos.rglob("*.png"))
    paths = [good[0], tmp_path / "note.jpg", *good[1:], tmp_path / "gone.png"]
    classifier = load_exported(exported / "onnx")
    results = list(classifier.classify_each(iter(paths), batch_size=2))
    assert [result.path for result in results] == list(map(os.fspath, paths))
    is_bad = [isinstance(result, UnreadableImage) for result in results]
    assert is_bad == [False, True, False, False, False, False, True]
    with pytest.raises(InputError, match=r"note\.jpg"):
        classifier.classify(paths)


def test_a_caller_that_stops_reading_stops_decoding(exported, photos):
    classifier = load_exported(exported / "onnx")
    paths = sorted(photos.rglob("*.png")) * 100
    asked = []

    def watch():
        for path in paths:
            asked.append(path)
            yield path

    results = classifier.classify_each(watch(), batch_size=2)
    next(results)
    results.close()
    assert len(asked) <= 10


@pytest.mark.parametrize(
    "arguments", [{"paths": "a.png"}, {"paths": [], "batch_size": 0}]
)
def test_bad_arguments_are_named(exported, arguments):
    with pytest.raises(InputError, match="Received"):
        load_exported(exported / "onnx").classify(**arguments)


def test_a_model_without_similarity_says_so(exported):
    model = load_exported(exported / "onnx")
    assert model.similarity_threshold is None
    with pytest.raises(InputError, match="computes no similarity"):
        model.predict_similarity(np.zeros((1, *model.image_size, 3), np.uint8))


def change(**changes):
    return lambda content: content | changes


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change(kind="other"), 'without "kind"'),
        (change(version=4), "version 4; this package reads up to 3"),
        (change(similarity={"threshold": 2}), "similarity"),
        (change(thresholds=[0.5]), '"thresholds" that are not one from 0 to 1'),
        (change(thresholds=[2.0] * 99), '"thresholds" that are not one from 0 to 1'),
        (change(format="coreml"), "unknown format 'coreml'"),
        (change(resize={"mode": "squeeze"}), "unknown way to resize"),
        (change(class_names=["a"]), "class_names"),
        (change(image_size=[8, "8"]), "image_size"),
        (change(file="../model.onnx"), "not in the folder"),
        (change(files={"/etc/passwd": {"size": 1}}), "not in the folder"),
        (change(files={"model.onnx": {}}), "damaged"),
        (change(files={"model.onnx": {"size": 5}}), "must have 5 bytes"),
        (change(files={"gone": {"size": 5}}), "no file"),
        (lambda content: [], 'without "kind"'),
        (lambda content: {"kind": content["kind"], "version": 1}, "damaged"),
    ],
)
def test_a_folder_that_is_damaged_is_refused(exported, tmp_path, spoil, message):
    folder = shutil.copytree(exported / "onnx", tmp_path / "model")
    content = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(spoil(content)))
    with pytest.raises(InputError, match=message):
        load_exported(folder)


@pytest.mark.parametrize("model_format", FORMATS)
def test_a_damaged_model_file_is_named(exported, tmp_path, model_format):
    folder = shutil.copytree(exported / model_format, tmp_path / "model")
    content = json.loads((folder / "model.json").read_text())
    file = folder / content["file"]
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(InputError, match=file.name):
        load_exported(folder)


def test_a_folder_without_a_model_is_refused(tmp_path):
    assert not is_exported(tmp_path)
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(InputError, match=r"no readable model\.json"):
            load_exported(path)


def test_bytes_are_decoded_as_files_are(photos):
    path = next(photos.rglob("*.png"))
    for size in (None, (5, 7)):
        np.testing.assert_array_equal(
            load_image_bytes(path.read_bytes(), size), load_image(path, size)
        )
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(path).save(turned, "JPEG", exif=exif)
    assert load_image_bytes(turned.getvalue()).shape == (16, 12, 3)
    with pytest.raises(InputError, match="`upload` must .* image. .* not an image"):
        load_image_bytes(b"no image", name="upload")
    with pytest.raises(InputError, match="empty file"):
        load_image_bytes(b"")


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_images_are_resized_as_the_model_does(tmp_path, resize):
    names = ["a", "b", "c"]
    model = ImageClassifier(names, (8, 8), (4,), seed=1, resize=resize)
    proof = export_model(model, tmp_path / "onnx")
    assert proof.largest_difference_at_original_size < 1e-4
    classifier = load_exported(tmp_path / "onnx")
    assert classifier.resize == resize
    photos = draw_images(tmp_path / "photos", {"daisy": 2, "roses": 1}, (11, 30))
    paths = sorted(photos.rglob("*.png"))
    expected = [one.probabilities for one in model.classify(paths)]
    options = ImageOptions(resize=resize)
    images = np.stack([load_image(path, (8, 8), options) for path in paths])
    rows = model.predict(images, verbose=0)
    for one, row, result in zip(
        expected, rows, classifier.classify(paths), strict=True
    ):
        assert result.probabilities == pytest.approx(one, abs=1e-5)
        assert result.probabilities == pytest.approx(
            dict(zip(names, map(float, row), strict=True)), abs=1e-5
        )
    # Pillow's own functions, which the model card uses, do the same.
    card = (tmp_path / "onnx" / "README.md").read_text()
    (program,) = re.findall(r"^image = .*\(8, 8\).*$", card, re.MULTILINE)
    with Image.open(paths[0]) as image:
        values = {"image": image.convert("RGB"), "Image": Image, "ImageOps": ImageOps}
        exec(program, values)
    np.testing.assert_allclose(np.asarray(values["image"]), images[0], atol=1)


def test_both_packages_raise_the_same_error():
    assert keras_flowers.InputError is InputError
