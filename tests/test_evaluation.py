import dataclasses
import os
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import small_loader

import keras_flowers
from keras_flowers import Evaluation, ImageClassifier, InputError


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


def test_confusion_matrix_is_drawn(tmp_path):
    figure = evaluation().plot_confusion_matrix()
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == list("210110000")
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b", "c"]
    figure.savefig(tmp_path / "matrix.png")


def test_any_folder_name_can_be_drawn(tmp_path):
    names = ("$a^$", os.fsdecode(b"caf\xe9"), "two\nlines")
    result = dataclasses.replace(evaluation(), class_names=names)
    result.plot_confusion_matrix().savefig(tmp_path / "matrix.png")


def test_evaluate_agrees_with_keras(tmp_path):
    run = keras_flowers.train(small_loader(tmp_path), epochs=2, verbose=0)
    result = keras_flowers.evaluate(run.model, run.datasets)
    loss, accuracy = run.model.evaluate(run.datasets.validation, verbose=0)
    assert result.loss == pytest.approx(loss, rel=1e-4)
    assert result.accuracy == pytest.approx(accuracy)
    assert result.paths == run.datasets.paths("validation")
    classified = run.model.classify(result.paths)
    predicted = [result.class_names[i] for i in result.probabilities.argmax(axis=1)]
    assert [photo.label for photo in classified] == predicted
    training = keras_flowers.evaluate(run.model, run.datasets, "train")
    assert training.paths == run.datasets.paths("train")
    assert training.to_json()["photos"] == len(training.paths)


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


def test_an_empty_split_is_named(tmp_path):
    datasets = small_loader(tmp_path).load()
    model = keras.Sequential([keras.layers.Flatten()])
    with pytest.raises(InputError, match="'test'"):
        keras_flowers.evaluate(model, datasets, "test")
