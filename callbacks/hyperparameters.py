"""Hyperparameters of a training, for the HParams tab."""

from collections.abc import Mapping
from typing import Any

from keras_flowers.callbacks.event_files import WHOLE, EventFiles

from keras_flowers.errors import InputError

Hyperparameter = bool | int | float | str


class HyperparameterLog:
    """The row of one training in the HParams tab.

    The columns are left to TensorBoard. It then shows the hyperparameters of all
    runs, first those that differ, and beside them every scalar of the training.

    Args:
        files: Where it is written.
        values: What distinguishes this training from others, by name.
        name: Of the row.
    """

    def __init__(
        self, files: EventFiles, values: Mapping[str, Hyperparameter], name: str
    ) -> None:
        from tensorboard.plugins.hparams import api

        self._row = api.KerasCallback(files.writer(WHOLE), dict(values), name)

    def start(self) -> None:
        """Writes the values."""
        self._row.on_train_begin()

    def finish(self) -> None:
        """Writes that the training came to its end."""
        self._row.on_train_end()


def checked_hyperparameters(values: Any) -> dict[str, Hyperparameter]:
    """Returns the hyperparameters as a dictionary.

    Raises:
        InputError: If they are none that TensorBoard can show.
    """
    is_mapping = isinstance(values, Mapping)
    pairs = dict(values) if is_mapping else {}
    # `item` is that of the numbers of NumPy.
    plain = {k: v.item() if hasattr(v, "item") else v for k, v in pairs.items()}
    are_shown = all(
        isinstance(name, str) and isinstance(value, bool | int | float | str)
        for name, value in plain.items()
    )
    if not is_mapping or not are_shown:
        raise InputError(
            "`hparams` must be a dictionary from name to boolean, number or string. "
            f"Received: hparams={values!r}"
        )
    return plain
