"""What a run leaves on disk: checkpoints and TensorBoard meanwhile, results at the end.

Meanwhile, the directory holds `config.json`, `audit.json` and `split.json`, the history
so far, `tensorboard/`, and `checkpoint/` with the checkpoint of the first stage and, in
`fine-tuning/`, that of the second one.
"""

import json
import math
import shutil
import time
from collections.abc import Sequence
from typing import Any

import keras

from keras_flowers.callbacks import TrainingCheckpoint
from keras_flowers.distribution import build_optimizer
from keras_flowers.errors import InputError, first_line
from keras_flowers.evaluation.cross_validation import CrossValidation
from keras_flowers.evaluation.report import write_report
from keras_flowers.files import printable_path, temporary_sibling
from keras_flowers.history import History, write_history
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.models.saved_classifier import (
    has_optimizer_state,
    load_calibration,
)
from keras_flowers.plots.history import plot_history
from keras_flowers.training.judgement import Judgement
from keras_flowers.training.preparation import PreparedRun
from keras_flowers.training.run_directory import RunDirectory
from keras_flowers.training.stages import Stage
from keras_flowers.training.tensorboard_setup import tensorboard_of_run


class RunRecorder:
    """Records a run in its directory, stage by stage.

    Args:
        directory: The directory, which this process has locked.
        prepared: The run.
        configuration: What `TrainingConfig.to_json` returned for the model as it was
            built, before a stage has changed it.
        checkpoint_every: Epochs between two checkpoints; `None` writes none.
        tensorboard: Whether to write for TensorBoard.
        save_optimizer: Whether the model is saved with the state of its optimizer.
        keep_checkpoint: Whether the last checkpoint is kept when the run is complete.
        started: When the command started, by `time.perf_counter`.
        is_alone: Whether no other process trains the model too. Otherwise TensorBoard
            shows nothing that the model would have to compute.
    """

    def __init__(
        self,
        directory: RunDirectory,
        prepared: PreparedRun,
        configuration: dict[str, Any],
        *,
        checkpoint_every: int | None,
        tensorboard: bool,
        save_optimizer: bool,
        keep_checkpoint: bool,
        started: float,
        is_alone: bool = True,
    ) -> None:
        self.directory = directory
        self._is_alone = is_alone
        self._prepared = prepared
        self._configuration = configuration
        self._checkpoint_every = checkpoint_every
        self._writes_tensorboard = tensorboard
        self._save_optimizer = save_optimizer
        self._keep_checkpoint = keep_checkpoint
        self._checkpoint: TrainingCheckpoint | None = None
        self._started = started
        self._first_epoch: int | None = None

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return any(self.directory.checkpoint.rglob("*.safetensors"))

    @property
    def is_fine_tuning(self) -> bool:
        """Whether there is a checkpoint of the second stage: the first one is over."""
        return any(self.directory.fine_tuning_checkpoint.glob("*.safetensors"))

    def begin_stage(
        self, stage: Stage, stateful: Sequence[keras.callbacks.Callback]
    ) -> tuple[int, list[keras.callbacks.Callback]]:
        """Restores the checkpoint of a stage, if there is one.

        Args:
            stage: The stage.
            stateful: Callbacks whose state is part of the checkpoint.

        Returns:
            The first epoch to train, and the callbacks that record the stage. They
            must be the last ones: they record what the others have changed.
        """
        folder = (
            self.directory.checkpoint
            if stage.is_first
            else self.directory.fine_tuning_checkpoint
        )
        every = self._checkpoint_every or stage.end + 1
        self._checkpoint = TrainingCheckpoint(folder, stateful, every)
        restored = self._checkpoint.restore(stage.model, stage.end)
        callbacks: list[keras.callbacks.Callback] = [self._checkpoint]
        if self._writes_tensorboard:
            callbacks.insert(0, self._tensorboard(stage))
        begin = max(stage.begin, restored)
        if self._first_epoch is None:
            self._first_epoch = begin
        return begin, callbacks

    def wait(self) -> None:
        """Waits until the last checkpoint is on disk."""
        if self._checkpoint is not None:
            self._checkpoint.wait()

    def write_results(
        self,
        history: History,
        saved_epoch: int | None,
        judgement: Judgement,
        validated: CrossValidation | None = None,
    ) -> None:
        """Writes the model, the history and its plot, and the report.

        Args:
            history: The history of the run.
            saved_epoch: The epoch that the weights of the model are from, if known.
            judgement: How good the model is.
            validated: The cross-validation of its head, or `None`.
        """
        path = self.directory.path
        with temporary_sibling(path / "model.keras") as temporary:
            model = self._prepared.model
            if isinstance(model, ImageClassifier):
                model.save(temporary, include_optimizer=self._save_optimizer)
            else:
                model.save(temporary)
        write_history(history, path)
        if history:
            with temporary_sibling(path / "history.png") as temporary:
                plot_history(history, saved_epoch).savefig(temporary, dpi=120)
        if validated is not None:
            validated.write_predictions(self.directory.out_of_fold)
        write_report(
            path / "report.html",
            config=json.loads((path / "config.json").read_text()),
            datasets=self._prepared.datasets,
            history=history,
            saved_epoch=saved_epoch,
            evaluation=judgement.evaluation,
            uncalibrated=judgement.uncalibrated,
            cross_validation=validated,
            model=self._prepared.model,
            seconds=time.perf_counter() - self._started + self._earlier_time(history),
        )

    def complete(self) -> None:
        """Ends the run, whose results are written."""
        self.directory.complete(keep_checkpoint=self._keep_checkpoint)

    def _earlier_time(self, history: History) -> float:
        """Returns the seconds of the epochs that an interrupted command trained."""
        pairs = zip(history.get("epoch", []), history.get("seconds", []), strict=True)
        first = self._first_epoch or 0
        return sum(seconds for epoch, seconds in pairs if epoch <= first)

    def _tensorboard(self, stage: Stage) -> keras.callbacks.Callback:
        return tensorboard_of_run(
            self.directory.tensorboard,
            self._configuration,
            self._prepared.model,
            self._prepared.datasets,
            stage.datasets if stage.is_on_features else None,
            epochs_before=stage.begin,
            with_computed_images=self._is_alone,
        )


def require_disk_space(
    directory: RunDirectory,
    model: keras.Model,
    *,
    with_checkpoints: bool,
    keeps_best: bool,
    save_optimizer: bool,
) -> None:
    """Makes sure that the trained model and its checkpoints will fit on the disk.

    Better known before hours of training than after.

    Args:
        directory: The directory of the run.
        model: A compiled model.
        with_checkpoints: Whether checkpoints are written. There are two files then:
            a checkpoint and the next one, or a checkpoint and the model.
        keeps_best: Whether a checkpoint also holds the weights of the best epoch.
        save_optimizer: Whether the model is saved with the state of its optimizer.

    Raises:
        InputError: If the disk has less free space than that.
    """
    build_optimizer(model)
    weights, state = (
        sum(4 * math.prod(variable.shape) for variable in variables)
        for variables in (model.variables, model.optimizer.variables)
    )
    needed = weights + (state if save_optimizer else 0)
    if with_checkpoints:
        checkpoint = weights + state + (weights if keeps_best else 0)
        has_one = any(directory.checkpoint.glob("*"))
        needed = checkpoint if has_one else 2 * checkpoint
    free = shutil.disk_usage(directory.existing_folder).free
    if needed > free:
        what = "model and checkpoints take" if with_checkpoints else "model takes"
        raise InputError(
            f"The disk of the run directory {printable_path(directory.path)} is full: "
            f"the {what} {needed / 1e6:.0f} MB, {free / 1e6:.0f} MB are free."
        )


def load_trained_weights(model: keras.Model, directory: RunDirectory) -> None:
    """Loads the trained weights and the state of the optimizer of a complete run.

    Args:
        model: A built and compiled model like the one that was trained. Unlike a model
            that Keras loads from the file, it may have classes that Keras does not
            know.
        directory: The directory of the run.

    Raises:
        InputError: If the file is damaged or of another model.
    """
    path = directory.path / "model.keras"
    try:
        if has_optimizer_state(path):
            build_optimizer(model)
            model.load_weights(path)
        else:
            # An optimizer with variables would require its state in the file.
            optimizer, model.optimizer = model.optimizer, None
            try:
                model.load_weights(path)
            finally:
                model.optimizer = optimizer
        if isinstance(model, ImageClassifier):
            load_calibration(model, path)
    except Exception as error:
        # Keras raises nearly anything for a file that is not what it should be.
        raise InputError(
            f"{printable_path(path)} cannot be loaded: {first_line(error)}"
        ) from error
