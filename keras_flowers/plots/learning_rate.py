"""Draws the loss over the learning rate of a range test."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Losses above the first one by this factor leave the panel.
_MOST = 1.5


def draw_learning_rates(
    rates: np.ndarray, losses: np.ndarray, smoothed: np.ndarray, suggestion: float
) -> "Figure":
    """Draws a range test.

    Args:
        rates: The learning rate of each step, rising.
        losses: The loss of each step.
        smoothed: Their mean around each step.
        suggestion: The rate to mark.

    Returns:
        A `matplotlib.figure.Figure` without a window.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, color="C0", alpha=0.3, label="loss of a step")
    axes.plot(rates, smoothed, color="C0", label="mean around a step")
    axes.axvline(
        suggestion, color="C1", linestyle="--", label=f"suggestion: {suggestion:.2g}"
    )
    axes.set_xscale("log")
    known = smoothed[np.isfinite(smoothed)]
    if len(known):
        low, high = float(known.min()), _MOST * float(known[0])
        margin = 0.1 * (high - low)
        axes.set_ylim(low - margin, high + margin)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
