"""Shows progress, text, tables and results."""

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STAGES = {
    "download": "downloading",
    "extract": "unpacking",
    "sample": "drawing the sample images",
    "decode": "reading and checking images",
    "inspect": "checking images",
    "learning rate": "learning rates",
    "features": "computing features",
    "look": "looking for odd images",
    "predict": "classifying images",
    "convert": "converting the model",
    "prove": "comparing predictions",
    "explain": "explaining predictions",
}


class Output:
    """Where text, tables and results go.

    With `as_json`, stdout carries the result alone and everything for people goes
    to stderr. With `is_silent`, nothing is shown.
    """

    def __init__(self, as_json: bool = False, *, is_silent: bool = False) -> None:
        self._as_json = as_json
        file = io.StringIO() if is_silent else None
        self._console = Console(
            stderr=as_json, file=file, highlight=False, soft_wrap=True
        )

    def say(self, text: str = "") -> None:
        """Prints a line for people."""
        self._console.print(_plain(text))

    def say_cells(self, *cells: str) -> None:
        """Prints cells with tabs between them, for programs."""
        click.echo("\t".join(cells), file=self._console.file)

    def show(self, table: "TextTable") -> None:
        """Prints a table for people."""
        if self.is_terminal:
            self._console.print()
            self._console.print(table)
        else:
            click.echo(table.tab_separated, file=self._console.file)

    @property
    def console(self) -> Console:
        """Where text for people is drawn, for what redraws itself."""
        return self._console

    @property
    def is_terminal(self) -> bool:
        """Whether people read along, on a terminal that can redraw a line."""
        return self._console.file.isatty()

    def result(self, content: Any) -> None:
        """Prints the result as JSON where that was asked for."""
        if self._as_json:
            from keras_flowers_runtime.files import json_text

            click.echo(json_text(content))

    @contextlib.contextmanager
    def stdout_for_people(self) -> Iterator[None]:
        """Sends what libraries print to where text for people goes."""
        if not self._as_json:
            yield
            return
        with contextlib.redirect_stdout(sys.stderr):
            yield


class ProgressBars:
    """A progress callback that draws one bar per stage on stderr.

    The `Progress` callback of the commands (see `keras_flowers.progress`). Nothing is
    drawn if stderr is not a terminal. The bars appear with the first report and
    disappear at `stop` or at the end of the `with` block.

    Args:
        stderr: Where to draw while stderr itself is redirected.
    """

    def __init__(self, stderr: TextIO | None = None) -> None:
        console = Console(stderr=True, file=stderr)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Shows that `done` of `total` items of a stage are finished."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(_STAGES[stage], total=total)
            self._bars.start()
        self._bars.update(self._tasks[stage], completed=done, total=total)
        if self._bars.finished:
            self._bars.stop()  # other output may follow

    def stop(self) -> None:
        """Removes the bars."""
        self._bars.stop()

    def __enter__(self) -> "ProgressBars":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Removes the bars."""
        self.stop()


def progress_bars(output: Output) -> Progress:
    """Returns bars with a field `detail` for a terminal, elsewhere disabled ones.

    They are drawn below the lines that `output` prints, and are gone at `stop`.
    """
    console = output.console if output.is_terminal else Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class TextTable:
    """A table of plain text: nothing in a cell is markup, and a path is one line.

    Columns of numbers are right-aligned, all others left-aligned. On a terminal, long
    headers are broken between words, but a cell is never broken: a row that is too long
    runs past the edge, so that a path can be found and copied. Elsewhere, as in a pipe
    or a file, each row is one line with tabs between its cells.
    """

    def __init__(self, *columns: str, title: str | None = None) -> None:
        self._columns = [printable_path(column) for column in columns]
        self._title = None if title is None else printable_path(title)
        self._rows: list[tuple[list[str], str | None]] = []

    def add_row(self, *cells: str, style: str | None = None) -> None:
        """Adds a row, one cell per column."""
        self._rows.append(([printable_path(cell) for cell in cells], style))

    @property
    def tab_separated(self) -> str:
        """The title, the columns and the rows, one per line."""
        rows = [self._columns, *(cells for cells, _ in self._rows)]
        lines = [] if self._title is None else [self._title]
        return "\n".join([*lines, *("\t".join(cells) for cells in rows)])

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> RenderResult:
        """Yields what Rich prints."""
        table = self._to_rich()
        smallest = Measurement.get(console, options, table).minimum
        yield from console.render(
            table, options.update_width(max(options.max_width, smallest))
        )

    def _to_rich(self) -> Table:
        table = Table(
            title=self._title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            show_edge=False,
            pad_edge=False,
        )
        for index, column in enumerate(self._columns):
            cells = [row[index] for row, _ in self._rows]
            is_number = any(cells) and all(map(_is_number, filter(None, cells)))
            width = max((cell_len(cell) for cell in cells), default=0)
            # Rich breaks what may be broken; here that is the header alone.
            table.add_column(
                Text(column.replace("_", " ")),
                justify="right" if is_number else "left",
                min_width=max(width, *map(cell_len, re.split(r"[ _]", column))),
            )
        for cells, style in self._rows:
            table.add_row(*(Text(cell, no_wrap=True) for cell in cells), style=style)
        return table


def echo_error(message: str) -> None:
    """Prints a line on stderr, also where stderr cannot encode all of it."""
    click.echo(_encodable(message, sys.stderr), err=True)


def escape_unencodable_output() -> None:
    """Makes stdout and stderr print escapes for characters they cannot encode.

    For what libraries print. Text of this package is escaped before it is laid out.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_figure(figure: "Figure", path: Path) -> None:
    """Writes a figure of Matplotlib as a PNG file, atomically."""
    from keras_flowers.files import temporary_sibling
    from keras_flowers.plots.rendering import png_bytes

    with temporary_sibling(path) as temporary:
        temporary.write_bytes(png_bytes(figure))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?[\d,.]+(e[-+]?\d+)?%?|nan|inf|\d+/\d+", text) is not None


def printable_path(text: str) -> str:
    """Returns the text on one line, without characters that a terminal obeys."""
    # Here, because it imports NumPy, which --help does not need.
    from keras_flowers_runtime.files import printable_path as printable

    return _encodable(printable(text), sys.stdout)


def _plain(text: str) -> Text:
    return Text(printable_path(text))


def _encodable(text: str, stream: TextIO) -> str:
    """Returns a text with escapes for the characters that a stream cannot encode."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
