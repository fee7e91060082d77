"""Compares two models on the same images: which is better, and where they differ."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_flowers.errors import InputError
from keras_flowers.evaluation.differences import (
    Difference,
    compare_means,
    compare_shares,
    compute_p_value,
    order_changes,
)
from keras_flowers.evaluation.evaluate import AnyEvaluation, Evaluation
from keras_flowers.evaluation.label_comparison import MultiLabelComparison
from keras_flowers.evaluation.multi_label import MultiLabelEvaluation
from keras_flowers.files import write_csv_atomically


@dataclasses.dataclass(frozen=True)
class ChangedImage:
    """An image for which two models predict different classes.

    Attributes:
        path: The image.
        true_class: The class of its folder.
        first_class: What the first model predicts; `None` for a non-finite prediction.
        first_probability: The probability of that class, or NaN.
        second_class: What the second model predicts, or `None`.
        second_probability: The probability of that class, or NaN.
        change: `"fixed"` where only the second model is right, `"broken"` where only
            the first one is, `"moved"` where neither is.
    """

    path: Path
    true_class: str
    first_class: str | None
    first_probability: float
    second_class: str | None
    second_probability: float
    change: str

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes as plain numbers and strings."""
        return dataclasses.asdict(self) | {"path": os.fspath(self.path)}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two models on the same images.

    Attributes:
        first: The evaluation of the first model.
        second: That of the second model, its images and classes in the same order.
    """

    first: Evaluation
    second: Evaluation

    def __repr__(self) -> str:
        """Returns the figures, not the predictions."""
        return (
            f"Comparison({len(self.first.labels)} images: accuracy "
            f"{self.first.accuracy:.3f} and {self.second.accuracy:.3f}, "
            f"{self.fixed} fixed, {self.broken} broken, p = {self.p_value:.3g})"
        )

    @property
    def fixed(self) -> int:
        """The number of images that only the second model gets right."""
        return int(np.count_nonzero(~self._is_right(0) & self._is_right(1)))

    @property
    def broken(self) -> int:
        """The number of images that only the first model gets right."""
        return int(np.count_nonzero(self._is_right(0) & ~self._is_right(1)))

    @property
    def p_value(self) -> float:
        """The p-value of McNemar's exact test.

        How probable a difference of the accuracies at least this large is between two
        models that are equally good: a small value, such as below 0.05, speaks for a
        real difference. Only images that one model gets right and the other wrong
        count. The test takes the images as independent.
        """
        return compute_p_value(self.fixed, self.broken)

    @property
    def accuracy(self) -> Difference:
        """The difference of the accuracies, second minus first.

        The interval is that of Bonett and Price (2012) for paired shares.
        """
        return compare_shares(self.fixed, self.broken, len(self.first.labels))

    @property
    def loss(self) -> Difference:
        """The difference of the mean losses in nats; negative means better.

        The interval is that of a paired t-test; NaN if a prediction is non-finite or
        there is only one image.
        """
        return compare_means(self.first.losses, self.second.losses)

    @property
    def per_class(self) -> dict[str, Difference]:
        """The difference of the recalls of each class that has images."""
        first, second, labels = self._is_right(0), self._is_right(1), self.first.labels
        differences = {}
        for label, name in enumerate(self.first.class_names):
            of_class = labels == label
            if of_class.any():
                differences[name] = compare_shares(
                    int(np.count_nonzero(of_class & ~first & second)),
                    int(np.count_nonzero(of_class & first & ~second)),
                    int(np.count_nonzero(of_class)),
                )
        return differences

    @property
    def changed(self) -> tuple[ChangedImage, ...]:
        """The images whose predicted class differs: broken, fixed, then moved ones.

        In each group, those whose loss changes most come first.
        """
        names = self.first.class_names
        before, after = self.first.predictions, self.second.predictions
        changes = order_changes(
            before != after,
            self._is_right(0),
            self._is_right(1),
            self.second.losses - self.first.losses,
        )

        def name_of(label: int) -> str | None:
            return None if label < 0 else names[label]

        return tuple(
            ChangedImage(
                path=self.first.paths[index],
                true_class=names[self.first.labels[index]],
                first_class=name_of(int(before[index])),
                first_probability=float(self.first.probabilities[index].max()),
                second_class=name_of(int(after[index])),
                second_probability=float(self.second.probabilities[index].max()),
                change=change,
            )
            for index, change in changes
        )

    def to_json(self, most_changed: int = 1000) -> dict[str, Any]:
        """Returns the figures as plain numbers, strings and lists.

        Args:
            most_changed: Maximum number of images in `"changed"`.
        """
        changed = self.changed
        return {
            "images": len(self.first.labels),
            "first_accuracy": self.first.accuracy,
            "second_accuracy": self.second.accuracy,
            "accuracy": dataclasses.asdict(self.accuracy),
            "first_loss": self.first.loss,
            "second_loss": self.second.loss,
            "loss": dataclasses.asdict(self.loss),
            "fixed": self.fixed,
            "broken": self.broken,
            "mcnemar_p_value": self.p_value,
            "recall_per_class": {
                name: dataclasses.asdict(one) for name, one in self.per_class.items()
            },
            "changed_images": len(changed),
            "changed": [one.to_json() for one in changed[:most_changed]],
        }

    def write_changed(self, path: str | os.PathLike[str]) -> None:
        """Writes a CSV file with one row for each image in `changed`.

        Args:
            path: The file to write or to replace, atomically. Its folder must exist.

        Raises:
            InputError: If the file cannot be written.
        """
        write_csv_atomically(path, self._changed_rows())

    def _changed_rows(self) -> Iterator[list[Any]]:
        yield [field.name for field in dataclasses.fields(ChangedImage)]
        for one in self.changed:
            row = one.to_json()
            yield ["" if value is None else value for value in row.values()]

    def _is_right(self, index: int) -> np.ndarray:
        evaluation = (self.first, self.second)[index]
        is_right: np.ndarray = evaluation.predictions == evaluation.labels
        return is_right


AnyComparison = Comparison | MultiLabelComparison


def compare_evaluations(first: AnyEvaluation, second: AnyEvaluation) -> AnyComparison:
    """Compares two models that were evaluated on the same images.

    The models may take images of different sizes, and order their classes differently.

    Args:
        first: What `evaluate` returned for the first model.
        second: What it returned for the second model.

    Returns:
        `Comparison`, or `MultiLabelComparison` where images may have several labels;
        differences are those of the second model to the first.

    Raises:
        InputError: If images or classes are not the same, or only one of the models
            gives images several labels.

    Example:
    ```python
    comparison = keras_flowers.compare_evaluations(
        keras_flowers.evaluate(old, datasets), keras_flowers.evaluate(new, datasets)
    )
    print(comparison.accuracy, comparison.p_value)
    ```
    """
    if set(first.class_names) != set(second.class_names):
        raise InputError(
            "Both models must have the same classes. Received: "
            f"{list(first.class_names)} and {list(second.class_names)}"
        )
    if set(first.paths) != set(second.paths):
        raise InputError(
            "Both models must be evaluated on the same images. Received: "
            f"{len(first.paths)} and {len(second.paths)} images, "
            f"{len(set(first.paths) & set(second.paths))} of them the same"
        )
    position = {path: index for index, path in enumerate(second.paths)}
    rows = np.array([position[path] for path in first.paths], dtype=np.int64)
    columns = [second.class_names.index(name) for name in first.class_names]
    aligned: dict[str, Any] = {
        "class_names": first.class_names,
        "paths": first.paths,
        "probabilities": second.probabilities[rows][:, columns],
    }
    if isinstance(first, Evaluation) and isinstance(second, Evaluation):
        aligned["labels"] = np.argsort(columns)[second.labels[rows]].astype(np.int32)
        second = dataclasses.replace(second, **aligned)
        _check_labels(first.labels, second.labels)
        return Comparison(first, second)
    if isinstance(first, MultiLabelEvaluation) and isinstance(
        second, MultiLabelEvaluation
    ):
        aligned["labels"] = second.labels[rows][:, columns]
        if second.thresholds is not None:
            thresholds = second.thresholds
            aligned["thresholds"] = tuple(thresholds[column] for column in columns)
        second = dataclasses.replace(second, **aligned)
        _check_labels(first.labels, second.labels)
        return MultiLabelComparison(first, second)
    raise InputError(
        "Both models must give images one class, or both several labels. Received: "
        f"{type(first).__name__} and {type(second).__name__}"
    )


def _check_labels(first: np.ndarray, second: np.ndarray) -> None:
    if not np.array_equal(first, second):
        what = "labels" if first.ndim == 2 else "class"
        raise InputError(f"Both evaluations must give each image the same {what}.")
