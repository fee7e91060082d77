"""Warm-up: the schedules, and how a configuration records them."""

import keras
import numpy as np
import pytest
from keras_flowers_settings.recorded import learning_rate, schedule, warm_up

from keras_flowers import FineTuning, InputError, warm_up_and_cosine, warm_up_and_hold


def rates(schedule, steps):
    return np.array([float(schedule(step)) for step in range(steps)])


def test_the_rate_rises_and_then_stays():
    found = rates(warm_up_and_hold(0.5, 100, 0.2), 100)
    np.testing.assert_allclose(found[:21], np.linspace(0, 0.5, 21), atol=1e-6)
    np.testing.assert_allclose(found[20:], 0.5)
    np.testing.assert_allclose(rates(warm_up_and_hold(0.5, 10, 0.0), 10), 0.5)
    np.testing.assert_allclose(rates(warm_up_and_hold(0.5, 1, 0.9), 1), 0.5)


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.2, 0.333, 0.9])
@pytest.mark.parametrize("build", [warm_up_and_hold, warm_up_and_cosine])
def test_what_a_configuration_records(build, fraction):
    optimizer = keras.optimizers.Adam(build(0.25, 630, fraction))
    config = {
        "model": {
            "compile_config": {
                "optimizer": keras.saving.serialize_keras_object(optimizer)
            }
        }
    }
    assert warm_up(config) == pytest.approx(fraction, abs=1e-3)
    if fraction in (0.05, 0.2):
        assert warm_up(config) == fraction
    assert learning_rate(config) == 0.25
    assert schedule(config) == ("constant" if build is warm_up_and_hold else "cosine")


@pytest.mark.parametrize("value", [-0.1, 1, float("nan"), "much"])
def test_a_warm_up_is_a_fraction(value):
    with pytest.raises(InputError, match="`warm_up`"):
        FineTuning(2, warm_up=value)
