"""Predicts each image by a head that has not seen it, on cached features."""

from typing import Any

import keras
import numpy as np

from keras_flowers.argument_checks import check_integer
from keras_flowers.errors import InputError
from keras_flowers.layers.standardization import FeatureStandardization
from keras_flowers.models.heads import HEAD_L2

# Enough for the probabilities: more digits change none of them visibly.
_TOLERANCE = 1e-3


def out_of_fold_probabilities(
    features: np.ndarray,
    labels: np.ndarray,
    folds: int = 5,
    seed: int = 0,
    groups: Any = None,
) -> np.ndarray:
    """Predicts each image by a linear head that is trained on the other folds.

    The head is the one that `ImageClassifier` has by default behind a pretrained
    backbone: standardized features and a softmax with an L2 penalty. It is solved with
    scikit-learn, not trained in epochs, and takes about a second per fold for 2,000
    images.

    Args:
        features: What a backbone returns, float `(images, feature_size)`; or, for
            several views of each image, `(views, images, feature_size)`. The head is
            trained on all views, and its probabilities are averaged over them.
        labels: Integers `(images,)` from 0 on.
        folds: Number of folds, from 2.
        seed: Integer that decides which images are in which fold.
        groups: For each image, what it must stay together with in one fold, such as a
            number for each set of near-duplicates; `None` for nothing.

    Returns:
        float32 `(images, classes)`, each row sums to 1. A class of which no image is in
        the other folds has the probability 0.

    Raises:
        InputError: If there are fewer images than folds, or fewer than two classes.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    folds = check_integer("folds", folds, lowest=2)
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
    if len(labels) < folds or len(np.unique(labels)) < 2:
        raise InputError(
            "`labels` must be of at least two classes, and at least as many as folds. "
            f"Received: {len(labels)} labels of {len(np.unique(labels))} classes, "
            f"folds={folds}"
        )
    arguments: dict[str, Any] = {"shuffle": True, "random_state": seed}
    splitter = StratifiedKFold if groups is None else StratifiedGroupKFold
    probabilities = np.zeros((len(labels), int(labels.max()) + 1), np.float32)
    for train, held_out in splitter(folds, **arguments).split(labels, labels, groups):
        classes, found = _predict_held_out(views, labels, train, held_out)
        probabilities[np.ix_(held_out, classes)] = found
    return probabilities


def _predict_held_out(
    views: np.ndarray, labels: np.ndarray, train: np.ndarray, held_out: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the classes in the training part, and the probabilities of the other."""
    from sklearn.linear_model import LogisticRegression

    count, _, size = views.shape
    seen = views[:, train].reshape(-1, size)
    standardize = FeatureStandardization()
    standardize.adapt(seen)

    def scale(features: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = keras.ops.convert_to_numpy(standardize(features))
        return scaled

    # Scikit-learn adds up the losses of all rows, where Keras takes their mean.
    solver = LogisticRegression(
        C=1 / (HEAD_L2 * len(seen)), tol=_TOLERANCE, max_iter=200
    )
    solver.fit(scale(seen), np.tile(labels[train], count))
    of_views = [solver.predict_proba(scale(view[held_out])) for view in views]
    return solver.classes_, np.mean(of_views, axis=0)
