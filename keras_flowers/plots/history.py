"""Draws the history of one or several runs."""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_flowers.errors import InputError
from keras_flowers.history import SCORES, History, read_history

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS: dict[str, Callable[..., Any]] = {
    "loss": np.nanargmin,
    **dict.fromkeys(SCORES, np.nanargmax),
}


# The loss of the first steps may be a hundred times that of the others. The few highest
# epochs leave the panel if all others would otherwise take less than this part of it.
_LEAST_SHARE = 0.1
_MOST_OUTSIDE = 0.1  # of the epochs, but at least one


def plot_history(runs: Any, saved_epoch: int | None = None) -> "Figure":
    """Draws loss and accuracy of both splits over the epochs.

    Of images with several labels, the mean average precision takes the place of the
    accuracy. The best epoch is marked: lowest loss and highest accuracy,
    of the validation split if there is one. If the loss of a few epochs is so high that
    it would flatten all others, it leaves the panel, and a line says how high it is.

    Args:
        runs: A history (what `fit` returned, or its dictionary), the path of a
            `history.json` or of a run directory, a list of these, or a dictionary from
            the name of a run to one of these. Several runs are drawn into one figure.
        saved_epoch: The epoch, counted from 1, whose weights were saved, for a dotted
            line; `None` for none.

    Returns:
        A `matplotlib.figure.Figure` without a window; save it with
        `figure.savefig(path)`.

    Raises:
        InputError: If there is nothing to draw, or a path has no history.
    """
    from matplotlib.figure import Figure

    named = _collect_histories(runs)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    columns = {name.removeprefix("val_") for one in named.values() for name in one}
    shown = ["loss", *(name for name in SCORES if name in columns)]
    panels = shown if len(shown) > 1 else ["loss", "accuracy"]
    for axes, metric in zip(figure.subplots(1, len(panels)), panels, strict=True):
        _draw_panel(axes, named, metric, saved_epoch)
    return figure


def draw_metric(
    history: Mapping[str, Any], metric: str, saved_epoch: int | None = None
) -> "Figure":
    """Draws one panel of `plot_history` as its own figure.

    Args:
        history: The history of one run, with at least one epoch.
        metric: One of `PANELS`.
        saved_epoch: As for `plot_history`.

    Returns:
        A `matplotlib.figure.Figure` without a window.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 4.2), layout="constrained")
    _draw_panel(figure.subplots(), _collect_histories(history), metric, saved_epoch)
    return figure


def _draw_panel(
    axes: Any, named: Mapping[str, History], metric: str, saved_epoch: int | None
) -> None:
    for index, (name, history) in enumerate(named.items()):
        _draw_run(axes, history, metric, PANELS[metric], f"C{index}", name)
    if saved_epoch is not None and axes.has_data():
        label = f"saved: epoch {saved_epoch}"
        axes.axvline(saved_epoch, color="gray", linestyle=":", label=label, zorder=1)
    axes.set_xlabel("epoch")
    axes.set_title(SCORES.get(metric, metric))
    axes.grid(alpha=0.3)
    axes.margins(y=0.12)  # room for the value at the best epoch
    axes.xaxis.get_major_locator().set_params(integer=True)
    if metric == "loss":
        _leave_out_highest(axes, named.values())
    if axes.has_data():
        axes.legend()


def _leave_out_highest(axes: Any, histories: Iterable[History]) -> None:
    """Limits the panel to the losses of all epochs but a few extreme ones."""
    points = [
        (value, epoch)
        for history in histories
        for column in ("loss", "val_loss")
        for epoch, value in zip(
            _epochs_of(history), history.get(column, []), strict=False
        )
        if np.isfinite(value)
    ]
    epochs = {epoch for _, epoch in points}
    count = max(1, int(_MOST_OUTSIDE * len(epochs)))
    by_height = dict.fromkeys(epoch for _, epoch in sorted(points, reverse=True))
    highest = set(list(by_height)[:count])
    rest = [value for value, epoch in points if epoch not in highest]
    if len(epochs) - count < 2:
        return
    lowest = min(points)[0]
    limit = lowest + (max(rest) - lowest) / _LEAST_SHARE
    outside = {epoch: value for value, epoch in sorted(points) if value > limit}
    if not outside:
        return
    top = max(value for value, _ in points if value <= limit)
    margin = 0.12 * (top - lowest) or 0.1 * abs(top) or 1.0
    axes.set_ylim(lowest - margin, top + margin)
    shown = [f"epoch {e:.0f}: {outside[e]:.3g}" for e in sorted(outside)]
    more = f" and {len(shown) - 2} more" if len(shown) > 2 else ""
    axes.set_title("")
    axes.set_title("loss", loc="left")
    text = f"off the scale: {', '.join(shown[:2])}{more}"
    axes.set_title(text, loc="right", fontsize="small")


def _draw_run(
    axes: Any, history: History, metric: str, best_of: Any, colour: str, name: str
) -> None:
    prefix = f"{name}: " if name else ""
    epochs = _epochs_of(history)
    best_column = f"val_{metric}" if f"val_{metric}" in history else metric
    styles = {metric: ("training", "--"), f"val_{metric}": ("validation", "-")}
    for column, (label, style) in styles.items():
        if column in history:
            values = history[column]
            axes.plot(
                epochs,
                values,
                style,
                color=colour,
                label=prefix + label,
                marker="." if len(values) < 3 else None,
            )
    scores = np.asarray(history.get(best_column, []), dtype=float)
    if np.isfinite(scores).any():
        best = int(best_of(np.where(np.isfinite(scores), scores, np.nan)))
        axes.plot(
            epochs[best],
            scores[best],
            "o",
            color=colour,
            fillstyle="none",
            markersize=9,
        )
        axes.annotate(
            f"{scores[best]:.3f}",
            (epochs[best], scores[best]),
            textcoords="offset points",
            xytext=(0, 8),
            ha="center",
        )


def _epochs_of(history: History) -> list[float]:
    first = next(iter(history.values()), [])
    return history.get("epoch", [float(i + 1) for i in range(len(first))])


def _collect_histories(runs: Any) -> dict[str, History]:
    if isinstance(runs, list | tuple):
        runs = {_name_run(run, index): run for index, run in enumerate(runs)}
    elif not _is_named(runs):
        runs = {"": runs}
    histories = {name: _load_history(run) for name, run in runs.items()}
    if not any(len(c) for history in histories.values() for c in history.values()):
        raise InputError("`runs` must hold at least one epoch to draw.")
    return histories


def _is_named(runs: Any) -> bool:
    """Tells a dictionary of runs from a history, whose values are lists of numbers."""
    if not isinstance(runs, Mapping):
        return False
    return all(
        isinstance(run, Mapping | str | os.PathLike) or hasattr(run, "history")
        for run in runs.values()
    )


def _name_run(run: Any, index: int) -> str:
    is_path = isinstance(run, str | os.PathLike)
    return os.fspath(run) if is_path else f"run {index + 1}"


def _load_history(run: Any) -> History:
    if isinstance(run, str | os.PathLike):
        return read_history(run)
    history = getattr(run, "history", run)
    if not isinstance(history, Mapping):
        raise InputError(
            f"A run must be a history or the path of one. Received: {run!r}"
        )
    return {name: [float(v) for v in values] for name, values in history.items()}
