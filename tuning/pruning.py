"""Pruning: ends trials that promise less than those before them."""

import statistics
from collections.abc import Sequence

from keras_flowers.callbacks import read_history
from keras_flowers.tuning.records import COMPLETED, TrialRecord, read_records
from keras_flowers.tuning.search_directory import SearchDirectory

PRUNINGS = ("none", "median")
# A trial is compared from this epoch on, with at least so many others. High learning
# rates, which may win in the end, start worse than low ones.
_MIN_EPOCHS = 4
_MIN_TRIALS = 3


class MedianPruner:
    """The median rule: a trial below the median of the others is hopeless.

    After each epoch, the best value of the objective that a trial has reached so far is
    compared with the median of what the completed trials had after the same epoch. This
    is the rule of Optuna's `MedianPruner`, a simpler form of the median stopping rule
    (Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017),
    which compares with the mean up to that epoch and so ends fewer trials.

    The rule depends on nothing but the records of completed trials, which all workers
    and machines of a search share. So a search that is resumed prunes as one that was
    not interrupted.

    Args:
        directory: The directory of the search.
        objective: The metric to compare.
        direction: `"min"` or `"max"`.
    """

    def __init__(
        self, directory: SearchDirectory, objective: str, direction: str
    ) -> None:
        self._directory = directory
        self._objective = objective
        self._sign = 1 if direction == "max" else -1
        self._records: tuple[TrialRecord, ...] = ()
        # The objective after each epoch of a completed trial.
        self._curves: dict[str, list[float]] = {}

    def is_hopeless(self, values: Sequence[float]) -> bool:
        """Tells whether a trial should end.

        Args:
            values: Its objective after each of its epochs so far.
        """
        epochs = len(values)
        if epochs < _MIN_EPOCHS:
            return False
        self._read_curves()
        others = [
            self._sign * curve[epochs - 1]
            for curve in self._curves.values()
            if len(curve) >= epochs
        ]
        if len(others) < _MIN_TRIALS:
            return False
        best = max(self._sign * value for value in values)
        return best < statistics.median(others)

    def _read_curves(self) -> None:
        """Reads the histories of the trials that have been completed since."""
        self._records = read_records(self._directory.trials, self._records)
        for record in self._records:
            is_new = record.id not in self._curves
            if is_new and record.status == COMPLETED and record.executions:
                history = read_history(self._directory.execution(record.id, 0))
                self._curves[record.id] = history[self._objective]
