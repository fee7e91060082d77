"""Views of an image: its mirror image and crops, which show the same thing.

A classifier that is trained on several views, and averages its answers over them, is
right more often and less sure of its mistakes.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_flowers.argument_checks import check_integer

_CROP = 0.85
# By number: whether the image is mirrored, and for a crop where its free room is
# divided, top to bottom and left to right.
_VIEWS: tuple[tuple[bool, tuple[float, float] | None], ...] = (
    (False, None),
    (True, None),
    (False, (0.5, 0.5)),
    (False, (0.0, 0.0)),
    (False, (0.0, 1.0)),
    (False, (1.0, 0.0)),
    (False, (1.0, 1.0)),
)
MOST_VIEWS = len(_VIEWS)


def check_views(name: str, count: Any) -> int:
    """Returns a number of views.

    Args:
        name: The name of the argument.
        count: Its value.

    Raises:
        InputError: If it is not an integer from 1 to `MOST_VIEWS`.
    """
    return check_integer(name, count, lowest=1, highest=MOST_VIEWS)


def take_view(images: Any, number: int) -> Any:
    """Returns a view of each image, of the same size.

    Args:
        images: `(batch, height, width, channels)` of known height and width, of any
            integer or float dtype and range.
        number: 0 is the image, 1 its mirror image, and 2 to 6 are crops of 85 % of each
            side: the center, then the top left, top right, bottom left and bottom right
            corner, enlarged by bilinear interpolation.

    Returns:
        float32, with the shape and the range of `images`.
    """
    is_mirrored, corner = _VIEWS[number]
    images = ops.cast(images, "float32")
    if is_mirrored:
        images = ops.flip(images, axis=2)
    if corner is not None:
        for axis, place in zip((1, 2), corner, strict=True):
            images = _enlarge(images, axis, place)
    return images


def average_views(
    model: keras.Model,
    image_size: tuple[int, int],
    count: int,
    scale: Callable[[Any], Any] | None = None,
) -> keras.Model:
    """Returns a model that averages the probabilities of a model over views.

    Args:
        model: Maps images `(batch, height, width, 3)` to probabilities
            `(batch, classes)`, or to a list of these and others `(batch, ...)`, which
            are then those of the image itself.
        image_size: `(height, width)` of the images.
        count: Number of views, from 1 to `MOST_VIEWS`; 1 returns `model`.
        scale: Applied to the probabilities of each view; `None` for nothing. An
            `ImageClassifier` applies its temperature itself.
    """
    if check_views("count", count) == 1:
        return model
    images = keras.Input((*image_size, 3), name="images")
    # As one larger batch, so that the graph holds the network once.
    views = ops.concatenate([take_view(images, n) for n in range(count)])
    outputs = model(views, training=False)
    probabilities, *others = outputs if isinstance(outputs, list) else [outputs]
    if scale is not None:
        probabilities = scale(probabilities)
    average = ops.mean(_divide_by_view(probabilities, count), axis=0)
    if others:
        average = [average, *(_divide_by_view(one, count)[0] for one in others)]
    return keras.Model(images, average, name="average_of_views")


def _divide_by_view(values: Any, count: int) -> Any:
    """Returns the values of all views of a batch as `(views, batch, ...)`."""
    return ops.reshape(values, (count, -1, *values.shape[1:]))


def _enlarge(images: Any, axis: int, place: float) -> Any:
    """Returns a crop along an axis, enlarged to the length of the axis."""
    length = int(images.shape[axis])
    start = (1 - _CROP) * length * place
    positions = start + (np.arange(length) + 0.5) * _CROP - 0.5
    lower = np.floor(positions)
    share = (positions - lower).astype(np.float32)
    shape = [1] * 4
    shape[axis] = length
    share = share.reshape(shape)
    first, second = (
        ops.take(images, np.clip(index, 0, length - 1).astype(np.int32), axis=axis)
        for index in (lower, lower + 1)
    )
    return first + (second - first) * share
