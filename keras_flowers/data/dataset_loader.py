"""Loads a folder of images as tf.data pipelines with an audited split."""

import contextlib
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np

from keras_flowers.argument_checks import check_image_size, check_integer
from keras_flowers.data.audit import Audit, audit_images
from keras_flowers.data.batch_buffers import BatchBuffers
from keras_flowers.data.image_cache import (
    DEFAULT_DISK_BUDGET,
    CacheSettings,
    ImageCache,
    ImageReader,
)
from keras_flowers.data.image_files import ImageRecord, load_thumbnail
from keras_flowers.data.image_listing import list_images
from keras_flowers.data.sources import (
    ExtractionLimits,
    default_cache_directory,
    resolve_source,
)
from keras_flowers.data.splits import (
    SPLIT_NAMES,
    Split,
    apply_manifest,
    check_fractions,
    read_manifest,
    split_audit,
)
from keras_flowers.errors import InputError
from keras_flowers.notebook import html_table
from keras_flowers.progress import Progress
from keras_flowers.registration import register

if TYPE_CHECKING:
    import tensorflow as tf


# In a notebook.
_MOST_THUMBNAILS = 8
_THUMBNAIL_SIDE = 96

# Arguments of a loader that say where and how much to cache, not what the data is.
STORAGE_ARGUMENTS = (
    "cache_directory",
    "disk_budget",
    "max_extracted_size",
    "max_extracted_files",
)


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


@dataclasses.dataclass(frozen=True)
class ImageDatasets:
    """The pipelines that a loader loads, and everything known about their images.

    The pipelines yield batches `(images, labels)`: uint8 `(batch, height, width, 3)`,
    0 to 255, and int32 `(batch,)`. Training images come in a new order in each epoch.
    Validation and test images are never shuffled: row `i` of a prediction belongs to
    path `i`.

    Attributes:
        train: `tf.data.Dataset` of the training images, reshuffled in each epoch.
        train_in_order: The training images in the order of their paths.
        validation: The validation images; None if there are none.
        test: The test images; None if there are none.
        class_names: Position `i` is the name of label `i`.
        image_size: `(height, width)` in pixels.
        batch_size: Images in a batch; the last batch may be smaller.
        split: The images of each split, in order.
        audit: The audit of the data folder.
        epoch_order: The order of the training images in each epoch.
        image_cache_directory: The folder that caches what is computed from the images
            at this size.
        reason_not_cached: Why images are decoded on the fly, in one line; None if they
            are read from the image cache.
        read_errors: What reading images raised in the latest pass over a pipeline.
    """

    train: "tf.data.Dataset"
    train_in_order: "tf.data.Dataset"
    validation: "tf.data.Dataset | None"
    test: "tf.data.Dataset | None"
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    batch_size: int
    split: Split
    audit: Audit
    epoch_order: EpochOrder
    image_cache_directory: Path
    reason_not_cached: str | None
    read_errors: list[Exception] = dataclasses.field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        """Returns the sizes, not the images."""
        height, width = self.image_size
        sizes = ", ".join(f"{len(self.records(n))} {n}" for n in SPLIT_NAMES)
        return (
            f"ImageDatasets({len(self.class_names)} classes: {sizes} images, "
            f"{height}x{width}, batch_size={self.batch_size})"
        )

    def _repr_html_(self) -> str:
        counts = [self.counts(name) for name in SPLIT_NAMES]
        rows = [[name, *(count[name] for count in counts)] for name in self.class_names]
        total = ["all classes", *(sum(count.values()) for count in counts)]
        heads = ["class", *SPLIT_NAMES]
        return html_table(repr(self), heads, [total, *rows], self._thumbnails())

    def _thumbnails(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the first training image of each of the first classes, small."""
        firsts: dict[str, Path] = {}
        for record in self.split.train:
            firsts.setdefault(record.class_name, self.audit.root / record.path)
        for name, path in itertools.islice(firsts.items(), _MOST_THUMBNAILS):
            with contextlib.suppress(InputError):
                yield name, load_thumbnail(path, _THUMBNAIL_SIDE)

    @property
    def catalog(self) -> Audit:
        """The audit, by its name in version 0.1."""
        return self.audit

    def read_error(self) -> Exception | None:
        """Returns what reading an image raised in the latest pass, or None."""
        return self.read_errors[0] if self.read_errors else None

    @contextlib.contextmanager
    def naming_unreadable_images(self) -> Iterator[None]:
        """Lets a pass over a pipeline fail with the error that names the image.

        TensorFlow replaces an error in a pipeline by one that does not name it.
        """
        try:
            yield
        except Exception as error:
            read_error = self.read_error()
            if read_error is None:
                raise
            raise read_error from error

    def in_order(self, split: str) -> "tf.data.Dataset | None":
        """Returns the pipeline of a split in the order of `paths(split)`."""
        self.records(split)
        return self.train_in_order if split == "train" else getattr(self, split)

    def paths(self, split: str) -> tuple[Path, ...]:
        """Returns the files of `"train"`, `"validation"` or `"test"`, in order."""
        return tuple(self.audit.root / record.path for record in self.records(split))

    def labels(self, split: str) -> np.ndarray:
        """Returns the labels of a split, int32 `(count,)`, in the order of paths."""
        return _labels(self.records(split), self.class_names)

    def counts(self, split: str) -> dict[str, int]:
        """Returns how many images of each class a split holds."""
        counts = np.bincount(self.labels(split), minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    def records(self, split: str) -> Sequence[ImageRecord]:
        """Returns the record of each image of a split, in order."""
        if split not in SPLIT_NAMES:
            raise InputError(
                f"`split` must be one of {SPLIT_NAMES}. Received: split={split!r}"
            )
        records: Sequence[ImageRecord] = getattr(self.split, split)
        return records


@register("ImageDatasetLoader")
class ImageDatasetLoader:
    """Loads a folder of images, one folder per class, for training.

    The first `load` decodes every image once into an image cache. Later loads, and all
    epochs, read from there. Files that cannot be used are left out and reported in the
    audit.

    A loader only holds its configuration: `keras.saving.serialize_keras_object` writes
    it as JSON, and `keras.saving.deserialize_keras_object` rebuilds it.

    Args:
        data: A folder with one folder per class; a .tar, .tgz or .zip archive of one;
            an http(s) URL of such an archive; `"flower_photos"` or `"sample"`.
        image_size: `(height, width)` in pixels to which images are resized.
        batch_size: Images in a batch, a positive integer.
        validation_split: Fraction of each class to validate with, 0 to less than 1.
        test_split: Fraction of each class to test with, 0 to less than 1.
        seed: Integer from 0. Decides the split and the order of every epoch.
        keep_near_duplicates_together: Whether images that show nearly the same picture
            stay on one side of the split. Images with equal bytes always do. Turn it
            off for video frames, which all look alike.
        split_manifest: Path of a manifest, such as the `split.json` of a run, which
            decides the split instead of the fractions and the seed.
        cache_directory: Folder for downloads, archives and image caches. None uses
            `$KERAS_FLOWERS_CACHE` or the user's cache folder.
        disk_budget: Maximum size of the image cache in bytes. Images that would take
            more are decoded on the fly.
        max_extracted_size: Maximum size in bytes of an extracted archive.
        max_extracted_files: Maximum number of files in an archive.

    Raises:
        InputError: If an argument is not as described above.

    Example:
    ```python
    datasets = keras_flowers.ImageDatasetLoader("images").load()
    model.fit(datasets.train, validation_data=datasets.validation, epochs=15)
    ```
    """

    def __init__(
        self,
        data: str | os.PathLike[str],
        image_size: tuple[int, int] = (256, 256),
        batch_size: int = 32,
        validation_split: float = 0.2,
        test_split: float = 0.0,
        seed: int = 42,
        keep_near_duplicates_together: bool = True,
        split_manifest: str | os.PathLike[str] | None = None,
        cache_directory: str | os.PathLike[str] | None = None,
        disk_budget: int = DEFAULT_DISK_BUDGET,
        max_extracted_size: int = ExtractionLimits.total_bytes,
        max_extracted_files: int = ExtractionLimits.files,
    ) -> None:
        self.data = _source_text(data)
        self.image_size = check_image_size(image_size)
        self.batch_size = check_integer("batch_size", batch_size, lowest=1)
        fractions = check_fractions(validation_split, test_split)
        self.validation_split = fractions["validation"]
        self.test_split = fractions["test"]
        self.seed = check_integer("seed", seed, lowest=0)
        self.keep_near_duplicates_together = bool(keep_near_duplicates_together)
        self.split_manifest = _path_text(split_manifest)
        self.cache_directory = _path_text(cache_directory)
        self.disk_budget = check_integer("disk_budget", disk_budget, lowest=0)
        self.max_extracted_size = check_integer(
            "max_extracted_size", max_extracted_size, lowest=1
        )
        self.max_extracted_files = check_integer(
            "max_extracted_files", max_extracted_files, lowest=1
        )

    def load(self, progress: Progress | None = None) -> ImageDatasets:
        """Finds, decodes, audits and splits the images.

        Args:
            progress: Called as `progress(step, done, total)` during the steps
                `"download"` (bytes), `"extract"` (files), `"sample"` and `"decode"`
                (images). `total` is None if it is unknown.

        Returns:
            `ImageDatasets`.

        Raises:
            InputError: If the data cannot be used, with the reason.
        """
        listing = list_images(self.find(progress))
        settings = CacheSettings(self._cache(), self.disk_budget)
        cache = ImageCache.open(listing, self.image_size, settings, progress)
        audit = audit_images(listing, cache.records)
        return self._build_datasets(cache, audit, self._split(audit))

    def find(self, progress: Progress | None = None) -> Path:
        """Returns the folder that contains the class folders.

        Downloads and extracts the data if necessary. `progress` and errors are those
        of `load`.
        """
        limits = ExtractionLimits(self.max_extracted_size, self.max_extracted_files)
        return resolve_source(
            self.data, cache_directory=self._cache(), limits=limits, progress=progress
        )

    def _cache(self) -> Path:
        if self.cache_directory is None:
            return default_cache_directory()
        return Path(self.cache_directory).expanduser()

    def _split(self, audit: Audit) -> Split:
        if self.split_manifest is not None:
            return apply_manifest(
                audit, read_manifest(Path(self.split_manifest).expanduser())
            )
        return split_audit(
            audit,
            validation_split=self.validation_split,
            test_split=self.test_split,
            seed=self.seed,
            keep_near_duplicates_together=self.keep_near_duplicates_together,
        )

    def _build_datasets(
        self, cache: ImageCache, audit: Audit, split: Split
    ) -> ImageDatasets:
        order = EpochOrder(len(split.train), self.seed)
        read_errors: list[Exception] = []

        def pipeline(
            records: Sequence[ImageRecord], positions: Callable[[], np.ndarray]
        ) -> Any:
            labels = _labels(records, split.class_names)
            reader = cache.reader(records)
            return _pipeline(reader, labels, positions, self.batch_size, read_errors)

        def in_order(records: Sequence[ImageRecord]) -> Any:
            count = len(records)
            return pipeline(records, lambda: np.arange(count)) if count else None

        return ImageDatasets(
            train=pipeline(split.train, order.take_epoch),
            train_in_order=in_order(split.train),
            validation=in_order(split.validation),
            test=in_order(split.test),
            class_names=split.class_names,
            image_size=self.image_size,
            batch_size=self.batch_size,
            split=split,
            audit=audit,
            epoch_order=order,
            image_cache_directory=cache.directory,
            reason_not_cached=cache.reason_not_cached,
            read_errors=read_errors,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            "data": self.data,
            "image_size": list(self.image_size),
            "batch_size": self.batch_size,
            "validation_split": self.validation_split,
            "test_split": self.test_split,
            "seed": self.seed,
            "keep_near_duplicates_together": self.keep_near_duplicates_together,
            "split_manifest": self.split_manifest,
            "cache_directory": self.cache_directory,
            "disk_budget": self.disk_budget,
            "max_extracted_size": self.max_extracted_size,
            "max_extracted_files": self.max_extracted_files,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Creates a loader from what `get_config` returned."""
        return cls(**config)


def _pipeline(
    reader: ImageReader,
    labels: np.ndarray,
    positions: Callable[[], np.ndarray],
    batch_size: int,
    read_errors: list[Exception],
) -> "tf.data.Dataset":
    """Returns batches of images and labels; `positions()` orders each pass."""
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        # TensorFlow only reads images then, and must not take the GPU's memory from the
        # backend. It is too late if TensorFlow has already used the GPU.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
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

    def fetch(batch: Any) -> tuple[Any, Any]:
        images = tf.numpy_function(read, [batch], tf.uint8, stateful=False)
        images = tf.ensure_shape(images, (None, *reader.image_shape))
        return images, tf.gather(tf.constant(labels), batch)

    return ordered_batches(
        fetch, begin_pass, len(labels), batch_size, reader.parallel_reads
    )


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


def _labels(records: Sequence[ImageRecord], class_names: Sequence[str]) -> np.ndarray:
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = [label_of[record.class_name] for record in records]
    return np.asarray(labels, dtype=np.int32)


def _source_text(data: str | os.PathLike[str]) -> str:
    """Returns the source as text; a path never looks like the name of a data set."""
    return data if isinstance(data, str) else os.path.join(os.curdir, data)  # noqa: PTH118


def _path_text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
