"""Wrong labels, outliers and look-alikes, from arrays instead of images."""

import csv
import dataclasses

import numpy as np
import pytest

from keras_flowers import Finding, write_relabel_table
from keras_flowers.data.audit import Audit
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.layout import Layout
from keras_flowers.evaluation.label_issues import (
    find_label_issues,
    judge_labels,
    rank_labels,
)
from keras_flowers.evaluation.neighbors import (
    find_look_alikes,
    find_neighbors,
    find_outliers,
    vote_on_labels,
)
from keras_flowers.evaluation.out_of_fold import assign_folds

NAMES = ("daisy", "roses", "tulips")
WRONG = [4, 30, 31, 58]


def record(path, width=40, height=30, **more):
    return ImageRecord(path, 1, 1, path, width, height, "PNG", "", None, None, **more)


@pytest.fixture(scope="module")
def drawn():
    """Features of 90 images of three classes, and labels of which four are wrong."""
    generator = np.random.default_rng(0)
    true = np.arange(90) % 3
    features = generator.gamma(2, 1, (90, 24)).astype(np.float32)
    for label in range(3):
        features[true == label, 6 * label : 6 * label + 6] += 5
    labels = true.copy()
    labels[WRONG] = (true[WRONG] + 1) % 3
    images = tuple(
        record(f"{NAMES[label]}/{index:02}.png")
        for index, label in enumerate(labels.tolist())
    )
    return true, labels, features, Audit("photos", NAMES, images, ())


def test_wrong_labels_are_found_the_surest_first(drawn):
    true, labels, features, audit = drawn
    views = np.stack([features, features * 1.1])
    judged = judge_labels(views, labels, find_neighbors(views), np.arange(90))
    np.testing.assert_allclose(judged.sum(axis=1), 1)
    scores = rank_labels(labels, judged)
    assert set(np.argsort(scores)[:4]) == set(WRONG)
    issues = find_label_issues(audit, judged)
    found = {issue.paths[0]: issue for issue in issues}
    for index in WRONG:
        issue = found.pop(audit.images[index].path)
        assert issue.kind == "label_issue" and issue.exclude == issue.paths
        assert issue.details["given"] == NAMES[labels[index]]
        assert issue.details["suggested"] == NAMES[true[index]]
        assert issue.details["score"] == pytest.approx(scores[index], abs=1e-4)
    assert not found
    listed = [issue.details["score"] for issue in issues]
    assert listed == sorted(listed)


def test_copies_have_no_vote_on_each_other():
    features = np.eye(8, dtype=np.float32)[[0, 0, 1, 2, 3, 4]]
    labels, groups = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 2, 3, 4])
    neighbors = find_neighbors(features, 1)
    votes = vote_on_labels(neighbors, labels, groups)
    np.testing.assert_allclose(votes[:2], 1 / 3)  # each has the other alone
    np.testing.assert_allclose(votes.sum(axis=1), 1)
    np.testing.assert_allclose(vote_on_labels(neighbors, labels, np.arange(6))[0, 0], 1)


def test_outliers_and_look_alikes(drawn):
    _, _, features, audit = drawn
    changed = features.copy()
    changed[1] = features[0] * 1.02  # of another class
    changed[5] = features[2]
    changed[[7, 8]] = [0] * 18 + [10] * 6  # two of another thing
    paths = [image.path for image in audit.images]
    outliers = find_outliers(audit, changed)
    assert {found.paths for found in outliers[:2]} == {(paths[7],), (paths[8],)}
    scores = [found.details["score"] for found in outliers]
    assert scores == sorted(scores) and len(scores) < 9
    assert scores[1] < 0.5 and all(score > 0.5 for score in scores[2:])

    neighbors = find_neighbors(changed)
    found = {pair.paths: pair for pair in find_look_alikes(audit, neighbors)}
    same = (paths[2], paths[5])
    assert {same, (paths[0], paths[1]), (paths[7], paths[8])} <= set(found)
    assert found[same].details["score"] == pytest.approx(1, abs=1e-3)
    assert found[same].exclude == (paths[5],)
    known = dataclasses.replace(audit, near_duplicate_groups=(same,))
    others = {pair.paths for pair in find_look_alikes(known, neighbors)}
    assert others == set(found) - {same}


def test_a_table_of_labels_keeps_parts_groups_and_the_folder_above(tmp_path):
    images = (
        record("train/a/1.png", class_name="a", part="train"),
        record("test/b/2.png", class_name="b", part="test"),
    )
    issue = Finding("label_issue", ("test/b/2.png",), "", details={"suggested": "a"})
    layout = Layout("above", (), "Classes: two")
    groups = {"test/b/2.png": "patient 1"}
    audit = Audit(tmp_path, ("a", "b"), images, (issue,), layout=layout, groups=groups)
    write_relabel_table(tmp_path / "relabel.csv", audit)
    with (tmp_path / "relabel.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["path", "given", "suggested", "split", "group"],
            ["above/test/b/2.png", "b", "a", "test", "patient 1"],
            ["above/train/a/1.png", "a", "a", "train", ""],
        ]


def test_small_classes_are_in_some_folds_only():
    labels = np.array([0] * 6 + [1])
    folds = assign_folds(labels, 3)
    assert sorted(np.bincount(folds)) in ([2, 2, 3], [1, 3, 3])
    # Whatever else one fold is trained on, the others have one class.
    judged = judge_labels(
        np.eye(7, dtype=np.float32),
        labels,
        find_neighbors(np.eye(7, dtype=np.float32)),
        np.arange(7),
    )
    assert np.isfinite(judged).all()
