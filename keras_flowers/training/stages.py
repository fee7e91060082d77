"""The stages of a run: which model is fitted, and on what.

A run has one stage, or two. A model with a pretrained backbone begins with a frozen
stage: only its head is trained, on cached features where the images do not change. With
`FineTuning` a second stage trains the backbone as well. Any other model has one stage,
which trains all of it.
"""

import dataclasses
import math

import keras

from keras_flowers.data.dataset_loader import ImageDatasets
from keras_flowers.distribution import build_optimizer, strategy_scope
from keras_flowers.errors import InputError
from keras_flowers.models.backbone import Backbone
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress
from keras_flowers.training.config import FineTuning, TrainingConfig
from keras_flowers.training.feature_datasets import with_features
from keras_flowers.training.schedules import WARM_UP, warm_up_and_cosine


@dataclasses.dataclass(frozen=True)
class Stage:
    """One call of `fit`.

    Attributes:
        model: What is fitted: the model, or its head where features are fixed.
        datasets: What it is fitted on: images, or their features.
        begin: Number of epochs before this stage.
        end: Number of epochs after it.
        is_on_features: Whether the model gets features instead of images.
    """

    model: keras.Model
    datasets: ImageDatasets
    begin: int
    end: int
    is_on_features: bool = False

    @property
    def is_first(self) -> bool:
        """Whether no other stage precedes it."""
        return self.begin == 0


def begin_first_stage(
    config: TrainingConfig,
    model: keras.Model,
    datasets: ImageDatasets,
    progress: Progress | None,
) -> Stage:
    """Returns the first stage.

    Where a frozen backbone gives the same features in every epoch they are computed
    once, and the head of the model is fitted on them.

    Args:
        config: The configuration of the run.
        model: The compiled model.
        datasets: The images.
        progress: As for `with_features`.
    """
    is_on_features = has_fixed_features(model)
    if is_on_features:
        datasets = with_features(datasets, model, progress)
        model = head_to_train(model, steps_per_epoch(datasets), config.epochs)
    return Stage(model, datasets, 0, config.epochs, is_on_features)


def begin_fine_tuning_stage(
    config: TrainingConfig,
    tuning: FineTuning,
    model: keras.Model,
    datasets: ImageDatasets,
) -> Stage:
    """Returns the second stage.

    Unfreezes the backbone and compiles the model with a new optimizer.

    Args:
        config: The configuration of the run.
        tuning: The settings of the stage.
        model: The compiled model.
        datasets: The images.
    """
    _require_pretrained_backbone(model).unfreeze(tuning.unfreeze_from)
    steps = tuning.epochs * steps_per_epoch(datasets)
    # Mixed precision wraps the optimizer in another one.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    warm_up = WARM_UP if tuning.warm_up is None else tuning.warm_up
    rate = warm_up_and_cosine(tuning.learning_rate, steps, warm_up)
    with strategy_scope(model):
        new_optimizer = type(optimizer).from_config(
            {**optimizer.get_config(), "learning_rate": rate}
        )
    model.compile(**{**model.compile_arguments(), "optimizer": new_optimizer})
    end = config.epochs + tuning.epochs
    return Stage(model, datasets, config.epochs, end)


def check_fine_tuning(tuning: FineTuning | None, model: keras.Model) -> None:
    """Refuses a second stage that is impossible for the model.

    Raises:
        InputError: If the model has no pretrained backbone, or its backbone no layer
            with the name to unfreeze from.
    """
    if tuning is not None:
        _require_pretrained_backbone(model).layers_from(tuning.unfreeze_from)


def has_fixed_features(model: keras.Model) -> bool:
    """Tells whether a model can be trained on features instead of images."""
    return isinstance(model, ImageClassifier) and model.has_fixed_features


def head_to_train(
    model: ImageClassifier, steps_per_epoch: int, epochs: int
) -> keras.Model:
    """Returns the head of a model, ready to be fitted on features.

    Args:
        model: A compiled classifier.
        steps_per_epoch: Training steps in an epoch. They are run as one execution.
        epochs: For how many epochs it is trained.
    """
    head = model.head(steps_per_epoch, steps_per_epoch * epochs)
    # `fit` would build it while it traces the step, and trace the step twice.
    build_optimizer(head)
    return head


def steps_per_epoch(datasets: ImageDatasets) -> int:
    """Returns the number of training steps in an epoch."""
    return math.ceil(len(datasets.split.train) / datasets.batch_size)


def _require_pretrained_backbone(model: keras.Model) -> Backbone:
    backbone = model.backbone if isinstance(model, ImageClassifier) else None
    if backbone is None or not backbone.is_pretrained:
        raise InputError(
            "`fine_tuning` needs an `ImageClassifier` with a pretrained backbone."
        )
    return backbone
