"""The parts of a training step that cannot be saved, each a compiled kernel."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from common import seconds


def bare_parts(
    batch: int, side: int, units: int, repeats: int = 15
) -> dict[str, float]:
    """Returns the seconds of each part, on the backend of Keras.

    Args:
        batch: Images in a batch.
        side: Pixels, the height and the width of an image.
        units: Width of the first layer.
        repeats: How often each part is timed.
    """
    inputs = side * side * 3
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return generator.random(shape, dtype=np.float32)

    kernels = (
        _tensorflow_kernels if keras.backend.backend() == "tensorflow" else _jax_kernels
    )
    x, dy = draw(batch, inputs), draw(batch, units)
    w, gradient = draw(inputs, units) * 0.01, draw(inputs, units)
    return {
        name: seconds(kernel, repeats)
        for name, kernel in kernels(x, w, dy, gradient).items()
    }


def _tensorflow_kernels(
    x: Any, w: Any, dy: Any, gradient: Any
) -> dict[str, Callable[[], object]]:
    import tensorflow as tf

    x, dy, gradient = tf.constant(x), tf.constant(dy), tf.constant(gradient)
    w = tf.Variable(w)
    first, second = tf.Variable(tf.zeros_like(w)), tf.Variable(tf.zeros_like(w))

    @tf.function(jit_compile=True)
    def forward() -> tf.Tensor:
        return x @ w

    @tf.function(jit_compile=True)
    def weight_gradient() -> tf.Tensor:
        return tf.matmul(x, dy, transpose_a=True)

    @tf.function(jit_compile=True)
    def adam() -> None:
        first.assign_add((gradient - first) * 0.1)
        second.assign_add((tf.square(gradient) - second) * 0.001)
        w.assign_sub(0.001 * first / (tf.sqrt(second) + 1e-7))

    def wait(kernel: Callable[[], Any]) -> Callable[[], object]:
        # Only what is read is known to be done.
        def run() -> object:
            result = kernel()
            return w[0, 0].numpy() if result is None else result[0, 0].numpy()

        return run

    return {
        "forward product": wait(forward),
        "weight gradient": wait(weight_gradient),
        "Adam update": wait(adam),
    }


def _jax_kernels(
    x: Any, w: Any, dy: Any, gradient: Any
) -> dict[str, Callable[[], object]]:
    import jax
    import jax.numpy as jnp

    x, w, dy, gradient = map(jnp.asarray, (x, w, dy, gradient))
    state = [w, jnp.zeros_like(w), jnp.zeros_like(w)]
    forward = jax.jit(lambda x, w: x @ w)
    weight_gradient = jax.jit(lambda x, dy: x.T @ dy)

    def update(w: Any, first: Any, second: Any, gradient: Any) -> list[Any]:
        first += (gradient - first) * 0.1
        second += (gradient**2 - second) * 0.001
        return [w - 0.001 * first / (jnp.sqrt(second) + 1e-7), first, second]

    adam = jax.jit(update, donate_argnums=(0, 1, 2))

    def run_adam() -> object:
        state[:] = adam(*state, gradient)
        return state[0].block_until_ready()

    kept = jnp.copy(w)
    return {
        "forward product": lambda: forward(x, kept).block_until_ready(),
        "weight gradient": lambda: weight_gradient(x, dy).block_until_ready(),
        "Adam update": run_adam,
    }
