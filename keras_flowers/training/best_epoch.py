"""Keeps the weights of the best epoch of a run, over all its stages."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_flowers.distribution import read_variable
from keras_flowers.history import History
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.training.stages import Stage


class BestEpoch(keras.callbacks.Callback):
    """Keeps a copy of the weights of the epoch with the lowest validation loss.

    It takes part in each `fit` of a run, and `restore` assigns the copy at the end. Its
    state is part of the checkpoints: a resumed run knows the best epoch even if it was
    trained before the interruption.

    Attributes:
        number: The best epoch so far, counted from 1; `None` before an epoch with a
            validation loss that is a number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.number: int | None = None
        self._loss = math.inf
        self._weights: list[np.ndarray] = []
        self._stage: Stage | None = None
        # Whether the kept weights are those of the head alone.
        self._is_of_head = False
        self._pretrained: list[tuple[Any, np.ndarray]] = []

    def begin_stage(self, stage: Stage) -> None:
        """Prepares for a stage, before its checkpoint is restored."""
        self._stage = stage
        if not stage.is_first:
            # If the best epoch trained the head alone, the backbone was still this.
            variables = stage.model.trainable_variables
            self._pretrained = [(variable, _copy(variable)) for variable in variables]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Copies the weights if the validation loss is lower than ever before."""
        loss = float((logs or {}).get("val_loss", math.nan))
        if loss < self._loss and self._stage is not None:
            self.number, self._loss = epoch + 1, loss
            self._is_of_head = self._stage.is_on_features
            self._weights = [_copy(weight) for weight in self.model.weights]

    def get_state(self) -> dict[str, Any]:
        """Returns what a `TrainingCheckpoint` saves."""
        return {
            "number": self.number,
            "loss": self._loss,
            "is_of_head": self._is_of_head,
            "weights": self._weights,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `get_state` returned."""
        self.number, self._loss = state["number"], float(state["loss"])
        self._is_of_head = bool(state["is_of_head"])
        self._weights = [_make_read_only(weight) for weight in state["weights"]]

    def restore(self, model: keras.Model) -> None:
        """Assigns the weights of the best epoch to the model, if there is one."""
        if self.number is None:
            return
        of_head = self._is_of_head and isinstance(model, ImageClassifier)
        for variable, value in self._pretrained if of_head else ():
            variable.assign(value)
        fitted = model.head() if of_head else model
        for weight, value in zip(fitted.weights, self._weights, strict=True):
            weight.assign(value)


def find_saved_epoch(history: History, keep: str) -> int | None:
    """Returns the epoch that the model of a complete run is from, counted from 1.

    Args:
        history: The history of the run.
        keep: `"best"` or `"last"`.

    Returns:
        The first epoch with the lowest validation loss, or the last epoch; `None` if no
        epoch is complete.
    """
    epochs = [int(number) for number in history.get("epoch", [])]
    losses = history.get("val_loss", [])
    pairs = zip(losses, epochs, strict=False)
    known = [pair for pair in pairs if not math.isnan(pair[0]) and pair[0] < math.inf]
    if keep == "best" and known:
        return min(known)[1]
    return epochs[-1] if epochs else None


def _copy(variable: Any) -> np.ndarray:
    return _make_read_only(np.array(read_variable(variable)))


def _make_read_only(array: np.ndarray) -> np.ndarray:
    """Marks an array that nobody changes: a checkpoint then need not copy it."""
    array.flags.writeable = False
    return array
