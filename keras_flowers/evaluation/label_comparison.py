"""Compares two models on the same images, which may have several labels."""

import dataclasses
import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from keras_flowers.evaluation.differences import (
    Difference,
    compare_means,
    compare_shares,
    compute_p_value,
    order_changes,
)
from keras_flowers.evaluation.multi_label import (
    SEPARATOR,
    MultiLabelEvaluation,
)
from keras_flowers.evaluation.resampling import (
    RESAMPLES,
    average_known,
    compute_interval,
    draw_weights,
)
from keras_flowers.files import write_csv_atomically


@dataclasses.dataclass(frozen=True)
class ChangedLabels:
    """An image to which two models give different labels.

    Attributes:
        path: The image.
        true_labels: The labels that it has.
        first_labels: The labels that the first model gives it.
        second_labels: The labels that the second model gives it.
        change: `"fixed"` where only the second model gets all labels right, `"broken"`
            where only the first one does, `"moved"` where neither does.
    """

    path: Path
    true_labels: tuple[str, ...]
    first_labels: tuple[str, ...]
    second_labels: tuple[str, ...]
    change: str

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes as plain strings and lists."""
        content = dataclasses.asdict(self) | {"path": os.fspath(self.path)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in content.items()}


@dataclasses.dataclass(frozen=True)
class MultiLabelComparison:
    """Two models on the same images, which may have several labels.

    The intervals of average precision and F1 come from a paired bootstrap: the images
    are drawn 1,000 times with replacement, and both models are scored on each draw. The
    interval holds the differences from the 2.5th to the 97.5th percentile. Draws that
    have no image with a label leave it out. The same evaluations always give the same
    intervals.

    Attributes:
        first: The evaluation of the first model.
        second: That of the second model, its images and classes in the same order.
    """

    first: MultiLabelEvaluation
    second: MultiLabelEvaluation

    def __repr__(self) -> str:
        """Returns the figures, not the predictions."""
        difference = self.mean_average_precision
        return (
            f"MultiLabelComparison({len(self.first.labels)} images: mean average "
            f"precision {self.first.mean_average_precision:.3f} and "
            f"{self.second.mean_average_precision:.3f}, difference "
            f"{difference.low:+.3f} to {difference.high:+.3f}, {self.fixed} fixed, "
            f"{self.broken} broken)"
        )

    @property
    def mean_average_precision(self) -> Difference:
        """The difference of the mean average precisions, with a bootstrap interval."""
        return self._difference("mean_average_precision")

    @property
    def f1_micro(self) -> Difference:
        """The difference of F1 of all answers together, with a bootstrap interval."""
        return self._difference("f1_micro")

    @property
    def f1_macro(self) -> Difference:
        """The difference of the mean F1 of the labels, with a bootstrap interval."""
        return self._difference("f1_macro")

    @property
    def per_class(self) -> dict[str, Difference]:
        """The difference of the average precision of each label that any image has."""
        first, second = self.first.per_class, self.second.per_class
        differences = {}
        for index, name in enumerate(self.first.class_names):
            one, other = first[name].average_precision, second[name].average_precision
            if one is not None and other is not None:
                resampled = self._resampled["per_class"][:, index]
                differences[name] = _with_interval(other - one, resampled)
        return differences

    @property
    def loss(self) -> Difference:
        """The difference of the mean losses in nats; negative means better.

        The interval is that of a paired t-test; NaN if a prediction is non-finite or
        there is only one image.
        """
        return compare_means(self.first.losses, self.second.losses)

    @property
    def exact_match(self) -> Difference:
        """The difference of the fractions of images whose labels are all right.

        The interval is that of Bonett and Price (2012) for paired shares.
        """
        return compare_shares(self.fixed, self.broken, len(self.first.labels))

    @property
    def fixed(self) -> int:
        """The number of images of which only the second model gets all labels right."""
        return int(np.count_nonzero(self.first.is_wrong & ~self.second.is_wrong))

    @property
    def broken(self) -> int:
        """The number of images of which only the first model gets all labels right."""
        return int(np.count_nonzero(~self.first.is_wrong & self.second.is_wrong))

    @property
    def p_value(self) -> float:
        """The p-value of McNemar's exact test of the exact matches.

        It says nothing about the ranking of images: for that, see the interval of
        `mean_average_precision`.
        """
        return compute_p_value(self.fixed, self.broken)

    @property
    def changed(self) -> tuple[ChangedLabels, ...]:
        """The images whose labels differ: broken, fixed, then moved ones.

        In each group, those whose loss changes most come first.
        """
        first, second = self.first, self.second
        changes = order_changes(
            (first.predictions != second.predictions).any(axis=1),
            ~first.is_wrong,
            ~second.is_wrong,
            second.losses - first.losses,
        )
        return tuple(
            ChangedLabels(
                path=first.paths[index],
                true_labels=first.name_labels(first.labels[index] == 1),
                first_labels=first.name_labels(first.predictions[index]),
                second_labels=first.name_labels(second.predictions[index]),
                change=change,
            )
            for index, change in changes
        )

    def to_json(self, most_changed: int = 1000) -> dict[str, Any]:
        """Returns the figures as plain numbers, strings and lists.

        Args:
            most_changed: Maximum number of images in `"changed"`.
        """
        content: dict[str, Any] = {
            "images": len(self.first.labels),
            "multi_label": True,
            "resamples": RESAMPLES,
        }
        names = ("mean_average_precision", "f1_micro", "f1_macro", "exact_match")
        for name in (*names, "loss"):
            content[f"first_{name}"] = getattr(self.first, name)
            content[f"second_{name}"] = getattr(self.second, name)
            content[name] = dataclasses.asdict(getattr(self, name))
        changed = self.changed
        return {
            **content,
            "fixed": self.fixed,
            "broken": self.broken,
            "mcnemar_p_value": self.p_value,
            "average_precision_per_class": {
                name: dataclasses.asdict(one) for name, one in self.per_class.items()
            },
            "changed_images": len(changed),
            "changed": [one.to_json() for one in changed[:most_changed]],
        }

    def write_changed(self, path: str | os.PathLike[str]) -> None:
        """Writes a CSV file with one row for each image in `changed`.

        Labels are separated by `|`.

        Args:
            path: The file to write or to replace, atomically. Its folder must exist.

        Raises:
            InputError: If the file cannot be written.
        """
        write_csv_atomically(path, self._changed_rows())

    def _changed_rows(self) -> Iterator[list[Any]]:
        yield [field.name for field in dataclasses.fields(ChangedLabels)]
        for one in self.changed:
            values = one.to_json().values()
            yield [
                SEPARATOR.join(value) if isinstance(value, list) else value
                for value in values
            ]

    def _difference(self, name: str) -> Difference:
        value = getattr(self.second, name) - getattr(self.first, name)
        return _with_interval(value, self._resampled[name])

    @cached_property
    def _resampled(self) -> dict[str, np.ndarray]:
        """The differences in all draws, by score, `(draws, ...)`."""
        parts = []
        for weights in draw_weights(len(self.first.labels)):
            first = _score_draws(self.first, weights)
            second = _score_draws(self.second, weights)
            parts.append({name: second[name] - first[name] for name in first})
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _score_draws(
    evaluation: MultiLabelEvaluation, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the scores of a model in each draw.

    Args:
        evaluation: That of the model.
        weights: How often each image was drawn, float32 `(draws, images)`.
    """
    true, found = evaluation.labels == 1, evaluation.predictions
    right, total = (true & found).astype(np.float32), 1.0 * true + found
    of_labels = weights @ right, weights @ total.astype(np.float32)
    has_label = weights @ true.astype(np.float32) > 0
    sums = [part.sum(axis=1) for part in of_labels]
    per_class = evaluation.resample_average_precisions(weights)
    f1 = np.where(has_label, _f1(*of_labels), np.nan)
    return {
        "per_class": per_class,
        "mean_average_precision": average_known(per_class),
        "f1_micro": _f1(*sums),
        "f1_macro": average_known(f1),
    }


def _f1(right: np.ndarray, total: np.ndarray) -> np.ndarray:
    values: np.ndarray = 2 * right / np.maximum(total, 1)
    return values


def _with_interval(value: float, resampled: np.ndarray) -> Difference:
    return Difference(value, *compute_interval(resampled))
