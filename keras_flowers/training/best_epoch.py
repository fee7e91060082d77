"""Keeps the weights of the best epoch of a run."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any

import keras
import numpy as np

from keras_flowers.distribution import read_variable
from keras_flowers.history import History, find_score
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.training.stages import Stage


@dataclasses.dataclass(frozen=True)
class _Score:
    """What an epoch achieved on the validation images."""

    epoch: int
    loss: float
    accuracy: float  # or another score of which more is better

    def is_better_than(self, kept: "_Score | None", begin: int) -> bool:
        """Tells whether it replaces the best epoch before it.

        The loss decides within a stage. Between stages it says little: a network that
        was fine-tuned with smoothed labels is more accurate and less sure, so that its
        loss is higher until its temperature is fitted. So a higher accuracy is enough.

        Args:
            kept: The best epoch so far.
            begin: Number of epochs before the stage.
        """
        if math.isnan(self.loss) or self.loss == math.inf:
            return False
        if kept is None or self.loss < kept.loss:
            return True
        return kept.epoch <= begin < self.epoch and self.accuracy > kept.accuracy


class BestEpoch(keras.callbacks.Callback):
    """Keeps a copy of the weights of the epoch with the lowest validation loss.

    An epoch of a second stage replaces one of the first also if it is more accurate;
    within the second stage the loss decides again.

    It takes part in each `fit` of a run, and `restore` assigns the copy at the end. Its
    state is part of the checkpoints: a resumed run knows the best epoch even if it was
    trained before the interruption.

    Attributes:
        number: The best epoch so far, counted from 1; `None` before an epoch with a
            validation loss that is a number.
    """

    def __init__(self) -> None:
        super().__init__()
        self._score: _Score | None = None
        self._weights: list[np.ndarray] = []
        self._stage: Stage | None = None
        # Whether the kept weights are those of the head alone.
        self._is_of_head = False
        self._pretrained: list[tuple[Any, np.ndarray]] = []

    @property
    def number(self) -> int | None:
        """See the class."""
        return None if self._score is None else self._score.epoch

    def begin_stage(self, stage: Stage) -> None:
        """Prepares for a stage, before its checkpoint is restored."""
        self._stage = stage
        if not stage.is_first:
            # If the best epoch trained the head alone, the backbone was still this.
            variables = stage.model.trainable_variables
            self._pretrained = [(variable, _copy(variable)) for variable in variables]

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Copies the weights if the epoch is the best so far."""
        logs = logs or {}
        loss, accuracy = (
            float(logs.get(name, math.nan)) for name in _score_columns(logs)
        )
        score = _Score(epoch + 1, loss, accuracy)
        assert self._stage is not None
        if score.is_better_than(self._score, self._stage.begin):
            self._score = score
            self._is_of_head = self._stage.is_on_features
            self._weights = [_copy(weight) for weight in self.model.weights]

    def get_state(self) -> dict[str, Any]:
        """Returns what a `TrainingCheckpoint` saves."""
        return {
            "score": None if self._score is None else dataclasses.astuple(self._score),
            "is_of_head": self._is_of_head,
            "weights": self._weights,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `get_state` returned."""
        score = state["score"]
        self._score = None if score is None else _Score(int(score[0]), *score[1:])
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


def find_saved_epoch(history: History, keep: str, begin: int = 0) -> int | None:
    """Returns the epoch that the model of a complete run is from, counted from 1.

    Args:
        history: The history of the run.
        keep: `"best"` or `"last"`.
        begin: Number of epochs before the last stage.

    Returns:
        The best epoch as `BestEpoch` chooses it, or the last one; `None` if no epoch is
        complete.
    """
    epochs = [int(number) for number in history.get("epoch", [])]
    best: _Score | None = None
    for index, epoch in enumerate(epochs if keep == "best" else []):
        loss, accuracy = (
            history[name][index] if name in history else math.nan
            for name in _score_columns(history)
        )
        score = _Score(epoch, loss, accuracy)
        if score.is_better_than(best, begin if epoch > begin else 0):
            best = score
    if best is not None:
        return best.epoch
    return epochs[-1] if epochs else None


def _score_columns(columns: Collection[str]) -> tuple[str, str]:
    return "val_loss", find_score([c for c in columns if c.startswith("val_")]) or ""


def _copy(variable: Any) -> np.ndarray:
    return _make_read_only(np.array(read_variable(variable)))


def _make_read_only(array: np.ndarray) -> np.ndarray:
    """Marks an array that nobody changes: a checkpoint then need not copy it."""
    array.flags.writeable = False
    return array
