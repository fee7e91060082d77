"""The part of a classifier from the features to the probabilities."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_flowers.layers.standardization import FeatureStandardization
from keras_flowers.models.classifier_arguments import derive_seed

# The L2 penalty of a linear head: the loss adds `HEAD_L2 / 2` times the squared weights
# (`keras.regularizers.L2(HEAD_L2 / 2)`). It is close to the best strength for 50 to
# 2,000 training images, and for small and large networks.
HEAD_L2 = 0.03
# That of a head with a sigmoid for each label. Independent sigmoids overfit more than a
# softmax, so they need a stronger penalty.
LABEL_HEAD_L2 = 0.3
_MOMENTUM = 0.9


def build_head_layers(
    classes: int,
    hidden_units: Sequence[int] | None,
    *,
    activation: str,
    dropout_rate: float,
    is_linear: bool,
    is_pretrained: bool,
    seed: int | None,
    dtype: Any,
    unused: Callable[[str], str],
) -> list[keras.layers.Layer]:
    """Returns the layers of a head, in their order.

    Args:
        classes: Number of classes.
        hidden_units: The width of each hidden layer.
        activation: The activation of the last layer.
        dropout_rate: Fraction of units to drop after each hidden layer.
        is_linear: Whether the head is one layer on standardized features.
        is_pretrained: Whether the features are those of a pretrained backbone.
        seed: What the initial weights and the dropout follow from, or `None`.
        dtype: The dtype policy of the layers.
        unused: Returns a name that no other layer has.
    """
    head_layers: list[keras.layers.Layer] = []
    if is_linear:
        head_layers.append(
            FeatureStandardization(dtype=dtype, name=unused("feature_standardization"))
        )
    elif is_pretrained:
        # Features of different networks differ in scale by orders of magnitude.
        head_layers.append(
            keras.layers.LayerNormalization(
                dtype=dtype, name=unused("feature_normalization")
            )
        )
    for number, units in enumerate(hidden_units or (), 1):
        head_layers.append(
            keras.layers.Dense(
                units,
                activation="relu",
                kernel_initializer=_initializer(seed, f"hidden layer {number - 1}"),
                dtype=dtype,
                name=unused(f"hidden_{number}"),
            )
        )
        if dropout_rate:
            head_layers.append(
                keras.layers.Dropout(
                    dropout_rate,
                    seed=derive_seed(seed, f"dropout {number - 1}"),
                    dtype=dtype,
                    name=unused(f"dropout_{number}"),
                )
            )
    head_layers.append(
        keras.layers.Dense(
            classes,
            activation=activation,
            # Random weights would be noise in each prediction of a linear head,
            # and training removes it only slowly.
            kernel_initializer=("zeros" if is_linear else _initializer(seed, "output")),
            # Sums of half-precision probabilities are too inaccurate for the loss.
            dtype="float32",
            name=unused("predictions"),
        )
    )
    return head_layers


def linear_head_optimizer(
    learning_rate: Any = 0.01, penalty: float = HEAD_L2
) -> keras.optimizers.Optimizer:
    """Returns the optimizer that suits a linear head.

    It converges to the solution of logistic regression with an L2 penalty.

    Args:
        learning_rate: As for `keras.optimizers.SGD`.
        penalty: The strength of the penalty. The loss adds `penalty / 2` times the
            squared weights (`keras.regularizers.L2(penalty / 2)`).
    """
    # Momentum makes ten steps of a gradient, but not of the decay.
    decay = round(penalty / (1 - _MOMENTUM), 6)
    return keras.optimizers.SGD(learning_rate, momentum=_MOMENTUM, weight_decay=decay)


def set_initial_bias(predictions: keras.layers.Dense, labels: np.ndarray) -> None:
    """Lets an untrained layer begin with the frequency of each label.

    Args:
        predictions: A layer with a sigmoid for each label. One whose weights are not
            all 0, such as a trained one, is left as it is.
        labels: `(images, classes)`, 1 for each label of an image, else 0.
    """
    if any(np.any(keras.ops.convert_to_numpy(w)) for w in predictions.weights):
        return
    # Half an image more with and without it: no label is impossible or certain.
    frequency = (labels.sum(axis=0) + 0.5) / (len(labels) + 1)
    predictions.bias.assign(np.log(frequency / (1 - frequency)))


def _initializer(seed: int | None, role: str) -> keras.initializers.Initializer:
    return keras.initializers.GlorotUniform(derive_seed(seed, role))
