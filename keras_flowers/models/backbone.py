"""`Backbone`: the part of a classifier that turns images into features."""

import copy
import hashlib
import os
import zlib
from collections.abc import Callable
from typing import Any, Self

import keras

from keras_flowers.argument_checks import check_image_size, check_integer
from keras_flowers.errors import InputError
from keras_flowers.layers.data_format import require_channels_last
from keras_flowers.models.architecture import (
    fingerprint_architecture,
    fingerprint_weights,
)
from keras_flowers.models.backbone_loading import (
    AUTO,
    OWN,
    find_network,
    load_weights,
    set_weights,
)
from keras_flowers.models.backbone_presets import did_you_mean
from keras_flowers.registration import register


@register("Backbone")
class Backbone(keras.layers.Layer):
    """Turns images into feature vectors, with a network that was trained elsewhere.

    It holds one Keras model: preprocessing, network and global average pooling. A
    pretrained backbone is frozen and runs in inference mode, including its batch
    normalization and dropout; `unfreeze` makes its weights trainable, and it still runs
    in inference mode. A backbone without pretrained weights trains like any other
    network.

    A `.keras` file holds all of it: loading needs neither the download nor the file
    that it came from.

    Args:
        network: A name (`keras-flowers backbones` lists them); the path of a `.keras`
            file that holds a model; or a Keras model. A model must map images with
            values 0..255, `(batch, height, width, 3)`, to features: vectors, or maps
            `(batch, rows, columns, features)`, which are averaged. If the
            file holds an `ImageClassifier`, its backbone is used.
        pretrained_weights: `"imagenet"`, which Keras downloads; the path of a file
            of weights, `.h5` or `.keras`; `"own"`, those that a model has; or `None`
            to train the whole network, from random weights unless it is a Keras model.
            `"auto"` is `"imagenet"` for a name of `keras.applications`, `None` for
            `"small_convnet"`, and the weights of a model or a `.keras` file.
        image_size: `(height, width)` in pixels of the images that the network sees;
            `None` for its default size.
        seed: Integer that decides random initial weights and dropout, or `None`.
        **kwargs: As for `keras.layers.Layer`; `dtype` applies to the whole network.

    Input shape:
        `(batch, height, width, 3)` with `image_size`; values 0..255.

    Output shape:
        `(batch, feature_size)`.

    Attributes:
        network: The Keras model.

    Raises:
        InputError: If the name is unknown, the file or the model does not compute
            features, the weights cannot be downloaded or do not fit, or the images are
            smaller than the network allows.

    Example:
    ```python
    backbone = keras_flowers.Backbone("mobilenet_v2")
    model = keras_flowers.ImageClassifier(["daisy", "roses"], backbone=backbone)
    ```
    """

    def __init__(
        self,
        network: str | os.PathLike[str] | keras.Model,
        pretrained_weights: str | os.PathLike[str] | None = AUTO,
        image_size: tuple[int, int] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_channels_last(self)
        if image_size is not None:
            image_size = check_image_size(image_size)
        if seed is not None:
            seed = check_integer("seed", seed, lowest=0)
        found = find_network(network, pretrained_weights, image_size)
        is_random = found.weights is None and not isinstance(network, keras.Model)
        if is_random and seed is not None:
            found_network = _rebuild(found.network, _replace_seeds(seed))
        else:
            found_network = found.network
        self.network = _apply_policy(found_network, self.dtype_policy.name)
        self.pretrained_weights = found.weights
        self.image_size = found.image_size
        self.seed = seed
        # What inference computes never changes, and takes half a second to describe.
        self._architecture: str | None = None
        if self.is_pretrained:
            self.network.trainable = False

    @property
    def feature_size(self) -> int:
        """Length of the feature vector of an image."""
        return int(self.network.outputs[0].shape[-1])

    @property
    def is_pretrained(self) -> bool:
        """Whether it has pretrained weights."""
        return self.pretrained_weights is not None

    @property
    def is_frozen(self) -> bool:
        """Whether none of its weights is trainable."""
        return not self.network.trainable_variables

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Does nothing: the network is built already."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the features; a pretrained backbone always runs in inference mode."""
        # Always explicit: the default of Keras augmentation layers is training mode.
        is_training = bool(training) and not self.is_pretrained
        return self.network(inputs, training=is_training)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns `(batch, feature_size)`."""
        return (input_shape[0], self.feature_size)

    def compute_output_spec(
        self, inputs: Any, training: bool | None = None
    ) -> keras.KerasTensor:
        """Returns shape and dtype of the features without computing any."""
        del training
        shape = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(shape, dtype=self.network.outputs[0].dtype)

    def for_another_model(self, seed: int | None = None) -> Self:
        """Returns a backbone for another model.

        A frozen backbone shares its network with the other one, as nothing changes it.
        Otherwise the network is built again, with a copy of the weights if they are
        pretrained, and with new ones if not.

        Args:
            seed: Integer that decides the new weights and the dropout, or `None`.
        """
        network = self.network
        if not self.is_frozen:
            network = _rebuild(
                network, _replace_seeds(seed) if seed is not None else _keep
            )
            if self.is_pretrained:
                set_weights(network, self.network.get_weights())
        other = type(self)(
            network, None, self.image_size, self.seed, dtype=self.dtype_policy.name
        )
        other.pretrained_weights = self.pretrained_weights
        return other

    def layers_from(self, from_layer: str | None = None) -> list[keras.layers.Layer]:
        """Returns the layers of the network in order, starting from one of them.

        Args:
            from_layer: Name of a layer; `None` for all.

        Raises:
            InputError: If there is no such layer; the message names the nearest.
        """
        layers: list[keras.layers.Layer] = self.network.layers
        names = [layer.name for layer in layers]
        if from_layer is None:
            return layers
        if from_layer not in names:
            raise InputError(
                f"`unfreeze_from` must be a layer of {self.network.name}."
                f"{did_you_mean(from_layer, names)} Received: {from_layer!r}"
            )
        return layers[names.index(from_layer) :]

    def unfreeze(self, from_layer: str | None = None) -> None:
        """Makes the network trainable; batch normalization keeps its statistics.

        A compiled model must be compiled again.

        Args:
            from_layer: Name of the first layer to train, with all that follow it;
                `None` for the whole network.

        Raises:
            InputError: If there is no such layer.
        """
        trained = self.layers_from(from_layer)
        self.network.trainable = True
        for layer in self.network.layers:
            layer.trainable = layer in trained

    def load_pretrained_weights(self) -> None:
        """Loads the weights that `pretrained_weights` names.

        A backbone that was built from a configuration has random weights until then.

        Raises:
            InputError: If the file or the download is gone, or does not fit; or if the
                weights were those of a model that was passed in.
        """
        if self.pretrained_weights == OWN:
            raise InputError(
                f"The weights of the backbone {self.network.name} came with a Keras "
                "model and are not known here. Save it to a .keras file, and pass that."
            )
        if self.pretrained_weights is not None:
            load_weights(self.network, self.pretrained_weights)

    def architecture_fingerprint(self) -> str:
        """Returns a text that is equal for networks that compute the same function.

        It does not depend on the names of layers, on modules, or on settings that
        matter in training only. It begins with the version of the description that was
        hashed: texts with different versions cannot be compared.
        """
        if self._architecture is None:
            self._architecture = fingerprint_architecture(self.network)
        return self._architecture

    def weights_fingerprint(self) -> str:
        """Returns a hash of every weight, with its shape and dtype."""
        return fingerprint_weights(self.network)

    def key(self) -> str:
        """Returns a text that is equal for backbones that compute equal features.

        A hash of both fingerprints.
        """
        both = f"{self.architecture_fingerprint()} {self.weights_fingerprint()}"
        return hashlib.sha256(both.encode()).hexdigest()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor; the network as it is built."""
        return {
            **super().get_config(),
            "network": keras.saving.serialize_keras_object(self.network),
            "pretrained_weights": self.pretrained_weights,
            "image_size": list(self.image_size),
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Creates a backbone with new weights; Keras loads those of a file later."""
        # Keras changes the configurations of layers while it reads them.
        config = copy.deepcopy(config)
        weights = config.pop("pretrained_weights")
        network = keras.saving.deserialize_keras_object(config.pop("network"))
        backbone = cls(network, None, **config)
        backbone.pretrained_weights = weights
        return backbone


def _apply_policy(network: keras.Model, policy: str) -> keras.Model:
    """Returns a network with a dtype policy and the same weights."""
    if all(
        layer.dtype_policy.name == policy
        for layer in network.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ):
        return network

    def change(config: dict[str, Any]) -> dict[str, Any]:
        is_policy = config.get("class_name") == "DTypePolicy"
        return {**config, "config": {"name": policy}} if is_policy else config

    changed = _rebuild(network, change)
    set_weights(changed, network.get_weights())
    return changed


def _replace_seeds(seed: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Returns a function that gives each random object of a configuration a seed."""
    count = 0

    def change(config: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        if "seed" not in config:
            return config
        count += 1
        return {**config, "seed": zlib.crc32(f"{seed} {count}".encode())}

    return change


def _keep(config: dict[str, Any]) -> dict[str, Any]:
    return config


def _rebuild(
    network: keras.Model, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> keras.Model:
    """Returns a network with new weights, each part of its configuration changed."""
    config = _map_config(keras.saving.serialize_keras_object(network), change)
    return keras.saving.deserialize_keras_object(config)


def _map_config(value: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """Returns a configuration with each dictionary in it changed, the inner first."""
    if isinstance(value, dict):
        return change({key: _map_config(item, change) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(_map_config(item, change) for item in value)
    return value
