"""Label smoothing that acts in training only, and with labels of any mode."""

import numbers
from typing import Any

import keras
from keras import ops

from keras_flowers.errors import InputError


def smooth_loss(
    loss: Any, labels: Any, probabilities: Any, sample_weight: Any, amount: float
) -> Any:
    """Returns a loss as if each label were smoothed.

    A smoothed label gives `amount` of its weight to all classes alike (Szegedy et al.,
    2016); of an image that may have several labels, each of them moves towards 1/2. The
    cross-entropy is linear in the label, so it is corrected after it was computed from
    the labels as they are.

    Args:
        loss: Scalar tensor, the cross-entropy, with whatever was added to it.
        labels: Integer tensor, `(batch,)` or `(batch, 1)`; or 0 and 1 for each class,
            `(batch, classes)`, which the probabilities are compared with one by one.
        probabilities: Float tensor, `(batch, classes)`.
        sample_weight: Float tensor, one weight per label, or `None`.
        amount: Float from 0 to below 1.
    """
    # A loss of Keras, for its weights of samples and its share of several devices.
    several = len(labels.shape) == 2 and labels.shape[-1] == probabilities.shape[-1]
    difference = _DifferenceOfSeveral if several else _Difference
    return loss + amount * ops.cast(
        difference(name="difference")(labels, probabilities, sample_weight), loss.dtype
    )


class _Difference(keras.losses.Loss):
    """How much larger the loss of all classes alike is than that of the label."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        floor = keras.config.epsilon()
        logarithms = ops.log(ops.clip(ops.cast(y_pred, "float32"), floor, 1 - floor))
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1, 1))
        own = ops.take_along_axis(logarithms, labels, axis=-1)[:, 0]
        return own - ops.mean(logarithms, axis=-1)


class _DifferenceOfSeveral(keras.losses.Loss):
    """How much larger the loss of labels of 1/2 is than that of the labels."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        floor = keras.config.epsilon()
        probabilities = ops.clip(ops.cast(y_pred, "float32"), floor, 1 - floor)
        odds = ops.log(probabilities) - ops.log1p(-probabilities)
        return ops.sum((ops.cast(y_true, "float32") - 0.5) * odds, axis=-1)


def check_label_smoothing(amount: Any) -> float:
    """Returns the fraction as a float.

    Raises:
        InputError: If it is not a number from 0 to below 1.
    """
    if not isinstance(amount, numbers.Real) or not 0 <= float(amount) < 1:
        raise InputError(
            "`label_smoothing` must be a number from 0 to below 1. "
            f"Received: label_smoothing={amount!r}"
        )
    return float(amount)


class SharingModel(keras.Model):
    """A model of layers of a classifier, which trains them as the classifier would.

    It is never saved: the classifier is.
    """

    label_smoothing = 0.0

    def compile(self, *args: Any, label_smoothing: float = 0.0, **kwargs: Any) -> None:
        """As `ImageClassifier.compile`, but with the defaults of Keras."""
        self.label_smoothing = check_label_smoothing(label_smoothing)
        super().compile(*args, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss, with smoothed labels in training."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        if training and self.label_smoothing:
            return smooth_loss(loss, y, y_pred, sample_weight, self.label_smoothing)
        return loss
