"""Draws how well a classifier finds each label of images that may have several."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from keras_flowers.plots.text import figure_text_style, fit_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# More bars have no room for names, more curves no colors that differ.
_MOST_BARS = 40
_MOST_CURVES = 8
_FONT = 10
_NAME_WIDTH = 150


class _Scores(Protocol):
    """What is known of a label."""

    @property
    def average_precision(self) -> float | None: ...
    @property
    def precision(self) -> float: ...
    @property
    def recall(self) -> float: ...


def draw_average_precision(values: Mapping[str, float], mean: float) -> "Figure":
    """Draws the average precision of labels as bars, the lowest first.

    Args:
        values: The average precision by label, 0..1. Of more than 40, the lowest are
            drawn.
        mean: The mean of all labels, for a line.

    Returns:
        A `matplotlib.figure.Figure` without a window.
    """
    from matplotlib.figure import Figure

    ranked = sorted(values.items(), key=lambda item: item[1])
    shown = ranked[:_MOST_BARS][::-1]  # the first one is at the bottom
    height = 1.4 + 0.26 * max(2, len(shown))
    figure = Figure(figsize=(5.5, height), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(range(len(shown)), [value for _, value in shown], color="C0")
    axes.bar_label(bars, fmt="%.3f", padding=3, fontsize="small")
    axes.axvline(mean, color="0.45", linestyle="--", label=f"mean {mean:.3f}")
    axes.set_yticks(range(len(shown)), [""] * len(shown))
    for position, (name, _) in enumerate(shown):
        text = fit_name(name, _FONT, _NAME_WIDTH)
        axes.annotate(
            text,
            (0, position),
            (-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize="small",
            **figure_text_style(text),
        )
    axes.set_xlim(0, 1.12)
    axes.set_xlabel("average precision")
    left_out = len(ranked) - len(shown)
    if left_out:
        axes.set_title(f"{left_out} classes with a higher one are left out")
    figure.legend(loc="outside lower center", fontsize="small")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    return figure


def draw_precision_recall(
    names: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    scores: Mapping[str, _Scores],
) -> "Figure":
    """Draws precision over recall, of all labels together and of each label.

    Args:
        names: Position `i` is the name of label `i`. Of more than 8, those with the
            lowest average precision have a curve.
        labels: `(count, classes)`, 0 or 1.
        probabilities: Float `(count, classes)`.
        scores: Those of each label at its threshold, by name, which are drawn as dots.

    Returns:
        A `matplotlib.figure.Figure` without a window.
    """
    from matplotlib.figure import Figure
    from sklearn.metrics import precision_recall_curve

    figure = Figure(figsize=(5.5, 6), layout="constrained")
    axes = figure.subplots()
    ranked = np.nan_to_num(probabilities, nan=0.0, posinf=0.0, neginf=0.0)

    def draw(true: np.ndarray, found: np.ndarray, **style: Any) -> None:
        precision, recall, _ = precision_recall_curve(true, found)
        axes.step(recall, precision, where="post", **style)

    known = {
        name: one.average_precision
        for name, one in scores.items()
        if one.average_precision is not None
    }
    worst = sorted(known, key=lambda name: known[name])[:_MOST_CURVES]
    for number, name in enumerate(worst):
        index, color = names.index(name), f"C{number}"
        label = f"{fit_name(name, _FONT, _NAME_WIDTH)} {known[name]:.3f}"
        draw(labels[:, index], ranked[:, index], color=color, label=label, alpha=0.8)
        one = scores[name]
        axes.plot(one.recall, one.precision, "o", color=color, markersize=5)
    if known:
        style = {"color": "0.2", "linewidth": 2, "label": "all labels together"}
        draw(labels.ravel(), ranked.ravel(), **style)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.05)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    if len(known) > len(worst):
        axes.set_title(f"the {len(worst)} classes with the lowest average precision")
    legend = figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    for text in legend.get_texts():
        text.set(**figure_text_style(text.get_text()))
    axes.grid(alpha=0.3)
    return figure
