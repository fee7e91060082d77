"""What the labels of images are: one class per image, or any number of them.

The last layer, the loss, the metrics, the temperature and the answer of a classifier
follow from it. `ImageClassifier` chooses the mode once; everything else asks it.
"""

import abc
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from keras_flowers.losses import MultiLabelCrossentropy
from keras_flowers.metrics import ConfusionMatrix, MeanAveragePrecision
from keras_flowers.models.heads import HEAD_L2, LABEL_HEAD_L2
from keras_flowers.scores import predict_labels

DEFAULT_THRESHOLD = 0.5


class LabelMode(abc.ABC):
    """How a classifier computes and answers the labels of an image.

    Attributes:
        activation: The activation of the last layer.
        is_multi_label: Whether an image may have several labels, or none.
        head_penalty: The L2 penalty of a linear head. The loss adds `head_penalty / 2`
            times the squared weights (`keras.regularizers.L2(head_penalty / 2)`).
    """

    activation: Literal["softmax", "sigmoid"]
    is_multi_label: bool
    head_penalty: float

    @abc.abstractmethod
    def loss(self) -> Any:
        """Returns what `compile` takes as the loss."""

    @abc.abstractmethod
    def metrics(self, classes: int) -> list[keras.metrics.Metric]:
        """Returns what `compile` takes as the metrics."""

    @abc.abstractmethod
    def scale_probabilities(self, probabilities: Any, temperature: float) -> Any:
        """Returns the probabilities of the logits divided by a temperature.

        Each label stays as probable in comparison with the others (Guo et al., "On
        Calibration of Modern Neural Networks", 2017).

        Args:
            probabilities: Float `(batch, classes)`, of the last layer.
            temperature: Above 1, the probabilities become less extreme; below 1, more.

        Returns:
            The same shape and dtype.
        """

    @abc.abstractmethod
    def log_odds(self, logits: Any, labels: np.ndarray) -> Any:
        """Returns the log odds of one label of each image against the alternative.

        Args:
            logits: Float `(batch, classes)`.
            labels: Integers `(batch,)`.

        Returns:
            Float `(batch,)`.
        """

    @abc.abstractmethod
    def find_labels(
        self, probabilities: np.ndarray, thresholds: Sequence[float] | None
    ) -> np.ndarray:
        """Returns which labels are the answer, bool `(batch, classes)`.

        Args:
            probabilities: Float `(batch, classes)`. A row that is not finite has no
                answer.
            thresholds: The lowest probability of each label; `None` for 0.5. Only for
                several labels.
        """

    @abc.abstractmethod
    def agreement(self, first: np.ndarray, second: np.ndarray) -> float:
        """Returns the fraction of answers that are the same in two models, 0..1.

        With one label, there is an answer for each image; with several, one for each
        image and label.

        Args:
            first: What `find_labels` returned for the first model.
            second: What it returned for the second model.
        """


class _SingleLabel(LabelMode):
    activation = "softmax"
    is_multi_label = False
    head_penalty = HEAD_L2

    def loss(self) -> Any:
        return "sparse_categorical_crossentropy"

    def metrics(self, classes: int) -> list[keras.metrics.Metric]:
        return [ConfusionMatrix(classes)]

    def scale_probabilities(self, probabilities: Any, temperature: float) -> Any:
        # The logits but for a constant of each row. What is 0 in float32 stays 0.
        return ops.softmax(ops.log(probabilities) / temperature, axis=-1)

    def log_odds(self, logits: Any, labels: np.ndarray) -> Any:
        chosen = ops.one_hot(labels, logits.shape[-1], dtype="float32")
        others = logits - 1e9 * chosen
        return ops.sum(logits * chosen, axis=-1) - ops.logsumexp(others, axis=-1)

    def find_labels(
        self, probabilities: np.ndarray, thresholds: Sequence[float] | None
    ) -> np.ndarray:
        del thresholds
        labels = np.arange(probabilities.shape[1])
        found: np.ndarray = predict_labels(probabilities)[:, None] == labels
        return found

    def agreement(self, first: np.ndarray, second: np.ndarray) -> float:
        return float((first == second).all(axis=1).mean())


class _MultiLabel(LabelMode):
    activation = "sigmoid"
    is_multi_label = True
    head_penalty = LABEL_HEAD_L2

    def loss(self) -> Any:
        return MultiLabelCrossentropy()

    def metrics(self, classes: int) -> list[keras.metrics.Metric]:
        return [
            keras.metrics.BinaryAccuracy(name="binary_accuracy"),
            MeanAveragePrecision(classes),
        ]

    def scale_probabilities(self, probabilities: Any, temperature: float) -> Any:
        logits = ops.log(probabilities) - ops.log1p(-probabilities)
        return ops.sigmoid(logits / temperature)

    def log_odds(self, logits: Any, labels: np.ndarray) -> Any:
        chosen = ops.one_hot(labels, logits.shape[-1], dtype="float32")
        return ops.sum(logits * chosen, axis=-1)

    def find_labels(
        self, probabilities: np.ndarray, thresholds: Sequence[float] | None
    ) -> np.ndarray:
        is_finite = np.isfinite(probabilities).all(axis=1, keepdims=True)
        lowest: Any = DEFAULT_THRESHOLD if thresholds is None else thresholds
        lowest = np.asarray(lowest, np.float32)
        found: np.ndarray = is_finite & (probabilities >= lowest)
        return found

    def agreement(self, first: np.ndarray, second: np.ndarray) -> float:
        return float((first == second).mean())


SINGLE_LABEL: LabelMode = _SingleLabel()
MULTI_LABEL: LabelMode = _MultiLabel()


def choose_label_mode(multi_label: bool) -> LabelMode:
    """Returns the mode for images with one label, or with any number of them."""
    return MULTI_LABEL if multi_label else SINGLE_LABEL
