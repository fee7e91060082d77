"""A layer that brings the features of any network to the same scale."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_flowers.registration import register

# Where the root becomes a straight line. Its slope at zero stays finite, which
# fine-tuning needs, and features this small are only shifted and scaled.
_SMALL = 1e-3


@register("FeatureStandardization")
class FeatureStandardization(keras.layers.Layer):
    """Takes the signed square root of features, then shifts and scales each of them.

    Averaged activations are skewed: most are near zero, a few are large. Their square
    roots are closer to a normal distribution, which a linear classifier separates
    better. After `adapt`, each feature of the training images has the mean 0 and the
    variance 1, whatever its scale in the network is.

    Before `adapt` is called, the layer only takes the root.

    Args:
        **kwargs: As for `keras.layers.Layer`.

    Input shape:
        `(batch, features)`, any float dtype.

    Output shape:
        The same, in the layer's compute dtype.

    Example:
    ```python
    layer = FeatureStandardization()
    layer.adapt(features)
    ```
    """

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Creates the statistics."""
        # In float32 even where the network computes in 16 bits.
        options = {
            "shape": (input_shape[-1],),
            "dtype": "float32",
            "trainable": False,
            "autocast": False,
        }
        self.mean = self.add_weight(initializer="zeros", name="mean", **options)
        self.variance = self.add_weight(initializer="ones", name="variance", **options)

    def adapt(self, features: np.ndarray) -> None:
        """Measures mean and variance; a later call replaces those of an earlier one.

        Args:
            features: Float array `(images, features)`, at least one image.
        """
        if not self.built:
            self.build(features.shape)
        roots = ops.convert_to_numpy(_take_root(ops.cast(features, "float32")))
        mean = roots.mean(axis=0, dtype=np.float64)
        variance = roots.var(axis=0, dtype=np.float64)
        # A feature that never changes says nothing, and must not be divided by zero.
        is_constant = variance <= 1e-6 * variance.max(initial=0.0)
        self.mean.assign(mean)
        self.variance.assign(np.where(is_constant, 1.0, variance))

    def call(self, inputs: Any) -> Any:
        """Returns the standardized features."""
        roots = _take_root(ops.cast(inputs, "float32"))
        scaled = (roots - self.mean) / ops.sqrt(self.variance)
        return ops.cast(scaled, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the shape of the input."""
        return input_shape


def _take_root(features: Any) -> Any:
    return features / ops.sqrt(ops.abs(features) + _SMALL)
