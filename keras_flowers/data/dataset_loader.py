"""Loads a folder of images as tf.data pipelines with an audited split."""

import dataclasses
import inspect
import os
import reprlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from keras_flowers.argument_checks import (
    RESIZE_MODES,
    check_choice,
    check_image_size,
    check_integer,
)
from keras_flowers.data.audit import Audit, audit_images
from keras_flowers.data.exclusions import (
    check_exclude,
    check_kinds,
    exclude_files,
    read_exclusions,
)
from keras_flowers.data.findings import Finding, adding_findings, list_paths
from keras_flowers.data.image_cache import (
    DEFAULT_DISK_BUDGET,
    CacheSettings,
    ImageCache,
)
from keras_flowers.data.image_datasets import ImageDatasets as ImageDatasets
from keras_flowers.data.image_files import (
    ImageOptions,
    ImageRecord,
)
from keras_flowers.data.image_listing import ImageListing, list_images
from keras_flowers.data.inspection import inspect_files
from keras_flowers.data.label_files import (
    LabelColumns,
    is_label_file,
    list_labeled_images,
)
from keras_flowers.data.layout import normalize_name
from keras_flowers.data.member_names import check_archive_encoding
from keras_flowers.data.pipelines import EpochOrder as EpochOrder
from keras_flowers.data.pipelines import image_pipeline, number_labels
from keras_flowers.data.pipelines import ordered_batches as ordered_batches
from keras_flowers.data.sources import (
    ExtractionLimits,
    default_cache_directory,
    resolve_source,
)
from keras_flowers.data.split_assignment import group_images
from keras_flowers.data.split_manifest import apply_manifest, read_manifest
from keras_flowers.data.splits import (
    SMALL_CLASSES_MODES,
    Split,
    SplitOptions,
    check_fractions,
    select_classes,
    split_audit,
    split_ready_made,
)
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path
from keras_flowers.progress import Progress
from keras_flowers.registration import register

# Arguments of a loader that say where and how much to cache, not what the data is.
STORAGE_ARGUMENTS = (
    "cache_directory",
    "disk_budget",
    "max_extracted_size",
    "max_extracted_files",
)


SPLIT_MODES = ("auto", "ready-made", "random")
TRUNCATED_MODES = ("refuse", "keep")


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
        archive_encoding: Encoding of the names in a zip or tar archive that does not
            say it, such as `"cp932"`. None reads them as UTF-8, or as the code page
            that fits best, with a finding.
        class_depth: How many levels below the data folder the class folders are, from
            1. None decides by the names and the content of the folders; the audit says
            how.
        split: `"auto"` uses the ready-made split of a folder with parts such as `train`
            and `test`, and splits other folders at random. `"ready-made"` requires such
            parts, `"random"` ignores them. Parts that are missing are taken from the
            training part by the fractions.
        resize: `"stretch"` ignores the aspect ratio of images; `"crop"` keeps it and
            cuts off what is too much on both sides; `"pad"` keeps it and adds black
            borders.
        truncated: What to do with images that end early: `"refuse"` them, or `"keep"`
            the pixels that are there.
        max_pixels: The largest number of pixels to allocate for an image. None uses the
            limit of Pillow, 89,478,485. A large JPEG is decoded at reduced size and may
            have eight times as many.
        gray_bits: The bits in use of 16-bit gray images that do not state it, 8 to 16.
            None uses all 16.
        small_classes: What to do with classes that have too few images to split:
            `"leave-out"` or `"train-only"`. None refuses them.
        group_by: Keeps the images of a group, such as a patient, a place or a video, on
            one side of the split. `"folder"` groups by the folders in the class
            folders, `"column"` by a column of the label file, and any other text is a
            regular expression that is searched for in the path of an image: its first
            group in parentheses, or the whole match, names the group.
        labels: A label file (.csv, .tsv or .parquet) that names the class of each
            image; its paths are relative to `data`. If `data` itself is a label file,
            paths are relative to its folder.
        path_column: Column of paths in the label file. None finds it by its name, as
            for the following columns.
        label_column: Column of class names in the label file.
        split_column: Column of parts (train, validation, test) in the label file.
        group_column: Column of groups in the label file.
        label_separator: What separates the labels of an image in the label column,
            such as `"|"` or `" "`. Then an image may have several labels, or none.
        multi_label: Whether images may have several labels: in several columns of zeros
            and ones, or in several rows of the label file. Images without a label are
            used, too. `label_separator` implies it.
        exclude: Images to leave out: their paths, or a file. A text file has one path
            of a file or folder per line, relative to the data folder. Of the JSON file
            of an audit, `exclude_kinds` chooses the findings.
        exclude_kinds: The kinds of findings to exclude, such as `"near_duplicate"`, as
            a list or separated by commas. Of copies, the largest is kept; of a label
            conflict, none.
        class_names: The classes of a trained model. Then the data may have some of
            them only, and labels are positions in this list.
        ignore_unknown_classes: Whether to leave out classes that are not in
            `class_names`, instead of refusing them.

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
        archive_encoding: str | None = None,
        class_depth: int | None = None,
        split: str = "auto",
        resize: str = "stretch",
        truncated: str = "refuse",
        max_pixels: int | None = None,
        gray_bits: int | None = None,
        small_classes: str | None = None,
        group_by: str | None = None,
        labels: str | os.PathLike[str] | None = None,
        path_column: str | None = None,
        label_column: str | None = None,
        split_column: str | None = None,
        group_column: str | None = None,
        label_separator: str | None = None,
        multi_label: bool = False,
        exclude: str | os.PathLike[str] | Sequence[str] | None = None,
        exclude_kinds: str | Sequence[str] | None = None,
        class_names: Sequence[str] | None = None,
        ignore_unknown_classes: bool = False,
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
        self.archive_encoding = check_archive_encoding(archive_encoding)
        self.class_depth = _check_optional("class_depth", class_depth, lowest=1)
        self.split = check_choice("split", split, SPLIT_MODES)
        self.resize = check_choice("resize", resize, RESIZE_MODES)
        self.truncated = check_choice("truncated", truncated, TRUNCATED_MODES)
        self.max_pixels = _check_optional("max_pixels", max_pixels, lowest=1)
        if small_classes is not None:
            check_choice("small_classes", small_classes, SMALL_CLASSES_MODES)
        self.small_classes = small_classes
        self.group_by = group_by
        self.labels = _path_text(labels)
        self.path_column = path_column
        self.label_column = label_column
        self.split_column = split_column
        self.group_column = group_column
        if label_separator is not None and not label_separator:
            raise InputError(
                "`label_separator` must be at least one character. "
                f"Received: label_separator={label_separator!r}"
            )
        self.label_separator = label_separator
        self.multi_label = bool(multi_label)
        self.exclude = check_exclude(exclude)
        self.exclude_kinds = check_kinds(exclude_kinds)
        self.class_names = None if class_names is None else tuple(class_names)
        self.ignore_unknown_classes = bool(ignore_unknown_classes)
        self.gray_bits = _check_optional("gray_bits", gray_bits, lowest=8, highest=16)

    def load(self, progress: Progress | None = None) -> ImageDatasets:
        """Finds, decodes, audits and splits the images.

        Args:
            progress: Called as `progress(step, done, total)` during the steps
                `"download"` (bytes), `"extract"` (files), `"sample"` and `"decode"`
                (images). `total` is None if it is unknown.

        Returns:
            `ImageDatasets`.

        Raises:
            InputError: If the data cannot be used, with the reason. If the images were
                audited before, it is an `AuditError`, which has the findings.
        """
        excluded = self.read_exclusions()
        listing = self.list_images(progress)
        settings = CacheSettings(self._cache(), self.disk_budget)
        # The cache also has the images that are excluded, until another run needs them.
        cache = ImageCache.open(
            listing, self.image_size, settings, progress, self.image_options
        )
        audit = self._audit(exclude_files(listing, excluded), cache.records)
        with adding_findings(audit.findings):
            audit = self._check_known_classes(audit)
            split = self._split(audit)
        if split.small_classes:
            finding = _describe_small_classes(split.small_classes, self.small_classes)
            audit = dataclasses.replace(audit, findings=(*audit.findings, finding))
        return self._build_datasets(cache, audit, split)

    def audit(self, progress: Progress | None = None) -> Audit:
        """Inspects every image once and reports what training would use.

        Nothing is cached, except what is downloaded or extracted.

        Args:
            progress: As for `load`; the step is `"inspect"`.

        Returns:
            The audit.

        Raises:
            InputError: As for `load`.
        """
        excluded = self.read_exclusions()
        listing = exclude_files(self.list_images(progress), excluded)
        records = inspect_files(
            listing.root, listing.files, progress=progress, options=self.image_options
        )
        return self._audit(listing, records)

    def with_listed_exclusions(self) -> Self:
        """Returns the loader with the paths to exclude instead of a file of them.

        For what is recorded: the file may change.
        """
        paths = list(self.read_exclusions()) or None
        config = {**self.get_config(), "exclude": paths, "exclude_kinds": None}
        return self.from_config(config)

    def read_exclusions(self) -> tuple[str, ...]:
        """Returns the paths to exclude, as they are given or in the file.

        Raises:
            InputError: If the file cannot be used.
        """
        if self.exclude is None and self.exclude_kinds is None:
            return ()
        return read_exclusions(self.exclude or (), self.exclude_kinds)

    def _audit(self, listing: ImageListing, records: Sequence[ImageRecord]) -> Audit:
        return audit_images(
            listing, records, one_class_is_enough=self.class_names is not None
        )

    def list_images(self, progress: Progress | None = None) -> ImageListing:
        """Returns the classes and files of the data, before any image is decoded.

        Excluded images are among them. Arguments and errors are those of `load`.
        """
        findings: list[Finding] = []
        listing = self._list_images(progress, findings.append)
        return dataclasses.replace(listing, findings=(*findings, *listing.findings))

    @property
    def gives_several_labels(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self._label_columns.gives_several_labels

    @property
    def _label_columns(self) -> LabelColumns:
        return LabelColumns(
            self.path_column,
            self.label_column,
            self.split_column,
            self.group_column,
            self.label_separator,
            self.multi_label,
        )

    def _list_images(
        self, progress: Progress | None, on_finding: Callable[[Finding], None]
    ) -> ImageListing:
        columns = self._label_columns
        if self.labels is not None:
            labels = Path(self.labels).expanduser()
            return list_labeled_images(labels, self.find(progress, on_finding), columns)
        if is_label_file(self.data):
            return list_labeled_images(Path(self.data).expanduser(), None, columns)
        if columns.gives_several_labels:
            raise InputError(
                "`multi_label` and `label_separator` (--multi-label, "
                "--label-separator) need a label file: a folder gives each image one "
                f"class. Received: {printable_path(self.data)}"
            )
        root = self.find(progress, on_finding)
        # What was extracted to the cache is known to the user as an archive.
        name = None if Path(self.data).expanduser().is_dir() else self.data
        return list_images(
            root,
            name=name,
            class_depth=self.class_depth,
            class_names=self.class_names or (),
        )

    def _check_known_classes(self, audit: Audit) -> Audit:
        """Returns the audit of the classes that a model knows.

        Raises:
            InputError: If there are others and they are not to be ignored.
        """
        if self.class_names is None or self.split_manifest is not None:
            return audit
        known = {normalize_name(name) for name in self.class_names}
        unknown = [name for name in audit.class_names if name not in known]
        shown = list_paths(unknown)
        if unknown and not self.ignore_unknown_classes:
            raise InputError(
                f"The classes of `{printable_path(audit.root)}` must be known to the "
                f"model: {list_paths(self.class_names)}. Received: {shown}. To leave "
                "these out, pass `ignore_unknown_classes=True` "
                "(--ignore-unknown-classes)"
            )
        if len(unknown) == len(audit.class_names):
            raise InputError(
                f"`{printable_path(audit.root)}` must contain classes that the model "
                f"knows: {list_paths(self.class_names)}. Received: {shown}"
            )
        if not unknown:
            return audit
        message = f"classes that the model does not know are left out: {shown}"
        finding = Finding("unknown_class", tuple(unknown), message)
        audit = select_classes(audit, known)
        return dataclasses.replace(audit, findings=(*audit.findings, finding))

    @property
    def image_options(self) -> ImageOptions:
        """How images become pixels."""
        return ImageOptions(
            max_pixels=self.max_pixels,
            truncated=self.truncated,  # type: ignore[arg-type]
            gray_bits=self.gray_bits,
            resize=self.resize,  # type: ignore[arg-type]
        )

    def find(
        self,
        progress: Progress | None = None,
        on_finding: Callable[[Finding], None] | None = None,
    ) -> Path:
        """Returns the data folder.

        Downloads and extracts the data if necessary. `progress` and errors are those
        of `load`. `on_finding` is called with findings about an archive.
        """
        limits = ExtractionLimits(self.max_extracted_size, self.max_extracted_files)
        return resolve_source(
            self.data,
            cache_directory=self._cache(),
            limits=limits,
            archive_encoding=self.archive_encoding,
            progress=progress,
            on_finding=on_finding,
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
        is_ready_made = audit.layout is not None and audit.layout.has_parts
        if self.split == "ready-made" and not is_ready_made:
            raise InputError(
                f"`{printable_path(audit.root)}` must contain folders such as train "
                "and test with class folders for `split='ready-made'`. Received: "
                f"{audit.layout.description if audit.layout else 'none'}"
            )
        use_parts = is_ready_made and self.split != "random"
        options = SplitOptions(
            self.validation_split,
            self.test_split,
            self.seed,
            self.keep_near_duplicates_together,
            self.small_classes,
            group_images(audit, self.group_by),
        )
        split = (split_ready_made if use_parts else split_audit)(audit, options)
        if self.class_names is None:
            return split
        return dataclasses.replace(
            split, class_names=tuple(map(normalize_name, self.class_names))
        )

    def _build_datasets(
        self, cache: ImageCache, audit: Audit, split: Split
    ) -> ImageDatasets:
        order = EpochOrder(len(split.train), self.seed)
        read_errors: list[Exception] = []

        def pipeline(
            records: Sequence[ImageRecord], positions: Callable[[], np.ndarray]
        ) -> Any:
            labels = number_labels(records, split.class_names, split.multi_label)
            reader = cache.reader(records)
            batches: Any = image_pipeline(
                reader, labels, positions, self.batch_size, read_errors
            )
            # As `keras.utils.image_dataset_from_directory` does.
            batches.class_names = split.class_names
            return batches

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
            image_options=self.image_options,
            read_errors=read_errors,
            loader=self,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        values = {name: getattr(self, name) for name in _ARGUMENTS}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Creates a loader from what `get_config` returned."""
        return cls(**config)


_ARGUMENTS = tuple(inspect.signature(ImageDatasetLoader).parameters)


def as_loader(data: Any) -> ImageDatasetLoader:
    """Returns the loader of some data.

    Args:
        data: A loader, what one loaded, or what it takes as `data`.

    Raises:
        InputError: If it is none of these.
    """
    if isinstance(data, ImageDatasets):
        data = data.loader
    return data if isinstance(data, ImageDatasetLoader) else ImageDatasetLoader(data)


def _describe_small_classes(names: Sequence[str], treatment: str | None) -> Finding:
    what = "left out" if treatment == "leave-out" else "only trained on"
    message = f"classes that are too small to split are {what}: {list_paths(names)}"
    return Finding("small_class", tuple(names), message, what)


def _check_optional(
    name: str, value: Any, *, lowest: int, highest: int | None = None
) -> int | None:
    if value is None:
        return None
    return check_integer(name, value, lowest=lowest, highest=highest)


def _source_text(data: str | os.PathLike[str]) -> str:
    """Returns the source as text; a path never looks like the name of a data set."""
    if not isinstance(data, str | os.PathLike):
        raise InputError(
            "`data` must be a folder, an archive, a URL, a label file, or the name "
            f"of a data set. Received: data={reprlib.repr(data)}"
        )
    return data if isinstance(data, str) else os.path.join(os.curdir, data)  # noqa: PTH118


def _path_text(path: str | os.PathLike[str] | None) -> str | None:
    return None if path is None else os.fspath(path)
