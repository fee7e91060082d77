"""An optimizer for networks of convolutions that start from random weights."""

import math
from typing import Any

import keras
from keras import ops

from keras_flowers.errors import InputError
from keras_flowers.registration import register

# Of the polynomial a*x + b*x^3 + c*x^5, which brings values from 0..1 near 1.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# The five steps of Jordan et al. The products are formed anew after the third one: a
# GPU rounds them to ten bits, so that their smallest eigenvalues may be negative, and
# the polynomial enlarges these with every step.
_STEPS = (3, 2)
# Gives the update of a kernel the usual size of one of Adam.
_ROOT_MEAN_SQUARE = 0.2


@register("Muon")
class Muon(keras.optimizers.Optimizer):
    """Orthogonalizes the updates of convolution kernels; the rest is as in AdamW.

    Muon (Jordan et al., 2024) replaces the momentum of a matrix by the nearest
    orthogonal matrix, so that all directions are learned at the same speed. A network
    that starts from random weights needs fewer epochs with it. Here a kernel `(height,
    width, in, out)` is a matrix `(height * width * in, out)`, and its update is scaled
    to the size of one of Adam (Liu et al., 2025). Everything else, biases,
    normalization and dense layers, is trained by AdamW (Loshchilov and Hutter, 2019).

    `keras.optimizers.Muon` is for dense layers: it leaves convolutions to AdamW. It
    also multiplies the large matrix ten times for each update, this class four times.

    Args:
        learning_rate: Float, a learning rate schedule or a callable.
        weight_decay: Fraction of each weight that a step takes off, times the
            learning rate; `None` for none.
        momentum: Float from 0 to below 1, of the convolution kernels.
        beta_1: Float from 0 to below 1, as in `keras.optimizers.AdamW`.
        beta_2: Float from 0 to below 1, as in `keras.optimizers.AdamW`.
        epsilon: Float above 0, as in `keras.optimizers.AdamW`.
        name: The name of the optimizer.
        **kwargs: Further arguments of `keras.optimizers.Optimizer`.

    Raises:
        InputError: When it is built for weights without a convolution kernel.
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        weight_decay: float | None = 0.004,
        momentum: float = 0.95,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str = "muon",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs
        )
        self.momentum = momentum
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def build(self, variables: Any) -> None:
        """Creates the moments of the variables."""
        if self.built:
            return
        if not any(map(_is_convolution, variables)):
            raise InputError(
                "The optimizer `muon` is for networks that train convolutions. "
                "Received: weights without a convolution kernel; use `adamw`"
            )
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")
        # An entry for each variable, because all lists share one index.
        self._velocities = [
            None
            if _is_convolution(variable)
            else self.add_variable_from_reference(variable, name="velocity")
            for variable in variables
        ]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates a variable."""
        rate = ops.cast(learning_rate, variable.dtype)
        gradient = ops.cast(gradient, variable.dtype)
        # The way of Keras's guide for optimizers of your own.
        index = self._get_variable_index(variable)
        momentum, velocity = self._momentums[index], self._velocities[index]
        if velocity is None:
            update = self._orthogonal_update(gradient, momentum)
        else:
            update = self._adam_update(gradient, momentum, velocity)
        self.assign_sub(variable, rate * update)

    def _orthogonal_update(self, gradient: Any, momentum: Any) -> Any:
        self.assign(momentum, self.momentum * momentum + gradient)
        # Of Nesterov.
        update = gradient + self.momentum * momentum
        matrix = ops.reshape(update, (-1, update.shape[-1]))
        scale = _ROOT_MEAN_SQUARE * math.sqrt(max(matrix.shape))
        return ops.reshape(scale * orthogonalize(matrix), update.shape)

    def _adam_update(self, gradient: Any, momentum: Any, velocity: Any) -> Any:
        step = ops.cast(self.iterations + 1, gradient.dtype)
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1 - self.beta_2))
        mean = momentum / (1 - ops.power(self.beta_1, step))
        variance = velocity / (1 - ops.power(self.beta_2, step))
        return mean / (ops.sqrt(variance) + self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


def orthogonalize(matrix: Any) -> Any:
    """Returns nearly the nearest matrix with orthogonal rows or columns.

    The iteration of Newton and Schulz with the polynomial of Jordan et al. (2024). Most
    steps need only the small square matrix of the products of the rows, or columns,
    because every iterate is the matrix times a polynomial of that.

    Args:
        matrix: Float tensor `(rows, columns)`.

    Returns:
        A tensor of the same shape, whose singular values are about 0.7 to 1.2 where
        those of the matrix are not much smaller than its largest.
    """
    rows, columns = matrix.shape
    matrix = matrix / (ops.norm(matrix) + 1e-7)
    is_wide = rows < columns
    if is_wide:
        matrix = ops.transpose(matrix)
    a, b, c = _COEFFICIENTS
    for steps in _STEPS:
        products = ops.matmul(ops.transpose(matrix), matrix)
        factor = ops.eye(min(rows, columns), dtype=matrix.dtype)
        for _ in range(steps):
            current = factor @ products @ factor
            factor = a * factor + (b * current + c * current @ current) @ factor
        matrix = matrix @ factor
    return ops.transpose(matrix) if is_wide else matrix


def _is_convolution(variable: Any) -> bool:
    """Tells whether a variable is the kernel of a convolution.

    A depthwise one, with one filter for each channel, has no matrix to orthogonalize.
    """
    return len(variable.shape) > 2 and variable.shape[-1] > 1
