"""Checks that every serializable component passes; small functions, no base class."""

import inspect
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_flowers import InputError

INHERITED = {"kwargs", "name", "dtype", "trainable"}


def config_covers_signature(component):
    parameters = inspect.signature(type(component).__init__).parameters
    expected = set(parameters) - INHERITED - {"self"}
    missing = expected - set(component.get_config())
    assert not missing, f"{type(component).__name__}.get_config forgets {missing}"


def config_round_trips(component):
    text = json.dumps(keras.saving.serialize_keras_object(component))
    rebuilt = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(rebuilt) is type(component)
    assert json.dumps(rebuilt.get_config()) == json.dumps(component.get_config())


def from_config_leaves_its_argument(component):
    config = component.get_config()
    before = json.dumps(config, default=str)
    type(component).from_config(config)
    assert json.dumps(config, default=str) == before


def has_registered_name(component, name):
    assert keras.saving.get_registered_name(type(component)) == name


def saves_and_loads(layer, inputs, folder):
    model = keras.Sequential([keras.Input(inputs.shape[1:], dtype="uint8"), layer])
    path = folder / "layer.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    np.testing.assert_array_equal(predict(model, inputs), predict(loaded, inputs))


def predict(model, inputs):
    return ops.convert_to_numpy(model(inputs, training=False))


def symbolic_matches_eager(make_layer, inputs):
    for policy in ("float32", "mixed_bfloat16"):
        layer = make_layer(dtype=policy)
        symbolic = layer(keras.Input(inputs.shape[1:], dtype=str(inputs.dtype)))
        eager = layer(inputs)
        assert symbolic.shape[1:] == tuple(eager.shape[1:])
        assert keras.backend.standardize_dtype(
            symbolic.dtype
        ) == keras.backend.standardize_dtype(eager.dtype)
        assert keras.backend.standardize_dtype(eager.dtype) == layer.compute_dtype


def fits_where_a_keras_layer_does(make_layer, reference, inputs):
    """Compares with a layer of Keras that maps images to the same kind of output."""
    shape = (None, *inputs.shape[1:])

    def outcomes(layer):
        """Returns what Keras makes of a layer in each kind of model."""
        expected = predict(layer, inputs)
        batches = np.stack([inputs, inputs[::-1]], axis=1)
        distributed = keras.layers.TimeDistributed(layer)
        parts = ops.convert_to_numpy(distributed(batches))
        np.testing.assert_allclose(parts[:, 0], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(parts[::-1, 1], expected, rtol=1e-4, atol=1e-5)
        images = keras.Input(inputs.shape[1:])
        functional = keras.Model(images, layer(images))
        subclassed = Subclassed(layer)
        for model in (functional, subclassed, keras.Sequential([layer])):
            outputs = model.predict_on_batch(inputs)
            np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)
        with pytest.raises(NotImplementedError):
            layer.quantize("int8")
        spec = keras.Sequential([layer]).compute_output_spec(keras.KerasTensor(shape))
        return {
            "rank": len(layer.compute_output_shape(shape)),
            "is right": spec.shape[1:] == expected.shape[1:],
            "in Sequential": len(keras.Sequential([layer]).compute_output_shape(shape)),
            "spec": (type(spec), spec.shape[0], len(spec.shape)),
            "distributed": len(distributed.compute_output_shape((2, *shape))),
            "masks": layer.supports_masking,
            "jit": layer.supports_jit,
        }

    found, of_keras = outcomes(make_layer()), outcomes(reference)
    assert found == {**of_keras, "jit": True}, (found, of_keras)
    assert found["is right"], found
    policy = keras.DTypePolicy("mixed_bfloat16")
    layer = make_layer(dtype=policy)
    assert (layer.compute_dtype, layer.dtype_policy) == ("bfloat16", policy)
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(InputError, match="channels_last.*'channels_first'"):
            make_layer()
    finally:
        keras.config.set_image_data_format("channels_last")


class Subclassed(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs, training=None):
        return self.layer(inputs)


def takes_one_image_or_a_batch(layer, inputs):
    batch = ops.convert_to_numpy(layer(inputs))
    for one, expected in zip(inputs, batch, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(layer(one)), expected, 1e-5)


def runs_in_tf_data(layer, inputs):
    import tensorflow as tf

    direct = ops.convert_to_numpy(layer(inputs))
    images = tf.data.Dataset.from_tensor_slices(inputs)
    single = np.stack(list(images.map(layer).as_numpy_iterator()))
    batched = next(images.batch(len(inputs)).map(layer).as_numpy_iterator())
    np.testing.assert_allclose(single, direct, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(batched, direct, rtol=1e-5, atol=1e-5)


def counts_as_a_keras_metric_does(metric, reference, batches):
    """Compares with a metric of Keras that has the same result.

    Args:
        metric: A new metric.
        reference: A new metric of Keras.
        batches: Triples of labels, predictions and sample weights or `None`.
    """
    assert metric.dtype == reference.dtype
    metrics = metric, reference
    states = [[ops.convert_to_numpy(v) for v in one.variables] for one in metrics]
    for batch in batches:
        for one in metrics:
            one.update_state(*batch)
        states = [
            one.stateless_update_state(state, *batch)
            for one, state in zip(metrics, states, strict=True)
        ]
        results = [
            *(one.result() for one in metrics),
            *(
                one.stateless_result(state)
                for one, state in zip(metrics, states, strict=True)
            ),
        ]
        assert len({float(ops.convert_to_numpy(result)) for result in results}) == 1
    # Stateless calls leave the metric as it was.
    assert float(metric.stateless_result(metric.stateless_reset_state())) == 0
    assert float(metric.result()) == float(reference.result()) != 0
    for one in metrics:
        one.reset_state()
    assert float(metric.result()) == float(reference.result()) == 0
