"""Audits a data folder with the features of a backbone."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_flowers.data.audit import Audit
from keras_flowers.data.dataset_loader import (
    ImageDatasetLoader,
    ImageDatasets,
    as_loader,
)
from keras_flowers.data.pipelines import number_labels
from keras_flowers.data.split_assignment import (
    group_images,
    link_groups,
    number_groups,
)
from keras_flowers.errors import InputError
from keras_flowers.evaluation.extras import require_audit_libraries
from keras_flowers.evaluation.label_issues import find_label_issues, judge_labels
from keras_flowers.evaluation.neighbors import (
    find_look_alikes,
    find_neighbors,
    find_outliers,
)
from keras_flowers.evaluation.odd_images import find_odd_images
from keras_flowers.layers.views import check_views
from keras_flowers.models.backbone import Backbone
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.progress import Progress
from keras_flowers.training.feature_datasets import load_features


def audit_with_backbone(
    data: str | os.PathLike[str] | ImageDatasetLoader | ImageDatasets,
    backbone: Backbone | str | os.PathLike[str] | keras.Model,
    *,
    feature_views: int = 1,
    inference_precision: str = "float32",
    progress: Progress | None = None,
) -> Audit:
    """Audits a data folder, and looks for wrong labels and odd images as well.

    In addition to the findings of `ImageDatasetLoader.audit`, it finds labels that are
    probably wrong (`label_issue`), pairs that look alike (`look_alike`), images like no
    other (`outlier`), and images that are dark, bright, blurred, nearly empty or of an
    odd size. The images and their features are cached, as in training.

    Args:
        data: A loader, what one loaded, or what it takes as `data`. Its image size and
            its split have no effect.
        backbone: A pretrained backbone, or what `Backbone` takes as `network`.
        feature_views: Number of views of each image, from 1 to 7, of which features are
            computed: see `keras_flowers.layers.views`. More views find wrong labels a
            little more reliably.
        inference_precision: In which precision features are computed, as for `train`.
        progress: As for `ImageDatasetLoader.load`, and for the steps `"features"` and
            `"look"`.

    Returns:
        The audit.

    Raises:
        InputError: If cleanlab or cleanvision is not installed, the data or the
            backbone cannot be used, or there are fewer than three images.
    """
    require_audit_libraries()
    views = check_views("feature_views", feature_views)
    if not isinstance(backbone, Backbone):
        backbone = Backbone(backbone)
    if not backbone.is_pretrained:
        raise InputError("`backbone` must have pretrained weights to judge images by.")
    datasets = _load_all(as_loader(data), backbone, progress)
    model = ImageClassifier(datasets.class_names, backbone=backbone)
    features = np.stack(
        load_features(datasets, model, {"train": views}, progress, inference_precision)[
            "train"
        ]
    )
    audit = datasets.audit
    labels = number_labels(audit.images, audit.class_names, audit.multi_label)
    neighbors = find_neighbors(features)
    judged = judge_labels(features, labels, neighbors, _number_groups(datasets))
    findings = [
        *audit.findings,
        *find_label_issues(audit, judged),
        *find_look_alikes(audit, neighbors),
        *find_outliers(audit, features),
    ]
    with datasets.naming_unreadable_images():
        findings += find_odd_images(audit, _pixels(datasets), progress)
    return dataclasses.replace(audit, findings=tuple(findings))


def _load_all(
    loader: ImageDatasetLoader, backbone: Backbone, progress: Progress | None
) -> ImageDatasets:
    """Loads all images as the training part, at the size of the backbone."""
    changed: dict[str, Any] = {
        "image_size": backbone.image_size,
        "resize": "stretch",
        "split": "random",
        "split_manifest": None,
        "validation_split": 0.0,
        "test_split": 0.0,
    }
    datasets = (
        type(loader).from_config({**loader.get_config(), **changed}).load(progress)
    )
    if len(datasets.split.train) < 3:
        raise InputError(
            "An audit with a backbone needs at least three images. "
            f"Received: {len(datasets.split.train)}"
        )
    return datasets


def _number_groups(datasets: ImageDatasets) -> np.ndarray:
    audit = datasets.audit
    loader = datasets.loader
    groups = group_images(audit, None if loader is None else loader.group_by)
    linked = link_groups(audit, audit.near_duplicate_groups, groups)
    return number_groups(audit.images, linked)


def _pixels(datasets: ImageDatasets) -> Iterator[np.ndarray]:
    batches: Any = datasets.train_in_order
    for images, _ in batches.as_numpy_iterator():
        yield images
