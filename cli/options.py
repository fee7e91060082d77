"""Options and argument types that several commands share."""

import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

MAX_SIDE = 4096
MAX_WIDTH = 1_000_000
_UNITS = {"": 1, "b": 1} | {
    f"{letter}{infix}b": base**power
    for power, letter in enumerate("kmgt", start=1)
    for infix, base in (("", 1000), ("i", 1024))
}
_SIZE = re.compile(rf"([0-9]+(?:\.[0-9]+)?) *({'|'.join(_UNITS)})")
_MAX_BYTES = 2.0**62


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
        if not all(_is_within(side, MAX_SIDE) for side in sides):
            self.fail(f"{value!r} is not within 1 to {MAX_SIDE} pixels.", param, ctx)
        return int(sides[0]), int(sides[-1])


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
        if not all(_is_within(width, MAX_WIDTH) for width in widths):
            self.fail(
                f"{value!r} is no list of numbers from 1 to {MAX_WIDTH} such as "
                "256,128.",
                param,
                ctx,
            )
        return tuple(map(int, widths))


class ByteSize(click.ParamType):  # type: ignore[type-arg]
    """`500MB`, `20GiB` or a plain number, as bytes."""

    name = "bytes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Returns the number of bytes."""
        if isinstance(value, int):
            return value
        match = _SIZE.fullmatch(value.strip().lower())
        count = float(match[1]) * _UNITS[match[2]] if match else math.inf
        if count > _MAX_BYTES:
            self.fail(f"{value!r} is no size such as 500MB or 20GiB.", param, ctx)
        return int(count)


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


class UserPath(click.Path):
    """A path in which `~` is the home folder, as after `--option=` for a shell."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Returns the path as `click.Path` does."""
        # Unlike the method of pathlib it leaves the name of an unknown user alone.
        path = os.path.expanduser(value)  # noqa: PTH111
        return super().convert(path, param, ctx)


FRACTION = Number(0, 1, max_open=True)
EXISTING_FILE = UserPath(exists=True, dir_okay=False, path_type=Path)
BATCH_SIZE = click.IntRange(1, 2**31 - 1)

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as JSON on stdout."
)


cache_option = click.option(
    "--cache-dir",
    "cache_directory",
    type=UserPath(file_okay=False),
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
        type=click.IntRange(1, 2**31 - 1),
        help="How many files an archive may hold. [default: 200000]",
    ),
)
_DISK_BUDGET = click.option(
    "--disk-budget",
    type=ByteSize(),
    help="What decoded photos may take on disk; beyond it they are decoded on the "
    "fly. [default: 32 GiB]",
)


_BACKBONE = (
    click.option(
        "--backbone",
        metavar="NAME|FILE",
        help="Network that turns photos into features: see keras-flowers backbones; or "
        "a .keras file.  [default: none]",
    ),
    click.option(
        "--weights",
        metavar="imagenet|FILE|none",
        help="Weights of the backbone.  [default: imagenet for a name that has such; "
        "those of a .keras file]",
    ),
)


def backbone_options(function: _Function) -> _Function:
    """Adds the options of a backbone."""
    return _all(function, *_BACKBONE)


def check_backbone_options(options: dict[str, Any]) -> None:
    """Refuses weights without a network."""
    if "weights" in options and "backbone" not in options:
        raise click.UsageError("--weights needs a --backbone.")


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


def check_writable(folder: Path, option: str) -> None:
    """Refuses a folder in which nothing can be written, before the work for it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise click.UsageError(f"{option}: the folder {folder} cannot be written.")


def new_run_directory(data: str, kind: str = "") -> Path:
    """Returns a folder for results, named after the data, the kind and the time."""
    name = Path(data.rstrip("/")).name.split(".")[0] or "run"
    return Path("runs") / f"{name}{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that were given, so that defaults stand in one place."""
    return {name: value for name, value in options.items() if value is not None}


def _is_within(text: str, highest: int) -> bool:
    # The length first: Python refuses to read thousands of digits.
    is_short = text.isdecimal() and len(text) <= len(str(highest))
    return is_short and 1 <= int(text) <= highest


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
