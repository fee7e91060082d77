"""From a data argument to tf.data pipelines, class names and an audited split."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np

from keras_flowers.argument_checks import check_image_size, check_integer
from keras_flowers.data.audit import Audit, build_audit, list_images
from keras_flowers.data.batch_buffers import BatchBuffers
from keras_flowers.data.image_cache import (
    DEFAULT_DISK_BUDGET,
    CacheSettings,
    ImageCache,
    ImageReader,
)
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.sources import (
    ExtractionLimits,
    Progress,
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
from keras_flowers.registration import register

if TYPE_CHECKING:
    import tensorflow as tf


# Arguments of a loader that say where things are kept, and nothing of the data.
STORAGE_ARGUMENTS = (
    "cache_directory",
    "disk_budget",
    "max_extracted_size",
    "max_extracted_files",
)


class EpochOrder:
    """The order of the training images: a function of the seed and the epoch alone.

    Every pass over the training pipeline takes the next epoch. Assign `epoch` to
    say which one the next pass is, as a resumed run must.

    Attributes:
        epoch: Integer from 0, the epoch of the next pass.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self.epoch = 0

    def positions(self, epoch: int) -> np.ndarray:
        """Returns the order of an epoch: int64 `(count,)`, each position once."""
        generator = np.random.default_rng([self._seed, epoch])
        return generator.permutation(self._count)

    def take_epoch(self) -> np.ndarray:
        """Returns the order of the current epoch and moves on to the next."""
        positions = self.positions(self.epoch)
        self.epoch += 1
        return positions


@dataclasses.dataclass(frozen=True)
class ImageDatasets:
    """What a loader loads: the pipelines, and everything known about them.

    The pipelines give batches `(images, labels)`: uint8 `(batch, height, width, 3)`
    with values 0..255, and int32 `(batch,)`. The training images come in another
    order each epoch; validation and test are never shuffled, so that row `i` of a
    prediction belongs to path `i`.

    Attributes:
        train: `tf.data.Dataset` of the training images, shuffled anew each epoch.
        train_in_order: The same images in the order of their paths.
        validation: The same for validation, or `None` without such a split.
        test: The same for the test split, or `None`.
        class_names: Position `i` is the name of label `i`.
        image_size: `(height, width)` in pixels.
        batch_size: Images in a batch; the last batch may be smaller.
        split: The images of each split, in order.
        audit: What the audit found.
        epoch_order: The order of the training images by epoch.
        store_directory: Folder of what was computed of the images at this size.
        reason_not_stored: Why images are decoded on the fly, in one line, or `None`
            where they are read from the image cache.
        read_errors: What reading images raised inside of a pipeline, where TensorFlow
            hides it behind an error of its own.
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
        """Returns what is known of each image of a split, in order."""
        if split not in SPLIT_NAMES:
            raise InputError(
                f"`split` must be one of {SPLIT_NAMES}. Received: split={split!r}"
            )
        records: Sequence[ImageRecord] = getattr(self.split, split)
        return records


@register("ImageDatasetLoader")
class ImageDatasetLoader:
    """Loads a folder of images, one folder per class, for training.

    The first `load` decodes every image once into an image cache in the cache
    folder; later ones, and every epoch, read from there. Files that cannot be read
    are left out and reported in the audit of the result.

    A loader is configuration alone: `keras.saving.serialize_keras_object` writes it
    as JSON and `keras.saving.deserialize_keras_object` rebuilds it.

    Args:
        data: A folder that holds one folder per class, a .tar, .tgz or .zip archive
            of one, an http(s) URL of such an archive, or `"flower_photos"` or
            `"sample"`.
        image_size: `(height, width)` in pixels to which images are resized.
        batch_size: Positive integer, images in a batch.
        validation_split: Fraction of each class, 0 to below 1, for validation.
        test_split: The same for a test split.
        seed: Integer that decides the split and the order of every epoch.
        keep_near_duplicates_together: Whether images that show nearly the same picture
            stand on one side of the split, as those with equal bytes always do. Turn
            it off for frames of a video, where all are alike.
        split_manifest: Path of a manifest, such as the `split.json` of a run, that
            decides the split instead of fractions and seed.
        cache_directory: Folder for downloads, archives and image caches; `None` for
            `$KERAS_FLOWERS_CACHE` or the user's cache folder.
        disk_budget: Bytes that the image cache may take. Images that would take
            more are decoded on the fly.
        max_extracted_size: Bytes that an archive may unpack to.
        max_extracted_files: Files that an archive may hold.

    Raises:
        InputError: If an argument is outside of what is described above.

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
        self.data = _as_source(data)
        self.image_size = check_image_size(image_size)
        self.batch_size = check_integer("batch_size", batch_size, lowest=1)
        fractions = check_fractions(validation_split, test_split)
        self.validation_split = fractions["validation"]
        self.test_split = fractions["test"]
        self.seed = check_integer("seed", seed, lowest=0)
        self.keep_near_duplicates_together = bool(keep_near_duplicates_together)
        self.split_manifest = _as_text(split_manifest)
        self.cache_directory = _as_text(cache_directory)
        self.disk_budget = check_integer("disk_budget", disk_budget, lowest=0)
        self.max_extracted_size = check_integer(
            "max_extracted_size", max_extracted_size, lowest=1
        )
        self.max_extracted_files = check_integer(
            "max_extracted_files", max_extracted_files, lowest=1
        )

    def load(self, progress: Progress | None = None) -> ImageDatasets:
        """Finds, audits, decodes and splits the images.

        Args:
            progress: Called as `progress(stage, done, total)` while `"download"`
                (bytes), `"extract"` (files), `"sample"` or `"decode"` (images) go
                on; `total` is `None` where it is not known.

        Returns:
            `ImageDatasets`.

        Raises:
            InputError: If the data cannot be used; the message says why.
        """
        listing = list_images(self.find(progress))
        settings = CacheSettings(self._cache(), self.disk_budget)
        store = ImageCache(listing, self.image_size, settings, progress)
        audit = build_audit(listing, store.records)
        return self._datasets(store, audit, self._split(audit))

    def find(self, progress: Progress | None = None) -> Path:
        """Returns the folder that holds the class folders.

        Downloads and unpacks what has to be; `progress` and errors as for `load`.
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

    def _datasets(self, store: ImageCache, audit: Audit, split: Split) -> ImageDatasets:
        order = EpochOrder(len(split.train), self.seed)
        read_errors: list[Exception] = []

        def pipeline(
            records: Sequence[ImageRecord], positions: Callable[[], np.ndarray]
        ) -> Any:
            labels = _labels(records, split.class_names)
            reader = store.reader(records)
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
            image_cache_directory=store.directory,
            reason_not_cached=store.reason_not_cached,
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
    """Returns batches of images and labels in the order `positions()` of a pass."""
    import tensorflow as tf

    if keras.backend.backend() != "tensorflow":
        # TensorFlow only reads images then; its claim on a GPU's memory would starve
        # the backend. Too late where somebody else has used the GPU with it.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
    buffers = BatchBuffers(reader.image_shape)

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
        fetch, positions, len(labels), batch_size, reader.parallel_reads
    )


def ordered_batches(
    fetch: Callable[[Any], Any],
    positions: Callable[[], np.ndarray],
    count: int,
    batch_size: int,
    parallel_calls: int | None = None,
) -> "tf.data.Dataset":
    """Returns what belongs to each batch of positions, in an order asked for anew.

    Args:
        fetch: Maps a tensor of positions, int64 `(batch,)`, to the elements of the
            pipeline.
        positions: Called when a pass begins; returns its order, int64 `(count,)`.
        count: Number of positions.
        batch_size: Positions in a batch; the last one may have fewer.
        parallel_calls: How many calls of `fetch` at once; `None` for one.
    """
    import tensorflow as tf

    def order(_: Any) -> Any:
        # Within the pipeline, so that each pass asks anew.
        pass_positions = tf.numpy_function(positions, [], tf.int64)
        pass_positions = tf.ensure_shape(pass_positions, (count,))
        return tf.data.Dataset.from_tensor_slices(pass_positions)

    dataset = tf.data.Dataset.range(1).flat_map(order).batch(batch_size)
    dataset = dataset.map(fetch, num_parallel_calls=parallel_calls)
    steps = math.ceil(count / batch_size)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    options = tf.data.Options()
    # Everything is fixed above, and at the end of an epoch the iterator waits for the
    # autotuner's thread to end: up to four seconds with TensorFlow 2.21.
    options.autotune.enabled = False
    return dataset.prefetch(2).with_options(options)


def _labels(records: Sequence[ImageRecord], class_names: Sequence[str]) -> np.ndarray:
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = [label_of[record.class_name] for record in records]
    return np.asarray(labels, dtype=np.int32)


def _as_source(data: str | os.PathLike[str]) -> str:
    """Returns the source as text; a path stays one where a text would be a name."""
    return data if isinstance(data, str) else os.path.join(os.curdir, data)  # noqa: PTH118


def _as_text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
