import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_flowers import InputError
from keras_flowers.evaluation.calibration import measure_calibration


def measured(confidences, is_right, bins=15, dtype=np.float32):
    values = np.array(confidences, dtype=dtype)
    return measure_calibration(values, np.array(is_right, dtype=bool), bins)


def test_the_error_by_hand():
    confidences = [0.95, 0.85, 0.85, 0.65, 0.55, 0.30]
    result = measured(confidences, [1, 1, 0, 0, 1, 1], bins=5)
    assert [one.count for one in result.bins] == [0, 1, 1, 1, 3]
    assert [one.accuracy for one in result.bins] == [
        None,
        1,
        1,
        0,
        pytest.approx(2 / 3),
    ]
    last = result.bins[-1]
    assert (last.lower, last.upper) == pytest.approx((0.8, 1.0))
    assert last.confidence == pytest.approx(2.65 / 3)
    # The distance of each bin times its share of the six images.
    by_hand = (1 * 0.70 + 1 * 0.45 + 1 * 0.65 + 3 * (2.65 / 3 - 2 / 3)) / 6
    assert result.error == pytest.approx(by_hand, abs=1e-6)
    assert result.confidence == pytest.approx(sum(confidences) / 6, abs=1e-6)
    assert result.accuracy == pytest.approx(4 / 6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_edge_belongs_to_the_bin_that_ends_there(dtype):
    values = [0, 0.2, 0.4, 0.6, 0.8, 1]
    result = measured(values, [1] * 6, bins=5, dtype=dtype)
    assert [one.count for one in result.bins] == [2, 1, 1, 1, 1]


def test_a_sum_that_rounding_brought_above_1_is_in_the_last_bin():
    result = measured([1.0000001], [1])
    assert result.bins[-1].count == 1


def plain_error(confidences, is_right, bins):
    """The definition, image by image."""
    members = [[] for _ in range(bins)]
    for confidence, right in zip(confidences, is_right, strict=True):
        index = max(1, math.ceil(confidence * bins - 1e-9)) - 1
        members[index].append((confidence, right))
    total = len(confidences)
    error = 0.0
    for images in members:
        if images:
            confidence = sum(c for c, _ in images) / len(images)
            accuracy = sum(r for _, r in images) / len(images)
            error += len(images) / total * abs(accuracy - confidence)
    return error


# Multiples of 1/1000, off the edges of the bins.
images = st.tuples(st.integers(0, 999).map(lambda n: (n + 0.5) / 1000), st.booleans())


@given(st.lists(images, min_size=1, max_size=60), st.integers(1, 40))
def test_the_error_is_that_of_the_definition(rows, bins):
    confidences, is_right = zip(*rows, strict=True)
    result = measured(confidences, is_right, bins, dtype=np.float64)
    assert sum(one.count for one in result.bins) == len(rows)
    assert result.error == pytest.approx(plain_error(confidences, is_right, bins))
    assert 0 <= result.error <= 1
    # One bin hides what several show: the triangle inequality.
    whole = measured(confidences, is_right, 1, dtype=np.float64)
    assert whole.error <= result.error + 1e-9


def test_a_non_finite_prediction_is_not_hidden():
    result = measured([0.9, math.nan], [1, 0])
    assert math.isnan(result.error)
    assert result.non_finite == 1
    assert sum(one.count for one in result.bins) == 1
    assert result.confidence == pytest.approx(0.9)
    title = result.plot().axes[0].get_title()
    assert "nan" in title
    assert "1 non-finite predictions" in title


def test_nothing_but_nan_is_drawn(tmp_path):
    result = measured([math.nan] * 3, [0, 0, 0])
    assert math.isnan(result.confidence)
    assert math.isnan(result.accuracy)
    result.plot().savefig(tmp_path / "reliability.png")


def test_the_diagram_shows_the_bins(tmp_path):
    result = measured([0.95, 0.85, 0.85, 0.3], [1, 1, 0, 1], bins=5)
    figure = result.plot()
    above, below = figure.axes
    bars = [bar for bar in above.patches if not bar.get_hatch()]
    assert [bar.get_height() for bar in bars] == pytest.approx([1, 2 / 3])
    assert [bar.get_height() for bar in below.patches] == [1, 3]
    assert [bar.get_x() for bar in below.patches] == pytest.approx([0.2, 0.8])
    figure.savefig(tmp_path / "reliability.png")


@pytest.mark.parametrize("bins", [0, -1, 1.5, "15", 10**9])
def test_bins_that_are_none(bins):
    with pytest.raises(InputError, match="bins"):
        measured([0.5], [1], bins=bins)
