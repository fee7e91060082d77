"""What is different for models that train on several devices at once.

On TensorFlow these are models that were created in the scope of a
`tf.distribute.Strategy`. On JAX `keras.distribution` decides.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_flowers.errors import InputError


def has_strategy(model: keras.Model) -> bool:
    """Returns whether a `tf.distribute.Strategy` distributes the model."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    if tf.distribute.has_strategy():
        return True
    strategy = getattr(model, "distribute_strategy", None)
    return strategy is not None and strategy is not tf.distribute.get_strategy()


@contextlib.contextmanager
def strategy_scope(model: keras.Model) -> Iterator[None]:
    """Lets another model share the variables of a model, on the same devices."""
    if has_strategy(model):
        with model.distribute_strategy.scope():
            yield
    else:
        yield


def build_optimizer(model: keras.Model) -> None:
    """Creates the variables of the optimizer of a compiled model, if it has none."""
    if not model.optimizer.built:
        with strategy_scope(model):
            model.optimizer.build(model.trainable_variables)


def predict_batch(model: keras.Model, images: Any) -> Any:
    """Returns what `predict_on_batch` returns, for any number of devices.

    Under a strategy Keras computes the whole batch on each device, and returns the
    results of all devices one after the other.
    """
    outputs = model.predict_on_batch(images)
    if not has_strategy(model):
        return outputs
    return keras.tree.map_structure(lambda rows: rows[: len(images)], outputs)


def read_variable(variable: keras.Variable) -> np.ndarray:
    """Returns the value of a variable, if possible in the memory of the backend."""
    value = variable.value
    if keras.backend.backend() == "torch" or hasattr(value, "distribute_strategy"):
        return np.asarray(keras.ops.convert_to_numpy(variable))
    return np.asarray(value)


def predict_batches(model: keras.Model, batches: Any) -> Any:
    """Returns what `predict` returns for a pipeline of images and labels.

    JAX shares only batches that its devices can divide equally. Under
    `keras.distribution` each device computes whole batches instead.
    """
    if count_devices() == 1:
        return model.predict(batches, verbose=0)
    outputs = [
        model.predict_on_batch(images) for images, _ in batches.as_numpy_iterator()
    ]
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *outputs)


def check_batches(
    counts: Mapping[str, int], batch_size: int, model: keras.Model
) -> None:
    """Makes sure that the devices can share the batches.

    Args:
        counts: The number of images of each split.
        batch_size: Images in a batch; the last batch of a split may be smaller.
        model: The model to train.

    Raises:
        InputError: If the size of a batch is not a multiple of the number of devices of
            `keras.distribution`, or the replicas of a strategy cannot share the first
            batch: the training images equally, and others at all.
    """
    devices, replicas = count_devices(), 1
    if has_strategy(model):
        replicas = model.distribute_strategy.num_replicas_in_sync
    for split, count in counts.items():
        first = min(batch_size, count)
        for size in {first, count % batch_size} - {0}:
            if size % devices:
                raise InputError(
                    f"The size of every batch must be a multiple of {devices}, the "
                    "number of devices, also that of the last. Received: "
                    f"batch_size={batch_size!r}, with a batch of {size} in {split}"
                )
        if first % replicas and (split == "train" or first < replicas):
            raise InputError(
                f"The size of the first batch must be a multiple of {replicas}, the "
                f"number of replicas. Received: batch_size={batch_size!r}, with a "
                f"batch of {first} in {split}"
            )


def balance_first_batch(pipeline: Any, model: keras.Model) -> Any:
    """Returns a pipeline whose first batch the replicas of a strategy share equally.

    Keras builds the model with the mean of their parts of it. Any later batch may be
    smaller than the number of replicas.

    Args:
        pipeline: Batches of images and labels that are not shuffled, or `None`.
        model: The model that is evaluated on it.
    """
    if pipeline is None or not has_strategy(model):
        return pipeline
    replicas = model.distribute_strategy.num_replicas_in_sync
    count = len(next(iter(pipeline))[1])
    if count % replicas == 0 or count < replicas:
        return pipeline
    return pipeline.rebatch(count - count % replicas)


def count_devices() -> int:
    """Returns how many devices share each batch under `keras.distribution`."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return 1
    mesh = distribution.device_mesh
    axis = mesh.axis_names.index(distribution.batch_dim_name)
    return int(mesh.shape[axis])


@contextlib.contextmanager
def explaining_indivisible_batches(
    model: keras.Model, arguments: Mapping[str, Any]
) -> Iterator[None]:
    """Refuses batches that JAX cannot share among its devices.

    Args:
        model: The model.
        arguments: Those of `fit`, `evaluate` or `predict`. Arrays are checked before
            the first step, after which Keras could not continue with the model.

    Raises:
        InputError: If a batch cannot be divided into equal parts.
    """
    if count_devices() > 1:
        for name, data in arguments.items():
            if hasattr(data, "shape") and len(data.shape) == 4:
                check_batches(
                    {f"`{name}`": len(data)}, arguments.get("batch_size") or 32, model
                )
    try:
        yield
    except ValueError as error:
        # JAX does not publish the class.
        if type(error).__name__ != "IndivisibleError":
            raise
        raise InputError(
            f"The size of every batch must be a multiple of {count_devices()}, the "
            "number of devices, also that of the last: see `drop_remainder` of "
            "`tf.data.Dataset.batch`"
        ) from error
