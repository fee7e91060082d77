"""The model: from raw photos to class probabilities, with the names it knows."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from keras_flowers.arguments import checked_image_size
from keras_flowers.augmentation import ImageAugmentation
from keras_flowers.errors import InputError
from keras_flowers.photo_files import load_photo
from keras_flowers.preprocessing import ResizeAndRescale
from keras_flowers.registration import register


@dataclasses.dataclass(frozen=True)
class Classification:
    """What a classifier says of one photo.

    Attributes:
        path: The photo, as it was passed in.
        label: The most probable class name.
        probability: Float in 0..1, the probability of `label`.
        probabilities: Every class name with its probability, most probable first.
    """

    path: str
    label: str
    probability: float
    probabilities: dict[str, float]


@register("ImageClassifier")
class ImageClassifier(keras.Model):
    """A dense image classifier that carries its preprocessing and its class names.

    Resize and rescale, augmentation (in training only), `Flatten`, one `Dense` layer
    with ReLU per entry of `hidden_units`, and a softmax over the classes. The
    defaults are 256 and 128 units on photos of 256x256 pixels.

    Args:
        class_names: Strings, at least two, all different; position `i` is the name
            of label `i`.
        image_size: Pair of integers, `(height, width)` in pixels of the photos that
            the network sees.
        hidden_units: Integers, the width of each hidden layer; may be empty.
        dropout: Float from 0 to below 1, the rate after each hidden layer.
        augmentation: `True` for the default `ImageAugmentation`, `False` for none,
            or any layer that maps photos with values 0..1 to such photos.
        seed: Integer or `None`. With an integer the initial weights, the
            augmentation and the dropout are the same for every new model.
        **kwargs: `name`, `dtype` (a dtype policy such as `"mixed_bfloat16"`) and
            `trainable`, as for `keras.Model`.

    Input shape:
        `(batch, height, width, 3)`, of any size and any integer or float dtype,
        values 0..255.

    Output shape:
        `(batch, len(class_names))`, float32, probabilities that sum to 1.

    Raises:
        InputError: If an argument is outside of what is described above.

    Example:
    ```python
    model = keras_flowers.ImageClassifier(["daisy", "roses", "tulips"])
    model.compile()
    model.fit(photos, labels)
    model.save("flowers.keras")
    ```
    """

    def __init__(
        self,
        class_names: Sequence[str],
        image_size: tuple[int, int] = (256, 256),
        hidden_units: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        augmentation: bool | keras.layers.Layer = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        class_names = _checked_class_names(class_names)
        image_size = checked_image_size(image_size)
        hidden_units = _checked_hidden_units(hidden_units)
        dropout = _checked_dropout(dropout)

        # === Layers ===
        dtype = kwargs.get("dtype")
        seeds = _seeds(seed)
        layers = [ResizeAndRescale(image_size, dtype=dtype)]
        if augmentation is True:
            layers.append(
                ImageAugmentation(value_range=(0, 1), seed=next(seeds), dtype=dtype)
            )
        elif augmentation:
            layers.append(augmentation)
        layers.append(keras.layers.Flatten(dtype=dtype))
        for units in hidden_units:
            layers.append(_dense(units, "relu", next(seeds), dtype))
            if dropout:
                layers.append(
                    keras.layers.Dropout(dropout, seed=next(seeds), dtype=dtype)
                )
        # Probabilities stay float32 under mixed precision: sums of half-precision
        # probabilities are off by too much for the loss.
        layers.append(_dense(len(class_names), "softmax", next(seeds), "float32"))

        # === Functional model ===
        inputs = keras.Input((None, None, 3), name="photos")
        outputs = inputs
        for layer in layers:
            outputs = layer(outputs)
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        if dtype is not None:
            # Keras ignores the argument for a functional model.
            self.dtype_policy = dtype

        # === Config ===
        self.class_names = class_names
        self.image_size = image_size
        self.hidden_units = hidden_units
        self.dropout = dropout
        self.augmentation = augmentation
        self.seed = seed

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = "sparse_categorical_crossentropy",
        *,
        metrics: Any = ("accuracy",),
        jit_compile: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        """Configures training; every argument has a sensible default.

        Args:
            optimizer: As for `keras.Model.compile`.
            loss: As for `keras.Model.compile`; labels are integers by default.
            metrics: As for `keras.Model.compile`.
            jit_compile: `True`, `False` or `"auto"`: compile with XLA where it pays.
                Dense models gain on every device, so on TensorFlow `"auto"` is
                `True`; on the other backends it is left to Keras.
            **kwargs: The other arguments of `keras.Model.compile`.
        """
        if jit_compile == "auto" and keras.backend.backend() == "tensorflow":
            jit_compile = not kwargs.get("run_eagerly", False)
        super().compile(
            optimizer=optimizer,
            loss=loss,
            metrics=list(metrics) if isinstance(metrics, tuple) else metrics,
            jit_compile=jit_compile,
            **kwargs,
        )

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles the model as the saved one was; called by `load_model`."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def classify(
        self,
        paths: Iterable[str | os.PathLike[str]],
        batch_size: int = 32,
    ) -> list[Classification]:
        """Classifies photo files.

        Args:
            paths: Files in any format that training reads.
            batch_size: Integer, how many photos are in memory at once.

        Returns:
            One `Classification` per path, in the order of `paths`.

        Raises:
            InputError: If a file is no readable photo; the message names it.
        """
        names = [os.fspath(path) for path in paths]
        results: list[Classification] = []
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(names), batch_size):
                batch = names[start : start + batch_size]
                photos = list(pool.map(self._load, batch))
                probabilities = self.predict_on_batch(np.stack(photos))
                results += map(self._classification, batch, probabilities)
        return results

    def _load(self, path: str) -> np.ndarray:
        return load_photo(path, self.image_size)

    def _classification(self, path: str, probabilities: Any) -> Classification:
        order = np.argsort(-probabilities, kind="stable")
        by_name = {self.class_names[i]: float(probabilities[i]) for i in order}
        label, probability = next(iter(by_name.items()))
        return Classification(path, label, probability, by_name)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        augmentation: Any = self.augmentation
        if not isinstance(augmentation, bool):
            augmentation = keras.saving.serialize_keras_object(augmentation)
        return {
            **super().get_config(),
            "class_names": list(self.class_names),
            "image_size": list(self.image_size),
            "hidden_units": list(self.hidden_units),
            "dropout": self.dropout,
            "augmentation": augmentation,
            "seed": self.seed,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "ImageClassifier":
        """Creates a model with fresh weights from what `get_config` returned."""
        config = dict(config)
        if isinstance(config["augmentation"], dict):
            config["augmentation"] = keras.saving.deserialize_keras_object(
                config["augmentation"], custom_objects=custom_objects
            )
        return cls(**config)


def _dense(
    units: int, activation: str, seed: int | None, dtype: Any
) -> keras.layers.Dense:
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=keras.initializers.GlorotUniform(seed),
        dtype=dtype,
    )


def _seeds(seed: int | None) -> Iterator[int | None]:
    """Yields a different seed per component, or `None` forever without a seed."""
    component = 0
    while True:
        yield None if seed is None else seed + component
        component += 1


def _checked_class_names(class_names: Any) -> tuple[str, ...]:
    names = () if isinstance(class_names, str) else tuple(class_names)
    is_valid = len(names) >= 2 and len(set(names)) == len(names)
    if not is_valid or not all(isinstance(name, str) for name in names):
        raise InputError(
            "`class_names` must be at least two different strings. "
            f"Received: class_names={class_names!r}"
        )
    return names


def _checked_hidden_units(hidden_units: Any) -> tuple[int, ...]:
    try:
        # Plain ints: Dense refuses the integers of NumPy and of tuners.
        units = tuple(int(width) for width in hidden_units)
    except (TypeError, ValueError):
        units = (0,)
    if any(width < 1 for width in units):
        raise InputError(
            "`hidden_units` must be a sequence of positive integers. "
            f"Received: hidden_units={hidden_units!r}"
        )
    return units


def _checked_dropout(dropout: Any) -> float:
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise InputError(
            "`dropout` must be a number from 0 to below 1. "
            f"Received: dropout={dropout!r}"
        )
    return float(dropout)
