"""Everything that decides the result of a run, to reproduce it from a file."""

import dataclasses
import hashlib
import json
import math
import numbers
import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import keras

from keras_flowers.argument_checks import check_integer
from keras_flowers.data.dataset_loader import ImageDatasetLoader, ImageDatasets
from keras_flowers.data.split_manifest import read_manifest
from keras_flowers.errors import InputError, first_line
from keras_flowers.files import printable_path
from keras_flowers.inference import check_precision
from keras_flowers.layers.augmentation import check_strength
from keras_flowers.layers.views import check_views
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.models.label_smoothing import check_label_smoothing
from keras_flowers.training.config_difference import (
    LATER_SETTINGS,
    fingerprint_difference,
)
from keras_flowers.training.schedules import stretch_schedule

ModelBuilder = Callable[[ImageDatasets], keras.Model]

_FORMAT = 2
# Format 1, of version 0.1, held a hash of the backbone that cannot be computed anymore.
READABLE_FORMATS = (1, 2)
# Which epoch a trained model is from.
KEEP = ("best", "last")
_VERSIONED_PACKAGES = ("keras-flowers", "keras", "tensorflow", "numpy", "pillow")


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """A second stage, which trains the backbone as well.

    It follows the stage in which a pretrained backbone is frozen. Batch normalization
    keeps the statistics of its pretraining. The optimizer starts afresh; its learning
    rate rises for the first steps and then falls to zero along a cosine.

    Attributes:
        epochs: Positive integer, the number of passes over the training images.
        learning_rate: The highest learning rate, above 0.
        unfreeze_from: Name of the first layer of the backbone to train, with all that
            follow it; `None` for the whole backbone.
        warm_up: Fraction of the steps, from 0 to below 1, in which the learning rate
            rises; `None` for a twentieth.
        augmentation: How the images of this stage are augmented: `"none"`, `"light"` or
            `"strong"`. `None` is that of the model if `augmentation` was given for it,
            and `"light"` otherwise.
        label_smoothing: As for `ImageClassifier.compile`; `None` for 0.1.
        weight_decay: Fraction of each weight that a step takes off, times the learning
            rate, from 0 up; `None` for that of the optimizer of the first stage, or
            0.01 if it has none.

    Raises:
        InputError: If an attribute is not as described above.
    """

    epochs: int
    learning_rate: float = 3e-4
    unfreeze_from: str | None = None
    warm_up: float | None = None
    augmentation: str | None = None
    label_smoothing: float | None = None
    weight_decay: float | None = None

    def __post_init__(self) -> None:
        """Checks the attributes."""
        _store(self, "epochs", check_integer("epochs", self.epochs, lowest=1))
        rate: Any = self.learning_rate
        if not isinstance(rate, numbers.Real) or not 0 < float(rate) < math.inf:
            raise InputError(
                "`learning_rate` must be a number above 0. "
                f"Received: learning_rate={rate!r}"
            )
        _store(self, "learning_rate", float(rate))
        if self.augmentation is not None:
            check_strength("augmentation", self.augmentation)
        if self.label_smoothing is not None:
            smoothing = check_label_smoothing(self.label_smoothing)
            _store(self, "label_smoothing", smoothing)
        decay: Any = self.weight_decay
        if decay is not None:
            if not isinstance(decay, numbers.Real) or not 0 <= float(decay) < math.inf:
                raise InputError(
                    "`weight_decay` must be a number from 0 up. "
                    f"Received: weight_decay={decay!r}"
                )
            _store(self, "weight_decay", float(decay))
        warm_up: Any = self.warm_up
        if warm_up is None:
            return
        if not isinstance(warm_up, numbers.Real) or not 0 <= float(warm_up) < 1:
            raise InputError(
                "`warm_up` must be a number from 0 to below 1. "
                f"Received: warm_up={warm_up!r}"
            )
        _store(self, "warm_up", float(warm_up))


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the result of a run.

    Attributes:
        loader: The data.
        build_model: Called with the loaded data sets; returns the model to train.
            An `ImageClassifier` that is not compiled is compiled with its defaults.
            To reproduce a run its model is built again from its configuration, which
            must decide its initial weights, as it does for an `ImageClassifier` with a
            seed. The weights of a backbone are loaded again.
        epochs: Positive integer, the number of passes over the training images.
        early_stopping: Number of epochs without a lower validation loss after which
            a stage stops and, with `keep="best"`, its best weights are restored;
            `None` to train for all epochs.
        class_weights: `"balanced"` weighs each class by the inverse of its frequency;
            a dictionary from class name to weight; or `None`.
        fine_tuning: A second stage for a model with a pretrained backbone, or `None`.
        feature_views: Integer from 1 to 7: how many views of the training images a
            head on cached features is trained on. See `keras_flowers.layers.views`.
        inference_precision: `"float32"`, or `"bf16"` or `"int8"`, in which OpenVINO
            computes cached features faster, and slightly different ones.
        keep: Which epoch the trained model is from: `"best"`, the one with the lowest
            validation loss, or `"last"`. Without validation images it is the last one.
            An epoch of the fine-tuning stage is better than one of the frozen stage
            also if it is more accurate. A fine-tuning stage starts from the end of the
            frozen stage, which with `early_stopping` is the best epoch of that stage.
        init_from: The `.keras` file of an `ImageClassifier` whose weights the model
            starts from, or `None`. See `transfer_weights` for what is copied.
        calibrate: Whether to calibrate an `ImageClassifier` on the validation images
            after training: to fit the temperature of its probabilities and the detector
            of unknown images. This needs at least 50 validation images.

    Raises:
        InputError: If an attribute is not as described above.
    """

    loader: ImageDatasetLoader
    build_model: ModelBuilder
    epochs: int = 15
    early_stopping: int | None = None
    class_weights: str | Mapping[str, float] | None = None
    fine_tuning: FineTuning | None = None
    feature_views: int = 1
    inference_precision: str = "float32"
    keep: str = "best"
    init_from: str | os.PathLike[str] | None = None
    calibrate: bool = True

    def __post_init__(self) -> None:
        """Checks the attributes."""
        _store(self, "feature_views", check_views("feature_views", self.feature_views))
        check_precision(self.inference_precision)
        _store_integer(self, "epochs")
        if self.early_stopping is not None:
            _store_integer(self, "early_stopping")
        weights = self.class_weights
        if isinstance(weights, Mapping):
            _store(self, "class_weights", _check_weights(weights))
        elif weights not in (None, "balanced"):
            raise InputError(
                "`class_weights` must be None, 'balanced' or a dictionary from class "
                f"name to weight. Received: class_weights={weights!r}"
            )
        if not isinstance(self.fine_tuning, FineTuning | None):
            raise InputError(
                "`fine_tuning` must be a FineTuning or None. "
                f"Received: fine_tuning={self.fine_tuning!r}"
            )
        if not isinstance(self.init_from, str | os.PathLike | None):
            raise InputError(
                "`init_from` must be the path of a .keras file or None. "
                f"Received: init_from={self.init_from!r}"
            )
        if not isinstance(self.calibrate, bool):
            raise InputError(
                "`calibrate` must be True or False. "
                f"Received: calibrate={self.calibrate!r}"
            )
        if self.keep not in KEEP:
            raise InputError(
                f"`keep` must be 'best' or 'last'. Received: keep={self.keep!r}"
            )

    def to_json(self, model: keras.Model) -> dict[str, Any]:
        """Returns what reproduces the run, as JSON types.

        Args:
            model: What `build_model` returned for the run.
        """
        loader = keras.saving.serialize_keras_object(
            self.loader.with_listed_exclusions()
        )
        tuning = self.fine_tuning
        data = Path(self.loader.data)
        if data.is_dir() or (data.suffix and data.is_file()):
            # A relative path would depend on the working directory.
            loader["config"]["data"] = str(data.absolute())
        if self.loader.labels is not None:
            labels = Path(self.loader.labels).expanduser()
            loader["config"]["labels"] = str(labels.absolute())
        return {
            "format": _FORMAT,
            "loader": loader,
            "model": keras.saving.serialize_keras_object(model),
            "epochs": self.epochs,
            "early_stopping": self.early_stopping,
            "class_weights": self.class_weights,
            "fine_tuning": None if tuning is None else dataclasses.asdict(tuning),
            "feature_views": self.feature_views,
            "inference_precision": self.inference_precision,
            "keep": self.keep,
            "init_from": _describe_file(self.init_from),
            "calibrate": self.calibrate,
            "pretrained": fingerprint_pretrained(model),
            "versions": versions(),
        }

    def with_manifest(self, path: Path) -> Self:
        """Returns the configuration with the split of a manifest, if there is one.

        Args:
            path: The manifest; it may be missing.

        Raises:
            InputError: If the configuration asks for a different manifest.
        """
        if not path.exists():
            return self
        given = self.loader.split_manifest
        if given is not None and (
            read_manifest(Path(given).expanduser()).images != read_manifest(path).images
        ):
            raise InputError(
                f"The split of the run is not that of {printable_path(given)}: see "
                f"{printable_path(path)}."
            )
        loader = self.loader.get_config() | {"split_manifest": str(path)}
        return dataclasses.replace(self, loader=ImageDatasetLoader.from_config(loader))

    def with_epochs(
        self, epochs: int | None = None, fine_tuning: FineTuning | None = None
    ) -> Self:
        """Returns the configuration with more epochs, to train a finished run further.

        A learning rate schedule of the model is stretched to the new number of epochs.

        Args:
            epochs: The new number of epochs of the first stage; `None` for as many as
                before.
            fine_tuning: The new second stage; `None` for the one before.
        """
        changes: dict[str, Any] = {"fine_tuning": fine_tuning or self.fine_tuning}
        if epochs is not None:
            changes["epochs"] = epochs
            changes["build_model"] = _StretchedModel(
                self.build_model, epochs / self.epochs
            )
        return dataclasses.replace(self, **changes)

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """Reads the `config.json` of a run.

        The split is that of the run if its `split.json` is next to the file.

        A file that version 0.1 wrote is read as well. It cannot tell whether the
        weights of a pretrained backbone are still the same.

        Raises:
            InputError: If the file is missing or is not a run configuration.
        """
        path = Path(path)
        try:
            content = json.loads(path.read_text())
            if content["format"] not in READABLE_FORMATS:
                raise ValueError(f"format {content['format']!r} is unknown")
            loader_config = content["loader"]
            manifest = path.with_name("split.json")
            if manifest.exists():
                loader_config["config"]["split_manifest"] = str(manifest)
            loader = keras.saving.deserialize_keras_object(loader_config)
            if not isinstance(loader, ImageDatasetLoader):
                raise TypeError("its loader is not an ImageDatasetLoader")
            tuning = content.get("fine_tuning")
            return cls(
                loader=loader,
                build_model=_SerializedModel(
                    path, content["model"], content.get("pretrained")
                ),
                epochs=content["epochs"],
                early_stopping=content["early_stopping"],
                class_weights=content["class_weights"],
                fine_tuning=_read_fine_tuning(tuning, content["model"]),
                # What version 0.1 wrote says nothing of these.
                **{name: content[name] for name in LATER_SETTINGS if name in content},
                keep=recorded_keep(content),
                init_from=(content.get("init_from") or {}).get("file"),
                calibrate=content.get("calibrate", False),
            )
        except FileNotFoundError as error:
            raise InputError(f"There is no configuration at {path}.") from error
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path} is not a run configuration: {first_line(error)}"
            ) from error


def recorded_keep(config: Mapping[str, Any]) -> str:
    """Returns which epoch a run keeps, by the content of its `config.json`.

    Runs of version 0.1 have no such entry. They kept the last epoch unless early
    stopping restored the best one.
    """
    before = "last" if config.get("early_stopping") is None else "best"
    return str(config.get("keep", before))


@dataclasses.dataclass(frozen=True)
class _SerializedModel:
    """Builds the model of an earlier run, compiled as it was."""

    path: Path
    config: dict[str, Any]
    pretrained: dict[str, str] | str | None

    def __call__(self, datasets: ImageDatasets) -> keras.Model:
        try:
            model = keras.saving.deserialize_keras_object(self.config)
        except Exception as error:
            # Keras raises nearly anything for a class it does not know, or does not
            # trust.
            raise InputError(
                f"The model of {self.path} cannot be built: {first_line(error)}"
            ) from error
        names = getattr(model, "class_names", datasets.class_names)
        if tuple(names) != datasets.class_names:
            raise InputError(
                f"The run was configured for the classes {list(names)}, "
                f"the data has {list(datasets.class_names)}."
            )
        if isinstance(model, ImageClassifier) and model.backbone is not None:
            model.backbone.load_pretrained_weights()
        if self.pretrained is not None:
            self._require_same_backbone(model)
        return model

    def _require_same_backbone(self, model: keras.Model) -> None:
        found = fingerprint_difference(self.pretrained, fingerprint_pretrained(model))
        if found is None:
            return
        if found.startswith("pretrained.weights"):
            raise InputError(
                f"The backbone of {self.path} had other weights than are found now at "
                f"{model.backbone.pretrained_weights}."
            )
        raise InputError(
            f"The backbone of {self.path} had another architecture than is built from "
            f"it now: {found}."
        )


def _read_fine_tuning(
    tuning: Mapping[str, Any] | None, model: Mapping[str, Any]
) -> FineTuning | None:
    """Returns the settings of a configuration, which may be of an earlier version."""
    if tuning is None:
        return None
    augmentation = model["config"].get("augmentation")
    # What earlier versions did not have, they did not do.
    unsaid = {
        "augmentation": "none" if augmentation in (None, False) else None,
        "label_smoothing": 0.0,
        "weight_decay": 0.0,
    }
    return FineTuning(**{**unsaid, **tuning})


@dataclasses.dataclass(frozen=True)
class _StretchedModel:
    """Builds a model with its learning rate schedule stretched."""

    build_model: ModelBuilder
    ratio: float

    def __call__(self, datasets: ImageDatasets) -> keras.Model:
        model = self.build_model(datasets)
        stretch_schedule(model, self.ratio)
        return model


def fingerprint_pretrained(model: keras.Model) -> dict[str, str] | None:
    """Returns what tells the pretrained backbone of a model from others.

    Returns:
        Its `"weights"` and its `"architecture"`, or `None` without one.
    """
    backbone = model.backbone if isinstance(model, ImageClassifier) else None
    if backbone is None or not backbone.is_pretrained:
        return None
    return {
        "weights": backbone.weights_fingerprint(),
        "architecture": backbone.architecture_fingerprint(),
    }


def versions() -> dict[str, str]:
    """Returns the version of each package that a run depends on."""
    found = {name: metadata.version(name) for name in _VERSIONED_PACKAGES}
    return {
        "python": platform.python_version(),
        **found,
        "backend": keras.backend.backend(),
    }


def _describe_file(path: str | os.PathLike[str] | None) -> dict[str, str] | None:
    if path is None:
        return None
    with Path(path).open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": os.fspath(Path(path).absolute()), "sha256": checksum}


def _store(config: Any, name: str, value: Any) -> None:
    object.__setattr__(config, name, value)


def _store_integer(config: TrainingConfig, name: str) -> None:
    _store(config, name, check_integer(name, getattr(config, name), lowest=1))


def _check_weights(weights: Mapping[str, Any]) -> dict[str, float]:
    for weight in weights.values():
        is_number = isinstance(weight, numbers.Real) and math.isfinite(float(weight))
        if not is_number or float(weight) < 0:
            raise InputError(
                "`class_weights` must hold numbers from 0 up. "
                f"Received: class_weights={dict(weights)!r}"
            )
    return {name: float(weight) for name, weight in weights.items()}
