"""Hyperparameters with their results, for the HParams tab."""

from collections.abc import Iterable, Mapping
from typing import Any

from keras_flowers.callbacks.event_files import TRAIN, VALIDATION, WHOLE, EventFiles

from keras_flowers.errors import InputError

Hyperparameter = bool | int | float | str


class HyperparameterLog:
    """What the HParams tab shows of one training.

    Args:
        files: Where it is written.
        values: What distinguishes this run from others, by name.
        name: Of the row in the table.
    """

    def __init__(
        self, files: EventFiles, values: Mapping[str, Hyperparameter], name: str
    ) -> None:
        from tensorboard.plugins.hparams import api

        self._files = files
        self._values = values
        self._session = api.KerasCallback(files.writer(WHOLE), dict(values), name)
        self._has_metrics = False

    def start(self) -> None:
        """Writes the values."""
        self._session.on_train_begin()

    def name_metrics(self, names: Iterable[str]) -> None:
        """Names the columns, once: the values, and the metrics in Keras's logs."""
        if self._has_metrics:
            return
        from tensorboard.plugins.hparams import api

        metrics = [
            api.Metric(f"epoch_{name.removeprefix('val_')}", VALIDATION, name)
            if name.startswith("val_")
            else api.Metric(f"epoch_{name}", TRAIN, name)
            for name in names
        ]
        with self._files.writer(WHOLE).as_default():
            api.hparams_config([api.HParam(name) for name in self._values], metrics)
        self._has_metrics = True

    def finish(self) -> None:
        """Writes that the training came to its end."""
        self._session.on_train_end()


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
