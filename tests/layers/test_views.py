import keras
import numpy as np
import pytest
from component_checks import (
    config_round_trips,
    has_registered_name,
    saves_and_loads,
    symbolic_matches_eager,
)
from PIL import Image

from keras_flowers import InputError
from keras_flowers.layers.standardization import FeatureStandardization
from keras_flowers.layers.views import MOST_VIEWS, average_views, take_view


def images(count=2, size=(20, 30)):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, *size, 3)).astype(np.uint8)


def view(pixels, number):
    return keras.ops.convert_to_numpy(take_view(pixels, number))


def test_the_first_views_are_the_image_and_its_mirror_image():
    pixels = images()
    np.testing.assert_array_equal(view(pixels, 0), pixels)
    np.testing.assert_array_equal(view(pixels, 1), pixels[:, :, ::-1])


def test_crops_are_those_of_pillow():
    pixels = images(1)
    height, width = pixels.shape[1:3]
    corners = [(0.5, 0.5), (0, 0), (0, 1), (1, 0), (1, 1)]
    for number, (top, left) in enumerate(corners, 2):
        top, left = 0.15 * height * top, 0.15 * width * left
        box = (left, top, left + 0.85 * width, top + 0.85 * height)
        wanted = Image.fromarray(pixels[0]).resize(
            (width, height), Image.Resampling.BILINEAR, box=box
        )
        # Pillow rounds to integers after each axis.
        np.testing.assert_allclose(view(pixels, number)[0], wanted, atol=1.01)
    assert number == MOST_VIEWS - 1


def test_probabilities_are_averaged_over_views():
    inputs = keras.Input((8, 6, 3))
    scores = keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, scores)
    pixels = images(3, (8, 6)) / np.float32(255)
    average = average_views(model, (8, 6), 4)
    wanted = np.mean([model(take_view(pixels, n)) for n in range(4)], axis=0)
    np.testing.assert_allclose(average(pixels), wanted, atol=1e-6)
    assert average_views(model, (8, 6), 1) is model
    for count in (0, MOST_VIEWS + 1):
        with pytest.raises(InputError, match="from 1 to 7"):
            average_views(model, (8, 6), count)


def test_features_of_any_scale_are_standardized():
    generator = np.random.default_rng(0)
    features = generator.gamma(2, [0.5, 20, 300], (200, 3)).astype(np.float32)
    features = np.concatenate([features, np.full((200, 1), 7, np.float32)], axis=1)
    layer = FeatureStandardization()
    roots = layer(features)
    np.testing.assert_allclose(roots, np.sqrt(features), rtol=0.02, atol=0.02)
    layer.adapt(features)
    got = keras.ops.convert_to_numpy(layer(features))
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-4)
    # The last feature is always the same.
    np.testing.assert_allclose(got.std(axis=0), [1, 1, 1, 0], atol=1e-3)
    # Negative features have negative roots.
    np.testing.assert_allclose(FeatureStandardization()(-features), -roots)
    has_registered_name(layer, "keras_flowers>FeatureStandardization")
    config_round_trips(layer)
    symbolic_matches_eager(FeatureStandardization, features)


def test_statistics_are_saved(tmp_path):
    layer = FeatureStandardization()
    layer.adapt(images(size=(3,))[:, :, 0].astype(np.float32))
    saves_and_loads(layer, images(size=(3,))[:, :, 0], tmp_path)
