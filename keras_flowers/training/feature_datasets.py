"""Data sets of cached features: a frozen backbone sees each image once."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_flowers.data.array_batches import ArrayBatches
from keras_flowers.data.dataset_loader import ImageDatasets, ordered_batches
from keras_flowers.data.feature_cache import FeatureCache
from keras_flowers.data.pipelines import needs_no_tensorflow
from keras_flowers.data.splits import SPLIT_NAMES
from keras_flowers.distribution import predict_batch
from keras_flowers.errors import InputError
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress

# Rows between two writes: a killed process loses at most so many.
_ROWS_AT_ONCE = 1024
# A graph of TensorFlow, constants included, must stay below 2 GB.
_MOST_CONSTANT_BYTES = 1 << 30


def with_features(
    datasets: ImageDatasets, model: ImageClassifier, progress: Progress | None = None
) -> ImageDatasets:
    """Returns the data with the features of a frozen backbone instead of the images.

    The pipelines give batches `(features, labels)`: float32
    `(batch, feature_size)` and int32 `(batch,)`, in the order of the images. Features
    that are not cached yet are computed, and cached next to the decoded images.

    Args:
        datasets: The images.
        model: A classifier that `has_fixed_features`.
        progress: Called with `"features"`, images done and images in all.

    Raises:
        InputError: If the features cannot be cached.
    """
    arrays = _load_features(datasets, model, progress)
    in_order = {
        split: _pipeline_builder(arrays.pop(split), datasets, split)
        for split in SPLIT_NAMES
    }
    return dataclasses.replace(
        datasets,
        train=in_order["train"](datasets.epoch_order.take_epoch),
        train_in_order=in_order["train"](None),
        validation=in_order["validation"](None),
        test=in_order["test"](None),
        read_errors=[],  # these pipelines read no images
    )


def _pipeline_builder(
    features: np.ndarray, datasets: ImageDatasets, split: str
) -> Callable[[Callable[[], np.ndarray] | None], Any]:
    """Returns a function that builds pipelines of a split, which share the features.

    Its argument is the order, as for `ordered_batches`, or `None` for that of the
    images.
    """
    count = len(features)
    batches, fetch = _row_gatherer(features, datasets.labels(split))

    def pipeline(order: Callable[[], np.ndarray] | None) -> Any:
        if not count:
            return None
        positions = order or (lambda: np.arange(count))
        return batches(fetch, positions, count, datasets.batch_size)

    return pipeline


def _row_gatherer(features: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    """Returns what makes a pipeline, and the function that fetches its batches."""
    if needs_no_tensorflow():
        return ArrayBatches, lambda batch: (features[batch], labels[batch])
    import tensorflow as tf

    with tf.device("CPU"):
        rows, classes = tf.constant(features), tf.constant(labels)
    return ordered_batches, lambda batch: (
        tf.gather(rows, batch),
        tf.gather(classes, batch),
    )


def _load_features(
    datasets: ImageDatasets, model: ImageClassifier, progress: Progress | None
) -> dict[str, np.ndarray]:
    """Returns the features of each split, float32 `(images, feature_size)`."""
    checksums = {
        split: [record.sha256 for record in datasets.records(split)]
        for split in SPLIT_NAMES
    }
    everything = [checksum for of_split in checksums.values() for checksum in of_split]
    backbone = model.backbone
    if backbone is None:
        raise InputError("`model` must have a backbone.")
    cache = FeatureCache(
        datasets.image_cache_directory, backbone.key(), backbone.feature_size
    )
    if cache.missing(everything):
        with cache.lock():
            # Another process may have done the work while this one waited.
            if missing := cache.missing(everything):
                _compute(datasets, checksums, cache, missing, model, progress)
    return {split: cache.read(of_split) for split, of_split in checksums.items()}


def _compute(
    datasets: ImageDatasets,
    checksums: dict[str, list[str]],
    cache: FeatureCache,
    missing: set[str],
    model: ImageClassifier,
    progress: Progress | None,
) -> None:
    """Computes and caches the missing features."""
    extract = _build_extractor(model)
    total, waiting = len(missing), dict[str, np.ndarray]()

    def report() -> None:
        if progress is not None:
            progress("features", total - len(missing), total)

    def write() -> None:
        if waiting:
            cache.add(list(waiting), np.stack(list(waiting.values())))
            waiting.clear()

    report()
    try:
        for split, of_split in checksums.items():
            if missing.isdisjoint(of_split):
                continue
            for start, images in _read_batches(datasets, split):
                batch = of_split[start : start + len(images)]
                if missing.isdisjoint(batch):
                    continue
                features = extract(_pad_batch(images, datasets.batch_size))
                waiting |= {
                    checksum: row
                    for checksum, row in zip(batch, features, strict=False)
                    if checksum in missing
                }
                missing.difference_update(batch)
                if len(waiting) >= _ROWS_AT_ONCE:
                    write()
                report()
    finally:
        write()  # after Ctrl-C as well


def _read_batches(datasets: ImageDatasets, split: str) -> Any:
    """Yields the position of the first image of each batch, and its images."""
    start = 0
    batches: Any = datasets.in_order(split)
    with datasets.naming_unreadable_images():
        for images, _ in batches.as_numpy_iterator():
            yield start, images
            start += len(images)


def _pad_batch(images: np.ndarray, count: int) -> np.ndarray:
    """Returns a batch of a fixed size; another size would be compiled again."""
    short = count - len(images)
    if not short:
        return images
    return np.concatenate([images, np.repeat(images[-1:], short, axis=0)])


def _build_extractor(model: ImageClassifier) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from a batch of images to float32 features."""
    network = model.feature_extractor()
    if (
        keras.backend.backend() != "tensorflow"
        or _count_bytes(network) > _MOST_CONSTANT_BYTES
    ):
        return lambda images: np.asarray(predict_batch(network, images), np.float32)
    import tensorflow as tf

    # TensorFlow folds constant weights: batch normalization becomes part of the
    # convolutions, and the pass takes a quarter less time.
    trained, others = (
        [np.asarray(keras.ops.convert_to_numpy(v)) for v in variables]
        for variables in (network.trainable_variables, network.non_trainable_variables)
    )

    def extract(images: Any) -> Any:
        constants = ([tf.constant(a) for a in arrays] for arrays in (trained, others))
        features, _ = network.stateless_call(*constants, images, training=False)
        return tf.cast(features, tf.float32)

    compiled = tf.function(extract)
    return lambda images: compiled(tf.constant(images)).numpy()


def _count_bytes(network: keras.Model) -> int:
    return sum(4 * int(np.prod(variable.shape)) for variable in network.variables)
