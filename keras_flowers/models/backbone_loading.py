"""Finds the network of a backbone: by name, in a file, or in a Keras model."""

import dataclasses
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_flowers.errors import InputError, first_line
from keras_flowers.files import printable_path
from keras_flowers.models.backbone_presets import IMAGENET, Network, named_network

AUTO = "auto"
# The weights of a Keras model that was passed in: they cannot be loaded again.
OWN = "own"

_SIZE_OF_FREE_INPUT = (224, 224)
_PROBABILITIES = ("softmax", "sigmoid")


@dataclasses.dataclass(frozen=True)
class FoundNetwork:
    """The network of a backbone.

    Attributes:
        network: Maps images, values 0..255, to feature vectors.
        weights: Where its weights come from: `"imagenet"`, an absolute path, `"own"`,
            or `None` for random ones.
        image_size: `(height, width)` in pixels of the images.
    """

    network: keras.Model
    weights: str | None
    image_size: tuple[int, int]


def find_network(
    network: str | os.PathLike[str] | keras.Model,
    weights: str | os.PathLike[str] | None,
    image_size: tuple[int, int] | None,
) -> FoundNetwork:
    """Builds or loads a network.

    Args:
        network: As for `Backbone`.
        weights: As for `Backbone`.
        image_size: As for `Backbone`.

    Raises:
        InputError: As `Backbone` does.
    """
    if not isinstance(weights, str | os.PathLike | None):
        raise InputError(
            "`pretrained_weights` must be a name, a path or None. "
            f"Received: pretrained_weights={weights!r}"
        )
    weights = None if weights is None else os.fspath(weights)
    if isinstance(network, keras.Model):
        return _from_model(network, weights, image_size)
    if not isinstance(network, str | os.PathLike):
        raise InputError(
            "`network` must be a name, a path or a Keras model. "
            f"Received: network={network!r}"
        )
    name = os.fspath(network)
    is_path = os.sep in name or name.endswith((".keras", ".h5", ".hdf5"))
    if is_path or not isinstance(network, str):
        return _from_file(Path(name).expanduser(), weights, image_size)
    return _from_name(named_network(name), weights, image_size)


def load_weights(network: keras.Model, weights: str) -> None:
    """Loads weights into a network.

    Args:
        network: The network; where the weights are ImageNet's, one with a name.
        weights: `"imagenet"`, or the path of a .h5 or .keras file.

    Raises:
        InputError: If there are none, they cannot be read, or do not fit.
    """
    if weights == IMAGENET:
        _, height, width, _ = network.inputs[0].shape
        source = _build_with_imagenet_weights(
            named_network(network.name), (height, width)
        )
        set_weights(network, source.get_weights())
        return
    path = Path(weights).expanduser()
    shown = printable_path(path)
    if not path.is_file():
        raise InputError(f"There is no weights file {shown}.")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise InputError(f"Weights must be a .h5 or .keras file. Received: {shown}")
    try:
        if path.suffix == ".keras":
            set_weights(network, _unwrap_network(_load_model(path)).get_weights())
        else:
            network.load_weights(path)
    except InputError:
        raise
    except Exception as error:
        # Keras raises nearly anything for a file that is not what it should be.
        raise InputError(
            f"The weights in {shown} do not fit {network.name}: {first_line(error)}"
        ) from error
    _fix_efficientnet_variances(network)


def set_weights(network: keras.Model, weights: list[np.ndarray]) -> None:
    """Sets all weights, and what Keras layers have computed from theirs.

    Raises:
        ValueError: If they do not fit.
    """
    network.set_weights(weights)
    _finalize(network)


def _finalize(network: keras.Model) -> None:
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            _finalize(layer)
        elif isinstance(layer, keras.layers.Normalization):
            # It computes with copies of its weights.
            layer.finalize_state()


def _from_name(
    named: Network, weights: str | None, image_size: tuple[int, int] | None
) -> FoundNetwork:
    size = image_size or (named.side, named.side)
    least = named.smallest_side
    if min(size) < least:
        raise InputError(
            f"{named.name} needs images of at least {least}x{least} pixels. "
            f"Received: image_size={size}"
        )
    if weights == AUTO:
        weights = IMAGENET if named.has_imagenet_weights else None
    if weights == IMAGENET:
        return FoundNetwork(_build_with_imagenet_weights(named, size), weights, size)
    network = named.build(size)
    if weights is not None:
        load_weights(network, weights)
        weights = str(Path(weights).expanduser().absolute())
    return FoundNetwork(network, weights, size)


def _from_file(
    path: Path, weights: str | None, image_size: tuple[int, int] | None
) -> FoundNetwork:
    network = _unwrap_network(_load_model(path))
    if weights is None:
        config = keras.saving.serialize_keras_object(network)
        network = keras.saving.deserialize_keras_object(config)
        network.trainable = True  # frozen, perhaps, in the file
    shown = printable_path(path)
    found = _from_model(network, weights, image_size, shown)
    if weights != AUTO:
        return found
    return dataclasses.replace(found, weights=str(path.absolute()))


def _from_model(
    model: keras.Model,
    weights: str | None,
    image_size: tuple[int, int] | None,
    shown: str = "The model",
) -> FoundNetwork:
    inputs, outputs = _find_ends(model, shown)
    size = _size_of_input(inputs.shape, image_size, shown)
    if len(outputs.shape) == 4:
        pooled = keras.layers.GlobalAveragePooling2D()(outputs)
        network = keras.Model(inputs, pooled, name=model.name)
    else:
        _require_features(model, shown)
        # Of one whose input is a list Keras wants a list in each call. A `Sequential`
        # has no `input` before its first call.
        is_plain = isinstance(getattr(model, "input", None), keras.KerasTensor)
        network = model if is_plain else keras.Model(inputs, outputs, name=model.name)
    _require_large_enough(network, size, shown)
    if weights == IMAGENET:
        raise InputError(f"{shown} has no ImageNet weights: only named networks have.")
    if weights not in (AUTO, OWN, None):
        load_weights(network, weights)
        weights = str(Path(weights).expanduser().absolute())
    return FoundNetwork(network, OWN if weights == AUTO else weights, size)


def _find_ends(model: keras.Model, shown: str) -> tuple[Any, Any]:
    """Returns the only input and output of a model that takes images."""
    try:
        (inputs,), (outputs,) = model.inputs, model.outputs
        is_of_images = len(inputs.shape) == 4 and inputs.shape[-1] == 3
    except (AttributeError, TypeError, ValueError):
        is_of_images = False
    if not is_of_images:
        raise InputError(
            f"{shown} is not a feature extractor: it must have one input, images "
            "(batch, height, width, 3), and one output."
        )
    return inputs, outputs


def _require_features(model: keras.Model, shown: str) -> None:
    shape, last = model.outputs[0].shape, model.layers[-1]
    if len(shape) != 2 or shape[-1] is None:
        raise InputError(
            f"{shown} is not a feature extractor: it returns {shape}, not (batch, "
            "features) or (batch, rows, columns, features)."
        )
    activation = getattr(getattr(last, "activation", None), "__name__", "")
    if activation in _PROBABILITIES or isinstance(last, keras.layers.Softmax):
        raise InputError(
            f"{shown} is a classifier, not a feature extractor: it ends in "
            f"{shape[-1]} probabilities. Save it without its last layers."
        )


def _size_of_input(
    shape: tuple[Any, ...], asked: tuple[int, int] | None, shown: str
) -> tuple[int, int]:
    height, width = (
        own or side
        for own, side in zip(shape[1:3], asked or _SIZE_OF_FREE_INPUT, strict=True)
    )
    if asked is not None and (height, width) != asked:
        raise InputError(
            f"{shown} takes images of {height}x{width} pixels only. "
            f"Received: image_size={asked}"
        )
    return height, width


def _require_large_enough(
    network: keras.Model, size: tuple[int, int], shown: str
) -> None:
    try:
        network.compute_output_shape((None, *size, 3))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{shown} cannot take images of {size[0]}x{size[1]} pixels: "
            f"{first_line(error)}"
        ) from error


def _unwrap_network(model: keras.Model) -> keras.Model:
    """Returns the network of the backbone of a classifier, or the model itself."""
    inner = getattr(getattr(model, "backbone", None), "network", None)
    return inner if isinstance(inner, keras.Model) else model


def _load_model(path: Path) -> keras.Model:
    shown = printable_path(path)
    if not path.is_file():
        raise InputError(f"There is no file {shown}.")
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise InputError(
            f"{shown} holds no model. A backbone is a name or a .keras file; a "
            "weights file needs a name."
        )
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:
        # Keras raises nearly anything for a file that is not what it should be.
        raise InputError(f"{shown} cannot be loaded: {first_line(error)}") from error


def _build_with_imagenet_weights(named: Network, size: tuple[int, int]) -> keras.Model:
    if not named.has_imagenet_weights:
        raise InputError(f"There are no ImageNet weights of {named.name}.")
    try:
        with warnings.catch_warnings():
            # MobileNets say which weights they take for unusual sizes.
            warnings.simplefilter("ignore", UserWarning)
            return named.build(size, IMAGENET)
    except Exception as error:
        # Keras raises a bare Exception where a download fails.
        raise InputError(
            f"The ImageNet weights of {named.name} could not be downloaded: "
            f"{first_line(error)}\nDownload the file elsewhere and pass its path "
            "instead of imagenet (--pretrained-weights FILE), or train without them "
            "(--pretrained-weights none)."
        ) from error


def _fix_efficientnet_variances(network: keras.Model) -> None:
    """Corrects the variances that a file of Keras's EfficientNet weights holds.

    It holds standard deviations where the layer takes variances. Keras adds a layer to
    the network for it, but only where it downloads the file itself.
    """
    deviations = np.array([0.229, 0.224, 0.225], np.float32)
    for layer in network.layers if network.name.startswith("efficientnet_b") else ():
        if isinstance(layer, keras.layers.Normalization):
            mean, variance, *rest = layer.get_weights()
            if np.allclose(np.ravel(variance), deviations, atol=1e-4):
                layer.set_weights([mean, variance**2, *rest])
                layer.finalize_state()
