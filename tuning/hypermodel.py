"""The space of image classifiers, and how one of them is trained."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import keras_tuner
from keras_flowers.tuning.ranges import choices, float_range, integer_range

from keras_flowers.dataset_loader import ImageDatasetLoader, ImageDatasets
from keras_flowers.errors import InputError
from keras_flowers.image_classifier import ImageClassifier
from keras_flowers.training import FollowEpochs

SCORES = ("last", "best")


class ImageClassifierHyperModel(keras_tuner.HyperModel):
    """Searches dense widths and depth of an `ImageClassifier`, and its epochs.

    The hyperparameters are `layers`, `units_1`, `units_2` and so on (each active in
    trials that have that many layers), `epochs`, and where asked for `dropout`,
    `learning_rate` and `batch_size`. All of them are declared before the first
    trial. A range of one value is not searched.

    It fits every tuner of KerasTuner. A tuner that says how many epochs a trial
    gets, as Hyperband does, has its way, and `epochs` is then without effect.

    The score of a trial is that of its last epoch, and its weights are saved at
    that epoch, so that evaluating the saved model gives the score again. With
    `score="best"` it is KerasTuner's: the best epoch of each trial, which favours
    long trials.

    A subclass may override `compile` to compile the models in another way.

    Args:
        loader: An `ImageDatasetLoader`, or what it takes as `data`. It is loaded
            when the first model is built, once per batch size; photos are decoded
            once.
        layers: Number of hidden layers, from 0: an integer, `(low, high)` or
            `(low, high, step)`; both ends are included, here and below.
        units: Width of each hidden layer, likewise, from 1.
        epochs: Number of epochs, likewise, from 1.
        dropout: Rate after each hidden layer, from 0 to below 1: a number,
            `(low, high)` or `(low, high, step)`; `None` for none.
        learning_rate: Learning rate of Adam, above 0: a number or `(low, high)`,
            searched by order of magnitude; `None` for Adam's own.
        batch_size: An integer or several to choose from; `None` for the loader's.
        augmentation: As for `ImageClassifier`.
        score: `"last"` or `"best"`, which epoch a trial is judged by.
        seed: Integer that decides the initial weights, augmentation and dropout of
            the next model, or `None`.

    Raises:
        InputError: If an argument is outside of what is described above.

    Example:
    ```python
    hypermodel = ImageClassifierHyperModel("flower_photos", units=(64, 512, 64))
    tuner = keras_tuner.RandomSearch(hypermodel, "val_accuracy", max_trials=20)
    tuner.search()
    ```
    """

    def __init__(
        self,
        loader: ImageDatasetLoader | str | os.PathLike[str],
        *,
        layers: int | Sequence[int] = (1, 3),
        units: int | Sequence[int] = (64, 512, 64),
        epochs: int | Sequence[int] = (5, 15),
        dropout: float | Sequence[float] | None = None,
        learning_rate: float | Sequence[float] | None = None,
        batch_size: int | Sequence[int] | None = None,
        augmentation: bool | keras.layers.Layer = True,
        score: str = "last",
        seed: int | None = None,
    ) -> None:
        if not isinstance(loader, ImageDatasetLoader):
            loader = ImageDatasetLoader(loader)
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
        self._loaded = LoadedDatasets(loader)
        super().__init__()

    def declare_hyperparameters(self, hp: keras_tuner.HyperParameters) -> None:
        """Declares the whole space without building a model."""
        self._hidden_units(hp)
        self._epochs(hp)
        self._dropout(hp)
        self._learning_rate(hp)
        self._batch_size(hp)

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Returns the compiled model of a trial, with fresh weights."""
        self.declare_hyperparameters(hp)
        datasets = self.datasets()
        model = ImageClassifier(
            datasets.class_names,
            image_size=datasets.image_size,
            hidden_units=self._hidden_units(hp),
            dropout=self._dropout(hp),
            augmentation=self._augmentation(),
            seed=self.seed,
        )
        self.compile(hp, model)
        return model

    def compile(self, hp: keras_tuner.HyperParameters, model: keras.Model) -> None:
        """Compiles the model of a trial; override it to compile in another way."""
        rate = self._learning_rate(hp)
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
            *args: As for `keras.Model.fit`. Without data the loader's is used.
            **kwargs: Likewise. `epochs` takes the place of the hyperparameter.

        Returns:
            The metrics of the last epoch by name, or with `score="best"` the
            history.
        """
        callbacks = list(kwargs.pop("callbacks", ()))
        if not args and "x" not in kwargs:
            datasets = self.datasets(self._batch_size(hp))
            kwargs |= {"x": datasets.train, "validation_data": datasets.validation}
            kwargs["shuffle"] = False  # the pipeline shuffles
            callbacks.insert(0, FollowEpochs(datasets))
        kwargs.setdefault("epochs", self._epochs(hp))
        if self.score == "best":
            return model.fit(*args, callbacks=callbacks, **kwargs)
        history = model.fit(*args, callbacks=_saving_last(callbacks), **kwargs)
        return {name: values[-1] for name, values in history.history.items()}

    def datasets(self, batch_size: int | None = None) -> ImageDatasets:
        """Returns the loaded data, in batches of the loader or of another size."""
        return self._loaded.get(
            self.loader.batch_size if batch_size is None else batch_size
        )

    def use_split(self, manifest: str | os.PathLike[str]) -> None:
        """Splits the data by a manifest, such as the `split.json` of a search."""
        config = {**self.loader.get_config(), "split_manifest": str(manifest)}
        self.loader = type(self.loader).from_config(config)
        self._loaded = LoadedDatasets(self.loader)

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
        # An integer of NumPy, as an oracle may give, is none for a Dense layer.
        return tuple(int(width) for width in widths[: int(count)])

    def _epochs(self, hp: keras_tuner.HyperParameters) -> int:
        return int(self.epochs.declare(hp, "epochs"))

    def _dropout(self, hp: keras_tuner.HyperParameters) -> float:
        if self.dropout is None:
            return 0.0
        return float(self.dropout.declare(hp, "dropout"))

    def _learning_rate(self, hp: keras_tuner.HyperParameters) -> float | None:
        if self.learning_rate is None:
            return None
        return float(self.learning_rate.declare(hp, "learning_rate"))

    def _batch_size(self, hp: keras_tuner.HyperParameters) -> int:
        return int(self.batch_size.declare(hp, "batch_size"))

    def _augmentation(self) -> bool | keras.layers.Layer:
        """Returns a layer of its own for each model."""
        if isinstance(self.augmentation, bool):
            return self.augmentation
        return type(self.augmentation).from_config(self.augmentation.get_config())


class LoadedDatasets:
    """The data of a loader by batch size, loaded when it is asked for.

    A copy in another process loads it anew: pipelines cannot be sent there.
    """

    def __init__(self, loader: ImageDatasetLoader) -> None:
        self._loader = loader
        self._by_batch_size: dict[int, ImageDatasets] = {}

    def get(self, batch_size: int) -> ImageDatasets:
        """Returns the data in batches of a size."""
        if batch_size not in self._by_batch_size:
            config = {**self._loader.get_config(), "batch_size": batch_size}
            loader = type(self._loader).from_config(config)
            self._by_batch_size[batch_size] = loader.load()
        return self._by_batch_size[batch_size]

    def __reduce__(self) -> tuple[Any, ...]:
        """Makes a copy without the data."""
        return type(self), (self._loader,)


class _AtTheEnd(keras.callbacks.Callback):
    """Shows another callback the last epoch and no other."""

    def __init__(self, callback: keras.callbacks.Callback) -> None:
        super().__init__()
        self._callback = callback
        self._last: tuple[int, Mapping[str, Any]] | None = None

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        self._callback.set_model(model)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._last = (epoch, dict(logs or {}))

    def on_train_end(self, logs: Any = None) -> None:
        del logs
        if self._last is not None:
            self._callback.on_epoch_end(*self._last)


def _saving_last(
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[keras.callbacks.Callback]:
    """Makes KerasTuner save the last epoch of a trial instead of its best.

    Its callback is known by the name of its class only, which is not public.
    """
    return [
        _AtTheEnd(callback) if type(callback).__name__ == "SaveBestEpoch" else callback
        for callback in callbacks
    ]
