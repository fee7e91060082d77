"""Finds a learning rate by the range test of Smith (2017)."""

import dataclasses
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from scipy.ndimage import gaussian_filter1d

from keras_flowers.argument_checks import check_integer
from keras_flowers.data.dataset_loader import ImageDatasetLoader, ImageDatasets
from keras_flowers.errors import InputError
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.plots.learning_rate import draw_learning_rates
from keras_flowers.progress import Progress
from keras_flowers.training.feature_datasets import with_features
from keras_flowers.training.stages import has_fixed_features

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Width of the window of the mean, as a part of the steps: the standard deviation of a
# Gaussian. Batches differ more than one step changes the loss.
_WINDOW = 0.05
# Losses above this multiple of the first one would outweigh all others in the mean.
_MOST = 3.0
# So many losses in a row above it: the training has exploded.
_EXPLODED = 5
# Part of the greatest fall of the loss from which a rate is high enough. Where the data
# are easy the loss stays low for long, and the highest of these rates are dangerous.
_ENOUGH = 0.98
# The loss has exploded at the last rate, or nobody knows what it does above it.
_FROM_THE_END = 10.0
_FEWEST_STEPS = 20


@dataclasses.dataclass(frozen=True, eq=False)
class LearningRateSearch:
    """What a range test found.

    Attributes:
        rates: The learning rate of each step, rising: float64 `(steps,)`.
        losses: The training loss of each step, before it changed the weights: float64
            `(steps,)`.
        suggestion: A learning rate for the training.
    """

    rates: np.ndarray
    losses: np.ndarray
    suggestion: float

    def __repr__(self) -> str:
        """Returns a line, without the losses."""
        return (
            f"LearningRateSearch({len(self.rates)} steps from {self.rates[0]:.3g} to "
            f"{self.rates[-1]:.3g}, suggestion={self.suggestion:.3g})"
        )

    @property
    def smoothed_losses(self) -> np.ndarray:
        """The mean of the losses around each step: float64 `(steps,)`."""
        return smooth_losses(self.losses)

    def plot(self) -> "Figure":
        """Returns a figure of the loss over the learning rate, with the suggestion."""
        return draw_learning_rates(
            self.rates, self.losses, self.smoothed_losses, self.suggestion
        )

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON types."""
        return {
            "suggestion": self.suggestion,
            "rates": self.rates.tolist(),
            "losses": self.losses.tolist(),
        }


def find_learning_rate(
    model: keras.Model,
    data: Any,
    *,
    lowest: float = 1e-7,
    highest: float = 1.0,
    steps: int = 100,
    progress: Progress | None = None,
) -> LearningRateSearch:
    """Finds a learning rate by the range test of Smith (2017).

    The model is trained for a few steps while the learning rate rises exponentially
    from `lowest` to `highest`. While the rate is too low the loss stays where it is,
    then it falls, and where the rate is too high it rises, and the test ends. The
    suggestion is the lowest rate at which the loss, averaged over the steps around it,
    has fallen by 98 % of its greatest fall, and at most a tenth of the last rate.

    The model, its optimizer and its random numbers are afterwards as they were before,
    so a training with the suggestion equals one that was given the same rate.

    With a frozen, pretrained backbone and no augmentation the head is tested on cached
    features, as `train` trains it.

    See Leslie N. Smith, "Cyclical Learning Rates for Training Neural Networks", WACV
    2017, section 3.3, https://arxiv.org/abs/1506.01186.

    Args:
        model: A compiled functional or sequential model, such as an `ImageClassifier`.
            Its optimizer decides the kind of the one that is tested; an optimizer
            without a schedule should later get the suggestion as its rate, a schedule
            as its highest rate.
        data: `ImageDatasets`; an `ImageDatasetLoader` or what it takes as `data`; or
            what yields batches of images and labels each time you iterate over it, such
            as a `tf.data.Dataset`.
        lowest: The learning rate of the first step, above 0.
        highest: That of the last step, above `lowest`.
        steps: Number of steps, from 20 up. Short data are repeated.
        progress: Called with `"learning rate"`, steps done and steps in all; before
            that as for `ImageDatasetLoader.load`.

    Returns:
        `LearningRateSearch`.

    Raises:
        InputError: If an argument is not as described, the data hold no batch, or the
            loss is not finite at the lowest rate.

    Example:
    ```python
    search = keras_flowers.find_learning_rate(model, datasets)
    search.plot().savefig("rates.png")
    model.compile(keras.optimizers.Adam(search.suggestion))
    ```
    """
    steps = check_integer("steps", steps, lowest=_FEWEST_STEPS)
    if not 0 < lowest < highest < math.inf:
        raise InputError(
            "`lowest` must be above 0 and below `highest`. "
            f"Received: lowest={lowest!r}, highest={highest!r}"
        )
    if not isinstance(model, keras.Model) or not model.compiled:
        raise InputError(f"`model` must be a compiled model. Received: model={model!r}")
    if isinstance(data, str | os.PathLike):
        size = {"image_size": model.image_size} if _has_size(model) else {}
        data = ImageDatasetLoader(data, **size)
    if isinstance(data, ImageDatasetLoader):
        data = data.load(progress)
    tested = model
    if isinstance(data, ImageDatasets) and has_fixed_features(model):
        data = with_features(data, model, progress)
        tested = model.head()
    rates = np.geomspace(lowest, highest, steps)
    losses = []
    variables = [*model.variables, *model.optimizer.variables]
    kept = [np.array(keras.ops.convert_to_numpy(v)) for v in variables]
    twin = _build_twin(tested, rates)
    try:
        for images, labels in _repeat_batches(data, steps):
            twin.reset_metrics()
            losses.append(float(twin.train_on_batch(images, labels)))
            if progress is not None:
                progress("learning rate", len(losses), steps)
            latest = losses[-_EXPLODED:]
            if not math.isfinite(losses[-1]) or min(latest) > _MOST * losses[0]:
                break
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
    if progress is not None:
        progress("learning rate", steps, steps)
    tried = np.asarray(losses)
    return LearningRateSearch(
        rates[: len(tried)], tried, suggest_rate(rates[: len(tried)], tried)
    )


def suggest_rate(rates: np.ndarray, losses: np.ndarray) -> float:
    """Returns a learning rate for a training, rounded to two digits.

    Args:
        rates: The rate of each step, rising.
        losses: The loss of each step.

    Raises:
        InputError: If not even the first losses are finite.
    """
    smoothed = smooth_losses(losses)
    if not np.isfinite(smoothed).any():
        raise InputError(
            "The loss is not finite at the lowest learning rate: pass a lower `lowest`."
        )
    lowest = np.nanmin(smoothed)
    enough = smoothed[0] - _ENOUGH * (smoothed[0] - lowest)
    found = rates[np.flatnonzero(smoothed <= enough)[0]]
    return float(f"{min(found, rates[-1] / _FROM_THE_END):.1e}")


def smooth_losses(losses: Any) -> np.ndarray:
    """Returns the mean of the losses around each step.

    A mean of past steps alone would lag behind by a factor of the learning rate. NaN
    from the first loss that is not finite.

    Args:
        losses: The loss of each step.
    """
    values = np.asarray(losses, np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    end = bad[0] if len(bad) else len(values)
    smoothed = np.full(len(values), math.nan)
    if end:
        clipped = np.minimum(values[:end], _MOST * values[0])
        window = max(1.0, _WINDOW * len(values))
        smoothed[:end] = gaussian_filter1d(clipped, window, mode="nearest")
    return smoothed


def _build_twin(model: keras.Model, rates: np.ndarray) -> keras.Model:
    """Returns a model with the same weights and its own optimizer."""
    if not getattr(model, "inputs", None):
        raise InputError(
            "`model` must be a functional or a sequential model. "
            f"Received: {type(model).__name__}"
        )
    twin = keras.Model(model.inputs, model.outputs, name="range_test")
    # Mixed precision wraps the optimizer in another one.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    rising = keras.optimizers.schedules.ExponentialDecay(
        float(rates[0]),
        decay_steps=len(rates) - 1,
        decay_rate=float(rates[-1] / rates[0]),
    )
    config = {**optimizer.get_config(), "learning_rate": rising}
    twin.compile(
        type(optimizer).from_config(config),
        model.loss,
        jit_compile=model.jit_compile,
    )
    return twin


def _repeat_batches(data: Any, steps: int) -> Iterator[tuple[Any, Any]]:
    """Yields as many batches as there are steps, in the order of the first epochs."""
    done, epoch = 0, 0
    while done < steps:
        if isinstance(data, ImageDatasets):
            data.epoch_order.epoch = epoch
            batches = data.train
        else:
            batches = data
        before = done
        for images, labels in batches:
            yield images, labels
            done += 1
            if done == steps:
                return
        if done == before:
            raise InputError("`data` must hold at least one batch.")
        epoch += 1


def _has_size(model: keras.Model) -> bool:
    return isinstance(model, ImageClassifier)
