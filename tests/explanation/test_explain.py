"""A planted patch decides the class: it must carry the heat. Also run on JAX."""

import keras
import numpy as np
import pytest
from helpers import small_loader, tiny_network
from PIL import Image

import keras_flowers
from keras_flowers import Backbone, ImageClassifier, InputError, explanation

SIDE, PATCH = 24, 6
COLOURS = ((230, 20, 20), (20, 20, 230))


def planted(count, seed):
    """Returns noise, a third of it without a patch: images, labels, corners.

    In the others a patch, red or blue, is anywhere.
    """
    generator = np.random.default_rng(seed)
    images = generator.integers(110, 146, (count, SIDE, SIDE, 3), dtype=np.uint8)
    labels = generator.integers(0, 3, count)
    corners = generator.integers(0, SIDE - PATCH + 1, (count, 2))
    for image, label, (top, left) in zip(images, labels, corners, strict=True):
        if label < 2:
            image[top : top + PATCH, left : left + PATCH] = COLOURS[label]
    return images, labels, corners


def convolutional():
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    for index, filters in enumerate((8, 8)):
        x = keras.layers.Conv2D(
            filters,
            3,
            padding="same",
            activation="relu",
            kernel_initializer=keras.initializers.GlorotUniform(index),
        )(x)
    x = keras.layers.MaxPooling2D()(x)
    network = keras.Model(inputs, x)
    return Backbone(network, None)


@pytest.fixture(scope="module", params=["grad_cam", "occlusion"])
def explained(request):
    """A trained model whose default method is the parameter, and test images."""
    is_dense = request.param == "occlusion"
    model = ImageClassifier(
        ["red", "blue", "plain"],
        image_size=(SIDE, SIDE),
        hidden_units=(),
        augmentation=False,
        seed=3,
        backbone=None if is_dense else convolutional(),
    )
    model.compile(keras.optimizers.Adam(0.002 if is_dense else 0.01))
    images, labels, _ = planted(768, 0)
    model.fit(images, labels, epochs=30 if is_dense else 12, verbose=0, shuffle=False)
    images, labels, corners = planted(36, 1)
    accuracy = (model.predict(images, verbose=0).argmax(1) == labels).mean()
    assert accuracy > 0.95, "there is nothing to explain"
    has_patch = labels < 2
    return (
        model,
        request.param,
        images[has_patch],
        labels[has_patch],
        corners[has_patch],
    )


def is_patch(corner, margin):
    mask = np.zeros((SIDE, SIDE), bool)
    top, left = np.maximum(corner - margin, 0)
    mask[top : corner[0] + PATCH + margin, left : corner[1] + PATCH + margin] = True
    return mask


def test_the_patch_that_decides_carries_the_heat(explained):
    model, method, images, _, corners = explained
    shares, hits = [], []
    for one, corner in zip(keras_flowers.explain(model, images), corners, strict=True):
        assert one.method == method
        assert one.heatmap.shape == (SIDE, SIDE)
        assert one.heatmap.dtype == np.float32
        assert one.heatmap.min() >= 0
        # Both methods are coarser than a pixel.
        patch = is_patch(corner, margin=2)
        shares.append(one.heatmap[patch].sum() / one.heatmap.sum())
        hits.append(patch[np.unravel_index(one.heatmap.argmax(), patch.shape)])
    # By chance a sixth of the heat would be there.
    assert np.mean(hits) > 0.9
    assert np.median(shares) > 0.5


def test_what_speaks_against_a_class_is_cold(explained):
    model, _, images, labels, corners = explained
    names = np.array(model.class_names)
    for label in (0, 1):
        of_class = labels == label
        others = keras_flowers.explain(model, images[of_class], str(names[1 - label]))
        heats = [
            one.heatmap[is_patch(corner, margin=0)].mean()
            for one, corner in zip(others, corners[of_class], strict=True)
        ]
        assert all(one.class_name == names[1 - label] for one in others)
        assert np.median(heats) < 0.2


def test_files_give_what_their_pixels_give(explained, tmp_path):
    model, method, images, _, _ = explained
    paths = []
    for index, image in enumerate(images[:3]):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(image).save(paths[-1])
    from_files = keras_flowers.explain(model, paths)
    from_pixels = keras_flowers.explain(model, images[:3])
    for one, other, path in zip(from_files, from_pixels, paths, strict=True):
        assert (one.path, other.path) == (str(path), None)
        assert one.class_name == other.class_name
        np.testing.assert_allclose(one.heatmap, other.heatmap, atol=1e-6)
        np.testing.assert_array_equal(one.image, other.image)
    (answer,) = model.classify(paths[:1])
    assert from_files[0].class_name == answer.label
    assert from_files[0].probability == pytest.approx(answer.probability, abs=1e-6)
    assert method == from_files[0].method


def test_both_methods_explain_a_convolutional_model():
    backbone = convolutional()
    model = ImageClassifier(["a", "b"], hidden_units=(), backbone=backbone)
    images = planted(2, 0)[0]
    for method in ("grad_cam", "occlusion"):
        assert keras_flowers.explain(model, images, method=method)[0].method == method


def test_the_picture_shows_the_class_and_the_heat(explained):
    model, _, images, _, _ = explained
    one = keras_flowers.explain(model, images[:1])[0]
    figure = one.plot()
    assert one.class_name in figure.get_suptitle()
    assert f"{one.probability:.3f}" in figure.get_suptitle()
    left, right = (np.asarray(axes.images[0].get_array()) for axes in figure.axes)
    np.testing.assert_array_equal(left, images[0])
    hottest = np.unravel_index(one.heatmap.argmax(), one.heatmap.shape)
    coldest = np.unravel_index(one.heatmap.argmin(), one.heatmap.shape)
    assert right[hottest].sum() > right[coldest].sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"images": "image.png"}, "`images` must be a list"),
        ({"images": np.zeros((1, 5, 5, 3), np.uint8)}, "`images` must be uint8"),
        ({"images": [], "class_name": "green"}, "`class_name` must be one of"),
        ({"images": [], "method": "magic"}, "`method` must be one of"),
        ({"images": [], "method": "grad_cam"}, "grad_cam needs a backbone"),
        ({"images": ["missing.png"]}, "missing.png"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    model = ImageClassifier(["a", "b"], image_size=(8, 8), hidden_units=())
    with pytest.raises(InputError, match=message):
        keras_flowers.explain(model, **arguments)


@pytest.mark.filterwarnings("ignore::keras_flowers.callbacks.CollapseWarning")
@pytest.mark.parametrize("kind", ["dense", "on features"])
def test_the_worst_mistakes_of_a_run_have_heat_maps(kind, tmp_path, with_heat_maps):
    loader = small_loader(tmp_path, validation_split=0.5)

    def build_model(datasets):
        backbone = None if kind == "dense" else Backbone(tiny_network(), "own")
        model = ImageClassifier(
            datasets.class_names, (8, 8), (), backbone=backbone, seed=2
        )
        # All classes but the last are never predicted: there are mistakes.
        *rest, bias = model.get_weights()
        model.set_weights([*rest, bias + np.array([0, 0, 50])])
        model.compile(keras.optimizers.SGD(0.0))
        return model

    keras_flowers.train(
        loader, build_model, run_directory=tmp_path / "run", epochs=1, verbose=0
    )
    report = (tmp_path / "run" / "report.html").read_text()
    shown = report.count('alt="Heat map of the image ')
    assert shown == 4
    assert "bright parts speak for the class tulips" in report
    (images,) = (
        content
        for path in (tmp_path / "run" / "tensorboard" / "validation").iterdir()
        if b"mistakes_heat_maps" in (content := path.read_bytes())
    )
    assert b"\x89PNG" in images[images.index(b"mistakes_heat_maps") :]


def test_other_models_have_no_heat_maps(with_heat_maps):
    heatmap_function = explanation.heatmap_function
    assert heatmap_function(tiny_network()) is None
    model = ImageClassifier(["a", "b"], image_size=(8, 8), hidden_units=())
    heats = heatmap_function(model)(np.zeros((2, 8, 8, 3), np.uint8), np.array([1, 0]))
    assert heats.shape == (2, 8, 8)
