"""`keras-flowers predict`: classifies images with a saved model."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.errors import EXIT_BAD_INPUT, EXIT_DONE
from keras_flowers_cli.models import load_classifier
from keras_flowers_cli.options import (
    EXISTING_FILE,
    check_writable,
    setting_options,
)
from keras_flowers_cli.output import Output, ProgressBars, TextTable, echo_error

if TYPE_CHECKING:
    from keras_flowers.models.image_classifier import Classification, ImageClassifier


@click.command()
@click.argument("model_file", metavar="MODEL", type=EXISTING_FILE)
@click.argument(
    "images",
    metavar="PHOTO|FOLDER...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
)
@setting_options("predict")
def predict(
    model_file: Path,
    images: Sequence[Path],
    top: int,
    csv_file: Path | None,
    as_json: bool,
) -> int:
    """Classify images, or all images of folders, with the model in MODEL.

    An image that cannot be read is named on stderr and the others are classified; the
    exit code is then 2 if it was named on the command line.
    """
    if csv_file is not None:
        check_writable(csv_file.parent, "--csv")
    runtime.start_keras()
    import keras_flowers  # noqa: F401  registers what the file holds

    output = Output(as_json)
    model = load_classifier(model_file)
    paths = [image for path in images for image in _find_images(path)]
    results, unreadable = _classify_all(model, paths)
    for message in unreadable.values():
        echo_error(f"error: {message}")
    _show(output, results, top)
    if csv_file is not None:
        _write_csv(csv_file, model.class_names, results)
        output.say(f"written to {csv_file}")
    output.result([_as_json(result, top) for result in results])
    if not results or any(path in unreadable for path in images):
        return EXIT_BAD_INPUT
    return EXIT_DONE


def _find_images(path: Path) -> Iterable[Path]:
    """Yields the path itself, or the images of a folder."""
    from keras_flowers.data.image_files import IMAGE_SUFFIXES, starts_like_an_image
    from keras_flowers.data.layout import is_clutter

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
    model: "ImageClassifier", paths: Sequence[Path]
) -> tuple[list["Classification"], dict[Path, str]]:
    """Returns the classifications, and the reason for each unreadable image."""
    from keras_flowers.errors import InputError

    if not paths:
        raise InputError("There is no image in the given folders.")
    results: list[Classification] = []
    unreadable: dict[Path, str] = {}
    batch_size = 32
    with ProgressBars() as progress:
        for start in range(0, len(paths), batch_size):
            progress("predict", start, len(paths))
            batch = paths[start : start + batch_size]
            try:
                results += model.classify(batch)
            except InputError:
                for path in batch:
                    try:
                        results += model.classify([path])
                    except InputError as error:
                        unreadable[path] = str(error)
    return results, unreadable


def _show(output: Output, results: Sequence["Classification"], top: int) -> None:
    rows = TextTable("image", "class", "probability", "next")
    for result in results:
        best, *others = _top(result, top)
        following = ", ".join(f"{name} {value:.3f}" for name, value in others)
        rows.add_row(result.path, best[0], f"{best[1]:.3f}", following)
    if results:
        output.show(rows)


def _as_json(result: "Classification", top: int) -> dict[str, Any]:
    return {
        "path": result.path,
        "class": result.label,
        "probability": result.probability,
        "top": [{"class": name, "probability": p} for name, p in _top(result, top)],
    }


def _top(result: "Classification", top: int) -> list[tuple[str, float]]:
    return list(result.probabilities.items())[:top]


def _write_csv(
    path: Path, class_names: Sequence[str], results: Iterable["Classification"]
) -> None:
    from keras_flowers.files import write_csv_atomically

    def rows() -> Iterator[list[Any]]:
        yield ["path", "class", *class_names]
        for result in results:
            values = (result.probabilities[name] for name in class_names)
            yield [result.path, result.label, *values]

    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv_atomically(path, rows())
