"""Shows an evaluation with several labels per image, for `keras-flowers evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_flowers_cli.output import Output, TextTable, write_figure

if TYPE_CHECKING:
    from keras_flowers.evaluation.multi_label import MultiLabelEvaluation

# The most rows that a terminal shows; the files hold everything.
_MOST_CLASSES = 50
_MOST_IMAGES = 10


def show_label_scores(output: Output, evaluation: "MultiLabelEvaluation") -> None:
    """Shows how well a model finds the labels of images."""
    low, high = evaluation.exact_match_interval
    lowest, highest = evaluation.mean_average_precision_interval
    output.say(
        f"{len(evaluation.labels)} images: mean average precision "
        f"{evaluation.mean_average_precision:.4f} ({lowest:.4f} to {highest:.4f}), F1 "
        f"{evaluation.f1_micro:.4f} (mean of the labels "
        f"{evaluation.f1_macro:.4f}), all labels right "
        f"{evaluation.exact_match:.4f} ({low:.4f} to {high:.4f}), loss "
        f"{evaluation.loss:.4f}, expected calibration error "
        f"{evaluation.calibration().error:.4f}"
    )
    if evaluation.non_finite:
        output.say(
            f"The predictions for {evaluation.non_finite} images are NaN, because "
            "training diverged. They count as mistakes."
        )
    _show_classes(output, evaluation)
    _show_mistakes(output, evaluation)


def write_label_plots(evaluation: "MultiLabelEvaluation", folder: Path) -> None:
    """Writes the plots that only images with several labels have."""
    write_figure(evaluation.plot_average_precision(), folder / "average_precision.png")
    write_figure(evaluation.plot_precision_recall(), folder / "precision_recall.png")


def _show_classes(output: Output, evaluation: "MultiLabelEvaluation") -> None:
    scores = evaluation.per_class
    names = list(scores)
    if len(names) > _MOST_CLASSES:
        names = sorted(names, key=lambda name: scores[name].f1)[:_MOST_CLASSES]
    heads = ("average precision", "precision", "recall", "F1", "threshold", "images")
    table = TextTable("class", *heads)
    for name in names:
        row = scores[name]
        precision = row.average_precision
        table.add_row(
            name,
            "" if precision is None else f"{precision:.3f}",
            *(f"{value:.3f}" for value in (row.precision, row.recall, row.f1)),
            f"{row.threshold:.3f}",
            str(row.count),
        )
    output.show(table)
    if len(scores) > len(names):
        more = len(scores) - len(names)
        output.say(f"... and {more} more classes, which have a higher F1")


def _show_mistakes(output: Output, evaluation: "MultiLabelEvaluation") -> None:
    if not evaluation.mistakes:
        output.say("no mistake")
        return
    table = TextTable("missing", "wrong", "loss", "image", title="worst mistakes")
    for one in evaluation.worst_mistakes(_MOST_IMAGES):
        table.add_row(
            ", ".join(one.missing),
            ", ".join(one.wrong),
            f"{one.loss:.3f}",
            # Last, because it may be long.
            evaluation.shown_path(one.path),
        )
    output.show(table)
    if evaluation.mistakes > _MOST_IMAGES:
        output.say(f"... and {evaluation.mistakes - _MOST_IMAGES} more mistakes")
