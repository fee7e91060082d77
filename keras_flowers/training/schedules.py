"""Learning rate schedules."""

from collections.abc import Mapping

import keras

from keras_flowers.models.image_classifier import ImageClassifier

# A twentieth of the steps, as is usual for a few thousand steps of training.
WARM_UP = 0.05


def warm_up_and_cosine(
    learning_rate: float, steps: int, warm_up: float = WARM_UP
) -> keras.optimizers.schedules.CosineDecay:
    """Returns a schedule with a linear warm-up and cosine decay to zero.

    The warm-up keeps the first steps small, while gradients are still unreliable. The
    decay is half a cosine (Loshchilov and Hutter, 2017, without restarts).

    Args:
        learning_rate: The highest learning rate.
        steps: Total number of training steps, a positive integer.
        warm_up: Fraction of the steps, from 0 to below 1, in which the rate rises.
    """
    rising = min(round(steps * warm_up), steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if rising else learning_rate,
        decay_steps=steps - rising,
        warmup_target=learning_rate if rising else None,
        warmup_steps=rising,
    )


def warm_up_and_hold(
    learning_rate: float, steps: int, warm_up: float = WARM_UP
) -> keras.optimizers.schedules.CosineDecay:
    """Returns a schedule with a linear warm-up to a constant learning rate.

    Args:
        learning_rate: The learning rate after the warm-up.
        steps: Total number of training steps, a positive integer.
        warm_up: Fraction of the steps, from 0 to below 1, in which the rate rises.
    """
    schedule = warm_up_and_cosine(learning_rate, steps, warm_up)
    # Decay to all of the rate is no decay.
    return type(schedule).from_config({**schedule.get_config(), "alpha": 1.0})


def stretch_schedule(model: keras.Model, ratio: float) -> None:
    """Gives a model a learning rate schedule of another length, without training it.

    A constant learning rate stays as it is, and so does a model of another class than
    `ImageClassifier`.

    Args:
        model: A compiled model.
        ratio: The new number of epochs by the number before.
    """
    if not isinstance(model, ImageClassifier) or not model.compiled:
        return
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    config = optimizer.get_config()
    schedule = config["learning_rate"]
    if not isinstance(schedule, Mapping):
        return
    steps = {
        name: round(value * ratio)
        for name, value in schedule["config"].items()
        if name.endswith("_steps") and isinstance(value, int)
    }
    stretched = {**schedule, "config": {**schedule["config"], **steps}}
    optimizer = type(optimizer).from_config({**config, "learning_rate": stretched})
    model.compile(**{**model.compile_arguments(), "optimizer": optimizer})
