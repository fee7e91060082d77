"""Shows a running search: a live table on a terminal, else one line per trial."""

import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_flowers_cli.output import Output, TextTable
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:
    from keras_flowers.tuning import TrialRecord

_SHOWN = 10
_UNITS = "units"


class SearchView:
    """A progress callback for `keras_flowers.tuning.search`.

    Args:
        output: Where lasting lines are printed.
        objective: Name of the score.
        sign: 1 where more is better, -1 where less is.
    """

    def __init__(self, output: Output, objective: str, sign: int) -> None:
        self._output = output
        self._objective = objective
        self._sign = sign
        self._started = time.monotonic()
        self._finished_before: int | None = None
        self._said: set[str] = set()
        self._live: Live | None = None

    def __call__(self, trials: Sequence["TrialRecord"], planned: int) -> None:
        """Shows the trials."""
        finished = [trial for trial in trials if trial.status != "running"]
        if self._finished_before is None:
            self._finished_before = len(finished)
            self._said = {trial.id for trial in finished}
        if self._output.is_terminal:
            self._redraw(trials, planned)
            return
        for trial in finished:
            if trial.id not in self._said:
                self._said.add(trial.id)
                self._output.say(self._line(trial, len(finished), planned))

    def __enter__(self) -> "SearchView":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Removes the table."""
        if self._live is not None:
            self._live.stop()

    def table(self, trials: Sequence["TrialRecord"], limit: int = _SHOWN) -> TextTable:
        """Returns the trials: running, completed and pruned by score, failed."""
        running = [trial for trial in trials if trial.status == "running"]
        done = [trial for trial in trials if trial.status == "completed"]
        pruned = [trial for trial in trials if trial.status == "pruned"]
        for group in (done, pruned):
            group.sort(key=lambda trial: -self._sign * (trial.score or 0.0))
        failed = [trial for trial in trials if trial.status == "failed"]
        columns = _columns(trials)
        rows = TextTable("trial", *columns, "epoch", self._objective, "seconds")
        for trial in [*running, *done, *pruned, *failed][:limit]:
            rows.add_row(
                trial.id,
                *(_cell(trial, column) for column in columns),
                f"{trial.epoch}/{trial.epochs}",
                _score_text(trial),
                f"{trial.seconds:.0f}",
                style="bold" if done and trial is done[0] else None,
            )
        return rows

    def _redraw(self, trials: Sequence["TrialRecord"], planned: int) -> None:
        if self._live is None:
            self._live = Live(console=self._output.console, transient=True)
            self._live.start()
        self._live.update(Group(self.table(trials), self._bar(trials, planned)))

    def _bar(self, trials: Sequence["TrialRecord"], planned: int) -> Progress:
        finished = sum(trial.status != "running" for trial in trials)
        bar = Progress(
            TextColumn("trials"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=Console(file=self._output.console.file),
        )
        bar.add_task(
            "",
            total=planned,
            completed=finished,
            left=self._time_left(finished, planned),
        )
        return bar

    def _time_left(self, finished: int, planned: int) -> str:
        done_here = finished - (self._finished_before or 0)
        if not done_here or finished >= planned:
            return ""
        seconds = (time.monotonic() - self._started) / done_here * (planned - finished)
        return f"about {_duration_text(seconds)} left"

    def _line(self, trial: "TrialRecord", finished: int, planned: int) -> str:
        values = ", ".join(
            f"{k} {_value_text(v)}" for k, v in trial.hyperparameters.items()
        )
        left = self._time_left(finished, planned)
        return (
            f"trial {trial.id} ({finished} of {planned}): {_score_text(trial)}, "
            f"{values}, {trial.seconds:.0f} s{f', {left}' if left else ''}"
        )


def _columns(trials: Sequence["TrialRecord"]) -> list[str]:
    """Returns the hyperparameters that differ, the widths of all layers as one."""
    from keras_flowers.tuning.records import hyperparameter_names

    names = hyperparameter_names(trials)
    columns = [_UNITS] if any(map(_is_width, names)) else []
    for name in names:
        # Epochs have a column, and the widths tell how many layers there are.
        if name in ("epochs", "layers") or _is_width(name):
            continue
        if len({str(trial.hyperparameters.get(name)) for trial in trials}) > 1:
            columns.append(name)
    return columns


def _is_width(name: str) -> bool:
    return re.fullmatch(r"units_\d+", name) is not None


def _cell(trial: "TrialRecord", column: str) -> str:
    values = trial.hyperparameters
    if column != _UNITS:
        return _value_text(values.get(column))
    widths = [str(v) for k, v in values.items() if _is_width(k) and v is not None]
    return ",".join(widths) or "none"


def _score_text(trial: "TrialRecord") -> str:
    if trial.status in ("completed", "pruned"):
        words = [f"{trial.score:.4f}"]
        words += ["pruned"] * (trial.status == "pruned")
        words += ["collapsed"] * trial.has_collapsed
        return " ".join(words)
    return trial.status if trial.error is None else f"failed: {trial.error}"


def _value_text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _duration_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
