"""The kinds of values that settings take: data alone.

`values` reads, shows and compares values of these kinds; the command line makes options
of them.
"""

import dataclasses

MAX_SIDE = 4096
MAX_WIDTH = 1_000_000
MANY = 1_000_000
MAX_INT32 = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Integer:
    """An integer from `lowest` to `highest`."""

    lowest: int = 1
    highest: int = MANY


@dataclasses.dataclass(frozen=True)
class Number:
    """A number from `lowest` to `highest`, without an end that is open.

    Or one of `words`.
    """

    lowest: float
    highest: float
    lowest_is_open: bool = False
    highest_is_open: bool = False
    words: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several words."""

    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Text:
    """Any text, shown as `form` in usage lines."""

    form: str = "NAME"


@dataclasses.dataclass(frozen=True)
class OptionalText:
    """Any text, shown as `[form]` in usage lines; empty if the option has no value."""

    form: str


@dataclasses.dataclass(frozen=True)
class Flag:
    """Off unless the option is given."""


@dataclasses.dataclass(frozen=True)
class Switch:
    """On or off: `--name` or `--no-name`."""


@dataclasses.dataclass(frozen=True)
class Strength:
    """One of several words, `none` among them, or on or off: `--name`, `--no-name`.

    `none` and off are False, on is True.
    """

    words: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ExistingFile:
    """The path of a file that exists."""


@dataclasses.dataclass(frozen=True)
class NewFile:
    """The path of a file to write."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """The path of a folder, which need not exist, shown as `form` in usage lines."""

    form: str = "FOLDER"


@dataclasses.dataclass(frozen=True)
class ImageSize:
    """`256` or `HEIGHTxWIDTH`: a pair of pixels."""


@dataclasses.dataclass(frozen=True)
class Widths:
    """`256,128` or `none`: a tuple of the widths of layers."""


@dataclasses.dataclass(frozen=True)
class ByteSize:
    """`500MB`, `20GiB` or a plain number: bytes."""


@dataclasses.dataclass(frozen=True)
class Count:
    """An integer from `lowest` to `highest`, or a word for one that is found out."""

    word: str
    lowest: int = 1
    highest: int = MANY


@dataclasses.dataclass(frozen=True)
class Range:
    """`LOW:HIGH`, `LOW:HIGH:STEP` or one number: a tuple or a number."""

    number: type[int] | type[float]
    form: str = "LOW:HIGH[:STEP]"
    separator: str = ":"


# Kinds that `values.parse` reads.
ParsedKind = ImageSize | Widths | ByteSize | Count | Range
Kind = (
    Integer
    | Number
    | Choice
    | Text
    | OptionalText
    | Flag
    | Switch
    | Strength
    | ExistingFile
    | NewFile
    | Folder
    | ParsedKind
)
