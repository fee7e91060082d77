"""Ranges of values to search in."""

import dataclasses
import math
import numbers
from typing import Any

import keras_tuner

from keras_flowers.argument_checks import check_integer
from keras_flowers.errors import InputError


@dataclasses.dataclass(frozen=True)
class IntegerRange:
    """Integers from `low` to `high`, both included, `step` apart."""

    low: int
    high: int
    step: int = 1

    def declare(self, hp: keras_tuner.HyperParameters, name: str) -> Any:
        """Declares the range under a name; returns the value of the trial."""
        if self.low == self.high:
            return hp.Fixed(name, self.low)
        return hp.Int(name, self.low, self.high, step=self.step)


@dataclasses.dataclass(frozen=True)
class FloatRange:
    """Numbers from `low` to `high`, `step` apart; without a step, any number between.

    Attributes:
        is_logarithmic: Whether to sample on a logarithmic scale.
    """

    low: float
    high: float
    step: float | None = None
    is_logarithmic: bool = False

    def declare(self, hp: keras_tuner.HyperParameters, name: str) -> Any:
        """Declares the range under a name; returns the value of the trial."""
        if self.low == self.high:
            return hp.Fixed(name, self.low)
        sampling = "log" if self.is_logarithmic else "linear"
        # KerasTuner counts the steps rounded down: 0.5 // 0.1 is 4, and would lose 0.5.
        high = self.high + (self.step or 0.0) * 1e-6
        return hp.Float(name, self.low, high, step=self.step, sampling=sampling)


@dataclasses.dataclass(frozen=True)
class Choices:
    """One of several integers."""

    values: tuple[int, ...]

    def declare(self, hp: keras_tuner.HyperParameters, name: str) -> Any:
        """Declares the choice under a name; returns the value of the trial."""
        if len(self.values) == 1:
            return hp.Fixed(name, self.values[0])
        return hp.Choice(name, list(self.values))


def integer_range(name: str, value: Any, *, lowest: int) -> IntegerRange:
    """Returns an integer, `(low, high)` or `(low, high, step)` as a range.

    `high` is lowered to the last value that the steps reach.

    Raises:
        InputError: If it is none of these, below `lowest`, or out of order.
    """
    parts = value if isinstance(value, list | tuple) else (value, value)
    try:
        low, high, step = (*parts, 1) if len(parts) == 2 else parts
        low = check_integer(name, low, lowest=lowest)
        high = check_integer(name, high, lowest=low)
        step = check_integer(name, step, lowest=1)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"`{name}` must be an integer from {lowest} up, or a range (low, high) or "
            f"(low, high, step) of integers. Received: {name}={value!r}"
        ) from error
    return IntegerRange(low, high - (high - low) % step, step)


def float_range(
    name: str, value: Any, *, below: float = math.inf, is_logarithmic: bool = False
) -> FloatRange:
    """Returns a number, `(low, high)` or `(low, high, step)` as a range.

    Raises:
        InputError: If it is none of these, negative, or not below `below`. A
            logarithmic range must be above 0 and takes no step.
    """
    parts = value if isinstance(value, list | tuple) else (value, value)
    is_valid = len(parts) in (2, 2 if is_logarithmic else 3) and all(
        isinstance(part, numbers.Real) and math.isfinite(float(part)) for part in parts
    )
    if is_valid:
        low, high, *steps = (float(part) for part in parts)
        is_positive = low > 0 if is_logarithmic else low >= 0
        if is_positive and low <= high < below and all(step > 0 for step in steps):
            step = steps[0] if steps else None
            return FloatRange(low, high, step, is_logarithmic)
    bounds = "above 0" if is_logarithmic else "from 0"
    bounds += "" if below == math.inf else f" to below {below:g}"
    ranges = "(low, high)" if is_logarithmic else "(low, high) or (low, high, step)"
    raise InputError(
        f"`{name}` must be a number {bounds}, or a range {ranges}. "
        f"Received: {name}={value!r}"
    )


def choices(name: str, value: Any) -> Choices:
    """Returns a positive integer, or several of them, as a choice.

    Raises:
        InputError: If it is neither, or a value occurs twice.
    """
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    if not values or len(set(values)) != len(values):
        raise InputError(
            f"`{name}` must be one or more different positive integers. "
            f"Received: {name}={value!r}"
        )
    return Choices(tuple(check_integer(name, item, lowest=1) for item in values))
