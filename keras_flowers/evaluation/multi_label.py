"""How good a classifier is where an image may have several labels, or none."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_flowers.argument_checks import check_integer
from keras_flowers.evaluation.calibration import Calibration, measure_calibration
from keras_flowers.evaluation.mistake_grid import (
    MOST_IN_GRID,
    draw_mistakes,
    load_tile_image,
)
from keras_flowers.evaluation.resampling import (
    average_known,
    compute_average_precisions,
    compute_interval,
    draw_weights,
)
from keras_flowers.files import path_below, write_csv_atomically
from keras_flowers.models.frozen_prediction import PredictionDifference
from keras_flowers.models.label_modes import DEFAULT_THRESHOLD, MULTI_LABEL
from keras_flowers.notebook import html_table
from keras_flowers.plots.image_grid import Tile
from keras_flowers.plots.label_scores import (
    draw_average_precision,
    draw_precision_recall,
)
from keras_flowers.scores import wilson_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEPARATOR = "|"
"""What separates labels in the files that an evaluation writes."""


@dataclasses.dataclass(frozen=True)
class LabelScores:
    """The scores of one label, in 0..1, and its number of images.

    Attributes:
        average_precision: The mean precision over the images that have the label, in
            the order of their probabilities; it depends on no threshold. `None` if no
            image has the label.
        precision: Of the images that the model gives the label, the fraction that has
            it; 0 if there are none.
        precision_interval: Its 95 % confidence interval (Wilson, 1927).
        recall: Of the images that have the label, the fraction to which the model gives
            it; 0 if there are none.
        recall_interval: Its 95 % confidence interval.
        f1: Harmonic mean of precision and recall.
        count: Number of images that have the label.
        threshold: The lowest probability with which the model gives the label.
    """

    average_precision: float | None
    precision: float
    precision_interval: tuple[float, float]
    recall: float
    recall_interval: tuple[float, float]
    f1: float
    count: int
    threshold: float


@dataclasses.dataclass(frozen=True)
class LabelMistake:
    """An image with a label that is missing or wrong.

    Attributes:
        path: The image.
        true_labels: The labels that it has.
        predicted_labels: The labels that the model gives it, the most probable first;
            `None` if the prediction is non-finite.
        loss: Binary cross-entropy in nats, summed over the labels, or NaN.
    """

    path: Path
    true_labels: tuple[str, ...]
    predicted_labels: tuple[str, ...] | None
    loss: float

    @property
    def missing(self) -> tuple[str, ...]:
        """The labels that the image has and the model does not give it."""
        found = self.predicted_labels or ()
        return tuple(name for name in self.true_labels if name not in found)

    @property
    def wrong(self) -> tuple[str, ...]:
        """The labels that the model gives the image and it does not have."""
        found = self.predicted_labels or ()
        return tuple(name for name in found if name not in self.true_labels)

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes as plain numbers, strings and lists."""
        return {
            "path": os.fspath(self.path),
            "true_labels": list(self.true_labels),
            "predicted_labels": (
                None if self.predicted_labels is None else list(self.predicted_labels)
            ),
            "loss": self.loss,
        }


@dataclasses.dataclass(frozen=True)
class MultiLabelEvaluation:
    """The predictions of a model for images whose labels are known.

    A model that diverged returns NaN instead of probabilities. A non-finite prediction
    counts as a mistake without labels; `non_finite` is the number of them.

    Attributes:
        class_names: Position `i` is the name of label `i`.
        paths: The images, in the order of the rows below.
        labels: Float32 `(count, classes)`, 1 for each label of an image, else 0.
        probabilities: float32 `(count, classes)`, that of each label by itself.
        thresholds: The lowest probability of each label that is an answer; `None` for
            0.5.
        root: The data folder; drawings and tables show paths relative to it.
        split: The split that the images belong to; `None` if it is not known.
        precision_difference: What a lower inference precision changes; `None` in
            float32.
    """

    class_names: tuple[str, ...]
    paths: tuple[Path, ...]
    labels: np.ndarray
    probabilities: np.ndarray
    thresholds: tuple[float, ...] | None = None
    root: Path | None = None
    split: str | None = None
    precision_difference: PredictionDifference | None = None

    def __repr__(self) -> str:
        """Returns the figures, not the predictions."""
        split = f" of {self.split}" if self.split else ""
        return (
            f"MultiLabelEvaluation({len(self.labels)} images{split}, "
            f"{len(self.class_names)} classes: mean average precision "
            f"{self.mean_average_precision:.3f}, F1 {self.f1_micro:.3f}, loss "
            f"{self.loss:.3f}, {self.mistakes} mistakes)"
        )

    def _repr_html_(self) -> str:
        rows = [
            [name, one.average_precision, one.precision, one.recall, one.f1, one.count]
            for name, one in self.per_class.items()
        ]
        heads = ["class", "average precision", "precision", "recall", "F1", "images"]
        return html_table(repr(self), heads, rows)

    @cached_property
    def predictions(self) -> np.ndarray:
        """The labels that the model gives each image, bool `(count, classes)`."""
        return MULTI_LABEL.find_labels(self.probabilities, self.thresholds)

    @cached_property
    def losses(self) -> np.ndarray:
        """The binary cross-entropy of each image, summed over labels, `(count,)`."""
        tiny = np.finfo(np.float32).tiny
        of_true = np.where(self.labels == 1, self.probabilities, 1 - self.probabilities)
        losses: np.ndarray = -np.log(np.maximum(of_true, tiny)).sum(axis=1)
        return losses

    @property
    def loss(self) -> float:
        """The mean over the images of `losses`, in nats."""
        return float(self.losses.mean())

    @cached_property
    def is_wrong(self) -> np.ndarray:
        """Whether an image has a label that is missing or wrong, bool `(count,)`."""
        is_non_finite = ~np.isfinite(self.probabilities).all(axis=1)
        is_different = (self.predictions != (self.labels == 1)).any(axis=1)
        is_wrong: np.ndarray = is_different | is_non_finite
        return is_wrong

    @property
    def mistakes(self) -> int:
        """The number of images with a label that is missing or wrong."""
        return int(np.count_nonzero(self.is_wrong))

    @property
    def exact_match(self) -> float:
        """The fraction of images whose labels are all right."""
        return 1 - self.mistakes / len(self.labels)

    @property
    def exact_match_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the exact match (Wilson, 1927)."""
        total = len(self.labels)
        return wilson_interval(total - self.mistakes, total)

    @property
    def binary_accuracy(self) -> float:
        """The fraction of answers, one for each image and label, that are right."""
        return float((self.predictions == (self.labels == 1)).mean())

    @property
    def non_finite(self) -> int:
        """The number of images whose prediction is non-finite (NaN or infinity)."""
        return int((~np.isfinite(self.probabilities).all(axis=1)).sum())

    @cached_property
    def ranking_scores(self) -> np.ndarray:
        """The probabilities by which images are ranked; 0 for non-finite ones.

        Where a model diverged, no image is more probable than another.
        """
        is_finite = np.isfinite(self.probabilities)
        scores: np.ndarray = np.where(is_finite, self.probabilities, np.float32(0))
        return scores

    @cached_property
    def per_class(self) -> dict[str, LabelScores]:
        """The scores of each label by name."""
        from sklearn.metrics import average_precision_score

        thresholds = self.thresholds or (DEFAULT_THRESHOLD,) * len(self.class_names)
        scores = {}
        for index, name in enumerate(self.class_names):
            true, found = self.labels[:, index] == 1, self.predictions[:, index]
            right, count, given = (int(a.sum()) for a in (true & found, true, found))
            scores[name] = LabelScores(
                float(average_precision_score(true, self.ranking_scores[:, index]))
                if count
                else None,
                right / given if given else 0.0,
                wilson_interval(right, given),
                right / count if count else 0.0,
                wilson_interval(right, count),
                2 * right / (count + given) if count + given else 0.0,
                count,
                thresholds[index],
            )
        return scores

    @property
    def mean_average_precision(self) -> float:
        """The mean average precision of the labels that any image has, or NaN."""
        found = (one.average_precision for one in self.per_class.values())
        known = [value for value in found if value is not None]
        return float(np.mean(known)) if known else float("nan")

    @cached_property
    def mean_average_precision_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the mean average precision, or NaN.

        It comes from a bootstrap: the images are drawn 1,000 times with replacement.
        The same predictions always give the same interval.
        """
        draws = draw_weights(len(self.labels))
        means = [average_known(self.resample_average_precisions(w)) for w in draws]
        return compute_interval(np.concatenate(means))

    def resample_average_precisions(self, weights: np.ndarray) -> np.ndarray:
        """Returns the average precision of each label for weightings of the images.

        Args:
            weights: Float `(weightings, count)`.

        Returns:
            Float `(weightings, classes)`; NaN where no image with a weight has the
            label.
        """
        pairs = zip((self.labels == 1).T, self.ranking_scores.T, strict=True)
        columns = [compute_average_precisions(*pair, weights) for pair in pairs]
        return np.stack(columns, axis=1)

    @property
    def f1_macro(self) -> float:
        """The mean F1 of the labels that any image has, or NaN."""
        known = [one.f1 for one in self.per_class.values() if one.count]
        return float(np.mean(known)) if known else float("nan")

    @property
    def f1_micro(self) -> float:
        """The F1 of all answers together, one for each image and label."""
        true, found = self.labels == 1, self.predictions
        total = int(true.sum() + found.sum())
        return 2 * int((true & found).sum()) / total if total else 1.0

    def worst_mistakes(self, count: int = 24) -> tuple[LabelMistake, ...]:
        """Returns the images with a missing or wrong label, the highest loss first.

        Args:
            count: Maximum number of mistakes, a positive integer.

        Returns:
            The mistakes. Non-finite predictions come before all others.

        Raises:
            InputError: If `count` is no positive integer.
        """
        count = check_integer("count", count, lowest=1)
        losses = np.where(np.isfinite(self.losses), self.losses, np.inf)
        order = np.argsort(-losses, kind="stable")
        ranked = order[self.is_wrong[order]][:count]
        return tuple(self._describe_mistake(index) for index in ranked.tolist())

    def calibration(self, bins: int = 15) -> Calibration:
        """Returns how well the probabilities match the fractions that have the label.

        Args:
            bins: Number of bins of equal width into which all pairs of an image and a
                label are sorted by their probability.

        Raises:
            InputError: If `bins` is no positive integer.
        """
        found = measure_calibration(
            self.probabilities.ravel(), self.labels.ravel() == 1, bins
        )
        return dataclasses.replace(found, of_labels=True)

    def shown_path(self, path: Path) -> str:
        """Returns the path of an image, relative to the data folder if it is in it."""
        return path_below(self.root, path)

    def to_json(self, worst: int = 24) -> dict[str, Any]:
        """Returns the summary as plain numbers, strings and lists.

        Args:
            worst: Number of the worst mistakes that it holds, a positive integer.
        """
        return {
            "photos": len(self.labels),
            "multi_label": True,
            "loss": self.loss,
            "mean_average_precision": self.mean_average_precision,
            "mean_average_precision_interval": list(
                self.mean_average_precision_interval
            ),
            "f1_micro": self.f1_micro,
            "f1_macro": self.f1_macro,
            "binary_accuracy": self.binary_accuracy,
            "exact_match": self.exact_match,
            "exact_match_interval": list(self.exact_match_interval),
            "mistakes": self.mistakes,
            "unanswered": self.non_finite,
            "per_class": {
                name: dataclasses.asdict(scores)
                for name, scores in self.per_class.items()
            },
            "class_names": list(self.class_names),
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

        The columns are `path`, relative to the data folder, `true_labels` and
        `predicted_labels` (with `|` between them), `loss`, and for each of the most
        probable classes `class_1`, `probability_1` and so on.

        Args:
            path: The file to write or to replace, atomically. Its folder must exist.
            top: Number of classes, a positive integer; capped at the number of classes
                that there are.
            columns: Further columns by name, a value for each image. They follow
                `predicted_labels`.

        Raises:
            InputError: If `top` is no positive integer, or the file cannot be written.
        """
        top = min(check_integer("top", top, lowest=1), len(self.class_names))
        write_csv_atomically(path, self._prediction_rows(top, columns or {}))

    def plot_average_precision(self) -> "Figure":
        """Draws the average precision of each label as a bar, the lowest first.

        Returns:
            A `matplotlib.figure.Figure` without a window.
        """
        values = {
            name: one.average_precision
            for name, one in self.per_class.items()
            if one.average_precision is not None
        }
        return draw_average_precision(values, self.mean_average_precision)

    def plot_precision_recall(self) -> "Figure":
        """Draws precision over recall of each label and of all labels together.

        Dots are the thresholds of the model.

        Returns:
            A `matplotlib.figure.Figure` without a window.
        """
        return draw_precision_recall(
            self.class_names, self.labels, self.probabilities, self.per_class
        )

    def plot_reliability(self, bins: int = 15) -> "Figure":
        """Draws the reliability diagram: see `calibration` and `Calibration.plot`."""
        return self.calibration(bins).plot()

    def plot_mistakes(self, count: int = 24) -> "Figure":
        """Draws the worst mistakes in a grid, highest loss first.

        The caption of each image is its path, the labels that are missing, and those
        that are wrong. The files are read again, as in training.

        Args:
            count: Maximum number of mistakes, from 1 to 1000.

        Returns:
            A `matplotlib.figure.Figure` without a window.

        Raises:
            InputError: If `count` is out of range.
        """
        count = check_integer("count", count, lowest=1, highest=MOST_IN_GRID)
        return draw_mistakes(
            load_label_mistakes(self, count), self.mistakes, len(self.labels)
        )

    def name_labels(self, flags: np.ndarray) -> tuple[str, ...]:
        """Returns the labels that are true in `flags`, bool `(classes,)`."""
        return tuple(self.class_names[label] for label in np.flatnonzero(flags))

    def _describe_mistake(self, index: int) -> LabelMistake:
        row = self.probabilities[index]
        order = np.argsort(-row, kind="stable")
        found = self.predictions[index][order]
        is_finite = bool(np.isfinite(row).all())
        predicted = tuple(self.class_names[label] for label in order[found])
        return LabelMistake(
            self.paths[index],
            self.name_labels(self.labels[index] == 1),
            predicted if is_finite else None,
            float(self.losses[index]),
        )

    def _prediction_rows(
        self, top: int, further: Mapping[str, Sequence[Any]]
    ) -> Iterator[list[Any]]:
        places = range(1, top + 1)
        columns = (f"{name}_{i}" for i in places for name in ("class", "probability"))
        yield ["path", "true_labels", "predicted_labels", *further, "loss", *columns]
        for index, path in enumerate(self.paths):
            row = self.probabilities[index]
            best = np.argsort(-row, kind="stable")[:top]
            cells = (cell for i in best for cell in (self.class_names[i], row[i]))
            yield [
                self.shown_path(path),
                SEPARATOR.join(self.name_labels(self.labels[index] == 1)),
                SEPARATOR.join(self.name_labels(self.predictions[index])),
                *(values[index] for values in further.values()),
                self.losses[index],
                *cells,
            ]


def load_label_mistakes(evaluation: MultiLabelEvaluation, count: int) -> list[Tile]:
    """Returns the worst mistakes of an evaluation with their thumbnails.

    Args:
        evaluation: The evaluation.
        count: Maximum number of mistakes, a positive integer.
    """
    return [
        Tile(
            load_tile_image(mistake.path),
            (
                evaluation.shown_path(mistake.path),
                f"missing: {_join(mistake.missing)}",
                f"wrong: {_join(mistake.wrong)}",
            ),
        )
        for mistake in evaluation.worst_mistakes(count)
    ]


def _join(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
