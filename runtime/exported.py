"""Loads the folder of an exported model."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from keras_flowers_runtime.classification import (
    Classification,
    UnreadableImage,
    check_unknown,
    classify_files,
    no_detector_error,
    raise_thresholds,
    require_readable,
)
from keras_flowers_runtime.engines import Engine, load_engine
from keras_flowers_runtime.errors import InputError
from keras_flowers_runtime.files import printable_path
from keras_flowers_runtime.images import RESIZE_MODES, Pixels, Resize

DESCRIPTION_FILE = "model.json"
FORMATS = ("onnx", "litert", "openvino", "saved_model")

_KIND = "keras_flowers.export"
# Version 2 has `thresholds`: a reader of version 1 would name one class per image.
# Version 3 has `similarity`: an earlier reader would expect a single output.
_VERSIONS = (1, 2, 3)


class ExportedClassifier:
    """A classifier in the format of another runtime: see `load_exported`.

    Methods may be called from several threads at once.

    Attributes:
        class_names: Position `i` is the name of label `i`.
        image_size: `(height, width)` in pixels of the images that `predict` takes.
        resize: How images become `image_size`: `"stretch"`, `"crop"` or `"pad"`.
        format: `"onnx"`, `"litert"`, `"openvino"` or `"saved_model"`.
        precision: `"float32"`, `"float16"` or `"int8"`.
        unknown_threshold: The lowest probability of an image of a known class, or
            `None` if the model has none.
        similarity_threshold: The lowest similarity of an image of a known class to the
            training images, or `None` if the model does not compute it. Where it does,
            it decides in place of the probability.
        thresholds: The lowest probability of each label, where an image may have
            several labels or none; else `None`.
        description: The content of `model.json`.
    """

    def __init__(self, description: Mapping[str, Any], engine: Engine) -> None:
        self.description = dict(description)
        self.class_names: tuple[str, ...] = tuple(description["class_names"])
        height, width = description["image_size"]
        self.image_size: tuple[int, int] = (height, width)
        self.resize: Resize = description["resize"]["mode"]
        self.format: str = description["format"]
        self.precision: str = description["precision"]
        self.unknown_threshold: float | None = description.get("unknown_threshold")
        similarity = description.get("similarity")
        self.similarity_threshold: float | None = (
            None if similarity is None else similarity["threshold"]
        )
        thresholds = description.get("thresholds")
        self.thresholds: tuple[float, ...] | None = (
            None if thresholds is None else tuple(thresholds)
        )
        self._engine = engine

    def predict(self, images: Pixels) -> np.ndarray:
        """Returns the probabilities of decoded images.

        Args:
            images: uint8 `(batch, height, width, 3)` in RGB, 0 to 255, as
                `load_image` of `keras_flowers_runtime.images` reads them with
                `image_size` and `resize`. Any height and width if `model.json` says
                `"any_size": true`.

        Returns:
            float32 `(batch, classes)`; each row sums to 1, unless the model has
            `thresholds`.
        """
        return self._engine(images)[0]

    def predict_similarity(self, images: Pixels) -> tuple[np.ndarray, np.ndarray]:
        """Returns the probabilities of decoded images, and how similar they are.

        The similarity of an image to the training images is the cosine similarity of
        its features to those of the fifth nearest of up to 1,000 of them.

        Args:
            images: As for `predict`.

        Returns:
            float32 `(batch, classes)`, and float32 `(batch,)` from -1 to 1.

        Raises:
            InputError: If the model has no `similarity_threshold`.
        """
        if self.similarity_threshold is None:
            raise InputError(
                "The model computes no similarity: it has no backbone, or too few "
                "validation images, or was exported by an earlier version."
            )
        probabilities, similarity = self._engine(images)
        return probabilities, similarity

    def classify(
        self,
        paths: Iterable[str | os.PathLike[str]],
        batch_size: int = 32,
        unknown: str | float | None = None,
    ) -> list[Classification]:
        """Classifies image files, decoded exactly as in training.

        Args:
            paths: Files in any format that training reads.
            batch_size: Positive integer, how many images are classified at once.
            unknown: Which images show none of the classes, in `is_unknown` of each
                result: those whose most probable class has a probability below this
                threshold; `"auto"` for those that are less similar to the training
                images than the `similarity_threshold`, or where there is none, whose
                probability is below the `unknown_threshold`; or `None` for none. If the
                model has `thresholds`, an image without a label shows none of the
                classes; a number raises all lower thresholds to it.

        Returns:
            One `Classification` per path, in the order of `paths`.

        Raises:
            InputError: If a file is not a readable image; the message names it. Or
                if an argument is not as described.
        """
        if isinstance(paths, str | os.PathLike):
            raise InputError(f"`paths` must be a list. Received: paths={paths!r}")
        if not hasattr(batch_size, "__index__") or batch_size < 1:
            raise InputError(
                "`batch_size` must be a positive integer. "
                f"Received: batch_size={batch_size!r}"
            )
        return require_readable(self.classify_each(paths, int(batch_size), unknown))

    def classify_each(
        self,
        paths: Iterable[str | os.PathLike[str]],
        batch_size: int = 32,
        unknown: str | float | None = None,
    ) -> Iterator[Classification | UnreadableImage]:
        """Classifies image files one by one while the next ones are decoded.

        Args:
            paths: Files in any format that training reads.
            batch_size: Positive integer, how many images are classified at once.
            unknown: As for `classify`.

        Yields:
            A `Classification` for each path, or an `UnreadableImage` with `path` and
            `error`, in the order of `paths`.
        """
        return classify_files(
            self.predictor(unknown),
            self.class_names,
            self.image_size,
            paths,
            batch_size,
            self.resize,
            raise_thresholds(self.thresholds, unknown),
        )

    def predictor(self, unknown: str | float | None = None) -> Callable[[Pixels], Any]:
        """Returns a function that classifies batches of images, as `classify` does.

        Args:
            unknown: As for `classify`.

        Returns:
            A function that maps images, uint8 `(batch, height, width, 3)`, to their
            probabilities, `(batch, classes)`, or to a pair of these and bool
            `(batch,)`, whether the images show none of the classes.

        Raises:
            InputError: If `unknown` is not as described, or is `"auto"` for a model
                without a threshold.
        """
        threshold = check_unknown(unknown)
        if self.thresholds is not None:
            threshold = None
        if threshold is None:
            return self.predict
        if threshold == "auto" and self.similarity_threshold is not None:
            lowest = self.similarity_threshold

            def compare(images: Pixels) -> tuple[np.ndarray, np.ndarray]:
                probabilities, similarity = self.predict_similarity(images)
                return probabilities, ~(similarity >= lowest)

            return compare
        if threshold == "auto":
            threshold = self.unknown_threshold
        if threshold is None:
            raise no_detector_error("its model.json has no threshold")

        def predict(images: Pixels) -> tuple[np.ndarray, np.ndarray]:
            probabilities = self.predict(images)
            return probabilities, ~(probabilities.max(axis=1) >= threshold)

        return predict


def load_exported(
    folder: str | os.PathLike[str], threads: int | None = None
) -> ExportedClassifier:
    """Loads a model that `export_model` or `keras-flowers export` wrote.

    Needs only NumPy, Pillow, pi-heif and the runtime of the format: onnxruntime,
    ai-edge-litert or openvino. A SavedModel needs TensorFlow.

    Args:
        folder: The folder that was written.
        threads: How many threads compute; `None` for one per core. TensorFlow, for a
            SavedModel, decides for itself.

    Raises:
        InputError: If the folder is not an exported model, is damaged, was written by
            a newer version, or its runtime is not installed.

    Example:
    ```python
    from keras_flowers_runtime import load_exported

    classifier = load_exported("flowers-onnx")
    print(classifier.classify(["rose.jpg"])[0].label)
    ```
    """
    path = Path(folder)
    description = load_description(path)
    for name, size in description["files"].items():
        file = path / name
        found = file.stat().st_size if file.is_file() else None
        if found != size["size"]:
            raise InputError(
                f"`{printable_path(file)}` must have {size['size']} bytes, as "
                f"{DESCRIPTION_FILE} says. Received: "
                f"{'no file' if found is None else f'{found} bytes'}"
            )
    engine = load_engine(
        description["format"],
        path / description["file"],
        threads,
    )
    return ExportedClassifier(description, engine)


def is_exported(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a folder looks like an exported model."""
    return Path(folder, DESCRIPTION_FILE).is_file()


def load_description(folder: Path) -> dict[str, Any]:
    """Reads the `model.json` of an exported model and checks it.

    Raises:
        InputError: If it is missing, damaged or of a newer version.
    """
    path = folder / DESCRIPTION_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return _check_description(content)
    except OSError as error:
        reason = f"no readable {DESCRIPTION_FILE}: {error.strerror or error}"
    except _DescriptionError as error:
        reason = str(error)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        reason = f"a {DESCRIPTION_FILE} that is damaged"
    raise InputError(
        f"`{printable_path(folder)}` must be the folder of an exported model. "
        f"Received: {reason}"
    )


class _DescriptionError(Exception):
    """Says in a few words why a description cannot be used."""


def _check_description(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or content.get("kind") != _KIND:
        raise _DescriptionError(f'a {DESCRIPTION_FILE} without "kind": "{_KIND}"')
    if content.get("version") not in _VERSIONS:
        raise _DescriptionError(
            f"version {content.get('version')!r}; this package reads "
            f"up to {_VERSIONS[-1]}"
        )
    if content["format"] not in FORMATS:
        raise _DescriptionError(f"the unknown format {content['format']!r}")
    if content["resize"]["mode"] not in RESIZE_MODES:
        # Images resized in another way would give wrong answers.
        raise _DescriptionError(f"the unknown way to resize {content['resize']!r}")
    names = content["class_names"]
    if len(names) < 2 or not all(isinstance(name, str) for name in names):
        raise _DescriptionError('"class_names" that are not two or more strings')
    sizes = content["image_size"]
    if len(sizes) != 2 or not all(type(size) is int and size > 0 for size in sizes):
        raise _DescriptionError('an "image_size" that is no pair of positive integers')
    for name in (content["file"], *content["files"]):
        # Nothing outside of the folder is ever read.
        if os.path.isabs(name) or ".." in Path(name).parts:  # noqa: PTH117
            raise _DescriptionError(f"the file {name!r}, which is not in the folder")
    thresholds = content.get("thresholds")
    if thresholds is not None and (
        len(thresholds) != len(names) or not all(0 <= one <= 1 for one in thresholds)
    ):
        raise _DescriptionError('"thresholds" that are not one from 0 to 1 per class')
    threshold = content.get("unknown_threshold")
    if threshold is not None and not 0 <= threshold <= 1:
        raise _DescriptionError(f'the "unknown_threshold" {threshold!r}')
    similarity = content.get("similarity")
    if similarity is not None and not -1 <= similarity["threshold"] <= 1:
        raise _DescriptionError(f'the "similarity" {similarity!r}')
    if not all(type(entry["size"]) is int for entry in content["files"].values()):
        raise _DescriptionError('"files" without sizes')
    return content
