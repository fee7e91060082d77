"""What the layers that augment make of images, without a trace in the training."""

from typing import Any

import keras
import numpy as np


def image_layers(model: keras.Model) -> keras.Model | None:
    """Returns the part of a model that maps images to images.

    It goes from the input along the chain of layers as long as a layer has nothing
    to train and gives images of one or three channels: resizing, rescaling and
    augmentation, also where they are a model of their own.

    Args:
        model: Any built model.

    Returns:
        A model that shares those layers, or `None` where there are none: a model
        without a chain of layers, or one that begins with something else.
    """
    try:
        (inputs,) = model.inputs
    except (AttributeError, TypeError, ValueError):
        return None  # not built of layers that know their place, or several inputs
    last = inputs
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        is_next = _single(layer, "input") is last
        output = _single(layer, "output")
        if not is_next or layer.trainable_variables or not _is_image(output):
            break
        last = output
    if last is inputs:
        return None
    return keras.Model(inputs, last, name="photo_layers")


def augmented(layers: keras.Model, images: Any) -> np.ndarray:
    """Returns images as they come out of `image_layers` in training.

    The state of random numbers stays as it was, so that a run in which images are
    drawn equals one in which they are not.

    Args:
        layers: What `image_layers` returned.
        images: Array `(batch, height, width, channels)`.

    Returns:
        Array `(batch, height, width, channels)` of the layers' dtype and range.
    """
    # What layers assign within the scope, the seed state above all, ends with it.
    with keras.StatelessScope():
        outputs = layers(keras.ops.convert_to_tensor(images), training=True)
        outputs = keras.ops.cast(outputs, "float32")
        return np.asarray(keras.ops.convert_to_numpy(outputs))


def _single(layer: keras.layers.Layer, side: str) -> Any:
    """Returns the input or output, or `None` of a layer that has several or none."""
    try:
        tensor = getattr(layer, side)
    except (AttributeError, ValueError):
        return None
    if isinstance(tensor, list | tuple):
        return tensor[0] if len(tensor) == 1 else None
    return tensor


def _is_image(tensor: Any) -> bool:
    shape: tuple[int | None, ...] = getattr(tensor, "shape", ())
    return len(shape) == 4 and shape[-1] in (1, 3)
