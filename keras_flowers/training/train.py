"""Loader, model and callbacks become a run: trained, recorded and repeatable."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_flowers.argument_checks import check_integer
from keras_flowers.callbacks import HistoryLogger, TrainingCheckpoint, read_history
from keras_flowers.data.dataset_loader import ImageDatasetLoader, ImageDatasets
from keras_flowers.errors import InputError
from keras_flowers.evaluation.evaluate import Evaluation, evaluate
from keras_flowers.files import printable_path
from keras_flowers.history import History
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress
from keras_flowers.training.config import ModelBuilder, TrainingConfig
from keras_flowers.training.run_directory import RunDirectory
from keras_flowers.training.stages import (
    Stage,
    check_fine_tuning,
    fine_tuning_stage,
    training_stage,
)
from keras_flowers.training.tensorboard_setup import tensorboard_of_run


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """What `train` returns.

    Attributes:
        model: The trained model.
        history: The list of values, one per epoch, of each metric.
        datasets: The data it was trained on.
        directory: The run directory, or `None` where nothing was to be written.
        interrupted: Whether Ctrl-C ended it.
    """

    model: keras.Model
    history: History
    datasets: ImageDatasets
    directory: Path | None
    interrupted: bool


def train(
    data: str | os.PathLike[str] | ImageDatasetLoader | TrainingConfig,
    build_model: ModelBuilder | None = None,
    *,
    run_directory: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int | None = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    progress: Progress | None = None,
    on_loaded: Callable[[ImageDatasets], None] | None = None,
    tensorboard: bool = True,
    **options: Any,
) -> TrainingRun:
    """Trains an image classifier on a folder of images.

    The run directory, where one is asked for, gets `model.keras`, `history.json`,
    `history.csv`, `history.png`, `split.json` (who trained and who validated),
    `audit.json` (what was found in the data), `config.json` (what repeats the
    run: `train(TrainingConfig.read("config.json"))`) and `report.html` (all of it on
    one page, with an evaluation on the validation images). Ctrl-C ends the training;
    what there is then is saved and returned.

    Where the model has a pretrained backbone and no augmentation, the features of the
    images are computed once and its head is trained on them; `callbacks` then see the
    head as their model. With `fine_tuning` a second stage trains the backbone too; its
    epochs go on in the same history.

    Until the run is complete the directory also holds a checkpoint. After a crash, a
    power cut or Ctrl-C, the same call with `resume=True` goes on after the last
    complete epoch, and ends with the weights and the history of a run that was never
    interrupted, to the bit on the same machine.

    Args:
        data: What `ImageDatasetLoader` takes as `data`, a loader, or a whole
            `TrainingConfig`.
        build_model: Called with the `ImageDatasets`; returns the model to train.
            By default an `ImageClassifier` with the loader's image size and seed.
        run_directory: Folder for the results, new or empty; `None` writes nothing.
        resume: Goes on with the run in `run_directory`, which must have been started
            with the same arguments. Where it is complete its results are returned;
            where none was started yet, it is started.
        checkpoint_every: Epochs between two checkpoints, which take the space of all
            variables of model and optimizer; `None` writes none.
        callbacks: Further Keras callbacks. The state of Keras's own, and of those with
            the methods that `TrainingCheckpoint` describes, survives an interruption.
        verbose: As for `keras.Model.fit`.
        progress: As for `ImageDatasetLoader.load`.
        on_loaded: Called once with the `ImageDatasets` before training.
        tensorboard: Whether the run directory gets `tensorboard/`, which
            `keras-flowers tensorboard` shows.
        **options: `epochs`, `early_stopping`, `class_weights` and `fine_tuning`, as
            in `TrainingConfig`.

    Returns:
        `TrainingRun`.

    Raises:
        InputError: If the data, an argument or the run directory cannot be used, the
            directory holds another run, or its disk is full.
    """
    config = _as_config(data, build_model, options)
    if not isinstance(resume, bool):
        raise InputError(f"`resume` must be True or False. Received: resume={resume!r}")
    if checkpoint_every is not None:
        checkpoint_every = check_integer("checkpoint_every", checkpoint_every, lowest=1)
    watching = _Watching(tuple(callbacks), verbose, progress, on_loaded, tensorboard)
    if run_directory is None:
        if resume:
            raise InputError("`resume` needs the `run_directory` of the run.")
        task = _prepared(config, watching)
        return _trained(task, watching, _logger(task, None))[0]
    directory = RunDirectory(run_directory, resume=resume)
    if directory.is_started:
        with directory.held():
            return _resumed(config, directory, checkpoint_every, watching)
    task = _prepared(config, watching)
    directory.require_space(task.model, with_checkpoints=checkpoint_every is not None)
    with directory.held():
        content = config.to_json(task.model)
        directory.claim(content, task.datasets)
        return _recorded(task, content, directory, checkpoint_every, watching)


@dataclasses.dataclass(frozen=True)
class _Watching:
    """Who looks on: what changes nothing in the outcome."""

    callbacks: tuple[keras.callbacks.Callback, ...]
    verbose: int | str
    progress: Progress | None
    on_loaded: Callable[[ImageDatasets], None] | None
    tensorboard: bool


@dataclasses.dataclass(frozen=True)
class _Task:
    """All that a training needs, checked and ready."""

    config: TrainingConfig
    datasets: ImageDatasets
    model: keras.Model
    class_weights: dict[int, float] | None


def _prepared(config: TrainingConfig, watching: _Watching) -> _Task:
    datasets = config.loader.load(watching.progress)
    if watching.on_loaded is not None:
        watching.on_loaded(datasets)
    if config.early_stopping is not None and datasets.validation is None:
        raise InputError("`early_stopping` needs a validation split above 0.")
    model = _built(config.build_model, datasets)
    check_fine_tuning(config.fine_tuning, model)
    weights = _class_weights(config.class_weights, datasets)
    return _Task(config, datasets, model, weights)


def _resumed(
    config: TrainingConfig,
    directory: RunDirectory,
    checkpoint_every: int | None,
    watching: _Watching,
) -> TrainingRun:
    task = _prepared(config.with_manifest(directory.manifest), watching)
    content = task.config.to_json(task.model)
    directory.require_same_run(content)
    if not directory.is_complete:
        directory.require_space(
            task.model, with_checkpoints=checkpoint_every is not None
        )
        return _recorded(task, content, directory, checkpoint_every, watching)
    for _ in _stages(task, watching, begins_with_fine_tuning=True):
        pass  # the model is then compiled as it was when it was saved
    directory.read_model_into(task.model)
    history = read_history(directory.path)
    return TrainingRun(task.model, history, task.datasets, directory.path, False)


def _recorded(
    task: _Task,
    content: dict[str, Any],
    directory: RunDirectory,
    checkpoint_every: int | None,
    watching: _Watching,
) -> TrainingRun:
    """Trains in a directory that this process holds, and writes the results."""
    logger = _logger(task, directory.path)
    recording = _Recording(task, content, directory, checkpoint_every, watching)
    if not recording.has_checkpoint:
        directory.remove_progress()
    try:
        run, last = _trained(task, watching, logger, recording)
    except BaseException as error:
        with contextlib.suppress(InputError):
            recording.wait()
        if not logger.history:
            directory.give_back()
        elif isinstance(error, InputError) and recording.has_checkpoint:
            raise InputError(
                f"{error}\nWhat was trained is kept: mend that, then resume the run in "
                f"{printable_path(directory.path)}."
            ) from error
        raise
    recording.wait()
    directory.write_results(run.model, run.history)
    evaluation = _evaluated(last.model, last.datasets)
    directory.write_report(run.datasets, run.history, evaluation)
    if not run.interrupted:
        directory.complete()
    return run


class _Recording:
    """What is kept of a training in its directory, stage by stage."""

    def __init__(
        self,
        task: _Task,
        content: dict[str, Any],
        directory: RunDirectory,
        checkpoint_every: int | None,
        watching: _Watching,
    ) -> None:
        self._task = task
        self._directory = directory
        self._every = checkpoint_every
        self._watching = watching
        # Of the model as it is built: fine-tuning changes what it says.
        self._content = content
        self._checkpoint: TrainingCheckpoint | None = None

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return any(self._directory.checkpoint.rglob("*.safetensors"))

    @property
    def begins_with_fine_tuning(self) -> bool:
        """Whether there is a checkpoint of the second stage."""
        return any(self._directory.fine_tuning_checkpoint.glob("*.safetensors"))

    def begin(
        self, stage: Stage, others: Sequence[keras.callbacks.Callback]
    ) -> tuple[int, list[keras.callbacks.Callback]]:
        """Goes on from the checkpoint of a stage, if there is one.

        Args:
            stage: The stage.
            others: Callbacks whose state is part of the checkpoint.

        Returns:
            The first epoch to train, and what records the stage.
        """
        is_first = stage.begin == 0
        directory = self._directory
        checkpoint = TrainingCheckpoint(
            directory.checkpoint if is_first else directory.fine_tuning_checkpoint,
            others,
            self._every or stage.end + 1,
        )
        self._checkpoint = checkpoint
        begin = max(stage.begin, checkpoint.restore(stage.model, stage.end))
        # The checkpoint last: it keeps what the others have changed.
        return begin, [*self._tensorboard(stage), checkpoint]

    def wait(self) -> None:
        """Waits until the last checkpoint is on the disk."""
        if self._checkpoint is not None:
            self._checkpoint.wait()

    def _tensorboard(self, stage: Stage) -> list[keras.callbacks.Callback]:
        if not self._watching.tensorboard:
            return []
        return [
            tensorboard_of_run(
                self._directory.tensorboard,
                self._content,
                self._task.model,
                self._task.datasets,
                stage.datasets if stage.is_on_features else None,
                epochs_before=stage.begin,
            )
        ]


def _logger(task: _Task, directory: Path | None) -> HistoryLogger:
    return HistoryLogger(directory, len(task.datasets.split.train))


def _trained(
    task: _Task,
    watching: _Watching,
    logger: HistoryLogger,
    recording: _Recording | None = None,
) -> tuple[TrainingRun, Stage]:
    """Trains all stages; returns the run, and what was trained last on what."""
    interrupted = False
    last: Stage | None = None
    begins_later = recording is not None and recording.begins_with_fine_tuning
    try:
        with task.datasets.naming_unreadable_images():
            for stage in _stages(task, watching, begins_with_fine_tuning=begins_later):
                last = stage
                _fit(task, stage, watching, logger, recording)
    except KeyboardInterrupt:
        if last is None:
            raise  # while features were computed: there is nothing to save
        interrupted = True
    assert last is not None
    run = TrainingRun(
        task.model, logger.history, task.datasets, logger.directory, interrupted
    )
    return run, last


def _stages(
    task: _Task, watching: _Watching, *, begins_with_fine_tuning: bool
) -> Iterator[Stage]:
    config, model, datasets = task.config, task.model, task.datasets
    if not begins_with_fine_tuning:
        yield training_stage(config, model, datasets, watching.progress)
    if config.fine_tuning is not None:
        yield fine_tuning_stage(config, config.fine_tuning, model, datasets)


def _fit(
    task: _Task,
    stage: Stage,
    watching: _Watching,
    logger: HistoryLogger,
    recording: _Recording | None,
) -> None:
    stateful = [*_early_stopping(task.config), logger, *watching.callbacks]
    begin, recorders = stage.begin, list[keras.callbacks.Callback]()
    if recording is not None:
        begin, recorders = recording.begin(stage, stateful)
    stage.model.fit(
        stage.datasets.train,
        validation_data=stage.datasets.validation,
        epochs=stage.end,
        initial_epoch=begin,
        class_weight=task.class_weights,
        shuffle=False,  # the pipeline shuffles
        callbacks=[FollowEpochs(stage.datasets), *stateful, *recorders],
        verbose=watching.verbose,
    )
    if recording is not None:
        recording.wait()


def _evaluated(model: keras.Model, datasets: ImageDatasets) -> Evaluation | str:
    """Returns what the model says of the validation images, or why that is unknown."""
    if datasets.validation is None:
        return "There is no validation split."
    try:
        return evaluate(model, datasets)
    except InputError as error:
        # Such as a model without a softmax: it is trained and saved all the same.
        return f"The model could not be evaluated. {error}"


class FollowEpochs(keras.callbacks.Callback):
    """Makes the order of the images that of Keras's epoch, whatever was read before."""

    def __init__(self, datasets: ImageDatasets) -> None:
        super().__init__()
        self._order = datasets.epoch_order

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Says to the pipeline which epoch its next pass is."""
        del logs
        self._order.epoch = epoch


def _as_config(
    data: Any, build_model: ModelBuilder | None, options: Mapping[str, Any]
) -> TrainingConfig:
    if isinstance(data, TrainingConfig):
        if build_model is not None or options:
            raise InputError(
                "A `TrainingConfig` says everything: `build_model` and options must "
                f"not be given beside it. Received: {sorted(options)}"
            )
        return data
    loader = data if isinstance(data, ImageDatasetLoader) else ImageDatasetLoader(data)
    return TrainingConfig(loader, build_model or _default_model(loader), **options)


def _default_model(loader: ImageDatasetLoader) -> ModelBuilder:
    def build(datasets: ImageDatasets) -> keras.Model:
        return ImageClassifier(
            datasets.class_names, image_size=datasets.image_size, seed=loader.seed
        )

    return build


def _built(build_model: ModelBuilder, datasets: ImageDatasets) -> keras.Model:
    model = build_model(datasets)
    if not model.compiled:
        if not isinstance(model, ImageClassifier):
            raise InputError("`build_model` must return a compiled model.")
        model.compile()
    if not (model.built and all(layer.built for layer in model.layers)):
        # Its size and its checkpoint can be known before the first step only so.
        # `build` of a subclassed model may build no layer; a symbolic call builds all.
        model(keras.KerasTensor((None, *datasets.image_size, 3), "uint8"))
    return model


def _early_stopping(config: TrainingConfig) -> list[keras.callbacks.Callback]:
    if config.early_stopping is None:
        return []
    return [
        keras.callbacks.EarlyStopping(
            monitor="val_loss",
            patience=config.early_stopping,
            restore_best_weights=True,
        )
    ]


def _class_weights(
    weights: str | Mapping[str, float] | None, datasets: ImageDatasets
) -> dict[int, float] | None:
    if weights is None:
        return None
    if isinstance(weights, Mapping):
        if set(weights) != set(datasets.class_names):
            raise InputError(
                f"`class_weights` must name the classes {list(datasets.class_names)}. "
                f"Received: {sorted(weights)}"
            )
        return {i: weights[name] for i, name in enumerate(datasets.class_names)}
    counts = datasets.counts("train")
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise InputError(f"`class_weights` cannot balance {empty}: no training photos.")
    total = sum(counts.values())
    return {i: total / (len(counts) * n) for i, n in enumerate(counts.values())}
