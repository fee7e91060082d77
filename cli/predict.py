"""`keras-flowers predict`: classifies images with a saved or an exported model."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.errors import EXIT_BAD_INPUT, EXIT_DONE
from keras_flowers_cli.inference_view import show_precision_difference
from keras_flowers_cli.models import is_exported, load_classifier
from keras_flowers_cli.options import (
    UserPath,
    check_writable,
    setting_options,
)
from keras_flowers_cli.output import (
    Output,
    ProgressBars,
    TextTable,
    echo_error,
    write_figure,
)
from keras_flowers_cli.sorting import (
    Sorting,
    check_class_names,
    choose_sorting,
    sort_images,
)

if TYPE_CHECKING:
    from keras_flowers_runtime.classification import Classification
    from keras_flowers_runtime.exported import ExportedClassifier

    from keras_flowers.models.image_classifier import ImageClassifier

_EXPLAINED_AT_ONCE = 32
_NONE = "none of these"
# Of labels in a cell of the CSV, as in a label file.
_SEPARATOR = "|"


@click.command()
@click.argument(
    "model_path",
    metavar="MODEL|RUN|EXPORTED",
    type=UserPath(exists=True, path_type=Path),
)
@click.argument(
    "images",
    metavar="PHOTO|FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@setting_options("predict")
def predict(
    model_path: Path,
    images: Sequence[Path],
    top: int,
    batch_size: int,
    unknown: str | None,
    csv_file: Path | None,
    move_to: Path | None,
    copy_to: Path | None,
    dry_run: bool,
    explain_to: Path | None,
    tta: int,
    inference_precision: str,
    as_json: bool,
) -> int:
    """Classify images, or all images of folders, with a saved or an exported model.

    The model is a .keras file, a run directory, or a folder written by `keras-flowers
    export`. An exported model starts within a second because it needs neither Keras nor
    TensorFlow.

    An image that cannot be read is named on stderr and the others are classified; the
    exit code is then 2 if it was named on the command line.
    """
    if csv_file is not None:
        check_writable(csv_file.parent, "--csv")
    threshold = _parse_unknown(unknown)
    sorting = choose_sorting(move_to, copy_to, dry_run)
    if tta > 1 and is_exported(model_path):
        raise click.UsageError(
            "--tta needs a .keras file or a run directory. An exported model averages "
            "over the views that it was exported with."
        )
    if inference_precision != "float32" and is_exported(model_path):
        raise click.UsageError(
            "--inference-precision needs a .keras file or a run directory. An exported "
            "model has the precision that it was exported with."
        )
    if explain_to is not None:
        check_writable(explain_to, "--explain")
        if is_exported(model_path):
            raise click.UsageError("--explain needs a .keras file or a run directory.")
    output = Output(as_json)
    model = _load_model(model_path)
    if sorting is not None:
        _refuse_several_labels(sorting, model)
        check_class_names(sorting, model.class_names)
    paths = [image for path in images for image in _find_images(path)]
    how: dict[str, Any] = {}
    if not is_exported(model_path):
        how = {
            "tta": tta,
            "inference_precision": inference_precision,
            "on_difference": partial(show_precision_difference, output),
        }
    results, unreadable = _classify_all(model, paths, batch_size, threshold, how)
    for message in unreadable.values():
        echo_error(f"error: {message}")
    _show(output, results, top)
    if csv_file is not None:
        _write_csv(
            csv_file,
            model.class_names,
            results,
            has_unknown=threshold is not None,
            has_labels=_gives_several_labels(model),
        )
        output.say(f"written to {csv_file}")
    if explain_to is not None:
        _explain(output, model, results, explain_to)
    # This comes last because it may move the images.
    placed = {} if sorting is None else _sort(output, sorting, results)
    has_unknown = threshold is not None
    output.result([_as_json(result, top, placed, has_unknown) for result in results])
    if not results or any(os.fspath(path) in unreadable for path in images):
        return EXIT_BAD_INPUT
    return EXIT_DONE


def _parse_unknown(text: str | None) -> str | float | None:
    if text is None or text == "auto":
        return text
    try:
        threshold = float(text)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise click.UsageError(
            f"--unknown must be auto or a probability from 0 to 1. Received: {text}"
        )
    return threshold


def _load_model(path: Path) -> "ImageClassifier | ExportedClassifier":
    if is_exported(path):
        from keras_flowers_runtime.exported import load_exported

        return load_exported(path)
    runtime.start_keras()
    import keras_flowers  # noqa: F401  registers what the file holds

    return load_classifier(path)


def _refuse_several_labels(
    sorting: Sorting, model: "ImageClassifier | ExportedClassifier"
) -> None:
    from keras_flowers_runtime.errors import InputError

    if _gives_several_labels(model):
        raise InputError(
            f"{sorting.option} needs a model that gives each image one class: an image "
            "with several labels has no single folder. Use --csv or --json."
        )


def _gives_several_labels(model: "ImageClassifier | ExportedClassifier") -> bool:
    from keras_flowers_runtime.exported import ExportedClassifier

    if isinstance(model, ExportedClassifier):
        return model.thresholds is not None
    return model.multi_label


def _find_images(path: Path) -> Iterable[Path]:
    """Yields the path itself, or the images of a folder."""
    from keras_flowers_runtime.images import (
        IMAGE_SUFFIXES,
        is_clutter,
        starts_like_an_image,
    )

    if not path.is_dir():
        yield path
    for directory, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_clutter(name))
        for name in sorted(files):
            if is_clutter(name):
                continue
            is_image = Path(name).suffix.lower() in IMAGE_SUFFIXES
            if is_image or starts_like_an_image(Path(directory, name)):
                yield Path(directory, name)


def _classify_all(
    model: "ImageClassifier | ExportedClassifier",
    paths: Sequence[Path],
    batch_size: int,
    unknown: str | float | None,
    how: dict[str, Any],
) -> tuple[list["Classification"], dict[str, str]]:
    """Returns the classifications, and the reason for each unreadable image."""
    from keras_flowers_runtime.classification import UnreadableImage
    from keras_flowers_runtime.errors import InputError

    if not paths:
        raise InputError("There is no image in the given folders.")
    results: list[Classification] = []
    unreadable: dict[str, str] = {}
    with ProgressBars() as progress:
        found = model.classify_each(paths, batch_size, unknown, **how)
        for done, result in enumerate(found):
            if done % batch_size == 0:
                progress("predict", done, len(paths))
            if isinstance(result, UnreadableImage):
                unreadable[result.path] = str(result.error)
            else:
                results.append(result)
    return results, unreadable


def _show(output: Output, results: Sequence["Classification"], top: int) -> None:
    if results and results[0].labels is not None:
        _show_labels(output, results, top)
        return
    rows = TextTable("image", "class", "probability", "next")
    for result in results:
        best, *others = _top(result, top)
        following = _join(others)
        if result.is_unknown:
            following = f"{best[0]} {best[1]:.3f}, {following}".removesuffix(", ")
            rows.add_row(result.path, _NONE, "", following)
        else:
            rows.add_row(result.path, best[0], f"{best[1]:.3f}", following)
    if results:
        output.show(rows)


def _show_labels(output: Output, results: Sequence["Classification"], top: int) -> None:
    rows = TextTable("image", "labels", "next")
    for result in results:
        labels = result.labels or ()
        found = _join((name, result.probabilities[name]) for name in labels)
        others = _join(pair for pair in _top(result, top) if pair[0] not in labels)
        rows.add_row(result.path, found or _NONE, others)
    output.show(rows)


def _join(pairs: Iterable[tuple[str, float]]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in pairs)


def _sort(
    output: Output, sorting: Sorting, results: Sequence["Classification"]
) -> dict[str, str]:
    """Moves or copies the images, says so, and returns where each one is now."""
    placed: dict[str, str] = {}
    known = [result for result in results if not result.is_unknown]
    for source, target in sort_images(sorting, known):
        placed[os.fspath(source)] = os.fspath(target)
        if sorting.is_dry:
            output.say(f"{source} -> {target}")
    verb = "moved" if sorting.moves else "copied"
    would = "would be " if sorting.is_dry else ""
    stay, unknown = len(known) - len(placed), len(results) - len(known)
    note = f", {stay} are there already" if stay else ""
    if unknown:
        note += f", {unknown} show none of the classes and stay where they are"
    output.say(f"{len(placed)} images {would}{verb} to {sorting.folder}{note}")
    return placed


def _explain(
    output: Output,
    model: Any,
    results: Sequence["Classification"],
    folder: Path,
) -> None:
    """Writes a picture for each image, numbered in the order of the images."""
    from keras_flowers.explanation import explain

    folder.mkdir(parents=True, exist_ok=True)
    width = len(str(len(results)))
    with ProgressBars() as progress:
        for start in range(0, len(results), _EXPLAINED_AT_ONCE):
            progress("explain", start, len(results))
            paths = [result.path for result in results[start:][:_EXPLAINED_AT_ONCE]]
            for number, one in enumerate(explain(model, paths), start + 1):
                name = f"{number:0{width}}-{Path(one.path or '').stem}.png"
                write_figure(one.plot(), folder / name)
    output.say(f"{len(results)} explanations written to {folder}")


def _as_json(
    result: "Classification", top: int, placed: dict[str, str], has_unknown: bool
) -> dict[str, Any]:
    def describe(pairs: Iterable[tuple[str, float]]) -> list[dict[str, Any]]:
        return [{"class": name, "probability": value} for name, value in pairs]

    answer: dict[str, Any] = {"class": result.label, "probability": result.probability}
    if result.labels is not None:
        found = ((name, result.probabilities[name]) for name in result.labels)
        answer = {"labels": describe(found)}
    row = {"path": result.path, **answer, "top": describe(_top(result, top))}
    if has_unknown:
        row["unknown"] = result.is_unknown
    return row | {"placed": placed[result.path]} if result.path in placed else row


def _top(result: "Classification", top: int) -> list[tuple[str, float]]:
    return list(result.probabilities.items())[:top]


def _write_csv(
    path: Path,
    class_names: Sequence[str],
    results: Iterable["Classification"],
    *,
    has_unknown: bool,
    has_labels: bool,
) -> None:
    from keras_flowers_runtime.files import write_csv_atomically

    def rows() -> Iterator[list[Any]]:
        answer = "labels" if has_labels else "class"
        name_unknown = ["unknown"] if has_unknown else []
        yield ["path", answer, *name_unknown, *class_names]
        for result in results:
            values = (result.probabilities[name] for name in class_names)
            is_unknown = [int(result.is_unknown)] if has_unknown else []
            labels = result.labels
            answer = result.label if labels is None else _SEPARATOR.join(labels)
            yield [result.path, answer, *is_unknown, *values]

    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv_atomically(path, rows())
