import component_checks
import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from PIL import Image

from keras_flowers import InputError, ResizeAndRescale
from keras_flowers.data.image_files import resize_image

# JAX compiles each operation again for each new shape: seconds for each pair of sizes.
FEWER = 10 if keras.backend.backend() == "jax" else 1


def images(count=2, height=12, width=16):
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@settings(max_examples=25 // FEWER, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_resize_equals_that_of_pillow(size, target):
    image = images(1, *size)[0]
    layer = ResizeAndRescale(target, scale=1.0)
    got = ops.convert_to_numpy(layer(image))
    pillow = Image.fromarray(image).resize(target[::-1], Image.Resampling.BILINEAR)
    # Pillow rounds to whole values after each axis.
    np.testing.assert_allclose(got, np.asarray(pillow), atol=1.51)


@settings(max_examples=60 // FEWER, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    target=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    resize=st.sampled_from(["crop", "pad"]),
)
def test_crop_and_pad_equal_those_of_the_loader(size, target, resize):
    image = images(1, *size)[0]
    layer = ResizeAndRescale(target, scale=1.0, resize=resize)
    got = ops.convert_to_numpy(layer(image))
    expected = resize_image(Image.fromarray(image), target, resize)
    np.testing.assert_allclose(got, expected, atol=1.51)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_images_of_any_size_are_resized_in_a_graph(resize):
    layer = ResizeAndRescale((6, 9), resize=resize)
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    for size in ((12, 16), (30, 7), (6, 9)):
        batch = images(2, *size)
        np.testing.assert_allclose(
            model.predict(batch, verbose=0),
            ops.convert_to_numpy(layer(batch)),
            atol=1e-5,
        )


def test_an_unknown_way_to_resize_is_named():
    with pytest.raises(InputError, match="`resize`.*Received: resize='zoom'"):
        ResizeAndRescale(resize="zoom")


def test_images_of_the_right_size_are_only_scaled():
    batch = images(2, 8, 8)
    got = ops.convert_to_numpy(ResizeAndRescale((8, 8))(batch))
    np.testing.assert_allclose(got, batch / 255, rtol=1e-6)


def test_scale_and_offset():
    batch = images(1, 4, 4)
    got = ResizeAndRescale((4, 4), scale=1 / 127.5, offset=-1.0)(batch)
    np.testing.assert_allclose(
        ops.convert_to_numpy(got), batch / 127.5 - 1, rtol=1e-5, atol=1e-6
    )


def test_component_checks(tmp_path):
    layer = ResizeAndRescale((5, 7), 0.5, 1.0, "pad")
    component_checks.config_covers_signature(layer)
    component_checks.config_round_trips(layer)
    component_checks.from_config_leaves_its_argument(layer)
    component_checks.has_registered_name(layer, "keras_flowers>ResizeAndRescale")
    component_checks.saves_and_loads(layer, images(), tmp_path)
    component_checks.symbolic_matches_eager(ResizeAndRescale, images())
    component_checks.takes_one_image_or_a_batch(layer, images())
    component_checks.fits_where_a_keras_layer_does(
        ResizeAndRescale,
        keras.layers.Resizing(256, 256),
        images().astype("float32"),
    )


@pytest.mark.parametrize(
    "size", [(0, 5), (5,), 0, True, "ab", "12", (2, -1), (2.5, 2), None]
)
def test_wrong_sizes_are_named(size):
    with pytest.raises(InputError, match="`image_size`.*Received"):
        ResizeAndRescale(size)


def test_one_integer_is_a_square():
    assert ResizeAndRescale(np.int64(5)).image_size == (5, 5)
