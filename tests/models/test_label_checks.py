import keras
import numpy as np
import pytest
from helpers import small_loader
from keras import ops

from keras_flowers import ImageClassifier, InputError
from keras_flowers.models.label_checks import check_array_labels, check_dataset_classes


@pytest.mark.parametrize(
    "labels",
    [
        np.array([0, 1, 2]),
        np.array([[0], [-1]]),
        np.array([0.0, 0.5]),
        np.array([0.0, np.nan]),
        np.array(["daisy", "roses"]),
        ops.convert_to_tensor([0, 5]),
    ],
    ids=str,
)
def test_a_label_without_a_class_is_refused(labels):
    with pytest.raises(InputError, match="`y` must be integers from 0 to 1: .* Rece"):
        check_array_labels("y", labels, 2, None)


def test_labels_with_a_class_are_left_to_keras():
    ignoring = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)
    for labels in (
        np.array([0, 1], np.uint8),
        np.array([[0.0], [1.0]], np.float32),
        np.array([True, False]),
        ops.convert_to_tensor([0, 1]),
        np.array([[0.1, 5.0]]),  # one number for each class
        np.array([], np.int32),
        {"predictions": [7]},
        None,
    ):
        check_array_labels("y", labels, 2, "sparse_categorical_crossentropy")
    check_array_labels("y", np.array([255, 1]), 2, ignoring)
    with pytest.raises(InputError, match="Received: 254"):
        check_array_labels("y", np.array([255, 254]), 2, ignoring)


def test_fit_and_evaluate_refuse_labels_without_a_class():
    model = ImageClassifier(["a", "b"], (8, 8), hidden_units=())
    model.compile()
    images, labels = np.zeros((4, 8, 8, 3), np.uint8), np.array([0, 1, 2, 5])
    weights = model.get_weights()
    for named, call in (
        ("y", lambda: model.fit(images, labels)),
        ("y", lambda: model.evaluate(images, y=labels)),
        (
            "validation_data",
            lambda: model.fit(images, labels % 2, validation_data=(images, labels)),
        ),
    ):
        with pytest.raises(
            InputError, match=f"`{named}` must .* 0 to 1: .*Received: 2"
        ):
            call()
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_several_labels_are_rows():
    model = ImageClassifier(["a", "b"], (8, 8), hidden_units=(), multi_label=True)
    model.compile(jit_compile=False)
    images, labels = np.zeros((2, 8, 8, 3), np.uint8), np.ones((2, 2), np.float32)
    assert np.isfinite(model.evaluate(images, labels, verbose=0)).all()


def test_a_dataset_has_the_classes_of_the_model(tmp_path):
    datasets = small_loader(tmp_path).load()
    assert datasets.class_names == ("daisy", "roses", "tulips")
    check_dataset_classes("x", datasets.train, (*datasets.class_names, "violets"))
    check_dataset_classes("x", datasets.train, ("Daisy", "Rose", "Tulip"))
    for names in (["daisy", "roses"], ["tulips", "roses", "daisy"]):
        model = ImageClassifier(names, (8, 8), hidden_units=())
        model.compile()
        for call in (
            lambda m: m.fit(datasets.train),
            lambda m: m.fit(np.zeros(1), validation_data=datasets.validation),
            lambda m: m.evaluate(datasets.train_in_order),
        ):
            with pytest.raises(InputError, match="order: .*'tulips'.* Received: "):
                call(model)
