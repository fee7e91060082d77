"""The description of a search that all of its processes share."""

import dataclasses
import zlib
from pathlib import Path
from typing import Any

import keras
import keras_tuner
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel
from keras_flowers.tuning.oracles import STRATEGIES, make_oracle, planned_trials
from keras_flowers.tuning.pruning import PRUNINGS
from keras_flowers.tuning.records import TrialRecord, read_records
from keras_flowers.tuning.search_directory import SearchDirectory

from keras_flowers.argument_checks import check_integer
from keras_flowers.data.dataset_loader import STORAGE_ARGUMENTS
from keras_flowers.errors import InputError
from keras_flowers.history import SCORES
from keras_flowers.layers.augmentation import AUGMENTATION_STRENGTHS
from keras_flowers.training.config import versions

_MAX_SEED = 2**31 - 2


@dataclasses.dataclass(frozen=True)
class SearchPlan:
    """A search that is checked and ready to run.

    Attributes:
        hypermodel: The space, and how a model is trained.
        directory: Where everything is written.
        strategy: One of `STRATEGIES`.
        trials: How many trials at most.
        objective: The metric that is the score.
        direction: `"min"` or `"max"`.
        executions_per_trial: Trainings per trial.
        seed: Seed of all random choices.
        pruning: One of `PRUNINGS`.
        calibrate: Whether to calibrate the best model.
    """

    hypermodel: ImageClassifierHyperModel
    directory: SearchDirectory
    strategy: str
    trials: int
    objective: str
    direction: str
    executions_per_trial: int
    seed: int
    pruning: str = "none"
    calibrate: bool = True

    @property
    def planned(self) -> int:
        """How many trials there will be at most."""
        return planned_trials(self.strategy, self.hypermodel, self.trials)

    def records(self) -> tuple[TrialRecord, ...]:
        """Returns the records of the trials so far."""
        return read_records(self.directory.trials)

    def oracle(self) -> keras_tuner.Oracle:
        """Returns a new oracle."""
        return make_oracle(
            self.strategy,
            self.hypermodel,
            keras_tuner.Objective(self.objective, self.direction),
            trials=self.trials,
            seed=self.seed,
            state_file=self.directory.oracle_state,
        )

    def tuner(self) -> keras_tuner.engine.base_tuner.BaseTuner:
        """Returns a tuner with the oracle of the search.

        The oracle is a new one in this process, or where KerasTuner's variables name a
        chief, a connection to that of the chief.
        """
        return keras_tuner.engine.base_tuner.BaseTuner(
            self.oracle(),
            directory=str(self.directory.path),
            project_name=self.directory.trials.name,
        )

    def with_split(self, manifest: Path) -> "SearchPlan":
        """Returns the same search with the data split by a manifest."""
        hypermodel = self.hypermodel.with_split(manifest)
        return dataclasses.replace(self, hypermodel=hypermodel)

    def execution_seed(self, trial_id: str, execution: int) -> int:
        """Returns the seed of one training, a function of all three numbers."""
        text = f"{self.seed} trial {int(trial_id)} execution {execution}"
        return zlib.crc32(text.encode())

    def description(self) -> dict[str, Any]:
        """Returns what a process that joins or resumes the search must agree with."""
        loader = self.hypermodel.loader.with_listed_exclusions().get_config()
        data = Path(loader["data"])
        if data.exists():
            loader["data"] = str(data.absolute())
        kind = type(self.hypermodel)
        return {
            "strategy": self.strategy,
            "trials": self.trials,
            "objective": self.objective,
            "direction": self.direction,
            "executions": self.executions_per_trial,
            "seed": self.seed,
            "pruning": self.pruning,
            "score": self.hypermodel.score,
            "space": _space(self.oracle().get_space()),
            "hypermodel": kind.__qualname__,
            "augmentation": _augmentation(self.hypermodel),
            "backbone": self.hypermodel.backbones.description(),
            "data": {k: v for k, v in loader.items() if k not in STORAGE_ARGUMENTS},
            "versions": versions(),
        }


def make_plan(
    hypermodel: ImageClassifierHyperModel,
    directory: SearchDirectory,
    *,
    strategy: str,
    trials: int,
    objective: str | keras_tuner.Objective | None,
    executions_per_trial: int,
    seed: int,
    pruning: str = "none",
    calibrate: bool = True,
) -> SearchPlan:
    """Returns the plan after checking every part of it.

    Raises:
        InputError: If an argument is outside the range that `search` describes.
    """
    if strategy not in STRATEGIES:
        raise InputError(
            f"`strategy` must be one of {STRATEGIES}. Received: strategy={strategy!r}"
        )
    name, direction = _check_objective(objective or hypermodel.default_objective)
    if pruning not in PRUNINGS:
        raise InputError(
            f"`pruning` must be one of {PRUNINGS}. Received: pruning={pruning!r}"
        )
    if pruning != "none" and strategy == "hyperband":
        raise InputError(
            "`pruning` does not go with the strategy 'hyperband', which ends trials "
            f"early by its own rule. Received: pruning={pruning!r}"
        )
    return SearchPlan(
        hypermodel=hypermodel,
        directory=directory,
        strategy=strategy,
        trials=check_integer("trials", trials, lowest=1),
        objective=name,
        direction=direction,
        executions_per_trial=check_integer(
            "executions_per_trial", executions_per_trial, lowest=1
        ),
        seed=check_integer("seed", seed, lowest=0, highest=_MAX_SEED),
        pruning=pruning,
        calibrate=calibrate,
    )


def _check_objective(objective: str | keras_tuner.Objective) -> tuple[str, str]:
    """Returns name and direction of a metric of the validation images.

    A metric of the training images is measured while the weights change and under
    augmentation: no saved model has it.
    """
    name: Any
    direction: Any
    if isinstance(objective, str):
        infer = keras_tuner.engine.metrics_tracking.infer_metric_direction
        is_score = objective.removeprefix("val_") in SCORES
        name, direction = objective, "max" if is_score else infer(objective)
    else:
        name = getattr(objective, "name", None)
        direction = getattr(objective, "direction", None)
    if not isinstance(name, str) or not name.startswith("val_"):
        raise InputError(
            "`objective` must be a metric of the validation images, such as "
            f"'val_accuracy' or 'val_loss'. Received: objective={objective!r}"
        )
    if direction not in ("min", "max"):
        raise InputError(
            f"`objective` {name!r} is not known: keras_tuner.Objective({name!r}, "
            "'max' or 'min') says whether more of it is better."
        )
    return name, direction


def _augmentation(hypermodel: ImageClassifierHyperModel) -> Any:
    layer: Any = hypermodel.augmentation
    if isinstance(layer, keras.layers.Layer):
        return keras.saving.serialize_keras_object(layer)
    return layer if layer in AUGMENTATION_STRENGTHS else hypermodel.augments


def _space(space: keras_tuner.HyperParameters) -> dict[str, Any]:
    """Returns the space by name, in plain JSON types."""
    entries: dict[str, Any] = {}
    for item in space.get_config()["space"]:
        config = {k: v for k, v in item["config"].items() if k != "name"}
        config["conditions"] = [
            condition["config"] for condition in config.get("conditions", ())
        ]
        entries[item["config"]["name"]] = {"kind": item["class_name"], **config}
    return entries
