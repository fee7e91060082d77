import csv
import dataclasses
import io
import json
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import small_loader

import keras_flowers
from keras_flowers import Evaluation, ImageClassifier, InputError
from keras_flowers.files import json_text


def evaluation():
    probabilities = np.array(
        [
            [0.7, 0.2, 0.1],
            [0.6, 0.3, 0.1],
            [0.1, 0.8, 0.1],
            [0.1, 0.8, 0.1],
            [0.5, 0.25, 0.25],
        ],
        dtype=np.float32,
    )
    paths = tuple(Path(f"{i}.jpg") for i in range(5))
    labels = np.array([0, 1, 1, 0, 0], dtype=np.int32)
    return Evaluation(("a", "b", "c"), paths, labels, probabilities)


def test_scores_by_hand():
    result = evaluation()
    assert result.accuracy == pytest.approx(3 / 5)
    assert result.confusion_matrix.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    a, b, c = result.per_class.values()
    assert (a.precision, a.recall, a.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (b.precision, b.recall, b.f1) == pytest.approx((1 / 2, 1 / 2, 1 / 2))
    assert (c.precision, c.recall, c.f1, c.count) == (0, 0, 0, 0)
    assert (a.count, b.count) == (3, 2)
    expected = -np.log([0.7, 0.3, 0.8, 0.1, 0.5])
    np.testing.assert_allclose(result.losses, expected, rtol=1e-5)
    assert result.loss == pytest.approx(expected.mean())


def test_a_certain_mistake_has_a_finite_loss():
    result = Evaluation(
        ("a", "b"),
        (Path("x"),),
        np.array([0], dtype=np.int32),
        np.array([[0.0, 1.0]], dtype=np.float32),
    )
    assert np.isfinite(result.loss)


def test_evaluate_agrees_with_keras(tmp_path):
    run = keras_flowers.train(small_loader(tmp_path), epochs=2, verbose=0)
    result = keras_flowers.evaluate(run.model, run.datasets)
    loss, accuracy = run.model.evaluate(run.datasets.validation, verbose=0)
    assert result.loss == pytest.approx(loss, rel=1e-4)
    assert result.accuracy == pytest.approx(accuracy)
    assert result.paths == run.datasets.paths("validation")
    assert (result.root, result.split) == (tmp_path / "photos", "validation")
    classified = run.model.classify(result.paths)
    predicted = [result.class_names[i] for i in result.probabilities.argmax(axis=1)]
    assert [image.label for image in classified] == predicted
    training = keras_flowers.evaluate(run.model, run.datasets, "train")
    assert training.paths == run.datasets.paths("train")
    assert training.to_json()["photos"] == len(training.paths)


def test_data_comes_in_many_forms(tmp_path, monkeypatch):
    loader = small_loader(tmp_path)
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "cache"))
    datasets = loader.load()
    model = ImageClassifier(datasets.class_names, (8, 8), hidden_units=(4,), seed=1)
    expected = keras_flowers.evaluate(model, datasets)
    assert keras_flowers.evaluate(model, loader).paths == expected.paths
    batches = list(datasets.validation.as_numpy_iterator())
    arrays = tuple(np.concatenate(part) for part in zip(*batches, strict=True))
    for data in (datasets.validation, arrays):
        result = keras_flowers.evaluate(model, data)
        np.testing.assert_array_equal(result.labels, expected.labels)
        np.testing.assert_allclose(result.probabilities, expected.probabilities, 1e-4)
        assert (result.class_names, result.split) == (datasets.class_names, None)
    assert result.worst_mistakes(1)[0].path.name.startswith("image ")
    mirrored = arrays[0][:, :, ::-1]
    averaged = keras_flowers.evaluate(model, arrays, tta=2).probabilities
    second = keras_flowers.evaluate(model, (mirrored, arrays[1])).probabilities
    assert np.abs(second - result.probabilities).max() > 0.001
    np.testing.assert_allclose(averaged, (result.probabilities + second) / 2, 1e-4)
    with pytest.raises(InputError, match="`tta` must be"):
        keras_flowers.evaluate(model, arrays, tta=99)
    whole = keras_flowers.evaluate(model, tmp_path / "photos")
    assert len(whole.labels) == 24
    assert keras_flowers.evaluate(model, str(tmp_path / "photos")).loss == whole.loss
    # Without labels. On JAX, pipelines are no `tf.data.Dataset`.
    wrong_data = [None, 3, [1, 2]]
    if hasattr(datasets.validation, "map"):
        wrong_data.append(datasets.validation.map(lambda images, _: images))
    for wrong in wrong_data:
        with pytest.raises(InputError, match="batches \\(images, labels\\)"):
            keras_flowers.evaluate(model, wrong)
    with pytest.raises(InputError, match="`split` is for data that a loader"):
        keras_flowers.evaluate(model, datasets.validation, "train")
    with pytest.raises(InputError, match="Labels must be integers from 0 to 2"):
        keras_flowers.evaluate(model, (arrays[0], arrays[1] + 5))


def test_labels_are_those_of_the_model(tmp_path):
    datasets = small_loader(tmp_path).load()
    names = ["tulips", "other", "daisy", "roses"]
    model = ImageClassifier(names, image_size=(8, 8), hidden_units=())
    result = keras_flowers.evaluate(model, datasets)
    for path, label in zip(result.paths, result.labels, strict=True):
        assert names[label] == path.parent.name


def test_a_class_that_the_model_does_not_know(tmp_path):
    datasets = small_loader(tmp_path).load()
    model = ImageClassifier(["daisy", "roses"], image_size=(8, 8))
    with pytest.raises(InputError, match="tulips"):
        keras_flowers.evaluate(model, datasets)


def test_a_model_may_be_a_file(tmp_path):
    datasets = small_loader(tmp_path).load()
    model = ImageClassifier(datasets.class_names, (8, 8), hidden_units=(), seed=1)
    model.save(tmp_path / "model.keras")
    expected = keras_flowers.evaluate(model, datasets)
    for path in (tmp_path / "model.keras", str(tmp_path / "model.keras")):
        found = keras_flowers.evaluate(path, datasets)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, 1e-5)
    with pytest.raises(InputError, match="photos is not a model file"):
        keras_flowers.evaluate(tmp_path / "photos", datasets)
    with pytest.raises(InputError, match="`model` .*load_model.* Received: int"):
        keras_flowers.evaluate(3, datasets)


def test_an_empty_split_is_named(tmp_path):
    datasets = small_loader(tmp_path).load()
    model = keras.Sequential([keras.layers.Flatten()])
    with pytest.raises(InputError, match="'test'"):
        keras_flowers.evaluate(model, datasets, "test")


# --- mistakes


def test_the_worst_mistakes_are_wrong_and_sorted_by_their_loss():
    result = evaluation()
    first, second = result.worst_mistakes()
    assert result.mistakes == 2
    assert (first.path, second.path) == (Path("3.jpg"), Path("1.jpg"))
    assert (first.true_class, first.predicted_class) == ("a", "b")
    assert first.probability == pytest.approx(0.8)
    assert first.true_probability == pytest.approx(0.1)
    assert first.loss == pytest.approx(-np.log(0.1), rel=1e-5)
    # The image with a loss of -log(0.5) is right, and none.
    assert second.loss == pytest.approx(-np.log(0.3), rel=1e-5)
    assert result.worst_mistakes(1) == (first,)
    with pytest.raises(InputError, match="count"):
        result.worst_mistakes(0)


def test_confusions_are_the_cells_off_the_diagonal():
    labels = [0, 0, 0, 1, 2, 2, 2, 2]
    predictions = [0, 1, 1, 1, 0, 0, 0, 2]
    rows = np.eye(3, dtype=np.float32)[predictions]
    paths = tuple(Path(f"{i}.jpg") for i in range(8))
    result = Evaluation(("a", "b", "c"), paths, np.array(labels, np.int32), rows)
    assert [dataclasses.astuple(one) for one in result.confusions] == [
        ("c", "a", 3),
        ("a", "b", 2),
    ]
    matrix = result.confusion_matrix
    assert matrix.tolist() == [[1, 2, 0], [0, 1, 0], [3, 0, 1]]


def test_top_k_by_hand():
    labels, probabilities = evaluation().top_k(2)
    assert labels.tolist() == [[0, 1], [0, 1], [1, 0], [1, 0], [0, 1]]
    np.testing.assert_array_equal(
        probabilities,
        np.float32([[0.7, 0.2], [0.6, 0.3], [0.8, 0.1], [0.8, 0.1], [0.5, 0.25]]),
    )
    assert evaluation().top_k(99)[0].shape == (5, 3)
    for k in (0, 1.5):
        with pytest.raises(InputError, match="k"):
            evaluation().top_k(k)


def test_top_k_of_many_images_is_a_plain_sort():
    generator = np.random.default_rng(0)
    rows = generator.dirichlet(np.ones(7), 10_000).astype(np.float32)
    rows[:, 3] = rows[:, 5]  # of equal ones the lower label comes first
    names = tuple("abcdefg")
    paths = (Path("x"),) * len(rows)
    result = Evaluation(names, paths, np.zeros(len(rows), np.int32), rows)
    labels, probabilities = result.top_k(3)
    for index in (0, 4095, 4096, 9999):
        expected = sorted(range(7), key=lambda i: (-rows[index, i], i))[:3]
        assert labels[index].tolist() == expected
        assert probabilities[index].tolist() == rows[index, expected].tolist()


def test_calibration_takes_the_predicted_class():
    result = evaluation().calibration(bins=5)
    assert [one.count for one in result.bins] == [0, 0, 2, 3, 0]
    by_hand = (2 * abs((0.6 + 0.5) / 2 - 1 / 2) + 3 * abs(2.3 / 3 - 2 / 3)) / 5
    assert result.error == pytest.approx(by_hand, abs=1e-6)
    assert len(evaluation().calibration().bins) == 15


def test_predictions_are_written_as_a_table(tmp_path):
    result = evaluation()
    result.write_predictions(tmp_path / "predictions.csv", top=2)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "path",
        "true_class",
        "loss",
        "class_1",
        "probability_1",
        "class_2",
        "probability_2",
    ]
    assert [row["path"] for row in rows] == [f"{i}.jpg" for i in range(5)]
    assert [row["true_class"] for row in rows] == ["a", "b", "b", "a", "a"]
    assert [row["class_1"] for row in rows] == ["a", "a", "b", "b", "a"]
    assert np.float32(rows[3]["probability_1"]) == np.float32(0.8)
    assert [float(row["loss"]) for row in rows] == pytest.approx(result.losses.tolist())
    with pytest.raises(InputError, match="top"):
        result.write_predictions(tmp_path / "predictions.csv", top=0)


def test_any_name_is_written_as_its_bytes(tmp_path):
    path = os.fsdecode(b'/caf\xe9,"\n\x1b/0.jpg')
    names = (os.fsdecode(b"\xff,a"), 'b"', "c\r")
    paths = (Path(path),) * 5
    result = dataclasses.replace(evaluation(), class_names=names, paths=paths)
    file = tmp_path / os.fsdecode(b"out\xff\n.csv")
    result.write_predictions(file)
    text = file.read_bytes().decode("utf-8", "surrogateescape")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[1][:2] == [path, names[0]]
    assert rows[1][3::2] == list(names)
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]


# --- a model that diverged


def diverged():
    result = evaluation()
    result.probabilities[[0, 2]] = np.nan
    return result


def test_images_without_probabilities_are_mistakes_and_counted():
    result = diverged()
    assert result.non_finite == 2
    assert result.predictions.tolist() == [-1, 0, -1, 1, 0]
    # argmax of NaN would be the first class, which is that of image 0.
    assert result.accuracy == pytest.approx(1 / 5)
    assert result.mistakes == 4
    assert np.isnan(result.loss)
    assert result.confusion_matrix.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    a, b, _ = result.per_class.values()
    assert (a.recall, a.precision, a.count) == (pytest.approx(1 / 3), 1 / 2, 3)
    assert (b.recall, b.precision, b.count) == (0, 0, 2)
    assert np.isnan(result.calibration().error)
    assert result.calibration().non_finite == 2


def test_images_without_probabilities_come_first():
    mistakes = diverged().worst_mistakes()
    assert [one.path.name for one in mistakes] == ["0.jpg", "2.jpg", "3.jpg", "1.jpg"]
    assert [one.predicted_class for one in mistakes] == [None, None, "b", "a"]
    assert np.isnan(mistakes[0].probability)
    assert np.isnan(mistakes[0].loss)


def test_the_files_say_nan(tmp_path):
    result = diverged()
    result.write_predictions(tmp_path / "predictions.csv", top=1)
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert lines[1] == "0.jpg,a,nan,,nan"
    assert lines[2].startswith("1.jpg,b,1.2")
    content = json.loads(json_text(result.to_json()), parse_constant=pytest.fail)
    assert content["unanswered"] == 2
    assert content["loss"] == "NaN"
    assert content["calibration"]["expected_calibration_error"] == "NaN"
    assert content["worst_mistakes"][0]["predicted_class"] is None
    assert content["worst_mistakes"][0]["probability"] == "NaN"


def test_one_nan_in_a_row_is_a_mistake():
    result = evaluation()
    result.probabilities[3, 2] = np.nan
    assert result.non_finite == 1
    assert result.predictions[3] == -1


# --- many classes, and models that give something else


def test_thousands_of_classes_need_no_matrix():
    size = 3000
    generator = np.random.default_rng(0)
    labels = generator.integers(0, size, 4000).astype(np.int32)
    rows = np.zeros((4000, size), np.float32)
    rows[np.arange(4000), (labels * 7 + 1) % size] = 1
    names = tuple(f"class {i}" for i in range(size))
    paths = tuple(Path(f"{i}.jpg") for i in range(4000))
    result = Evaluation(names, paths, labels, rows)
    content = result.to_json()
    assert content["confusion_matrix"] is None
    assert "confusion_matrix" not in vars(result)  # 72 MB, which nobody asked for
    assert len(content["per_class"]) == size
    total = sum(one["count"] for one in content["confusions"])
    assert total == content["mistakes"] == 4000


def test_summary_names_the_worst_mistakes():
    content = evaluation().to_json(worst=1)
    assert [one["path"] for one in content["worst_mistakes"]] == ["3.jpg"]
    assert content["mistakes"] == 2
    assert content["confusions"] == [
        {"true_class": "a", "predicted_class": "b", "count": 1},
        {"true_class": "b", "predicted_class": "a", "count": 1},
    ]
    assert len(content["calibration"]["bins"]) == 15
    json.loads(json_text(content), parse_constant=pytest.fail)


def test_paths_are_shown_below_the_data_folder():
    result = dataclasses.replace(evaluation(), root=Path("/data"))
    assert result.shown_path(Path("/data/a/1.jpg")) == "a/1.jpg"
    assert result.shown_path(Path("/elsewhere/1.jpg")) == "/elsewhere/1.jpg"


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([keras.layers.Flatten(), keras.layers.Dense(4)], r"shape \(19, 4\)"),
        ([keras.layers.Flatten()], r"shape \(19, 192\)"),
        ([keras.layers.Rescaling(1.0)], r"shape \(19, 8, 8, 3\)"),
        ([keras.layers.GlobalMaxPooling2D()], r"numbers from \d+ to 2\d\d"),
    ],
)
def test_a_model_that_gives_no_probabilities(tmp_path, layers, message):
    datasets = small_loader(tmp_path).load()
    model = keras.Sequential([keras.layers.Rescaling(1.0), *layers])
    with pytest.raises(InputError, match=message):
        keras_flowers.evaluate(model, datasets, "train")
