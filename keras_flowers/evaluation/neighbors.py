"""Which images are most like each other, by the features of a backbone."""

from dataclasses import dataclass

import keras
import numpy as np

from keras_flowers.data.audit import Audit, all_but_best
from keras_flowers.data.findings import Finding, list_paths
from keras_flowers.files import printable_path
from keras_flowers.layers.standardization import FeatureStandardization

_COUNT = 20
# Of a neighbor that is as similar as can be, in the vote on the label of an image.
_TEMPERATURE = 0.05
# Of 2,020 images of flowers, 95 % are as similar to their mirror images.
_LOOK_ALIKE = 0.88
# An outlier may have copies, and a few images of the same thing.
_COMPARED = 10


@dataclass(frozen=True)
class Neighbors:
    """The most similar images of each image, the most similar first.

    Attributes:
        indices: int64 `(images, neighbors)`.
        similarities: Cosine of the angle between standardized features, float
            `(images, neighbors)`, -1 to 1.
    """

    indices: np.ndarray
    similarities: np.ndarray


def find_neighbors(features: np.ndarray, count: int = _COUNT) -> Neighbors:
    """Finds the most similar images of each image.

    Args:
        features: Float `(views, images, feature_size)`, or `(images, feature_size)`.
            Views are averaged.
        count: Number of neighbors of each image, at most.
    """
    views = _as_views(features)
    standardize = FeatureStandardization()
    standardize.adapt(views.reshape(-1, views.shape[-1]))
    scaled = [keras.ops.convert_to_numpy(standardize(view)) for view in views]
    return _search(np.mean(scaled, axis=0), count)


def _as_views(features: np.ndarray) -> np.ndarray:
    views = np.asarray(features, np.float32)
    return views[None] if views.ndim == 2 else views


def _search(rows: np.ndarray, count: int) -> Neighbors:
    from sklearn.neighbors import NearestNeighbors

    rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    count = min(count, len(rows) - 1)
    # Of unit vectors, the nearest have the smallest angle.
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(rows)
    distances, indices = search.kneighbors()
    return Neighbors(indices, 1 - distances**2 / 2)


def vote_on_labels(
    neighbors: Neighbors, labels: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """Returns what the neighbors of each image are, as probabilities of labels.

    Args:
        neighbors: The neighbors of the images.
        labels: Integers `(images,)` from 0 on; where images may have several labels,
            `(images, classes)`, 1 for each label of an image, else 0.
        groups: Integers `(images,)`; images of one group have no vote on each other.

    Returns:
        float `(images, classes)`: where each image has one label, each row sums to 1,
        with equal probabilities for an image on which nobody votes. Where images may
        have several, that of each label by itself, and 1/2 if nobody votes.
    """
    weights = np.exp((neighbors.similarities - 1) / _TEMPERATURE)
    weights[groups[neighbors.indices] == groups[:, None]] = 0
    if labels.ndim == 2:
        sums = weights.sum(axis=1, keepdims=True)
        found = np.stack(
            [
                (weights * of_label[neighbors.indices]).sum(axis=1)
                for of_label in labels.T
            ],
            axis=1,
        )
        return np.where(sums > 0, found / np.where(sums > 0, sums, 1), 0.5)
    classes = int(labels.max()) + 1
    of_neighbors = labels[neighbors.indices]
    votes = [
        (weights * (of_neighbors == label)).sum(axis=1) for label in range(classes)
    ]
    shares = np.stack(votes, axis=1)
    sums = shares.sum(axis=1, keepdims=True)
    return np.where(sums > 0, shares / np.where(sums > 0, sums, 1), 1 / classes)


def find_outliers(audit: Audit, features: np.ndarray) -> list[Finding]:
    """Finds images that are like no others.

    These are the ones whose similarity to their tenth nearest neighbor is farther below
    the first quartile than one and a half times the distance of the quartiles (Tukey's
    fence). The similarity is that of the features as they are: standardized ones make
    images of other things more alike.

    Args:
        audit: The images.
        features: As for `find_neighbors`.

    Returns:
        Findings of the kind `outlier` with that similarity as `score`, the lowest
        first.
    """
    paths = [record.path for record in audit.images]
    neighbors = _search(_as_views(features).mean(axis=0), _COMPARED)
    scores = neighbors.similarities[:, -1]
    low, high = np.percentile(scores, [25, 75])
    found = np.flatnonzero(scores < low - 1.5 * (high - low))
    findings = []
    for index in found[np.argsort(scores[found], kind="stable")].tolist():
        path, score = paths[index], round(float(scores[index]), 6)
        message = (
            f"{printable_path(path)}: like no other image (similarity {score:.3f})"
        )
        findings.append(Finding("outlier", (path,), message, details={"score": score}))
    return findings


def find_look_alikes(audit: Audit, neighbors: Neighbors) -> list[Finding]:
    """Finds pairs of images that show nearly the same, which a hash does not find.

    Such are a mirrored copy, and two shots of the same thing.

    Args:
        audit: The images. Its duplicates and near-duplicates are not reported again.
        neighbors: Their neighbors.

    Returns:
        Findings of the kind `look_alike` with their similarity as `score`, the highest
        first.
    """
    group_of = {
        path: number
        for number, group in enumerate(audit.near_duplicate_groups)
        for path in group
    }
    rows, columns = np.nonzero(neighbors.similarities >= _LOOK_ALIKE)
    others = neighbors.indices[rows, columns]
    scores = neighbors.similarities[rows, columns]
    found: dict[tuple[int, int], float] = {}
    for index in np.argsort(-scores, kind="stable").tolist():
        first, second = sorted((int(rows[index]), int(others[index])))
        found.setdefault((first, second), round(float(scores[index]), 6))
    findings = []
    for pair, score in found.items():
        records = [audit.images[index] for index in pair]
        paths = tuple(record.path for record in records)
        known = {group_of.get(path) for path in paths}
        if known == {None} or len(known) > 1:
            message = f"look alike: {list_paths(paths)} (similarity {score:.3f})"
            details = {"score": score}
            copies = all_but_best(records)
            findings.append(Finding("look_alike", paths, message, "", copies, details))
    return findings
