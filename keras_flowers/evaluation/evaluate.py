"""How good a classifier is: its scores, its confusions and its mistakes."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_flowers.argument_checks import check_integer
from keras_flowers.callbacks.labelled_images import iterate_batches
from keras_flowers.data.dataset_loader import ImageDatasetLoader, ImageDatasets
from keras_flowers.data.pipelines import number_labels, take_spread
from keras_flowers.distribution import predict_batch, predict_batches
from keras_flowers.errors import InputError
from keras_flowers.evaluation.calibration import Calibration, measure_calibration
from keras_flowers.evaluation.mistake_grid import (
    MOST_IN_GRID,
    draw_mistakes,
    load_tile_image,
)
from keras_flowers.evaluation.multi_label import MultiLabelEvaluation
from keras_flowers.files import path_below, write_csv_atomically
from keras_flowers.inference import CALIBRATION_IMAGES, build_openvino_predictor
from keras_flowers.layers.views import average_views, check_views
from keras_flowers.models.backbone import Backbone
from keras_flowers.models.frozen_prediction import (
    PredictionDifference,
    build_frozen_classifier,
    choose_precision,
    measure_difference,
)
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.models.saved_classifier import load_classifier
from keras_flowers.notebook import html_table
from keras_flowers.plots.confusion_matrix import (
    ConfusionGrid,
    arrange_confusions,
    draw_confusion_matrix,
)
from keras_flowers.plots.image_grid import Tile
from keras_flowers.plots.rendering import show_in_figure
from keras_flowers.scores import (
    ClassScores,
    predict_labels,
    rank_mistakes,
    score_classes,
    wilson_interval,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# With more classes, a file holds only the cells that are not zero.
_MOST_IN_JSON_MATRIX = 1000
_ROWS_AT_ONCE = 4096
# A softmax in 16 bits may exceed 1 by its rounding.
_ROUNDING = 0.01
# A figure of the confusion matrix, in pixels at 120 dpi; 25 classes take all of it.
_SIDE = 1500
_CELL = 60
_SCALE = 2


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often one class is taken for another.

    Attributes:
        true_class: The class that the images belong to.
        predicted_class: The class that the model predicted.
        count: Number of images.
    """

    true_class: str
    predicted_class: str
    count: int


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An image whose predicted class is wrong.

    Attributes:
        path: The image.
        true_class: The class of its folder.
        predicted_class: The most probable class; `None` if the prediction is
            non-finite.
        probability: Probability of the predicted class, 0..1, or NaN.
        true_probability: Probability of the true class, 0..1, or NaN.
        loss: Cross-entropy in nats, or NaN.
    """

    path: Path
    true_class: str
    predicted_class: str | None
    probability: float
    true_probability: float
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes as plain numbers and strings."""
        return dataclasses.asdict(self) | {"path": os.fspath(self.path)}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The predictions of a model for images whose class is known.

    A model that diverged returns NaN instead of probabilities. A non-finite prediction
    counts as a mistake and is in no column of the confusion matrix; `non_finite` is
    the number of them.

    Attributes:
        class_names: Position `i` is the name of label `i`.
        paths: The images, in the order of the rows below.
        labels: int32 `(count,)`, the true label of each image.
        probabilities: float32 `(count, classes)`, each row sums to 1.
        root: The data folder; drawings and tables show paths relative to it.
        split: The split that the images belong to; `None` if it is not known.
        precision_difference: What a lower inference precision changes; `None` in
            float32.
    """

    class_names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    root: Path | None = None
    split: str | None = None
    precision_difference: PredictionDifference | None = None

    def __repr__(self) -> str:
        """Returns the figures, not the predictions."""
        split = f" of {self.split}" if self.split else ""
        low, high = self.accuracy_interval
        return (
            f"Evaluation({len(self.labels)} images{split}, "
            f"{len(self.class_names)} classes: accuracy {self.accuracy:.3f} "
            f"({low:.3f} to {high:.3f}), loss {self.loss:.3f}, "
            f"{self.mistakes} mistakes)"
        )

    def _repr_html_(self) -> str:
        scores = self.per_class.items()
        rows = [[n, one.precision, one.recall, one.f1, one.count] for n, one in scores]
        heads = ["class", "precision", "recall", "F1", "images"]
        return html_table(repr(self), heads, rows)

    @cached_property
    def predictions(self) -> np.ndarray:
        """The most probable label of each image, int32 `(count,)`.

        -1 for a non-finite prediction.
        """
        return predict_labels(self.probabilities)

    @cached_property
    def losses(self) -> np.ndarray:
        """The cross-entropy of each image, float `(count,)`, in nats."""
        true = self.probabilities[np.arange(len(self.labels)), self.labels]
        losses: np.ndarray = -np.log(np.maximum(true, np.finfo(np.float32).tiny))
        return losses

    @property
    def loss(self) -> float:
        """The mean cross-entropy in nats."""
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float:
        """The fraction of images whose most probable class is the true one."""
        return float((self.predictions == self.labels).mean())

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy (Wilson, 1927).

        It says how far the accuracy on these images may be from that on all images like
        them.
        """
        total = len(self.labels)
        return wilson_interval(total - self.mistakes, total)

    @property
    def mistakes(self) -> int:
        """The number of images whose predicted class is not the true one."""
        return int(np.count_nonzero(self.predictions != self.labels))

    @property
    def non_finite(self) -> int:
        """The number of images whose prediction is non-finite (NaN or infinity)."""
        return int(np.count_nonzero(self.predictions < 0))

    @cached_property
    def confusion_matrix(self) -> np.ndarray:
        """Counts, int64 `(classes, classes)`; rows are true, columns predicted."""
        size = len(self.class_names)
        counts = np.bincount(self._cells, minlength=size * size)
        return counts.reshape(size, size)

    @property
    def confusions(self) -> tuple[Confusion, ...]:
        """Which classes are taken for which, the most frequent confusion first."""
        size = len(self.class_names)
        cells, counts = np.unique(self._cells, return_counts=True)
        true, predicted = np.divmod(cells, size)
        order = np.argsort(-counts, kind="stable")
        order = order[true[order] != predicted[order]]
        columns = (true[order].tolist(), predicted[order].tolist())
        rows = zip(*columns, counts[order].tolist(), strict=True)
        names = self.class_names
        return tuple(Confusion(names[t], names[p], count) for t, p, count in rows)

    @property
    def per_class(self) -> dict[str, ClassScores]:
        """The scores of each class by name."""
        names = self.class_names
        scores = score_classes(self.labels, self.predictions, len(names))
        return dict(zip(names, scores, strict=True))

    def top_k(self, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
        """Returns the most probable classes of each image, the most probable first.

        Args:
            k: Number of classes, a positive integer; capped at the number of classes
                that there are.

        Returns:
            Labels, int32 `(count, k)`, and probabilities, float32 `(count, k)`. Of
            equal probabilities the lower label comes first; NaN comes last.

        Raises:
            InputError: If `k` is no positive integer.
        """
        k = min(check_integer("k", k, lowest=1), len(self.class_names))
        labels = np.empty((len(self.labels), k), dtype=np.int32)
        for start in range(0, len(labels), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            order = np.argsort(-self.probabilities[rows], axis=1, kind="stable")
            labels[rows] = order[:, :k]
        return labels, np.take_along_axis(self.probabilities, labels, axis=1)

    def worst_mistakes(self, count: int = 24) -> tuple[Mistake, ...]:
        """Returns the wrongly predicted images with the highest loss.

        Args:
            count: Maximum number of mistakes, a positive integer.

        Returns:
            The mistakes, highest loss first. Non-finite predictions come before all
            others.

        Raises:
            InputError: If `count` is no positive integer.
        """
        count = check_integer("count", count, lowest=1)
        ranked = rank_mistakes(self.probabilities, self.labels)
        return tuple(self._describe_mistake(index) for index in ranked[:count].tolist())

    def calibration(self, bins: int = 15) -> Calibration:
        """Returns how well the confidence of the model matches its accuracy.

        Args:
            bins: Number of bins of equal width into which the images are sorted by the
                probability of their predicted class; 15 as in Guo et al. (2017).

        Raises:
            InputError: If `bins` is no positive integer.
        """
        is_finite = self.predictions >= 0
        confidences = np.where(is_finite, self.probabilities.max(axis=1), np.nan)
        return measure_calibration(confidences, self.predictions == self.labels, bins)

    def shown_path(self, path: Path) -> str:
        """Returns the path of an image, relative to the data folder if it is in it."""
        return path_below(self.root, path)

    def to_json(self, worst: int = 24) -> dict[str, Any]:
        """Returns the summary as plain numbers, strings and lists.

        It holds all classes and confusions. The confusion matrix is `None` with more
        than 1000 classes.

        Args:
            worst: Number of the worst mistakes that it holds, a positive integer.
        """
        is_small = len(self.class_names) <= _MOST_IN_JSON_MATRIX
        return {
            "photos": len(self.labels),
            "loss": self.loss,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "mistakes": self.mistakes,
            "unanswered": self.non_finite,
            "per_class": {
                name: dataclasses.asdict(scores)
                for name, scores in self.per_class.items()
            },
            "class_names": list(self.class_names),
            "confusion_matrix": self.confusion_matrix.tolist() if is_small else None,
            "confusions": [dataclasses.asdict(one) for one in self.confusions],
            "calibration": self.calibration().to_json(),
            "worst_mistakes": [one.to_json() for one in self.worst_mistakes(worst)],
        }

    def write_predictions(
        self,
        path: str | os.PathLike[str],
        top: int = 3,
        columns: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Writes the predictions as CSV, one row per image.

        The columns are `path`, relative to the data folder, `true_class`, `loss`, and
        for each of the most probable classes `class_1`, `probability_1` and so on. Of a
        non-finite prediction the classes are empty and the numbers `nan`.

        Args:
            path: The file to write or to replace, atomically. Its folder must exist.
            top: Number of classes, a positive integer; capped at the number of classes
                that there are.
            columns: Further columns by name, a value for each image. They follow
                `true_class`.

        Raises:
            InputError: If `top` is no positive integer, or the file cannot be written.
        """
        check_integer("top", top, lowest=1)
        rows = self._prediction_rows(*self.top_k(top), columns or {})
        write_csv_atomically(path, rows)

    def plot_confusion_matrix(self) -> "Figure":
        """Draws the confusion matrix: counts, shaded by fraction of the true class.

        Up to 25 classes have counts, up to 60 have names; of more than 500 classes,
        neighbors share a cell.

        Returns:
            A `matplotlib.figure.Figure` without a window.
        """
        grid = arrange_confusion_matrix(self)
        return show_in_figure(draw_confusion_matrix(grid, _SIDE, _CELL, _SCALE), _SCALE)

    def plot_reliability(self, bins: int = 15) -> "Figure":
        """Draws the reliability diagram: see `calibration` and `Calibration.plot`."""
        return self.calibration(bins).plot()

    def plot_mistakes(self, count: int = 24) -> "Figure":
        """Draws the worst mistakes in a grid, highest loss first.

        The caption of each image is its path, its true class, and the predicted class
        with its probability. The files are read again, as in training.

        Args:
            count: Maximum number of mistakes, from 1 to 1000.

        Returns:
            A `matplotlib.figure.Figure` without a window.

        Raises:
            InputError: If `count` is out of range.
        """
        count = check_integer("count", count, lowest=1, highest=MOST_IN_GRID)
        tiles = load_mistakes(self, count)
        return draw_mistakes(tiles, self.mistakes, len(self.labels))

    @cached_property
    def _cells(self) -> np.ndarray:
        """The flat cell of the confusion matrix of each finite prediction."""
        is_finite = self.predictions >= 0
        true = self.labels[is_finite].astype(np.int64)
        cells: np.ndarray = true * len(self.class_names) + self.predictions[is_finite]
        return cells

    def _describe_mistake(self, index: int) -> Mistake:
        label, predicted = int(self.labels[index]), int(self.predictions[index])
        row = self.probabilities[index]
        return Mistake(
            path=self.paths[index],
            true_class=self.class_names[label],
            predicted_class=None if predicted < 0 else self.class_names[predicted],
            probability=float(row.max()),
            true_probability=float(row[label]),
            loss=float(self.losses[index]),
        )

    def _prediction_rows(
        self,
        top_labels: np.ndarray,
        top_probabilities: np.ndarray,
        columns: Mapping[str, Sequence[Any]],
    ) -> Iterator[list[Any]]:
        places = range(1, top_labels.shape[1] + 1)
        heads = (f"{name}_{i}" for i in places for name in ("class", "probability"))
        yield ["path", "true_class", *columns, "loss", *heads]
        names = self.class_names
        for index, path in enumerate(self.paths):
            is_finite = self.predictions[index] >= 0
            pairs = zip(top_labels[index], top_probabilities[index], strict=True)
            predictions = (
                cell
                for label, probability in pairs
                for cell in (names[label] if is_finite else "", probability)
            )
            true = names[self.labels[index]]
            further = (values[index] for values in columns.values())
            shown = self.shown_path(path)
            yield [shown, true, *further, self.losses[index], *predictions]


AnyEvaluation = Evaluation | MultiLabelEvaluation


def evaluate(
    model: keras.Model | str | os.PathLike[str],
    datasets: Any,
    split: str | None = None,
    class_names: Sequence[str] | None = None,
    tta: int = 1,
    inference_precision: str = "float32",
) -> AnyEvaluation:
    """Classifies every image of a split and compares the result with its labels.

    Args:
        model: An `ImageClassifier`, or any model that maps batches of images
            (uint8 `(batch, height, width, 3)`) to probabilities
            `(batch, classes)`. Or the path of a saved `ImageClassifier`.
        datasets: What `ImageDatasetLoader.load` returned, or a loader. Or what a loader
            takes as `data`, such as a folder: all its images are classified, at the
            size that the model expects. Or images and labels without files: two arrays
            in a tuple, or anything that yields such batches, such as a
            `tf.data.Dataset`; their paths are their positions.
        split: `"train"`, `"validation"` or `"test"`, for data that a loader has split;
            `None` for the validation images.
        class_names: The model's class names by label; by default its attribute
            `class_names`, and without one those of `datasets`.
        tta: Test-time augmentation: integer from 1 to 7, the number of views of each
            image over which the probabilities are averaged. See
            `keras_flowers.layers.views`.
        inference_precision: `"float32"`, or `"bf16"` or `"int8"`, in which OpenVINO
            computes the features of an `ImageClassifier` with a backbone faster, if the
            processor can. The result says what that changes for 128 of the images. Not
            for images without files.

    Returns:
        `Evaluation`, its rows in the order of `datasets.paths(split)`; of images with
        several labels, a `MultiLabelEvaluation` with the thresholds of the model.

    Raises:
        InputError: If the split is empty, the data has a class that the model does
            not know, or several labels per image where the model knows one, or the
            model returns something other than one probability per class. Or if `model`
            is neither a model nor the file of one, `tta` is not as described, or the
            model cannot compute in the `inference_precision`.
    """
    check_views("tta", tta)
    if isinstance(model, str | os.PathLike):
        model = load_classifier(model)
    elif not isinstance(model, keras.Model):
        raise InputError(
            "`model` must be a Keras model, such as `keras.models.load_model` returns, "
            f"or the path of one. Received: {type(model).__name__}"
        )
    precision = choose_precision(model, inference_precision)
    shown_split: str | None = split or "validation"
    if isinstance(datasets, ImageDatasetLoader):
        datasets = datasets.load()
    elif isinstance(datasets, str | os.PathLike):
        _refuse_split(split)
        datasets = _load_all(model, datasets)
        split, shown_split = "train", None
    elif not isinstance(datasets, ImageDatasets):
        _refuse_split(split)
        if precision != "float32":
            raise InputError(
                "`inference_precision` is for images in files. Received: "
                f"inference_precision={inference_precision!r} and "
                f"{type(datasets).__name__}"
            )
        return _evaluate_batches(model, datasets, class_names, tta)
    split = split or "validation"
    images = datasets.in_order(split)
    if images is None:
        raise InputError(f"There are no images in the split {split!r}.")
    known = tuple(
        class_names or getattr(model, "class_names", None) or datasets.class_names
    )
    unknown = sorted(set(datasets.class_names) - set(known))
    if unknown:
        raise InputError(
            f"The model knows the classes {list(known)}; the data also has {unknown}."
        )
    _check_label_mode(model, datasets.multi_label)
    with datasets.naming_unreadable_images():
        probabilities, difference = _predict_split(
            model, datasets, split, tta, precision
        )
    return _evaluate_predictions(
        model,
        number_labels(datasets.records(split), known, datasets.multi_label),
        class_names=known,
        paths=datasets.paths(split),
        probabilities=_check_probabilities(probabilities, len(known)),
        root=datasets.audit.root,
        split=shown_split,
        precision_difference=difference,
    )


def _evaluate_predictions(
    model: keras.Model, labels: np.ndarray, **fields: Any
) -> AnyEvaluation:
    """Returns the evaluation that suits the labels; both kinds have `fields`."""
    if labels.ndim == 1:
        return Evaluation(labels=labels, **fields)
    thresholds = getattr(model, "label_thresholds", None)
    return MultiLabelEvaluation(labels=labels, thresholds=thresholds, **fields)


def _check_label_mode(model: keras.Model, multi_label: bool) -> None:
    """Refuses labels of another mode than that of the model."""
    if isinstance(model, ImageClassifier) and model.multi_label != multi_label:
        several, one = "several labels per image", "one class per image"
        raise InputError(
            f"The model knows {several if model.multi_label else one}. Received: data "
            f"with {several if multi_label else one}"
        )


def _refuse_split(split: str | None) -> None:
    if split is not None:
        raise InputError(
            "`split` is for data that a loader has split: all other images are "
            f"classified. Received: split={split!r}"
        )


def _load_all(model: keras.Model, data: str | os.PathLike[str]) -> ImageDatasets:
    """Loads all images of a folder as a model expects them."""
    size = getattr(model, "image_size", None) or tuple(model.input_shape[1:3])
    if None in size:
        raise InputError(
            "The model takes images of any size: pass "
            "`ImageDatasetLoader(folder, image_size).load()` as `datasets`."
        )
    return ImageDatasetLoader(
        data,
        image_size=size,
        resize=getattr(model, "resize", "stretch"),
        validation_split=0.0,
        split="random",
        class_names=getattr(model, "class_names", None),
        multi_label=getattr(model, "multi_label", False),
    ).load()


def _evaluate_batches(
    model: keras.Model, data: Any, class_names: Sequence[str] | None, tta: int
) -> AnyEvaluation:
    """Evaluates images without files."""
    multi_label = getattr(model, "multi_label", False)
    network, rows, labels = None, [], []
    try:
        for images, batch_labels in iterate_batches(data, multi_label):
            if len(images) != len(batch_labels):
                raise TypeError("images and labels differ in number")
            network = network or _average_views(model, images.shape[1:3], tta)
            rows.append(np.asarray(predict_batch(network, images)))
            labels.append(batch_labels)
    except TypeError as error:
        raise InputError(
            "`datasets` must be what `ImageDatasetLoader.load` returns, a folder, or "
            f"batches (images, labels). Received: {type(data).__name__}"
        ) from error
    if not rows:
        raise InputError("There are no images in `datasets`.")
    outputs, true = np.concatenate(rows), np.concatenate(labels)
    known = class_names or getattr(model, "class_names", None)
    if known is None:
        known = [str(label) for label in range(outputs.shape[-1])]
    highest = 1 if multi_label else len(known) - 1
    if true.min() < 0 or true.max() > highest:
        raise InputError(
            f"Labels must be integers from 0 to {highest}. "
            f"Received: {true.min()} to {true.max()}"
        )
    return _evaluate_predictions(
        model,
        true.astype(np.float32 if multi_label else np.int32),
        class_names=tuple(known),
        paths=tuple(Path(f"image {position}") for position in range(len(true))),
        probabilities=_check_probabilities(outputs, len(known)),
    )


def _average_views(
    model: keras.Model, image_size: tuple[int, int], tta: int
) -> keras.Model:
    """Returns a model that averages over views; the model itself for one view."""
    if isinstance(model, ImageClassifier):
        return model.averaging_views(tta)
    return average_views(model, image_size, tta)


def _predict_split(
    model: keras.Model, datasets: ImageDatasets, split: str, tta: int, precision: str
) -> tuple[np.ndarray, PredictionDifference | None]:
    """Returns the probabilities of a split, and what a lower precision changes."""
    batches: Any = datasets.in_order(split)
    count = len(datasets.records(split))
    if not isinstance(model, ImageClassifier):
        network = _average_views(model, datasets.image_size, tta)
        return _predict(network, batches, tta * count), None
    classifier = None
    if model.backbone is not None:
        # One batch is enough to compare, but not to calibrate int8.
        needed = 1 if precision == "float32" else CALIBRATION_IMAGES
        sample = take_spread(batches, needed)
        classifier = build_frozen_classifier(model, count, sample, precision, tta)
    if classifier is None:
        network = _average_views(model, datasets.image_size, tta)
        probabilities: np.ndarray = predict_batches(network, batches)
        return probabilities, None
    difference = None
    if precision != "float32":
        difference = measure_difference(model, classifier, sample, precision, tta)
    found = [classifier.predict(images) for images, _ in batches.as_numpy_iterator()]
    return np.concatenate(found), difference


def _predict(network: keras.Model, batches: Any, count: int) -> np.ndarray:
    """Returns the answers of a network for the images of a pipeline."""
    if any(isinstance(layer, Backbone) for layer in _layers_of(network)):
        sample, _ = next(iter(batches.as_numpy_iterator()))
        fast = build_openvino_predictor(network, count, sample)
        if fast is not None:
            return np.concatenate(
                [fast(images) for images, _ in batches.as_numpy_iterator()]
            )
    answers: np.ndarray = predict_batches(network, batches)
    return answers


def _layers_of(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yields the layers of a model, and those of models in it."""
    for layer in network.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers_of(layer)


def _check_probabilities(outputs: Any, classes: int) -> np.ndarray:
    shape = getattr(outputs, "shape", None)
    if shape is None or shape[1:] != (classes,):
        raise InputError(
            f"The model must return one probability for each of {classes} classes. "
            f"Received: outputs of shape {shape}"
        )
    probabilities = np.asarray(outputs, dtype=np.float32)
    finite = probabilities[np.isfinite(probabilities)]
    if finite.size and (finite.min() < 0 or finite.max() > 1 + _ROUNDING):
        raise InputError(
            "The model must return probabilities from 0 to 1, as a softmax does. "
            f"Received: numbers from {finite.min():.3g} to {finite.max():.3g}"
        )
    return probabilities


def arrange_confusion_matrix(evaluation: Evaluation) -> ConfusionGrid:
    """Returns what a drawing of the confusion matrix of an evaluation shows."""
    from scipy import sparse

    size = len(evaluation.class_names)
    cells = np.divmod(evaluation._cells, size)
    ones = np.ones(len(cells[0]), np.int64)
    title = f"{len(evaluation.labels)} images, accuracy {evaluation.accuracy:.3f}"
    if evaluation.non_finite:
        title += f"\n{evaluation.non_finite} non-finite predictions (NaN)"
    return arrange_confusions(
        # Sparse: tens of thousands of classes have no dense matrix.
        sparse.coo_array((ones, cells), (size, size)),
        evaluation.class_names,
        title,
        totals=np.bincount(evaluation.labels, minlength=size),
    )


def load_mistakes(evaluation: Evaluation, count: int) -> list[Tile]:
    """Returns the worst mistakes of an evaluation with their thumbnails.

    Args:
        evaluation: What `evaluate` returned.
        count: Maximum number of mistakes, a positive integer.
    """
    return [
        Tile(
            load_tile_image(mistake.path),
            (
                evaluation.shown_path(mistake.path),
                f"true: {mistake.true_class}",
                # The end of a caption is kept when it is shortened.
                f"predicted: {mistake.predicted_class or 'none'} "
                f"({mistake.probability:.3f})",
            ),
        )
        for mistake in evaluation.worst_mistakes(count)
    ]
