"""Any name in any drawing: on one line, in a given width, in fonts that have it.

Pictures are drawn with Pillow, in milliseconds, in the font that Matplotlib ships. It
covers Latin, Greek, Cyrillic, Arabic, Hebrew and many more scripts, but not Chinese,
Japanese or Korean: those come from a font of the system, if there is one.
"""

import bisect
import functools
import itertools
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_flowers.files import printable_path

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

Colour = tuple[int, int, int]

_FAMILIES = (
    "DejaVu Sans",
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


def count_columns(text: str) -> int:
    """Returns the width of a text in columns; East Asian wide characters take two."""
    return sum(map(_measure_character, text))


def shorten(
    text: str, room: float, measure: Callable[[str], float] = count_columns
) -> str:
    """Returns the text, or its beginning and its end with `…` between them.

    The end gets twice the room of the beginning, because that is where the names of
    files in one folder differ.

    Args:
        text: Any text on one line.
        room: Maximum width of the result, as `measure` counts it.
        measure: Returns the width of a text; by default in columns.

    Returns:
        The text as it is if it fits.
    """
    if measure(text) <= room:
        return text
    room -= measure("…")
    lengths = range(1, len(text) + 1)
    room_of_end = room * 2 // 3
    end = bisect.bisect_right(
        lengths, room_of_end, key=lambda n: measure(text[len(text) - n :])
    )
    beginning = bisect.bisect_right(
        lengths, room - room_of_end, key=lambda n: measure(text[:n])
    )
    return f"{text[:beginning]}…{text[len(text) - end :]}"


def fit_name(name: str, size: int, width: float) -> str:
    r"""Returns a name as a drawing can show it: on one line, short, without boxes.

    Characters that no installed font has are shown as escapes (`\u96cf`), as control
    characters and undecodable bytes are.

    Args:
        name: Any name of a class, a file or a folder.
        size: Height of the font in pixels.
        width: Maximum width of the result in pixels.
    """
    text = "".join(
        character if _family_of(character) is not None else ascii(character)[1:-1]
        for character in printable_path(name)
    )
    return shorten(text, width, lambda part: text_width(part, size))


def text_width(text: str, size: int) -> float:
    """Returns the width in pixels of a text of a font size in pixels."""
    return sum(font.getlength(run) for run, font in _split_runs(text, size))


def draw_text(
    draw: "ImageDraw",
    position: tuple[float, float],
    text: str,
    size: int,
    colour: Colour,
    anchor: str = "la",
) -> None:
    """Draws one line of text that `fit_name` returned, or any ASCII text.

    Args:
        draw: What to draw on.
        position: Pixels `(x, y)` of the anchor.
        text: The line.
        size: Height of the font in pixels.
        colour: Red, green and blue, 0..255.
        anchor: Two letters as in Pillow: `l`, `m` or `r`, then `a`, `m` or `s`.
    """
    x, y = position
    if anchor[0] != "l":
        x -= text_width(text, size) * {"m": 0.5, "r": 1}[anchor[0]]
    for run, font in _split_runs(text, size):
        draw.text((x, y), run, colour, font, anchor=f"l{anchor[1]}")
        x += font.getlength(run)


def figure_text_style(text: str) -> dict[str, Any]:
    """Returns the arguments with which Matplotlib draws a text of `fit_name` literally.

    Without them, it takes dollar signs for formulas and draws boxes for characters that
    its default font does not have.
    """
    families = dict.fromkeys(_family_of(character) for character in text)
    return {
        "fontfamily": [family for family in families if family] or [_FAMILIES[0]],
        "parse_math": False,
    }


def _split_runs(text: str, size: int) -> list[tuple[str, "FreeTypeFont"]]:
    """Splits a text where its font changes."""
    if text.isascii():
        return [(text, _load_font(_FAMILIES[0], size))]
    return [
        ("".join(run), _load_font(family or _FAMILIES[0], size))
        for family, run in itertools.groupby(text, _family_of)
    ]


def _family_of(character: str) -> str | None:
    """Returns the first font family that has a character."""
    if character.isascii():
        return _FAMILIES[0]
    return next(
        (f for f in _find_families() if ord(character) in _read_code_points(f)), None
    )


@functools.cache
def _find_families() -> tuple[str, ...]:
    """Returns the installed ones, found only when a name needs them."""
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    return (_FAMILIES[0], *(name for name in _FAMILIES[1:] if name in installed))


@functools.cache
def _read_code_points(family: str) -> frozenset[int]:
    from matplotlib import font_manager

    return frozenset(font_manager.get_font(_find_path(family)).get_charmap())


@functools.cache
def _load_font(family: str, size: int) -> "FreeTypeFont":
    from PIL import ImageFont

    return ImageFont.truetype(_find_path(family), size)


@functools.cache
def _find_path(family: str) -> str:
    import matplotlib

    if family == _FAMILIES[0]:
        # Not through the font manager, which first lists all fonts of the system.
        return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
    from matplotlib import font_manager

    return font_manager.findfont(font_manager.FontProperties(family=[family]))


def _measure_character(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
