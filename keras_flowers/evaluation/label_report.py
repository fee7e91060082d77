"""What the report shows of an evaluation with several labels per image."""

from typing import Any

from keras_flowers.evaluation.multi_label import (
    LabelMistake,
    MultiLabelEvaluation,
    load_label_mistakes,
)
from keras_flowers.evaluation.pages import format_number
from keras_flowers.evaluation.report_parts import (
    draw_inline,
    draw_reliability,
    embed_photo,
    name_split,
)

_MOST_MISTAKES = 24


def describe_labels(evaluation: MultiLabelEvaluation) -> dict[str, Any]:
    """Returns the values of the template `multi_label.html.j2`.

    Args:
        evaluation: The evaluation of the run.
    """
    calibration = evaluation.calibration()
    split, total = name_split(evaluation), len(evaluation.labels)
    low, high = map(format_number, evaluation.exact_match_interval)
    interval = map(format_number, evaluation.mean_average_precision_interval)
    return {
        "evaluation": evaluation,
        "details": "multi_label.html.j2",
        "figures": [
            (
                f"Mean average precision, {split}",
                format_number(evaluation.mean_average_precision),
                f"95 % interval {' to '.join(interval)}; of the labels that any image "
                "has",
            ),
            (
                f"F1 at the thresholds, {split}",
                format_number(evaluation.f1_micro),
                f"mean of the labels: {format_number(evaluation.f1_macro)}",
            ),
            (
                "All labels right",
                format_number(evaluation.exact_match),
                f"95 % interval {low} to {high}; {total - evaluation.mistakes:,} of "
                f"{total:,} images",
            ),
            (
                "Expected calibration error",
                format_number(calibration.error),
                f"loss {format_number(evaluation.loss)}",
            ),
        ],
        "calibration": calibration,
        "total": total,
        "split_name": split,
        "precision_plot": draw_inline(
            evaluation.plot_average_precision(),
            "average-precision",
            "Average precision of the labels; the numbers are in the table.",
        ),
        "recall_plot": draw_inline(
            evaluation.plot_precision_recall(),
            "precision-recall",
            "Precision over recall; the dots are in the table.",
        ),
        "reliability_plot": draw_reliability(calibration),
        "mistakes": _describe_mistakes(evaluation),
    }


def _describe_mistakes(
    evaluation: MultiLabelEvaluation,
) -> list[tuple[LabelMistake, dict[str, Any] | None]]:
    """Returns the worst mistakes and their images."""
    tiles = load_label_mistakes(evaluation, _MOST_MISTAKES)
    mistakes = evaluation.worst_mistakes(_MOST_MISTAKES)
    return [
        (mistake, None if tile.image is None else embed_photo(tile.image))
        for mistake, tile in zip(mistakes, tiles, strict=True)
    ]
