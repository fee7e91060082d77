"""Files that version 0.1 wrote, of a dense model and of one with a backbone.

Each run was interrupted after two of four epochs; `expected.json` holds the history of
the same run without an interruption, and what its model predicts.
"""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import COLOURS
from keras_flowers.callbacks import read_history
from PIL import Image

from keras_flowers import ImageClassifier, ImageDatasetLoader, TrainingConfig, train

# Version 0.1 trained with XLA, which is part of its configuration.
pytestmark = [
    pytest.mark.xla,
    # The small dense model predicts one class; version 0.1 did not notice that.
    pytest.mark.filterwarnings("ignore::keras_flowers.callbacks.CollapseWarning"),
]

SAVED = Path(__file__).with_name("saved_by_0_1")
KINDS = ("dense", "backbone")
MEASURED = ("accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "epoch")


def expected(kind):
    return json.loads((SAVED / "expected.json").read_text())[kind]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The images that version 0.1 trained on."""
    folder = tmp_path_factory.mktemp("saved") / "images"
    generator = np.random.default_rng(7)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(6):
            noise = generator.integers(-40, 40, (12, 16, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.bmp")
    return folder


@pytest.fixture
def run_of_0_1(images, tmp_path):
    """Returns a copy of a run, with the paths of this machine in its configuration."""

    def copy(kind):
        directory = tmp_path / kind
        shutil.copytree(SAVED / kind / "run", directory)
        path = directory / "config.json"
        config = json.loads(path.read_text())
        assert config["format"] == 1
        loader = config["loader"]["config"]
        loader["data"] = str(images)
        loader["cache_directory"] = str(tmp_path / "cache")
        backbone = config["model"]["config"]["backbone"]
        if backbone is not None:
            network = str(SAVED / "network.keras")
            backbone["config"]["pretrained_weights"] = network
        path.write_text(json.dumps(config))
        return directory

    return copy


def assert_expected_history(history, kind):
    wanted = expected(kind)["history"]
    assert history.keys() - {"collapsed"} == wanted.keys()
    for name in MEASURED:
        np.testing.assert_allclose(history[name], wanted[name], 1e-3, 1e-4, name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_predicts_as_it_did(images, kind):
    model = keras.models.load_model(SAVED / kind / "model.keras")
    wanted = expected(kind)
    results = model.classify([images.parent / path for path in wanted["paths"]])
    got = [[r.probabilities[name] for name in model.class_names] for r in results]
    np.testing.assert_allclose(got, wanted["predictions"], atol=1e-5)
    assert model.compiled
    assert model.has_fixed_features is (kind == "backbone")


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_reproduces_its_run(run_of_0_1, kind):
    config = TrainingConfig.read(run_of_0_1(kind) / "config.json")
    assert_expected_history(train(config, verbose=0).history, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_resumed(run_of_0_1, kind):
    directory = run_of_0_1(kind)
    assert read_history(directory)["epoch"] == [1, 2]
    config = TrainingConfig.read(directory / "config.json")
    result = train(config, run_directory=directory, resume=True, verbose=0)
    recorded = read_history(SAVED / kind / "run")
    assert result.history["loss"][:2] == recorded["loss"]
    assert_expected_history(result.history, kind)
    for name, values in read_history(directory).items():  # with NaN
        np.testing.assert_array_equal(values, result.history[name], name)
    assert not (directory / "checkpoint").exists()
    loaded = keras.models.load_model(directory / "model.keras")
    got = loaded.predict(result.datasets.validation, verbose=0)
    np.testing.assert_array_equal(
        got, result.model.predict(result.datasets.validation, verbose=0)
    )


def test_a_run_is_resumed_with_the_arguments_that_started_it(run_of_0_1, images):
    directory = run_of_0_1("dense")

    def build(datasets):
        model = ImageClassifier(
            datasets.class_names,
            image_size=(8, 8),
            hidden_units=(4,),
            dropout=0.2,
            seed=5,
        )
        model.compile(keras.optimizers.Adam(0.01))
        return model

    loader = ImageDatasetLoader(
        images,
        image_size=(8, 8),
        batch_size=4,
        cache_directory=directory.with_name("cache"),
    )
    result = train(
        loader, build, epochs=4, run_directory=directory, resume=True, verbose=0
    )
    assert_expected_history(result.history, "dense")
