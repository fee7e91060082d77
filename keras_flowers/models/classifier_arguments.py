"""Checks the arguments of a classifier, and chooses their defaults."""

import numbers
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_flowers.argument_checks import check_integer, suggest_name
from keras_flowers.errors import InputError
from keras_flowers.layers.augmentation import AUGMENTATION_STRENGTHS, check_strength
from keras_flowers.models.backbone import Backbone

HIDDEN_UNITS = (256, 128)
# What a functional Keras model takes; it ignores everything else.
_ARGUMENTS_OF_KERAS = ("name", "trainable", "dtype")


def check_keras_arguments(
    arguments: Mapping[str, Any], own_arguments: Iterable[str]
) -> None:
    """Refuses arguments that Keras would ignore; suggests those of a classifier."""
    known = [*own_arguments, *_ARGUMENTS_OF_KERAS]
    for name in arguments:
        if name not in known:
            nearest = suggest_name(name, known)
            hint = (
                f"did you mean `{nearest}`?"
                if nearest
                else f"it takes {', '.join(known)}"
            )
            raise InputError(f"`ImageClassifier` has no argument `{name}`: {hint}")


def check_class_names(class_names: Any) -> tuple[str, ...]:
    """Returns the class names; refuses fewer than two, and names that repeat."""
    is_list = isinstance(class_names, Iterable) and not isinstance(class_names, str)
    names = tuple(class_names) if is_list else ()
    is_valid = len(names) >= 2 and len(set(names)) == len(names)
    if not is_valid or not all(isinstance(name, str) for name in names):
        raise InputError(
            "`class_names` must be at least two different strings. "
            f"Received: class_names={class_names!r}"
        )
    return names


def check_augmentation(augmentation: Any) -> None:
    """Refuses what is neither a boolean, a string, a layer nor `None`."""
    if not isinstance(augmentation, bool | str | keras.layers.Layer | None):
        raise InputError(
            "`augmentation` must be True, False, a name or a Keras layer. "
            f"Received: augmentation={augmentation!r}"
        )


def check_backbone(backbone: Any) -> None:
    """Refuses what is no backbone, and what `Backbone` does not take as `network`."""
    kinds = Backbone | str | os.PathLike | keras.Model | None
    if not isinstance(backbone, kinds):
        raise InputError(
            "`backbone` must be a Backbone, a name, a path or a Keras model. "
            f"Received: backbone={backbone!r}"
        )


def check_paths(paths: Any) -> None:
    """Refuses a single path, and images in the place of their paths."""
    if isinstance(paths, str | os.PathLike):
        raise InputError(f"`paths` must be a list. Received: paths={paths!r}")
    items = paths if isinstance(paths, Sequence) else ()
    wrong = next((one for one in items if not isinstance(one, str | os.PathLike)), None)
    if getattr(paths, "ndim", 1) != 1 or not isinstance(paths, Iterable):
        wrong = paths
    if wrong is not None:
        raise InputError(
            "`paths` must be a list of image files; for images in memory use "
            f"`predict`. Received: {type(wrong).__name__}"
        )


def check_hidden_units(hidden_units: Any) -> tuple[int, ...]:
    """Returns the widths of the hidden layers; refuses other than positive integers."""
    try:
        return tuple(
            check_integer("hidden_units", width, lowest=1) for width in hidden_units
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            "`hidden_units` must be a sequence of positive integers. "
            f"Received: hidden_units={hidden_units!r}"
        ) from error


def check_dropout(dropout: Any) -> float:
    """Returns the fraction of units to drop; refuses what is not from 0 to below 1."""
    is_number = isinstance(dropout, numbers.Real)
    if not is_number or not 0 <= float(dropout) < 1:
        raise InputError(
            "`dropout` must be a number from 0 to below 1. "
            f"Received: dropout={dropout!r}"
        )
    return float(dropout)


def augments(
    augmentation: bool | str | keras.layers.Layer | None, *, is_pretrained: bool
) -> bool:
    """Tells whether the argument `augmentation` means that images are changed."""
    if augmentation is None:
        return not is_pretrained
    return augmentation is not False and augmentation != "none"


def augmentation_options(augmentation: bool | str | None) -> dict[str, Any]:
    """Returns the arguments of `ImageAugmentation` that the argument means."""
    if not isinstance(augmentation, str):
        return {}
    return AUGMENTATION_STRENGTHS[check_strength("augmentation", augmentation)]


def is_pretrained_backbone(backbone: Backbone | None) -> bool:
    """Tells whether there is a backbone, and it has pretrained weights."""
    return backbone is not None and backbone.is_pretrained


def choose_dropout_rate(dropout: float | None, backbone: Backbone | None) -> float:
    """Returns the fraction of units to drop after each hidden layer."""
    if dropout is None:
        return 0.3 if is_pretrained_backbone(backbone) else 0.0
    return dropout


def choose_image_size(
    backbone: Backbone | None, image_size: tuple[int, int] | None
) -> tuple[int, int]:
    """Returns the size of the images that the network sees."""
    if backbone is None:
        return image_size or (256, 256)
    if image_size not in (None, backbone.image_size):
        raise InputError(
            f"`image_size` must be that of the backbone, {backbone.image_size}. "
            f"Received: image_size={image_size!r}"
        )
    return backbone.image_size


def derive_seed(seed: int | None, role: str) -> int | None:
    """Returns a different seed for each role.

    It depends on the role alone, so that a model without augmentation starts from the
    same weights as one with it.
    """
    return None if seed is None else zlib.crc32(f"{seed} {role}".encode())
