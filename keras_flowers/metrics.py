"""Metrics that also keep a value for each class."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_flowers.argument_checks import check_integer
from keras_flowers.registration import register


@register("ConfusionMatrix")
class ConfusionMatrix(keras.metrics.SparseCategoricalAccuracy):
    """The accuracy, with the confusion matrix in its attribute `matrix`.

    Use it instead of Keras's `SparseCategoricalAccuracy`: the result is the same, and
    the confusion matrix takes no additional pass over the validation data. It works on
    every backend and with XLA.

    Args:
        class_count: Integer from 2 up, the number of classes.
        name: Name of the metric in logs and history.
        dtype: As for every metric of Keras.

    Input shape:
        Labels as integers `(batch,)` or `(batch, 1)`, or as rows `(batch, classes)`
        whose largest entry marks the class; predictions `(batch, classes)`.

    Raises:
        InputError: If `class_count` is not an integer from 2 up.

    Example:
    ```python
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=[keras_flowers.ConfusionMatrix(5)],
    )
    ```
    """

    def __init__(
        self, class_count: int, name: str = "accuracy", dtype: Any = None
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.class_count = check_integer("class_count", class_count, lowest=2)
        self._counts = self.add_variable(
            shape=(self.class_count**2,), initializer="zeros", name="counts"
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts a batch; `sample_weight`, `(batch,)`, holds a weight per image."""
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        if len(y_true.shape) == 2 and y_true.shape[1] == self.class_count:
            y_true = ops.argmax(y_true, axis=-1)
        super().update_state(y_true, y_pred, sample_weight)
        true = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        predicted = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        if sample_weight is None:
            weights = ops.ones_like(true, dtype=self._counts.dtype)
        else:
            weights = ops.cast(sample_weight, self._counts.dtype)
            weights = ops.broadcast_to(ops.reshape(weights, (-1,)), ops.shape(true))
        counts = ops.segment_sum(
            weights, true * self.class_count + predicted, self.class_count**2
        )
        self._counts.assign_add(counts)

    def reset_state(self) -> None:
        """Resets all counts to zero."""
        super().reset_state()
        self._counts.assign(ops.zeros(self._counts.shape, self._counts.dtype))

    @property
    def matrix(self) -> np.ndarray:
        """The counts, float32 `(classes, classes)`; rows are true, columns predicted.

        They are whole numbers unless there were sample weights.
        """
        counts = ops.convert_to_numpy(self._counts)
        return np.array(counts, np.float32).reshape(self.class_count, self.class_count)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "class_count": self.class_count}


# Probabilities are sorted into bins of equal width of their logits: those that are
# close to 0 or 1 are told apart as well as those in the middle.
_BINS = 1024
_LARGEST_LOGIT = 16.0


@register("MeanAveragePrecision")
class MeanAveragePrecision(keras.metrics.Metric):
    """The mean average precision of images that may have several labels.

    The average precision of a label is the mean precision over the images that have
    the label, in the order of their probabilities; it depends on no threshold. The
    result is its mean over the labels that any image has.

    It counts probabilities in 1,024 bins between logits of -16 and 16, and agrees with
    `sklearn.metrics.average_precision_score` to about three decimals. It works on every
    backend and with XLA.

    Args:
        class_count: Positive integer, the number of labels.
        name: Name of the metric in logs and history.
        dtype: As for every metric of Keras.

    Input shape:
        Labels `(batch, classes)`, 0 or 1; probabilities `(batch, classes)`, 0..1. A
        probability that is NaN or infinite counts as 0.

    Attributes:
        per_class: The average precision of each label, float32 `(classes,)`, 0..1; NaN
            for a label that no image has.

    Raises:
        InputError: If `class_count` is not a positive integer.

    Example:
    ```python
    model.compile(
        "adam",
        keras_flowers.MultiLabelCrossentropy(),
        metrics=[keras_flowers.MeanAveragePrecision(5)],
    )
    ```
    """

    def __init__(
        self,
        class_count: int,
        name: str = "mean_average_precision",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.class_count = check_integer("class_count", class_count, lowest=1)
        # Of images without and with the label.
        self._counts = self.add_variable(
            shape=(2 * self.class_count * _BINS,), initializer="zeros", name="counts"
        )
        self._images = self.add_variable(shape=(), initializer="zeros", name="images")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Counts a batch; `sample_weight`, `(batch,)`, holds a weight per image."""
        y_true = ops.cast(y_true, "float32")
        y_pred = ops.cast(y_pred, "float32")
        y_pred = ops.where(ops.isfinite(y_pred), y_pred, 0.0)
        logits = ops.log(y_pred) - ops.log1p(-y_pred)
        places = (logits / _LARGEST_LOGIT + 1) * (_BINS / 2)
        bins = ops.cast(ops.clip(places, 0, _BINS - 1), "int32")
        labels = ops.cast(y_true > 0.5, "int32")
        rows = labels * self.class_count + ops.arange(self.class_count, dtype="int32")
        weights = ops.ones_like(y_true)
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, "float32")
            weights = weights * ops.reshape(sample_weight, (-1, 1))
        counts = ops.segment_sum(
            ops.reshape(weights, (-1,)),
            ops.reshape(rows * _BINS + bins, (-1,)),
            self._counts.shape[0],
        )
        self._counts.assign_add(ops.cast(counts, self._counts.dtype))
        images = ops.sum(ops.cast(weights[:, 0] > 0, self._images.dtype))
        self._images.assign_add(images)

    def result(self) -> Any:
        """Returns the mean over the labels that any image has, or 0."""
        values, totals = self._average_precisions()
        known = ops.cast(totals > 0, values.dtype)
        return ops.sum(values * known) / ops.maximum(ops.sum(known), 1.0)

    def reset_state(self) -> None:
        """Resets all counts to zero."""
        for variable in self.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))

    @property
    def per_class(self) -> np.ndarray:
        """The average precision of each label, float32 `(classes,)`, 0..1.

        NaN for a label that no image has.
        """
        values, totals = map(ops.convert_to_numpy, self._average_precisions())
        return np.where(totals > 0, values, np.nan).astype(np.float32)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "class_count": self.class_count}

    def _average_precisions(self) -> tuple[Any, Any]:
        """Returns that of each label, and how many images have the label."""
        counts = ops.reshape(self._counts, (2, self.class_count, _BINS))
        counts = ops.flip(counts, axis=-1)
        of_label, of_all = counts[1], counts[0] + counts[1]
        # Images in one bin are in an unknown order: each is taken to be in the middle.
        weight = ops.sum(of_all[0]) / ops.maximum(self._images, 1.0)
        right = ops.cumsum(of_label, axis=-1) - ops.relu(of_label - weight) / 2
        found = ops.cumsum(of_all, axis=-1) - ops.relu(of_all - weight) / 2
        totals = ops.sum(of_label, axis=-1)
        sums = ops.sum(right / ops.maximum(found, 1e-7) * of_label, axis=-1)
        return sums / ops.maximum(totals, 1e-7), totals
