"""Makes command line options of the settings."""

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from keras_flowers_settings import ALL_SETTINGS, Automatic, Setting, settings_of
from keras_flowers_settings.files import DEBUG
from keras_flowers_settings.kinds import (
    ByteSize,
    Choice,
    Count,
    ExistingFile,
    Flag,
    Folder,
    ImageSize,
    Integer,
    NewFile,
    Number,
    OptionalText,
    ParsedKind,
    Range,
    Strength,
    Switch,
    Text,
    Widths,
)
from keras_flowers_settings.values import parse

_Function = TypeVar("_Function", bound=Callable[..., Any])


class ParsedText(click.ParamType):  # type: ignore[type-arg]
    """A value that the settings parse, such as `HEIGHTxWIDTH`."""

    def __init__(self, kind: ParsedKind) -> None:
        self.name = type(kind).__name__.lower()
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Returns the value."""
        if not isinstance(value, str):
            return value
        try:
            return parse(self._kind, value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class FiniteRange(click.FloatRange):
    """A range of numbers that excludes NaN, which compares with nothing.

    Args:
        kind: The range, and words that are allowed as well.
    """

    def __init__(self, kind: Number) -> None:
        super().__init__(
            kind.lowest,
            kind.highest,
            min_open=kind.lowest_is_open,
            max_open=kind.highest_is_open,
        )
        self._words = kind.words

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Returns the number or the word."""
        if value in self._words:
            return value
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
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


class StrengthWord(click.Choice):  # type: ignore[type-arg]
    """One of several words; `none` is False, and `yes` and `no` are True and False."""

    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__((*words, "yes", "no"))
        self.words = words

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Returns the word or the bool."""
        word = super().convert(value, param, ctx)
        return {"none": False, "no": False, "yes": True}.get(word, word)


EXISTING_FILE = UserPath(exists=True, dir_okay=False, path_type=Path)
EXISTING_PATH = UserPath(exists=True, path_type=Path)


def setting_options(command: str) -> Callable[[_Function], _Function]:
    """Returns the decorator that adds the options of a command's settings."""

    def add_options(function: _Function) -> _Function:
        for setting in reversed(settings_of(command)):
            function = _click_option(setting)(function)
        return function

    return add_options


def spell_out_strengths(arguments: Sequence[str]) -> list[str]:
    """Returns the words of a line, with a word for each strength that is a switch.

    `--augmentation` may be followed by a strength or by anything else, and
    `--no-augmentation` turns it off. Click has no such option.
    """
    flags = {s.flag: s.kind.words for s in ALL_SETTINGS if isinstance(s.kind, Strength)}
    off = {f"--no-{flag.removeprefix('--')}": flag for flag in flags}
    words = list(arguments)
    end = words.index("--") if "--" in words else len(words)
    for position, word in enumerate(words[:end]):
        following = words[position + 1] if position + 1 < end else ""
        if word in flags and following not in (*flags[word], "yes", "no"):
            words[position] = f"{word}=yes"
        elif word in off:
            words[position] = f"{off[word]}=no"
    return words


def _click_option(setting: Setting) -> Callable[[_Function], _Function]:
    names = setting.flag
    attributes: dict[str, Any] = {"help": _help_text(setting)}
    match setting.kind:
        case Flag():
            attributes["is_flag"] = True
        case Switch():
            names += f"/--no-{setting.flag.removeprefix('--')}"
            attributes["default"] = None
        case Strength(words):
            attributes |= {
                "type": StrengthWord(words),
                "metavar": f"[{'|'.join(words)}]",
            }
        case Integer(lowest, highest):
            attributes |= {"type": click.IntRange(lowest, highest), "metavar": "N"}
        case Number() as kind:
            metavar = "|".join(("NUMBER", *kind.words))
            attributes |= {"type": FiniteRange(kind), "metavar": metavar}
        case Choice(words):
            attributes["type"] = click.Choice(words)
        case Text(form):
            attributes["metavar"] = form
        case OptionalText(form):
            attributes |= {"is_flag": False, "flag_value": "", "metavar": f"[{form}]"}
        case ExistingFile():
            attributes["type"] = EXISTING_FILE
        case NewFile():
            attributes["type"] = UserPath(dir_okay=False, path_type=Path)
        case Folder(form):
            folder = UserPath(file_okay=False, path_type=Path)
            attributes |= {"type": folder, "metavar": form}
        case Range(form=form) as kind:
            attributes |= {"type": ParsedText(kind), "metavar": form}
        case ImageSize() | ByteSize() as kind:
            attributes |= {"type": ParsedText(kind), "metavar": "SIZE"}
        case Count() as kind:
            attributes |= {"type": ParsedText(kind), "metavar": f"N|{kind.word}"}
        case Widths() as kind:
            attributes |= {"type": ParsedText(kind), "metavar": "N[,N...]"}
    if not isinstance(setting.default, Automatic):
        attributes.setdefault("default", setting.default)
    # `main` takes --debug from the line, so that it also serves errors in the line.
    attributes["expose_value"] = setting is not DEBUG
    return click.option(names, *setting.aliases, setting.name, **attributes)


def _help_text(setting: Setting) -> str:
    text = setting.meaning.replace("`", "") + "."
    default = setting.default_text
    return f"{text}  [default: {default}]" if default else text


def given_options(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that the user gave to the running command."""
    context = click.get_current_context()
    return {
        name: value
        for name, value in options.items()
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    }


def arguments_for(callee: str, command: str, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments that given options mean.

    Args:
        callee: The class or function of the library, such as `ImageDatasetLoader`.
            What is not given is left to its defaults.
        command: The command that was given the options.
        given: What `given_options` returned.
    """
    return {
        argument.removeprefix(f"{callee}."): given[setting.name]
        for setting in settings_of(command)
        for argument in setting.arguments
        if argument.startswith(f"{callee}.") and setting.name in given
    }


def check_backbone_options(options: dict[str, Any]) -> None:
    """Refuses weights without a network."""
    if "pretrained_weights" in options and "backbone" not in options:
        raise click.UsageError("--pretrained-weights needs a --backbone.")


def check_writable(folder: Path, option: str) -> None:
    """Refuses a folder in which nothing can be written, before the work for it."""
    # Here, because it imports NumPy, which --help does not need.
    from keras_flowers_runtime.errors import InputError
    from keras_flowers_runtime.files import require_writable_folder

    try:
        require_writable_folder(folder)
    except InputError as error:
        raise click.UsageError(f"{option}: {error}.") from error


def new_run_directory(data: str, kind: str = "") -> Path:
    """Returns a folder for results, named after the data, the kind and the time."""
    name = Path(data.rstrip("/")).name.split(".")[0] or "run"
    return Path("runs") / f"{name}{kind}-{time.strftime('%Y%m%d-%H%M%S')}"
