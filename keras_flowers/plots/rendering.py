"""Drawings as arrays, as PNG files, and as figures of Matplotlib."""

import io
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120


def png_bytes(drawing: "Figure | Image.Image", dpi: int = DPI) -> bytes:
    """Returns a drawing as the content of a PNG file.

    Args:
        drawing: A figure, or an image of Pillow, which keeps its pixels.
        dpi: Pixels per inch of a figure.
    """
    buffer = io.BytesIO()
    if isinstance(drawing, Image.Image):
        drawing.save(buffer, "PNG")
    else:
        drawing.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def show_in_figure(image: Image.Image, scale: float = 1) -> "Figure":
    """Returns a figure that shows an image and nothing else.

    Saved at `120 * scale` dots per inch, a pixel of the image is a pixel of the file.

    Args:
        image: The image.
        scale: Pixels of the image for each pixel of a screen.

    Returns:
        A `matplotlib.figure.Figure` without a window.
    """
    from matplotlib.figure import Figure

    width, height = (length / DPI / scale for length in image.size)
    figure = Figure(figsize=(width, height), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    axes.imshow(image, aspect="auto")
    return figure
