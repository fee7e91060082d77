"""What is fitted in each stage of a training, and on what."""

import dataclasses
import math

import keras

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.errors import InputError
from keras_flowers.models.backbone import Backbone
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress
from keras_flowers.training.config import FineTuning, TrainingConfig
from keras_flowers.training.feature_datasets import with_features
from keras_flowers.training.schedules import warm_up_and_cosine


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a training with a model and data of its own.

    Attributes:
        model: What is fitted: the model, or its head where features are fixed.
        datasets: What it is fitted on: images, or their features.
        begin: Epochs before it.
        end: Epochs when it is over.
        is_on_features: Whether the model gets features in place of images.
    """

    model: keras.Model
    datasets: ImageDatasets
    begin: int
    end: int
    is_on_features: bool = False


def check_fine_tuning(tuning: FineTuning | None, model: keras.Model) -> None:
    """Refuses a second stage that the model cannot have.

    Raises:
        InputError: If the model has no pretrained backbone, or that has no such layer.
    """
    if tuning is not None:
        _pretrained(model).layers_from(tuning.unfreeze_from)


def training_stage(
    config: TrainingConfig,
    model: keras.Model,
    datasets: ImageDatasets,
    progress: Progress | None,
) -> Stage:
    """Returns the first stage.

    Where a frozen backbone gives the same features in every epoch they are computed
    once, and the head of the model is fitted on them.

    Args:
        config: How it is trained.
        model: The compiled model.
        datasets: The images.
        progress: As for `with_features`.
    """
    is_on_features = has_fixed_features(model)
    if is_on_features:
        datasets = with_features(datasets, model, progress)
        model = head_to_train(model, steps_per_epoch(datasets), config.epochs)
    return Stage(model, datasets, 0, config.epochs, is_on_features)


def fine_tuning_stage(
    config: TrainingConfig,
    tuning: FineTuning,
    model: keras.Model,
    datasets: ImageDatasets,
) -> Stage:
    """Unfreezes the backbone, compiles the model anew and returns the second stage."""
    _pretrained(model).unfreeze(tuning.unfreeze_from)
    steps = tuning.epochs * steps_per_epoch(datasets)
    # Mixed precision puts the optimizer into another.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    rate = warm_up_and_cosine(tuning.learning_rate, steps)
    anew = type(optimizer).from_config(
        {**optimizer.get_config(), "learning_rate": rate}
    )
    model.compile(**{**model.compile_arguments(), "optimizer": anew})
    end = config.epochs + tuning.epochs
    return Stage(model, datasets, config.epochs, end)


def has_fixed_features(model: keras.Model) -> bool:
    """Tells whether a model can be trained on features in place of images."""
    return isinstance(model, ImageClassifier) and model.has_fixed_features


def head_to_train(
    model: ImageClassifier, steps_per_epoch: int, epochs: int
) -> keras.Model:
    """Returns the head of a model, made ready for its training.

    Args:
        model: A compiled classifier.
        steps_per_epoch: Training steps in an epoch, which are run at once.
        epochs: For how many epochs it is trained.
    """
    head = model.head(steps_per_epoch, steps_per_epoch * epochs)
    if not head.optimizer.built:
        # Else `fit` builds it while it traces the step, and has to trace that twice.
        head.optimizer.build(head.trainable_variables)
    return head


def steps_per_epoch(datasets: ImageDatasets) -> int:
    """Returns the number of training steps in an epoch."""
    return math.ceil(len(datasets.split.train) / datasets.batch_size)


def _pretrained(model: keras.Model) -> Backbone:
    backbone = model.backbone if isinstance(model, ImageClassifier) else None
    if backbone is None or not backbone.is_pretrained:
        raise InputError(
            "`fine_tuning` needs an `ImageClassifier` with a pretrained backbone."
        )
    return backbone
