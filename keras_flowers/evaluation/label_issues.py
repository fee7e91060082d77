"""Finds labels that are probably wrong, and writes them for correction.

Which labels are wrong is decided by confident learning (Northcutt et al., 2021), as
cleanlab implements it, from probabilities of models that have not seen the image.
"""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_flowers.data.audit import Audit
from keras_flowers.data.findings import Finding
from keras_flowers.data.pipelines import number_labels
from keras_flowers.evaluation.extras import require_audit_libraries
from keras_flowers.evaluation.multi_label import SEPARATOR
from keras_flowers.evaluation.neighbors import Neighbors, vote_on_labels
from keras_flowers.evaluation.out_of_fold import out_of_fold_probabilities
from keras_flowers.files import printable_path, write_csv_atomically

# Ten times that of the default head: a head that fits the images less closely does not
# learn the wrong labels among them.
_PENALTY = 0.3
# How much the nearest neighbors of an image have to say on its label.
_NEIGHBORS = 0.3
# A label that no neighbor has is not impossible.
_FLOOR = 0.02


def judge_labels(
    features: np.ndarray,
    labels: np.ndarray,
    neighbors: Neighbors,
    groups: np.ndarray,
    folds: int = 5,
) -> np.ndarray:
    """Returns how probable each label of each image is, judged by the other images.

    A linear head that is trained without the image and its nearest neighbors each have
    their say, as the geometric mean of their probabilities with the weights 0.7 and
    0.3.

    Args:
        features: As for `out_of_fold_probabilities`.
        labels: As for `assign_folds`.
        neighbors: The neighbors of the images.
        groups: Integers `(images,)`; images of one group do not judge each other.
        folds: As for `out_of_fold_probabilities`.

    Returns:
        float `(images, classes)`; each row sums to 1 where each image has one label.

    Raises:
        InputError: As for `out_of_fold_probabilities`.
    """
    counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels)
    folds = min(folds, int(counts.max()))
    heads = out_of_fold_probabilities(
        features, labels, folds, groups=groups, penalty=_PENALTY
    )
    votes = vote_on_labels(neighbors, labels, groups)
    mixed = _mix(heads, votes)
    if labels.ndim == 2:
        # Each label has an alternative by itself: not to have it.
        sums = mixed + _mix(1 - heads, 1 - votes)
    else:
        sums = mixed.sum(axis=1, keepdims=True)
    probabilities: np.ndarray = mixed / sums
    return probabilities


def _mix(heads: np.ndarray, votes: np.ndarray) -> np.ndarray:
    mixed: np.ndarray = heads ** (1 - _NEIGHBORS) * (votes + _FLOOR) ** _NEIGHBORS
    return mixed


def rank_labels(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Returns how well each given label fits: 0 to 1, float `(images,)`.

    Args:
        labels: Integers `(images,)`.
        probabilities: What `judge_labels` returned.
    """
    from cleanlab.rank import get_label_quality_scores

    scores: np.ndarray = get_label_quality_scores(labels, probabilities)
    return scores


def find_label_issues(audit: Audit, probabilities: np.ndarray) -> list[Finding]:
    """Finds the images whose label is probably wrong.

    Args:
        audit: The images.
        probabilities: What `judge_labels` returned for them.

    Returns:
        Findings of the kind `label_issue`, the surest first, with the label that is
        `given`, the one that is `suggested`, and the `score` of the given one: how well
        it fits, 0 to 1. Where images may have several labels, `given` and `suggested`
        are lists of all of them, and the score is that of the label that fits least,
        or of the lack of a label.

    Raises:
        InputError: If cleanlab is not installed.
    """
    require_audit_libraries()
    if audit.multi_label:
        return _find_issues_of_labels(audit, probabilities)
    from cleanlab.filter import find_label_issues as find_issues

    labels = np.array([audit.label_of(record) for record in audit.images])
    # The other ways of cleanlab find fewer of the wrong labels among as many findings,
    # or far more images whose label is right.
    is_issue = find_issues(labels, probabilities, filter_by="prune_by_class", n_jobs=1)
    scores = rank_labels(labels, probabilities)
    suggested = probabilities.argmax(axis=1)
    order = np.argsort(scores, kind="stable")
    return [
        _describe(audit, index, int(suggested[index]), float(scores[index]))
        for index in order[is_issue[order] & (suggested != labels)[order]].tolist()
    ]


def _find_issues_of_labels(audit: Audit, probabilities: np.ndarray) -> list[Finding]:
    from cleanlab.multilabel_classification.filter import (
        find_multilabel_issues_per_class,
    )

    labels = number_labels(audit.images, audit.class_names, multi_label=True)
    # The other ways of cleanlab find hardly more of the wrong labels among half as many
    # findings again.
    found = np.zeros(labels.shape, bool)
    # Of a label that all images have, or none, there is nothing to compare.
    varied = np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0))
    found[:, varied] = find_multilabel_issues_per_class(
        [np.flatnonzero(row).tolist() for row in labels[:, varied]],
        probabilities[:, varied],
        filter_by="low_self_confidence",
        n_jobs=1,
    )
    fits = np.where(labels == 1, probabilities, 1 - probabilities)
    # Else the given label is the more probable one.
    is_issue = found & (fits < 0.5)
    scores = np.where(is_issue, fits, np.inf).min(axis=1)
    count = np.count_nonzero(is_issue.any(axis=1))
    # Those without an issue have an infinite score.
    return [
        _describe_labels(audit, index, is_issue[index], float(scores[index]))
        for index in np.argsort(scores, kind="stable")[:count].tolist()
    ]


def _describe_labels(
    audit: Audit, index: int, is_issue: np.ndarray, score: float
) -> Finding:
    record = audit.images[index]
    given = [name for name in audit.class_names if name in record.class_names]
    doubted = [audit.class_names[label] for label in np.flatnonzero(is_issue)]
    suggested = [
        name for name in audit.class_names if (name in given) != (name in doubted)
    ]
    score = round(score, 6)
    changes = [
        f"{'not' if name in given else 'also'} {printable_path(name)}"
        for name in doubted
    ]
    shown = ", ".join(map(printable_path, given)) or "no label"
    return Finding(
        "label_issue",
        (record.path,),
        f"{printable_path(record.path)}: {shown}; probably {', '.join(changes)} "
        f"(score {score:.3f})",
        details={"given": given, "suggested": suggested, "score": score},
    )


def _describe(audit: Audit, index: int, suggested: int, score: float) -> Finding:
    record = audit.images[index]
    given, other = record.class_name, audit.class_names[suggested]
    score = round(score, 6)  # once, so that all texts show the same number
    return Finding(
        "label_issue",
        (record.path,),
        f"{printable_path(record.path)}: {printable_path(given)}, probably "
        f"{printable_path(other)} (score {score:.3f})",
        details={"given": given, "suggested": other, "score": score},
    )


def write_relabel_table(path: str | os.PathLike[str], audit: Audit) -> None:
    """Writes a label file with the suggested labels, which you can edit.

    It lists all images, those with a `label_issue` first, so that it can replace the
    labels: `ImageDatasetLoader(data, labels=path)` takes the column `suggested`, where
    images may have several labels with `label_separator="|"`. The columns are `path`,
    relative to the data folder, `given` and `suggested`, and `split` and `group` where
    the images have them.

    Args:
        path: The file to write or to replace, atomically: CSV. Its folder must exist.
        audit: What `audit_with_backbone` returned.

    Raises:
        InputError: If the file cannot be written.
    """
    write_csv_atomically(path, _rows(audit))


def _rows(audit: Audit) -> Iterator[list[str]]:
    above = f"{audit.layout.root}/" if audit.layout and audit.layout.root else ""
    suggested = {
        found.paths[0]: _join(found.details["suggested"])
        for found in audit.findings
        if found.kind == "label_issue"
    }
    has_parts = any(record.part for record in audit.images)
    records = {record.path: record for record in audit.images}
    yield [
        *("path", "given", "suggested"),
        *(["split"] if has_parts else []),
        *(["group"] if audit.groups else []),
    ]
    for name in dict.fromkeys((*suggested, *records)):
        record = records[name]
        yield [
            above + name,
            given := _join(
                record.class_names if audit.multi_label else record.class_name
            ),
            suggested.get(name, given),
            *([record.part or ""] if has_parts else []),
            *([audit.groups.get(name, "")] if audit.groups else []),
        ]


def _join(labels: Any) -> str:
    return labels if isinstance(labels, str) else SEPARATOR.join(labels)
