"""Checkpoints from which a training resumes, bit-identical, after any interruption."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras_flowers.callbacks.tensor_file import (
    STORABLE,
    read_tensors,
    remove_unfinished,
    write_tensors,
)

from keras_flowers.argument_checks import check_integer
from keras_flowers.distribution import build_optimizer, read_variable
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path

_FORMAT = "keras_flowers.checkpoint"
_VERSION = "1"

# What Keras's callbacks learn while training and forget when it starts again.
_KERAS_STATE: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: (
        "best",
        "best_epoch",
        "best_weights",
        "stopped_epoch",
        "wait",
    ),
    keras.callbacks.ReduceLROnPlateau: ("best", "cooldown_counter", "wait"),
    keras.callbacks.ModelCheckpoint: ("best",),
}


class TrainingCheckpoint(keras.callbacks.Callback):
    """Saves after each epoch what a training needs to resume, bit-identical.

    The checkpoint holds every variable of the model (weights, statistics, the seed
    states of its layers), every variable of the optimizer (including its learning rate
    and step), and the state of other callbacks. A training that resumes from it ends
    with the same weights as an uninterrupted one, on the same machine, if the order of
    its data depends on the epoch alone.

    The variables are copied at the end of an epoch, and the copy is written while the
    next epoch trains; that takes as much memory as the variables. An epoch is complete
    when its checkpoint is on the disk. The file is replaced atomically, so the last
    complete checkpoint is always there.

    It works with any Keras model:

    ```python
    early = keras.callbacks.EarlyStopping(patience=3)
    checkpoint = TrainingCheckpoint("checkpoint", callbacks=[early])
    model.fit(
        x,
        y,
        epochs=15,
        initial_epoch=checkpoint.restore(model, epochs=15),
        callbacks=[early, checkpoint],
    )
    ```

    Put it last among the callbacks of `fit`, after those that change the model or the
    optimizer at the end of an epoch.

    Args:
        directory: Folder for the checkpoint and nothing else; created if missing.
        callbacks: Callbacks of the same `fit` whose state is saved: `EarlyStopping`,
            `ReduceLROnPlateau`, `ModelCheckpoint` (its best value) and
            `SwapEMAWeights` of Keras, and any callback with the methods `get_state()`,
            which returns a dictionary of numbers, strings, arrays, lists and
            dictionaries with strings as keys, and `set_state(state)`, which is called
            after `on_train_begin` of all of them.
        every: Positive integer, epochs from one checkpoint to the next.

    Raises:
        InputError: If `every` is not a positive integer. While training: if the
            checkpoint cannot be written, as on a full disk; the previous one stays.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        callbacks: Sequence[keras.callbacks.Callback] = (),
        every: int = 1,
    ) -> None:
        super().__init__()
        self.directory = Path(directory)
        self.callbacks = tuple(callbacks)
        self.every = check_integer("every", every, lowest=1)
        self._restored: dict[str, Any] = {}
        self._writing: Future[None] | None = None
        self._copies: dict[str, np.ndarray] = {}

    @property
    def path(self) -> Path:
        """The file of the last complete checkpoint."""
        return self.directory / "last.safetensors"

    def restore(self, model: keras.Model, epochs: int) -> int:
        """Loads the last checkpoint into a model, before `fit`.

        The state of the callbacks is restored when `fit` starts.

        Args:
            model: A built and compiled model like the one that was trained.
            epochs: Epochs of the whole training.

        Returns:
            The `initial_epoch` for `fit`: the number of complete epochs, 0 without a
            checkpoint, and `epochs` if a callback had stopped the training.

        Raises:
            InputError: If the model is not built, or the checkpoint is damaged or of
                another model.
        """
        if not model.built:
            raise InputError(
                "`model` must be built before `restore`: give it an Input, or call it "
                "on a batch."
            )
        self._restored = {}
        if self.directory.is_dir():
            remove_unfinished(self.directory)
        try:
            tensors, metadata = read_tensors(self.path)
            state = _parse_state(metadata)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            raise InputError(
                f"The checkpoint {printable_path(self.path)} cannot be used: {error}. "
                "Remove it to train from the start."
            ) from error
        missing = state["callbacks"].keys() - _key_callbacks(self.callbacks).keys()
        if missing:
            raise InputError(
                f"The checkpoint {printable_path(self.path)} holds the state of "
                f"{sorted(missing)}: pass the same `callbacks` as before."
            )
        self._assign(model, tensors)
        self._restored = _insert_arrays(state["callbacks"], tensors)
        return epochs if state["stopped"] else int(state["epochs"])

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Restores the state of the callbacks."""
        del logs
        self.directory.mkdir(parents=True, exist_ok=True)
        restored, self._restored = self._restored, {}
        for key, callback in _key_callbacks(self.callbacks).items():
            if key in restored:
                _set_state(callback, restored[key])

    def on_train_batch_begin(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Stops the training at once if the checkpoint could not be written."""
        del batch, logs
        if self._writing is not None and self._writing.done():
            self.wait()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Copies everything and starts to write it."""
        del logs
        if (epoch + 1) % self.every:
            return
        self.wait()
        _copy_variables(self.model, self._copies)
        tensors = dict(self._copies)
        states = {
            key: state
            for key, callback in _key_callbacks(self.callbacks).items()
            if (state := _get_state(callback))
        }
        state = {
            "epochs": epoch + 1,
            "stopped": bool(self.model.stop_training),
            "callbacks": _extract_arrays(states, "callbacks", tensors),
        }
        metadata = {
            "format": _FORMAT,
            "version": _VERSION,
            "state": json.dumps(state),
        }
        writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing = writer.submit(write_tensors, self.path, tensors, metadata)
        writer.shutdown(wait=False)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Waits until the last checkpoint is on the disk."""
        del logs
        self.wait()

    def wait(self) -> None:
        """Waits until the checkpoint that is being written is on the disk.

        `fit` does so at its end, but not if an exception such as Ctrl-C ends it.

        Raises:
            InputError: If it cannot be written.
        """
        if self._writing is None:
            return
        error = self._writing.exception()  # after Ctrl-C it can be waited for again
        self._writing = None
        if error is not None:
            raise error

    def _assign(self, model: keras.Model, tensors: Mapping[str, np.ndarray]) -> None:
        variables = _name_variables(model)
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        stored = {
            name: array.shape
            for name, array in tensors.items()
            if not name.startswith("callbacks/")
        }
        if shapes != stored:
            raise InputError(
                f"The checkpoint {printable_path(self.path)} is of another model or "
                f"optimizer: {_describe_difference(stored, shapes)}"
            )
        for callback in self.callbacks:
            if isinstance(callback, keras.callbacks.SwapEMAWeights):
                _swap_once(callback, model)
        for name, variable in variables.items():
            variable.assign(tensors[name])


def _name_variables(model: keras.Model) -> dict[str, Any]:
    """Returns all variables of model and optimizer by names that do not change."""
    optimizer = model.optimizer
    build_optimizer(model)
    named = {f"model/{i}": v for i, v in enumerate(model.variables)}
    return named | {f"optimizer/{i}": v for i, v in enumerate(optimizer.variables)}


def _copy_variables(model: keras.Model, arrays: dict[str, np.ndarray]) -> None:
    """Copies the value of every variable into `arrays`, reusing their memory.

    Fresh memory costs more than the copy: the kernel clears every page of it.
    """
    for name, variable in _name_variables(model).items():
        value = read_variable(variable)
        kept = arrays.get(name)
        if kept is None or (kept.shape, kept.dtype) != (value.shape, value.dtype):
            kept = arrays[name] = np.empty(value.shape, value.dtype)
        np.copyto(kept, value)


def _describe_difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    if len(stored) != len(wanted):
        return f"it holds {len(stored)} variables, the model has {len(wanted)}"
    name = next(n for n in (*stored, *wanted) if stored.get(n) != wanted.get(n))
    return f"{name} has the shape {stored.get(name)} there, {wanted.get(name)} here"


def _parse_state(metadata: Mapping[str, str]) -> dict[str, Any]:
    if (metadata.get("format"), metadata.get("version")) != (_FORMAT, _VERSION):
        raise ValueError("it is not a checkpoint of this version")
    try:
        state: dict[str, Any] = json.loads(metadata["state"])
        epochs, callbacks = state["epochs"], state["callbacks"]
        is_sound = isinstance(state["stopped"], bool) and isinstance(callbacks, dict)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"its state is damaged ({error})") from error
    if not is_sound or not isinstance(epochs, int) or epochs < 0:
        raise ValueError("its state is damaged")
    return state


def _key_callbacks(
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict[str, keras.callbacks.Callback]:
    """Returns callbacks by the name of their class and a number."""
    counts: Counter[str] = Counter()
    keyed = {}
    for callback in callbacks:
        name = type(callback).__name__
        counts[name] += 1
        keyed[f"{name} {counts[name]}"] = callback
    return keyed


def _get_state(callback: keras.callbacks.Callback) -> Any:
    if hasattr(callback, "get_state"):
        return callback.get_state()
    return {name: getattr(callback, name) for name in _list_keras_state(callback)}


def _set_state(callback: keras.callbacks.Callback, state: Any) -> None:
    if hasattr(callback, "set_state"):
        callback.set_state(state)
        return
    for name in _list_keras_state(callback):
        setattr(callback, name, state[name])


def _list_keras_state(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    return next(
        (names for cls, names in _KERAS_STATE.items() if isinstance(callback, cls)), ()
    )


def _swap_once(callback: keras.callbacks.SwapEMAWeights, model: keras.Model) -> None:
    """Tells the callback that the weights in a checkpoint are the averages.

    Only a swap tells it, so this comes before their assignment.
    """
    if callback.swap_on_epoch:
        callback.set_model(model)
        callback.on_test_begin()


def _extract_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Returns what JSON can hold; moves arrays to `arrays`, under names below `name`.

    They are copied unless they are read-only: their owner may change them while they
    are being written.
    """
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {
            key: _extract_arrays(item, f"{name}/{key}", arrays)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            _extract_arrays(item, f"{name}/{i}", arrays) for i, item in enumerate(value)
        ]
    if isinstance(value, np.ndarray) and value.dtype in STORABLE:
        arrays[name] = value.copy() if value.flags.writeable else value
        return {"tensor": name}
    plain = value.item() if isinstance(value, np.generic) else value
    if plain is None or isinstance(plain, str | int | float):
        return plain
    raise InputError(
        "A callback's `get_state` must return numbers, strings, arrays, lists and "
        f"dictionaries with strings as keys. Received: {name}={value!r}"
    )


def _insert_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Reverses `_extract_arrays`."""
    if isinstance(value, Mapping):
        if value.keys() == {"tensor"} and value["tensor"] in arrays:
            return np.array(arrays[value["tensor"]])
        return {key: _insert_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list):
        return [_insert_arrays(item, arrays) for item in value]
    return value
