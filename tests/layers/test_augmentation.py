import math

import component_checks
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from keras_flowers import ImageAugmentation, InputError
from keras_flowers.layers.augmentation import (
    AUGMENTATION_STRENGTHS,
    FILL_MODES,
    affine_transforms,
    crop_transforms,
    warp,
)


def images(count=2, height=12, width=16, seed=0):
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def numpy_warp(image, transform, fill_mode, fill_value):
    """The plain reference: one loop per output pixel."""
    height, width, _ = image.shape
    xx, xy, x0, yx, yy, y0 = transform
    result = np.empty(image.shape)
    fold = {
        "reflect": lambda i, n: min(i % (2 * n), 2 * n - 1 - i % (2 * n)),
        "wrap": lambda i, n: i % n,
        "nearest": lambda i, n: min(max(i, 0), n - 1),
    }.get(fill_mode)

    def pixel(row, column):
        if fold is None and not (0 <= row < height and 0 <= column < width):
            return np.full(3, fill_value, dtype=float)
        if fold is None:
            return image[row, column].astype(float)
        return image[fold(row, height), fold(column, width)].astype(float)

    for i in range(height):
        for j in range(width):
            x, y = xx * j + xy * i + x0, yx * j + yy * i + y0
            left, top = math.floor(x), math.floor(y)
            a, b = x - left, y - top
            upper = pixel(top, left) * (1 - a) + pixel(top, left + 1) * a
            lower = pixel(top + 1, left) * (1 - a) + pixel(top + 1, left + 1) * a
            result[i, j] = upper * (1 - b) + lower * b
    return result


@settings(max_examples=40, deadline=None)
@given(
    angle=st.floats(-math.pi, math.pi),
    zoom=st.floats(0.3, 2.5),
    flips=st.tuples(st.sampled_from([-1.0, 1.0]), st.sampled_from([-1.0, 1.0])),
    fill_mode=st.sampled_from(FILL_MODES),
)
def test_warp_equals_the_numpy_reference(angle, zoom, flips, fill_mode):
    image = images(1, 9, 12)
    one = lambda value: ops.convert_to_tensor([value], dtype="float32")  # noqa: E731
    transforms = affine_transforms(
        flip_x=one(flips[0]),
        flip_y=one(flips[1]),
        angle=one(angle),
        zoom=one(zoom),
        size=(9, 12),
    )
    got = ops.convert_to_numpy(warp(image, transforms, fill_mode, 7.0))[0]
    plain = [float(ops.convert_to_numpy(t)[0]) for t in transforms]
    expected = numpy_warp(image[0], plain, fill_mode, 7.0)
    # A coordinate that rounds to the other side of a pixel's edge gives the same
    # colour but for the rounding of the weight: float32 against float64.
    np.testing.assert_allclose(got, expected, atol=0.02)


def test_transform_of_a_quarter_turn_turns_the_image():
    image = images(1, 8, 8)
    layer = ImageAugmentation(
        flip=None, rotation=(0.25, 0.25), zoom=0, contrast=0, seed=1
    )
    got = ops.convert_to_numpy(layer(image, training=True))[0]
    np.testing.assert_allclose(got, np.rot90(image[0]), atol=0.01)


def identity(size):
    one = ops.ones((1,))
    return affine_transforms(flip_x=one, flip_y=one, angle=0 * one, zoom=one, size=size)


@settings(max_examples=40, deadline=None)
@given(
    scale=st.floats(0.05, 1),
    aspect=st.floats(0.3, 3),
    position=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_a_crop_lies_in_the_image_and_has_its_area(scale, aspect, position):
    height, width = 9, 12
    one = lambda value: ops.convert_to_tensor([value], dtype="float32")  # noqa: E731
    transforms = crop_transforms(
        identity((height, width)),
        scale=one(scale),
        aspect=one(aspect),
        position=tuple(map(one, position)),
        size=(height, width),
    )
    xx, xy, x0, yx, yy, y0 = (float(ops.convert_to_numpy(t)[0]) for t in transforms)
    assert (xy, yx) == (0, 0)
    # From the outer edge of the first pixel to that of the last one.
    left, right = xx * -0.5 + x0 + 0.5, xx * (width - 0.5) + x0 + 0.5
    top, bottom = yy * -0.5 + y0 + 0.5, yy * (height - 0.5) + y0 + 0.5
    tolerance = 1e-4
    assert -tolerance <= left < right <= width + tolerance
    assert -tolerance <= top < bottom <= height + tolerance
    if scale * aspect <= 1 and scale / aspect <= 1:
        area = (right - left) * (bottom - top) / (height * width)
        assert area == pytest.approx(scale, rel=1e-3)
        assert xx / yy == pytest.approx(aspect, rel=1e-3)
    for found, size, low in ((position[0], width, left), (position[1], height, top)):
        free = size - (right - left if size == width else bottom - top)
        assert low == pytest.approx(found * free, abs=1e-3)


def test_a_crop_is_enlarged_to_the_image():
    image = images(1, 8, 8)
    layer = ImageAugmentation(None, 0, 0, 0, crop_scale=(0.25, 0.25), seed=1)
    got = ops.convert_to_numpy(layer(image, training=True))[0]
    assert got.shape == (8, 8, 3)
    # A quarter of the area has at most 4x4 pixels and those next to them.
    corners = [image[0, i : i + 6, j : j + 6] for i in range(3) for j in range(3)]
    assert any(
        c.min((0, 1)).min() <= got.min() and got.max() <= c.max() for c in corners
    )
    assert not np.array_equal(got, image[0])


def test_new_options_leave_the_sequence_of_the_others_alone():
    batch = images(6)
    draws = keras.random.uniform((6, 5), seed=keras.random.SeedGenerator(7))
    transforms = affine_transforms(
        flip_x=ops.where(draws[:, 0] < 0.5, -1.0, 1.0),
        flip_y=ops.ones((6,)),
        angle=2 * math.pi * (-0.1 + 0.2 * draws[:, 2]),
        zoom=0.9 + 0.2 * draws[:, 3],
        size=(12, 16),
    )
    mean = batch.mean(axis=(1, 2), keepdims=True)
    contrast = ops.convert_to_numpy(0.9 + 0.2 * draws[:, 4])[:, None, None, None]
    warped = ops.convert_to_numpy(warp(batch, transforms, "reflect", 0.0))
    expected = np.clip((warped - mean) * contrast + mean, 0, 255)
    got = ImageAugmentation(seed=7)(batch, training=True)
    np.testing.assert_allclose(ops.convert_to_numpy(got), expected, atol=0.01)


def test_brightness_and_saturation_change_the_colours():
    batch = images(3) // 2 + 64  # far from clipping
    off = {"flip": None, "rotation": 0, "zoom": 0, "contrast": 0}
    bright = ImageAugmentation(**off, brightness=(0.1, 0.1))(batch, training=True)
    np.testing.assert_allclose(ops.convert_to_numpy(bright), batch + 25.5, atol=0.01)
    gray = ImageAugmentation(**off, saturation=(-1, -1))(batch, training=True)
    expected = (batch @ np.array([0.299, 0.587, 0.114]))[..., None] + np.zeros(3)
    np.testing.assert_allclose(ops.convert_to_numpy(gray), expected, atol=0.01)
    vivid = ImageAugmentation(**off, saturation=(0.1, 0.1))(batch, training=True)
    np.testing.assert_allclose(
        ops.convert_to_numpy(vivid), expected + 1.1 * (batch - expected), atol=0.01
    )


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function")
def test_the_warp_alone_is_compiled_with_the_same_result():
    import tensorflow as tf

    results = []
    for jit_compile in (False, True):
        layer = ImageAugmentation(**AUGMENTATION_STRENGTHS["strong"], seed=3)
        layer.jit_compile = jit_compile
        augment = tf.function(lambda batch, layer=layer: layer(batch, training=True))
        results.append(augment(tf.constant(images(4))).numpy())
        graph = augment.get_concrete_function(tf.TensorSpec((4, 12, 16, 3), "uint8"))
        definition = graph.graph.as_graph_def()
        compiled = [f.attr["_XlaMustCompile"].b for f in definition.library.function]
        assert any(compiled) is jit_compile
    np.testing.assert_allclose(*results, atol=0.05)


def test_flip_is_exact_and_about_half_of_the_images():
    batch = images(200, 4, 5)
    layer = ImageAugmentation(rotation=0, zoom=0, contrast=0, seed=3)
    got = ops.convert_to_numpy(layer(batch, training=True))
    flipped = (got == batch[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (got == batch).all(axis=(1, 2, 3))
    assert (flipped | kept).all()
    assert 70 < flipped.sum() < 130


def test_vertical_flip_turns_top_and_bottom():
    batch = images(50, 4, 5)
    layer = ImageAugmentation("vertical", 0, 0, 0, seed=3)
    got = ops.convert_to_numpy(layer(batch, training=True))
    flipped = (got == batch[:, ::-1]).all(axis=(1, 2, 3))
    assert (flipped | (got == batch).all(axis=(1, 2, 3))).all()
    assert 0 < flipped.sum() < 50


def test_zoom_out_shows_more_of_the_image():
    image = np.zeros((1, 20, 20, 3), np.uint8)
    image[:, 5:15, 5:15] = 200
    bright = {}
    for zoom in (-0.3, 0.3):
        layer = ImageAugmentation(None, 0, (zoom, zoom), 0, "constant")
        got = ops.convert_to_numpy(layer(image, training=True))
        bright[zoom] = (got > 100).sum()
    assert bright[0.3] < 300 < bright[-0.3]


def test_contrast_is_lowered_as_well_as_raised():
    batch = images(60, 8, 8) // 4 + 96  # far from clipping
    layer = ImageAugmentation(None, 0, 0, 0.4, seed=5)
    got = ops.convert_to_numpy(layer(batch, training=True))
    ratios = got.std(axis=(1, 2)).mean(-1) / batch.std(axis=(1, 2)).mean(-1)
    assert 0.6 <= ratios.min() < 0.75
    assert 1.25 < ratios.max() <= 1.4
    np.testing.assert_allclose(got.mean(axis=(1, 2)), batch.mean(axis=(1, 2)), 0.01)


@pytest.mark.parametrize("value_range", [(0, 255), (0, 1)])
def test_values_stay_in_the_value_range(value_range):
    batch = images(8).astype("float32") / 255 * value_range[1]
    layer = ImageAugmentation(contrast=0.9, value_range=value_range, seed=1)
    got = ops.convert_to_numpy(layer(batch, training=True))
    assert got.min() >= value_range[0]
    assert got.max() <= value_range[1]
    assert got.shape == batch.shape
    assert not np.array_equal(got, batch)


def test_nothing_changes_outside_training():
    batch = images()
    layer = ImageAugmentation(seed=1)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(batch)), batch)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(layer(batch, training=False)), batch
    )


def test_same_seed_same_sequence_and_each_call_moves_on():
    batch = images()
    first, second = ImageAugmentation(seed=9), ImageAugmentation(seed=9)
    calls = [
        ops.convert_to_numpy(layer(batch, training=True))
        for layer in (first, second, first, second)
    ]
    np.testing.assert_array_equal(calls[0], calls[1])
    np.testing.assert_array_equal(calls[2], calls[3])
    assert not np.array_equal(calls[0], calls[2])


def test_images_of_a_batch_differ():
    batch = np.repeat(images(1), 8, axis=0)
    got = ops.convert_to_numpy(ImageAugmentation(seed=2)(batch, training=True))
    assert len({image.tobytes() for image in got}) == 8


def test_the_place_in_the_sequence_is_saved(tmp_path):
    batch = images()
    model = keras.Sequential([keras.Input((12, 16, 3)), ImageAugmentation(seed=4)])
    model(batch, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(model(batch, training=True)),
        ops.convert_to_numpy(loaded(batch, training=True)),
    )


def test_component_checks(tmp_path):
    layer = ImageAugmentation(
        *("vertical", (0, 0.2), (-0.1, 0.3), 0.2, "constant", 1.0, (0, 10), 3),
        *((0.5, 0.9), (0.8, 1.2), 0.1, (0, 0.3)),
    )
    component_checks.config_covers_signature(layer)
    component_checks.config_round_trips(layer)
    component_checks.from_config_leaves_its_argument(layer)
    component_checks.has_registered_name(layer, "keras_flowers>ImageAugmentation")
    component_checks.saves_and_loads(layer, images(), tmp_path)
    component_checks.symbolic_matches_eager(ImageAugmentation, images())
    component_checks.takes_one_image_or_a_batch(layer, images())
    component_checks.fits_where_a_keras_layer_does(
        ImageAugmentation, keras.layers.Rescaling(1 / 255), images()
    )


def test_one_image_is_augmented_like_a_batch_of_one():
    image = images(1)
    one = ImageAugmentation(seed=6)(image[0], training=True)
    batch = ImageAugmentation(seed=6)(image, training=True)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(one), ops.convert_to_numpy(batch)[0]
    )


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"flip": "sideways"}, "flip"),
        ({"fill_mode": "mirror"}, "fill_mode"),
        ({"rotation": -0.1}, "rotation"),
        ({"rotation": "much"}, "rotation"),
        ({"zoom": (-1, 0)}, "zoom"),
        ({"zoom": (0.5, 0.1)}, "zoom"),
        ({"contrast": (-2, 0)}, "contrast"),
        ({"contrast": math.nan}, "contrast"),
        ({"value_range": (1, 0)}, "value_range"),
        ({"crop_scale": (0, 1)}, "crop_scale"),
        ({"crop_scale": (0.5, 1.5)}, "crop_scale"),
        ({"crop_scale": 0.5}, "crop_scale"),
        ({"crop_aspect": (2, 1)}, "crop_aspect"),
        ({"crop_aspect": (1, math.inf)}, "crop_aspect"),
        ({"brightness": (-2, 0)}, "brightness"),
        ({"saturation": "much"}, "saturation"),
        ({"value_range": 255}, "value_range"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(InputError, match=f"`{named}`.*Received: {named}="):
        ImageAugmentation(**arguments)
