import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from keras_flowers.scores import (
    predict_labels,
    rank_mistakes,
    score_classes,
    wilson_interval,
)

ROWS = np.array(
    [[0.7, 0.3], [math.nan, 0.9], [0.2, 0.8], [0.6, 0.4], [math.inf, 0.0], [0.9, 0.1]]
)


def test_a_row_that_is_not_finite_has_no_label():
    assert predict_labels(ROWS).tolist() == [0, -1, 1, 0, -1, 0]
    assert predict_labels(ROWS).dtype == np.int32


def test_mistakes_are_ranked_by_their_loss():
    labels = np.array([0, 1, 0, 1, 0, 1])
    # Two that are not finite, in order; then 0.1, 0.2 and 0.4 for the true class.
    assert rank_mistakes(ROWS, labels).tolist() == [1, 4, 5, 2, 3]


pairs = st.tuples(st.integers(0, 4), st.integers(-1, 4))


@given(st.lists(pairs, max_size=40))
def test_scores_are_those_of_the_definition(rows):
    labels, predictions = np.array(rows, int).reshape(-1, 2).T
    scores = score_classes(labels, predictions, 5)
    for label, one in enumerate(scores):
        right = np.sum((labels == label) & (predictions == label))
        true, predicted = np.sum(labels == label), np.sum(predictions == label)
        assert one.precision == pytest.approx(right / max(predicted, 1))
        assert one.recall == pytest.approx(right / max(true, 1))
        assert one.f1 == pytest.approx(2 * right / max(true + predicted, 1))
        assert one.count == true


@given(st.lists(pairs.filter(lambda pair: pair[1] >= 0), min_size=1, max_size=40))
def test_counts_stand_for_repeated_pairs(rows):
    labels, predictions = np.array(rows).T
    matrix = np.zeros((5, 5))
    np.add.at(matrix, (labels, predictions), 1)
    true, predicted = np.nonzero(matrix)
    weighed = score_classes(true, predicted, 5, matrix[true, predicted])
    for a, b in zip(score_classes(labels, predictions, 5), weighed, strict=True):
        assert (a.precision, a.recall, a.f1, a.count) == pytest.approx(
            (b.precision, b.recall, b.f1, b.count)
        )


@given(st.integers(1, 5000), st.floats(0, 1))
def test_intervals_are_those_of_scipy(total, rate):
    successes = round(total * rate)
    found = wilson_interval(successes, total)
    wanted = binomtest(successes, total).proportion_ci(method="wilson")
    assert found == pytest.approx((wanted.low, wanted.high), abs=1e-9)
    assert 0 <= found[0] <= successes / total <= found[1] <= 1
    assert wilson_interval(0, 0) == (0, 1)
