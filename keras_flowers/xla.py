"""Compiles a part of a model with XLA where the whole model is not compiled."""

from collections.abc import Callable
from typing import Any

import keras


def call_with_xla(function: Callable[..., Any], *tensors: Any) -> Any:
    """Calls a function, compiled with XLA if a graph of TensorFlow is being built.

    Args:
        function: Takes tensors and returns tensors.
        tensors: Its arguments.

    Returns:
        What the function returns.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if not tf.executing_eagerly():
            compiled = tf.function(function, jit_compile=True)
            return compiled(*map(tf.convert_to_tensor, tensors))
    return function(*tensors)
