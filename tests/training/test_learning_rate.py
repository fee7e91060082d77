"""The range test finds a rate, and leaves the model as it was."""

import keras
import numpy as np
import pytest
from helpers import small_loader, small_model, tiny_network

from keras_flowers import Backbone, InputError, find_learning_rate
from keras_flowers.training.learning_rate import smooth_losses, suggest_rate


def state_of(model):
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def assert_same_state(before, model):
    for a, b in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_mean_of_equal_losses_is_that_loss():
    np.testing.assert_allclose(smooth_losses([3.0] * 40), 3.0)
    assert smooth_losses([]).size == 0
    with_nan = smooth_losses([3.0, 3.0, np.inf, 3.0])
    np.testing.assert_array_equal(np.isnan(with_nan), [False, False, True, True])


def test_the_suggestion_is_the_lowest_rate_at_which_the_loss_is_low():
    rates = np.geomspace(1e-6, 1, 61)
    # Falls from 1e-4 on, lowest from 1e-2 on, explodes above 1e-1.
    falling = np.clip((np.log10(rates) + 4) / 2, 0, 1)
    losses = 1.6 - falling + np.where(rates > 0.1, 20 * rates, 0)
    suggestion = suggest_rate(rates, losses)
    assert 3e-3 <= suggestion <= 2e-2
    # A single batch of low loss does not decide.
    lucky = losses.copy()
    lucky[5] -= 1.0
    assert suggest_rate(rates, lucky) == suggestion
    # The loss of the last step is often not finite any more.
    assert suggest_rate(rates, [*losses[:-1], np.nan]) == suggestion
    # Without an explosion nobody knows whether the last rate is too high.
    assert suggest_rate(rates, np.linspace(2, 1, 61)) == pytest.approx(0.1)
    with pytest.raises(InputError, match="`lowest`"):
        suggest_rate(rates, np.full(61, np.nan))


def test_the_model_is_as_it_was_and_the_search_repeats_itself(tmp_path):
    datasets = small_loader(tmp_path).load()
    model = small_model(datasets, dropout=0.2)
    model.fit(datasets.train, epochs=1, verbose=0)
    before, optimizer = state_of(model), model.optimizer
    reports = []
    first = find_learning_rate(
        model, datasets, steps=40, progress=lambda *report: reports.append(report)
    )
    assert_same_state(before, model)
    assert model.optimizer is optimizer
    second = find_learning_rate(model, datasets, steps=40)
    np.testing.assert_array_equal(first.losses, second.losses)
    assert first.suggestion == second.suggestion
    assert first.rates[0] == pytest.approx(1e-7)
    assert len(first.rates) == len(first.losses) <= 40
    assert reports[-1] == ("learning rate", 40, 40)
    assert f"suggestion={first.suggestion:.3g}" in repr(first)
    assert first.to_json()["suggestion"] == first.suggestion
    (axes,) = first.plot().axes
    assert axes.get_xscale() == "log"


def test_the_loss_of_each_step_is_that_of_its_batch():
    """Not the mean of all batches so far, which Keras reports."""
    x = np.arange(8, dtype=np.float32)[:, None]
    inputs = keras.Input((1,))
    outputs = keras.layers.Dense(1, kernel_initializer="zeros")(inputs)
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    batches = [(x[i : i + 1], x[i : i + 1]) for i in range(8)]
    search = find_learning_rate(model, batches, lowest=1e-12, highest=1e-11, steps=20)
    np.testing.assert_allclose(
        search.losses, [float(i % 8) ** 2 for i in range(len(search.losses))], rtol=1e-4
    )


def test_a_frozen_backbone_is_tested_on_cached_features(tmp_path):
    network = tiny_network()
    network.save(tmp_path / "tiny.keras")
    loader = small_loader(tmp_path)
    model = small_model(loader.load(), backbone=Backbone(tmp_path / "tiny.keras"))
    before, reports = state_of(model), []
    search = find_learning_rate(
        model, loader, steps=25, progress=lambda *report: reports.append(report[0])
    )
    assert "features" in reports
    assert_same_state(before, model)
    assert 1e-7 <= search.suggestion <= 1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"steps": 5}, "`steps`"),
        ({"lowest": 0}, "`lowest`"),
        ({"lowest": 2, "highest": 1}, "`highest`"),
        ({"highest": float("nan")}, "`highest`"),
    ],
)
def test_bad_arguments_are_named(arguments, name):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match=name):
        find_learning_rate(model, [], **arguments)


def test_what_cannot_be_tested_is_refused():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    with pytest.raises(InputError, match="compiled"):
        find_learning_rate(model, [])
    model.compile("sgd", "mse")
    with pytest.raises(InputError, match="at least one batch"):
        find_learning_rate(model, [])
