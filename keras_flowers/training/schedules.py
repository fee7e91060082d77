"""Learning rate schedules."""

import keras

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
