"""Predicts each image by a head that has not seen it, on cached features."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_flowers.argument_checks import check_integer
from keras_flowers.errors import InputError
from keras_flowers.layers.standardization import FeatureStandardization
from keras_flowers.models.heads import HEAD_L2

# Enough for the probabilities: more digits change none of them visibly.
_TOLERANCE = 1e-3


def assign_folds(
    labels: np.ndarray, folds: int = 5, seed: int = 0, groups: Any = None
) -> np.ndarray:
    """Assigns each image to a fold, with about the same share of each class in each.

    Args:
        labels: Integers `(images,)` from 0 on.
        folds: Number of folds, from 2.
        seed: Integer that decides which images are in which fold.
        groups: For each image, what it must stay together with in one fold, such as a
            number for each set of near-duplicates; `None` for nothing.

    Returns:
        int64 `(images,)`, from 0 to `folds - 1`.

    Raises:
        InputError: If there are fewer than two classes, or no class has an image for
            each fold.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    folds = check_integer("folds", folds, lowest=2)
    labels = np.asarray(labels)
    counts = np.unique(labels, return_counts=True)[1]
    if len(counts) < 2 or max(counts) < folds:
        raise InputError(
            "`folds` needs images of at least two classes, one of which has an image "
            f"for each fold. Received: folds={folds}, {len(labels)} images of "
            f"{len(counts)} classes"
        )
    arguments: dict[str, Any] = {"shuffle": True, "random_state": seed}
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    fold_of = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():
        # A class that has no image for some fold is fine.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = splitter(folds, **arguments).split(labels, labels, groups)
        for fold, (_, held_out) in enumerate(parts):
            fold_of[held_out] = fold
    return fold_of


def out_of_fold_probabilities(
    features: np.ndarray,
    labels: np.ndarray,
    folds: int = 5,
    seed: int = 0,
    groups: Any = None,
    *,
    penalty: float = HEAD_L2,
    trained_views: int | None = None,
    averaged_views: int | None = None,
    class_weights: Mapping[int, float] | None = None,
) -> np.ndarray:
    """Predicts each image by a linear head that is trained on the other folds.

    The head is the one that `ImageClassifier` has by default behind a pretrained
    backbone: standardized features and a softmax with an L2 penalty. It is solved with
    scikit-learn, not trained in epochs, and takes about a second per fold for 2,000
    images.

    Args:
        features: What a backbone returns, float `(images, feature_size)`; or, for
            several views of each image, `(views, images, feature_size)`.
        labels: Integers `(images,)` from 0 on.
        folds: As for `assign_folds`.
        seed: As for `assign_folds`.
        groups: As for `assign_folds`.
        penalty: The strength of the L2 penalty, in Keras's sense half of it.
        trained_views: The number of views that the head is trained on; `None` for all.
        averaged_views: The number of views over which its probabilities are averaged;
            `None` for all.
        class_weights: The weight of each label in the loss; `None` for equal ones.

    Returns:
        float32 `(images, classes)`, each row sums to 1. A class of which no image is in
        the other folds has the probability 0.

    Raises:
        InputError: As for `assign_folds`.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise InputError(
            "`labels` must be one class for each image: folds are stratified by it, "
            "and label issues are found by comparing it with others. Received: labels "
            f"of shape {labels.shape}, as of images with several labels"
        )
    views = np.asarray(features, np.float32)
    if views.ndim == 2:
        views = views[None]
    fold_of = assign_folds(labels, folds, seed, groups)
    probabilities = np.zeros((len(labels), int(labels.max()) + 1), np.float32)
    for fold in np.unique(fold_of):
        held_out = np.flatnonzero(fold_of == fold)
        train = np.flatnonzero(fold_of != fold)
        classes, found = _predict_held_out(
            views[:trained_views, train],
            labels[train],
            views[:averaged_views, held_out],
            penalty,
            class_weights,
        )
        probabilities[np.ix_(held_out, classes)] = found
    return probabilities


def _predict_held_out(
    seen: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    penalty: float,
    class_weights: Mapping[int, float] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes in the training part, and the probabilities of the other."""
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    if len(present) == 1:
        return present, np.ones((held_out.shape[1], 1), np.float32)
    count, _, size = seen.shape
    rows = seen.reshape(-1, size)
    standardize = FeatureStandardization()
    standardize.adapt(rows)

    def scale(features: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = keras.ops.convert_to_numpy(standardize(features))
        return scaled

    # Scikit-learn adds up the losses of all rows, where Keras takes their mean.
    solver = LogisticRegression(
        C=1 / (penalty * len(rows)),
        tol=_TOLERANCE,
        max_iter=200,
        class_weight=None if class_weights is None else dict(class_weights),
    )
    solver.fit(scale(rows), np.tile(labels, count))
    of_views = [solver.predict_proba(scale(view)) for view in held_out]
    return solver.classes_, np.mean(of_views, axis=0)
