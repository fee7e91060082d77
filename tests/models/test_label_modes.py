"""Classifiers of images with several labels."""

import json
import zipfile

import component_checks
import keras
import numpy as np
import pytest
from keras import ops
from keras_flowers_runtime.classification import rank_classes

from keras_flowers import ImageClassifier, InputError, MultiLabelCrossentropy
from keras_flowers.models.label_modes import MULTI_LABEL, SINGLE_LABEL
from keras_flowers.models.label_smoothing import smooth_loss

NAMES = ("a", "b", "c")
LABELS = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.float32)
PROBABILITIES = np.array(
    [[0.9, 0.2, 0.4], [0.1, 0.3, 0.05], [0.6, 0.7, 0.5]], np.float32
)


def small_classifier(**arguments):
    defaults = {"image_size": (6, 6), "hidden_units": (3,), "seed": 1}
    return ImageClassifier(NAMES, **defaults | {"multi_label": True} | arguments)


def cross_entropies(labels, probabilities):
    return -np.where(labels == 1, np.log(probabilities), np.log(1 - probabilities))


def test_the_loss_is_the_sum_of_keras_loss():
    loss = MultiLabelCrossentropy()
    component_checks.config_covers_signature(loss)
    component_checks.config_round_trips(loss)
    component_checks.has_registered_name(loss, "keras_flowers>MultiLabelCrossentropy")
    expected = cross_entropies(LABELS, PROBABILITIES).sum(axis=1).mean()
    assert float(loss(LABELS, PROBABILITIES)) == pytest.approx(expected, rel=1e-5)
    mean = float(keras.losses.BinaryCrossentropy()(LABELS, PROBABILITIES))
    assert float(loss(LABELS, PROBABILITIES)) == pytest.approx(3 * mean, rel=1e-5)


def test_smoothed_labels_move_towards_one_half():
    plain = MultiLabelCrossentropy()(LABELS, PROBABILITIES)
    labels, answers = map(ops.convert_to_tensor, (LABELS, PROBABILITIES))
    found = float(smooth_loss(plain, labels, answers, None, 0.2))
    smoothed = 0.8 * LABELS + 0.1
    expected = MultiLabelCrossentropy()(smoothed, PROBABILITIES)
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_temperature_divides_the_logits():
    logits = np.array([[-3.0, 0.5, 4.0]], np.float32)
    for mode, activation in ((MULTI_LABEL, "sigmoid"), (SINGLE_LABEL, "softmax")):
        assert mode.activation == activation
        activate = keras.activations.get(activation)
        found = mode.scale_probabilities(activate(ops.array(logits)), 2.0)
        expected = ops.convert_to_numpy(activate(ops.array(logits / 2)))
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected, rtol=1e-4)
    extreme = MULTI_LABEL.scale_probabilities(ops.array([[0.0, 1.0]]), 2.0)
    assert ops.convert_to_numpy(extreme).tolist() == [[0.0, 1.0]]
    odds = MULTI_LABEL.log_odds(ops.array(logits), np.array([2]))
    assert float(odds[0]) == 4.0


def test_labels_are_those_above_their_thresholds():
    found = MULTI_LABEL.find_labels(PROBABILITIES, (0.9, 0.2, 0.6))
    assert found.tolist() == [
        [True, True, False],
        [False, True, False],
        [False, True, False],
    ]
    assert MULTI_LABEL.find_labels(PROBABILITIES, None).sum() == 4
    rows = np.array([[np.nan, 0.9]], np.float32)
    assert not MULTI_LABEL.find_labels(rows, None).any()
    assert not SINGLE_LABEL.find_labels(rows, None).any()
    one = rank_classes("x", NAMES, PROBABILITIES[0], (0.9, 0.2, 0.6))
    assert one.labels == ("a", "b")
    assert not one.is_unknown
    none = rank_classes("x", NAMES, PROBABILITIES[1], (0.9, 0.4, 0.6))
    assert (none.labels, none.is_unknown, none.label) == ((), True, "b")
    assert rank_classes("x", NAMES, PROBABILITIES[1]).labels is None


def test_a_saved_model_keeps_its_mode_and_thresholds(tmp_path):
    model = small_classifier(temperature=1.5, thresholds=(0.2, 0.5, 0.9))
    component_checks.config_covers_signature(model)
    assert [metric.name for metric in model.label_mode.metrics(3)] == [
        "binary_accuracy",
        "mean_average_precision",
    ]
    model.compile()
    images = np.random.default_rng(0).integers(0, 255, (4, 9, 7, 3), dtype=np.uint8)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.multi_label
    assert loaded.thresholds == (0.2, 0.5, 0.9)
    assert isinstance(loaded.loss, MultiLabelCrossentropy)
    found, expected = component_checks.predict(loaded, images), model(images)
    np.testing.assert_array_equal(found, ops.convert_to_numpy(expected))
    loaded.thresholds = None
    assert loaded.label_thresholds == (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match="for each class"):
        loaded.thresholds = (0.5,)


def test_a_model_file_from_before_gives_one_class(tmp_path):
    small_classifier(multi_label=False).save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as new:
        config = json.loads(new.read("config.json"))
        del config["config"]["multi_label"], config["config"]["thresholds"]
        with zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
            for name in new.namelist():
                content = new.read(name)
                is_config = name == "config.json"
                old.writestr(name, json.dumps(config) if is_config else content)
    loaded = keras.models.load_model(tmp_path / "old.keras")
    assert not loaded.multi_label
    assert loaded.label_thresholds is None
    assert loaded.layers[-1].activation is keras.activations.softmax


@pytest.mark.parametrize(
    "arguments",
    [
        {"multi_label": False, "thresholds": (0.1, 0.2, 0.3)},
        {"thresholds": (0.1, 0.2)},
        {"thresholds": (0.1, 0.2, 1.3)},
        {"thresholds": 0.5},
    ],
)
def test_thresholds_are_one_number_per_class(arguments):
    with pytest.raises(InputError, match="`thresholds` must be a number from 0 to 1"):
        small_classifier(**arguments)
