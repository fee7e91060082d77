import component_checks
import keras
import numpy as np
import pytest
from keras import ops
from sklearn.metrics import average_precision_score

from keras_flowers import (
    ConfusionMatrix,
    ImageClassifier,
    InputError,
    MeanAveragePrecision,
)


def answers(count, classes=4, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count).astype(np.int32)
    return labels, generator.random((count, classes), dtype=np.float32)


def value(metric):
    return float(ops.convert_to_numpy(metric.result()))


def test_it_counts_which_class_was_taken_for_which():
    metric = ConfusionMatrix(3)
    assert value(metric) == 0
    predictions = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    metric.update_state(np.array([0, 1, 2, 2]), predictions)
    metric.update_state(np.array([[1]]), predictions[:1])
    np.testing.assert_array_equal(metric.matrix, [[1, 0, 0], [1, 1, 0], [0, 1, 1]])
    assert value(metric) == np.float32(3 / 5)
    metric.reset_state()
    assert metric.matrix.sum() == 0


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_result_is_that_of_keras_to_the_bit(weighed, dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has no float64 by default")

    def batches():
        for seed, count in enumerate((32, 32, 7)):
            weights = np.linspace(0.5, 2, count) if weighed else None
            yield *answers(count, seed=seed), weights

    ours = ConfusionMatrix(4, dtype=dtype)
    theirs = keras.metrics.SparseCategoricalAccuracy(dtype=dtype)
    component_checks.counts_as_a_keras_metric_does(ours, theirs, batches())
    counted = 0.0
    for labels, predictions, weights in batches():
        counted += len(labels) if weights is None else weights.sum()
        ours.update_state(labels, predictions, weights)
    assert ours.matrix.sum() == pytest.approx(counted)


def test_rows_that_mark_the_class_are_labels_too():
    labels, predictions = answers(20)
    by_number, by_row = ConfusionMatrix(4), ConfusionMatrix(4)
    by_number.update_state(labels, predictions)
    by_row.update_state(np.eye(4)[labels], predictions)
    np.testing.assert_array_equal(by_number.matrix, by_row.matrix)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_fit_reports_what_keras_reports(jit_compile):
    if keras.backend.backend() == "jax" and not jit_compile:
        pytest.skip("JAX runs eagerly then: the same operations, compiled one by one")
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (20, 6, 6, 3)).astype(np.uint8)
    labels = generator.integers(0, 3, 20)
    histories = []
    for metrics in ("auto", ["accuracy"]):
        model = ImageClassifier(
            ["a", "b", "c"], image_size=(6, 6), hidden_units=(4,), seed=1
        )
        model.compile(metrics=metrics, jit_compile=jit_compile)
        data = images, labels
        options = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0}
        fitted = model.fit(*data, validation_data=data, **options)
        histories.append(fitted.history)
    assert histories[0] == histories[1]
    assert set(histories[0]) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_callbacks_know_that_more_is_better():
    """Without `mode`: EarlyStopping, ModelCheckpoint and ReduceLROnPlateau."""
    images, labels = np.zeros((4, 4, 4, 3), np.uint8), np.array([0, 1, 1, 1])
    model = ImageClassifier(["a", "b"], image_size=(4, 4), hidden_units=(), seed=1)
    model.compile()
    data = images, labels
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=1)
    model.fit(*data, validation_data=data, epochs=4, callbacks=[stop], verbose=0)
    assert stop.best in (0.25, 0.75)


def test_configuration():
    metric = ConfusionMatrix(np.int64(5), name="hits")
    component_checks.config_covers_signature(metric)
    component_checks.config_round_trips(metric)
    component_checks.has_registered_name(metric, "keras_flowers>ConfusionMatrix")
    with pytest.raises(InputError, match="`class_count` must be .* class_count=1"):
        ConfusionMatrix(1)


def test_a_compiled_model_is_saved_with_it(tmp_path):
    model = ImageClassifier(["a", "b"], image_size=(4, 4), hidden_units=(), seed=1)
    model.compile()
    images, labels = np.zeros((4, 4, 4, 3), np.uint8), np.array([0, 1, 1, 1])
    model.fit(images, labels, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loss, accuracy = loaded.evaluate(images, labels, verbose=0)
    assert [loss, accuracy] == model.evaluate(images, labels, verbose=0)
    assert accuracy in (0.25, 0.75)
    np.testing.assert_array_equal(
        *(matrices(model)[0].matrix for model in (model, loaded))
    )


def matrices(model):
    nested = [
        inner for metric in model.metrics for inner in getattr(metric, "metrics", [])
    ]
    return [metric for metric in nested if isinstance(metric, ConfusionMatrix)]


def test_mean_average_precision_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    logits = generator.normal([0, -4, -8, -3], 2, (500, 4))
    # The third label is rare: all of its probabilities are close to 0.
    labels = generator.random((500, 4)) < 1 / (1 + np.exp(-logits / [1, 1, 3, 1]))
    labels[:, 3] = False  # a label that no image has
    labels = labels.astype(np.float32)
    probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
    metric = MeanAveragePrecision(4)
    assert value(metric) == 0
    for start in range(0, 500, 90):
        part = slice(start, start + 90)
        metric.update_state(labels[part], probabilities[part])
    known = labels[:, :3], probabilities[:, :3]
    expected = average_precision_score(*known, average=None)
    np.testing.assert_allclose(metric.per_class[:3], expected, atol=1e-3)
    assert np.isnan(metric.per_class[3])
    assert value(metric) == pytest.approx(expected.mean(), abs=1e-3)
    metric.reset_state()
    # A weight of 2 is the image twice; NaN ranks with the least probable ones.
    probabilities[0] = np.nan
    metric.update_state(labels, probabilities, np.full(500, 2.0))
    known = labels[:, :3], np.nan_to_num(probabilities[:, :3])
    expected = average_precision_score(*known, average=None)
    np.testing.assert_allclose(metric.per_class[:3], expected, atol=1e-3)
    component_checks.has_registered_name(metric, "keras_flowers>MeanAveragePrecision")
    component_checks.config_covers_signature(metric)
    with pytest.raises(InputError, match="class_count"):
        MeanAveragePrecision(0)
