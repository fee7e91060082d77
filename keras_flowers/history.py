"""The history of a run: one list of values for each metric, on disk and in memory."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path

from keras_flowers.errors import InputError
from keras_flowers.files import json_text, write_text_atomically

History = dict[str, list[float]]


def write_history(history: History, directory: Path) -> None:
    """Writes `history.json` and `history.csv` into a folder, each atomically."""
    columns = {name: _to_integers(name, values) for name, values in history.items()}
    write_text_atomically(directory / "history.json", json_text(columns))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(columns)
    rows.writerows(zip(*columns.values(), strict=True))
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


def _to_integers(name: str, values: Sequence[float]) -> Sequence[float]:
    return [int(value) for value in values] if name == "epoch" else values
