"""Images with their labels, and what a model says of them."""

import dataclasses
import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_flowers.errors import InputError

_BATCH_SIZE = 32

Batch = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An image that was taken for another class.

    Attributes:
        image: Array `(height, width, channels)`, as the model got it or as it was
            looked up.
        true: Label of its class.
        predicted: Label of the class it was taken for.
        probability: Of `predicted`, in 0..1.
    """

    image: np.ndarray
    true: int
    predicted: int
    probability: float


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a model said of labelled images.

    Attributes:
        matrix: Counts, float64 `(classes, classes)`; rows are true, columns
            predicted.
        mistakes: Those of the highest loss, highest first.
    """

    matrix: np.ndarray
    mistakes: Sequence[Mistake]


def answers(
    model: keras.Model,
    data: Any,
    mistakes: int = 0,
    image_of: Callable[[int], np.ndarray] | None = None,
) -> Answers:
    """Classifies labelled images.

    Args:
        model: Maps a batch of images to one value per class, probabilities or
            logits, or to the probability of the second of two classes.
        data: What `batches` takes.
        mistakes: The most mistakes to keep.
        image_of: Returns the image at a position of `data`, where that holds something
            else, such as features; `None` where it holds images.
    """
    pairs: list[np.ndarray] = []
    worst: list[tuple[float, int, Mistake]] = []
    count, classes = 0, 0
    for images, labels in batches(data):
        rows = probabilities(model.predict_on_batch(images))
        classes = rows.shape[1]
        said = rows.argmax(axis=1)
        pairs.append(labels * classes + said)
        for index in np.flatnonzero(said != labels) if mistakes else ():
            true, predicted = int(labels[index]), int(said[index])
            of_true = float(rows[index, true])
            if len(worst) == mistakes and -of_true <= worst[0][0]:
                continue
            # A copy: the batch lives in memory that the pipeline uses again.
            found = Mistake(
                images[index].copy(), true, predicted, float(rows[index, predicted])
            )
            entry = (-of_true, -count - int(index), found)
            push = heapq.heappushpop if len(worst) == mistakes else heapq.heappush
            push(worst, entry)
        count += len(labels)
    cells = np.concatenate([np.zeros(0, np.int64), *pairs])
    matrix = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    ordered = [
        mistake
        if image_of is None
        else dataclasses.replace(mistake, image=image_of(-position))
        for _, position, mistake in sorted(worst, key=lambda e: e[:2])[::-1]
    ]
    return Answers(matrix.astype(np.float64), ordered)


def batches(data: Any) -> Iterator[Batch]:
    """Yields images and labels, int64 `(batch,)`, as NumPy arrays.

    Args:
        data: `(images, labels)` as two arrays; or anything that gives batches of
            images and labels each time it is gone through: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`, a list. Labels are
            integers, or rows whose largest entry marks the class.

    Raises:
        InputError: If a batch is no pair of images and labels.
    """
    for batch in _raw_batches(data):
        try:
            images, labels = (_array(part) for part in tuple(batch)[:2])
        except (TypeError, ValueError) as error:
            raise InputError(
                "`validation_data` must give batches (photos, labels). "
                f"Received: {type(batch).__name__}"
            ) from error
        if labels.ndim == 2 and labels.shape[1] > 1:
            labels = labels.argmax(axis=1)
        yield images, labels.reshape(-1).astype(np.int64)


def probabilities(outputs: Any) -> np.ndarray:
    """Returns one probability per class: float `(batch, classes)`, classes >= 2.

    Args:
        outputs: What a model returned for a batch: probabilities, logits (rows that
            do not sum to 1), or `(batch, 1)` for the second of two classes.
    """
    rows = _array(outputs).astype(np.float64)
    rows = rows.reshape(len(rows), -1)
    if rows.shape[1] == 1:
        is_logit = bool(((rows < 0) | (rows > 1)).any())
        second = 1 / (1 + np.exp(-rows)) if is_logit else rows
        return np.concatenate([1 - second, second], axis=1)
    sums = rows.sum(axis=1)
    if (rows >= 0).all() and np.allclose(sums, 1, atol=0.02):
        return rows
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    result: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return result


def _raw_batches(data: Any) -> Iterator[Any]:
    if isinstance(data, tuple):
        images, labels = data[:2]
        for start in range(0, len(images), _BATCH_SIZE):
            part = slice(start, start + _BATCH_SIZE)
            yield images[part], labels[part]
    elif isinstance(data, keras.utils.PyDataset):
        yield from (data[index] for index in range(len(data)))
    else:
        yield from data


def _array(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values))
