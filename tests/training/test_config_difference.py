import copy
import json

import keras
import pytest
from helpers import small_model

from keras_flowers import ImageClassifier, ImageDatasetLoader, TrainingConfig
from keras_flowers.training.config_difference import difference, fingerprint_difference


def configuration(data="images", build=None, model=None, **options):
    """Returns what `config.json` holds."""
    model = model or ImageClassifier(
        ["a", "b"], image_size=(8, 8), hidden_units=(4,), seed=1
    )
    if not model.compiled:
        model.compile(keras.optimizers.Adam(0.01))
    loader = ImageDatasetLoader(data, image_size=(8, 8))
    config = TrainingConfig(loader, build or small_model, **options)
    return json.loads(json.dumps(config.to_json(model)))


@pytest.fixture(scope="module")
def saved():
    return configuration()


def change(config, path, value):
    """Returns a copy of a configuration with another value at a path."""
    config = copy.deepcopy(config)
    place = config
    *parents, last = path.split(".")
    for name in parents:
        place = place[int(name) if name.isdigit() else name]
    place[last] = value
    return config


def test_names_that_keras_numbers_do_not_count(saved):
    again = configuration()
    assert saved["model"]["config"]["name"] != again["model"]["config"]["name"]
    assert difference(saved, again) is None


@pytest.mark.parametrize(
    ("path", "there", "here"),
    [
        ("class_weights", {"line_1": 1.0}, {"line_9": 1.0}),
        ("model.config.class_names", ["line_1", "b"], ["line_9", "b"]),
        ("loader.config.exclude", "line_1", "line_9"),
        ("model.config.name", "mobilenet_v2_100", "mobilenet_v2_75"),
        ("model.config.dtype.config.name", "policy_1", "policy_2"),
    ],
)
def test_texts_that_end_in_a_number_count(saved, path, there, here):
    found = difference(change(saved, path, there), change(saved, path, here))
    assert found is not None
    assert found.startswith(path)


def test_only_what_the_manifest_decides_may_move(saved):
    assert difference(saved, change(saved, "loader.config.data", "line_9")) is None
    weights = "model.config.pretrained_weights"
    found = difference(
        change(saved, weights, "/weights/mobilenet_v2_100.keras"),
        change(saved, weights, "/weights/mobilenet_v2_75.keras"),
    )
    assert found == (
        "model.config.pretrained_weights was /weights/mobilenet_v2_100.keras and is "
        "now /weights/mobilenet_v2_75.keras"
    )


@pytest.mark.parametrize("path", ["model", "loader", "model.compile_config.optimizer"])
def test_a_moved_module_does_not_count(saved, path):
    moved = change(saved, f"{path}.module", "elsewhere.now")
    assert difference(moved, saved) is None
    assert difference(saved, moved) is None


def test_a_class_that_was_renamed_keeps_its_registered_name(saved):
    before = change(saved, "model.class_name", "Classifier")
    before = change(before, "model.config.name", "classifier_2")
    assert difference(before, saved) is None
    found = difference(change(saved, "model.registered_name", "my>Classifier"), saved)
    assert found == (
        "model.class_name was my>Classifier and is now keras_flowers>ImageClassifier"
    )


OPTIMIZER = "model.compile_config.optimizer.config"


@pytest.mark.parametrize(
    ("path", "default", "other"),
    [
        (f"{OPTIMIZER}.amsgrad", False, True),
        (f"{OPTIMIZER}.ema_momentum", 0.99, 0.9),
        (f"{OPTIMIZER}.clipnorm", None, 1.0),
        ("model.compile_config.auto_scale_loss", True, False),
        ("model.config.augmentation", None, False),
        ("model.config.autocast", True, False),  # of `keras.layers.Layer`
        ("loader.config.batch_size", 32, 16),
    ],
)
def test_a_setting_that_one_version_lacks_has_its_default(saved, path, default, other):
    """A newer version of Keras, or of this package, writes more settings."""
    without = copy.deepcopy(saved)
    place = without
    *parents, last = path.split(".")
    for name in parents:
        place = place[name]
    place.pop(last, None)
    assert difference(without, change(saved, path, default)) is None
    assert difference(change(saved, path, default), without) is None
    found = difference(without, change(saved, path, other))
    assert found == f"{path} was {default} and is now {other}"


def test_a_setting_that_nobody_knows_counts(saved):
    found = difference(saved, change(saved, f"{OPTIMIZER}.new", 3))
    assert found == f"{OPTIMIZER}.new was None and is now 3"
    assert difference(saved, change(saved, f"{OPTIMIZER}.new", None)) is None


def functional(order=("first", "second"), names=(None, None), units=3):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(inputs)
    first = keras.layers.Dense(units, name=names[0])(x)
    second = keras.layers.Dense(units, name=names[1])(first)
    both = {"first": first, "second": second}
    x = keras.layers.Subtract()([both[name] for name in order])
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    return configuration(model=model)


def test_layers_are_known_by_their_position():
    saved = functional()
    assert difference(saved, functional()) is None
    assert difference(saved, functional(names=("left", "right"))) is None
    found = difference(saved, functional(order=("second", "first")))
    assert "inbound_nodes" in found
    found = difference(saved, functional(units=4))
    assert found == "model.config.layers[2].config.units was 3 and is now 4"


def test_another_number_of_layers_is_told():
    first, second = (configuration(model=compile_sequential(count)) for count in (1, 2))
    found = difference(first, second)
    assert found == "model.config.layers had 3 entries and now has 4"


def compile_sequential(count):
    layers = [keras.layers.Dense(2, activation="softmax") for _ in range(count)]
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), *layers])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def test_metrics_are_known_by_the_names_that_a_user_gave():
    def with_metric(name):
        model = ImageClassifier(["a", "b"], image_size=(8, 8), hidden_units=(), seed=1)
        model.compile("adam", metrics=[keras.metrics.Precision(name=name)])
        return configuration(model=model)

    assert difference(with_metric(None), with_metric(None)) is None
    found = difference(with_metric("top_1"), with_metric("top_2"))
    assert found.endswith("config.name was top_1 and is now top_2")


def test_fingerprints():
    saved = {"weights": "aa", "architecture": "1:bb"}
    assert fingerprint_difference(saved, dict(saved)) is None
    assert fingerprint_difference(None, None) is None
    found = fingerprint_difference(saved, saved | {"weights": "cc"})
    assert found == "pretrained.weights was aa and is now cc"
    found = fingerprint_difference(saved, saved | {"architecture": "1:cc"})
    assert found == "pretrained.architecture was 1:bb and is now 1:cc"
    # Another version of the description says nothing; the hash of version 0.1 neither.
    assert fingerprint_difference(saved, saved | {"architecture": "2:cc"}) is None
    assert fingerprint_difference("0123", saved) is None
    assert fingerprint_difference("0123", None) is not None
    assert fingerprint_difference(saved, None) is not None
