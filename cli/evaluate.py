"""`keras-flowers evaluate`: how accurate a saved model is on labelled images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.models import load_classifier
from keras_flowers_cli.options import (
    EXISTING_FILE,
    arguments_for,
    check_writable,
    given_options,
    setting_options,
)
from keras_flowers_cli.output import Output, ProgressBars, TextTable, write_figure

if TYPE_CHECKING:
    from keras_flowers.evaluation.evaluate import Evaluation

# The most rows that a terminal shows; the files hold everything.
MOST_CLASSES = 50
MOST_IN_MATRIX = 15
MOST_ROWS = 10
# The most characters of all class names together for which they head the columns.
MOST_IN_HEADER = 36


@click.command()
@click.argument("model_file", metavar="MODEL", type=EXISTING_FILE)
@click.argument("data")
@setting_options("evaluate")
def evaluate(
    model_file: Path,
    data: str,
    split_manifest: Path | None,
    split: str | None,
    top: int,
    mistakes: int,
    output_dir: Path | None,
    tta: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare the predictions of MODEL with the labels of the images in DATA.

    Writes evaluation.json, predictions.csv, confusion_matrix.png, reliability.png and
    mistakes.png, the images that the model was most wrong about.

    Without --split-manifest every image counts, including the training images: pass
    the split.json of the run to evaluate the model on images it has not seen.
    """
    if split is not None and split_manifest is None:
        raise click.UsageError("--split needs --split-manifest.")
    folder = output_dir or model_file.parent / "evaluation"
    check_writable(folder, "--output-dir")
    arguments = arguments_for("ImageDatasetLoader", "evaluate", given_options(options))
    runtime.start_keras()
    from keras_flowers.data.dataset_loader import ImageDatasetLoader
    from keras_flowers.evaluation.evaluate import evaluate as evaluate_model
    from keras_flowers.files import json_text, write_text_atomically

    output = Output(as_json)
    model = load_classifier(model_file)
    with ProgressBars() as progress:
        datasets = ImageDatasetLoader(
            data,
            image_size=model.image_size,
            resize=model.resize,
            validation_split=0.0,
            split="random",
            class_names=model.class_names,
            split_manifest=split_manifest,
            **arguments,
        ).load(progress)
    if split_manifest is None:
        split = "train"  # that of a loader without other splits: all images
    elif split is None:
        split = "validation" if datasets.test is None else "test"
    evaluation = evaluate_model(model, datasets, split, tta=tta)
    if split_manifest is None:
        name = f"all images of {datasets.audit.root}"
    else:
        name = f"{split} images of {split_manifest}"
    _show(output, evaluation, name)
    report = {
        "model": str(model_file),
        "data": data,
        "split_manifest": None if split_manifest is None else str(split_manifest),
        "split": None if split_manifest is None else split,
        "tta": tta,
        **evaluation.to_json(mistakes),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / "evaluation.json", json_text(report))
    evaluation.write_predictions(folder / "predictions.csv", top)
    write_figure(evaluation.plot_confusion_matrix(), folder / "confusion_matrix.png")
    write_figure(evaluation.plot_reliability(), folder / "reliability.png")
    write_figure(evaluation.plot_mistakes(mistakes), folder / "mistakes.png")
    output.say(f"written to {folder}")
    output.result(report)


def _show(output: Output, evaluation: "Evaluation", name: str) -> None:
    calibration = evaluation.calibration()
    output.say(f"Evaluated: {name}")
    output.say(
        f"{len(evaluation.labels)} images: accuracy {evaluation.accuracy:.4f}, "
        f"loss {evaluation.loss:.4f}, expected calibration error "
        f"{calibration.error:.4f}"
    )
    if evaluation.non_finite:
        output.say(
            f"The predictions for {evaluation.non_finite} images are NaN, because "
            "training diverged. They count as mistakes."
        )
    _show_classes(output, evaluation)
    if len(evaluation.class_names) <= MOST_IN_MATRIX:
        _show_matrix(output, evaluation)
    else:
        _show_confusions(output, evaluation)
    _show_mistakes(output, evaluation)


def _show_classes(output: Output, evaluation: "Evaluation") -> None:
    scores = evaluation.per_class
    names = list(scores)
    left_out = len(names) - MOST_CLASSES
    if left_out > 0:
        names = sorted(names, key=lambda name: scores[name].f1)[:MOST_CLASSES]
    table = TextTable("class", "precision", "recall", "F1", "images")
    for name in names:
        row = scores[name]
        numbers = (f"{value:.3f}" for value in (row.precision, row.recall, row.f1))
        table.add_row(name, *numbers, str(row.count))
    output.show(table)
    _say_left_out(output, left_out, "classes, which have a higher F1")


def _show_matrix(output: Output, evaluation: "Evaluation") -> None:
    names = evaluation.class_names
    columns = names
    # A terminal has no room for many names side by side.
    if output.is_terminal and sum(map(len, names)) > MOST_IN_HEADER:
        columns = tuple(str(number + 1) for number in range(len(names)))
        names = tuple(f"{k} {name}" for k, name in zip(columns, names, strict=True))
    matrix = TextTable("true \\ predicted", *columns, title="confusion matrix")
    for name, counts in zip(names, evaluation.confusion_matrix.tolist(), strict=True):
        matrix.add_row(name, *map(str, counts))
    output.show(matrix)


def _show_confusions(output: Output, evaluation: "Evaluation") -> None:
    confusions = evaluation.confusions
    table = TextTable(
        "true class", "predicted", "images", title="most frequent confusions"
    )
    for one in confusions[:MOST_ROWS]:
        table.add_row(one.true_class, one.predicted_class, str(one.count))
    if confusions:
        output.show(table)
    _say_left_out(output, len(confusions) - MOST_ROWS, "confusions")


def _show_mistakes(output: Output, evaluation: "Evaluation") -> None:
    if not evaluation.mistakes:
        output.say("no mistake")
        return
    table = TextTable(
        "true", "predicted", "probability", "loss", "image", title="worst mistakes"
    )
    for one in evaluation.worst_mistakes(MOST_ROWS):
        table.add_row(
            one.true_class,
            "none" if one.predicted_class is None else one.predicted_class,
            f"{one.probability:.3f}",
            f"{one.loss:.3f}",
            # Last, because it may be long.
            evaluation.shown_path(one.path),
        )
    output.show(table)
    _say_left_out(output, evaluation.mistakes - MOST_ROWS, "mistakes")


def _say_left_out(output: Output, count: int, what: str) -> None:
    if count > 0:
        output.say(f"... and {count} more {what}")
