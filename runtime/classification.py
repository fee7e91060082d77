"""Classifies image files while the next ones are decoded."""

import collections
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from keras_flowers_runtime.errors import InputError
from keras_flowers_runtime.images import ImageOptions, Pixels, Resize, load_image

# Batches that are decoded while another one is classified.
_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class Classification:
    """The prediction of a classifier for one image.

    Attributes:
        path: The image, as it was passed in.
        label: The most probable class name, whether or not the image has it as a label.
        probability: Float in 0..1, the probability of `label`.
        probabilities: Every class name with its probability, most probable first.
        is_unknown: Whether the image was found to show none of the classes. Only looked
            for on request, except for a model of several labels per image.
        labels: Of a model of several labels per image, those that it has, the most
            probable first; may be empty. `None` for any other model.
    """

    path: str
    label: str
    probability: float
    probabilities: dict[str, float]
    is_unknown: bool = False
    labels: tuple[str, ...] | None = None


@dataclass(frozen=True)
class UnreadableImage:
    """A file that cannot be read or decoded.

    Attributes:
        path: The file, as it was passed in.
        error: What `load_image` raised for it.
    """

    path: str
    error: InputError


def classify_files(
    predict: Callable[[Pixels], Any],
    class_names: Sequence[str],
    image_size: tuple[int, int],
    paths: Iterable[str | os.PathLike[str]],
    batch_size: int = 32,
    resize: Resize = "stretch",
    thresholds: Sequence[float] | None = None,
) -> Iterator[Classification | UnreadableImage]:
    """Classifies image files while the next ones are decoded.

    Args:
        predict: Maps images, uint8 `(batch, height, width, 3)`, to probabilities,
            `(batch, classes)`, or to a pair of these and bool `(batch,)`, whether the
            images show none of the classes.
        class_names: Position `i` is the name of label `i`.
        image_size: `(height, width)` of the images that `predict` takes.
        paths: Files in any format that training reads.
        batch_size: Positive integer, how many images `predict` takes at once.
        resize: How images become `image_size`; see `ImageOptions`.
        thresholds: As for `rank_classes`.

    Yields:
        A `Classification` for each path, or an `UnreadableImage`, in the order of
        `paths`.
    """
    for names, images in _decode_ahead(paths, image_size, batch_size, resize):
        readable = [image for image in images if not isinstance(image, InputError)]
        answers: Iterator[tuple[Any, Any]] = iter(())
        if readable:
            answers = _predict_pairs(predict, np.stack(readable))
        for name, image in zip(names, images, strict=True):
            if isinstance(image, InputError):
                yield UnreadableImage(name, image)
            else:
                row, is_unknown = next(answers)
                found = rank_classes(name, class_names, row, thresholds)
                yield replace(found, is_unknown=bool(is_unknown) or found.is_unknown)


def _predict_pairs(
    predict: Callable[[Pixels], Any], images: Pixels
) -> Iterator[tuple[Any, Any]]:
    """Returns the probabilities of each image, and whether it is unknown."""
    found = predict(images)
    if isinstance(found, tuple):
        return zip(*found, strict=True)
    return ((row, False) for row in np.asarray(found))


def check_unknown(unknown: Any) -> float | Literal["auto"] | None:
    """Returns the argument `unknown` of `classify`: `None`, `"auto"` or a threshold.

    Raises:
        InputError: If it is none of these.
    """
    if unknown is None:
        return None
    if unknown == "auto":
        return "auto"
    is_number = isinstance(unknown, int | float) and not isinstance(unknown, bool)
    if not is_number or not 0 <= unknown <= 1:
        raise InputError(
            "`unknown` must be None, 'auto' or a probability from 0 to 1. "
            f"Received: unknown={unknown!r}"
        )
    return float(unknown)


def raise_thresholds(
    thresholds: Sequence[float] | None, unknown: str | float | None
) -> Sequence[float] | None:
    """Returns the thresholds of labels, none of them below that of unknown images.

    Args:
        thresholds: The lowest probability of each label; `None` where an image has one
            class.
        unknown: The argument `unknown` of `classify`.
    """
    lowest = check_unknown(unknown)
    if thresholds is None or not isinstance(lowest, float):
        return thresholds
    return tuple(max(threshold, lowest) for threshold in thresholds)


def no_detector_error(reason: str) -> InputError:
    """Returns the error for a model that cannot tell unknown images by itself."""
    return InputError(
        f"The model cannot tell which images show none of its classes: {reason}. Use a "
        "threshold in place of `unknown='auto'`: the lowest probability of a known "
        "image, such as 0.5."
    )


def rank_classes(
    path: str,
    class_names: Sequence[str],
    probabilities: npt.NDArray[np.floating],
    thresholds: Sequence[float] | None = None,
) -> Classification:
    """Returns the classification of an image, the most probable class first.

    Args:
        path: The image, or any name for it.
        class_names: Position `i` is the name of label `i`.
        probabilities: `(classes,)`. Of equal ones, the lower label comes first.
        thresholds: The lowest probability of each label, if an image may have several
            or none; else `None`.
    """
    order = np.argsort(-probabilities, kind="stable")
    by_name = {class_names[i]: float(probabilities[i]) for i in order}
    label, probability = next(iter(by_name.items()))
    if thresholds is None:
        return Classification(path, label, probability, by_name)
    # In the precision of the probabilities: 0.2 in 32 bits is a little more than in 64.
    lowest = np.asarray(thresholds, probabilities.dtype)
    labels = tuple(class_names[i] for i in order if probabilities[i] >= lowest[i])
    return Classification(path, label, probability, by_name, not labels, labels)


def _decode_ahead(
    paths: Iterable[str | os.PathLike[str]],
    image_size: tuple[int, int],
    batch_size: int,
    resize: Resize,
) -> Iterator[tuple[list[str], list[Pixels | InputError]]]:
    """Yields batches of paths and their images while later batches are decoded."""
    options = ImageOptions(resize=resize)

    def load(name: str) -> Pixels | InputError:
        try:
            return load_image(name, image_size, options)
        except InputError as error:
            return error

    batches = _batches((os.fspath(path) for path in paths), batch_size)
    pool = ThreadPoolExecutor()
    pending: collections.deque[tuple[list[str], list[Future[Pixels | InputError]]]]
    pending = collections.deque()

    def start(count: int) -> None:
        for names in islice(batches, count):
            pending.append((names, [pool.submit(load, name) for name in names]))

    with contextlib.ExitStack() as stack:
        # When the caller stops reading, nobody needs what is not decoded yet.
        stack.callback(pool.shutdown, cancel_futures=True)
        start(1 + _BATCHES_AHEAD)
        while pending:
            names, images = pending.popleft()
            decoded = [image.result() for image in images]
            start(1)
            yield names, decoded


def _batches(names: Iterator[str], size: int) -> Iterator[list[str]]:
    while batch := list(islice(names, size)):
        yield batch


def require_readable(
    results: Iterable[Classification | UnreadableImage],
) -> list[Classification]:
    """Returns the results as a list.

    Raises:
        InputError: For the first image that cannot be read; the message names it.
    """
    classifications = []
    for result in results:
        if isinstance(result, UnreadableImage):
            raise result.error
        classifications.append(result)
    return classifications
