"""A tuner of KerasTuner that runs the trials of a search."""

import time
from collections.abc import Callable
from typing import Any

import keras_tuner
from keras_flowers.tuning.plan import SearchPlan
from keras_flowers.tuning.records import FAILED
from keras_flowers.tuning.trial_runner import TrialRunner

_IDLE_SECONDS = 0.5


class SearchTuner(keras_tuner.engine.base_tuner.BaseTuner):
    """Asks an oracle for trials, runs and reports them until it has no more.

    The oracle is in this process. Where KerasTuner's variables name a chief it is in
    the chief, which serves its own oracle instead of running trials.

    Args:
        plan: The search.
        on_change: Called whenever the record of a trial has changed.
        after_trial: Called when a trial has been reported.
    """

    def __init__(
        self,
        plan: SearchPlan,
        on_change: Callable[[], None] = lambda: None,
        after_trial: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            plan.oracle(),
            directory=str(plan.directory.path),
            project_name=plan.directory.trials.name,
        )
        self._runner = TrialRunner(plan, self.tuner_id, on_change)
        self._after_trial = after_trial
        self._is_idle = False

    def pre_create_trial(self) -> None:
        """Waits a moment where the oracle had no trial to give.

        KerasTuner asks again without a pause.
        """
        if self._is_idle:
            time.sleep(_IDLE_SECONDS)
        self._is_idle = True

    def run_trial(
        self, trial: keras_tuner.engine.trial.Trial, *args: Any, **kwargs: Any
    ) -> dict[str, float | None]:
        """Runs a trial and returns its score."""
        del args, kwargs
        record = self._runner.run(trial.trial_id, trial.hyperparameters)
        if record.status == FAILED:
            raise keras_tuner.errors.FailedTrialError(record.error)
        return {self.oracle.objective.name: record.score}

    def on_trial_end(self, trial: keras_tuner.engine.trial.Trial) -> None:
        """Reports a trial. There is no state of the tuner to be saved."""
        self._is_idle = False
        self.oracle.end_trial(trial)
        self._after_trial()
