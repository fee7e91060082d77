import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_flowers
from keras_flowers.registration import register

# An on-disk contract: these names stand in every saved file. Never change one.
GOLDEN_NAMES = {
    "keras_flowers>Backbone",
    "keras_flowers>ConfusionMatrix",
    "keras_flowers>MeanAveragePrecision",
    "keras_flowers>FeatureStandardization",
    "keras_flowers>ImageAugmentation",
    "keras_flowers>ImageClassifier",
    "keras_flowers>ImageDatasetLoader",
    "keras_flowers>ImageNetPreprocessing",
    "keras_flowers>MultiLabelCrossentropy",
    "keras_flowers>Muon",
    "keras_flowers>ResizeAndRescale",
}


def test_registered_names_are_the_golden_ones():
    assert set(keras_flowers.custom_objects()) == GOLDEN_NAMES


def test_keras_finds_every_class_by_its_name():
    for name, cls in keras_flowers.custom_objects().items():
        assert keras.saving.get_registered_object(name) is cls


def test_a_name_is_refused_twice():
    with pytest.raises(ValueError, match="ImageClassifier"):
        register("ImageClassifier")(type("Another", (keras.layers.Layer,), {}))
    names = keras_flowers.custom_objects()
    assert names["keras_flowers>ImageClassifier"] is keras_flowers.ImageClassifier


def test_a_process_that_imports_only_the_package_loads_a_model(tmp_path):
    model = keras_flowers.ImageClassifier(
        ["a", "b"],
        image_size=(6, 6),
        hidden_units=(3,),
        dropout=0.1,
        augmentation=keras_flowers.ImageAugmentation(value_range=(0, 1)),
    )
    images = np.arange(2 * 6 * 6 * 3, dtype=np.float32).reshape(2, 6, 6, 3)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "photos.npy", images)
    np.save(tmp_path / "expected.npy", model.predict(images, verbose=0))
    script = (
        "import keras_flowers, keras, numpy as np\n"
        "model = keras.models.load_model('model.keras')\n"
        "got = model.predict(np.load('photos.npy'), verbose=0)\n"
        "np.testing.assert_array_equal(got, np.load('expected.npy'))\n"
        "assert model.class_names == ('a', 'b')\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)


def test_tuning_is_loaded_on_first_use():
    program = (
        "import sys, keras_flowers\n"
        "assert 'keras_flowers.tuning' not in sys.modules\n"
        "assert keras_flowers.tuning.search\n"
        "assert not hasattr(keras_flowers, 'tunings')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
