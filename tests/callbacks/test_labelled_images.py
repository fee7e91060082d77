"""What the TensorBoard callback counts and which mistakes it keeps, without Keras."""

import math

import numpy as np
import pytest
from keras_flowers.callbacks.labelled_images import classify_batches, to_probabilities

from keras_flowers.scores import rank_mistakes

GENERATOR = np.random.default_rng(0)
ROWS = GENERATOR.dirichlet(np.ones(3), 100)
LABELS = GENERATOR.integers(0, 3, 100)


class Recall:
    """A model whose images are the positions of what it predicts."""

    def __init__(self, rows):
        self.rows = rows

    def predict_on_batch(self, images):
        return self.rows[images[:, 0, 0, 0]]


def classified(rows, **options):
    images = np.arange(len(rows)).reshape(-1, 1, 1, 1)
    return classify_batches(Recall(rows), (images, LABELS[: len(rows)]), **options)


@pytest.mark.parametrize("most", [0, 1, 9, 1000])
def test_the_worst_mistakes_of_all_batches_are_kept(most):
    found = classified(ROWS, mistakes=most)
    ranked = rank_mistakes(ROWS, LABELS)[:most]
    assert [one.position for one in found.mistakes] == ranked.tolist()
    for one in found.mistakes:
        assert one.image.item() == one.position
        row = ROWS[one.position]
        assert (one.true, one.predicted) == (LABELS[one.position], row.argmax())
        assert (one.probability, one.true_probability) == (row.max(), row[one.true])
    expected = np.zeros((3, 3))
    np.add.at(expected, (LABELS, ROWS.argmax(axis=1)), 1)
    np.testing.assert_array_equal(found.matrix, expected)
    assert found.count == 100


def test_images_are_looked_up_by_their_position():
    found = classified(ROWS, mistakes=3, image_of=lambda position: -position)
    assert [one.image for one in found.mistakes] == [
        -one.position for one in found.mistakes
    ]


def test_a_non_finite_prediction_is_a_mistake_in_no_column():
    rows = ROWS.copy()
    rows[[5, 40]] = math.nan
    found = classified(rows, mistakes=4)
    assert found.count == 100
    assert found.matrix.sum() == 98
    first, second, *others = found.mistakes
    assert [one.position for one in (first, second)] == [5, 40]
    assert first.predicted == second.predicted == -1
    assert math.isnan(first.probability)
    assert all(one.predicted >= 0 for one in others)


def test_one_nan_does_not_turn_probabilities_into_logits():
    rows = ROWS[:4].copy()
    rows[2] = math.nan
    np.testing.assert_array_equal(to_probabilities(rows), rows)
    logits = np.log(rows) + 5
    np.testing.assert_allclose(to_probabilities(logits), rows)
    assert to_probabilities([[0.25], [1.0]]).tolist() == [[0.75, 0.25], [0, 1]]
