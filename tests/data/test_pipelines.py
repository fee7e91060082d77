import numpy as np
import pytest
import tensorflow as tf

from keras_flowers.data.pipelines import choose_spread, take_spread


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(5, 9, [0, 1, 2, 3, 4]), (1, 3, [0]), (200, 3, [0, 100, 199]), (0, 3, [])],
)
def test_positions_from_all_over_a_range(total, count, expected):
    assert choose_spread(total, count) == expected


@pytest.mark.parametrize("total", [129, 255, 383])
def test_positions_reach_from_the_first_image_to_the_last(total):
    positions = choose_spread(total, 128)
    assert (len(set(positions)), positions[0], positions[-1]) == (128, 0, total - 1)
    assert max(np.diff(positions)) <= total // 128 + 2


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [0]), (9, [0, 2, 5]), (16, [0, 2, 3, 5]), (25, [0, 1, 2, 3, 4, 5, 6])],
)
def test_batches_from_all_over_a_pipeline(count, expected):
    images = np.arange(26)
    batches = tf.data.Dataset.from_tensor_slices((images, images)).batch(4)
    found = take_spread(batches, count)
    assert len(found) >= count
    parts = [images[4 * number : 4 * number + 4] for number in expected]
    np.testing.assert_array_equal(found, np.concatenate(parts))
