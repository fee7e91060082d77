"""Numbers that turn probabilities into answers: the temperature and the thresholds."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

from keras_flowers.errors import InputError


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


def check_thresholds(
    thresholds: Any, classes: int, multi_label: bool
) -> tuple[float, ...] | None:
    """Returns the lowest probability of each label as floats, or `None`.

    Raises:
        InputError: If there is not one number from 0 to 1 for each class, or each image
            has one class.
    """
    if thresholds is None:
        return None
    numbers_found = list(thresholds) if isinstance(thresholds, Sequence) else []
    is_valid = multi_label and len(numbers_found) == classes
    if not is_valid or not all(
        isinstance(number, numbers.Real) and 0 <= float(number) <= 1
        for number in numbers_found
    ):
        raise InputError(
            "`thresholds` must be a number from 0 to 1 for each class, of a model with "
            f"`multi_label=True`. Received: thresholds={thresholds!r}"
        )
    return tuple(map(float, numbers_found))
