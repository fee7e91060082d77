"""`keras-flowers evaluate`: how good a saved model is on labelled photos."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.models import load_classifier
from keras_flowers_cli.options import (
    BATCH_SIZE,
    EXISTING_FILE,
    Command,
    UserPath,
    check_writable,
    given,
    json_option,
    loader_options,
)
from keras_flowers_cli.output import Output, ProgressBars, TextTable

if TYPE_CHECKING:
    from keras_flowers.evaluation import Evaluation


@click.command(cls=Command)
@click.argument("model_file", metavar="MODEL", type=EXISTING_FILE)
@click.argument("data")
@click.option(
    "--split-manifest",
    type=EXISTING_FILE,
    help="The split.json of a run: evaluate one of its splits instead of all photos.",
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    help="Which split of the manifest.  [default: test, or validation without one]",
)
@click.option("--batch-size", type=BATCH_SIZE, help="[default: 32]")
@click.option(
    "--output-dir",
    type=UserPath(file_okay=False, path_type=Path),
    help="Folder for evaluation.json and confusion_matrix.png.  "
    "[default: evaluation beside MODEL]",
)
@loader_options
@json_option
def evaluate(
    model_file: Path,
    data: str,
    split_manifest: Path | None,
    split: str | None,
    output_dir: Path | None,
    as_json: bool,
    **loading: Any,
) -> None:
    """Compare what the model in MODEL says of the photos in DATA with their folders.

    Without --split-manifest every photo counts, also those the model was trained on:
    pass the split.json of the run to see how good it is on new photos.
    """
    if split is not None and split_manifest is None:
        raise click.UsageError("--split needs --split-manifest.")
    folder = output_dir or model_file.parent / "evaluation"
    check_writable(folder, "--output-dir")
    runtime.start_keras()
    from keras_flowers.dataset_loader import ImageDatasetLoader
    from keras_flowers.evaluation import evaluate as evaluate_model

    output = Output(as_json)
    model = load_classifier(model_file)
    with ProgressBars() as progress:
        datasets = ImageDatasetLoader(
            data,
            image_size=model.image_size,
            validation_split=0.0,
            split_manifest=split_manifest,
            **given(loading),
        ).load(progress)
    if split_manifest is None:
        split = "train"  # that of a loader without other splits: all photos
    elif split is None:
        split = "validation" if datasets.test is None else "test"
    evaluation = evaluate_model(model, datasets, split)
    _show(output, evaluation)
    report = {
        "model": str(model_file),
        "data": data,
        "split_manifest": None if split_manifest is None else str(split_manifest),
        "split": None if split_manifest is None else split,
        **evaluation.to_json(),
    }
    _write(folder, evaluation, report)
    output.say(f"written to {folder}")
    output.result(report)


def _show(output: Output, evaluation: "Evaluation") -> None:
    output.say(
        f"{len(evaluation.labels)} photos: accuracy {evaluation.accuracy:.4f}, "
        f"loss {evaluation.loss:.4f}"
    )
    scores = TextTable("class", "precision", "recall", "F1", "photos")
    for name, row in evaluation.per_class.items():
        numbers = (f"{value:.3f}" for value in (row.precision, row.recall, row.f1))
        scores.add_row(name, *numbers, str(row.count))
    output.show(scores)
    matrix = TextTable(
        "true \\ predicted", *evaluation.class_names, title="confusion matrix"
    )
    for name, counts in zip(
        evaluation.class_names, evaluation.confusion_matrix.tolist(), strict=True
    ):
        matrix.add_row(name, *map(str, counts))
    output.show(matrix)


def _write(folder: Path, evaluation: "Evaluation", report: dict[str, Any]) -> None:
    from keras_flowers.files import (
        json_text,
        temporary_sibling,
        write_text_atomically,
    )

    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / "evaluation.json", json_text(report))
    with temporary_sibling(folder / "confusion_matrix.png") as path:
        evaluation.plot_confusion_matrix().savefig(path, dpi=120)
