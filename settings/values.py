"""Reads the values of settings from text, and shows them."""

import math
import re
from typing import Any

from keras_flowers_settings.kinds import (
    MAX_SIDE,
    MAX_WIDTH,
    ByteSize,
    Count,
    Flag,
    ImageSize,
    Integer,
    Kind,
    Number,
    ParsedKind,
    Range,
    Strength,
    Switch,
    Widths,
)

Scalar = bool | int | float | str

_MAX_BYTES = 2.0**62
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{infix}b": base**power
    for power, letter in enumerate("kmgt", start=1)
    for infix, base in (("", 1000), ("i", 1024))
}
_SIZE = re.compile(rf"([0-9]+(?:\.[0-9]+)?) *({'|'.join(_UNITS)})")


def parse(kind: ParsedKind, text: str) -> Any:
    """Returns the value that a text describes.

    Raises:
        ValueError: If the text is not of the kind; the message says why.
    """
    match kind:
        case ImageSize():
            return _parse_image_size(text)
        case Widths():
            return _parse_widths(text)
        case ByteSize():
            return _parse_bytes(text)
        case Count():
            return text if text == kind.word else _parse_count(kind, text)
        case Range():
            return _parse_range(kind, text)


def to_text(kind: Kind, value: Any) -> str:
    """Returns a value as people write it."""
    if isinstance(value, str):
        return value
    match kind:
        case Number():
            return f"{value:.6g}"
        case Flag() | Switch():
            return "yes" if value else "no"
        case Strength() if isinstance(value, bool):
            return "yes" if value else "no"
        case ImageSize():
            height, width = value
            return str(height) if height == width else f"{height}x{width}"
        case Widths():
            return ",".join(map(str, value)) or "none"
        case ByteSize():
            return _bytes_to_text(value)
        case Range():
            parts = value if isinstance(value, tuple) else (value,)
            return kind.separator.join(map(str, parts))
        case _:
            return str(value)


def to_scalar(kind: Kind, value: Any) -> Scalar:
    """Returns a value as TensorBoard compares it.

    Without a value it is 0, False or `"none"`; empty for a size and for widths.
    """
    match kind:
        case Integer():
            return int(value or 0)
        case Number():
            return float(value or 0)
        case Flag() | Switch():
            return bool(value)
        case Strength():
            return to_text(kind, value or False)
        case ImageSize():
            return "x".join(map(str, value or ()))
        case Widths():
            return value if isinstance(value, str) else ",".join(map(str, value or ()))
        case _:
            return "none" if value is None else to_text(kind, value)


def _parse_image_size(text: str) -> tuple[int, int]:
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() for side in sides):
        raise ValueError(f"{text!r} is neither a number nor HEIGHTxWIDTH.")
    if not all(_is_within(side, MAX_SIDE) for side in sides):
        raise ValueError(f"{text!r} is not within 1 to {MAX_SIDE} pixels.")
    return int(sides[0]), int(sides[-1])


def _parse_widths(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    widths = [width.strip() for width in text.split(",")]
    if not all(_is_within(width, MAX_WIDTH) for width in widths):
        raise ValueError(
            f"{text!r} must be numbers from 1 to {MAX_WIDTH}, separated by commas, "
            "such as 256,128."
        )
    return tuple(map(int, widths))


def _parse_bytes(text: str) -> int:
    match = _SIZE.fullmatch(text.strip().lower())
    count = float(match[1]) * _UNITS[match[2]] if match else math.inf
    if count > _MAX_BYTES:
        raise ValueError(f"{text!r} is not a size such as 500MB or 20GiB.")
    return int(count)


def _parse_count(kind: Count, text: str) -> int:
    if not _is_within(text, kind.highest, kind.lowest):
        raise ValueError(
            f"{text!r} is neither a number from {kind.lowest} to {kind.highest} nor "
            f"{kind.word!r}."
        )
    return int(text)


def _parse_range(kind: Range, text: str) -> Any:
    try:
        parts = tuple(kind.number(part) for part in text.split(kind.separator))
    except ValueError:
        form = kind.separator.join(("LOW", "HIGH"))
        raise ValueError(f"{text!r} is neither a number nor {form}.") from None
    return parts[0] if len(parts) == 1 else parts


def _bytes_to_text(count: int) -> str:
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count and count % 1024**power == 0:
            return f"{count // 1024**power} {unit}"
    return f"{count} bytes"


def _is_within(text: str, highest: int, lowest: int = 1) -> bool:
    # The length first: Python refuses to read thousands of digits.
    is_short = text.isdecimal() and len(text) <= len(str(highest))
    return is_short and lowest <= int(text) <= highest
