"""The backbone of all trials, and the part of a model that a trial trains."""

import pickle
from pathlib import Path
from typing import Any, Self

import keras

from keras_flowers.data.dataset_loader import ImageDatasetLoader
from keras_flowers.errors import InputError
from keras_flowers.models.backbone import Backbone
from keras_flowers.models.image_classifier import ImageClassifier

WEIGHTS_NAME = "model.weights.h5"


class TrialBackbones:
    """The backbones of the models of a search, all derived from one.

    A copy in another process loads the backbone when it is first used: TensorFlow must
    not start before a worker has limited its threads, nor in a chief at all.

    Args:
        backbone: The backbone, or `None` for models without one.
    """

    def __init__(self, backbone: Backbone | None) -> None:
        self._loaded = backbone
        self._packed: bytes | None = None
        self._exist = backbone is not None
        self._was_frozen = backbone is not None and backbone.is_frozen
        self._is_pretrained = backbone is not None and backbone.is_pretrained

    @property
    def exist(self) -> bool:
        """Whether models have a backbone."""
        return self._exist

    @property
    def is_frozen(self) -> bool:
        """Whether no trial changes its weights."""
        return self._was_frozen

    @property
    def is_pretrained(self) -> bool:
        """Whether its weights are pretrained."""
        return self._is_pretrained

    @property
    def _backbone(self) -> Backbone | None:
        if self._loaded is None and self._packed is not None:
            self._loaded = pickle.loads(self._packed)
        return self._loaded

    def loader_of(self, data: Any) -> ImageDatasetLoader:
        """Returns a loader of images of the size of the backbone."""
        if self._backbone is None:
            return ImageDatasetLoader(data)
        return ImageDatasetLoader(data, self._backbone.image_size)

    def check_size(self, image_size: tuple[int, int]) -> None:
        """Makes sure that images have the size of the backbone.

        Raises:
            InputError: If they do not.
        """
        if self._backbone is not None and image_size != self._backbone.image_size:
            raise InputError(
                "The `image_size` of the loader must be that of the backbone, "
                f"{self._backbone.image_size}. Received: image_size={image_size}"
            )

    def for_model(self, seed: int | None = None) -> Backbone | None:
        """Returns the backbone of the next model.

        Args:
            seed: Seed of fresh weights, for a backbone without pretrained ones.

        Raises:
            InputError: If a trial has changed what all trials share.
        """
        if self._backbone is None:
            return None
        if self._was_frozen and not self._backbone.is_frozen:
            raise InputError(
                "A trial has unfrozen the backbone that all trials share. Pass a "
                "`Backbone` that is unfrozen already: each trial then gets a copy."
            )
        return self._backbone.for_another_model(seed)

    def description(self) -> dict[str, Any] | None:
        """Returns what identifies the backbone in the description of a search."""
        if self._backbone is None:
            return None
        name = self._backbone.network.name
        content: dict[str, Any] = {"name": name, "is_frozen": self._was_frozen}
        if self._backbone.is_pretrained:
            content["key"] = self._backbone.key()
        return content

    def __getstate__(self) -> dict[str, Any]:
        """Returns what another process needs."""
        if self._packed is None and self._loaded is not None:
            self._packed = pickle.dumps(self._loaded)
        return {**self.__dict__, "_loaded": None}

    def __deepcopy__(self, memo: Any) -> Self:
        """Returns itself: nothing changes it, and it may be large."""
        return self


def save_weights(model: keras.Model, path: Path) -> None:
    """Saves the weights that a trial has trained, without the state of its optimizer.

    That state is twice their size, and nothing reads it. A frozen backbone is the same
    in all trials.
    """
    _saved_part(model).save_weights(path)


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads what `save_weights` saved."""
    _saved_part(model).load_weights(path)


def _saved_part(model: keras.Model) -> keras.Model:
    """Returns a functional model of the layers that a trial changes.

    A model of another kind is saved as a whole.
    """
    if isinstance(model, ImageClassifier):
        backbone = model.backbone
        if backbone is not None and backbone.is_frozen:
            model = model.head()
    if not hasattr(model, "inputs"):
        return model
    return keras.Model(model.inputs, model.outputs)
