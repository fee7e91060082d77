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
from keras_flowers.training.config_difference import LATER_SETTINGS
from keras_flowers.training.feature_datasets import adapt_linear_head, with_features
from keras_flowers.training.processes import Team
from keras_flowers.training.schedules import WARM_UP, warm_up_and_cosine

# Defaults of the fine-tuning stage.
LABEL_SMOOTHING = 0.1
WEIGHT_DECAY = 0.01


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
    team: Team | None = None,
) -> Stage:
    """Returns the first stage.

    Where a frozen backbone gives the same features in every epoch they are computed
    once, and the head of the model is fitted on them.

    Args:
        config: The configuration of the run.
        model: The compiled model.
        datasets: The images.
        progress: As for `with_features`.
        team: As for `with_features`.
    """
    is_on_features = has_fixed_features(model)
    if not is_on_features and isinstance(model, ImageClassifier):
        adapt_linear_head(datasets, model, progress, team)
    if is_on_features:
        datasets = with_features(
            datasets,
            model,
            progress,
            config.feature_views,
            config.inference_precision,
            team,
        )
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
    if model.has_linear_head and isinstance(optimizer, keras.optimizers.SGD):
        # What suits a linear head is far too slow for a whole network.
        optimizer = keras.optimizers.Adam()
    settings = optimizer.get_config()
    decay = tuning.weight_decay
    if decay is None:
        found = settings.get("weight_decay")
        decay = WEIGHT_DECAY if found is None else found
    # None where it is off, except that AdamW insists on a number.
    if not decay and settings.get("weight_decay") is None:
        decay = None
    with strategy_scope(model):
        new_optimizer = type(optimizer).from_config(
            {**settings, "learning_rate": rate, "weight_decay": decay}
        )
    smoothing = tuning.label_smoothing
    model.compile(
        **{
            **model.compile_arguments(),
            "optimizer": new_optimizer,
            "label_smoothing": LABEL_SMOOTHING if smoothing is None else smoothing,
        }
    )
    end = config.epochs + tuning.epochs
    strength = _choose_augmentation(tuning, model)
    fitted = model if strength is None else model.with_augmentation(strength)
    return Stage(fitted, datasets, config.epochs, end)


def _choose_augmentation(tuning: FineTuning, model: ImageClassifier) -> str | None:
    """Returns the augmentation of the second stage, `None` for that of the model."""
    if tuning.augmentation is not None:
        return tuning.augmentation
    return "light" if model.augmentation is None else None


def check_fine_tuning(tuning: FineTuning | None, model: keras.Model) -> None:
    """Refuses a second stage that is impossible for the model.

    Raises:
        InputError: If the model has no pretrained backbone, or its backbone no layer
            with the name to unfreeze from.
    """
    if tuning is not None:
        _require_pretrained_backbone(model).layers_from(tuning.unfreeze_from)


def check_features(config: TrainingConfig, model: keras.Model) -> None:
    """Refuses settings of cached features for a model that is trained on images.

    Raises:
        InputError: If there are such settings and the model is trained on images.
    """
    if has_fixed_features(model):
        return
    for name, default in LATER_SETTINGS.items():
        value = getattr(config, name)
        if value != default:
            raise InputError(
                f"`{name}` needs an `ImageClassifier` with a pretrained backbone and "
                f"without augmentation. Received: {name}={value!r}"
            )


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
