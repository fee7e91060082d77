import component_checks
import keras
import numpy as np
import pytest
from keras import ops

from keras_flowers import InputError, Muon
from keras_flowers.optimizers import orthogonalize


def matrices(*shapes):
    generator = np.random.default_rng(3)
    return [generator.normal(size=shape).astype("float32") for shape in shapes]


def step(optimizer, variable, gradient):
    """Returns by how much a step changes a variable."""
    before = ops.convert_to_numpy(variable)
    optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
    return ops.convert_to_numpy(variable) - before


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (12, 12)])
def test_orthogonal_matrices_have_the_directions_of_the_matrix(shape):
    (matrix,) = matrices(shape)
    found = ops.convert_to_numpy(orthogonalize(ops.convert_to_tensor(matrix)))
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    kept = values > 0.05 * values.max()
    middle = left.T @ found @ right.T
    assert kept.sum() >= 11
    assert np.all(np.diag(middle)[kept] > 0.6)
    assert np.all(np.diag(middle) < 1.3)
    np.testing.assert_allclose(middle - np.diag(np.diag(middle)), 0, atol=0.002)


def test_iterations_on_the_products_equal_those_on_the_matrix():
    (matrix,) = matrices((30, 8))
    expected = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        products = expected.T @ expected
        polynomial = -4.7750 * products + 2.0315 * products @ products
        expected = 3.4445 * expected + expected @ polynomial
    found = orthogonalize(ops.convert_to_tensor(matrix))
    np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=1e-5)


def test_rounded_products_of_a_matrix_of_low_rank_do_no_harm():
    left, right = matrices((300, 5), (5, 60))
    matrix = ops.cast(ops.convert_to_tensor(left @ right), "bfloat16")
    found = ops.convert_to_numpy(ops.cast(orthogonalize(matrix), "float32"))
    assert 0.6 < np.linalg.norm(found, 2) < 1.3


def test_convolutions_take_orthogonal_steps_of_the_size_of_adam():
    kernel, gradient = matrices((3, 3, 4, 8), (3, 3, 4, 8))
    variable = keras.Variable(kernel)
    change = step(Muon(0.01, weight_decay=None), variable, gradient)
    matrix = change.reshape(36, 8)
    values = np.linalg.svd(matrix, compute_uv=False) / (0.01 * 0.2 * 36**0.5)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert np.sum(matrix * gradient.reshape(36, 8)) < 0
    # Only the direction of the gradient counts.
    again = step(Muon(0.01, weight_decay=None), keras.Variable(kernel), 50 * gradient)
    np.testing.assert_allclose(change, again, atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (6, 4), (3, 3, 4, 1)])
def test_everything_else_is_trained_by_adamw(shape):
    value, *gradients = matrices(shape, shape, shape)
    (kernel,) = matrices((3, 3, 2, 2))
    found, expected = keras.Variable(value), keras.Variable(value)
    convolution = keras.Variable(kernel)
    muon, adamw = Muon(0.01, 0.1), keras.optimizers.AdamW(0.01, 0.1)
    muon.build([convolution, found])
    for gradient in gradients:
        muon.apply(
            [ops.ones((3, 3, 2, 2)), ops.convert_to_tensor(gradient)],
            [convolution, found],
        )
        adamw.apply([ops.convert_to_tensor(gradient)], [expected])
    np.testing.assert_allclose(
        ops.convert_to_numpy(found), ops.convert_to_numpy(expected), rtol=2e-4
    )


def test_weights_without_a_convolution_are_refused():
    with pytest.raises(InputError, match="use `adamw`"):
        Muon().build([keras.Variable(np.ones((3, 3), "float32"))])


def test_a_saved_model_continues_bit_identically(tmp_path):
    images, labels = matrices((8, 6, 6, 3))[0], np.arange(8) % 2
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(4, 3),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(Muon(keras.optimizers.schedules.CosineDecay(0.01, 20)), loss)

    def losses(model):
        fitted = model.fit(
            images, labels, batch_size=4, epochs=3, shuffle=False, verbose=0
        )
        return fitted.history["loss"]

    first = losses(model)
    assert first[-1] < first[0]
    model.save(tmp_path / "model.keras")
    assert losses(keras.models.load_model(tmp_path / "model.keras")) == losses(model)


def test_component_checks():
    optimizer = Muon(
        0.02, 0.1, momentum=0.8, beta_1=0.7, beta_2=0.9, epsilon=0.1, use_ema=True
    )
    component_checks.config_covers_signature(optimizer)
    component_checks.config_round_trips(optimizer)
    component_checks.from_config_leaves_its_argument(optimizer)
    component_checks.has_registered_name(optimizer, "keras_flowers>Muon")
