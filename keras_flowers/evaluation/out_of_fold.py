"""Predicts each image by a head that has not seen it, on cached features."""

import warnings
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_flowers.argument_checks import check_integer
from keras_flowers.errors import InputError
from keras_flowers.layers.standardization import FeatureStandardization
from keras_flowers.models.label_modes import choose_label_mode

# Enough for the probabilities: more digits change none of them visibly.
_TOLERANCE = 1e-3


def assign_folds(
    labels: np.ndarray, folds: int = 5, seed: int = 0, groups: Any = None
) -> np.ndarray:
    """Assigns each image to a fold, with about the same share of each class in each.

    Images that may have several labels are stratified for all labels at once, those of
    the rarest label first (Sechidis et al., "On the Stratification of Multi-Label
    Data", 2011).

    Args:
        labels: Integers `(images,)` from 0 on; where images may have several labels,
            `(images, classes)`, 1 for each label of an image, else 0.
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
    if labels.ndim == 2:
        return _assign_label_folds(labels, folds, seed, groups)
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


def _assign_label_folds(
    labels: np.ndarray, folds: int, seed: int, groups: Any
) -> np.ndarray:
    if labels.sum(axis=0).max(initial=0) < folds:
        raise InputError(
            "`folds` needs a label that has an image for each fold. Received: "
            f"folds={folds}, {len(labels)} images with labels "
            f"{labels.sum(axis=0).astype(int).tolist()} times"
        )
    if groups is None:
        groups = np.arange(len(labels))
    members = np.unique(groups, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(members.max() + 1)
    members = np.argsort(order)[members]  # groups by their place in the order
    sizes = np.bincount(members)
    counts = np.zeros((len(sizes), labels.shape[1]))
    np.add.at(counts, members, labels)
    # What each fold lacks: images, and images of each label.
    room = np.full(folds, len(labels) / folds)
    wanted = np.tile(counts.sum(axis=0) / folds, (folds, 1))
    fold_of = np.full(len(sizes), -1)
    while (waiting := fold_of < 0).any():
        left = counts[waiting].sum(axis=0)
        label = None
        if left.any():
            label = int(np.argmin(np.where(left > 0, left, np.inf)))
            waiting &= counts[:, label] > 0
        for group in np.flatnonzero(waiting):
            lacking = room if label is None else wanted[:, label]
            fold = np.lexsort((-room, -lacking))[0]
            fold_of[group] = fold
            wanted[fold] -= counts[group]
            room[fold] -= sizes[group]
    return fold_of[members]


def out_of_fold_probabilities(
    features: np.ndarray,
    labels: np.ndarray,
    folds: int = 5,
    seed: int = 0,
    groups: Any = None,
    *,
    penalty: float | None = None,
    trained_views: int | None = None,
    averaged_views: int | None = None,
    class_weights: Mapping[int, float] | None = None,
) -> np.ndarray:
    """Predicts each image by a linear head that is trained on the other folds.

    The head is the one that `ImageClassifier` has by default behind a pretrained
    backbone: standardized features and a softmax with an L2 penalty. It is solved with
    scikit-learn, not trained in epochs, and takes about a second per fold for 2,000
    images. Where images may have several labels, it has a sigmoid for each label.

    Args:
        features: What a backbone returns, float `(images, feature_size)`; or, for
            several views of each image, `(views, images, feature_size)`.
        labels: As for `assign_folds`.
        folds: As for `assign_folds`.
        seed: As for `assign_folds`.
        groups: As for `assign_folds`.
        penalty: The strength of the L2 penalty; `None` for that of the default head.
            The loss adds `penalty / 2` times the squared weights
            (`keras.regularizers.L2(penalty / 2)`).
        trained_views: The number of views that the head is trained on; `None` for all.
        averaged_views: The number of views over which its probabilities are averaged;
            `None` for all.
        class_weights: The weight of each label in the loss; `None` for equal ones. Only
            where each image has one label.

    Returns:
        float32 `(images, classes)`; each row sums to 1 where each image has one label.
        A class of which no image is in the other folds has the probability 0.

    Raises:
        InputError: As for `assign_folds`.
    """
    labels = np.asarray(labels)
    views = np.asarray(features, np.float32)
    if views.ndim == 2:
        views = views[None]
    fold_of = assign_folds(labels, folds, seed, groups)
    mode = choose_label_mode(labels.ndim == 2)
    penalty = mode.head_penalty if penalty is None else penalty
    classes = labels.shape[1] if mode.is_multi_label else int(labels.max()) + 1
    probabilities = np.zeros((len(labels), classes), np.float32)
    for fold in np.unique(fold_of):
        held_out = np.flatnonzero(fold_of == fold)
        train = np.flatnonzero(fold_of != fold)
        seen, unseen = views[:trained_views, train], views[:averaged_views, held_out]
        rows, unseen = _standardize(seen, unseen)
        known = np.concatenate([labels[train]] * len(seen))
        if mode.is_multi_label:
            probabilities[held_out] = _predict_labels(rows, known, unseen, penalty)
            continue
        present, found = _predict_classes(rows, known, unseen, penalty, class_weights)
        probabilities[np.ix_(held_out, present)] = found
    return probabilities


def _standardize(seen: np.ndarray, unseen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of all views to train on, and the views to predict."""
    rows = seen.reshape(-1, seen.shape[-1])
    standardize = FeatureStandardization()
    standardize.adapt(rows)

    def scale(features: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = keras.ops.convert_to_numpy(standardize(features))
        return scaled

    return scale(rows), np.stack([scale(view) for view in unseen])


def _predict_classes(
    rows: np.ndarray,
    labels: np.ndarray,
    unseen: np.ndarray,
    penalty: float,
    class_weights: Mapping[int, float] | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes in the training part, and the probabilities of the other."""
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    if len(present) == 1:
        return present, np.ones((unseen.shape[1], 1), np.float32)
    # Scikit-learn adds up the losses of all rows, where Keras takes their mean.
    solver = LogisticRegression(
        C=1 / (penalty * len(rows)),
        tol=_TOLERANCE,
        max_iter=200,
        class_weight=None if class_weights is None else dict(class_weights),
    )
    solver.fit(rows, labels)
    of_views = [solver.predict_proba(view) for view in unseen]
    return solver.classes_, np.mean(of_views, axis=0)


def _predict_labels(
    rows: np.ndarray, labels: np.ndarray, unseen: np.ndarray, penalty: float
) -> np.ndarray:
    """Returns the probabilities of several labels.

    Each label is a logistic regression by itself. Solved together, they share the
    products with the features, which take nearly all of the time.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    count, size = rows.shape
    shape = size + 1, labels.shape[1]
    present = labels.any(axis=0)
    labels = labels.astype(np.float32)

    def loss_and_gradient(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights = values.reshape(shape).astype(np.float32)
        logits = rows @ weights[:-1] + weights[-1]
        errors = (expit(logits) - labels) / count
        fit = (np.logaddexp(0, logits) - labels * logits).sum(dtype=float) / count
        decay = penalty / 2 * np.square(weights[:-1]).sum(dtype=float)
        slopes = rows.T @ errors + penalty * weights[:-1]
        gradient = np.concatenate([slopes, errors.sum(axis=0, keepdims=True)])
        return fit + decay, gradient.ravel().astype(float)

    found = minimize(
        loss_and_gradient,
        np.zeros(shape).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 200, "gtol": _TOLERANCE / 10},
    )
    weights = found.x.reshape(shape).astype(np.float32)
    of_views = [expit(view @ weights[:-1] + weights[-1]) for view in unseen]
    # Without any image, the regression would only approach 0.
    return np.where(present, np.mean(of_views, axis=0), 0)
