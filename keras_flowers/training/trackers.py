"""Sends a run to an experiment tracker: MLflow, or Weights & Biases.

Parameters, the metrics of each epoch, and at the end the report, the history and the
model. The run directory remembers the run of the tracker, so a resumed run continues
there.
"""

import abc
import importlib.util
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import keras
import keras_flowers_settings as settings

from keras_flowers.errors import InputError
from keras_flowers.files import json_text, write_text_atomically

_RESULTS = ("report.html", "history.csv", "history.png", "model.keras")
_DEFAULT_NAME = "keras-flowers"


class Tracker(keras.callbacks.Callback, abc.ABC):
    """A callback that sends a run to a tracker; see `MlflowTracker`.

    Args:
        run_directory: The directory of the run.
    """

    _package: str

    def __init__(self, run_directory: str | os.PathLike[str]) -> None:
        super().__init__()
        require_package(self._package)
        self._directory = Path(run_directory)
        self._is_started = False

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Sends the results, and says how the run ended."""
        if not self._is_started:
            return
        if kind is None:
            self._send_results(
                [path for name in _RESULTS if (path := self._directory / name).exists()]
            )
        self._end(failed=kind is not None)

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Starts the run of the tracker, or continues it."""
        del logs
        if self._is_started:  # the second stage
            return
        config = json.loads((self._directory / "config.json").read_text("utf-8"))
        memory = self._directory / f"{self._package}.json"
        earlier = _read_run_id(memory)
        identity = self._start(
            self._directory.absolute().name,
            {
                **settings.hyperparameters(config),
                "data": str(config["loader"]["config"]["data"]),
            },
            earlier,
        )
        write_text_atomically(memory, json_text({"run_id": identity}) + "\n")
        self._is_started = True

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Sends the metrics of the epoch."""
        rate = self.model.optimizer.learning_rate
        metrics = {
            "learning_rate": float(keras.ops.convert_to_numpy(rate)),
            **{
                name: float(value)
                for name, value in (logs or {}).items()
                if getattr(value, "shape", ()) == ()
            },
        }
        self._send_metrics(epoch + 1, metrics)

    @abc.abstractmethod
    def _start(
        self, name: str, parameters: Mapping[str, Any], earlier: str | None
    ) -> str:
        """Starts a run, or continues the one with the identity `earlier`.

        Returns:
            The identity of the run.
        """

    @abc.abstractmethod
    def _send_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Sends the metrics of an epoch, counted from 1."""

    @abc.abstractmethod
    def _send_results(self, paths: list[Path]) -> None:
        """Sends files."""

    @abc.abstractmethod
    def _end(self, failed: bool) -> None:
        """Ends the run."""


class MlflowTracker(Tracker):
    """Sends a run to MLflow.

    Args:
        run_directory: The directory of the run.
        uri: The address of an MLflow server, or of a store such as
            `"sqlite:///mlflow.db"`; `None` for what MLflow uses by default, which
            `MLFLOW_TRACKING_URI` changes.
        experiment: Name of the experiment, created if there is none.

    Raises:
        InputError: If MLflow is not installed, or the address cannot be used.

    Example:
    ```python
    with MlflowTracker("runs/first", "sqlite:///mlflow.db") as tracker:
        train("photos", run_directory="runs/first", callbacks=[tracker])
    ```
    """

    _package = "mlflow"

    def __init__(
        self,
        run_directory: str | os.PathLike[str],
        uri: str | None = None,
        experiment: str = _DEFAULT_NAME,
    ) -> None:
        super().__init__(run_directory)
        # A training must not depend on a service that counts users.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow

        try:
            self._client = mlflow.MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = (
                self._client.create_experiment(experiment)
                if found is None
                else found.experiment_id
            )
        except Exception as error:  # every kind of store raises its own
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"MLflow cannot use {uri or 'its store'}: {reason}"
            ) from error
        self._run_id = ""

    def _start(
        self, name: str, parameters: Mapping[str, Any], earlier: str | None
    ) -> str:
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        if earlier is not None:
            try:
                self._client.update_run(earlier, status="RUNNING")
            except MlflowException:
                pass  # of another store
            else:
                self._run_id = earlier
                return earlier
        run = self._client.create_run(self._experiment, run_name=name)
        self._run_id = run.info.run_id
        params = [Param(key, str(value)) for key, value in parameters.items()]
        self._client.log_batch(self._run_id, params=params)
        return self._run_id

    def _send_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(
            self._run_id,
            metrics=[
                Metric(name, value, now, epoch) for name, value in metrics.items()
            ],
        )

    def _send_results(self, paths: list[Path]) -> None:
        for path in paths:
            self._client.log_artifact(self._run_id, os.fspath(path))

    def _end(self, failed: bool) -> None:
        self._client.set_terminated(self._run_id, "FAILED" if failed else "FINISHED")


class WandbTracker(Tracker):
    """Sends a run to Weights & Biases.

    With `WANDB_MODE=offline` in the environment nothing leaves the machine, and
    `wandb sync` sends the run later.

    Args:
        run_directory: The directory of the run.
        project: Name of the project.

    Raises:
        InputError: If the package `wandb` is not installed.

    Example:
    ```python
    with WandbTracker("runs/first", "flowers") as tracker:
        train("photos", run_directory="runs/first", callbacks=[tracker])
    ```
    """

    _package = "wandb"

    def __init__(
        self, run_directory: str | os.PathLike[str], project: str = _DEFAULT_NAME
    ) -> None:
        super().__init__(run_directory)
        self._project = project
        self._run: Any = None

    def _start(
        self, name: str, parameters: Mapping[str, Any], earlier: str | None
    ) -> str:
        import wandb

        self._run = wandb.init(
            project=self._project,
            name=name,
            config=dict(parameters),
            id=earlier,
            resume=None if earlier is None else "allow",
            settings=wandb.Settings(silent=True),
        )
        return str(self._run.id)

    def _send_metrics(self, epoch: int, metrics: Mapping[str, float]) -> None:
        finite = {n: value for n, value in metrics.items() if math.isfinite(value)}
        self._run.log({"epoch": epoch, **finite}, step=epoch)

    def _send_results(self, paths: list[Path]) -> None:
        import wandb

        artifact = wandb.Artifact(f"run-{self._run.id}", type="model")
        for path in paths:
            artifact.add_file(os.fspath(path))
        self._run.log_artifact(artifact)

    def _end(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


def require_package(name: str) -> None:
    """Makes sure that the package of a tracker is installed, without importing it.

    Args:
        name: `"mlflow"` or `"wandb"`.

    Raises:
        InputError: If it is not, with what to install.
    """
    if importlib.util.find_spec(name) is None:
        raise InputError(
            f"This tracker needs the package {name}, which is not installed: "
            f'pip install "keras-flowers[{name}]"'
        )


def _read_run_id(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text("utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
