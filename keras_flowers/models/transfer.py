"""Starts a classifier from the weights of another one."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_flowers.errors import InputError
from keras_flowers.files import printable_path
from keras_flowers.models.backbone import Backbone
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.models.saved_classifier import load_classifier


def build_like(
    path: str | os.PathLike[str], class_names: Sequence[str], seed: int | None = None
) -> ImageClassifier:
    """Returns a model with the architecture of a saved one, for other classes.

    It has new weights, except for a pretrained backbone; `transfer_weights` copies the
    others. It is not compiled.

    Args:
        path: The `.keras` file of an `ImageClassifier`.
        class_names: The classes of the new model.
        seed: Integer that decides the new weights, augmentation and dropout, or `None`.

    Raises:
        InputError: If the file holds no classifier.
    """
    source = load_classifier(path)
    config = source.get_config()
    changes: dict[str, Any] = {
        "class_names": list(class_names),
        "seed": seed,
        "temperature": 1.0,
        "thresholds": None,
    }
    if source.backbone is not None and source.backbone.is_pretrained:
        # Like this, `config.json` names the file that has its weights.
        size = source.backbone.image_size
        changes["backbone"] = Backbone(
            Path(path).absolute(),
            image_size=size,
            dtype=source.backbone.dtype_policy.name,
            name=source.backbone.name,
        )
    return ImageClassifier.from_config(config | changes)


def transfer_weights(model: keras.Model, path: str | os.PathLike[str]) -> str:
    """Copies the weights of a saved classifier to a model.

    Weights are copied where both have a layer of the same name with weights of the same
    shape. Of the last layer, those of each class that both have are copied.

    Args:
        model: The `ImageClassifier` that is to be trained.
        path: The `.keras` file of another one.

    Returns:
        A line that says what was transferred.

    Raises:
        InputError: If one of them is not an `ImageClassifier`, they have different
            backbones, or nothing can be transferred.
    """
    source, shown = load_classifier(path), printable_path(path)
    if not isinstance(model, ImageClassifier):
        raise InputError("`init_from` needs an `ImageClassifier` to be trained.")
    _check_backbone(model, source, shown)
    *names, last = model.head_layer_names
    if model.backbone is not None and not model.backbone.is_pretrained:
        names.insert(0, model.backbone.name)
    copied, new = list[str](), list[str]()
    sources = {layer.name: layer for layer in source.layers}
    for name in names:
        layer = model.get_layer(name)
        if not layer.weights:
            continue
        other = sources.get(name)
        is_equal = other is not None and _shapes(other) == _shapes(layer)
        (copied if is_equal else new).append(name)
        if other is not None and is_equal:
            layer.set_weights(other.get_weights())
    shared = _copy_classes(model, source, last)
    if model.backbone is not None and model.backbone.is_pretrained:
        copied.insert(0, "backbone")
    if not copied and not shared:
        raise InputError(f"`init_from`: no layer of the model in {shown} fits.")
    text = f"Started from {shown}: {_join(copied)}"
    text += f"; {len(shared)} of {len(model.class_names)} classes"
    fresh = [name for name in model.class_names if name not in shared]
    if new or fresh:
        text += f"; new: {_join([*new, *fresh])}"
    return text


def _check_backbone(
    model: ImageClassifier, source: ImageClassifier, shown: str
) -> None:
    ours, theirs = model.backbone, source.backbone
    if (ours is None) != (theirs is None):
        has = "no backbone" if theirs is None else "a backbone"
        raise InputError(f"`init_from`: the model in {shown} has {has}.")
    if ours is None or theirs is None or not ours.is_pretrained:
        return
    if ours.weights_fingerprint() != theirs.weights_fingerprint():
        raise InputError(
            f"`init_from`: the model in {shown} has another backbone. Build the model "
            "with that file as its `backbone`."
        )


def _copy_classes(
    model: ImageClassifier, source: ImageClassifier, last: str
) -> tuple[str, ...]:
    """Copies the weights of the classes that both models have; returns their names."""
    other = next((one for one in source.layers if one.name == last), None)
    if other is None:
        return ()
    theirs, ours = other.get_weights(), model.get_layer(last).get_weights()
    if [a.shape[:-1] for a in theirs] != [a.shape[:-1] for a in ours]:
        return ()
    shared = tuple(name for name in model.class_names if name in source.class_names)
    here = [model.class_names.index(name) for name in shared]
    there = [source.class_names.index(name) for name in shared]
    for array, values in zip(ours, theirs, strict=True):
        array[..., here] = values[..., there]
    model.get_layer(last).set_weights([np.asarray(array) for array in ours])
    return shared


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]


def _join(names: Sequence[str]) -> str:
    shown = [printable_path(name) for name in names[:10]]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(shown) or "no layer") + more
