"""Builds the pipelines of images and labels.

They are `tf.data` pipelines, but for the JAX backend, which would need TensorFlow for
nothing else: there they are `ArrayBatches`.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_flowers.data.array_batches import ArrayBatches
from keras_flowers.data.batch_buffers import BatchBuffers
from keras_flowers.data.image_cache import ImageReader
from keras_flowers.data.image_files import ImageRecord

if TYPE_CHECKING:
    import tensorflow as tf


class EpochOrder:
    """The order of the training images, which depends only on the seed and the epoch.

    Every pass over the training pipeline takes the next epoch. To resume a run, assign
    the epoch of the next pass to `epoch`.

    Attributes:
        epoch: The epoch of the next pass, an integer from 0.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self.epoch = 0

    def positions(self, epoch: int) -> np.ndarray:
        """Returns the order of an epoch: int64 `(count,)`, a permutation."""
        generator = np.random.default_rng([self._seed, epoch])
        return generator.permutation(self._count)

    def take_epoch(self) -> np.ndarray:
        """Returns the order of the current epoch and advances to the next."""
        positions = self.positions(self.epoch)
        self.epoch += 1
        return positions

    def take_epoch_of_views(self, views: int) -> np.ndarray:
        """Returns the order of the current epoch with a view of each image; advances.

        The views of an image take turns; which one it begins with depends on the seed.

        Args:
            views: Number of views of each image.

        Returns:
            int64 `(count,)`: the position of an image plus `count` times its view.
        """
        generator = np.random.default_rng([self._seed, self._count, views])
        first = generator.integers(0, views, self._count)
        view = (first + self.epoch) % views
        positions = self.take_epoch()
        shifted: np.ndarray = positions + self._count * view[positions]
        return shifted


def image_pipeline(
    reader: ImageReader,
    labels: np.ndarray,
    positions: Callable[[], np.ndarray],
    batch_size: int,
    read_errors: list[Exception],
) -> "tf.data.Dataset | ArrayBatches":
    """Returns batches of images and labels; `positions()` orders each pass."""
    buffers = BatchBuffers(reader.image_shape)

    def begin_pass() -> np.ndarray:
        read_errors.clear()
        return positions()

    def read(batch: np.ndarray) -> np.ndarray:
        images = buffers.array(len(batch))
        try:
            reader.read_into(images, batch)
        except Exception as error:
            read_errors.append(error)
            raise
        return images

    if needs_no_tensorflow():
        return ArrayBatches(
            lambda batch: (read(batch), labels[batch]),
            begin_pass,
            len(labels),
            batch_size,
            reader.parallel_reads,
        )
    import tensorflow as tf

    def fetch(batch: Any) -> tuple[Any, Any]:
        images = tf.numpy_function(read, [batch], tf.uint8, stateful=False)
        images = tf.ensure_shape(images, (None, *reader.image_shape))
        return images, tf.gather(tf.constant(labels), batch)

    return ordered_batches(
        fetch, begin_pass, len(labels), batch_size, reader.parallel_reads
    )


def take_spread(batches: Any, count: int) -> np.ndarray:
    """Returns whole batches of images from all over a pipeline, at least `count`.

    Images are in class order, so adjacent ones show the same class. All images are
    returned if there are fewer.

    Args:
        batches: A pipeline of images and labels that is not shuffled.
        count: Number of images.
    """
    (first, _), total = next(iter(batches.as_numpy_iterator())), len(batches)
    needed = math.ceil(count / len(first))
    # Without the last batch, which may be smaller, where there are enough others.
    chosen = choose_spread(total - 1 if needed < total else total, needed)
    if isinstance(batches, ArrayBatches):
        found = [
            images for images, _ in batches.take_batches(chosen).as_numpy_iterator()
        ]
    else:
        numbered = enumerate(batches.take(chosen[-1] + 1).as_numpy_iterator())
        found = [images for number, (images, _) in numbered if number in chosen]
    return np.concatenate(found)


def choose_spread(total: int, count: int) -> list[int]:
    """Returns up to `count` positions from all over `range(total)`, in order."""
    positions = np.linspace(0, total - 1, min(count, total)).round()
    return [int(position) for position in positions]


def needs_no_tensorflow() -> bool:
    """Returns whether pipelines are `ArrayBatches`."""
    return bool(keras.backend.backend() == "jax")


def ordered_batches(
    fetch: Callable[[Any], Any],
    positions: Callable[[], np.ndarray],
    count: int,
    batch_size: int,
    parallel_calls: int | None = None,
) -> "tf.data.Dataset":
    """Returns a pipeline of batches that asks for its order at the start of each pass.

    Args:
        fetch: Maps a batch of positions, an int64 tensor `(batch,)`, to an element of
            the pipeline.
        positions: Called at the start of a pass; returns its order, int64 `(count,)`.
        count: Number of positions.
        batch_size: Positions in a batch; the last batch may be smaller.
        parallel_calls: How many calls of `fetch` to run at once; None for one.
    """
    import tensorflow as tf

    def order(_: Any) -> Any:
        # In the pipeline, so that it is called in every pass.
        pass_positions = tf.numpy_function(positions, [], tf.int64)
        pass_positions = tf.ensure_shape(pass_positions, (count,))
        return tf.data.Dataset.from_tensor_slices(pass_positions)

    dataset = tf.data.Dataset.range(1).flat_map(order).batch(batch_size)
    dataset = dataset.map(fetch, num_parallel_calls=parallel_calls)
    steps = math.ceil(count / batch_size)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    options = tf.data.Options()
    # There is nothing to tune, and at the end of an epoch the iterator would wait for
    # the autotuner's thread: up to four seconds with TensorFlow 2.21.
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)


def number_labels(
    records: Sequence[ImageRecord],
    class_names: Sequence[str],
    multi_label: bool = False,
) -> np.ndarray:
    """Returns the labels of images.

    Args:
        records: The images.
        class_names: Position `i` is the name of label `i`.
        multi_label: Whether an image may have several labels, or none.

    Returns:
        int32 `(count,)`; with `multi_label` float32 `(count, classes)`, 1 for each
        label that an image has and 0 for the others.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    if multi_label:
        rows = np.zeros((len(records), len(class_names)), dtype=np.float32)
        for row, record in zip(rows, records, strict=True):
            row[[label_of[name] for name in record.class_names]] = 1
        return rows
    labels = [label_of[record.class_name] for record in records]
    return np.asarray(labels, dtype=np.int32)
