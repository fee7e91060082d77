"""Compares two models on the same images, for `keras-flowers evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_flowers_cli.output import Output, TextTable

if TYPE_CHECKING:
    from keras_flowers.evaluation.comparison import AnyComparison
    from keras_flowers.evaluation.differences import Difference
    from keras_flowers.evaluation.evaluate import AnyEvaluation
    from keras_flowers.evaluation.label_comparison import MultiLabelComparison

# The most rows that a terminal shows; the files hold everything.
_MOST_CLASSES = 50
_MOST_IMAGES = 10
# Of images that may have several labels, with what the table calls them.
_LABEL_SCORES = {
    "mean_average_precision": "mean average precision",
    "f1_micro": "F1",
    "f1_macro": "F1, mean of the labels",
    "exact_match": "all labels right",
    "loss": "loss",
}


def compare(
    output: Output,
    first: "AnyEvaluation",
    second: "AnyEvaluation",
    names: Sequence[str],
    folder: Path,
    report: dict[str, Any],
) -> dict[str, Any]:
    """Shows and writes how two models differ.

    Args:
        output: Where to show it.
        first: The evaluation of the first model.
        second: That of the second model.
        names: What to call the models.
        folder: Where to write `comparison.json` and `changed.csv`.
        report: What else to write to `comparison.json`.

    Returns:
        The figures, as plain numbers, strings and lists.
    """
    from keras_flowers.evaluation.comparison import Comparison, compare_evaluations
    from keras_flowers.files import json_text, write_text_atomically

    comparison = compare_evaluations(first, second)
    if isinstance(comparison, Comparison):
        _show_scores(output, comparison, names, ("accuracy", "loss"))
        _say_test(output, comparison, "accuracy")
        _show_classes(output, comparison, "recall")
    else:
        _show_scores(output, comparison, names, tuple(_LABEL_SCORES))
        _say_interval(output, comparison)
        _say_test(output, comparison, "exact matches")
        _show_classes(output, comparison, "average precision")
    _show_changes(output, comparison)
    content = comparison.to_json()
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / "comparison.json", json_text(report | content))
    comparison.write_changed(folder / "changed.csv")
    return content


def _show_scores(
    output: Output,
    comparison: "AnyComparison",
    names: Sequence[str],
    scores: Sequence[str],
) -> None:
    table = TextTable("", *names, "difference", "95 % interval")
    for score in scores:
        values = (getattr(comparison.first, score), getattr(comparison.second, score))
        table.add_row(
            _LABEL_SCORES.get(score, score),
            *(f"{value:.4f}" for value in values),
            *_describe(getattr(comparison, score)),
        )
    output.show(table)


def _say_interval(output: Output, comparison: "MultiLabelComparison") -> None:
    if comparison.mean_average_precision.is_clear:
        verdict = "the models differ in mean average precision"
    else:
        verdict = "no evidence that the models differ in mean average precision"
    output.say(f"Bootstrap of the images: {verdict}")


def _say_test(output: Output, comparison: "AnyComparison", score: str) -> None:
    if comparison.p_value < 0.05:
        verdict = f"the models differ in {score}"
    else:
        verdict = f"no evidence that the models differ in {score}"
    output.say(
        f"McNemar's test: {comparison.fixed} images fixed, {comparison.broken} broken, "
        f"p = {comparison.p_value:.3g}: {verdict}"
    )


def _show_classes(output: Output, comparison: "AnyComparison", score: str) -> None:
    rows = sorted(comparison.per_class.items(), key=lambda row: row[1].value)
    table = TextTable("class", score, "95 % interval", title=f"difference of {score}")
    shown = rows
    if len(rows) > _MOST_CLASSES:
        # The largest losses and the largest gains.
        shown = rows[: _MOST_CLASSES // 2] + rows[-_MOST_CLASSES // 2 :]
    for name, difference in shown:
        table.add_row(name, *_describe(difference))
    output.show(table)


def _show_changes(output: Output, comparison: "AnyComparison") -> None:
    from keras_flowers.evaluation.comparison import ChangedImage

    changed = comparison.changed
    if not changed:
        output.say("both models give each image the same answer")
        return
    table = TextTable(
        "change", "true", "first", "second", "image", title="changed images"
    )
    for one in changed[:_MOST_IMAGES]:
        answers = (
            (one.true_class, one.first_class, one.second_class)
            if isinstance(one, ChangedImage)
            else map(", ".join, (one.true_labels, one.first_labels, one.second_labels))
        )
        table.add_row(
            one.change,
            *(answer or "none" for answer in answers),
            # Last, because it may be long.
            comparison.first.shown_path(one.path),
        )
    output.show(table)
    if len(changed) > _MOST_IMAGES:
        output.say(f"... and {len(changed) - _MOST_IMAGES} more images")


def _describe(difference: "Difference") -> tuple[str, str]:
    interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
    return f"{difference.value:+.4f}", interval
