"""Cross-validates the head of a run on cached features."""

from typing import Any

import numpy as np

from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.split_assignment import (
    group_images,
    link_groups,
    number_groups,
)
from keras_flowers.errors import InputError
from keras_flowers.evaluation.cross_validation import CrossValidation
from keras_flowers.evaluation.evaluate import Evaluation
from keras_flowers.evaluation.multi_label import MultiLabelEvaluation
from keras_flowers.evaluation.out_of_fold import (
    assign_folds,
    out_of_fold_probabilities,
)
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress
from keras_flowers.training.feature_datasets import load_features
from keras_flowers.training.preparation import PreparedRun

# The images of the test part stay out of everything that is trained.
_PARTS = ("train", "validation")


def check_folds(prepared: PreparedRun, folds: int) -> None:
    """Makes sure that a run can be cross-validated.

    Args:
        prepared: The run, before it is trained.
        folds: Number of folds, from 2.

    Raises:
        InputError: If the model has no linear head on fixed features, or there are too
            few images.
    """
    model = prepared.model
    is_linear = isinstance(model, ImageClassifier) and model.has_linear_head
    if not is_linear or not model.has_fixed_features:
        raise InputError(
            "`folds` needs a model whose features are computed once: a pretrained "
            "`backbone` (--backbone) without augmentation, hidden layers and dropout."
        )
    assign_folds(_labels(prepared), folds, groups=_groups(prepared))


def cross_validate(
    prepared: PreparedRun,
    folds: int,
    tta: int = 1,
    progress: Progress | None = None,
) -> CrossValidation:
    """Predicts each image by a linear head that is trained without its fold.

    Copies of an image, and images of one group, are in one fold. The head is solved
    directly, with the default strength of its penalty: learning rate, epochs, label
    smoothing and weight decay of the run have no effect, and there is no temperature.

    Args:
        prepared: A run that `check_folds` accepts. Its training and validation images
            are used; its model is only asked for features.
        folds: Number of folds, from 2.
        tta: Number of views over which probabilities are averaged.
        progress: As for `with_features`.
    """
    datasets, config = prepared.datasets, prepared.config
    views = max(config.feature_views, tta)
    counts = {part: views for part in _PARTS if datasets.records(part)}
    of_parts = load_features(
        datasets, prepared.model, counts, progress, config.inference_precision
    )
    features = np.concatenate([np.stack(of_parts[part]) for part in counts], axis=1)
    labels, groups = _labels(prepared), _groups(prepared)
    seed = config.loader.seed
    probabilities = out_of_fold_probabilities(
        features,
        labels,
        folds,
        seed,
        groups,
        trained_views=config.feature_views,
        averaged_views=tta,
        class_weights=prepared.class_weights,
    )
    kind = MultiLabelEvaluation if datasets.multi_label else Evaluation
    evaluation = kind(
        class_names=datasets.class_names,
        paths=tuple(path for part in _PARTS for path in datasets.paths(part)),
        labels=labels,
        probabilities=probabilities,
        root=datasets.audit.root,
    )
    return CrossValidation(evaluation, assign_folds(labels, folds, seed, groups))


def _records(prepared: PreparedRun) -> list[ImageRecord]:
    return [record for part in _PARTS for record in prepared.datasets.records(part)]


def _labels(prepared: PreparedRun) -> np.ndarray:
    labels: Any = [prepared.datasets.labels(part) for part in _PARTS]
    return np.concatenate(labels)


def _groups(prepared: PreparedRun) -> np.ndarray:
    audit, loader = prepared.datasets.audit, prepared.config.loader
    linked = (
        audit.near_duplicate_groups
        if loader.keep_near_duplicates_together
        else audit.duplicate_groups
    )
    groups = link_groups(audit, linked, group_images(audit, loader.group_by))
    return number_groups(_records(prepared), groups)
