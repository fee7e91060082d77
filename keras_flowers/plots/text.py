"""Names in drawings: any name, in a given width, in fonts that have its characters."""

import functools
import io
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from keras_flowers.files import printable_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Matplotlib's own fonts know no Chinese, Japanese or Korean. Systems bring one of:
_FALLBACK_FAMILIES = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
    "Microsoft YaHei",
)


def shortened(text: str, columns: int) -> str:
    """Returns the text, or its beginning and its end with `…` between them.

    The end gets twice the room of the beginning, because files of one folder differ
    there.

    Args:
        text: Any text on one line.
        columns: The width of the result at most; East Asian wide characters take two.

    Returns:
        The text as it is where it fits.
    """
    if sum(map(_width, text)) <= columns:
        return text
    end = (columns - 1) * 2 // 3
    beginning = _fitting(text, columns - 1 - end)
    return f"{beginning}…{_fitting(text[::-1], end)[::-1]}"


def drawn_name(name: str, columns: int, family: str = "sans-serif") -> str:
    r"""Returns a name as a drawing can show it: on one line, short, without boxes.

    What no font at hand can draw is shown as an escape (`\u96cf`), as control
    characters and bytes that are no text are.

    Args:
        name: Any name of a file or folder.
        columns: The width of the result at most.
        family: The font family it will be drawn in, with `name_style`.
    """
    return shortened(_drawable(printable_path(name), family), columns)


def name_style(family: str = "sans-serif") -> dict[str, Any]:
    """Returns the keywords with which Matplotlib draws a name literally.

    Without them it takes dollar signs for formulas.
    """
    return {"fontfamily": list(_families(family)), "parse_math": False}


def png_bytes(figure: "Figure", dpi: int = 120) -> bytes:
    """Returns a figure as the content of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitting(characters: Iterable[str], columns: int) -> str:
    fitting = ""
    for character in characters:
        columns -= _width(character)
        if columns < 0:
            break
        fitting += character
    return fitting


def _drawable(text: str, family: str) -> str:
    if text.isascii():
        return text  # which every font has
    known = [_characters(name) for name in _families(family)]
    return "".join(
        character
        if any(ord(character) in characters for characters in known)
        else ascii(character)[1:-1]
        for character in text
    )


@functools.cache
def _families(family: str) -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return (family, *(name for name in _FALLBACK_FAMILIES if name in installed))


@functools.cache
def _characters(family: str) -> frozenset[int]:
    """Returns the code points that a family has a glyph for."""
    from matplotlib import font_manager

    path = font_manager.findfont(font_manager.FontProperties(family=[family]))
    return frozenset(font_manager.get_font(path).get_charmap())
