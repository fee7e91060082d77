"""Cross-validation: how good a classifier is, measured on every image."""

import dataclasses
import os
from functools import cached_property
from typing import Any

import numpy as np

from keras_flowers.evaluation.evaluate import AnyEvaluation, Evaluation
from keras_flowers.history import SCORES
from keras_flowers.notebook import html_table

# More classes would make a table that nothing opens.
_MOST_IN_TABLE = 100


@dataclasses.dataclass(frozen=True)
class CrossValidation:
    """Predictions for each image by a classifier that was trained without its fold.

    Attributes:
        evaluation: The out-of-fold predictions of all images.
        fold_of: int64 `(images,)`: the fold of each image, from 0 on.
    """

    evaluation: AnyEvaluation
    fold_of: np.ndarray

    def __repr__(self) -> str:
        """Returns the figures, not the predictions."""
        low, high = self.score_interval
        return (
            f"CrossValidation({len(self.scores)} folds, "
            f"{len(self.fold_of)} images: {self.score_name} {self.score:.3f} "
            f"({low:.3f} to {high:.3f}), of the folds {self.mean:.3f} "
            f"± {self.spread:.3f}, loss {self.evaluation.loss:.3f})"
        )

    def _repr_html_(self) -> str:
        rows = [
            [fold, int((self.fold_of == fold - 1).sum()), score]
            for fold, score in enumerate(self.scores, 1)
        ]
        return html_table(repr(self), ["fold", "images", self.score_name], rows)

    @property
    def score_name(self) -> str:
        """What the scores are: `"accuracy"`, or `"mean average precision"`.

        The latter where images may have several labels.
        """
        return SCORES[self._score]

    @property
    def score(self) -> float:
        """The score of all predictions together."""
        return float(getattr(self.evaluation, self._score))

    @property
    def score_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the score of all predictions."""
        low, high = getattr(self.evaluation, f"{self._score}_interval")
        return low, high

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """The score on each fold."""
        return tuple(self._score_fold(fold) for fold in np.unique(self.fold_of))

    @property
    def mean(self) -> float:
        """The mean score of the folds."""
        return float(np.mean(self.scores))

    @property
    def spread(self) -> float:
        """The standard deviation of the scores of the folds.

        It says how much scores on so few images vary, not how far the mean may be
        wrong: for that, see `score_interval`.
        """
        return float(np.std(self.scores, ddof=1))

    def write_predictions(self, path: str | os.PathLike[str]) -> None:
        """Writes the out-of-fold predictions as CSV, one row per image.

        The columns are those of `Evaluation.write_predictions`, with up to 100 classes,
        and `fold`, from 1 on.

        Args:
            path: The file to write or to replace, atomically. Its folder must exist.

        Raises:
            InputError: If the file cannot be written.
        """
        columns = {"fold": (self.fold_of + 1).tolist()}
        self.evaluation.write_predictions(path, _MOST_IN_TABLE, columns)

    def to_json(self) -> dict[str, Any]:
        """Returns the figures as plain numbers and lists."""
        name = self._score
        of_folds = "accuracies" if name == "accuracy" else f"{name}s"
        return {
            "folds": len(self.scores),
            "photos": len(self.fold_of),
            of_folds: list(self.scores),
            "mean": self.mean,
            "spread": self.spread,
            name: self.score,
            f"{name}_interval": list(self.score_interval),
            "loss": self.evaluation.loss,
        }

    @property
    def _score(self) -> str:
        is_single = isinstance(self.evaluation, Evaluation)
        return "accuracy" if is_single else "mean_average_precision"

    def _score_fold(self, fold: int) -> float:
        rows = np.flatnonzero(self.fold_of == fold)
        part: Any = dataclasses.replace(
            self.evaluation,
            paths=tuple(self.evaluation.paths[row] for row in rows),
            labels=self.evaluation.labels[rows],
            probabilities=self.evaluation.probabilities[rows],
        )
        return float(getattr(part, self._score))
