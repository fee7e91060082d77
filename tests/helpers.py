"""Tiny photo folders that a network can learn from."""

import resource
from contextlib import contextmanager

import numpy as np
from PIL import Image

RESULTS = [
    "audit.json",
    "config.json",
    "history.csv",
    "history.json",
    "history.png",
    "last-checkpoint",
    "model.keras",
    "report.html",
    "split.json",
    "tensorboard",
]

COLOURS = {"daisy": (220, 220, 220), "roses": (200, 40, 60), "tulips": (60, 60, 220)}


def draw_images(folder, counts, size=(12, 16), seed=0):
    """Draws `counts[name]` noisy PNG photos of one colour per class; returns folder."""
    generator = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            noise = generator.integers(-40, 40, (*size, 3))
            pixels = np.clip(np.array(COLOURS[name]) + noise, 0, 255)
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / name / f"{index:03}.png")
    return folder


def small_loader(tmp_path, counts=None, **arguments):
    """Returns a loader of 24 drawn photos at 8x8, with its cache in `tmp_path`."""
    from keras_flowers import ImageDatasetLoader

    counts = counts or {"daisy": 10, "roses": 8, "tulips": 6}
    defaults = {
        "image_size": (8, 8),
        "batch_size": 4,
        "cache_directory": tmp_path / "cache",
    }
    folder = tmp_path / "photos"
    if not folder.exists():
        draw_images(folder, counts)
    return ImageDatasetLoader(folder, **defaults | arguments)


def small_model(datasets, seed=42, **arguments):
    """Returns a compiled classifier that trains in a moment."""
    import keras

    from keras_flowers import ImageClassifier

    model = ImageClassifier(
        datasets.class_names,
        image_size=datasets.image_size,
        hidden_units=(8,),
        seed=seed,
        **arguments,
    )
    model.compile(keras.optimizers.Adam(0.01))
    return model


def tiny_network(size=(8, 8), pooled=False, seed=3):
    """Returns a network of photos, 0..255, to 6 features, with all kinds of layers.

    It has statistics of a batch normalization that are not those of its photos, and
    seeds that differ in each network, of a dropout and of an augmentation.
    """
    import keras
    from keras import layers

    def convolution(name, units, number):
        initializer = keras.initializers.GlorotUniform(seed + number)
        return layers.Conv2D(units, 3, kernel_initializer=initializer, name=name)

    inputs = keras.Input((*size, 3), name="images")
    x = layers.RandomFlip("horizontal")(inputs)
    x = layers.Normalization(name="scale")(x)
    x = convolution("stem", 4, 0)(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU()(x)
    x = layers.Dropout(0.3)(x)
    x = convolution("last", 6, 1)(x)
    if pooled:
        x = layers.GlobalAveragePooling2D()(x)
    network = keras.Model(inputs, x, name="tiny")
    generator = np.random.default_rng(seed)
    gamma, beta, mean, variance = network.get_layer("norm").get_weights()
    mean, variance = generator.normal(0, 0.3, 4), generator.uniform(0.5, 1.5, 4)
    network.get_layer("norm").set_weights([gamma, beta, mean, variance])
    spread = [np.array([120, 110, 100]), np.array([60, 50, 40]) ** 2, np.array(1)]
    network.get_layer("scale").set_weights(spread)
    network.get_layer("scale").finalize_state()
    return network


def assert_same_weights(first, second):
    """Fails where the weights of two models differ in a bit."""
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@contextmanager
def no_file_larger_than(size):
    """The kernel refuses to write more, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
