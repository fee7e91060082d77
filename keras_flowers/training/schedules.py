"""How the learning rate changes over a training."""

import keras

# A twentieth of the steps, as is usual for trainings of a few thousand steps.
WARM_UP = 0.05


def warm_up_and_cosine(
    learning_rate: float, steps: int, warm_up: float = WARM_UP
) -> keras.optimizers.schedules.CosineDecay:
    """Returns a schedule that rises to a rate and falls from there to zero.

    It rises in a straight line, so that the first steps, which know little, do little;
    and it falls along half a cosine (Loshchilov and Hutter, 2017, without restarts).

    Args:
        learning_rate: The highest rate.
        steps: Training steps in all, a positive integer.
        warm_up: Share of the steps, 0 to below 1, in which the rate rises.
    """
    rising = min(round(steps * warm_up), steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if rising else learning_rate,
        decay_steps=steps - rising,
        warmup_target=learning_rate if rising else None,
        warmup_steps=rising,
    )
