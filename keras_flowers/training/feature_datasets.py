"""Data sets of cached features: a frozen backbone sees each image once."""

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_flowers.data.array_batches import ArrayBatches
from keras_flowers.data.dataset_loader import ImageDatasets, ordered_batches
from keras_flowers.data.feature_cache import FeatureCache
from keras_flowers.data.pipelines import (
    choose_spread,
    needs_no_tensorflow,
    take_spread,
)
from keras_flowers.data.splits import SPLIT_NAMES
from keras_flowers.errors import InputError
from keras_flowers.inference import (
    CALIBRATION_IMAGES,
    Predictor,
    build_predictor,
    supported_precision,
)
from keras_flowers.layers.views import take_view
from keras_flowers.metrics import MeanAveragePrecision
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress
from keras_flowers.training.feature_shares import compute_in_shares
from keras_flowers.training.processes import Team

# Rows between two writes: a killed process loses at most so many.
_ROWS_AT_ONCE = 1024


def with_features(
    datasets: ImageDatasets,
    model: ImageClassifier,
    progress: Progress | None = None,
    views: int = 1,
    precision: str = "float32",
    team: Team | None = None,
) -> ImageDatasets:
    """Returns the data with the features of a frozen backbone instead of the images.

    The pipelines give batches `(features, labels)`: float32 `(batch, feature_size)` and
    the labels of the images, in the order of the images. Features that are not cached
    yet are computed, and cached next to the decoded images. A linear head is adapted to
    those of the training images.

    Args:
        datasets: The images.
        model: A classifier that `has_fixed_features`.
        progress: Called with `"features"`, passes done and passes in all.
        views: In how many views the training images are seen. An epoch takes one view
            of each image, another one in each epoch.
        precision: In which precision features are computed: see
            `keras_flowers.inference`.
        team: The processes that call this together, each of which computes a share;
            `None` for one.
    """
    counts = dict.fromkeys(SPLIT_NAMES, 1) | {"train": views}
    arrays = load_features(datasets, model, counts, progress, precision, team)
    model.adapt(np.concatenate(arrays["train"]), datasets.labels("train"))
    in_order = {
        split: _pipeline_builder(arrays.pop(split), datasets, split)
        for split in SPLIT_NAMES
    }
    order = datasets.epoch_order
    return dataclasses.replace(
        datasets,
        train=in_order["train"](lambda: order.take_epoch_of_views(views)),
        train_in_order=in_order["train"](None),
        validation=in_order["validation"](None),
        test=in_order["test"](None),
        read_errors=[],  # these pipelines read no images
    )


def with_validation_views(
    images: ImageDatasets,
    model: ImageClassifier,
    head: keras.Model,
    views: int,
    precision: str = "float32",
) -> tuple[keras.Model, ImageDatasets]:
    """Returns a head that averages over views, and validation features for it.

    Args:
        images: The images, with a validation split.
        model: The classifier.
        head: Its head.
        views: Number of views.
        precision: As for `with_features`.

    Returns:
        The head for features `(batch, views, feature_size)`, with the temperature of
        the classifier, and the data with these in
        place of the validation images.
    """
    counts = {"validation": views}
    features = load_features(images, model, counts, precision=precision)["validation"]
    size = features[0].shape[1]
    inputs = keras.Input((views, size), name="features")
    probabilities = head(keras.ops.reshape(inputs, (-1, size)), training=False)
    probabilities = model.scale_probabilities(probabilities)
    stacked = keras.ops.reshape(probabilities, (-1, views, probabilities.shape[-1]))
    average = keras.Model(inputs, keras.ops.mean(stacked, axis=1))
    labels = images.labels("validation")
    batches, fetch = _row_gatherer(np.stack(features, axis=1), labels)
    in_order = np.arange(len(labels))
    validation = batches(fetch, lambda: in_order, len(labels), images.batch_size)
    return average, dataclasses.replace(images, validation=validation, read_errors=[])


@dataclasses.dataclass(frozen=True)
class PrecisionDifference:
    """What a lower precision of features changes for validation images.

    Attributes:
        precision: The precision of the features that the head was trained on.
        images: Number of images: 128 from all over the validation images, or all of
            them if there are fewer.
        score_name: What the scores are: `"accuracy"`, or where images may have several
            labels `"mean average precision"`.
        score: That with features of that precision.
        float32_score: That of the same head with features in float32.
        largest_difference: The largest difference of a probability.
    """

    precision: str
    images: int
    score_name: str
    score: float
    float32_score: float
    largest_difference: float


def measure_precision(
    images: ImageDatasets, model: ImageClassifier, head: keras.Model, precision: str
) -> PrecisionDifference | None:
    """Compares the predictions of a head on features of two precisions.

    Args:
        images: The images.
        model: The classifier.
        head: Its head.
        precision: The precision that is compared with float32.

    Returns:
        The difference; `None` in float32 and without validation images.
    """
    if images.validation is None or supported_precision(precision) == "float32":
        return None
    labels = images.labels("validation")
    # More would take as long as all features in the lower precision.
    positions = np.array(choose_spread(len(labels), CALIBRATION_IMAGES))
    labels = labels[positions]

    def predict(precision: str) -> np.ndarray:
        views = load_features(
            images,
            model,
            {"validation": 1},
            precision=precision,
            positions={"validation": positions},
        )
        return np.asarray(head.predict_on_batch(views["validation"][0]))

    def score(probabilities: np.ndarray) -> float:
        if images.multi_label:
            metric = MeanAveragePrecision(labels.shape[1])
            return float(keras.ops.convert_to_numpy(metric(labels, probabilities)))
        return float((probabilities.argmax(axis=1) == labels).mean())

    lower, exact = predict(precision), predict("float32")
    return PrecisionDifference(
        precision,
        images=len(labels),
        score_name="mean average precision" if images.multi_label else "accuracy",
        score=score(lower),
        float32_score=score(exact),
        largest_difference=float(np.abs(lower - exact).max()),
    )


def adapt_linear_head(
    datasets: ImageDatasets,
    model: ImageClassifier,
    progress: Progress | None = None,
    team: Team | None = None,
) -> None:
    """Lets a linear head measure the features of the training images.

    For a model that is trained on images: with augmentation their features change, but
    not their statistics.
    """
    if model.has_linear_head:
        views = load_features(datasets, model, {"train": 1}, progress, team=team)
        model.adapt(views["train"][0], datasets.labels("train"))


def load_features(
    datasets: ImageDatasets,
    model: ImageClassifier,
    views: Mapping[str, int],
    progress: Progress | None = None,
    precision: str = "float32",
    team: Team | None = None,
    positions: Mapping[str, np.ndarray] | None = None,
) -> dict[str, list[np.ndarray]]:
    """Returns the features of splits; those that are not cached yet are computed.

    Args:
        datasets: The images.
        model: A classifier with a backbone.
        views: The number of views by split.
        progress: As for `with_features`.
        precision: As for `with_features`.
        team: As for `with_features`.
        positions: By split, the positions of the images; `None` for all of them.

    Returns:
        By split, the features of each view, float32 `(images, feature_size)`.

    Raises:
        InputError: If the model has no backbone.
        ProcessLostError: If another process of `team` fails or is gone.
    """
    backbone = model.backbone
    if backbone is None:
        raise InputError("`model` must have a backbone.")
    precision = supported_precision(precision)
    key = backbone.key()
    caches = [
        FeatureCache(
            datasets.image_cache_directory,
            _key_of_view(key, view, precision),
            backbone.feature_size,
        )
        for view in range(max(views.values()))
    ]
    checksums = {
        split: [record.sha256 for record in datasets.records(split)] for split in views
    }
    chosen = checksums
    if positions is not None:
        chosen = {s: [checksums[s][p] for p in positions[s]] for s in views}
    wanted = [
        {c for split in views if views[split] > view for c in chosen[split]}
        for view in range(len(caches))
    ]

    def find_missing() -> list[set[str]]:
        pairs = zip(caches, wanted, strict=True)
        return [cache.missing(list(of_view)) for cache, of_view in pairs]

    def compute(missing: list[set[str]]) -> None:
        _compute(datasets, checksums, caches, missing, model, progress, precision)

    if team is not None:
        batches = [
            batch
            for of_split in checksums.values()
            for batch in _divide(of_split, datasets.batch_size)
        ]
        compute_in_shares(team, caches, wanted, batches, compute)
    elif any(find_missing()):
        with contextlib.ExitStack() as stack:
            for cache in caches:
                stack.enter_context(cache.lock())
            # Another process may have done the work while this one waited.
            if any(missing := find_missing()):
                compute(missing)
    return {
        split: [cache.read(chosen[split]) for cache in caches[: views[split]]]
        for split in views
    }


def _key_of_view(key: str, view: int, precision: str) -> str:
    """Returns the key of a cache; the images themselves have that of the backbone."""
    if view == 0 and precision == "float32":
        return key
    return hashlib.sha256(f"{key} view {view} {precision}".encode()).hexdigest()


def _pipeline_builder(
    features: list[np.ndarray], datasets: ImageDatasets, split: str
) -> Callable[[Callable[[], np.ndarray] | None], Any]:
    """Returns a function that builds pipelines of a split, which share the features.

    Its argument is the order, as for `ordered_batches`, or `None` for that of the
    images. A position beyond the images is that of an image in the next view.
    """
    count = len(features[0])
    batches, fetch = _row_gatherer(np.concatenate(features), datasets.labels(split))

    def pipeline(order: Callable[[], np.ndarray] | None) -> Any:
        if not count:
            return None
        positions = order or (lambda: np.arange(count))
        return batches(fetch, positions, count, datasets.batch_size)

    return pipeline


def _row_gatherer(rows: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    """Returns what makes a pipeline, and the function that fetches its batches."""
    count = len(labels)
    if needs_no_tensorflow():
        return ArrayBatches, lambda batch: (rows[batch], labels[batch % count])
    import tensorflow as tf

    with tf.device("CPU"):
        row_tensor, label_tensor = tf.constant(rows), tf.constant(labels)
    return ordered_batches, lambda batch: (
        tf.gather(row_tensor, batch),
        tf.gather(label_tensor, batch % count),
    )


def _compute(
    datasets: ImageDatasets,
    checksums: Mapping[str, list[str]],
    caches: Sequence[FeatureCache],
    missing: list[set[str]],
    model: ImageClassifier,
    progress: Progress | None,
    precision: str,
) -> None:
    """Computes and caches the missing features of each view."""
    total, size = sum(map(len, missing)), datasets.batch_size
    # By view: images that do not fill a batch yet, and features that are not on disk.
    images_of: list[dict[str, np.ndarray]] = [{} for _ in caches]
    waiting: list[dict[str, np.ndarray]] = [{} for _ in caches]
    extract: Predictor | None = None

    def report() -> None:
        if progress is not None:
            progress("features", total - sum(map(len, missing)), total)

    def write() -> None:
        for cache, rows in zip(caches, waiting, strict=True):
            if rows:
                cache.add_missing(rows)
                rows.clear()

    def compute_batch(view: int, split: str) -> None:
        nonlocal extract
        pending = images_of[view]
        images = _pad_batch(np.stack(list(pending.values())), size)
        if extract is None:
            extract = _build_extractor(model, datasets, split, images, total, precision)
        features = extract(_take_view(images, view))
        waiting[view] |= dict(zip(pending, features, strict=False))
        missing[view].difference_update(pending)
        pending.clear()
        report()
        if sum(map(len, waiting)) >= _ROWS_AT_ONCE:
            write()

    report()
    try:
        for split, of_split in checksums.items():
            batches = _divide(of_split, size)
            needed = [n for n, b in enumerate(batches) if _any_of(missing, b)]
            for number, images in _read_batches(datasets, split, needed):
                for checksum, image in zip(batches[number], images, strict=True):
                    for view, of_view in enumerate(missing):
                        if checksum in of_view:
                            images_of[view][checksum] = image
                        if len(images_of[view]) == size:
                            compute_batch(view, split)
            for view, pending in enumerate(images_of):
                if pending:
                    compute_batch(view, split)
    finally:
        write()  # after Ctrl-C as well


def _build_extractor(
    model: ImageClassifier,
    datasets: ImageDatasets,
    split: str,
    images: np.ndarray,
    total: int,
    precision: str,
) -> Predictor:
    """Returns the function from images to features.

    Args:
        model: The classifier.
        datasets: Where int8 finds the images that calibrate it.
        split: The split that these are taken from.
        images: A batch of images, as the function will get them.
        total: How many images it will get.
        precision: In which precision it computes.
    """
    sample = images
    if precision == "int8":
        sample = take_spread(datasets.in_order(split), CALIBRATION_IMAGES)
    return build_predictor(model.feature_extractor(), total, sample, precision)


def _take_view(images: np.ndarray, view: int) -> np.ndarray:
    if not view:
        return images
    return np.asarray(keras.ops.convert_to_numpy(take_view(images, view)))


def _read_batches(
    datasets: ImageDatasets, split: str, numbers: Sequence[int]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the number and the images of some batches, whose numbers rise."""
    batches: Any = datasets.in_order(split)
    if not numbers:
        return
    with datasets.naming_unreadable_images():
        if isinstance(batches, ArrayBatches):
            chosen = batches.take_batches(numbers).as_numpy_iterator()
            yield from zip(numbers, (images for images, _ in chosen), strict=True)
            return
        wanted = set(numbers)
        for number, (images, _) in enumerate(batches.as_numpy_iterator()):
            if number in wanted:
                yield number, images


def _divide(checksums: Sequence[str], size: int) -> list[Sequence[str]]:
    """Returns the batches of a split in order."""
    return [checksums[n : n + size] for n in range(0, len(checksums), size)]


def _any_of(missing: Sequence[set[str]], batch: Sequence[str]) -> bool:
    return not all(of_view.isdisjoint(batch) for of_view in missing)


def _pad_batch(images: np.ndarray, count: int) -> np.ndarray:
    """Returns a batch of a fixed size; another size would be compiled again."""
    short = count - len(images)
    if not short:
        return images
    return np.concatenate([images, np.repeat(images[-1:], short, axis=0)])
