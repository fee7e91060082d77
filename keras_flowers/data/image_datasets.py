"""The pipelines that a loader loads, and everything known about their images."""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_flowers.data.array_batches import ArrayBatches
from keras_flowers.data.audit import Audit, count_classes
from keras_flowers.data.image_files import (
    DEFAULT_OPTIONS,
    ImageOptions,
    ImageRecord,
    load_thumbnail,
)
from keras_flowers.data.pipelines import EpochOrder, number_labels
from keras_flowers.data.splits import SPLIT_NAMES, Split
from keras_flowers.errors import InputError
from keras_flowers.notebook import html_table

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_flowers.data.dataset_loader import ImageDatasetLoader


# In a notebook.
_MOST_THUMBNAILS = 8
_THUMBNAIL_SIDE = 96


@dataclasses.dataclass(frozen=True)
class ImageDatasets:
    """The pipelines that a loader loads, and everything known about their images.

    The pipelines yield batches `(images, labels)`: uint8 `(batch, height, width, 3)`,
    0 to 255, and int32 `(batch,)`. Labels of images that may have several are float32
    `(batch, classes)`, 1 for each label of the image and 0 for the others. Training
    images come in a new order in each epoch. Validation and test images are never
    shuffled: row `i` of a prediction belongs to path `i`. A pipeline is a
    `tf.data.Dataset`; with the JAX backend, it is a `keras.utils.PyDataset` of NumPy
    arrays, which does not need TensorFlow.

    Attributes:
        train: The training images, reshuffled in each epoch.
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
        image_options: How images become pixels.
        loader: The loader that loaded them.
        read_errors: What reading images raised in the latest pass over a pipeline.
    """

    train: "tf.data.Dataset | ArrayBatches"
    train_in_order: "tf.data.Dataset | ArrayBatches"
    validation: "tf.data.Dataset | ArrayBatches | None"
    test: "tf.data.Dataset | ArrayBatches | None"
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    batch_size: int
    split: Split
    audit: Audit
    epoch_order: EpochOrder
    image_cache_directory: Path
    reason_not_cached: str | None
    image_options: ImageOptions = DEFAULT_OPTIONS
    loader: "ImageDatasetLoader | None" = None
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
        what = "all images" if self.multi_label else "all classes"
        total = [what, *(len(self.records(name)) for name in SPLIT_NAMES)]
        heads = ["class", *SPLIT_NAMES]
        return html_table(repr(self), heads, [total, *rows], self._thumbnails())

    def _thumbnails(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the first training image of each of the first classes, small."""
        firsts: dict[str, Path] = {}
        for record in self.split.train:
            for class_name in record.class_names:
                firsts.setdefault(class_name, self.audit.root / record.path)
        for name, path in itertools.islice(firsts.items(), _MOST_THUMBNAILS):
            with contextlib.suppress(InputError):
                yield name, load_thumbnail(path, _THUMBNAIL_SIDE)

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.split.multi_label

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

    def in_order(self, split: str) -> "tf.data.Dataset | ArrayBatches | None":
        """Returns the pipeline of a split in the order of `paths(split)`."""
        self.records(split)
        return self.train_in_order if split == "train" else getattr(self, split)

    def paths(self, split: str) -> tuple[Path, ...]:
        """Returns the files of `"train"`, `"validation"` or `"test"`, in order."""
        return tuple(self.audit.root / record.path for record in self.records(split))

    def labels(self, split: str) -> np.ndarray:
        """Returns the labels of a split in the order of paths; see `number_labels`."""
        return number_labels(self.records(split), self.class_names, self.multi_label)

    def counts(self, split: str) -> dict[str, int]:
        """Returns how many images of each class a split holds."""
        counts = count_classes(self.records(split))
        return {name: counts[name] for name in self.class_names}

    def records(self, split: str) -> Sequence[ImageRecord]:
        """Returns the record of each image of a split, in order."""
        if split not in SPLIT_NAMES:
            raise InputError(
                f"`split` must be one of {SPLIT_NAMES}. Received: split={split!r}"
            )
        records: Sequence[ImageRecord] = getattr(self.split, split)
        return records
