"""`train`: from data and a model to a run that is trained, recorded and reproducible.

The way of an image: the loader decodes and resizes it once, into the image cache. In
each epoch a `tf.data` pipeline reads the images in the order of that epoch, as uint8
batches. The model rescales and augments them and computes the probabilities. A frozen
backbone sees each image once instead: its features are cached, and a pipeline in the
same order feeds them to the head of the model.

The way of a run:

1. `prepare_run` loads the data and builds the model (preparation.py).
2. `RunDirectory` locks the folder and claims it for the run, or checks that it holds
   the run that is to be resumed (run_directory.py).
3. `_RunInProgress` carries the run through its stages, one call of `fit` each
   (stages.py). `RunRecorder` restores and writes the checkpoints meanwhile, and the
   results at the end (recording.py).
"""

import contextlib
import dataclasses
import inspect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_flowers.argument_checks import check_integer, suggest_name
from keras_flowers.callbacks import CollapseDetector, HistoryLogger, read_history
from keras_flowers.data.dataset_loader import (
    ImageDatasetLoader,
    ImageDatasets,
    as_loader,
)
from keras_flowers.distribution import balance_first_batch
from keras_flowers.errors import InputError
from keras_flowers.evaluation.cross_validation import CrossValidation
from keras_flowers.files import printable_path
from keras_flowers.history import History, find_score, is_collapsed
from keras_flowers.layers.views import check_views
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.models.saved_classifier import load_classifier
from keras_flowers.models.transfer import build_like
from keras_flowers.notebook import html_table
from keras_flowers.progress import Progress
from keras_flowers.training.best_epoch import BestEpoch, find_saved_epoch
from keras_flowers.training.command import TrainingCommand
from keras_flowers.training.config import FineTuning, ModelBuilder, TrainingConfig
from keras_flowers.training.cross_validation import cross_validate
from keras_flowers.training.devices import (
    Devices,
    choose_devices,
    equalize_variables,
)
from keras_flowers.training.feature_datasets import (
    PrecisionDifference,
    measure_precision,
)
from keras_flowers.training.judgement import judge
from keras_flowers.training.preparation import PreparedRun
from keras_flowers.training.processes import (
    DEFAULT_JOIN_TIMEOUT,
    Team,
    join_processes,
)
from keras_flowers.training.recording import (
    RunRecorder,
    load_trained_weights,
)
from keras_flowers.training.run_directory import RunDirectory
from keras_flowers.training.stages import (
    Stage,
    begin_fine_tuning_stage,
    begin_first_stage,
)

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(TrainingConfig)}


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """What `train` returns.

    Attributes:
        model: The trained model.
        history: The list of values, one per epoch, of each metric.
        datasets: The data it was trained on.
        directory: The run directory, or `None` if nothing was written.
        interrupted: Whether Ctrl-C ended it.
        precision_difference: What `inference_precision` changes for 128 of the
            validation images; `None` for float32.
        saved_epoch: The epoch that the weights of the model are from, counted from 1;
            `None` if Ctrl-C ended the run within an epoch whose weights these are.
        cross_validation: The cross-validation with `folds`; `None` without.
    """

    model: keras.Model
    history: History
    datasets: ImageDatasets
    directory: Path | None
    interrupted: bool
    saved_epoch: int | None = None
    precision_difference: PrecisionDifference | None = None
    cross_validation: CrossValidation | None = None

    @property
    def has_collapsed(self) -> bool:
        """Whether the model gives every image the same answer: it learned nothing."""
        return is_collapsed(self.history)

    def __repr__(self) -> str:
        """Returns a line: the model, how far it was trained, and where it is."""
        columns = list(self.history.values())
        last = [
            f"{name} {self.history[name][-1]:.3f}"
            for name in (find_score(self.history), "val_loss")
            if name is not None and self.history.get(name)
        ]
        parts = [
            f"{type(self.model).__name__}, {len(columns[0]) if columns else 0} epochs",
            *last,
            "not saved" if self.directory is None else printable_path(self.directory),
            *(["interrupted"] if self.interrupted else []),
            *(["collapsed"] if self.has_collapsed else []),
        ]
        return f"TrainingRun({', '.join(parts)})"

    def _repr_html_(self) -> str:
        # The latest epochs come first: a long table is cut at its end.
        names = list(self.history)
        rows = list(zip(*self.history.values(), strict=True))[::-1]
        return html_table(repr(self), names, rows)


def train(
    data: str | os.PathLike[str] | ImageDatasetLoader | ImageDatasets | TrainingConfig,
    build_model: ModelBuilder | keras.Model | None = None,
    *,
    epochs: int = TrainingConfig.epochs,
    early_stopping: int | None = None,
    class_weights: str | Mapping[str, float] | None = None,
    fine_tuning: FineTuning | None = None,
    feature_views: int = TrainingConfig.feature_views,
    inference_precision: str = TrainingConfig.inference_precision,
    keep: str = TrainingConfig.keep,
    init_from: str | os.PathLike[str] | None = None,
    calibrate: bool = TrainingConfig.calibrate,
    run_directory: str | os.PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: int | None = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    progress: Progress | None = None,
    on_loaded: Callable[[ImageDatasets], None] | None = None,
    on_transferred: Callable[[str], None] | None = None,
    tensorboard: bool = True,
    devices: int | str | None = None,
    join_timeout: int = DEFAULT_JOIN_TIMEOUT,
    tta: int = 1,
    folds: int | None = None,
    save_optimizer: bool = False,
    discard_checkpoint: bool = False,
    **loader_arguments: Any,
) -> TrainingRun:
    """Trains an image classifier on a folder of images.

    With a run directory the results are written there: `model.keras`, `history.json`,
    `history.csv`, `history.png`, `split.json` (which images train and which validate),
    `audit.json` (what was found in the data), `config.json` (which reproduces the run:
    `train(TrainingConfig.read("config.json"))`) and `report.html` (everything on one
    page, with an evaluation on the validation images). The model has the weights of the
    best epoch by validation loss unless `keep="last"`. Ctrl-C ends the training; the
    best epoch so far is then saved and returned.

    If the network collapses, which means that it gives every image the same answer, a
    `CollapseWarning` says so once, and the history gets the column `collapsed`.

    If the model has a pretrained backbone and no augmentation, the features of the
    images are computed once and its head is trained on them; `callbacks` then see the
    head as their model. With `fine_tuning` a second stage trains the backbone too; its
    epochs continue the same history.

    Until the run is complete the directory also holds a checkpoint. After a crash, a
    power cut or Ctrl-C, the same call with `resume=True` resumes the run after the last
    complete epoch. Weights and history are then bit-identical to those of a run that
    was never interrupted, on the same machine. The last checkpoint is kept: the same
    call with more `epochs`, more `fine_tuning` epochs, or a first `fine_tuning`, trains
    a finished run further. With a constant learning rate, the result is bit-identical
    to a run that had as many epochs from the start; a schedule continues where it would
    be in such a run.

    Args:
        data: What `ImageDatasetLoader` takes as `data`, a loader, what it loaded (which
            is loaded again, from the cache), or a whole `TrainingConfig`. With a
            configuration leave the arguments from `build_model` to `calibrate` at their
            defaults.
        build_model: The model to train, or what is called with the `ImageDatasets` and
            returns it. By default an `ImageClassifier` with the loader's image size and
            seed.
        epochs: As for `TrainingConfig`.
        early_stopping: As for `TrainingConfig`.
        class_weights: As for `TrainingConfig`.
        fine_tuning: As for `TrainingConfig`.
        feature_views: As for `TrainingConfig`.
        inference_precision: As for `TrainingConfig`.
        keep: As for `TrainingConfig`.
        init_from: As for `TrainingConfig`. Without `build_model`, the model has the
            architecture of the one in the file; `data` that is not a loader is then
            loaded in its image size.
        calibrate: As for `TrainingConfig`.
        run_directory: Folder for the results, new or empty; `None` writes nothing.
        resume: Resumes the run in `run_directory`, which must have been started with
            the same arguments. If it is complete its results are returned, or it is
            trained further if there are more epochs; if none was started yet, it is
            started.
        checkpoint_every: Epochs between two checkpoints, which take the space of all
            variables of model and optimizer; `None` writes none.
        callbacks: Further Keras callbacks. An interrupted run keeps the state of
            Keras's own callbacks, and of those with the methods that
            `TrainingCheckpoint` describes.
        verbose: As for `keras.Model.fit`.
        progress: As for `ImageDatasetLoader.load`.
        on_loaded: Called once with the `ImageDatasets` before training.
        on_transferred: Called with a line that says what was copied with `init_from`.
        tensorboard: Whether to write `tensorboard/` in the run directory, which
            `keras-flowers tensorboard` shows.
        devices: How many devices of each process to use, or `"all"`; each computes an
            equal share of each batch. `None` uses all accelerators if there are
            several, as far as they divide the batch equally, and else one device.
        join_timeout: Seconds to wait for the other processes, if Keras's environment
            variables `KERAS_DISTRIBUTION_JOB_ADDRESSES`, `_NUM_PROCESSES` and
            `_PROCESS_ID` name several. Process 0 writes the run directory.
        tta: Number of views, from 1 to 7, over which the evaluation in the report
            averages the probabilities: see `keras_flowers.layers.views`. The history
            is that of the images alone.
        folds: Number of folds, from 2, in which the training and validation images are
            cross-validated, with a linear head on fixed features: see `cross_validate`.
            The model that is saved is trained as usual. `out_of_fold.csv` has the
            predictions for each image. `None` for no cross-validation.
        save_optimizer: Whether `model.keras` has the state of the optimizer after the
            last epoch, which makes the file up to three times as large. Models of
            other classes than `ImageClassifier` are always saved with it.
        discard_checkpoint: Whether to remove the last checkpoint of a finished run,
            which can then not be trained further.
        **loader_arguments: Arguments of `ImageDatasetLoader`, such as
            `image_size=64`; they replace those of a loader.

    Returns:
        `TrainingRun`.

    Raises:
        InputError: If the data, an argument or the run directory cannot be used, the
            directory holds another run, its disk is full, or a process does not come.
        ProcessLostError: If another process fails or is gone.
    """
    started = time.perf_counter()
    options = {
        "epochs": epochs,
        "early_stopping": early_stopping,
        "class_weights": class_weights,
        "fine_tuning": fine_tuning,
        "feature_views": feature_views,
        "inference_precision": inference_precision,
        "keep": keep,
        "init_from": init_from,
        "calibrate": calibrate,
    }
    config = _to_config(data, build_model, options, loader_arguments)
    if not isinstance(resume, bool):
        raise InputError(f"`resume` must be True or False. Received: resume={resume!r}")
    tta = check_views("tta", tta)
    if folds is not None:
        folds = check_integer("folds", folds, lowest=2)
    if checkpoint_every is not None:
        checkpoint_every = check_integer("checkpoint_every", checkpoint_every, lowest=1)
    if run_directory is None and resume:
        raise InputError("`resume` needs the `run_directory` of the run.")
    team = join_processes(check_integer("join_timeout", join_timeout, lowest=1))
    with team or contextlib.nullcontext():
        chosen = choose_devices(devices, config.loader.batch_size)
        command = TrainingCommand(
            config,
            chosen,
            team,
            progress,
            on_loaded,
            on_transferred,
            checkpoint_every,
            tensorboard,
            save_optimizer,
            not discard_checkpoint,
            started,
            train_run=lambda prepared, recorder: _RunInProgress(
                prepared,
                callbacks,
                verbose,
                progress,
                chosen,
                team,
                recorder,
                tta=tta,
                folds=folds,
            ).train(),
            load_run=lambda prepared, directory: _load_complete_run(
                prepared, directory, folds, tta, progress
            ),
            folds=folds,
        )
        if team is not None and not team.is_first:
            return command.train_for_first_process(
                team, writes_directory=run_directory is not None
            )
        if run_directory is None:
            return command.train_in_memory()
        return command.train_in_directory(RunDirectory(run_directory, resume=resume))


class _RunInProgress:
    """A run on its way through the stages.

    Args:
        prepared: What is trained.
        callbacks: Further callbacks of `fit`.
        verbose: As for `keras.Model.fit`.
        progress: As for `with_features`.
        devices: What it is trained on.
        team: The processes that train it, `None` for one.
        recorder: Records the run in a directory; `None` if nothing is to be written.
    """

    def __init__(
        self,
        prepared: PreparedRun,
        callbacks: Sequence[keras.callbacks.Callback],
        verbose: int | str,
        progress: Progress | None,
        devices: Devices,
        team: Team | None,
        recorder: RunRecorder | None = None,
        *,
        tta: int = 1,
        folds: int | None = None,
    ) -> None:
        self._folds = folds
        self._devices = devices
        self._team = team
        self._tta = tta
        self._prepared = prepared
        self._callbacks = tuple(callbacks)
        self._verbose = verbose
        self._progress = progress
        self._recorder = recorder
        is_first = team is None or team.is_first
        self._logger = HistoryLogger(
            recorder.directory.path if recorder is not None and is_first else None,
            len(prepared.datasets.split.train),
        )
        self._best_epoch = BestEpoch() if prepared.config.keep == "best" else None
        # The stage that was begun last.
        self._stage: Stage | None = None

    def train(self) -> TrainingRun:
        """Trains all stages, and writes the results."""
        recorder = self._recorder
        if recorder is not None and not recorder.has_checkpoint:
            recorder.directory.remove_progress()
        validated = self._cross_validate()
        try:
            interrupted = self._train_stages()
        except BaseException as error:
            if recorder is not None:
                self._keep_what_can_be_resumed(recorder, error)
            raise
        assert self._stage is not None
        for model in (self._prepared.model, self._stage.model):
            self._devices.release(model)
        is_first = self._team is None or self._team.is_first
        recorder = recorder if is_first else None
        if recorder is not None:
            recorder.wait()
        saved_epoch = self._restore_best_epoch(interrupted)
        judged = judge(
            self._prepared,
            self._stage,
            is_reported=recorder is not None,
            tta=self._tta,
        )
        if recorder is not None:
            recorder.write_results(self._logger.history, saved_epoch, judged, validated)
            if not interrupted:
                recorder.complete()
        return TrainingRun(
            self._prepared.model,
            self._logger.history,
            self._prepared.datasets,
            None if recorder is None else recorder.directory.path,
            interrupted,
            saved_epoch,
            self._measure_precision(),
            validated,
        )

    def _cross_validate(self) -> CrossValidation | None:
        """Cross-validates the head, on features that fine-tuning has not changed."""
        if self._folds is None or not (self._team is None or self._team.is_first):
            return None
        prepared = self._prepared
        with self._devices.scope(), prepared.datasets.naming_unreadable_images():
            return cross_validate(prepared, self._folds, self._tta, self._progress)

    def _measure_precision(self) -> PrecisionDifference | None:
        prepared, stage = self._prepared, self._stage
        if stage is None or not stage.is_on_features:
            return None
        return measure_precision(
            prepared.datasets,
            prepared.model,
            stage.model,
            prepared.config.inference_precision,
        )

    def _restore_best_epoch(self, interrupted: bool) -> int | None:
        """Gives the model the weights to save; returns the epoch they are from."""
        if self._best_epoch is not None and self._best_epoch.number is not None:
            self._best_epoch.restore(self._prepared.model)
            return self._best_epoch.number
        if interrupted:
            return None
        return find_saved_epoch(self._logger.history, "last")

    def _train_stages(self) -> bool:
        """Trains the stages that are not complete; returns whether Ctrl-C ended it."""
        prepared, recorder = self._prepared, self._recorder
        config, model, datasets = prepared.config, prepared.model, prepared.datasets
        try:
            with datasets.naming_unreadable_images():
                if recorder is None or not recorder.is_fine_tuning:
                    with self._devices.scope():
                        stage = begin_first_stage(
                            config, model, datasets, self._progress, self._team
                        )
                    self._fit(stage)
                if config.fine_tuning is not None:
                    with self._devices.scope():
                        stage = begin_fine_tuning_stage(
                            config, config.fine_tuning, model, datasets
                        )
                    self._fit(stage)
        except KeyboardInterrupt:
            # While features were computed, there is nothing to save. Of several
            # processes, each has stopped in another step.
            if self._stage is None or self._team is not None:
                raise
            return True
        return False

    def _fit(self, stage: Stage) -> None:
        self._stage = stage
        best_epoch = [] if self._best_epoch is None else [self._best_epoch]
        for callback in best_epoch:
            callback.begin_stage(stage)
        stateful = [
            *self._collapse_detectors(stage),
            *_early_stopping(self._prepared.config),
            *best_epoch,
            self._logger,
            *self._callbacks,
        ]
        begin, recorders = stage.begin, list[keras.callbacks.Callback]()
        if self._recorder is not None:
            begin, recorders = self._recorder.begin_stage(stage, stateful)
        images, class_weights = self._devices.distribute(
            stage.datasets.train, self._prepared.class_weights
        )
        validation, _ = self._devices.distribute(
            balance_first_batch(stage.datasets.validation, stage.model)
        )
        if self._team is not None:
            equalize_variables(stage.model, self._team)
        stage.model.fit(
            images,
            validation_data=validation,
            epochs=stage.end,
            initial_epoch=begin,
            class_weight=class_weights,
            shuffle=False,  # the pipeline shuffles
            callbacks=[
                FollowEpochs(stage.datasets),
                *stateful,
                *recorders,
                *self._devices.callbacks(),
            ],
            verbose=self._verbose,
        )
        if self._recorder is not None:
            self._recorder.wait()

    def _collapse_detectors(self, stage: Stage) -> list[keras.callbacks.Callback]:
        """Returns what notices a collapse; the callbacks after it record it.

        Of images with several labels, all may rightly have the same answer: none.
        """
        datasets = self._prepared.datasets
        if datasets.multi_label:
            return []
        return [
            CollapseDetector(
                stage.datasets.validation,
                class_counts=list(datasets.counts("train").values()),
                class_weights=self._prepared.class_weights,
                class_names=datasets.class_names,
            )
        ]

    def _keep_what_can_be_resumed(
        self, recorder: RunRecorder, error: BaseException
    ) -> None:
        """Leaves the directory as a failed run should, and says how to resume it."""
        with contextlib.suppress(InputError):
            recorder.wait()
        if not self._logger.history:
            recorder.directory.discard()
        elif isinstance(error, InputError) and recorder.has_checkpoint:
            raise InputError(
                f"{error}\nThe epochs trained so far are kept: solve the problem, then "
                f"resume the run in {printable_path(recorder.directory.path)}."
            ) from error


class FollowEpochs(keras.callbacks.Callback):
    """Gives the images the order of the epoch, whatever was read from them before."""

    def __init__(self, datasets: ImageDatasets) -> None:
        super().__init__()
        self._order = datasets.epoch_order

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Tells the pipeline which epoch its next pass is."""
        del logs
        self._order.epoch = epoch


def _load_complete_run(
    prepared: PreparedRun,
    directory: RunDirectory,
    folds: int | None,
    tta: int,
    progress: Progress | None,
) -> TrainingRun:
    validated = None
    if folds is not None:
        validated = cross_validate(prepared, folds, tta, progress)
        validated.write_predictions(directory.out_of_fold)
    model, datasets = prepared.model, prepared.datasets
    if prepared.config.fine_tuning is not None:
        # The file holds the optimizer of the last stage.
        begin_fine_tuning_stage(
            prepared.config, prepared.config.fine_tuning, model, datasets
        )
    load_trained_weights(model, directory)
    history = read_history(directory.path)
    begin = 0 if prepared.config.fine_tuning is None else prepared.config.epochs
    saved_epoch = find_saved_epoch(history, prepared.config.keep, begin)
    return TrainingRun(
        model,
        history,
        datasets,
        directory.path,
        False,
        saved_epoch,
        cross_validation=validated,
    )


def _to_config(
    data: Any,
    build_model: ModelBuilder | keras.Model | None,
    options: Mapping[str, Any],
    loader_arguments: Mapping[str, Any],
) -> TrainingConfig:
    if isinstance(data, TrainingConfig):
        given = [] if build_model is None else ["build_model"]
        given += loader_arguments
        given += [n for n, value in options.items() if value != _DEFAULTS[n]]
        if given:
            raise InputError(
                "A `TrainingConfig` already holds every setting of the run. Do not "
                f"pass any of them with it. Received: {', '.join(given)}"
            )
        return data
    path, arguments = options["init_from"], dict(loader_arguments)
    if path is not None and not isinstance(data, ImageDatasetLoader | ImageDatasets):
        source = load_classifier(path)
        arguments = {
            "image_size": source.image_size,
            "resize": source.resize,
            **arguments,
        }
    loader = as_loader(data)
    if arguments:
        loader = _change_loader(loader, arguments)
    if isinstance(build_model, keras.Model):
        model = build_model
        return TrainingConfig(loader, lambda _: model, **options)
    if build_model is None and path is not None:

        def build(datasets: ImageDatasets) -> keras.Model:
            return build_like(path, datasets.class_names, loader.seed)

        return TrainingConfig(loader, build, **options)
    return TrainingConfig(loader, build_model or _default_model(loader), **options)


def _change_loader(
    loader: ImageDatasetLoader, arguments: Mapping[str, Any]
) -> ImageDatasetLoader:
    known = inspect.signature(ImageDatasetLoader).parameters
    unknown = [name for name in arguments if name not in known]
    if unknown:
        of_model = inspect.signature(ImageClassifier).parameters
        arguments_of_train = {*inspect.signature(train).parameters, *known}
        close = suggest_name(unknown[0], arguments_of_train)
        if unknown[0] in of_model:
            hint = "pass a model as `build_model`"
        elif close:
            hint = f"did you mean `{close}`?"
        else:
            hint = f"besides its own, it takes those of the loader, {', '.join(known)}"
        raise InputError(f"`train` has no argument `{unknown[0]}`: {hint}")
    return type(loader).from_config({**loader.get_config(), **arguments})


def _default_model(loader: ImageDatasetLoader) -> ModelBuilder:
    def build(datasets: ImageDatasets) -> keras.Model:
        return ImageClassifier(
            datasets.class_names,
            image_size=datasets.image_size,
            seed=loader.seed,
            resize=datasets.image_options.resize,
            multi_label=datasets.multi_label,
        )

    return build


def _early_stopping(config: TrainingConfig) -> list[keras.callbacks.Callback]:
    if config.early_stopping is None:
        return []
    return [
        keras.callbacks.EarlyStopping(
            monitor="val_loss",
            patience=config.early_stopping,
            restore_best_weights=config.keep == "best",
        )
    ]
