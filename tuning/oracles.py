"""The strategies: KerasTuner's oracles over a space that is known from the start."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import keras_tuner
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel

from keras_flowers.errors import InputError

STRATEGIES = ("random", "bayesian", "hyperband", "grid")
HYPERBAND_FACTOR = 3
_STOPPED = {"status": "STOPPED", "values": None}


class GridOracle(keras_tuner.Oracle):
    """Tries every combination in order.

    Unlike KerasTuner's own grid it needs no state beside the trials, so a search
    that was interrupted goes on; KerasTuner's ends there.
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
    return _extended(space, 0, {})


def _extended(
    space: keras_tuner.HyperParameters, position: int, values: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    if position == len(space.space):
        yield values
        return
    hyperparameter = space.space[position]
    space.values = values
    # A second one of the same name is the same value under another condition.
    if not space.is_active(hyperparameter) or hyperparameter.name in values:
        yield from _extended(space, position + 1, values)
        return
    for value in hyperparameter.values:
        yield from _extended(
            space, position + 1, {**values, hyperparameter.name: value}
        )


def make_oracle(
    strategy: str,
    hypermodel: ImageClassifierHyperModel,
    objective: keras_tuner.Objective,
    *,
    trials: int,
    seed: int,
) -> keras_tuner.Oracle:
    """Returns the oracle of a strategy, with the space of the hypermodel declared.

    Raises:
        InputError: If there is no such strategy.
    """
    makers = {
        "random": keras_tuner.oracles.RandomSearchOracle,
        "bayesian": keras_tuner.oracles.BayesianOptimizationOracle,
        "grid": GridOracle,
    }
    options: dict[str, Any] = {
        "objective": objective,
        # KerasTuner takes 0 for no seed at all.
        "seed": seed + 1,
        # A worker that died in a trial leaves it to another one.
        "max_retries_per_trial": 1,
        # One failed trial after the other is no reason to stop, and KerasTuner
        # would stop in a way that blocks all of its workers.
        "max_consecutive_failed_trials": 10**9,
    }
    space = keras_tuner.HyperParameters()
    if strategy == "hyperband":
        # Its own number of epochs takes the place of the hyperparameter.
        space.Fixed("epochs", hypermodel.epochs.high)
        hypermodel.declare_hyperparameters(space)
        oracle = keras_tuner.oracles.HyperbandOracle(
            max_epochs=hypermodel.epochs.high,
            factor=HYPERBAND_FACTOR,
            hyperparameters=space,
            **options,
        )
        oracle.max_trials = trials
    elif strategy in makers:
        hypermodel.declare_hyperparameters(space)
        if strategy == "bayesian":
            options["num_initial_points"] = _initial_points(space, trials)
        oracle = makers[strategy](max_trials=trials, hyperparameters=space, **options)
    else:
        raise InputError(
            f"`strategy` must be one of {STRATEGIES}. Received: strategy={strategy!r}"
        )
    oracle.verbose = 0
    return oracle


def _initial_points(space: keras_tuner.HyperParameters, trials: int) -> int:
    """Returns how many random trials come before those that are thought out.

    KerasTuner takes three for each hyperparameter, also for those with one value:
    more than many a search has trials.
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
    """Returns how many trials a search will have at most."""
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
