"""`export_model`: writes a classifier for another runtime, and proves it."""

import dataclasses
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from keras_flowers_runtime.exported import DESCRIPTION_FILE, load_exported
from keras_flowers_runtime.images import ImageOptions, load_image

from keras_flowers.data.sample import write_sample
from keras_flowers.errors import InputError
from keras_flowers.export.conversion import (
    FILES,
    check_format,
    convert,
    fold_temperature,
    in_float32,
    takes_any_size,
)
from keras_flowers.export.model_card import write_model_card
from keras_flowers.export.proof import MAX_IMAGES, MIN_IMAGES, Proof, ProofError, prove
from keras_flowers.export.similarity import has_similarity
from keras_flowers.export.sources import (
    LabelledImage,
    RunImages,
    Source,
    find_source,
    spread,
)
from keras_flowers.files import json_text, printable_path, write_text_atomically
from keras_flowers.layers.views import check_views
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress
from keras_flowers.version import __version__

_CALIBRATION_IMAGES = 300
_PACKAGES_OF = {
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "litert": ("ai-edge-litert",),
    "openvino": ("openvino", "nncf"),
    "saved_model": (),
}


def export_model(
    model: ImageClassifier | str | os.PathLike[str],
    directory: str | os.PathLike[str],
    format: str = "onnx",  # noqa: A002  as in `keras.Model.export`
    quantize: str | None = None,
    *,
    tta: int = 1,
    progress: Progress | None = None,
) -> Proof:
    """Writes a classifier for another runtime, and proves that it answers the same.

    The folder holds the model (`model.onnx`, `model.tflite`, `model.xml` with
    `model.bin`, or `saved_model/`), `labels.txt` with a class name per line,
    `model.json`, which says how the model is fed and where it comes from, a model card
    `README.md`, and `proof.json`. It appears when it is complete and proven.

    Args:
        model: An `ImageClassifier`, a `.keras` file, or the directory of a run. Only
            of a run, or of the `model.keras` in it, are the images known.
        directory: The folder to write, which must not exist or be empty.
        format: `"onnx"`, `"litert"`, `"openvino"` or `"saved_model"`.
        quantize: `"float16"` stores the weights in half precision, which halves the
            file. `"int8"` also computes with eight bits; it is calibrated on training
            images of the run. `None` for float32.
        tta: Test-time augmentation: integer from 1 to 7, the number of views of each
            image over which the exported model averages the probabilities.
        progress: Called as `progress(step, done, total)` with the steps `"convert"`
            and `"prove"`, and those of finding the images of the run.

    Returns:
        The `Proof`: at least 64 images, those of the validation split of the run where
        they exist, else or in addition drawn ones, classified by both models.

    Raises:
        InputError: If an argument is not as described, the folder is taken, a package
            is missing, or the backend cannot write the format. Nothing is written.
        ProofError: If the answers differ by more than the precision allows. Nothing is
            left behind.

    Example:
    ```python
    import keras_flowers.export

    proof = keras_flowers.export.export_model("runs/flowers", "flowers-onnx")
    print(proof.largest_difference)
    ```
    """
    precision = quantize or "float32"
    tta = check_views("tta", tta)
    check_format(format, precision)
    target = _check_directory(directory)
    source = find_source(model)
    source = dataclasses.replace(source, model=in_float32(source.model))
    run_images = source.find_images(progress)
    calibration: list[np.ndarray] = []
    if precision == "int8":
        calibration = _load_calibration(source, run_images)
    step = progress or _ignore
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{secrets.token_hex(8)}")
    folder.mkdir()
    try:
        step("convert", 0, 1)
        exported = fold_temperature(source.model)
        convert(exported, format, precision, folder, calibration, tta)
        step("convert", 1, 1)
        _write_description(folder, source, format, precision, tta)
        proof = _prove(folder, source, run_images, progress, tta)
        if proof.failure is not None:
            raise ProofError(_describe_failure(proof))
        write_text_atomically(folder / "proof.json", json_text(proof.to_json()) + "\n")
        write_model_card(folder, source, run_images, proof)
        if target.is_dir():
            target.rmdir()
        folder.rename(target)
    except OSError as error:
        raise InputError(
            f"`{printable_path(directory)}` cannot be written: "
            f"{error.strerror or type(error).__name__}"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return proof


def _ignore(step: str, done: int, total: int | None) -> None:
    pass


def _check_directory(directory: str | os.PathLike[str]) -> Path:
    path = Path(directory).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        kind = "folder that is not empty" if path.is_dir() else "file"
        raise InputError(
            f"`directory` must be a new or an empty folder. Received: the {kind} "
            f"{printable_path(path)}"
        )
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise InputError(f"`directory`: {printable_path(there)} cannot be written.")
    return path


def _load_calibration(source: Source, images: RunImages) -> list[np.ndarray]:
    if not images.train:
        raise InputError(
            "`quantize`: int8 needs training images to calibrate with, so export the "
            "directory of a run whose data still exists. Received: "
            f"{images.reason_missing or 'a run without training images'}"
        )
    size, options = source.model.image_size, ImageOptions(resize=source.model.resize)
    pixels = []
    for image in spread(images.train, _CALIBRATION_IMAGES):
        try:
            pixels.append(load_image(image.path, size, options))
        except InputError:
            continue
    if not pixels:
        raise InputError("`quantize`: none of the training images can be read.")
    return pixels


def _prove(
    folder: Path,
    source: Source,
    run_images: RunImages,
    progress: Progress | None,
    tta: int,
) -> Proof:
    images = spread(run_images.validation, MAX_IMAGES)
    labelled = len(images)
    exported = load_exported(folder)
    with tempfile.TemporaryDirectory() as drawn:
        missing = MIN_IMAGES - labelled
        if missing > 0:
            images += _draw(Path(drawn), missing)
        if labelled and missing > 0:
            kind = f"{labelled} validation images of the run, {missing} drawn ones"
        elif labelled:
            kind = "validation images of the run"
        else:
            reason = run_images.reason_missing or "the run has no validation images"
            kind = f"drawn images: {reason}"
        return prove(source.model, exported, images, kind, labelled, progress, tta)


def _draw(folder: Path, count: int) -> list[LabelledImage]:
    """Draws images of the sample data set."""
    classes = 5
    root = write_sample(folder / "sample", images_per_class=-(-count // classes))
    paths = sorted(root.glob("*/*.jpg"))
    images = [
        LabelledImage(path, path.relative_to(root).as_posix(), (path.parent.name,))
        for path in paths
    ]
    return spread(images, count)


def _describe_failure(proof: Proof) -> str:
    worst = proof.worst[0]
    return (
        f"The exported model gives other answers than the Keras model: {proof.failure} "
        f"({proof.images} images). The worst is {printable_path(worst.path)}: "
        f"{worst.keras_class} {worst.keras_probability:.4f} in Keras, "
        f"{worst.exported_class} {worst.exported_probability:.4f} exported. Nothing "
        "was written."
    )


def _write_description(
    folder: Path,
    source: Source,
    format: str,  # noqa: A002
    precision: str,
    tta: int,
) -> None:
    model = source.model
    any_size = takes_any_size(format, precision)
    height, width = model.image_size
    similarity = None
    if has_similarity(model):
        assert model.unknown_detector is not None
        similarity = {
            "output": "similarity",
            "dtype": "float32",
            "shape": [None],
            "values": "cosine similarity to the fifth nearest of some training images",
            "threshold": model.unknown_detector.similarity_threshold,
        }
    files = {path.relative_to(folder).as_posix(): path for path in _files_of(folder)}
    description: dict[str, Any] = {
        "kind": "keras_flowers.export",
        "version": 3 if similarity else 2 if model.multi_label else 1,
        "format": format,
        "precision": precision,
        "file": FILES[format],
        "files": {
            name: {"size": path.stat().st_size, "sha256": _sha256(path)}
            for name, path in sorted(files.items())
        },
        "class_names": list(model.class_names),
        "image_size": [height, width],
        "input": {
            "dtype": "uint8",
            "shape": [None, None, None, 3] if any_size else [None, height, width, 3],
            "layout": "batch, height, width, channels",
            "channels": "RGB",
            "value_range": [0, 255],
        },
        "output": {
            "dtype": "float32",
            "shape": [None, len(model.class_names)],
            "values": "probabilities",
        },
        "any_size": any_size,
        "resize": {
            "mode": model.resize,
            "filter": "bilinear with antialiasing",
            "by": "the model or the caller" if any_size else "the caller",
        },
        # Views of each image over which the graph averages.
        "tta": tta,
        # It is part of the graph; null says: none.
        "temperature": None if model.temperature == 1 else model.temperature,
        # Of the probability of the most probable class; the similarity goes first.
        "unknown_threshold": model.unknown_threshold,
        # A second output: how similar an image is to the training images.
        "similarity": similarity,
        # Where an image may have several labels, the lowest probability of each.
        "thresholds": model.label_thresholds,
        "source": {
            "file": None if source.file is None else source.file.name,
            "sha256": None if source.file is None else _sha256(source.file),
            "run": None if source.run is None else source.run.resolve().name,
            "data": source.data,
        },
        "versions": _versions(format),
    }
    text = json_text(description) + "\n"
    write_text_atomically(folder / DESCRIPTION_FILE, text)
    labels = "".join(f"{_one_line(name)}\n" for name in model.class_names)
    write_text_atomically(folder / "labels.txt", labels)


def _one_line(name: str) -> str:
    return printable_path(name)


def _files_of(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _versions(format: str) -> dict[str, str]:  # noqa: A002
    versions = {"keras-flowers": __version__}
    for name in ("keras", "tensorflow", "jax", *_PACKAGES_OF[format]):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
