"""Evaluations of images with several labels, against scikit-learn."""

import csv
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from keras_flowers import (
    ImageClassifier,
    InputError,
    MultiLabelEvaluation,
    evaluate,
)
from keras_flowers.evaluation.calibration import fit_temperature, fit_thresholds
from keras_flowers.evaluation.out_of_fold import (
    assign_folds,
    out_of_fold_probabilities,
)
from keras_flowers.files import json_text
from keras_flowers.layers.standardization import FeatureStandardization
from keras_flowers.scores import wilson_interval

NAMES = ("sand", "water", "people", "snow")
THRESHOLDS = (0.4, 0.5, 0.6, 0.5)


def draw_answers(count=300, sharpness=1.0):
    """Returns labels, and probabilities that are right as often as they say."""
    generator = np.random.default_rng(0)
    logits = generator.normal([0, -1, -1, -2], 2, (count, 4))
    labels = generator.random((count, 4)) < 1 / (1 + np.exp(-logits))
    labels[:, 3] = False  # a label that no image has
    probabilities = 1 / (1 + np.exp(-sharpness * logits))
    return labels.astype(np.float32), probabilities.astype(np.float32)


@pytest.fixture(scope="module")
def evaluation():
    labels, probabilities = draw_answers()
    paths = tuple(Path(f"/data/{n}.jpg") for n in range(len(labels)))
    return MultiLabelEvaluation(
        NAMES, paths, labels, probabilities, THRESHOLDS, Path("/data"), "validation"
    )


def test_scores_are_those_of_scikit_learn(evaluation):
    labels, found = evaluation.labels, evaluation.predictions
    np.testing.assert_array_equal(
        found, evaluation.probabilities >= np.float32(THRESHOLDS)
    )
    scores = list(evaluation.per_class.values())
    known = labels[:, :3], evaluation.probabilities[:, :3]
    expected = metrics.average_precision_score(*known, average=None)
    np.testing.assert_allclose([s.average_precision for s in scores[:3]], expected)
    assert scores[3].average_precision is None
    assert evaluation.mean_average_precision == pytest.approx(expected.mean())
    for average in ("micro", "macro"):
        columns = slice(None) if average == "micro" else slice(3)
        assert getattr(evaluation, f"f1_{average}") == pytest.approx(
            metrics.f1_score(labels[:, columns], found[:, columns], average=average)
        )
    precision = metrics.precision_score(labels, found, average=None)
    recall = metrics.recall_score(labels, found, average=None, zero_division=0)
    np.testing.assert_allclose([s.precision for s in scores], precision)
    np.testing.assert_allclose([s.recall for s in scores], recall)
    low, high = evaluation.mean_average_precision_interval
    assert low < expected.mean() < high
    assert high - low < 0.12
    right = int((labels[:, 0] * found[:, 0]).sum())
    assert scores[0].recall_interval == wilson_interval(right, scores[0].count)
    assert evaluation.exact_match == metrics.accuracy_score(labels, found)
    loss = metrics.log_loss(labels.ravel(), evaluation.probabilities.ravel())
    assert evaluation.loss == pytest.approx(4 * loss, rel=1e-4)
    low, high = evaluation.exact_match_interval
    assert low < evaluation.exact_match < high


def test_mistakes_say_what_is_missing_and_wrong(evaluation):
    worst = evaluation.worst_mistakes(1000)
    assert len(worst) == evaluation.mistakes
    assert [m.loss for m in worst] == sorted((m.loss for m in worst), reverse=True)
    for mistake in worst:
        index = int(mistake.path.stem)
        wrong = (evaluation.predictions[index] != evaluation.labels[index]).sum()
        assert len(mistake.missing) + len(mistake.wrong) == wrong > 0
    assert evaluation.shown_path(worst[0].path) == f"{worst[0].path.stem}.jpg"


def test_what_is_written(evaluation, tmp_path):
    content = json.loads(json_text(evaluation.to_json(worst=2)))
    assert content["per_class"]["snow"]["average_precision"] is None
    assert content["per_class"]["people"]["threshold"] == 0.6
    assert len(content["worst_mistakes"]) == 2
    assert content["exact_match"] == evaluation.exact_match
    evaluation.write_predictions(tmp_path / "predictions.csv", top=2)
    text = (tmp_path / "predictions.csv").read_text()
    rows = list(csv.DictReader(text.splitlines()))
    assert len(rows) == 300
    assert [row["path"] for row in rows] == [
        evaluation.shown_path(path) for path in evaluation.paths
    ]
    first = evaluation.labels[0] == 1
    assert rows[0]["true_labels"] == "|".join(np.array(NAMES)[first])
    assert set(rows[0]) >= {"predicted_labels", "loss", "class_2", "probability_2"}
    figures = (
        evaluation.plot_average_precision(),
        evaluation.plot_precision_recall(),
        evaluation.plot_reliability(),
    )
    bars, curves, reliability = (figure.axes[0] for figure in figures)
    assert len(bars.patches) == 3
    assert len(curves.get_lines()) == 2 * 3 + 1
    assert reliability.get_ylabel() == "fraction of true labels"
    assert "300 images of validation, 4 classes" in repr(evaluation)


def test_a_non_finite_prediction_is_a_mistake_without_labels():
    labels = np.array([[1, 0], [0, 0]], np.float32)
    probabilities = np.array([[0.9, 0.1], [np.nan, 0.2]], np.float32)
    result = MultiLabelEvaluation(
        ("a", "b"), (Path("x"), Path("y")), labels, probabilities
    )
    assert (result.mistakes, result.non_finite) == (1, 1)
    (mistake,) = result.worst_mistakes()
    assert mistake.predicted_labels is None
    assert result.calibration().non_finite == 1
    json.loads(json_text(result.to_json()))


def test_temperature_and_thresholds_are_fitted():
    labels, probabilities = draw_answers(2000, sharpness=2.0)
    assert fit_temperature(probabilities, labels) == pytest.approx(2, rel=0.1)
    assert fit_temperature(probabilities[:20], labels[:20]) == 1
    assert fit_temperature(labels, labels) == 1, "no mistake"
    thresholds = fit_thresholds(probabilities, labels)
    assert thresholds[3] == 0.5
    for column in range(3):
        true, found = labels[:, column], probabilities[:, column]
        best = metrics.f1_score(true, found >= np.float32(thresholds[column]))
        for other in np.linspace(0, 1, 50):
            assert best >= metrics.f1_score(true, found >= other)
    assert fit_thresholds(probabilities[:20], labels[:20]) is None
    assert fit_thresholds(np.full_like(probabilities, np.nan), labels) is None


def test_images_and_labels_without_files():
    model = ImageClassifier(NAMES, (6, 6), (2,), multi_label=True)
    images = np.zeros((3, 6, 6, 3), np.uint8)
    labels = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    result = evaluate(model, (images, labels))
    np.testing.assert_array_equal(result.labels, labels)
    assert result.thresholds == (0.5,) * 4
    with pytest.raises(InputError, match=r"must be `\(batch, classes\)`"):
        evaluate(model, (images, np.zeros(3)))
    with pytest.raises(InputError, match="from 0 to 1"):
        evaluate(model, (images, 2 * labels))


def test_folds_are_stratified_for_all_labels(evaluation):
    labels = evaluation.labels
    groups = np.arange(300) // 2
    fold_of = assign_folds(labels, 3, groups=groups)
    np.testing.assert_array_equal(fold_of[::2], fold_of[1::2])
    assert np.bincount(fold_of).tolist() == pytest.approx([100] * 3, abs=8)
    for label in range(3):
        counts = np.bincount(fold_of[labels[:, label] == 1])
        assert np.ptp(counts) <= 2
    np.testing.assert_array_equal(fold_of, assign_folds(labels, 3, groups=groups))
    assert (fold_of != assign_folds(labels, 3, 1, groups)).any()
    with pytest.raises(InputError, match="an image for each fold"):
        assign_folds(np.eye(4), 3)


def test_out_of_fold_probabilities_are_those_of_logistic_regressions(evaluation):
    labels = evaluation.labels
    generator = np.random.default_rng(1)
    features = generator.normal(2 * labels @ np.ones((4, 8)), 1, (300, 8))
    features[:, :4] += 2 * labels
    features = features.astype(np.float32)
    found = out_of_fold_probabilities(features, labels, 3, penalty=0.05)
    assert not found[:, 3].any(), "no image has it"
    fold_of = assign_folds(labels, 3)
    train, unseen = fold_of != 0, fold_of == 0
    layer = FeatureStandardization()
    layer.adapt(features[train])
    scaled = keras.ops.convert_to_numpy(layer(features))
    for label in range(3):
        solver = LogisticRegression(C=1 / (0.05 * train.sum()), tol=1e-6)
        solver.fit(scaled[train], labels[train, label])
        expected = solver.predict_proba(scaled[unseen])[:, 1]
        np.testing.assert_allclose(found[unseen, label], expected, atol=2e-3)
    views = np.stack([features, features])
    twice = out_of_fold_probabilities(views, labels, 3, penalty=0.05)
    np.testing.assert_allclose(twice, found, atol=5e-3)
