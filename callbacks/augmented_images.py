"""Augments images as a model does in training, without changing that training."""

from typing import Any

import keras
import numpy as np


def find_image_layers(model: keras.Model) -> keras.Model | None:
    """Returns the part of a model that maps images to images.

    It follows the chain of layers from the input while a layer has no trainable
    variables and returns images of one or three channels: resizing, rescaling and
    augmentation, as layers or as a nested model.

    Args:
        model: Any built model.

    Returns:
        A model that shares those layers; `None` if the model has no chain of layers
        or begins with another kind of layer.
    """
    try:
        (inputs,) = model.inputs
    except (AttributeError, TypeError, ValueError):
        return None  # a subclassed model, or several inputs
    last = inputs
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        is_next = _single_tensor(layer, "input") is last
        output = _single_tensor(layer, "output")
        if not is_next or layer.trainable_variables or not _is_image(output):
            break
        last = output
    if last is inputs:
        return None
    return keras.Model(inputs, last, name="image_layers")


def augment_images(layers: keras.Model, images: Any) -> np.ndarray:
    """Returns images as the layers of a model augment them in training.

    The state of the random numbers is left unchanged, so a run that draws images
    equals one that does not.

    Args:
        layers: What `find_image_layers` returned.
        images: Array `(batch, height, width, channels)`.

    Returns:
        Array `(batch, height, width, channels)` of the layers' dtype and range.
    """
    # What layers assign in the scope, above all the seed state, ends with it.
    with keras.StatelessScope():
        outputs = layers(keras.ops.convert_to_tensor(images), training=True)
        outputs = keras.ops.cast(outputs, "float32")
        return np.asarray(keras.ops.convert_to_numpy(outputs))


def _single_tensor(layer: keras.layers.Layer, side: str) -> Any:
    """Returns the input or output of a layer; `None` if it has several or none."""
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
