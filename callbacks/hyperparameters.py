"""Hyperparameters of a training, for the HParams tab."""

from collections.abc import Mapping
from typing import Any

from keras_flowers.callbacks.event_writer import WHOLE, EventWriter

from keras_flowers.errors import InputError

Hyperparameter = bool | int | float | str


class HyperparameterLog:
    """The row of one training in the HParams tab.

    TensorBoard chooses the columns: the hyperparameters of all runs, those that differ
    first, then every scalar of the training in the order of the tags. `select_results`
    makes those first that runs are compared by.

    Args:
        events: Where to write.
        values: Hyperparameters by name.
        name: Name of the row.
    """

    def __init__(
        self, events: EventWriter, values: Mapping[str, Hyperparameter], name: str
    ) -> None:
        from tensorboard.plugins.hparams import api

        self._row = api.KerasCallback(events.file_writer(WHOLE), dict(values), name)

    def start(self) -> None:
        """Writes the values."""
        self._row.on_train_begin()

    def finish(self) -> None:
        """Writes that the training ended successfully."""
        self._row.on_train_end()


def select_results(logs: Mapping[str, Any]) -> dict[str, float]:
    """Returns what runs are compared by: validation scores and loss, by tag.

    Capital letters sort before the tags of Keras, such as `epoch_accuracy`, of which
    the training one would come first.
    """
    names = {
        "val_accuracy": "Validation accuracy",
        "val_mean_average_precision": "Validation mean average precision",
        "val_loss": "Validation loss",
    }
    return {tag: float(logs[name]) for name, tag in names.items() if name in logs}


def check_hyperparameters(values: Any) -> dict[str, Hyperparameter]:
    """Returns the hyperparameters as a dictionary.

    Raises:
        InputError: If TensorBoard cannot show them.
    """
    is_mapping = isinstance(values, Mapping)
    pairs = dict(values) if is_mapping else {}
    # The numbers of NumPy have `item`.
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
