import keras
import numpy as np
import pytest
from helpers import tiny_network

from keras_flowers import Backbone, ImageClassifier, InputError, inference
from keras_flowers.inference import (
    build_openvino_predictor,
    build_predictor,
    check_precision,
    supported_precision,
)

ENOUGH = 1000


@pytest.fixture(scope="module")
def network():
    pytest.importorskip("openvino")
    backbone = Backbone(tiny_network(), "own")
    return ImageClassifier(["a", "b"], (8, 8), (4,), seed=1, backbone=backbone)


def images(count=5):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)


def test_openvino_answers_as_keras_does(network):
    wanted = network.predict_on_batch(images())
    predict = build_openvino_predictor(network, ENOUGH, images())
    np.testing.assert_allclose(predict(images()), wanted, atol=1e-5)
    # Batches of any size.
    np.testing.assert_allclose(predict(images(2)), wanted[:2], atol=1e-5)
    assert build_openvino_predictor(network, ENOUGH - 1, images()) is None
    half = ImageClassifier(
        ["a", "b"], (8, 8), (4,), backbone=tiny_network(), dtype="mixed_bfloat16"
    )
    extractor = half.feature_extractor()
    assert build_openvino_predictor(extractor, ENOUGH, images()) is None
    for count in (1, ENOUGH):
        constant = build_predictor(network, count, images())
        np.testing.assert_allclose(constant(images()), wanted, atol=1e-5)


def test_keras_computes_where_openvino_is_wrong_or_fails(network, monkeypatch):
    def answer_wrong(*_):
        return lambda batch: np.full((len(batch), 2), 0.5, np.float32)

    def fail(*_):
        raise RuntimeError("no such operation\nand more")

    wanted = network.predict_on_batch(images())
    for load, reason in ((answer_wrong, "results differ by"), (fail, "no such op")):
        monkeypatch.setattr(inference, "_load_into_openvino", load)
        with pytest.warns(UserWarning, match=reason) as warned:
            found = build_predictor(network, ENOUGH, images())(images())
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        assert "\n" not in str(warned[0].message)


def test_lower_precisions_are_those_of_the_processor(network, monkeypatch):
    import openvino

    class Old(openvino.Core):
        def get_property(self, *_):
            return ["FP32"]

    assert supported_precision("float32") == "float32"
    with pytest.raises(InputError, match="one of float32, bf16, int8"):
        check_precision("float16")
    wanted = network.predict_on_batch(images())
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        predict = build_predictor(network, 1, images(), "bf16")
        np.testing.assert_allclose(predict(images()), wanted, atol=0.05)
        assert supported_precision("bf16") == "bf16"
    monkeypatch.setattr(openvino, "Core", Old)
    with pytest.warns(UserWarning, match="does not compute in bf16"):
        assert supported_precision("bf16") == "float32"


def test_without_openvino_lower_precisions_are_refused(monkeypatch):
    monkeypatch.setattr(inference.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs openvino, which is not installed"):
        check_precision("bf16")
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    assert build_openvino_predictor(model, ENOUGH, images()) is None
