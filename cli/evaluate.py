"""`keras-flowers evaluate`: how accurate a saved model is on labelled images."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.comparison import compare
from keras_flowers_cli.findings import show_findings
from keras_flowers_cli.inference_view import show_precision_difference
from keras_flowers_cli.label_scores import show_label_scores, write_label_plots
from keras_flowers_cli.models import find_model_file, is_exported, load_classifier
from keras_flowers_cli.options import (
    EXISTING_PATH,
    arguments_for,
    check_writable,
    given_options,
    setting_options,
)
from keras_flowers_cli.output import (
    Output,
    ProgressBars,
    TextTable,
    printable_path,
    write_figure,
)

if TYPE_CHECKING:
    from keras_flowers.data.image_datasets import ImageDatasets
    from keras_flowers.evaluation.evaluate import AnyEvaluation, Evaluation, Mistake
    from keras_flowers.evaluation.multi_label import LabelMistake
    from keras_flowers.models.image_classifier import ImageClassifier

# The most rows that a terminal shows; the files hold everything.
MOST_CLASSES = 50
MOST_IN_MATRIX = 15
MOST_ROWS = 10
# The most characters of all class names together for which they head the columns.
MOST_IN_HEADER = 36


@click.command()
@click.argument(
    "paths", metavar="MODEL|RUN [MODEL_B|RUN_B] DATA", nargs=-1, required=True
)
@setting_options("evaluate")
@click.pass_context
def evaluate(
    context: click.Context,
    /,
    paths: tuple[str, ...],
    split_manifest: Path | None,
    split: str | None,
    top: int,
    mistakes: int,
    output_dir: Path | None,
    tta: int,
    inference_precision: str,
    explain_to: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare the predictions of MODEL with the labels of the images in DATA.

    The model is a .keras file or a run directory.

    Writes evaluation.json, predictions.csv, confusion_matrix.png, reliability.png and
    mistakes.png, the images that the model was most wrong about. Where an image may
    have several labels, average_precision.png and precision_recall.png take the place
    of confusion_matrix.png.

    With MODEL_B, compares two models on the same images: the differences of their
    scores with intervals, McNemar's test, and the images whose predicted class changed,
    in comparison.json and changed.csv.

    Without --split-manifest every image counts, including the training images: pass
    the split.json of the run to evaluate the model on images it has not seen.
    """
    *models, data = paths
    if len(models) not in (1, 2):
        raise click.UsageError("evaluate takes one or two models and DATA.")
    model_file, *others = (_find_model(path, context) for path in models)
    if split is not None and split_manifest is None:
        raise click.UsageError("--split needs --split-manifest.")
    if others and explain_to is not None:
        raise click.UsageError("--explain takes one model.")
    default = (others or [model_file])[0].parent
    folder = output_dir or default / ("comparison" if others else "evaluation")
    check_writable(folder, "--output-dir")
    if explain_to is not None:
        check_writable(explain_to, "--explain")
    arguments = arguments_for("ImageDatasetLoader", "evaluate", given_options(options))
    runtime.start_keras()

    from keras_flowers.evaluation.multi_label import MultiLabelEvaluation

    output = Output(as_json)
    images = _Images(data, split_manifest, split, arguments, tta, inference_precision)
    report: dict[str, Any] = {
        "model": str(model_file),
        "data": data,
        "split_manifest": None if split_manifest is None else str(split_manifest),
        "tta": tta,
        "inference_precision": inference_precision,
    }
    model = load_classifier(model_file)
    datasets = images.load(model)
    evaluation, name = images.evaluate(model, datasets)
    report["split"] = None if split_manifest is None else evaluation.split
    report["excluded"] = list(datasets.audit.excluded)
    show_findings(output, datasets.audit.findings)
    output.say(f"Evaluated: {name}")
    report["precision_difference"] = show_precision_difference(
        output, evaluation.precision_difference
    )
    if others:
        other = load_classifier(others[0])
        second, _ = images.evaluate(other, images.load(other))
        report = {**report, "model_b": str(others[0])}
        report["precision_difference_b"] = show_precision_difference(
            output, second.precision_difference
        )
        report |= compare(output, evaluation, second, models, folder, report)
    else:
        if isinstance(evaluation, MultiLabelEvaluation):
            show_label_scores(output, evaluation)
        else:
            _show(output, evaluation)
        report |= evaluation.to_json(mistakes)
        _write(evaluation, report, folder, top, mistakes)
    output.say(f"written to {folder}")
    if explain_to is not None:
        _explain_mistakes(output, model, evaluation, mistakes, explain_to)
    output.result(report)


def _find_model(path: str, context: click.Context) -> Path:
    """Returns the `.keras` file that an argument names, itself or by its run."""
    found = Path(EXISTING_PATH.convert(path, None, context))
    if is_exported(found):
        raise click.UsageError(
            "MODEL must be a .keras file or a run directory with a model.keras. "
            f"Received: {printable_path(path)}, a folder without one"
        )
    return find_model_file(found)


@dataclasses.dataclass(frozen=True)
class _Images:
    """The images to evaluate models on."""

    data: str
    split_manifest: Path | None
    split: str | None
    arguments: dict[str, Any]
    tta: int
    inference_precision: str

    def load(self, model: "ImageClassifier") -> "ImageDatasets":
        """Loads the images as the model takes them."""
        from keras_flowers.data.dataset_loader import ImageDatasetLoader

        with ProgressBars() as progress:
            return ImageDatasetLoader(
                self.data,
                image_size=model.image_size,
                resize=model.resize,
                validation_split=0.0,
                split="random",
                class_names=model.class_names,
                multi_label=model.multi_label,
                split_manifest=self.split_manifest,
                **self.arguments,
            ).load(progress)

    def evaluate(
        self, model: "ImageClassifier", datasets: "ImageDatasets"
    ) -> tuple["AnyEvaluation", str]:
        """Returns the evaluation of a model, and what it was evaluated on."""
        from keras_flowers.evaluation.evaluate import evaluate as evaluate_model

        how: dict[str, Any] = {
            "tta": self.tta,
            "inference_precision": self.inference_precision,
        }
        if self.split_manifest is None:
            # "train" is that of a loader without other splits: all images.
            evaluation = evaluate_model(model, datasets, "train", **how)
            return evaluation, f"all images of {datasets.audit.root}"
        split = self.split or ("validation" if datasets.test is None else "test")
        name = f"{split} images of {self.split_manifest}"
        return evaluate_model(model, datasets, split, **how), name


def _write(
    evaluation: "AnyEvaluation",
    report: dict[str, Any],
    folder: Path,
    top: int,
    mistakes: int,
) -> None:
    from keras_flowers.evaluation.multi_label import MultiLabelEvaluation
    from keras_flowers.files import json_text, write_text_atomically

    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / "evaluation.json", json_text(report))
    evaluation.write_predictions(folder / "predictions.csv", top)
    if isinstance(evaluation, MultiLabelEvaluation):
        write_label_plots(evaluation, folder)
    else:
        figure = evaluation.plot_confusion_matrix()
        write_figure(figure, folder / "confusion_matrix.png")
    write_figure(evaluation.plot_reliability(), folder / "reliability.png")
    write_figure(evaluation.plot_mistakes(mistakes), folder / "mistakes.png")


def _explain_mistakes(
    output: Output,
    model: "ImageClassifier",
    evaluation: "AnyEvaluation",
    count: int,
    folder: Path,
) -> None:
    """Writes a picture for each class at issue in each of the worst mistakes."""
    from keras_flowers.explanation import explain

    worst = [
        (mistake.path, questions)
        for mistake in evaluation.worst_mistakes(count)
        if (questions := _find_questions(mistake))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with ProgressBars() as progress:
        for number, (path, questions) in enumerate(worst, 1):
            progress("explain", number - 1, len(worst))
            name = f"{number:0{len(str(len(worst)))}}-{path.stem}"
            for kind, class_name in questions.items():
                (one,) = explain(model, [path], class_name)
                write_figure(one.plot(), folder / f"{name}-{kind}.png")
    output.say(f"{len(worst)} mistakes explained in {folder}")


def _find_questions(mistake: "Mistake | LabelMistake") -> dict[str, str]:
    """Returns the classes to explain, by what the name of the picture calls them."""
    from keras_flowers.evaluation.multi_label import LabelMistake

    if isinstance(mistake, LabelMistake):
        if mistake.predicted_labels is None:
            return {}
        kinds = {"missing": mistake.missing, "wrong": mistake.wrong}
        return {
            f"{kind}-{number}": name
            for kind, names in kinds.items()
            for number, name in enumerate(names, 1)
        }
    if mistake.predicted_class is None:
        return {}
    return {"predicted": mistake.predicted_class, "true": mistake.true_class}


def _show(output: Output, evaluation: "Evaluation") -> None:
    calibration = evaluation.calibration()
    low, high = evaluation.accuracy_interval
    output.say(
        f"{len(evaluation.labels)} images: accuracy {evaluation.accuracy:.4f} "
        f"({low:.4f} to {high:.4f}), loss {evaluation.loss:.4f}, expected "
        f"calibration error {calibration.error:.4f}"
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
