"""Measures what limits training on this machine: loading, the step, or nothing else."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Each of the three parts takes a third of ten seconds.
_SECONDS = 3.3
_IMAGE_SIZE = (256, 256)
_IMAGES_PER_CLASS = 13


def measure_speeds() -> dict[str, Any]:
    """Returns how many images per second this machine loads, trains on and classifies.

    It measures the default model on the default image size and batch size, with the
    sample images.

    Returns:
        Images per second by name, and under `limit` a sentence that says what limits
        training.
    """
    from keras_flowers.data.dataset_loader import ImageDatasetLoader
    from keras_flowers.data.sample import write_sample
    from keras_flowers.models.image_classifier import ImageClassifier

    with tempfile.TemporaryDirectory() as folder:
        images = write_sample(
            Path(folder, "images"), images_per_class=_IMAGES_PER_CLASS
        )
        loader = ImageDatasetLoader(
            images, _IMAGE_SIZE, validation_split=0.0, cache_directory=folder
        )
        datasets = loader.load()
        train_batches: Any = datasets.train

        def read_all() -> int:
            return sum(len(labels) for _, labels in train_batches.as_numpy_iterator())

        loaded = _images_per_second(read_all)
        pixels, labels = next(train_batches.as_numpy_iterator())
    model = ImageClassifier(datasets.class_names, _IMAGE_SIZE, seed=0)
    model.compile()

    def train() -> int:
        model.train_on_batch(pixels, labels)
        return len(labels)

    def classify() -> int:
        model.predict_on_batch(pixels)
        return len(labels)

    trained = _images_per_second(train)
    return {
        "loading_images_per_second": round(loaded),
        "training_images_per_second": round(trained),
        "forward_images_per_second": round(_images_per_second(classify)),
        "limit": describe_limit(loaded, trained),
    }


def describe_limit(loaded: float, trained: float) -> str:
    """Returns a sentence that says what limits training.

    Args:
        loaded: Images per second that loading provides.
        trained: Images per second that the training step takes.
    """
    if loaded < trained:
        return (
            "loading: the device could train on more images than the cache provides; "
            "put the cache on a faster disk"
        )
    return (
        f"the training step: loading provides {loaded / trained:.0f} times as many "
        "images as the device trains on"
    )


def _images_per_second(run: Callable[[], int]) -> float:
    """Returns the images per second of a function that returns how many it used."""
    run()  # compiles, or opens files
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < _SECONDS or not count:
        count += run()
    return count / seconds
