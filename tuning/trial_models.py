"""The backbone of all trials, and the part of a model that a trial trains."""

import pickle
from typing import Any, Self

import keras

from keras_flowers.data.dataset_loader import ImageDatasetLoader
from keras_flowers.errors import InputError
from keras_flowers.models.backbone import Backbone
from keras_flowers.models.image_classifier import ImageClassifier


class TrialBackbones:
    """The backbones of the models of a search, made of one.

    A copy in another process makes its own when it is first asked for it: TensorFlow
    must not start before a worker has taken its share, nor in a chief at all.

    Args:
        backbone: The one, or `None`: all is then said of models without.
    """

    def __init__(self, backbone: Backbone | None) -> None:
        self._made = backbone
        self._packed: bytes | None = None
        self._exist = backbone is not None
        self._was_frozen = backbone is not None and backbone.is_frozen
        self._is_pretrained = backbone is not None and backbone.is_pretrained

    @property
    def exist(self) -> bool:
        """Whether models have one."""
        return self._exist

    @property
    def is_frozen(self) -> bool:
        """Whether no trial changes a weight of it."""
        return self._was_frozen

    @property
    def is_pretrained(self) -> bool:
        """Whether its weights come from an earlier training."""
        return self._is_pretrained

    @property
    def _backbone(self) -> Backbone | None:
        if self._made is None and self._packed is not None:
            self._made = pickle.loads(self._packed)
        return self._made

    def loader_of(self, data: Any) -> ImageDatasetLoader:
        """Returns a loader of images of its size."""
        if self._backbone is None:
            return ImageDatasetLoader(data)
        return ImageDatasetLoader(data, self._backbone.image_size)

    def check_size(self, image_size: tuple[int, int]) -> None:
        """Refuses images of another size than its own.

        Raises:
            InputError: If it is another one.
        """
        if self._backbone is not None and image_size != self._backbone.image_size:
            raise InputError(
                "The `image_size` of the loader must be that of the backbone, "
                f"{self._backbone.image_size}. Received: image_size={image_size}"
            )

    def for_model(self, seed: int | None = None) -> Backbone | None:
        """Returns the backbone of the next model.

        Args:
            seed: What fresh weights follow from, where there are such.

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
        """Returns what two searches with the same backbone agree in."""
        if self._backbone is None:
            return None
        name = self._backbone.network.name
        content: dict[str, Any] = {"name": name, "is_frozen": self._was_frozen}
        if self._backbone.is_pretrained:
            content["key"] = self._backbone.key()
        return content

    def __getstate__(self) -> dict[str, Any]:
        """Returns what another process needs."""
        if self._packed is None and self._made is not None:
            self._packed = pickle.dumps(self._made)
        return {**self.__dict__, "_made": None}

    def __deepcopy__(self, memo: Any) -> Self:
        """Returns itself: nothing changes it, and it may be large."""
        return self


def trained_part(model: keras.Model) -> keras.Model:
    """Returns the part of a model that a trial changes: its weights are to be kept."""
    if isinstance(model, ImageClassifier):
        backbone = model.backbone
        if backbone is not None and backbone.is_frozen:
            return model.head()
    return model
