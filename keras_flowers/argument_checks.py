"""Checks of arguments that several packages take."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

from keras_flowers_runtime.images import RESIZE_MODES as RESIZE_MODES

from keras_flowers.errors import InputError


def check_image_size(image_size: Any) -> tuple[int, int]:
    """Returns `image_size` as a pair of positive ints; one integer means a square.

    Raises:
        InputError: If it is neither.
    """
    if hasattr(image_size, "__index__"):
        image_size = (image_size, image_size)
    try:
        height, width = (
            check_integer("image_size", size, lowest=1) for size in image_size
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            "`image_size` must be a pair of positive integers (height, width), or one "
            f"for a square. Received: image_size={image_size!r}"
        ) from error
    return height, width


def check_integer(
    name: str, value: Any, *, lowest: int | None = None, highest: int | None = None
) -> int:
    """Returns `value` as an int; NumPy integers are accepted.

    Raises:
        InputError: If it is not an integer from `lowest` to `highest`, where given.
    """
    is_integer = hasattr(value, "__index__") and not isinstance(value, bool)
    if (
        not is_integer
        or (lowest is not None and value < lowest)
        or (highest is not None and value > highest)
    ):
        if lowest is None:
            kind = "an integer"
        elif highest is not None:
            kind = f"an integer from {lowest} to {highest}"
        elif lowest == 1:
            kind = "a positive integer"
        else:
            kind = f"an integer from {lowest} up"
        raise InputError(f"`{name}` must be {kind}. Received: {name}={value!r}")
    return int(value)


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """Returns `value`.

    Raises:
        InputError: If it is not one of the allowed strings.
    """
    if value not in allowed:
        choices = ", ".join(repr(choice) for choice in allowed)
        raise InputError(
            f"`{name}` must be one of {choices}. Received: {name}={value!r}"
        )
    return str(value)


def suggest_name(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name nearest to one that is misspelled, or `None`."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return nearest[0] if nearest else None
