"""What each backend of Keras can export; also run on JAX."""

import keras
import numpy as np
import pytest
from helpers import tiny_network

from keras_flowers import Backbone, ImageClassifier, InputError
from keras_flowers.export import export_model, load_exported
from keras_flowers.models.unknown import UnknownDetector


@pytest.fixture(scope="module")
def model():
    backbone = Backbone(tiny_network(), "own")
    model = ImageClassifier(["a", "b"], hidden_units=(4,), seed=1, backbone=backbone)
    examples = np.random.default_rng(1).normal(0, 1, (9, 6))
    model.unknown_detector = UnknownDetector.fit(np.ones((9, 2)), examples, examples)
    return model


def test_a_saved_model_is_proven_on_every_backend(model, tmp_path):
    proof = export_model(model, tmp_path / "model", "saved_model")
    assert proof.largest_difference < 1e-5
    assert proof.similarity.largest_difference < 1e-5
    assert proof.similarity.equal_answers == 1.0
    assert proof.similarity.keras_unknown is None
    exported = load_exported(tmp_path / "model")
    is_tensorflow = keras.backend.backend() == "tensorflow"
    assert exported.description["any_size"] == is_tensorflow
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        exported.predict(images), model.predict(images, verbose=0), atol=1e-5
    )


@pytest.mark.parametrize("model_format", ["onnx", "litert", "openvino"])
def test_what_a_backend_cannot_write_is_said_at_once(model, tmp_path, model_format):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow writes every format: see test_export.py")
    with pytest.raises(InputError, match="set KERAS_BACKEND=tensorflow"):
        export_model(model, tmp_path / "model", model_format)
    assert list(tmp_path.iterdir()) == []
