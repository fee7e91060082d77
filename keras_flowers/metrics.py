"""A metric that counts which class was predicted for which."""

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
