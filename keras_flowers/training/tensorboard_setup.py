"""What a run writes for TensorBoard."""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_flowers.callbacks import TensorBoard, TensorBoardOptions
from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.data.image_files import load_image
from keras_flowers.models.image_classifier import ImageClassifier
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
    """
    paths = datasets.paths("validation")

    def image_of(position: int) -> np.ndarray:
        return load_image(paths[position], datasets.image_size)

    return TensorBoard(
        directory,
        class_names=datasets.class_names,
        training_images=None if features else _load_images_of_all_classes(datasets),
        validation_data=(features or datasets).validation,
        image_of=image_of if features else None,
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
        configuration: What repeats the run, `TrainingConfig.to_json`.
        model: The compiled model. Of one that is no `ImageClassifier` the widths and
            rates are empty.
        datasets: What it is trained on.
    """
    # Mixed precision puts the optimizer into another.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    weights = configuration["class_weights"]
    # Another model may call anything of its own so: a layer `dropout`.
    ours = model if isinstance(model, ImageClassifier) else None
    backbone = None if ours is None else ours.backbone
    tuning = configuration["fine_tuning"]
    return {
        "model": type(model).__name__,
        "backbone": "none" if backbone is None else str(backbone.network.name),
        "hidden_units": ",".join(map(str, getattr(ours, "hidden_units", ()))),
        "dropout": 0.0 if ours is None else ours.dropout_rate,
        "augmentation": ours is not None and ours.augments,
        "optimizer": type(optimizer).__name__,
        "learning_rate": _highest_learning_rate(optimizer),
        "precision": str(model.dtype_policy.name),
        "epochs": configuration["epochs"],
        "fine_tuning_epochs": tuning["epochs"] if tuning else 0,
        "early_stopping": configuration["early_stopping"] or 0,
        "class_weights": "given" if isinstance(weights, dict) else weights or "none",
        "batch_size": datasets.batch_size,
        "image_size": "x".join(map(str, datasets.image_size)),
        "training_photos": len(datasets.split.train),
        "seed": configuration["loader"]["config"]["seed"],
    }


def _highest_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Returns the rate; of a schedule, which begins and ends low, the highest."""
    schedule = optimizer.get_config()["learning_rate"]
    if isinstance(schedule, dict):
        settings = schedule["config"]
        highest = settings.get("warmup_target") or settings.get("initial_learning_rate")
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
    return np.stack([load_image(path, datasets.image_size) for path in chosen])
