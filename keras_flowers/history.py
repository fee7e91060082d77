"""The history of a run: one list of values for each metric, on disk and in memory."""

import csv
import io
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_flowers.errors import InputError
from keras_flowers.files import json_text, write_text_atomically

History = dict[str, list[float]]

# The column that `CollapseDetector` adds: 1 from the epoch on in which it noticed that
# the network has collapsed, and 0 from that on in which it has recovered.
COLLAPSED = "collapsed"
# The columns that say how good a model is, the higher the better: of images with one
# class, and of images with several labels.
SCORES = {
    "accuracy": "accuracy",
    "mean_average_precision": "mean average precision",
}


def write_history(history: History, directory: Path) -> None:
    """Writes `history.json` and `history.csv` into a folder, each atomically.

    Keras computes in float32. The CSV has the shortest text of such a number, 0.001
    rather than 0.0010000000474974513, which is the same number when it is read as
    float32. The JSON has the exact value.
    """
    columns = {name: _to_integers(name, values) for name, values in history.items()}
    write_text_atomically(directory / "history.json", json_text(columns))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    texts = ([_to_text(value) for value in values] for values in columns.values())
    rows.writerows(zip(*texts, strict=True))
    write_text_atomically(directory / "history.csv", text.getvalue())


def read_history(path: str | os.PathLike[str]) -> History:
    """Reads a `history.json`, or the one in a run directory.

    Returns:
        The list of values, one float per epoch, of each column.

    Raises:
        InputError: If there is no such file or it is not a history.
    """
    path = Path(path)
    file = path / "history.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text())
        return {name: [float(v) for v in values] for name, values in content.items()}
    except FileNotFoundError as error:
        raise InputError(f"There is no history at {file}.") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not the history of a run: {error}") from error


def find_score(columns: Collection[str]) -> str | None:
    """Returns the column that says how good a model is.

    Args:
        columns: The names of the columns of a history, or of the metrics of an epoch.

    Returns:
        Such as `"val_accuracy"`, or `"accuracy"` without validation images; `None` if
        there is no such column.
    """
    names = (f"{split}{name}" for split in ("val_", "") for name in SCORES)
    return next((name for name in names if name in columns), None)


def is_collapsed(history: Mapping[str, Sequence[float]]) -> bool:
    """Tells whether the network had collapsed at the end of a history."""
    return bool(history.get(COLLAPSED)) and history[COLLAPSED][-1] == 1


def collapse_epoch(history: Mapping[str, Sequence[float]]) -> int | None:
    """Returns the number of the epoch in which the collapse was noticed.

    `None` unless the network had collapsed at the end of the history.
    """
    if not is_collapsed(history):
        return None
    return int(history["epoch"][list(history[COLLAPSED]).index(1)])


def _to_integers(name: str, values: Sequence[float]) -> Sequence[float]:
    return [int(value) for value in values] if name == "epoch" else values


def _to_text(value: float) -> str:
    with np.errstate(over="ignore"):
        single = np.float32(value)
    is_single = isinstance(value, float) and float(single) == value
    return str(single) if is_single else str(value)
