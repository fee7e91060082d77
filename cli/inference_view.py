"""Shows what a lower inference precision changes."""

import dataclasses
from typing import TYPE_CHECKING, Any

from keras_flowers_cli.output import Output

if TYPE_CHECKING:
    from keras_flowers.models.frozen_prediction import PredictionDifference


def show_precision_difference(
    output: Output, found: "PredictionDifference | None"
) -> dict[str, Any] | None:
    """Prints a difference, if there is one, and returns it for JSON."""
    if found is None:
        return None
    output.say(
        f"Features in {found.precision} change the answer for {found.changed} of "
        f"{found.images} images; probabilities differ by at most "
        f"{found.largest_difference:.2g}"
    )
    return dataclasses.asdict(found)
