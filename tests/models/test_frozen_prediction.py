import dataclasses

import keras
import numpy as np
import pytest
from helpers import draw_images, tiny_network

from keras_flowers import Backbone, ImageClassifier, InputError, evaluate
from keras_flowers.models import frozen_prediction
from keras_flowers.models.frozen_prediction import (
    build_frozen_classifier,
    choose_precision,
    load_spread,
)
from keras_flowers.models.unknown import UnknownDetector

ENOUGH = 1000


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("openvino")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("OpenVINO converts models of TensorFlow")
    backbone = Backbone(tiny_network(), "own")
    return ImageClassifier(
        ["roses", "tulips"], (8, 8), (4,), seed=1, backbone=backbone, temperature=2.5
    )


def images(count=5):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)


@pytest.mark.parametrize("tta", [1, 3])
def test_a_model_with_a_temperature_is_computed_by_openvino(model, tta):
    classifier = build_frozen_classifier(model, ENOUGH, images(), tta=tta)
    probabilities, features = classifier.predict_both(images())
    wanted = model.averaging_views(tta).predict_on_batch(images())
    np.testing.assert_allclose(probabilities, wanted, atol=1e-5)
    of_keras = model.feature_extractor().predict_on_batch(images())
    np.testing.assert_allclose(features, of_keras, atol=1e-4)
    # The temperature does something, and few images are left to Keras.
    plain = model(images(), training=True)
    assert np.abs(plain - model.predict_on_batch(images())).max() > 1e-3
    assert build_frozen_classifier(model, ENOUGH // tta - 1, images(), tta=tta) is None


def test_unknown_images_are_found_with_the_features_of_openvino(model, monkeypatch):
    calls = []
    build = frozen_prediction.build_openvino_predictor

    def spy(*arguments):
        calls.append(arguments)
        return build(*arguments)

    monkeypatch.setattr(frozen_prediction, "build_openvino_predictor", spy)
    features = model.feature_extractor().predict_on_batch(images())
    probabilities = model.predict_on_batch(images())
    detector = UnknownDetector.fit(probabilities, features, features)
    monkeypatch.setattr(model, "unknown_detector", detector)
    found, is_unknown = model.predictor("auto", count=ENOUGH)(images())
    np.testing.assert_allclose(found, probabilities, atol=1e-5)
    assert is_unknown.tolist() == detector.find_unknown(found, features).tolist()
    assert len(calls) == 1


def test_a_lower_precision_says_what_it_changes(model, tmp_path):
    if choose_precision(model, "bf16") != "bf16":
        pytest.skip("the processor has no bfloat16")
    draw_images(tmp_path, {"roses": 3, "tulips": 3})
    exact = evaluate(model, tmp_path)
    assert exact.precision_difference is None
    lower = evaluate(model, tmp_path, inference_precision="bf16")
    found = lower.precision_difference
    distance = np.abs(lower.probabilities - exact.probabilities).max()
    assert 0 < found.largest_difference == pytest.approx(distance, abs=1e-6)
    assert dataclasses.asdict(found) == {
        "precision": "bf16",
        "images": 6,
        "changed": (lower.predictions != exact.predictions).sum(),
        "largest_difference": found.largest_difference,
    }
    seen = []
    how = {"inference_precision": "bf16", "on_difference": seen.append}
    results = model.classify_each(iter(lower.paths), **how)
    for result, row in zip(results, lower.probabilities, strict=True):
        assert result.probabilities["roses"] == pytest.approx(row[0], abs=1e-6)
    assert seen == [found]
    # Those that cannot be read are left out.
    paths = [*lower.paths, tmp_path / "none"]
    assert len(load_spread(paths, (8, 8), "stretch")) == 6


def test_a_lower_precision_needs_a_backbone(model):
    plain = ImageClassifier(["a", "b"], (8, 8), ())
    with pytest.raises(InputError, match="the model has none. Received: .*'bf16'"):
        plain.predictor(inference_precision="bf16")
    with pytest.raises(InputError, match="one of float32, bf16, int8"):
        evaluate(model, "folder", inference_precision="float16")


def test_a_lower_precision_needs_files(model):
    if choose_precision(model, "bf16") != "bf16":
        pytest.skip("the processor has no bfloat16")
    with pytest.raises(InputError, match="for images in files. Received: .*tuple"):
        evaluate(model, (images(), np.zeros(5)), inference_precision="bf16")
