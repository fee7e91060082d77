"""`keras-flowers compare`: what several runs achieved, and in what they differ."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.options import UserPath, check_writable, setting_options
from keras_flowers_cli.output import Output, TextTable, write_figure
from keras_flowers_settings import describe_run

if TYPE_CHECKING:
    from keras_flowers.history import History


@click.command()
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    type=UserPath(exists=True, file_okay=False, path_type=Path),
)
@setting_options("compare")
def compare(runs: Sequence[Path], plot_file: Path | None, as_json: bool) -> None:
    """Compare RUNS, the run directories of train or tune.

    Shows the best epoch, the time and the size of the model of each run, and the
    settings that are not the same for all, and draws the curves into one plot.
    """
    plot_file = plot_file or runs[0].absolute().parent / "comparison.png"
    check_writable(plot_file.parent, "--plot")
    runtime.start_keras()
    from keras_flowers.plots.history import plot_history

    names = name_runs(runs)
    found = [_Run.read(path, name) for path, name in zip(runs, names, strict=True)]
    output = Output(as_json)
    output.show(_result_table(found))
    different = _find_differences(found)
    if different:
        table = TextTable("setting", *names, title="different settings")
        for setting, values in different.items():
            table.add_row(setting, *values)
        output.show(table)
    elif len(found) > 1:
        output.say("All settings are the same.")
    plot_file.parent.mkdir(parents=True, exist_ok=True)
    write_figure(plot_history({run.name: run.history for run in found}), plot_file)
    output.say(f"written to {plot_file}")
    output.result(
        {
            "runs": [run.to_json() for run in found],
            "different_settings": {
                setting: dict(zip(names, values, strict=True))
                for setting, values in different.items()
            },
            "plot": str(plot_file),
        }
    )


def name_runs(runs: Sequence[Path]) -> list[str]:
    """Returns a name for each run: of its folder, or the path where that is not unique.

    The same folder given twice gets a number.
    """
    folders = [path.absolute().name for path in runs]
    names: list[str] = []
    for path, folder in zip(runs, folders, strict=True):
        name = base = folder if folders.count(folder) == 1 else str(path)
        number = 2
        while name in names:
            name = f"{base} ({number})"
            number += 1
        names.append(name)
    return names


@dataclasses.dataclass(frozen=True)
class _Run:
    """What is known about a run."""

    name: str
    path: Path
    history: "History"
    settings: dict[str, str]

    @classmethod
    def read(cls, path: Path, name: str) -> "_Run":
        """Reads a run directory; raises `InputError` if it is none."""
        from keras_flowers.history import read_history

        return cls(name, path, read_history(path), _read_settings(path))

    @property
    def scores(self) -> list[float]:
        """The accuracy of each epoch, on the validation images if there are any.

        Of images with several labels, the mean average precision.
        """
        from keras_flowers.history import find_score

        return self.history.get(find_score(self.history) or "") or []

    @property
    def best_epoch(self) -> int | None:
        """The number of the first epoch with the highest accuracy."""
        from keras_flowers_cli.epoch_lines import best_epoch

        return best_epoch(self.history)

    @property
    def best_score(self) -> float | None:
        """The highest accuracy."""
        known = [score for score in self.scores if not math.isnan(score)]
        return max(known, default=None)

    @property
    def lowest_loss(self) -> float | None:
        """The lowest validation loss."""
        losses = self.history.get("val_loss", [])
        return min((loss for loss in losses if not math.isnan(loss)), default=None)

    @property
    def seconds(self) -> float:
        """How long all epochs took together."""
        return math.fsum(self.history.get("seconds", []))

    @property
    def model_size(self) -> int | None:
        """The size of the model file in bytes; `None` while there is none."""
        file = self.path / "model.keras"
        return file.stat().st_size if file.is_file() else None

    def to_json(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return {
            "run_directory": str(self.path),
            "name": self.name,
            "has_validation": bool(self.history.get("val_loss")),
            "best_accuracy": self.best_score,
            "best_epoch": self.best_epoch,
            "last_accuracy": self.scores[-1] if self.scores else None,
            "lowest_val_loss": self.lowest_loss,
            "epochs": len(self.history.get("epoch", [])),
            "seconds": self.seconds,
            "model_bytes": self.model_size,
            "settings": self.settings,
        }


def _read_settings(path: Path) -> dict[str, str]:
    """Returns the settings in the `config.json` of a run; a search has none."""
    from keras_flowers.errors import InputError

    file = path / "config.json"
    if not file.is_file():
        return {}
    try:
        groups = describe_run(json.loads(file.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not a run configuration: {error}") from error
    return {row.label: row.value for group in groups for row in group.rows}


def _name_score(runs: Sequence[_Run]) -> str:
    from keras_flowers.history import SCORES, find_score

    columns = {find_score(run.history) for run in runs} - {None}
    names = {SCORES[str(column).removeprefix("val_")] for column in columns}
    return names.pop() if len(names) == 1 else "score" if names else "accuracy"


def _result_table(runs: Sequence[_Run]) -> TextTable:
    table = TextTable(
        "run",
        f"best {_name_score(runs)}",
        "epoch",
        "lowest val_loss",
        "epochs",
        "seconds",
        "MB",
    )
    best = max((run.best_score or 0.0 for run in runs), default=0.0)
    for run in runs:
        size = run.model_size
        table.add_row(
            run.name,
            "" if run.best_score is None else f"{run.best_score:.4f}",
            "" if run.best_epoch is None else str(run.best_epoch),
            "" if run.lowest_loss is None else f"{run.lowest_loss:.4f}",
            str(len(run.history.get("epoch", []))),
            f"{run.seconds:.1f}",
            "" if size is None else f"{size / 1e6:.1f}",
            style="bold" if best and run.best_score == best else None,
        )
    return table


def _find_differences(runs: Sequence[_Run]) -> dict[str, list[str]]:
    """Returns the values of each setting that is not the same for all runs."""
    found = {}
    for setting in dict.fromkeys(name for run in runs for name in run.settings):
        values = [run.settings.get(setting, "") for run in runs]
        if len(set(values)) > 1:
            found[setting] = values
    return found
