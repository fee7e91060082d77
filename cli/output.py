"""What the user sees while a command works, and at its end."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import click
from rich.console import Console
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

_STAGES = {
    "download": "downloading",
    "extract": "unpacking",
    "sample": "drawing the sample photos",
    "decode": "reading and checking photos",
    "inspect": "checking photos",
    "features": "computing features",
    "predict": "classifying photos",
    "convert": "converting the model",
    "prove": "comparing answers",
    "explain": "explaining answers",
}


class Output:
    """Where text, tables and results go.

    With `as_json`, stdout carries the result alone and everything for people goes
    to stderr.
    """

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self._console = Console(stderr=as_json, highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """Prints a line for people."""
        self._console.print(_plain(text))

    def show(self, table: "TextTable") -> None:
        """Prints a table for people."""
        self._console.print(table)

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

    Where stderr is no terminal nothing is drawn.
    The bars appear with the first report and go at `stop` or at the end of the
    `with` block.

    Args:
        stderr: Where to draw while stderr itself is held back.
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
        """Shows that `done` of `total` items of a stage are done."""
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(_STAGES[stage], total=total)
            self._bars.start()
        self._bars.update(self._tasks[stage], completed=done, total=total)
        if self._bars.finished:
            self._bars.stop()  # what comes next may draw on its own

    def stop(self) -> None:
        """Takes the bars away."""
        self._bars.stop()

    def __enter__(self) -> "ProgressBars":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Takes the bars away."""
        self.stop()


class TextTable:
    """A table of plain text: nothing in a cell is markup, and a path is one line.

    All but the first column are right-aligned numbers.
    """

    def __init__(self, *columns: str, title: str | None = None) -> None:
        self._table = Table(
            title=None if title is None else _plain(title, "table.title"),
            title_justify="left",
        )
        for index, column in enumerate(columns):
            # Folded, not cut: two long paths must stay apart.
            self._table.add_column(
                _plain(column), justify="right" if index else "left", overflow="fold"
            )

    def add_row(self, *cells: str, style: str | None = None) -> None:
        """Adds a row, one cell per column."""
        self._table.add_row(*map(_plain, cells), style=style)

    def __rich__(self) -> Table:
        """Returns what Rich prints."""
        return self._table


def _plain(text: str, style: str = "") -> Text:
    # Here, because it imports NumPy, which --help does not need.
    from keras_flowers_runtime.files import printable_path

    return Text(printable_path(text), style)
