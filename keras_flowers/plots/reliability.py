"""Draws whether a classifier is right as often as it is confident."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_reliability(
    counts: np.ndarray,
    confidence: np.ndarray,
    accuracy: np.ndarray,
    title: str = "",
    of_labels: bool = False,
) -> "Figure":
    """Draws the reliability diagram, with the number of images in each bin below.

    The bars are the accuracy of each bin. A bar that ends below the diagonal means
    that the classifier is overconfident; one that ends above, underconfident. The
    distance to the mean confidence of the bin is hatched.

    Args:
        counts: Integers `(bins,)`, images in each of the bins of equal width that
            cover 0..1.
        confidence: Float `(bins,)`, their mean confidence, 0..1. Empty bins are left
            out.
        accuracy: Float `(bins,)`, the fraction that is right, 0..1.
        title: Lines above the diagram.
        of_labels: Whether the bins have labels of images, not images.

    Returns:
        A `matplotlib.figure.Figure` without a window.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 6.2), layout="constrained")
    confidence_name, accuracy_name, counted, axis_name = (
        ("probability", "fraction of true labels", "labels", "probability of a label")
        if of_labels
        else (
            "confidence",
            "accuracy",
            "images",
            "confidence: the probability of the predicted class",
        )
    )
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    width = 1 / len(counts)
    filled = np.flatnonzero(counts)
    centers, counts = (filled + 0.5) * width, counts[filled]
    confidence, accuracy = confidence[filled], accuracy[filled]
    style: dict[str, Any] = {"width": width, "linewidth": 0.8}
    above.plot([0, 1], [0, 1], "--", color="0.45", label="perfect", zorder=3)
    above.bar(
        centers, accuracy, color="C0", edgecolor="white", label=accuracy_name, **style
    )
    above.bar(
        centers,
        confidence - accuracy,
        bottom=accuracy,
        color="none",
        edgecolor="C3",
        hatch="////",
        label=f"gap to the {confidence_name}",
        **style,
    )
    above.set_ylim(0, 1)
    above.set_ylabel(accuracy_name)
    above.set_title(title)
    # Outside: a bar may be anywhere.
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    below.bar(centers, counts, color="0.55", edgecolor="white", **style)
    below.set_xlim(0, 1)
    below.yaxis.get_major_locator().set_params(integer=True)
    below.set_ylabel(counted)
    below.set_xlabel(axis_name)
    for axes in (above, below):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return figure
