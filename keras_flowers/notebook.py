"""Tables of HTML, which notebooks show of an object instead of its `repr`."""

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from keras_flowers.files import printable_path

_MOST_ROWS = 30
_JPEG_QUALITY = 80


def html_table(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[Any]],
    images: Iterable[tuple[str, np.ndarray]] = (),
) -> str:
    """Returns a table as HTML that stays small, whatever it shows.

    Args:
        title: A line above it.
        heads: The names of the columns; empty for a table without.
        rows: The cells, which are shown as text. After 30 rows, a line says how many
            more there are.
        images: A row of images with their captions: small arrays of uint8,
            `(height, width, 3)`.

    Returns:
        HTML without scripts; all text in it is escaped.
    """
    lines = [Markup("<p><strong>{}</strong></p>").format(title)]
    lines += [Markup("<table>")]
    if heads:
        lines += [_row("th", heads)]
    lines += [_row("td", row) for row in rows[:_MOST_ROWS]]
    lines += [Markup("</table>")]
    if len(rows) > _MOST_ROWS:
        lines += [Markup("<p>and {:,} more</p>").format(len(rows) - _MOST_ROWS)]
    figures = [_figure(caption, pixels) for caption, pixels in images]
    if figures:
        row = Markup('<div style="display: flex; flex-wrap: wrap; gap: 8px">{}</div>')
        lines += [row.format(Markup("").join(figures))]
    return Markup("\n").join(lines)


def jpeg_address(pixels: np.ndarray) -> str:
    """Returns an address that contains an image, uint8 `(height, width, 3)`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _row(tag: str, cells: Sequence[Any]) -> Markup:
    first, *others = (_show(cell) for cell in cells)
    html = Markup('<tr><{0} style="text-align: left">{1}</{0}>').format(tag, first)
    for cell in others:
        html += Markup("<{0}>{1}</{0}>").format(tag, cell)
    return html + Markup("</tr>")


def _show(cell: Any) -> str:
    if isinstance(cell, bool):
        return str(cell)
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.4g}" if isinstance(cell, float) else printable_path(str(cell))


def _figure(caption: str, pixels: np.ndarray) -> Markup:
    html = Markup(
        '<figure style="margin: 0"><img src="{}" alt="{}"><figcaption>{}</figcaption>'
        "</figure>"
    )
    return html.format(jpeg_address(pixels), *[printable_path(caption)] * 2)
