"""What a call of `train` does, in the process that writes the run and in the others."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.progress import Progress
from keras_flowers.training.config import TrainingConfig
from keras_flowers.training.cross_validation import check_folds
from keras_flowers.training.devices import Devices
from keras_flowers.training.preparation import PreparedRun, prepare_run
from keras_flowers.training.processes import Team
from keras_flowers.training.recording import RunRecorder, require_disk_space
from keras_flowers.training.run_directory import RunDirectory
from keras_flowers.training.run_sharing import identify, pack, unpack

if TYPE_CHECKING:
    from keras_flowers.training.train import TrainingRun


@dataclasses.dataclass(frozen=True)
class TrainingCommand:
    """A call of `train`.

    Attributes:
        config: The configuration of the run.
        devices: What it is trained on.
        team: The processes that train it, `None` for one.
        progress: As for `train`, like the following ones.
        on_loaded: See `progress`.
        on_transferred: See `progress`.
        checkpoint_every: See `progress`.
        tensorboard: See `progress`.
        save_optimizer: See `progress`.
        keep_checkpoint: Whether the last checkpoint of a finished run is kept.
        started: When the call started, by `time.perf_counter`.
        train_run: Trains a prepared run, recorded or not.
        load_run: Loads the results of a run that is complete.
        folds: Number of folds of the cross-validation; `None` without one.
    """

    config: TrainingConfig
    devices: Devices
    team: Team | None
    progress: Progress | None
    on_loaded: Callable[[ImageDatasets], None] | None
    on_transferred: Callable[[str], None] | None
    checkpoint_every: int | None
    tensorboard: bool
    save_optimizer: bool
    keep_checkpoint: bool
    started: float
    train_run: "Callable[[PreparedRun, RunRecorder | None], TrainingRun]"
    load_run: "Callable[[PreparedRun, RunDirectory], TrainingRun]"
    folds: int | None = None

    def train_in_memory(self) -> "TrainingRun":
        """Trains without a run directory."""
        prepared = self._prepare(self.config)
        if self.team is not None:
            configuration = self.config.to_json(prepared.model)
            self.team.require_same(*identify(configuration, prepared))
        return self.train_run(prepared, None)

    def train_in_directory(self, directory: RunDirectory) -> "TrainingRun":
        """Trains in a run directory, in the process that writes it."""
        config = self.config
        is_started = directory.is_started
        with contextlib.ExitStack() as stack:
            if is_started:
                stack.enter_context(directory.lock())
                config = directory.complete_configuration(config)
            if self.team is not None:
                self.team.share(pack(directory, "split.json", "config.json"))
            prepared = self._prepare(config)
            configuration = config.to_json(prepared.model)
            if self.team is not None:
                self.team.require_same(*identify(configuration, prepared))
            if is_started and not directory.reopen(configuration):
                directory.require_same_run(configuration)
                if directory.is_complete:
                    if self.team is not None:
                        self.team.share(pack(directory, "model.keras", "history.json"))
                    return self.load_run(prepared, directory)
            with_checkpoints = self.checkpoint_every is not None
            require_disk_space(
                directory,
                prepared.model,
                with_checkpoints=with_checkpoints,
                keeps_best=config.keep == "best",
                save_optimizer=self.save_optimizer,
            )
            if not is_started:
                # Only now: what cannot be trained leaves no folder.
                stack.enter_context(directory.lock())
                directory.claim(configuration, prepared.datasets)
            if self.team is not None:
                self.team.share(pack(directory, "checkpoint"))
            recorder = RunRecorder(
                directory,
                prepared,
                configuration,
                checkpoint_every=self.checkpoint_every,
                tensorboard=self.tensorboard,
                save_optimizer=self.save_optimizer,
                keep_checkpoint=self.keep_checkpoint,
                started=self.started,
                is_alone=self.team is None,
            )
            run = self.train_run(prepared, recorder)
            if self.team is not None:
                self.team.share(b"")
            return run

    def train_for_first_process(
        self, team: Team, *, writes_directory: bool
    ) -> "TrainingRun":
        """Trains in a process that writes nothing.

        Process 0 sends what it has read from the run directory.
        """
        if not writes_directory:
            return self.train_in_memory()
        temporary = tempfile.TemporaryDirectory()
        with temporary as folder:
            team.clean_up = temporary.cleanup
            directory = RunDirectory(Path(folder) / "run")
            unpack(team.share(), directory)
            config = directory.complete_configuration(self.config)
            prepared = self._prepare(config)
            configuration = config.to_json(prepared.model)
            team.require_same(*identify(configuration, prepared))
            unpack(team.share(), directory)
            if directory.is_complete:
                run = self.load_run(prepared, directory)
            else:
                recorder = RunRecorder(
                    directory,
                    prepared,
                    configuration,
                    checkpoint_every=None,
                    tensorboard=False,
                    save_optimizer=False,
                    keep_checkpoint=False,
                    started=self.started,
                    is_alone=False,
                )
                run = self.train_run(prepared, recorder)
                team.share()  # until process 0 has written everything
        return dataclasses.replace(run, directory=None)

    def _prepare(self, config: TrainingConfig) -> PreparedRun:
        with self.devices.scope():
            prepared = prepare_run(
                config, self.progress, self.on_loaded, self.on_transferred
            )
        if self.folds is not None:
            check_folds(prepared, self.folds)
        return prepared
