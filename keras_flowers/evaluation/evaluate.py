"""How good a classifier is: per class, and which classes it takes for which."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_flowers.argument_checks import check_integer
from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.errors import InputError
from keras_flowers.evaluation.calibration import Calibration, measure_calibration
from keras_flowers.files import write_csv_atomically
from keras_flowers.plots.confusion_matrix import draw_confusion_matrix
from keras_flowers.plots.image_grid import Tile, draw_contact_sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# What a file or a screen takes: beyond it, the cells that are not zero are enough.
_MOST_IN_JSON_MATRIX = 1000
_MOST_ON_SHEET = 1000
_ROWS_AT_ONCE = 4096
# Above 1 by the rounding of 16 bits is no mistake of the model.
_ROUNDING = 0.01


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """The scores of one class, all in 0..1 but for the count.

    Attributes:
        precision: Of the images classified so, the part that is right; 0 if none is.
        recall: Of the images of the class, the part that was found; 0 without any.
        f1: Harmonic mean of precision and recall.
        count: Images of the class.
    """

    precision: float
    recall: float
    f1: float
    count: int


@dataclasses.dataclass(frozen=True)
class Confusion:
    """How often one class is taken for another.

    Attributes:
        true_class: What the images are.
        predicted_class: What they were called.
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
        predicted_class: The most probable class; `None` where the probabilities are
            no numbers.
        probability: That of the predicted class, 0..1, or NaN.
        true_probability: That of the true class, 0..1, or NaN.
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
    """What a model said of images whose class is known.

    A model that diverged gives NaN instead of probabilities. Such an image has no
    predicted class: it counts as a mistake, is in no column of the confusion matrix,
    and `unanswered` says how many there are.

    Attributes:
        class_names: Position `i` is the name of label `i`.
        paths: The images, in the order of the rows below.
        labels: int32 `(count,)`, the true label of each image.
        probabilities: float32 `(count, classes)`, each row sums to 1.
        root: The data folder, below which drawings and tables show the paths.
        split: The split that the images are; `None` where it is not known.
    """

    class_names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    root: Path | None = None
    split: str | None = None

    @cached_property
    def predictions(self) -> np.ndarray:
        """The most probable label of each image, int32 `(count,)`; -1 for NaN."""
        is_finite = np.isfinite(self.probabilities).all(axis=1)
        best = self.probabilities.argmax(axis=1)
        return np.where(is_finite, best, -1).astype(np.int32)

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
        """The part of the images whose most probable class is the true one."""
        return float((self.predictions == self.labels).mean())

    @property
    def mistakes(self) -> int:
        """The number of images whose predicted class is not the true one."""
        return int(np.count_nonzero(self.predictions != self.labels))

    @property
    def unanswered(self) -> int:
        """The number of images whose probabilities are no numbers (NaN)."""
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
        size = len(self.class_names)
        answered = self.predictions[self.predictions >= 0]
        right = np.bincount(
            self.labels[self.predictions == self.labels], minlength=size
        )
        true = np.bincount(self.labels, minlength=size)
        said = np.bincount(answered, minlength=size)
        precision = right / np.maximum(said, 1)
        recall = right / np.maximum(true, 1)
        f1 = 2 * right / np.maximum(true + said, 1)
        columns = (precision.tolist(), recall.tolist(), f1.tolist(), true.tolist())
        rows = zip(*columns, strict=True)
        names = self.class_names
        return {n: ClassScores(*row) for n, row in zip(names, rows, strict=True)}

    def top_k(self, k: int = 3) -> tuple[np.ndarray, np.ndarray]:
        """Returns the most probable classes of each image, the first the most.

        Args:
            k: Number of classes, a positive integer; no more than there are.

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
        """Returns the images with the highest loss of those that are predicted wrong.

        Args:
            count: How many at most, a positive integer. Fewer where the model made
                fewer mistakes.

        Returns:
            The mistakes, that with the highest loss first; NaN is higher than any
            number.

        Raises:
            InputError: If `count` is no positive integer.
        """
        count = check_integer("count", count, lowest=1)
        ranks = np.where(np.isnan(self.losses), np.inf, self.losses)
        order = np.argsort(-ranks, kind="stable")
        wrong = order[self.predictions[order] != self.labels[order]]
        return tuple(self._mistake(index) for index in wrong[:count].tolist())

    def calibration(self, bins: int = 15) -> Calibration:
        """Returns whether the model is right as often as it is sure.

        Args:
            bins: Number of intervals of equal width into which the images are sorted
                by the probability of their predicted class; 15 as in Guo et al.
                (2017).

        Raises:
            InputError: If `bins` is no positive integer.
        """
        answered = self.predictions >= 0
        confidences = np.where(answered, self.probabilities.max(axis=1), np.nan)
        return measure_calibration(confidences, self.predictions == self.labels, bins)

    def shown_path(self, path: Path) -> str:
        """Returns an image's path below the data folder, where it stands in there."""
        if self.root is not None and path.is_relative_to(self.root):
            path = path.relative_to(self.root)
        return os.fspath(path)

    def to_json(self, worst: int = 24) -> dict[str, Any]:
        """Returns the summary as plain numbers, strings and lists.

        Args:
            worst: How many of the worst mistakes it holds. Classes and confusions
                are all there; the confusion matrix as a whole is, up to 1000 classes,
                else `None`.
        """
        is_small = len(self.class_names) <= _MOST_IN_JSON_MATRIX
        return {
            "photos": len(self.labels),
            "loss": self.loss,
            "accuracy": self.accuracy,
            "mistakes": self.mistakes,
            "unanswered": self.unanswered,
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

    def write_predictions(self, path: str | os.PathLike[str], top: int = 3) -> None:
        """Writes what the model said of each image as CSV, a row per image.

        The columns are `path`, `true_class`, `loss`, and for each of the most probable
        classes `class_1`, `probability_1` and so on. Where the probabilities are no
        numbers the classes are empty and the numbers `nan`.

        Args:
            path: The file to write or to replace, which appears when it is complete.
                Its folder must exist.
            top: Number of classes, a positive integer; no more than there are.

        Raises:
            InputError: If `top` is no positive integer, or the file cannot be written.
        """
        check_integer("top", top, lowest=1)
        write_csv_atomically(path, self._prediction_rows(*self.top_k(top)))

    def plot_confusion_matrix(self) -> "Figure":
        """Draws the confusion matrix: counts, shaded by the part of the true class.

        Up to 25 classes with counts, up to 60 with names; of more than 500 classes
        neighbours share a cell.

        Returns:
            A `matplotlib.figure.Figure`; it belongs to no window.
        """
        title = f"{len(self.labels)} photos, accuracy {self.accuracy:.3f}"
        if self.unanswered:
            title += f"\n{self.unanswered} photos without probabilities (NaN)"
        return draw_confusion_matrix(
            self.labels, self.predictions, self.class_names, title
        )

    def plot_reliability(self, bins: int = 15) -> "Figure":
        """Draws the reliability diagram: see `calibration` and `Calibration.plot`."""
        return self.calibration(bins).plot()

    def plot_mistakes(self, count: int = 24) -> "Figure":
        """Draws the worst mistakes as a sheet of images, the highest loss first.

        Below each image stand its path, its true class, and the predicted class with
        its probability. The files are read anew, as in training.

        Args:
            count: How many at most, from 1 to 1000.

        Returns:
            A `matplotlib.figure.Figure`; it belongs to no window.

        Raises:
            InputError: If `count` is out of range.
        """
        count = check_integer("count", count, lowest=1, highest=_MOST_ON_SHEET)
        mistakes = self.worst_mistakes(count)
        tiles = [Tile(one.path, self._caption(one)) for one in mistakes]
        shown = f"{len(mistakes)} of {self.mistakes} mistakes, highest loss first"
        title = shown if mistakes else f"no mistake in {len(self.labels)} photos"
        return draw_contact_sheet(tiles, title)

    @cached_property
    def _cells(self) -> np.ndarray:
        """The cell of the confusion matrix, in one row, of each answered image."""
        answered = self.predictions >= 0
        true = self.labels[answered].astype(np.int64)
        cells: np.ndarray = true * len(self.class_names) + self.predictions[answered]
        return cells

    def _mistake(self, index: int) -> Mistake:
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

    def _caption(self, mistake: Mistake) -> tuple[str, str, str]:
        predicted = mistake.predicted_class
        answer = "none" if predicted is None else predicted
        return (
            self.shown_path(mistake.path),
            f"true: {mistake.true_class}",
            # At the end, which stays when a long name is shortened.
            f"predicted: {answer} ({mistake.probability:.3f})",
        )

    def _prediction_rows(
        self, top_labels: np.ndarray, top_probabilities: np.ndarray
    ) -> Iterator[list[Any]]:
        places = range(1, top_labels.shape[1] + 1)
        columns = (f"{name}_{i}" for i in places for name in ("class", "probability"))
        yield ["path", "true_class", "loss", *columns]
        names = self.class_names
        for index, path in enumerate(self.paths):
            is_answered = self.predictions[index] >= 0
            pairs = zip(top_labels[index], top_probabilities[index], strict=True)
            answers = (
                cell
                for label, probability in pairs
                for cell in (names[label] if is_answered else "", probability)
            )
            true = names[self.labels[index]]
            yield [os.fspath(path), true, self.losses[index], *answers]


def evaluate(
    model: keras.Model,
    datasets: ImageDatasets,
    split: str = "validation",
    class_names: Sequence[str] | None = None,
) -> Evaluation:
    """Classifies every image of a split and compares with its folder.

    Args:
        model: An `ImageClassifier`, or any model that maps batches of images
            (uint8 `(batch, height, width, 3)`) to probabilities
            `(batch, classes)`.
        datasets: What `ImageDatasetLoader.load` returned.
        split: `"train"`, `"validation"` or `"test"`.
        class_names: The model's class names by label; by default its attribute
            `class_names`, and without one those of `datasets`.

    Returns:
        `Evaluation`, its rows in the order of `datasets.paths(split)`.

    Raises:
        InputError: If the split is empty, the data has a class that the model does
            not know, or the model gives something other than one probability per
            class.
    """
    images = datasets.in_order(split)
    if images is None:
        raise InputError(f"There are no photos in the split {split!r}.")
    known = tuple(
        class_names or getattr(model, "class_names", None) or datasets.class_names
    )
    unknown = sorted(set(datasets.class_names) - set(known))
    if unknown:
        raise InputError(
            f"The model knows the classes {list(known)}; the data also has {unknown}."
        )
    position = {name: label for label, name in enumerate(known)}
    label_of = np.array([position[name] for name in datasets.class_names])
    with datasets.naming_unreadable_images():
        probabilities = model.predict(images.map(lambda batch, _: batch), verbose=0)
    return Evaluation(
        class_names=known,
        paths=datasets.paths(split),
        labels=label_of[datasets.labels(split)].astype(np.int32),
        probabilities=_checked_probabilities(probabilities, len(known)),
        root=datasets.audit.root,
        split=split,
    )


def _checked_probabilities(outputs: Any, classes: int) -> np.ndarray:
    shape = getattr(outputs, "shape", None)
    if shape is None or shape[1:] != (classes,):
        raise InputError(
            f"The model must give one probability for each of {classes} classes. "
            f"Received: outputs of shape {shape}"
        )
    probabilities = np.asarray(outputs, dtype=np.float32)
    finite = probabilities[np.isfinite(probabilities)]
    if finite.size and (finite.min() < 0 or finite.max() > 1 + _ROUNDING):
        raise InputError(
            "The model must give probabilities, from 0 to 1, as a softmax does. "
            f"Received: numbers from {finite.min():.3g} to {finite.max():.3g}"
        )
    return probabilities
