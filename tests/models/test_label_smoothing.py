import keras
import numpy as np
import pytest
from helpers import tiny_network
from keras import ops

from keras_flowers import Backbone, ImageClassifier, InputError
from keras_flowers.models.label_smoothing import smooth_loss

LABELS = np.array([0, 2, 1, 2])
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]], "float32"
)


@pytest.mark.parametrize("weight", [None, np.array([1.0, 2.0, 0.0, 3.0], "float32")])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_smoothing_is_that_of_keras(weight, shape):
    labels = LABELS.reshape(shape)
    plain = keras.losses.SparseCategoricalCrossentropy()(labels, PROBABILITIES, weight)
    smooth = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    expected = smooth(np.eye(3)[LABELS], PROBABILITIES, weight)
    got = smooth_loss(plain, labels, PROBABILITIES, weight, 0.2)
    assert float(got) == pytest.approx(float(expected), rel=1e-4)


def classifier(smoothing, **arguments):
    model = ImageClassifier(
        ["a", "b", "c"], (8, 8), (4,), 0.0, augmentation=False, seed=1, **arguments
    )
    model.compile(keras.optimizers.SGD(0.0), label_smoothing=smoothing)
    return model


def test_it_acts_in_training_only_and_on_the_head_as_well(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    for backbone in (None, Backbone(tiny_network(), "own")):
        losses = {}
        for smoothing in (0.0, 0.3):
            model = classifier(smoothing, backbone=backbone)
            features = model.feature_extractor().predict(images, verbose=0)
            for fitted, inputs in ((model, images), (model.head(), features)):
                trained = fitted.fit(inputs, LABELS, verbose=0).history["loss"][0]
                evaluated = fitted.evaluate(inputs, LABELS, verbose=0)[0]
                losses.setdefault(smoothing, []).append((trained, evaluated))
        probabilities = model.predict(images, verbose=0)
        smooth = keras.losses.CategoricalCrossentropy(label_smoothing=0.3)
        expected = float(smooth(np.eye(3)[LABELS], probabilities))
        for (trained, evaluated), (plain, as_before) in zip(
            losses[0.3], losses[0.0], strict=True
        ):
            assert trained == pytest.approx(expected, rel=1e-3)
            assert evaluated == pytest.approx(as_before, rel=1e-4)
            assert plain == pytest.approx(as_before, rel=1e-3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.label_smoothing == 0.3
    assert "label_smoothing" not in classifier(0.0).get_compile_config()


@pytest.mark.parametrize("amount", [-0.1, 1, "much", None, float("nan")])
def test_wrong_amounts_are_named(amount):
    with pytest.raises(InputError, match="`label_smoothing`.*Received: label_smoo"):
        classifier(amount)


def test_another_augmentation_shares_the_weights():
    model = classifier(0.1, backbone=Backbone(tiny_network(), "own"))
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    augmented = model.with_augmentation("light")
    assert augmented.optimizer is model.optimizer
    assert [id(w) for w in augmented.weights] == [id(w) for w in model.weights]
    plain = ops.convert_to_numpy(model(images, training=False))
    np.testing.assert_array_equal(augmented(images, training=False), plain)
    assert not np.allclose(augmented(images, training=True), plain)
    without = model.with_augmentation("none")
    assert len(without.layers) == len(augmented.layers) - 1
