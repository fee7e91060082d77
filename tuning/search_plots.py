"""Draws what a search found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from keras_flowers.tuning.records import (
    COMPLETED,
    PRUNED,
    TrialRecord,
    hyperparameter_names,
    varied_hyperparameters,
)

from keras_flowers.files import temporary_sibling

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 3


def draw_plots(
    records: Sequence[TrialRecord], objective: str, direction: str
) -> "dict[str, Figure]":
    """Draws the plots of a search, by name. At least one trial must be completed."""
    return {
        "scores": plot_scores(records, objective, direction),
        "parallel_coordinates": plot_parallel_coordinates(
            records, objective, direction
        ),
        "hyperparameters": plot_hyperparameters(records, objective),
    }


def write_plots(figures: "Mapping[str, Figure]", directory: Path) -> None:
    """Writes plots as PNG files with their names."""
    for name, figure in figures.items():
        with temporary_sibling(directory / f"{name}.png") as path:
            figure.savefig(path, dpi=120)


def plot_scores(
    records: Sequence[TrialRecord], objective: str, direction: str
) -> "Figure":
    """Draws the score of each trial and the best one so far."""
    figure, (axes,) = _figure(1, 1, (9, 4.2))
    done = _select_completed(records)
    numbers = [int(record.id) for record in done]
    scores = _scores(done)
    best = np.minimum if direction == "min" else np.maximum
    axes.step(
        numbers, best.accumulate(scores), where="post", color="C1", label="best so far"
    )
    axes.plot(numbers, scores, "o", color="C0", label="trial")
    pruned = [record for record in records if record.status == PRUNED]
    if pruned:
        numbers = [int(record.id) for record in pruned]
        axes.plot(numbers, _scores(pruned), "v", color="0.6", label="pruned")
    ended = (COMPLETED, PRUNED)
    failed = [int(record.id) for record in records if record.status not in ended]
    if failed:
        lowest = min(scores) - 0.05 * ((max(scores) - min(scores)) or 1.0)
        axes.plot(failed, [lowest] * len(failed), "x", color="C3", label="failed")
    axes.set_xlabel("trial")
    axes.set_ylabel(objective)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def plot_parallel_coordinates(
    records: Sequence[TrialRecord], objective: str, direction: str
) -> "Figure":
    """Draws each completed trial as a line through its hyperparameters to its score.

    The line is dotted across a hyperparameter that the trial did not use.
    """
    done = sorted(
        _select_completed(records),
        key=lambda r: r.score or 0.0,
        reverse=direction == "min",
    )
    names = varied_hyperparameters(done)
    columns = [*names, objective]
    width = max(6.0, 1.7 * len(columns))
    figure, (axes,) = _figure(1, 1, (width, 4.6))
    scores = _scores(done)
    axis_of = [*(_Axis(done, name) for name in names), None]
    values = np.array([*(axis.positions for axis in axis_of if axis), scores]).T
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    span = np.where(high > low, high - low, 1.0)
    heights = np.where(high > low, (values - low) / span, 0.5)
    colors = _colors(heights[:, -1], direction)
    has_gaps = False
    for height, color in zip(heights, colors, strict=True):
        axes.plot(height, "-o", color=color, alpha=0.85, ms=4)  # NaN makes a gap
        used = np.flatnonzero(np.isfinite(height))
        for ends in np.column_stack([used[:-1], used[1:]])[np.diff(used) > 1]:
            axes.plot(ends, height[ends], ":", color=color, alpha=0.85)
            has_gaps = True
    for position, axis in enumerate(axis_of):
        axes.axvline(position, color="0.8", zorder=0)
        for y, value in ((-0.06, low[position]), (1.06, high[position])):
            label = axis.label(value) if axis else f"{value:.4g}"
            axes.text(position, y, label, ha="center", va="center", size=9)
    axes.set_xticks(range(len(columns)), columns, rotation=20)
    axes.set_yticks([])
    axes.set_ylim(-0.12, 1.12)
    axes.set_title(f"brighter is better{'; dotted: not used' if has_gaps else ''}")
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


def plot_hyperparameters(records: Sequence[TrialRecord], objective: str) -> "Figure":
    """Draws the score against each hyperparameter that took several values."""
    done = _select_completed(records)
    names = varied_hyperparameters(done) or [
        next(iter(hyperparameter_names(done)), "trial")
    ]
    rows = -(-len(names) // _COLUMNS)
    columns = min(len(names), _COLUMNS)
    size = (1 + 3.6 * columns, 0.5 + 3.0 * rows)
    figure, panels = _figure(rows, columns, size, sharey=True)
    for axes, name in zip(panels, names, strict=False):
        axis = _Axis(done, name)
        axes.plot(axis.values, _scores(done), "o", alpha=0.8)
        if axis.categories:
            axes.set_xticks(range(len(axis.categories)), axis.categories)
        elif axis.is_logarithmic:
            axes.set_xscale("log")
        elif axis.is_integer:
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
    for axes in panels[: len(names) : columns]:
        axes.set_ylabel(objective)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    return figure


def _figure(
    rows: int, columns: int, size: tuple[float, float], *, sharey: bool = False
) -> tuple["Figure", list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, list(np.ravel(panels))


def _select_completed(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [record for record in records if record.status == COMPLETED]


def _scores(records: Sequence[TrialRecord]) -> list[float]:
    return [record.score for record in records if record.score is not None]


class _Axis:
    """The values of a hyperparameter as numbers; strings are numbered.

    Attributes:
        values: Float `(trials,)`, NaN where the trial does not use it.
        categories: The strings by number; empty if the values are numbers.
        is_logarithmic: Whether the scale is logarithmic.
        is_integer: Whether all values are integers.
    """

    def __init__(self, records: Sequence[TrialRecord], name: str) -> None:
        found = [record.hyperparameters.get(name) for record in records]
        texts = {value for value in found if isinstance(value, str)}
        self.categories = sorted(texts)
        self.values = np.array([self._number(value) for value in found])
        self.is_integer = all(isinstance(value, int | None) for value in found)
        self.is_logarithmic = name == "learning_rate" and not texts

    @property
    def positions(self) -> np.ndarray:
        """Positions of the values along the axis, float `(trials,)`."""
        return np.log10(self.values) if self.is_logarithmic else self.values

    def label(self, position: float) -> str:
        """Returns the value at a position as it is shown."""
        if self.categories:
            return self.categories[int(position)]
        return f"{10**position if self.is_logarithmic else position:.4g}"

    def _number(self, value: Any) -> float:
        if value is None:
            return float("nan")
        return float(self.categories.index(value) if self.categories else value)


def _colors(heights: np.ndarray, direction: str) -> np.ndarray:
    from matplotlib import colormaps

    quality = 1 - heights if direction == "min" else heights
    colors: np.ndarray = colormaps["viridis"](quality)
    return colors
