"""The space of image classifiers, and how to build and train one of them."""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import keras_tuner
from keras_flowers.tuning.keras_tuner_internals import epochs_of_round, is_checkpoint
from keras_flowers.tuning.ranges import choices, float_range, integer_range
from keras_flowers.tuning.trial_data import TrialData
from keras_flowers.tuning.trial_models import TrialBackbones

from keras_flowers.data.dataset_loader import (
    ImageDatasetLoader,
    ImageDatasets,
    as_loader,
)
from keras_flowers.errors import InputError
from keras_flowers.models.backbone import Backbone
from keras_flowers.models.classifier_arguments import augments
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress
from keras_flowers.training.schedules import warm_up_and_cosine
from keras_flowers.training.stages import (
    Stage,
    has_fixed_features,
    head_to_train,
    steps_per_epoch,
)
from keras_flowers.training.train import FollowEpochs

SCORES = ("last", "best")
_RATE_OF_ADAM = 1e-3  # by default


class ImageClassifierHyperModel(keras_tuner.HyperModel):
    """Searches dense widths and depth of an `ImageClassifier`, and its epochs.

    The hyperparameters are `layers`, `units_1`, `units_2` and so on (each active in
    trials with that many layers), `epochs`, and if requested `dropout`,
    `learning_rate` and `batch_size`. All of them are declared before the first trial.
    A range of one value is not searched.

    It works with every tuner of KerasTuner. A tuner that sets the number of epochs of
    a trial itself, as Hyperband does, overrides `epochs`.

    A trial is scored by its last epoch, and its weights are saved at that epoch, so
    evaluating the saved model reproduces the score. With `score="best"` a trial is
    scored by its best epoch, as KerasTuner does, which favours long trials.

    With a frozen backbone and no augmentation, features are computed once for all
    trials, and each trial trains only the layers behind the backbone: seconds instead
    of minutes. All models share the backbone. The learning rate warms up briefly and
    falls to zero over the epochs of a trial; a trial that Hyperband continues starts
    this schedule again.

    A subclass may override `compile` to compile models differently. If it overrides
    `fit`, it must not unfreeze a shared backbone: pass one that is unfrozen already.

    Args:
        loader: An `ImageDatasetLoader`, what it loaded, or what it takes as `data`. It
            is loaded when the first model is built, once per batch size; images are
            decoded once. A loader must have the image size of the backbone; for `data`
            that size is the default.
        layers: Number of hidden layers, from 0: an integer, `(low, high)` or
            `(low, high, step)`. Both ends are included, here and below.
        units: Width of each hidden layer, from 1, in the same forms.
        epochs: Number of epochs, from 1, in the same forms.
        dropout: Fraction of units to drop after each hidden layer, from 0 to below 1:
            a number, `(low, high)` or `(low, high, step)`. `None` uses the default of
            `ImageClassifier`: 0, or 0.3 with a pretrained backbone.
        learning_rate: Learning rate of Adam above 0 (its peak with a backbone): a
            number, or `(low, high)`, searched on a logarithmic scale. `None` uses
            Adam's default.
        batch_size: An integer, or several to choose from. `None` uses the loader's.
        augmentation: As for `ImageClassifier`.
        score: `"last"` or `"best"`: which epoch a trial is scored by.
        seed: Seed of initial weights, augmentation and dropout for models that are
            built without a seed, or `None`.
        backbone: As for `ImageClassifier`. It is loaded once. A pretrained backbone
            that is not frozen is copied for each model; one without pretrained weights
            is rebuilt for each model with fresh weights.

    Raises:
        InputError: If an argument is outside the range described above, or the
            backbone cannot be loaded.

    Example:
    ```python
    hypermodel = ImageClassifierHyperModel("flower_photos", units=(64, 512, 64))
    tuner = keras_tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=20)
    tuner.search()
    ```
    """

    def __init__(
        self,
        loader: ImageDatasetLoader | ImageDatasets | str | os.PathLike[str],
        *,
        layers: int | Sequence[int] = (1, 3),
        units: int | Sequence[int] = (64, 512, 64),
        epochs: int | Sequence[int] = (5, 15),
        dropout: float | Sequence[float] | None = None,
        learning_rate: float | Sequence[float] | None = None,
        batch_size: int | Sequence[int] | None = None,
        augmentation: bool | str | keras.layers.Layer | None = None,
        score: str = "last",
        seed: int | None = None,
        backbone: Backbone | str | os.PathLike[str] | keras.Model | None = None,
    ) -> None:
        if isinstance(loader, ImageDatasets):
            loader = as_loader(loader)
        self.backbones = TrialBackbones(_as_backbone(backbone, loader))
        if not isinstance(loader, ImageDatasetLoader):
            loader = self.backbones.loader_of(loader)
        self.backbones.check_size(loader.image_size)
        if score not in SCORES:
            raise InputError(f"`score` must be one of {SCORES}. Received: {score!r}")
        self.loader = loader
        self.layers = integer_range("layers", layers, lowest=0)
        self.units = integer_range("units", units, lowest=1)
        self.epochs = integer_range("epochs", epochs, lowest=1)
        self.dropout = (
            None if dropout is None else float_range("dropout", dropout, below=1.0)
        )
        self.learning_rate = (
            None
            if learning_rate is None
            else float_range("learning_rate", learning_rate, is_logarithmic=True)
        )
        self.batch_size = choices(
            "batch_size", loader.batch_size if batch_size is None else batch_size
        )
        self.augmentation = augmentation
        self.score = score
        self.seed = seed
        self._data = TrialData(loader)
        super().__init__()

    @property
    def default_objective(self) -> str:
        """The objective of a search that names none.

        It is `"val_accuracy"`; where images may have several labels,
        `"val_mean_average_precision"`.
        """
        if self.loader.gives_several_labels:
            return "val_mean_average_precision"
        return "val_accuracy"

    @property
    def trains_on_features(self) -> bool:
        """Whether trials train on features instead of images."""
        fixed = self.backbones.is_frozen and self.backbones.is_pretrained
        return fixed and not self.augments

    @property
    def augments(self) -> bool:
        """Whether training augments images."""
        return augments(self.augmentation, is_pretrained=self.backbones.is_pretrained)

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Declares the whole space without building a model."""
        self._hidden_units(hp)
        self._epochs(hp)
        self._dropout(hp)
        self._learning_rate(hp)
        self._batch_size(hp)

    def build(
        self, hp: keras_tuner.HyperParameters, *, seed: int | None = None
    ) -> keras.Model:
        """Returns the compiled model of a trial, with fresh weights.

        Args:
            hp: The hyperparameters of the trial.
            seed: Seed of initial weights, augmentation and dropout. `None` uses the
                seed of the hypermodel.
        """
        seed = self.seed if seed is None else seed
        self.declare_hyperparameters(hp)
        datasets = self.datasets()
        model = ImageClassifier(
            datasets.class_names,
            image_size=datasets.image_size,
            hidden_units=self._hidden_units(hp),
            dropout=self._dropout(hp),
            augmentation=self._augmentation(),
            seed=seed,
            backbone=self.backbones.for_model(seed),
            resize=datasets.image_options.resize,
            multi_label=datasets.multi_label,
        )
        self.compile(hp, model)
        return model

    def compile(self, hp: keras_tuner.HyperParameters, model: keras.Model) -> None:
        """Compiles the model of a trial; override it to compile in another way."""
        rate: Any = self._learning_rate(hp)
        if self.backbones.exist:
            rate = warm_up_and_cosine(rate or _RATE_OF_ADAM, self._steps(hp))
        model.compile("adam" if rate is None else keras.optimizers.Adam(rate))

    def fit(
        self,
        hp: keras_tuner.HyperParameters,
        model: keras.Model,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Trains the model of a trial.

        Args:
            hp: The hyperparameters of the trial.
            model: What `build` returned.
            *args: As for `keras.Model.fit`. The default data are those of the loader.
            **kwargs: As for `keras.Model.fit`. `epochs` overrides the hyperparameter.

        Returns:
            The metrics of the last epoch by name, or with `score="best"` the
            history.
        """
        callbacks = list(kwargs.pop("callbacks", ()))
        kwargs.setdefault("epochs", self._epochs(hp))
        trained = model
        if not args and "x" not in kwargs:
            datasets = self.datasets(self._batch_size(hp))
            if has_fixed_features(model):
                datasets = self._data.features(datasets.batch_size, model)
                trained = head_to_train(
                    model, steps_per_epoch(datasets), kwargs["epochs"]
                )
            kwargs |= {"x": datasets.train, "validation_data": datasets.validation}
            kwargs["shuffle"] = False  # the pipeline shuffles
            callbacks.insert(0, FollowEpochs(datasets))
        only_last = self.score == "last"
        callbacks = [
            _Checkpoint(item, model, only_last) if is_checkpoint(item) else item
            for item in callbacks
        ]
        history = trained.fit(*args, callbacks=callbacks, **kwargs)
        if self.score == "best":
            return history
        return {name: values[-1] for name, values in history.history.items()}

    def load(self, progress: Progress | None = None) -> ImageDatasets:
        """Loads the data, and computes the features that trials train on.

        Trials do this themselves when they first need it. Call it to see progress.

        Args:
            progress: As for `ImageDatasetLoader.load`, with one more step,
                `"features"`.

        Raises:
            InputError: If the data cannot be used, or features cannot be cached.
        """
        datasets = self._data.datasets(self.loader.batch_size, progress)
        if self.trains_on_features:
            model = ImageClassifier(
                datasets.class_names,
                hidden_units=(),
                augmentation=False,
                backbone=self.backbones.for_model(),
            )
            self._data.features(datasets.batch_size, model, progress)
        return datasets

    def datasets(self, batch_size: int | None = None) -> ImageDatasets:
        """Returns the loaded images, in batches of the loader or of another size."""
        return self._data.datasets(
            self.loader.batch_size if batch_size is None else batch_size
        )

    def last_stage(self, model: ImageClassifier) -> Stage:
        """Returns what a trial trains of a model, and on what, to evaluate it.

        Args:
            model: What `build` returned, with the weights of a trial.
        """
        datasets, fitted = self.datasets(), model
        is_on_features = has_fixed_features(model)
        if is_on_features:
            datasets = self._data.features(datasets.batch_size, model)
            fitted = model.head()
        return Stage(fitted, datasets, 0, self.epochs.high, is_on_features)

    def with_split(self, manifest: str | os.PathLike[str]) -> Self:
        """Returns a copy that splits the data by a manifest, such as a `split.json`."""
        twin = copy.copy(self)
        config = {**self.loader.get_config(), "split_manifest": str(manifest)}
        twin.loader = type(self.loader).from_config(config)
        twin._data = TrialData(twin.loader)
        return twin

    def _hidden_units(self, hp: keras_tuner.HyperParameters) -> tuple[int, ...]:
        count = self.layers.declare(hp, "layers")
        widths = []
        numbers = range(self.layers.low, self.layers.high + 1, self.layers.step)
        for number in range(1, self.layers.high + 1):
            deep_enough = [n for n in numbers if n >= number]
            if len(deep_enough) == len(numbers):
                widths.append(self.units.declare(hp, f"units_{number}"))
            else:
                with hp.conditional_scope("layers", deep_enough):
                    widths.append(self.units.declare(hp, f"units_{number}"))
        # Dense refuses the integers of NumPy that an oracle may give.
        return tuple(int(width) for width in widths[: int(count)])

    def _epochs(self, hp: keras_tuner.HyperParameters) -> int:
        return int(self.epochs.declare(hp, "epochs"))

    def _steps(self, hp: keras_tuner.HyperParameters) -> int:
        """Returns how many steps a trial trains, with Hyperband in its round."""
        begin, end = epochs_of_round(hp) or (0, self._epochs(hp))
        return (end - begin) * steps_per_epoch(self.datasets(self._batch_size(hp)))

    def _dropout(self, hp: keras_tuner.HyperParameters) -> float | None:
        if self.dropout is None:
            return None if self.backbones.exist else 0.0
        return float(self.dropout.declare(hp, "dropout"))

    def _learning_rate(self, hp: keras_tuner.HyperParameters) -> float | None:
        if self.learning_rate is None:
            return None
        return float(self.learning_rate.declare(hp, "learning_rate"))

    def _batch_size(self, hp: keras_tuner.HyperParameters) -> int:
        return int(self.batch_size.declare(hp, "batch_size"))

    def _augmentation(self) -> bool | str | keras.layers.Layer | None:
        """Returns the augmentation of one model: models must not share a layer."""
        if not isinstance(self.augmentation, keras.layers.Layer):
            return self.augmentation
        return type(self.augmentation).from_config(self.augmentation.get_config())


def _as_backbone(
    backbone: Backbone | str | os.PathLike[str] | keras.Model | None, loader: Any
) -> Backbone | None:
    """Returns a backbone for images of the size of the loader, if there is one."""
    if backbone is None or isinstance(backbone, Backbone):
        return backbone
    is_loader = isinstance(loader, ImageDatasetLoader)
    return Backbone(backbone, image_size=loader.image_size if is_loader else None)


class _Checkpoint(keras.callbacks.Callback):
    """Passes the whole model to KerasTuner's checkpoint, or only its last epoch.

    Args:
        checkpoint: The callback of KerasTuner.
        model: The whole model, where only its head is fitted.
        only_last: Whether to save the last epoch instead of the best.
    """

    def __init__(
        self, checkpoint: keras.callbacks.Callback, model: keras.Model, only_last: bool
    ) -> None:
        super().__init__()
        self._checkpoint = checkpoint
        self._whole = model
        self._only_last = only_last
        self._last: tuple[int, Mapping[str, Any]] | None = None

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._checkpoint.set_model(self._whole)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        if self._only_last:
            self._last = (epoch, dict(logs or {}))
        else:
            self._checkpoint.on_epoch_end(epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        del logs
        if self._last is not None:
            self._checkpoint.on_epoch_end(*self._last)
