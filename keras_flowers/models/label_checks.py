"""Refuses labels that a classifier has no class for.

The loss of such a label is NaN, or the label counts as another one, without an error.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_flowers.errors import InputError


def check_array_labels(name: str, labels: Any, classes: int, loss: Any) -> None:
    """Refuses an array of labels that are not those of classes.

    Args:
        name: The argument that holds the labels, for the message.
        labels: An array or tensor, `(images,)` or `(images, 1)`. Everything else, such
            as one-hot labels, is left to Keras.
        classes: Number of classes.
        loss: The loss of the model, which may have a label that it ignores.

    Raises:
        InputError: If a label is not an integer from 0 to `classes` - 1.
    """
    if keras.ops.is_tensor(labels):
        labels = keras.ops.convert_to_numpy(labels)
    elif not hasattr(labels, "__array__"):
        return
    values = np.asarray(labels)
    is_column = values.ndim == 2 and values.shape[1] == 1
    if not values.size or not (values.ndim == 1 or is_column):
        return
    if values.dtype.kind in "biuf":
        ignored = _ignored_label(loss)
        if ignored is not None:
            values = values[values != ignored]
        is_label = (values >= 0) & (values < classes) & (values == np.floor(values))
        if is_label.all():
            return
        values = values[~is_label]
    raise InputError(
        f"The labels in `{name}` must be integers from 0 to {classes - 1}: the model "
        f"has {classes} classes. Received: {values.item(0)!r}"
    )


def check_dataset_classes(name: str, data: Any, class_names: Sequence[str]) -> None:
    """Refuses a dataset whose labels mean other classes than those of the model.

    Args:
        name: The argument that holds the dataset, for the message.
        data: What Keras trains on. It has the attribute `class_names` if it comes from
            an `ImageDatasetLoader` or `keras.utils.image_dataset_from_directory`; a
            dataset without is left to Keras.
        class_names: Those of the model.

    Raises:
        InputError: If it has more classes than the model, or the model has one of them
            under another label.
    """
    names = getattr(data, "class_names", None)
    if names is None:
        return
    label_of = {one: label for label, one in enumerate(class_names)}
    is_other = any(label_of.get(one, i) != i for i, one in enumerate(names))
    if len(names) > len(class_names) or is_other:
        raise InputError(
            f"The model must have the class names of the data in `{name}`, in the same "
            f"order: {list(names)}. Received: {list(class_names)}"
        )


def check_training_data(
    arguments: Mapping[str, Any],
    class_names: Sequence[str],
    loss: Any,
    *,
    multi_label: bool,
) -> None:
    """Checks what can be checked of the labels without a pass over a dataset.

    Args:
        arguments: Those of `fit` or `evaluate`.
        class_names: Those of the model.
        loss: The loss of the model.
        multi_label: Whether labels are rows with a number for each class.

    Raises:
        InputError: If there is a label that the model has no class for.
    """
    validation = arguments.get("validation_data")
    labels = {"y": arguments.get("y")}
    if isinstance(validation, tuple | list) and len(validation) > 1:
        labels["validation_data"] = validation[1]
    for name, data in (("x", arguments.get("x")), ("validation_data", validation)):
        check_dataset_classes(name, data, class_names)
    if not multi_label:
        for name, values in labels.items():
            check_array_labels(name, values, len(class_names), loss)


def _ignored_label(loss: Any) -> int | None:
    """Returns the label that a loss does not count, if there is one."""
    if not isinstance(loss, keras.losses.Loss):
        return None
    ignored: int | None = loss.get_config().get("ignore_class")
    return ignored
