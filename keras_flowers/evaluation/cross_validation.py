"""Cross-validation: how good a classifier is, measured on every image."""

import dataclasses
import os
from typing import Any

import numpy as np

from keras_flowers.evaluation.evaluate import Evaluation
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

    evaluation: Evaluation
    fold_of: np.ndarray

    def __repr__(self) -> str:
        """Returns the figures, not the predictions."""
        low, high = self.evaluation.accuracy_interval
        return (
            f"CrossValidation({len(self.accuracies)} folds, "
            f"{len(self.fold_of)} images: accuracy {self.evaluation.accuracy:.3f} "
            f"({low:.3f} to {high:.3f}), of the folds {self.mean:.3f} "
            f"± {self.spread:.3f}, loss {self.evaluation.loss:.3f})"
        )

    def _repr_html_(self) -> str:
        rows = [
            [fold, int((self.fold_of == fold - 1).sum()), accuracy]
            for fold, accuracy in enumerate(self.accuracies, 1)
        ]
        return html_table(repr(self), ["fold", "images", "accuracy"], rows)

    @property
    def accuracies(self) -> tuple[float, ...]:
        """The accuracy on each fold."""
        is_right = self.evaluation.predictions == self.evaluation.labels
        folds = np.unique(self.fold_of)
        return tuple(float(is_right[self.fold_of == fold].mean()) for fold in folds)

    @property
    def mean(self) -> float:
        """The mean accuracy of the folds."""
        return float(np.mean(self.accuracies))

    @property
    def spread(self) -> float:
        """The standard deviation of the accuracies of the folds.

        It says how much accuracies on so few images vary, not how far the mean may be
        wrong: for that, see `evaluation.accuracy_interval`.
        """
        return float(np.std(self.accuracies, ddof=1))

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
        return {
            "folds": len(self.accuracies),
            "photos": len(self.fold_of),
            "accuracies": list(self.accuracies),
            "mean": self.mean,
            "spread": self.spread,
            "accuracy": self.evaluation.accuracy,
            "accuracy_interval": list(self.evaluation.accuracy_interval),
            "loss": self.evaluation.loss,
        }
