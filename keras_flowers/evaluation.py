"""How good a classifier is: per class, and which classes it takes for which."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_flowers.dataset_loader import ImageDatasets
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class ClassScores:
    """The scores of one class, all in 0..1 but for the count.

    Attributes:
        precision: Of the photos classified so, the part that is right; 0 if none is.
        recall: Of the photos of the class, the part that was found; 0 without any.
        f1: Harmonic mean of precision and recall.
        count: Photos of the class.
    """

    precision: float
    recall: float
    f1: float
    count: int


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model said of photos whose class is known.

    Attributes:
        class_names: Position `i` is the name of label `i`.
        paths: The photos, in the order of the rows below.
        labels: int32 `(count,)`, the true label of each photo.
        probabilities: float32 `(count, classes)`, each row sums to 1.
    """

    class_names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray
    probabilities: np.ndarray

    @cached_property
    def losses(self) -> np.ndarray:
        """The cross-entropy of each photo, float `(count,)`, in nats."""
        true = self.probabilities[np.arange(len(self.labels)), self.labels]
        losses: np.ndarray = -np.log(np.maximum(true, np.finfo(np.float32).tiny))
        return losses

    @property
    def loss(self) -> float:
        """The mean cross-entropy in nats."""
        return float(self.losses.mean())

    @property
    def accuracy(self) -> float:
        """The part of the photos whose most probable class is the true one."""
        return float((self.probabilities.argmax(axis=1) == self.labels).mean())

    @cached_property
    def confusion_matrix(self) -> np.ndarray:
        """Counts, int64 `(classes, classes)`; rows are true, columns predicted."""
        size = len(self.class_names)
        cells = self.labels.astype(np.int64) * size + self.probabilities.argmax(axis=1)
        return np.bincount(cells, minlength=size * size).reshape(size, size)

    @property
    def per_class(self) -> dict[str, ClassScores]:
        """The scores of each class by name."""
        matrix = self.confusion_matrix
        right, true, said = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
        precision = right / np.maximum(said, 1)
        recall = right / np.maximum(true, 1)
        f1 = 2 * right / np.maximum(true + said, 1)
        columns = (precision.tolist(), recall.tolist(), f1.tolist(), true.tolist())
        rows = zip(*columns, strict=True)
        names = self.class_names
        return {n: ClassScores(*row) for n, row in zip(names, rows, strict=True)}

    def to_json(self) -> dict[str, Any]:
        """Returns the summary as plain numbers, strings and lists."""
        return {
            "photos": len(self.labels),
            "loss": self.loss,
            "accuracy": self.accuracy,
            "per_class": {
                name: dataclasses.asdict(scores)
                for name, scores in self.per_class.items()
            },
            "class_names": list(self.class_names),
            "confusion_matrix": self.confusion_matrix.tolist(),
        }

    def plot_confusion_matrix(self) -> "Figure":
        """Draws the confusion matrix: counts, shaded by the part of the true class."""
        from matplotlib.figure import Figure

        matrix = self.confusion_matrix
        size = len(self.class_names)
        shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        side = max(4.5, 1.5 + 0.7 * size)
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, label="part of the true class", shrink=0.8)
        # Any folder name can be a class: control characters, and the dollar signs in
        # which matplotlib sees formulas.
        names = [printable_path(name).replace("$", r"\$") for name in self.class_names]
        axes.set_xticks(range(size), names, rotation=45, ha="right")
        axes.set_yticks(range(size), names)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(f"{len(self.labels)} photos, accuracy {self.accuracy:.3f}")
        for (row, column), count in np.ndenumerate(matrix):
            colour = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, count, ha="center", va="center", color=colour)
        return figure


def evaluate(
    model: keras.Model,
    datasets: ImageDatasets,
    split: str = "validation",
    class_names: Sequence[str] | None = None,
) -> Evaluation:
    """Classifies every photo of a split and compares with its folder.

    Args:
        model: An `ImageClassifier`, or any model that maps batches of photos
            (uint8 `(batch, height, width, 3)`) to probabilities
            `(batch, classes)`.
        datasets: What `ImageDatasetLoader.load` returned.
        split: `"train"`, `"validation"` or `"test"`.
        class_names: The model's class names by label; by default its attribute
            `class_names`, and without one those of `datasets`.

    Returns:
        `Evaluation`, its rows in the order of `datasets.paths(split)`.

    Raises:
        InputError: If the split is empty, or the data has a class that the model
            does not know.
    """
    photos = datasets.in_order(split)
    if photos is None:
        raise InputError(f"There are no photos in the split {split!r}.")
    known = class_names or getattr(model, "class_names", None) or datasets.class_names
    unknown = sorted(set(datasets.class_names) - set(known))
    if unknown:
        raise InputError(
            f"The model knows the classes {list(known)}; the data also has {unknown}."
        )
    label_of = np.array([list(known).index(name) for name in datasets.class_names])
    try:
        probabilities = model.predict(photos.map(lambda images, _: images), verbose=0)
    except Exception as error:
        raise next(iter(datasets.read_errors), error) from error
    return Evaluation(
        class_names=tuple(known),
        paths=datasets.paths(split),
        labels=label_of[datasets.labels(split)].astype(np.int32),
        probabilities=np.asarray(probabilities, dtype=np.float32),
    )
