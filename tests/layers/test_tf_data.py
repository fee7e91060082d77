"""The layers inside a tf.data pipeline, which takes the TensorFlow backend."""

import component_checks
import keras
import numpy as np
import pytest

from keras_flowers import ImageAugmentation, ImageClassifier, ResizeAndRescale

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 9, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "make", [lambda: ResizeAndRescale((4, 5)), lambda: ImageAugmentation(seed=1)]
)
def test_direct_single_and_batched_agree(make):
    component_checks.runs_in_tf_data(make(), IMAGES)


def test_augmentation_is_repeatable_and_in_range():
    import tensorflow as tf

    def augmented():
        layer = ImageAugmentation(seed=3)
        images = tf.data.Dataset.from_tensor_slices(IMAGES).batch(2)
        batches = images.map(lambda batch: layer(batch, training=True))
        return np.concatenate(list(batches.as_numpy_iterator()))

    first, second = augmented(), augmented()
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, IMAGES)
    assert first.min() >= 0
    assert first.max() <= 255


def test_xla_compiles_both_and_agrees_with_the_eager_result():
    import tensorflow as tf

    for make in (
        lambda: ResizeAndRescale((4, 5)),
        # Without chance: XLA draws other random numbers from the same seed.
        lambda: ImageAugmentation(None, (0.1, 0.1), (0.2, 0.2), (0.3, 0.3)),
    ):
        compiled, eager = make(), make()
        assert compiled.supports_jit
        function = tf.function(
            lambda batch, layer=compiled: layer(batch, training=True), jit_compile=True
        )
        got = function(tf.constant(IMAGES)).numpy()
        np.testing.assert_allclose(got, eager(IMAGES, training=True), atol=0.05)


def test_an_exported_model_does_not_augment(tmp_path):
    import tensorflow as tf

    model = keras.Sequential(
        [keras.Input((9, 7, 3)), ImageAugmentation(seed=1, value_range=(0, 255))]
    )
    model.export(tmp_path / "saved_model", verbose=False)
    serve = tf.saved_model.load(str(tmp_path / "saved_model")).serve
    images = IMAGES.astype("float32")
    np.testing.assert_array_equal(serve(images), images)


def test_an_exported_classifier_takes_any_size_and_does_not_augment(tmp_path):
    import tensorflow as tf

    model = ImageClassifier(
        ["a", "b"],
        image_size=(8, 8),
        hidden_units=(4,),
        augmentation=ImageAugmentation(contrast=0.9, value_range=(0, 1)),
    )
    model.compile()
    model.export(tmp_path / "saved_model", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "saved_model"))
    for images in (IMAGES.astype("float32"), IMAGES[:1, :5].astype("float32")):
        expected = model.predict(images, verbose=0)
        np.testing.assert_allclose(exported.serve(images), expected, rtol=1e-5)
