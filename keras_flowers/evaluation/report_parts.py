"""Parts of a report that evaluations of all kinds have."""

from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from keras_flowers.evaluation.calibration import Calibration
from keras_flowers.evaluation.evaluate import AnyEvaluation
from keras_flowers.evaluation.pages import format_number
from keras_flowers.notebook import jpeg_address
from keras_flowers.plots.svg import svg_markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def name_split(evaluation: AnyEvaluation) -> str:
    """Returns what people call the images of an evaluation."""
    split = evaluation.split or "evaluated"
    return "training" if split == "train" else split


def draw_inline(figure: "Figure", name: str, description: str) -> Markup:
    """Returns a figure as a part of the page; see `svg_markup`."""
    return Markup(svg_markup(figure, name, description))


def draw_reliability(calibration: Calibration) -> Markup:
    """Returns the reliability diagram as a part of the page."""
    return draw_inline(
        calibration.plot(),
        "reliability",
        f"Reliability diagram; expected calibration error "
        f"{format_number(calibration.error)}. The numbers are in the table.",
    )


def embed_photo(pixels: np.ndarray) -> dict[str, Any]:
    """Returns an image as an address that holds it, and its size in pixels."""
    height, width = pixels.shape[:2]
    return {"source": jpeg_address(pixels), "width": width, "height": height}
