"""Options and argument types that several commands share."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

MAX_SIDE = 4096
_UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "b": 1, "": 1}


class ImageSize(click.ParamType):  # type: ignore[type-arg]
    """`256` or `HEIGHTxWIDTH`, as a pair of pixels."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Returns (height, width)."""
        if isinstance(value, tuple):
            return value
        sides = value.lower().split("x")
        if len(sides) > 2 or not all(side.isdecimal() for side in sides):
            self.fail(f"{value!r} is neither a number nor HEIGHTxWIDTH.", param, ctx)
        height, width = int(sides[0]), int(sides[-1])
        if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
            self.fail(f"{value!r} is not within 1 to {MAX_SIDE} pixels.", param, ctx)
        return height, width


class HiddenUnits(click.ParamType):  # type: ignore[type-arg]
    """`256,128` as a tuple of widths; `none` for no hidden layer."""

    name = "widths"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Returns the widths."""
        if isinstance(value, tuple):
            return value
        if value == "none":
            return ()
        widths = [width.strip() for width in value.split(",")]
        if not all(width.isdecimal() and int(width) > 0 for width in widths):
            self.fail(
                f"{value!r} is no list of positive numbers such as 256,128.", param, ctx
            )
        return tuple(map(int, widths))


class ByteSize(click.ParamType):  # type: ignore[type-arg]
    """`500MB`, `20GB` or a plain number, as bytes."""

    name = "bytes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Returns the number of bytes."""
        if isinstance(value, int):
            return value
        number = value.rstrip("kKmMgGtTbB")
        unit = _UNITS.get(value[len(number) :].strip().lower())
        try:
            count = float(number)
        except ValueError:
            count = -1.0
        if unit is None or not 0 <= count < 10**9:
            self.fail(f"{value!r} is no size such as 500MB or 20GB.", param, ctx)
        return int(count * unit)


class Number(click.FloatRange):
    """A range of numbers; NaN, which compares with nothing, is outside of it."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the number."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number.", param, ctx)
        return number


FRACTION = Number(0, 1, max_open=True)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."
)


cache_option = click.option(
    "--cache-dir",
    "cache_directory",
    type=click.Path(file_okay=False),
    help="Folder for downloads, archives and decoded photos.",
)
_LIMITS = (
    click.option(
        "--max-extracted-size",
        type=ByteSize(),
        help="What an archive may unpack to. [default: 10 GiB]",
    ),
    click.option(
        "--max-extracted-files",
        type=click.IntRange(1),
        help="How many files an archive may hold. [default: 200000]",
    ),
)
_DISK_BUDGET = click.option(
    "--disk-budget",
    type=ByteSize(),
    help="What decoded photos may take on disk; beyond it they are decoded on the "
    "fly. [default: 32 GiB]",
)


def source_options(function: _Function) -> _Function:
    """Adds the options of finding data; they reach the command as `**source`."""
    return _all(function, cache_option, *_LIMITS)


def loader_options(function: _Function) -> _Function:
    """Adds the options of finding and decoding data."""
    return _all(function, cache_option, *_LIMITS, _DISK_BUDGET)


def _all(function: _Function, *options: Callable[[_Function], _Function]) -> _Function:
    for option in reversed(options):
        function = option(function)
    return function


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that were given, so that defaults stand in one place."""
    return {name: value for name, value in options.items() if value is not None}


class Command(click.Command):
    """A command that also lists `--debug`, which `main` takes from the line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                help="Show the traceback of an error.",
            )
        )
