"""Images with their labels, and what a model predicts for them."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_flowers.distribution import predict_batch
from keras_flowers.errors import InputError
from keras_flowers.scores import predict_labels, rank_mistakes

_BATCH_SIZE = 32

Batch = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class MisclassifiedImage:
    """An image that the model takes for another class.

    Attributes:
        image: Array `(height, width, channels)`, as the model gets it or as it was
            looked up.
        true: Label of its class.
        predicted: Label of the predicted class, -1 if the prediction is non-finite.
        probability: Probability of the predicted class, 0..1, or NaN.
        true_probability: Probability of the true class, 0..1, or NaN.
        position: Position of the image in the data.
    """

    image: np.ndarray
    true: int
    predicted: int
    probability: float
    true_probability: float
    position: int


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a model predicts for labelled images.

    Attributes:
        matrix: Counts, float64 `(classes, classes)`; rows are true, columns
            predicted. Non-finite predictions are in no column.
        count: Number of images.
        mistakes: The mistakes of the highest loss, highest first.
    """

    matrix: np.ndarray
    count: int
    mistakes: Sequence[MisclassifiedImage]


def classify_batches(
    model: keras.Model,
    data: Any,
    mistakes: int = 0,
    image_of: Callable[[int], np.ndarray] | None = None,
) -> Predictions:
    """Classifies labelled images.

    Args:
        model: Maps a batch of images to one value per class, probabilities or
            logits, or to the probability of the second of two classes.
        data: What `iterate_batches` takes.
        mistakes: Maximum number of mistakes to keep.
        image_of: Returns the image at a position of `data` if that holds something
            else, such as features; `None` if it holds images.
    """
    cells: list[np.ndarray] = [np.zeros(0, np.int64)]
    worst: list[MisclassifiedImage] = []
    count, classes = 0, 0
    for images, labels in iterate_batches(data):
        rows = to_probabilities(predict_batch(model, images))
        classes = rows.shape[1]
        predicted = predict_labels(rows)
        is_finite = predicted >= 0
        cells.append((labels * classes + predicted)[is_finite])
        worst.extend(
            MisclassifiedImage(
                # A copy: the pipeline uses the memory of the batch again.
                image=images[index].copy(),
                true=int(labels[index]),
                predicted=int(predicted[index]),
                probability=float(rows[index].max()),
                true_probability=float(rows[index, labels[index]]),
                position=count + index,
            )
            for index in rank_mistakes(rows, labels)[:mistakes].tolist()
        )
        # Stable: of equal losses the earlier image comes first.
        worst = sorted(worst, key=_order_by_loss)[:mistakes]
        count += len(labels)
    matrix = np.bincount(np.concatenate(cells), minlength=classes**2)
    if image_of is not None:
        worst = [dataclasses.replace(m, image=image_of(m.position)) for m in worst]
    return Predictions(
        matrix.reshape(classes, classes).astype(np.float64), count, worst
    )


def iterate_batches(data: Any, multi_label: bool = False) -> Iterator[Batch]:
    """Yields images and labels, int64 `(batch,)`, as NumPy arrays.

    Args:
        data: `(images, labels)` as two arrays; or anything that yields batches of
            images and labels each time you iterate over it: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a PyTorch `DataLoader`, a list. Labels are
            integers, or rows whose largest entry marks the class.
        multi_label: Whether an image may have several labels: then they are yielded as
            they are, rows of 0 and 1.

    Raises:
        InputError: If a batch is not a pair of images and labels, or its labels are
            not such rows.
    """
    for batch in _iterate_raw_batches(data):
        try:
            images, labels = (_to_array(part) for part in tuple(batch)[:2])
        except (TypeError, ValueError) as error:
            raise InputError(
                "`validation_data` must yield batches (images, labels). "
                f"Received: {type(batch).__name__}"
            ) from error
        if multi_label:
            if labels.ndim != 2:
                raise InputError(
                    "Labels of images that may have several must be "
                    "`(batch, classes)`, 0 or 1. "
                    f"Received: labels of shape {labels.shape}"
                )
            yield images, labels
            continue
        if labels.ndim == 2 and labels.shape[1] > 1:
            labels = labels.argmax(axis=1)
        yield images, labels.reshape(-1).astype(np.int64)


def to_probabilities(outputs: Any) -> np.ndarray:
    """Returns one probability per class: float64 `(batch, classes)`, classes >= 2.

    Args:
        outputs: What a model returned for a batch: probabilities, logits (rows that
            do not sum to 1), or `(batch, 1)` for the second of two classes. Rows that
            are not finite stay so.
    """
    rows = _to_array(outputs).astype(np.float64)
    rows = rows.reshape(len(rows), -1)
    if rows.shape[1] == 1:
        is_logit = bool(((rows < 0) | (rows > 1)).any())
        second = 1 / (1 + np.exp(-rows)) if is_logit else rows
        return np.concatenate([1 - second, second], axis=1)
    is_finite = np.isfinite(rows).all(axis=1)
    finite = rows[is_finite]
    if (finite >= 0).all() and np.allclose(finite.sum(axis=1), 1, atol=0.02):
        return rows
    result = np.full_like(rows, np.nan)
    powers = np.exp(finite - finite.max(axis=1, keepdims=True))
    result[is_finite] = powers / powers.sum(axis=1, keepdims=True)
    return result


def _order_by_loss(mistake: MisclassifiedImage) -> float:
    return mistake.true_probability if mistake.predicted >= 0 else -np.inf


def _iterate_raw_batches(data: Any) -> Iterator[Any]:
    if isinstance(data, tuple):
        images, labels = data[:2]
        for start in range(0, len(images), _BATCH_SIZE):
            part = slice(start, start + _BATCH_SIZE)
            yield images[part], labels[part]
    elif isinstance(data, keras.utils.PyDataset):
        yield from (data[index] for index in range(len(data)))
    else:
        yield from data


def _to_array(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values))
