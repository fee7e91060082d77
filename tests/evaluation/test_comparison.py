"""Two models on the same images, against numbers computed by hand."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from keras_flowers import (
    Difference,
    Evaluation,
    InputError,
    MultiLabelEvaluation,
    compare_evaluations,
)
from keras_flowers.evaluation.resampling import compute_average_precisions
from keras_flowers.files import json_text

NAMES = ("a", "b")


def evaluation(is_right, confidence=0.9, names=NAMES):
    """Returns an evaluation of images of "a" and "b" in turn."""
    labels = np.arange(len(is_right), dtype=np.int32) % 2
    predicted = np.where(is_right, labels, 1 - labels)
    probabilities = np.full((len(labels), 2), 1 - confidence, np.float32)
    probabilities[np.arange(len(labels)), predicted] = confidence
    paths = tuple(Path(f"{index}.jpg") for index in range(len(labels)))
    return Evaluation(names, paths, labels, probabilities)


def models():
    """100 images: 80 right in both, 12 fixed, 3 broken, 5 wrong in both."""
    first = [True] * 80 + [False] * 12 + [True] * 3 + [False] * 5
    second = [True] * 80 + [True] * 12 + [False] * 3 + [False] * 5
    return evaluation(first), evaluation(second)


def test_figures_by_hand():
    comparison = compare_evaluations(*models())
    assert (comparison.fixed, comparison.broken) == (12, 3)
    # Twice the sum of C(15, k) / 2 ** 15 for k up to 3.
    assert comparison.p_value == pytest.approx(2 * (1 + 15 + 105 + 455) / 2**15)
    difference = comparison.accuracy
    assert difference.value == pytest.approx(0.09)
    # Bonett and Price: 13 / 102 and 4 / 102.
    spread = 1.959964 * math.sqrt((17 / 102 - (9 / 102) ** 2) / 102)
    assert difference.low == pytest.approx(9 / 102 - spread)
    assert difference.high == pytest.approx(9 / 102 + spread)
    assert difference.is_clear
    step = math.log(9)
    losses = np.repeat([0, -step, step, 0], [80, 12, 3, 5])
    assert comparison.loss.value == pytest.approx(losses.mean(), abs=1e-5)
    error = losses.std(ddof=1) / 10
    # The 97.5th percentile of the t distribution with 99 degrees of freedom.
    assert comparison.loss.high == pytest.approx(losses.mean() + 1.98422 * error, 1e-3)
    assert repr(comparison).startswith("Comparison(100 images: accuracy 0.830 and 0.92")


def test_the_interval_covers_the_truth():
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        first, second = generator.random(80) < 0.8, generator.random(80) < 0.9
        one = compare_evaluations(evaluation(first), evaluation(second)).accuracy
        covered.append(one.low <= 0.1 <= one.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)


def test_recall_of_each_class():
    comparison = compare_evaluations(*models())
    # Of the fixed images 6 are of each class; of the broken ones "a" has 2.
    found = {name: one.value for name, one in comparison.per_class.items()}
    assert found == pytest.approx({"a": (6 - 2) / 50, "b": (6 - 1) / 50}, abs=1e-9)


def test_changed_images_are_those_that_changed(tmp_path):
    first, second = models()
    third = second.probabilities.copy()
    comparison = compare_evaluations(first, second)
    kinds = [one.change for one in comparison.changed]
    assert kinds == ["broken"] * 3 + ["fixed"] * 12
    image = comparison.changed[0]
    assert image.first_class == image.true_class != image.second_class
    assert image.second_probability == pytest.approx(0.9)
    comparison.write_changed(tmp_path / "changed.csv")
    rows = list(csv.reader((tmp_path / "changed.csv").read_text().splitlines()))
    assert rows[0][:3] == ["path", "true_class", "first_class"]
    assert [row[-1] for row in rows[1:]] == kinds
    third[0] = np.nan
    lost = compare_evaluations(first, dataclasses.replace(second, probabilities=third))
    assert lost.changed[0].second_class is None
    assert (lost.broken, math.isnan(lost.loss.high)) == (4, True)
    text = json.loads(json_text(lost.to_json(most_changed=2)))
    assert (text["changed_images"], len(text["changed"])) == (16, 2)
    assert text["loss"]["high"] == "NaN"


def test_order_of_classes_and_images_does_not_matter():
    first, second = models()
    order = np.random.default_rng(0).permutation(100)
    shuffled = Evaluation(
        ("b", "a"),
        tuple(second.paths[index] for index in order),
        (1 - second.labels)[order],
        second.probabilities[order][:, ::-1],
    )
    expected = compare_evaluations(first, second)
    found = compare_evaluations(first, shuffled)
    assert found.to_json() == expected.to_json()


def test_equal_models_do_not_differ():
    first, _ = models()
    comparison = compare_evaluations(first, first)
    assert (comparison.p_value, comparison.changed) == (1.0, ())
    assert (comparison.loss.low, comparison.loss.high) == (0, 0)
    assert not comparison.accuracy.is_clear


def test_other_images_or_classes_are_refused():
    first, second = models()
    with pytest.raises(InputError, match="same classes"):
        compare_evaluations(first, dataclasses.replace(second, class_names=("a", "c")))
    paths = (Path("other.jpg"), *second.paths[1:])
    with pytest.raises(InputError, match=r"same images.* 99 of them the same"):
        compare_evaluations(first, dataclasses.replace(second, paths=paths))
    with pytest.raises(InputError, match="same class"):
        compare_evaluations(
            first, dataclasses.replace(second, labels=1 - second.labels)
        )


def labeled(seed=0, count=200, sharpness=1.0, names=("sky", "sea", "sand", "snow")):
    """Returns an evaluation of images with several labels; no image has the last."""
    generator = np.random.default_rng(5)
    logits = generator.normal([0, -1, -2, -3], 1.5, (count, 4))
    labels = generator.random((count, 4)) < 1 / (1 + np.exp(-2 * logits))
    labels[:, 3] = False
    noise = np.random.default_rng(seed).normal(0, 1 / sharpness, (count, 4))
    probabilities = (1 / (1 + np.exp(-logits - noise))).astype(np.float32)
    # Some images are equally probable.
    probabilities = probabilities.round(2)
    paths = tuple(Path(f"{index}.jpg") for index in range(count))
    arrays = labels.astype(np.float32), probabilities
    return MultiLabelEvaluation(names, paths, *arrays, (0.5, 0.4, 0.3, 0.5))


def test_bootstrap_of_average_precision_is_that_of_scikit_learn():
    one = labeled()
    weights = np.random.default_rng(0).multinomial(200, np.full(200, 1 / 200), 5)
    for label in range(3):
        true, probable = one.labels[:, label] == 1, one.probabilities[:, label]
        found = compute_average_precisions(true, probable, weights.astype(np.float32))
        expected = [
            average_precision_score(true, probable, sample_weight=row)
            for row in weights
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    last, probable = one.labels[:, 3] == 1, one.probabilities[:, 3]
    nobody = compute_average_precisions(last, probable, weights)
    assert np.isnan(nobody).all()


def test_images_with_several_labels_are_compared(tmp_path):
    first, second = labeled(1, sharpness=0.7), labeled(2, sharpness=4)
    # The second model has its classes and images in another order.
    turned = dataclasses.replace(
        second,
        class_names=second.class_names[::-1],
        paths=second.paths[::-1],
        labels=second.labels[::-1, ::-1],
        probabilities=second.probabilities[::-1, ::-1],
        thresholds=second.thresholds[::-1],
    )
    comparison = compare_evaluations(first, turned)
    assert comparison.second.thresholds == second.thresholds
    for name in ("mean_average_precision", "f1_micro", "f1_macro", "exact_match"):
        difference = getattr(comparison, name)
        value = getattr(second, name) - getattr(first, name)
        assert difference.value == pytest.approx(value)
        assert difference.low < value < difference.high
        assert difference.is_clear
    assert comparison.loss.value == pytest.approx(second.loss - first.loss)
    assert comparison.loss.high < 0
    assert list(comparison.per_class) == ["sky", "sea", "sand"]
    right = [
        (one.predictions == (one.labels == 1)).all(axis=1) for one in (first, second)
    ]
    assert comparison.fixed == (~right[0] & right[1]).sum()
    assert comparison.broken == (right[0] & ~right[1]).sum()
    assert comparison.p_value < 0.01
    content = json.loads(json_text(comparison.to_json(most_changed=3)))
    assert content["mean_average_precision"]["low"] > 0
    assert len(content["changed"]) == 3
    comparison.write_changed(tmp_path / "changed.csv")
    with (tmp_path / "changed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(comparison.changed)
    index = first.paths.index(Path(rows[0]["path"]))
    true = first.name_labels(first.labels[index] == 1)
    assert rows[0]["true_labels"] == "|".join(true)
    assert rows[0]["change"] == "broken"
    assert rows[0]["first_labels"] == rows[0]["true_labels"]
    assert repr(comparison).startswith("MultiLabelComparison(200 images: mean average")
    same = compare_evaluations(first, first)
    assert same.mean_average_precision == Difference(0, 0, 0)
    assert (same.changed, same.p_value) == ((), 1.0)
    again = compare_evaluations(first, second)
    assert again.mean_average_precision == comparison.mean_average_precision
    other = dataclasses.replace(first, labels=1 - first.labels)
    with pytest.raises(InputError, match="the same labels"):
        compare_evaluations(first, other)
    two = slice(2)
    first = dataclasses.replace(
        first,
        class_names=NAMES,
        labels=first.labels[:, two],
        probabilities=first.probabilities[:, two],
    )
    one_class = evaluation([True] * 200)
    with pytest.raises(InputError, match="both several labels"):
        compare_evaluations(first, one_class)


def test_the_interval_of_equal_models_covers_zero():
    """Two models that are equally good on average differ by chance alone."""
    covered = []
    for seed in range(24):
        pair = labeled(2 * seed + 10, 100), labeled(2 * seed + 11, 100)
        difference = compare_evaluations(*pair).mean_average_precision
        covered.append(not difference.is_clear)
    assert np.mean(covered) >= 0.8
