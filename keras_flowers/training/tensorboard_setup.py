"""What a run writes for TensorBoard."""

from pathlib import Path
from typing import Any

import keras
import keras_flowers_settings as settings
import numpy as np

from keras_flowers import explanation
from keras_flowers.callbacks import TensorBoard, TensorBoardOptions
from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.data.image_files import load_image
from keras_flowers.training.stages import steps_per_epoch

# Limits the number of large images: they are augmented after every epoch.
_PIXELS = 9 * 1024**2


def tensorboard_of_run(
    directory: Path,
    configuration: dict[str, Any],
    model: keras.Model,
    datasets: ImageDatasets,
    features: ImageDatasets | None = None,
    epochs_before: int = 0,
    *,
    with_computed_images: bool = True,
) -> TensorBoard:
    """Returns the callback that writes a run for TensorBoard.

    It does not read the training pipeline, whose order therefore does not change.

    Args:
        directory: Folder for the event files.
        configuration: `TrainingConfig.to_json` of the run.
        model: The compiled model.
        datasets: The images it is trained on.
        features: The data with features instead of images, if the head of the model
            is trained on features.
        epochs_before: Epochs of earlier stages, which had another optimizer.
        with_computed_images: Whether to show augmented images and mistakes, for which
            the model has to compute something.
    """
    paths = datasets.paths("validation")

    def image_of(position: int) -> np.ndarray:
        return load_image(paths[position], datasets.image_size, datasets.image_options)

    return TensorBoard(
        directory,
        class_names=datasets.class_names,
        training_images=(
            _load_images_of_all_classes(datasets)
            if with_computed_images and not features
            else None
        ),
        # With several labels per image, no class is taken for another.
        validation_data=(
            (features or datasets).validation
            if with_computed_images and not datasets.multi_label
            else None
        ),
        image_of=image_of if features else None,
        heatmaps_of=explanation.heatmap_function(model),
        hparams=hyperparameters(configuration, model, datasets),
        configuration=configuration,
        images_per_epoch=len(datasets.split.train),
        steps_before=epochs_before * steps_per_epoch(datasets),
    )


def hyperparameters(
    configuration: dict[str, Any], model: keras.Model, datasets: ImageDatasets
) -> dict[str, bool | int | float | str]:
    """Returns what distinguishes a run from others, the same names for every run.

    Args:
        configuration: What reproduces the run, `TrainingConfig.to_json`.
        model: The compiled model.
        datasets: What it is trained on.
    """
    # Mixed precision wraps the optimizer in another.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return {
        **settings.hyperparameters(configuration),
        # What the configuration of another model than an `ImageClassifier` may not say.
        "model": type(model).__name__,
        "optimizer": type(optimizer).__name__,
        "learning_rate": _highest_learning_rate(optimizer),
        "precision": str(model.dtype_policy.name),
        "training_photos": len(datasets.split.train),
    }


def _highest_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Returns the rate; of a schedule, which begins and ends low, the highest."""
    schedule = optimizer.get_config()["learning_rate"]
    if isinstance(schedule, dict):
        config = schedule["config"]
        highest = config.get("warmup_target") or config.get("initial_learning_rate")
        if highest is not None:
            return float(highest)
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def _load_images_of_all_classes(datasets: ImageDatasets) -> np.ndarray:
    """Returns training images, uint8 `(count, height, width, 3)`.

    The paths are sorted by class, so paths at even distances cover all classes.
    """
    height, width = datasets.image_size
    most = max(1, _PIXELS // (height * width))
    paths = datasets.paths("train")
    count = min(most, TensorBoardOptions.augmented_images, len(paths))
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    size, options = datasets.image_size, datasets.image_options
    return np.stack([load_image(path, size, options) for path in chosen])
