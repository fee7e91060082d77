"""Loader, model and callbacks become a run: trained, recorded and repeatable."""

import dataclasses
import json
import math
import numbers
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import keras

from keras_flowers.arguments import checked_integer
from keras_flowers.callbacks import HistoryLogger
from keras_flowers.callbacks.history_logger import History
from keras_flowers.dataset_loader import ImageDatasetLoader, ImageDatasets
from keras_flowers.errors import InputError
from keras_flowers.evaluation import Evaluation, evaluate
from keras_flowers.image_classifier import ImageClassifier
from keras_flowers.run_directory import RunDirectory
from keras_flowers.sources import Progress

ModelBuilder = Callable[[ImageDatasets], keras.Model]

_CONFIG_FORMAT = 1
_VERSIONED_PACKAGES = ("keras-flowers", "keras", "tensorflow", "numpy", "pillow")


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the outcome of a run.

    Attributes:
        loader: Where the photos come from.
        build_model: Called with the loaded data sets; returns the model to train.
            An `ImageClassifier` that is not compiled is compiled with its defaults.
            To repeat a run its model is built anew from its configuration, so its
            initial weights must follow from that, as those of an `ImageClassifier`
            with a seed do.
        epochs: Positive integer, how often the training photos are seen.
        early_stopping: Epochs without a lower validation loss after which training
            stops and the best weights come back; `None` to run all epochs.
        class_weights: `"balanced"` weighs each class by the inverse of its share;
            a dictionary from class name to weight; or `None`.
    """

    loader: ImageDatasetLoader
    build_model: ModelBuilder
    epochs: int = 15
    early_stopping: int | None = None
    class_weights: str | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        """Checks what no other part checks."""
        _store_integer(self, "epochs")
        if self.early_stopping is not None:
            _store_integer(self, "early_stopping")
        weights = self.class_weights
        if isinstance(weights, Mapping):
            _store(self, "class_weights", _checked_weights(weights))
        elif weights not in (None, "balanced"):
            raise InputError(
                "`class_weights` must be None, 'balanced' or a dictionary from class "
                f"name to weight. Received: class_weights={weights!r}"
            )

    def to_json(self, model: keras.Model) -> dict[str, Any]:
        """Returns what repeats the run, given the model that `build_model` built."""
        loader = keras.saving.serialize_keras_object(self.loader)
        data = Path(self.loader.data)
        if data.is_dir() or (data.suffix and data.is_file()):
            # Else the run could be repeated from the same folder only.
            loader["config"]["data"] = str(data.absolute())
        return {
            "format": _CONFIG_FORMAT,
            "loader": loader,
            "model": keras.saving.serialize_keras_object(model),
            "epochs": self.epochs,
            "early_stopping": self.early_stopping,
            "class_weights": self.class_weights,
            "versions": versions(),
        }

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Reads the `config.json` of a run.

        The split is the one of that run: it is read from the `split.json` beside
        the file where there is one.

        Raises:
            InputError: If the file is missing or is no configuration of a run.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text())
            if content["format"] != _CONFIG_FORMAT:
                raise ValueError(f"format {content['format']!r} is not known")
            loader_config = content["loader"]
            manifest = path.with_name("split.json")
            if manifest.exists():
                loader_config["config"]["split_manifest"] = str(manifest)
            loader = keras.saving.deserialize_keras_object(loader_config)
            if not isinstance(loader, ImageDatasetLoader):
                raise TypeError("its loader is none")
            return cls(
                loader=loader,
                build_model=_SerializedModel(path, content["model"]),
                epochs=content["epochs"],
                early_stopping=content["early_stopping"],
                class_weights=content["class_weights"],
            )
        except FileNotFoundError as error:
            raise InputError(f"There is no configuration at {path}.") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is no configuration of a run: {_first_line(error)}"
            ) from error


@dataclasses.dataclass(frozen=True)
class _SerializedModel:
    """Builds the model of an earlier run, compiled as it was."""

    path: Path
    config: dict[str, Any]

    def __call__(self, datasets: ImageDatasets) -> keras.Model:
        try:
            model = keras.saving.deserialize_keras_object(self.config)
        except Exception as error:
            # Keras raises nearly anything for a class it does not know, or does not
            # trust.
            raise InputError(
                f"The model of {self.path} cannot be built: {_first_line(error)}"
            ) from error
        names = getattr(model, "class_names", datasets.class_names)
        if tuple(names) != datasets.class_names:
            raise InputError(
                f"The run was configured for the classes {list(names)}, "
                f"the data has {list(datasets.class_names)}."
            )
        return model


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
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int | str = "auto",
    progress: Progress | None = None,
    on_loaded: Callable[[ImageDatasets], None] | None = None,
    **options: Any,
) -> TrainingRun:
    """Trains an image classifier on a folder of photos.

    The run directory, where one is asked for, gets `model.keras`, `history.json`,
    `history.csv`, `history.png`, `split.json` (who trained and who validated),
    `audit.json` (what was found in the data), `config.json` (what repeats the
    run: `train(TrainingConfig.read("config.json"))`) and `report.html` (all of it on
    one page, with an evaluation on the validation photos). Ctrl-C ends the training;
    what there is then is saved and returned.

    Args:
        data: What `ImageDatasetLoader` takes as `data`, a loader, or a whole
            `TrainingConfig`.
        build_model: Called with the `ImageDatasets`; returns the model to train.
            By default an `ImageClassifier` with the loader's image size and seed.
        run_directory: Folder for the results, new or empty; `None` writes nothing.
        callbacks: Further Keras callbacks.
        verbose: As for `keras.Model.fit`.
        progress: As for `ImageDatasetLoader.load`.
        on_loaded: Called once with the `ImageDatasets` before training.
        **options: `epochs`, `early_stopping` and `class_weights`, as in
            `TrainingConfig`.

    Returns:
        `TrainingRun`.

    Raises:
        InputError: If the data, an argument or the run directory cannot be used.
    """
    config = _as_config(data, build_model, options)
    directory = None if run_directory is None else RunDirectory(run_directory)
    datasets = config.loader.load(progress)
    if on_loaded is not None:
        on_loaded(datasets)
    model = _built(config.build_model, datasets)
    weights = _class_weights(config.class_weights, datasets)
    stoppers = _early_stopping(config, datasets)
    if directory is not None:
        directory.require_space(model)
        directory.claim(config.to_json(model), datasets)
    path = None if directory is None else directory.path
    logger = HistoryLogger(path, len(datasets.split.train))
    interrupted = False
    try:
        model.fit(
            datasets.train,
            validation_data=datasets.validation,
            epochs=config.epochs,
            class_weight=weights,
            shuffle=False,  # the pipeline shuffles
            callbacks=[_FollowEpochs(datasets), *stoppers, logger, *callbacks],
            verbose=verbose,
        )
    except KeyboardInterrupt:
        interrupted = True
    except Exception as error:
        if directory is not None and not logger.history:
            directory.give_back()
        raise next(iter(datasets.read_errors), error) from error
    if directory is not None:
        directory.write_results(model, logger.history)
        directory.write_report(datasets, logger.history, _evaluated(model, datasets))
    return TrainingRun(model, logger.history, datasets, path, interrupted)


def _evaluated(model: keras.Model, datasets: ImageDatasets) -> Evaluation | str:
    """Returns what the model says of the validation photos, or why that is unknown."""
    if datasets.validation is None:
        return "There is no validation split."
    try:
        return evaluate(model, datasets)
    except InputError as error:
        # Such as a model without a softmax: it is trained and saved all the same.
        return f"The model could not be evaluated. {error}"


class _FollowEpochs(keras.callbacks.Callback):
    """Makes the order of the photos that of Keras's epoch, whatever was read before."""

    def __init__(self, datasets: ImageDatasets) -> None:
        super().__init__()
        self._order = datasets.epoch_order

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        del logs
        self._order.epoch = epoch


def versions() -> dict[str, str]:
    """Returns the versions that a run depends on, by name."""
    found = {name: metadata.version(name) for name in _VERSIONED_PACKAGES}
    return {
        "python": platform.python_version(),
        **found,
        "backend": keras.backend.backend(),
    }


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
    return model


def _early_stopping(
    config: TrainingConfig, datasets: ImageDatasets
) -> list[keras.callbacks.Callback]:
    if config.early_stopping is None:
        return []
    if datasets.validation is None:
        raise InputError("`early_stopping` needs a validation split above 0.")
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


def _store(config: TrainingConfig, name: str, value: Any) -> None:
    object.__setattr__(config, name, value)


def _store_integer(config: TrainingConfig, name: str) -> None:
    _store(config, name, checked_integer(name, getattr(config, name), lowest=1))


def _checked_weights(weights: Mapping[str, Any]) -> dict[str, float]:
    for weight in weights.values():
        is_number = isinstance(weight, numbers.Real) and math.isfinite(float(weight))
        if not is_number or float(weight) < 0:
            raise InputError(
                "`class_weights` must hold numbers from 0 up. "
                f"Received: class_weights={dict(weights)!r}"
            )
    return {name: float(weight) for name, weight in weights.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
