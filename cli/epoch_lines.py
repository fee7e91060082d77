"""Shows a training: a progress bar on a terminal, and one line per epoch."""

import math
import time
from collections.abc import Mapping
from typing import Any

import keras
from keras_flowers_cli.devices import gpus
from keras_flowers_cli.output import Output, progress_bars
from rich.progress import TaskID

from keras_flowers.history import SCORES, History, find_score

# From which length of an epoch it helps to know how to shorten it.
SLOW_EPOCH = 10.0

_METRICS = ("loss", *SCORES, "val_loss", *(f"val_{name}" for name in SCORES))
_SECONDS_BETWEEN_LOSSES = 0.25
# Above this a number is shown with an exponent, to keep its column.
_LONG = 10_000


class EpochLines(keras.callbacks.Callback):
    """A callback that shows each epoch once.

    Use it in a `with` block, at the end of which the bar disappears.

    Args:
        output: Where the lines are printed.
        earlier: History of the run that is resumed. Its complete epochs are shown
            before those that follow.
    """

    def __init__(self, output: Output, earlier: History | None = None) -> None:
        super().__init__()
        self._output = output
        self._earlier = earlier or {}
        self._columns: list[str] = []
        self._shown: set[int] = set()
        self._best = -math.inf
        self._has_advised = False
        self._started = 0.0
        self._first_step_done = 0.0
        self._loss_text = ""
        self._loss_shown = 0.0
        self._bars = progress_bars(output)
        self._task: TaskID | None = None

    def __enter__(self) -> "EpochLines":
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Removes the bar."""
        self._bars.stop()

    def on_train_begin(self, logs: Any = None) -> None:
        """Notes that the first step of a stage compiles again."""
        del logs
        self._first_step_done = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the bar of the epoch."""
        del logs
        self.show(self._earlier, up_to=epoch)
        self._started = time.monotonic()
        text = f"epoch {epoch + 1} of {self.params['epochs']}"
        self._start_bar(text, self.params["steps"])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the bar."""
        now = time.monotonic()
        self._first_step_done = self._first_step_done or now
        if self._bars.disable or self._task is None:
            return
        # Reading the loss waits for the device.
        if logs and now - self._loss_shown > _SECONDS_BETWEEN_LOSSES:
            self._loss_shown = now
            self._loss_text = f"loss {_number_text(float(logs['loss']))}"
        detail = f"{batch + 1}/{self.params['steps']} {self._loss_text}"
        self._bars.update(self._task, completed=batch + 1, detail=detail)

    def on_test_begin(self, logs: Any = None) -> None:
        """Says that the validation images are classified."""
        del logs
        if self._task is not None:
            self._bars.update(self._task, detail="validation")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Prints the line of the epoch."""
        now = time.monotonic()
        self._print_line(epoch + 1, logs or {}, now - self._started)
        # The first step of a stage also compiles, which no setting shortens.
        took = now - max(self._started, self._first_step_done)
        if not self._has_advised and took > SLOW_EPOCH and not gpus():
            self._has_advised = True
            self._output.say(
                "No GPU is in use. Fewer --epochs or a smaller --image-size shorten "
                "the run; keras-flowers doctor says what a GPU needs."
            )

    def on_train_end(self, logs: Any = None) -> None:
        """Says what follows the last epoch."""
        del logs
        self._start_bar("writing the results", total=None)

    def show(self, history: History, up_to: float = math.inf) -> None:
        """Prints the epochs of a history that are not shown yet.

        Args:
            history: The history of the run.
            up_to: Number of the last epoch to show.
        """
        for index, number in enumerate(history.get("epoch", ())):
            if number <= up_to and int(number) not in self._shown:
                values = {name: column[index] for name, column in history.items()}
                self._print_line(int(number), values, values["seconds"])

    def _print_line(
        self, number: int, values: Mapping[str, float], seconds: float
    ) -> None:
        if not self._columns:
            self._columns = [name for name in _METRICS if name in values]
            self._print_cells("epoch", *self._columns, "seconds", "best")
        score = float(values.get(find_score(values) or "", math.nan))
        mark = "*" if score > self._best else ""
        self._best = max(self._best, score) if mark else self._best
        self._shown.add(number)
        metrics = (_number_text(float(values[name])) for name in self._columns)
        self._print_cells(str(number), *metrics, f"{seconds:.1f}", mark)

    def _print_cells(self, *cells: str) -> None:
        if not self._output.is_terminal:
            self._output.say_cells(*cells)
            return
        names = ["epoch", *self._columns, "seconds", "best"]
        widths = [max(len(name), 7) for name in names]
        padded = (c.rjust(w) for c, w in zip(cells, widths, strict=True))
        self._output.say(" ".join(padded).replace("_", " ").rstrip())

    def _start_bar(self, text: str, total: int | None) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(text, total=total, detail="")
        self._bars.start()


def best_epoch(history: History) -> int | None:
    """Returns the number of the first epoch with the highest accuracy, or other score.

    Of the validation images, if there are any. `None` if no epoch has a score.
    """
    scores = history.get(find_score(history) or "") or []
    known = [score for score in scores if not math.isnan(score)]
    return int(history["epoch"][scores.index(max(known))]) if known else None


def _number_text(value: float) -> str:
    return f"{value:.1e}" if abs(value) >= _LONG else f"{value:.4f}"
