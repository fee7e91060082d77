"""Compares two models on the same images, for `keras-flowers evaluate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_flowers_cli.output import Output, TextTable

if TYPE_CHECKING:
    from keras_flowers.evaluation.comparison import Comparison, Difference
    from keras_flowers.evaluation.evaluate import AnyEvaluation

# The most rows that a terminal shows; the files hold everything.
_MOST_CLASSES = 50
_MOST_IMAGES = 10


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
    from keras_flowers.evaluation.comparison import compare_evaluations
    from keras_flowers.files import json_text, write_text_atomically

    comparison = compare_evaluations(first, second)
    _show_scores(output, comparison, names)
    _show_classes(output, comparison)
    _show_changes(output, comparison)
    content = comparison.to_json()
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / "comparison.json", json_text(report | content))
    comparison.write_changed(folder / "changed.csv")
    return content


def _show_scores(
    output: Output, comparison: "Comparison", names: Sequence[str]
) -> None:
    first, second = comparison.first, comparison.second
    table = TextTable("", *names, "difference", "95 % interval")
    for name, one, other, difference in (
        ("accuracy", first.accuracy, second.accuracy, comparison.accuracy),
        ("loss", first.loss, second.loss, comparison.loss),
    ):
        table.add_row(name, f"{one:.4f}", f"{other:.4f}", *_describe(difference))
    output.show(table)
    if comparison.p_value < 0.05:
        verdict = "the models differ in accuracy"
    else:
        verdict = "no evidence that the models differ in accuracy"
    output.say(
        f"McNemar's test: {comparison.fixed} images fixed, {comparison.broken} broken, "
        f"p = {comparison.p_value:.3g}: {verdict}"
    )


def _show_classes(output: Output, comparison: "Comparison") -> None:
    rows = sorted(comparison.per_class.items(), key=lambda row: row[1].value)
    table = TextTable("class", "recall", "95 % interval", title="difference of recall")
    shown = rows
    if len(rows) > _MOST_CLASSES:
        # The largest losses and the largest gains.
        shown = rows[: _MOST_CLASSES // 2] + rows[-_MOST_CLASSES // 2 :]
    for name, difference in shown:
        table.add_row(name, *_describe(difference))
    output.show(table)


def _show_changes(output: Output, comparison: "Comparison") -> None:
    changed = comparison.changed
    if not changed:
        output.say("no image has another predicted class")
        return
    table = TextTable(
        "change", "true", "first", "second", "image", title="changed images"
    )
    for one in changed[:_MOST_IMAGES]:
        table.add_row(
            one.change,
            one.true_class,
            one.first_class or "none",
            one.second_class or "none",
            # Last, because it may be long.
            comparison.first.shown_path(one.path),
        )
    output.show(table)
    if len(changed) > _MOST_IMAGES:
        output.say(f"... and {len(changed) - _MOST_IMAGES} more images")


def _describe(difference: "Difference") -> tuple[str, str]:
    interval = f"{difference.low:+.4f} to {difference.high:+.4f}"
    return f"{difference.value:+.4f}", interval
