"""What the user sees while a command works, and at its end."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

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

_STAGES = {
    "download": "downloading",
    "extract": "unpacking",
    "sample": "drawing the sample photos",
    "decode": "reading and checking photos",
    "inspect": "checking photos",
    "predict": "classifying photos",
}


class Output:
    """Where text, tables and results go.

    With `as_json`, stdout carries the result alone and everything for people goes
    to stderr.
    """

    def __init__(self, as_json: bool = False) -> None:
        self._as_json = as_json
        self.console = Console(stderr=as_json, highlight=False, soft_wrap=True)

    def say(self, text: str = "") -> None:
        """Prints a line for people."""
        self.console.print(text, markup=False)

    def show(self, table: Table) -> None:
        """Prints a table for people."""
        self.console.print(table)

    def result(self, content: Any) -> None:
        """Prints the result as JSON where that was asked for."""
        if self._as_json:
            click.echo(json.dumps(content, indent=1, allow_nan=False))

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
    """

    def __init__(self) -> None:
        console = Console(stderr=True)
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

    def stop(self) -> None:
        """Takes the bars away."""
        self._bars.stop()

    def __enter__(self) -> "ProgressBars":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Takes the bars away."""
        self.stop()


def table(*columns: str, title: str | None = None) -> Table:
    """Returns an empty table; all but the first column are right-aligned numbers."""
    result = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        # Folded, not cut: two long paths must stay apart.
        result.add_column(column, justify="right" if index else "left", overflow="fold")
    return result
