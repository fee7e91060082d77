"""The strategies: oracles of KerasTuner that save their state in one atomic file."""

import contextlib
import io
import itertools
import json
import math
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel
from keras_flowers.tuning.keras_tuner_internals import release_trials

from keras_flowers.errors import InputError
from keras_flowers.files import json_text, write_text_atomically

STRATEGIES = ("random", "bayesian", "hyperband", "grid")
HYPERBAND_FACTOR = 3
_UNLIMITED = 10**9
_STOPPED = {"status": "STOPPED", "values": None}


class _SavesState(keras_tuner.Oracle):
    """Saves the state of an oracle, its trials included, in one file.

    KerasTuner writes several files in place: a process that dies while it writes
    leaves a search that cannot be resumed.

    Args:
        state_file: Where the state is saved.
        **options: Arguments of the oracle.
    """

    def __init__(self, state_file: Path, **options: Any) -> None:
        super().__init__(**options)
        self._state_file = state_file

    def save(self) -> None:
        """Saves the state. KerasTuner does whenever a trial starts or ends."""
        trials = [trial.get_state() for trial in self.trials.values()]
        text = json_text({"oracle": self.get_state(), "trials": trials})
        write_text_atomically(self._state_file, text)

    def reload(self) -> None:
        """Loads the state, if there is one; hands unfinished trials out again."""
        try:
            state = json.loads(self._state_file.read_text())
        except (FileNotFoundError, ValueError):
            # Without it the trials on record still count where they come up again.
            return
        for item in state["trials"]:
            trial = keras_tuner.engine.trial.Trial.from_state(item)
            self.trials[trial.trial_id] = trial
        self.set_state(state["oracle"])
        with contextlib.redirect_stdout(io.StringIO()):  # KerasTuner prints of retries
            release_trials(self)


class RandomOracle(_SavesState, keras_tuner.oracles.RandomSearchOracle):
    """Tries random values."""


class HyperbandOracle(_SavesState, keras_tuner.oracles.HyperbandOracle):
    """Trains many models for a few epochs, and the best of them for more."""


class BayesianOracle(_SavesState, keras_tuner.oracles.BayesianOptimizationOracle):
    """Tries the values that promise most by a model of the scores so far.

    KerasTuner begins each search of the model at random points, and does not save the
    state of their generator. Here a new oracle with its own seed chooses each trial, so
    the values depend only on the seed, the number of the trial and the trials so far,
    and a search that is resumed equals one that was not interrupted.
    """

    gpr: Any  # the Gaussian process that models the scores

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the values of the next trial."""
        chooser = keras_tuner.oracles.BayesianOptimizationOracle(
            objective=self.objective,
            max_trials=self.max_trials,
            seed=zlib.crc32(f"{self.seed} {int(trial_id)}".encode()),
        )
        chooser.trials, model = self.trials, self.gpr
        chooser.set_state(self.get_state())
        chooser.gpr = model  # which guesses the scores of running trials
        with warnings.catch_warnings():
            # scikit-learn warns of fits to few scores.
            warnings.filterwarnings("ignore", category=UserWarning, module="sklearn")
            space: dict[str, Any] = chooser.populate_space(trial_id)
        self.set_state(chooser.get_state())
        self.gpr = model
        return space


class GridOracle(_SavesState):
    """Tries every combination in order.

    Unlike KerasTuner's own grid search, which ends when it is interrupted, it needs no
    state but the trials, so it can be resumed.
    """

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the combination whose number is that of the trial."""
        del trial_id
        number = len(self.trials)
        remaining = itertools.islice(combinations(self.get_space()), number, None)
        values = next(remaining, None)
        return _STOPPED if values is None else {"status": "RUNNING", "values": values}


def combinations(space: keras_tuner.HyperParameters) -> Iterator[dict[str, Any]]:
    """Yields the values of every combination of the active hyperparameters.

    A range of real numbers without a step counts as the ten values that KerasTuner
    gives for it.
    """
    return _extend(space, 0, {})


def _extend(
    space: keras_tuner.HyperParameters, position: int, values: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if position == len(space.space):
        yield values
        return
    hyperparameter = space.space[position]
    space.values = values
    # A second one with the same name has the same value under another condition.
    if not space.is_active(hyperparameter) or hyperparameter.name in values:
        yield from _extend(space, position + 1, values)
        return
    for value in hyperparameter.values:
        yield from _extend(space, position + 1, {**values, hyperparameter.name: value})


def make_oracle(
    strategy: str,
    hypermodel: ImageClassifierHyperModel,
    objective: keras_tuner.Objective,
    *,
    trials: int,
    seed: int,
    state_file: Path,
) -> keras_tuner.Oracle:
    """Returns the oracle of a strategy, with the space of the hypermodel declared.

    Args:
        strategy: One of `STRATEGIES`.
        hypermodel: Declares the space.
        objective: The score.
        trials: How many trials at most.
        seed: Seed of all random choices of values.
        state_file: Where the oracle saves its state.

    Raises:
        InputError: If there is no such strategy.
    """
    space = keras_tuner.HyperParameters()
    if strategy == "hyperband":
        # Hyperband sets the number of epochs itself.
        space.Fixed("epochs", hypermodel.epochs.high)
    hypermodel.declare_hyperparameters(space)
    options: dict[str, Any] = {
        "state_file": state_file,
        "objective": objective,
        "hyperparameters": space,
        # KerasTuner reads 0 as no seed.
        "seed": seed + 1,
        # A trial counts its attempts itself, over several processes.
        "max_retries_per_trial": _UNLIMITED,
        # Many failed trials are no reason to stop, and KerasTuner's stop would block
        # all workers.
        "max_consecutive_failed_trials": _UNLIMITED,
    }
    oracle: keras_tuner.Oracle
    match strategy:
        case "random":
            oracle = RandomOracle(max_trials=trials, **options)
        case "bayesian":
            points = _initial_points(space, trials)
            oracle = BayesianOracle(
                max_trials=trials, num_initial_points=points, **options
            )
        case "grid":
            oracle = GridOracle(max_trials=trials, **options)
        case "hyperband":
            oracle = HyperbandOracle(
                max_epochs=hypermodel.epochs.high, factor=HYPERBAND_FACTOR, **options
            )
            oracle.max_trials = trials
        case _:
            raise InputError(
                f"`strategy` must be one of {STRATEGIES}. "
                f"Received: strategy={strategy!r}"
            )
    oracle.verbose = 0
    return oracle


def _initial_points(space: keras_tuner.HyperParameters, trials: int) -> int:
    """Returns the number of random trials before Bayesian optimization starts.

    KerasTuner takes three per hyperparameter, even for those with one value. Many
    searches have fewer trials than that.
    """
    searched = {
        item.name
        for item in space.space
        if len(list(itertools.islice(item.values, 2))) > 1
    }
    return max(3, min(3 * len(searched), trials // 3))


def planned_trials(
    strategy: str, hypermodel: ImageClassifierHyperModel, trials: int
) -> int:
    """Returns how many trials a search has at most."""
    space = keras_tuner.HyperParameters()
    if strategy == "hyperband":
        return min(trials, hyperband_trials(hypermodel.epochs.high))
    if strategy != "grid":
        return trials
    hypermodel.declare_hyperparameters(space)
    return sum(1 for _ in itertools.islice(combinations(space), trials))


def hyperband_trials(max_epochs: int) -> int:
    """Returns how many trials one iteration of Hyperband has."""
    factor = HYPERBAND_FACTOR
    brackets = 0
    while max_epochs / factor**brackets >= 1:
        brackets += 1
    size = math.ceil(1 + math.log(max_epochs, factor))
    return sum(
        math.ceil(size / (bracket + 1) * factor ** (bracket - round_number))
        for bracket in range(brackets)
        for round_number in range(bracket + 1)
    )
