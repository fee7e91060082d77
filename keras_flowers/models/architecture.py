"""What the features of a network depend on: its architecture and its weights.

The description of an architecture is our own, so that it stays the same where Keras
moves a module, numbers layers differently or adds a setting to a class. It holds the
layers in order, how they are connected, and the settings that change what a layer
computes in inference.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_flowers.models.keras_configs import (
    as_json,
    default_of,
    is_automatic_name,
)

# Increase it when the same network is described differently than before.
DESCRIPTION_VERSION = 1

# They return their input in inference, whatever their settings are.
_INACTIVE_IN_INFERENCE = (
    layers.ActivityRegularization,
    layers.AlphaDropout,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.RandomBrightness,
    layers.RandomContrast,
    layers.RandomFlip,
    layers.RandomRotation,
    layers.RandomTranslation,
    layers.RandomZoom,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
# Settings of Keras's layers in version 3.15 that change the output of inference. Any
# other setting of a layer of Keras counts only where it is not the default: it may be
# one that a later version has added.
# fmt: off
_SETTINGS = frozenset((
    "activation", "axes", "axis", "batch_shape", "center", "crop_to_aspect_ratio",
    "cropping", "data_format", "depth_multiplier", "dilation_rate", "dims", "dtype",
    "epsilon", "fill_mode", "fill_value", "filters", "groups", "height",
    "interpolation", "invert", "keepdims", "kernel_size", "max_value", "mean",
    "negative_slope", "normalize", "offset", "pad_to_aspect_ratio", "padding",
    "pool_size", "scale", "shared_axes", "size", "strides", "target_shape",
    "threshold", "units", "use_bias", "variance", "width",
))
# fmt: on
_TRAINING_ONLY = re.compile(
    r"name|trainable|seed|momentum|renorm\w*|\w*_(initializer|regularizer|constraint)"
)


def fingerprint_architecture(network: keras.Model) -> str:
    """Returns a text that is equal for networks that compute the same function.

    A layer that is not Keras's own is described by its whole configuration. Its name
    and module do not count where it is registered with Keras.

    Args:
        network: A model with known inputs and outputs.

    Returns:
        The version of the description and a hash. Of two texts with different
        versions nothing can be said.
    """
    content = [keras.backend.backend(), _describe_network(network)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    return f"{DESCRIPTION_VERSION}:{digest.hexdigest()}"


def fingerprint_weights(network: keras.Model) -> str:
    """Returns a hash of every weight with its shape and dtype, in the model's order."""
    digest = hashlib.sha256()
    # Not `variables`: the states of random seeds differ from process to process.
    for weight in network.weights:
        array = np.asarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{array.shape} {array.dtype} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _describe_network(network: keras.Model) -> dict[str, Any]:
    functional = keras.Model(network.inputs, network.outputs)
    config = as_json(functional.get_config())
    operations = {operation.name: operation for operation in functional.operations}
    positions = {layer["name"]: i for i, layer in enumerate(config["layers"])}

    def connect(value: Any) -> Any:
        """Replaces tensors by the position of the layer that they come from."""
        if isinstance(value, Mapping):
            if value.get("class_name") == "__keras_tensor__":
                name, *output = value["config"]["keras_history"]
                return ["output of", positions[name], *output]
            return {key: connect(item) for key, item in value.items()}
        if isinstance(value, list):
            return [connect(item) for item in value]
        return value

    def describe_call(node: Mapping[str, Any]) -> dict[str, Any]:
        # Inference says `training=False` itself; without a mask there is none.
        options = {k: v for k, v in node["kwargs"].items() if k != "training"}
        return {
            "arguments": connect(node["args"]),
            "options": connect({k: v for k, v in options.items() if v is not None}),
        }

    def describe_ends(ends: list[Any]) -> list[Any]:
        ends = ends if isinstance(ends[0], list) else [ends]
        return [[positions[name], *output] for name, *output in ends]

    described: dict[str, Any] = {}
    if not _is_keras(type(network).__module__):
        # Its class may compute what its layers do not tell.
        graph = ("name", "trainable", "layers", "input_layers", "output_layers")
        own = {k: v for k, v in network.get_config().items() if k not in graph}
        described = {
            "type": _type_name(type(network)),
            "settings": _describe_value(as_json(own)),
        }
    return described | {
        "layers": [
            {
                **_describe_layer(operations[layer["name"]], layer["config"]),
                "calls": [describe_call(node) for node in layer["inbound_nodes"]],
            }
            for layer in config["layers"]
        ],
        "inputs": describe_ends(config["input_layers"]),
        "outputs": describe_ends(config["output_layers"]),
    }


def _describe_layer(layer: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(layer, keras.layers.Layer):
        return {"operation": type(layer).__name__, "settings": _settings(config)}
    described = {"type": _type_name(type(layer)), "compute_dtype": layer.compute_dtype}
    if isinstance(layer, keras.Model) and layer.inputs:
        return described | _describe_network(layer)
    if type(layer) in _INACTIVE_IN_INFERENCE:
        return described
    if not _is_keras(type(layer).__module__):
        base = keras.layers.Layer
        kept = {
            name: _describe_value(value)
            for name, value in config.items()
            if name not in ("name", "trainable", "dtype")
            and not _is_default(base, name, value)
        }
        return described | {"settings": kept}
    kept = {
        name: value
        for name, value in config.items()
        if name in _SETTINGS or not _is_default(type(layer), name, value)
    }
    if type(layer) is not keras.layers.InputLayer:
        kept.pop("dtype", None)  # a policy, which the compute dtype stands for
    return described | {"settings": _settings(kept)}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _describe_value(value)
        for name, value in config.items()
        if not _TRAINING_ONLY.fullmatch(name)
    }


def _describe_value(value: Any) -> Any:
    """Describes a setting, which may be an object that Keras has serialized."""
    if isinstance(value, list):
        return [_describe_value(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if not {"class_name", "config"} <= value.keys():
        return {name: _describe_value(item) for name, item in value.items()}
    module = value.get("module") or ""
    registered = value.get("registered_name") or ""
    is_keras = _is_keras(module) or module == "builtins"
    config = value["config"]
    if isinstance(config, Mapping) and is_automatic_name(
        config.get("name"), value["class_name"]
    ):
        config = {k: v for k, v in config.items() if k != "name"}
    if isinstance(config, Mapping) and is_keras and "Policy" not in value["class_name"]:
        config = _settings(config)
    else:
        config = _describe_value(config)
    kind = value["class_name"] if is_keras else f"{module}.{value['class_name']}"
    return {"type": registered if ">" in registered else kind, "settings": config}


def _type_name(cls: type) -> str:
    registered = keras.saving.get_registered_name(cls)
    if ">" in registered:
        return str(registered)
    return (
        cls.__name__
        if _is_keras(cls.__module__)
        else f"{cls.__module__}.{cls.__qualname__}"
    )


def _is_keras(module: str) -> bool:
    return module.partition(".")[0] == "keras"


def _is_default(cls: type, name: str, value: Any) -> bool:
    """Whether a setting says nothing: a later version of Keras may have added it."""
    return value is None or default_of(cls, "__init__", name) == value
