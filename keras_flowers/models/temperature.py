"""Temperature scaling: probabilities of a classifier that is as sure as it is right."""

import math
import numbers
from typing import Any

from keras import ops

from keras_flowers.errors import InputError


def scale_probabilities(probabilities: Any, temperature: float) -> Any:
    """Returns the softmax of the logits divided by a temperature.

    The most probable class stays the same (Guo et al., "On Calibration of Modern Neural
    Networks", 2017).

    Args:
        probabilities: Float `(batch, classes)`, a softmax; each row sums to 1.
        temperature: Above 1, the probabilities move towards each other; below 1, away.

    Returns:
        The same shape and dtype.
    """
    # The logits but for a constant of each row. What is 0 in float32 stays 0.
    return ops.softmax(ops.log(probabilities) / temperature, axis=-1)


def check_temperature(temperature: Any) -> float:
    """Returns a temperature as a float.

    Raises:
        InputError: If it is not a number above 0.
    """
    is_number = isinstance(temperature, numbers.Real)
    if not is_number or not 0 < float(temperature) < math.inf:
        raise InputError(
            "`temperature` must be a number above 0. "
            f"Received: temperature={temperature!r}"
        )
    return float(temperature)
