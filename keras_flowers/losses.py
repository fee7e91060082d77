"""The loss of images that may have several labels."""

from typing import Any

import keras
from keras import ops

from keras_flowers.registration import register


@register("MultiLabelCrossentropy")
class MultiLabelCrossentropy(keras.losses.Loss):
    """The binary cross-entropy of each label, summed over the labels of an image.

    It is the negative log-likelihood of the labels of an image in nats. Keras's
    `BinaryCrossentropy` is the mean over the labels: with many labels, its gradient is
    so small that a weight decay outweighs it.

    Input shape:
        Labels `(batch, classes)`, 0 or 1; probabilities `(batch, classes)`, 0..1.
    """

    def __init__(
        self,
        reduction: str = "sum_over_batch_size",
        name: str = "multi_label_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image, `(batch,)`."""
        return ops.sum(ops.binary_crossentropy(y_true, y_pred), axis=-1)
