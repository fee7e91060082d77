"""Notices while a network trains that it has collapsed."""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras_flowers.callbacks.confusion_counts import find_matrix
from keras_flowers.callbacks.labelled_images import iterate_batches, to_probabilities

from keras_flowers.argument_checks import check_integer
from keras_flowers.files import printable_path
from keras_flowers.history import COLLAPSED

ADVICE = "Start again with a lower `learning_rate`, such as a tenth of it."
_ADVICE_IF_IT_VARIES = (
    "Start again with another `learning_rate`: a tenth of it, or ten times as much if "
    "the loss has hardly changed from the start."
)

# Share of the images with the same answer from which it counts as the only one.
_ONLY_ANSWER = 0.98
# A loss above this part of that of guessing shows no knowledge of the images.
_OF_GUESSING = 0.97
# A training that lowers its loss by this part over the epochs of `patience` learns.
_PROGRESS = 0.05
# Probabilities that differ less between images are the same for all of them.
_SAME_PROBABILITY = 1e-3
_FEWEST_STEPS = 20
# Without a count of the answers the loss must be that of guessing.
_STUCK = 0.01


@dataclasses.dataclass(frozen=True)
class DeadUnits:
    """The units of a ReLU layer that are 0 for every image, and so never learn.

    Attributes:
        layer: Name of the layer.
        dead: How many of its units are dead.
        units: How many it has.
    """

    layer: str
    dead: int
    units: int


@dataclasses.dataclass(frozen=True)
class Collapse:
    """How a training has collapsed.

    Attributes:
        epoch: Number of the epoch after which it was noticed, from 1.
        loss: Training loss of that epoch.
        answer: The label that is predicted for every image; `None` if it is unknown.
        dead_units: The layers with dead units, as far as the model shows them.
        varies: Whether the probabilities still differ between images. The network may
            then learn too slowly, with a learning rate that is too low.
    """

    epoch: int
    loss: float
    answer: int | None = None
    dead_units: tuple[DeadUnits, ...] = ()
    varies: bool = False

    def describe(self, class_names: Sequence[str] | None = None) -> str:
        """Returns what happened, in one line.

        Args:
            class_names: Position `i` is the name of label `i`.
        """
        if not math.isfinite(self.loss):
            return f"Epoch {self.epoch}: the training has diverged, its loss is NaN."
        answer = "gives every image the same answer"
        if self.answer is not None:
            known = class_names is not None and self.answer < len(class_names)
            name = (class_names or ())[self.answer] if known else f"class {self.answer}"
            answer = f"predicts {printable_path(name)!r} for every image"
        dead = "".join(
            f", {one.dead} of {one.units} units of {one.layer} are always 0"
            for one in self.dead_units
        )
        return (
            f"Epoch {self.epoch}: the network has collapsed and {answer}; its loss is "
            f"that of guessing{dead}."
        )


class CollapseWarning(UserWarning):
    """Issued by a `CollapseDetector`."""


class CollapseDetector(keras.callbacks.Callback):
    """Warns as soon as a classifier gives every image the same answer.

    A learning rate that is too high for the first steps can push the units of a network
    to where they are 0 for every image. From then on they have no gradient, the network
    answers every image alike, and the loss stays at that of guessing, the logarithm of
    the number of classes. More epochs do not help.

    A training counts as collapsed after an epoch if its loss is NaN or infinite, or if
    all of this holds:

    - the validation images, or without them the training images, get one answer;
    - the training loss is no better than that of a network that knows the share of
      each class and nothing of the images;
    - the probabilities are the same for every image, with dead units or after 20 steps
      or more, or there was no progress for `patience` epochs.

    A network that answers with the largest class while its loss falls, as at the start
    of a training on imbalanced classes, has not collapsed.

    The callback issues a `CollapseWarning`, once. From the epoch on in which it
    notices the collapse, it adds `collapsed` to the logs, 1.0, or 0.0 if the network
    has recovered. Put it before the callbacks that record them, such as `HistoryLogger`
    and `TensorBoard`: `history.json` and TensorBoard then show it.

    It works with any Keras model whose loss is a cross-entropy of labels, and costs
    nothing while the network learns. The answers are taken from a `ConfusionMatrix`
    among the metrics. Without one, they are computed from `validation_data` once the
    loss looks suspicious; without either, only the loss decides.

    Args:
        validation_data: `(images, labels)`, or what yields batches of them. A
            suspicious network is run over these images once per epoch, to compare
            probabilities and to find dead units. `None` for none.
        class_counts: Training images of each label, for the loss of guessing. `None`
            takes the shares of the classes from the confusion matrix, or equal ones.
        class_weights: What `fit` takes as `class_weight`.
        class_names: Position `i` is the name of label `i`, for the message.
        patience: Positive integer, the epochs without progress.

    Attributes:
        collapse: A `Collapse`, or `None` if the network learns.

    Raises:
        InputError: If `patience` is not a positive integer.

    Example:
    ```python
    model.fit(
        x, y, validation_data=(x_val, y_val), epochs=15,
        callbacks=[CollapseDetector((x_val, y_val))],
    )
    ```
    """

    def __init__(
        self,
        validation_data: Any = None,
        *,
        class_counts: Sequence[int] | None = None,
        class_weights: Mapping[int, float] | None = None,
        class_names: Sequence[str] | None = None,
        patience: int = 3,
    ) -> None:
        super().__init__()
        self.validation_data = validation_data
        self.class_counts = class_counts
        self.class_weights = class_weights
        self.class_names = class_names
        self.patience = check_integer("patience", patience, lowest=1)
        self.collapse: Collapse | None = None
        self._has_warned = False
        # Training losses of the latest epochs, as long as they are suspicious.
        self._losses: list[float] = []

    def __deepcopy__(self, memo: Any) -> "CollapseDetector":
        """Returns a new one with the same data: pipelines cannot be copied."""
        return CollapseDetector(
            self.validation_data,
            class_counts=self.class_counts,
            class_weights=self.class_weights,
            class_names=self.class_names,
            patience=self.patience,
        )

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Begins a training in which nothing has happened yet."""
        del logs
        self.collapse, self._has_warned, self._losses = None, False, []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the epoch; warns, and marks the logs."""
        logs = {} if logs is None else logs
        found = self._inspect(epoch + 1, float(logs.get("loss", 0.0)))
        if found is None or self.collapse is None:
            self.collapse = found
        if found is not None and not self._has_warned:
            self._has_warned = True
            advice = _ADVICE_IF_IT_VARIES if found.varies else ADVICE
            text = f"{found.describe(self.class_names)} {advice}"
            warnings.warn(CollapseWarning(text), stacklevel=2)
        if self._has_warned:
            logs[COLLAPSED] = float(self.collapse is not None)

    def get_state(self) -> dict[str, Any]:
        """Returns what a `TrainingCheckpoint` saves."""
        collapse = self.collapse
        return {
            "losses": list(self._losses),
            "has_warned": int(self._has_warned),
            "collapse": None if collapse is None else dataclasses.asdict(collapse),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continues from what `get_state` returned."""
        self._losses = list(state["losses"])
        self._has_warned = bool(state["has_warned"])
        found = state["collapse"]
        if found is not None:
            dead = tuple(DeadUnits(**one) for one in found["dead_units"])
            found = Collapse(**{**found, "dead_units": dead})
        self.collapse = found

    def _inspect(self, epoch: int, loss: float) -> Collapse | None:
        """Returns the collapse that the epoch shows, if any."""
        if not math.isfinite(loss):
            return Collapse(epoch, loss)
        guessing = self._loss_of_guessing()
        # Keras counts the validation images last, where there are any.
        matrix = find_matrix(self.model) if loss >= _OF_GUESSING * guessing else None
        answers = None if matrix is None else matrix.sum(axis=0)
        if loss < _OF_GUESSING * guessing or not _is_only_answer(answers):
            self._losses = []
            return None
        self._losses = [*self._losses, loss][-self.patience :]
        first, last = self._losses[0], self._losses[-1]
        is_stuck = (
            len(self._losses) == self.patience and first - last < _PROGRESS * first
        )
        if self.validation_data is not None:
            return self._probe(epoch, loss, is_stuck=is_stuck)
        if answers is not None:
            return Collapse(epoch, loss, int(answers.argmax())) if is_stuck else None
        is_at_guessing = max(self._losses) < (1 + _STUCK) * guessing
        return Collapse(epoch, loss) if is_stuck and is_at_guessing else None

    def _probe(self, epoch: int, loss: float, *, is_stuck: bool) -> Collapse | None:
        """Runs the network over the validation images, for proof and for the cause."""
        rows, units = [], _UnitCount(self.model)
        for images, _ in iterate_batches(self.validation_data):
            rows.append(to_probabilities(units.call_model(images)))
        probabilities = np.concatenate(rows)
        answers = np.bincount(probabilities.argmax(axis=1))
        is_same = np.ptp(probabilities, axis=0).max() < _SAME_PROBABILITY
        # A softmax that starts from zero gives every image the same answer at first.
        steps = (self.params or {}).get("steps")
        dead = units.find_dead()
        is_trained = bool(dead) or steps is None or steps * epoch >= _FEWEST_STEPS
        if not _is_only_answer(answers) or not ((is_same and is_trained) or is_stuck):
            return None
        return Collapse(epoch, loss, int(answers.argmax()), dead, varies=not is_same)

    def _loss_of_guessing(self) -> float:
        """Returns the loss of the best answer that is the same for all images."""
        counts: Any = self.class_counts
        if counts is None:
            matrix = find_matrix(self.model)
            counts = [1, 1] if matrix is None else matrix.sum(axis=1)
            # One output is the probability of the second of two classes.
            if matrix is None and self.model.output_shape[-1] > 2:
                counts = [1] * int(self.model.output_shape[-1])
        shares = np.asarray(counts, np.float64) / max(1, np.sum(counts))
        weights = self.class_weights or {}
        shares = shares * [weights.get(i, 1.0) for i in range(len(shares))]
        shares = shares[shares > 0]
        return float(-(shares * np.log(shares / shares.sum())).sum())


class _UnitCount:
    """Calls a model and keeps the highest output of each unit of its ReLU layers.

    It does so for a chain of layers, which is what it can call without knowing how
    Keras connects them, and counts nothing in another model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._is_chain: bool | None = None
        self._highest: dict[str, np.ndarray] = {}

    def call_model(self, images: np.ndarray) -> np.ndarray:
        """Returns what the model answers, `(batch, classes)`."""
        if self._is_chain:
            return self._call_layers(images)
        outputs = _to_array(self._model(images, training=False))
        if self._is_chain is None:
            try:
                self._is_chain = np.allclose(self._call_layers(images), outputs)
            except Exception:  # whatever a layer raises that was not meant to be next
                self._is_chain = False
            if not self._is_chain:
                self._highest = {}
        return outputs

    def find_dead(self) -> tuple[DeadUnits, ...]:
        """Returns the layers with units that were 0 in all calls."""
        counts = (
            DeadUnits(name, int((values <= 0).sum()), values.size)
            for name, values in self._highest.items()
        )
        return tuple(one for one in counts if one.dead)

    def _call_layers(self, images: np.ndarray) -> np.ndarray:
        values: Any = keras.ops.convert_to_tensor(images)
        for layer in self._model.layers:
            if isinstance(layer, keras.layers.InputLayer):
                continue
            values = layer(values, training=False)
            if isinstance(layer, keras.layers.ReLU) or (
                getattr(layer, "activation", None) is keras.activations.relu
            ):
                units = _to_array(values).reshape(-1, values.shape[-1]).max(axis=0)
                before = self._highest.get(layer.name, units)
                self._highest[layer.name] = np.maximum(before, units)
        return _to_array(values)


def _is_only_answer(answers: np.ndarray | None) -> bool:
    """Tells whether one class is predicted for all images, or may be."""
    return answers is None or 0 < answers.sum() * _ONLY_ANSWER <= answers.max()


def _to_array(values: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(values), np.float32)
