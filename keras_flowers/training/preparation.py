"""From a configuration to data and a model that are checked and ready to train."""

import dataclasses
from collections.abc import Callable, Mapping

import keras

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.distribution import check_batches
from keras_flowers.errors import InputError
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.models.transfer import transfer_weights
from keras_flowers.progress import Progress
from keras_flowers.training.config import ModelBuilder, TrainingConfig
from keras_flowers.training.stages import check_features, check_fine_tuning


@dataclasses.dataclass(frozen=True)
class PreparedRun:
    """Everything that training needs.

    Attributes:
        config: The configuration of the run.
        datasets: Its images.
        model: The built and compiled model.
        class_weights: The weight of each label, or `None`.
    """

    config: TrainingConfig
    datasets: ImageDatasets
    model: keras.Model
    class_weights: dict[int, float] | None


def prepare_run(
    config: TrainingConfig,
    progress: Progress | None = None,
    on_loaded: Callable[[ImageDatasets], None] | None = None,
    on_transferred: Callable[[str], None] | None = None,
) -> PreparedRun:
    """Loads the data and builds the model.

    Args:
        config: The configuration of the run.
        progress: As for `ImageDatasetLoader.load`.
        on_loaded: Called with the data before the model is built.
        on_transferred: Called with a line that says which weights the model starts
            from, where it starts from those of another one.

    Raises:
        InputError: If the data cannot be used, or the configuration does not fit the
            data or the model.
    """
    datasets = config.loader.load(progress)
    if on_loaded is not None:
        on_loaded(datasets)
    if config.early_stopping is not None and datasets.validation is None:
        raise InputError("`early_stopping` needs a validation split above 0.")
    model = build_compiled_model(config.build_model, datasets)
    check_fine_tuning(config.fine_tuning, model)
    check_features(config, model)
    if config.init_from is not None:
        line = transfer_weights(model, config.init_from)
        if on_transferred is not None:
            on_transferred(line)
    counts = {name: len(datasets.records(name)) for name in ("train", "validation")}
    check_batches(counts, datasets.batch_size, model)
    weights = weigh_labels(config.class_weights, datasets)
    return PreparedRun(config, datasets, model, weights)


def build_compiled_model(
    build_model: ModelBuilder, datasets: ImageDatasets
) -> keras.Model:
    """Returns the model with all variables, compiled.

    Raises:
        InputError: If it is not a Keras model, has other class names than the data, is
            not compiled and not an `ImageClassifier`, resizes images in another way
            than the loader, or is for one label per image where the data has several.
    """
    model = build_model(datasets)
    if not isinstance(model, keras.Model):
        raise InputError(
            f"`build_model` must return a Keras model. Received: {model!r}"
        )
    names = tuple(getattr(model, "class_names", datasets.class_names))
    if names != datasets.class_names:
        # The same names in another order would be trained under wrong labels.
        raise InputError(
            "The model must have the class names of the data, in the same order: "
            f"{list(datasets.class_names)}. Received: {list(names)}"
        )
    if isinstance(model, ImageClassifier) and model.multi_label != datasets.multi_label:
        several, one = "several labels per image", "one class per image"
        wanted, found = (several, one) if datasets.multi_label else (one, several)
        raise InputError(
            f"The model must be one for {wanted}, as the data is: an ImageClassifier "
            f"with multi_label={datasets.multi_label}. Received: one for {found}"
        )
    resize = datasets.image_options.resize
    if isinstance(model, ImageClassifier) and model.resize != resize:
        raise InputError(
            "The model must resize images as the loader does. Received: an "
            f"ImageClassifier with resize={model.resize!r} and a loader with "
            f"resize={resize!r}"
        )
    if not model.compiled:
        if not isinstance(model, ImageClassifier):
            raise InputError("`build_model` must return a compiled model.")
        model.compile()
    if not (model.built and all(layer.built for layer in model.layers)):
        # Its size and its checkpoint must be known before the first step. `build` of a
        # subclassed model may build no layer; a symbolic call builds all of them.
        model(keras.KerasTensor((None, *datasets.image_size, 3), "uint8"))
    return model


def weigh_labels(
    weights: str | Mapping[str, float] | None, datasets: ImageDatasets
) -> dict[int, float] | None:
    """Returns what Keras takes as `class_weight`.

    Args:
        weights: As for `TrainingConfig`.
        datasets: The data.

    Raises:
        InputError: If the classes are not those of the data, or one that is to be
            balanced has no training images. If images may have several labels.
    """
    if weights is None:
        return None
    if datasets.multi_label:
        raise InputError(
            "`class_weights` must be None for images with several labels: the weight "
            "of an image is that of its one class. Thresholds that are fitted to each "
            f"label make up for rare ones. Received: class_weights={weights!r}"
        )
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
        raise InputError(
            f"`class_weights` cannot balance {empty}: there are no training images."
        )
    total = sum(counts.values())
    return {i: total / (len(counts) * n) for i, n in enumerate(counts.values())}
