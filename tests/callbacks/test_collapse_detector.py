"""A collapse is noticed while it happens, and a network that learns is left alone."""

import copy
import math
import warnings

import keras
import numpy as np
import pytest
from keras_flowers.callbacks import (
    CollapseDetector,
    CollapseWarning,
    HistoryLogger,
    TrainingCheckpoint,
)

from keras_flowers import ConfusionMatrix, InputError


def draw_points(counts, seed=0, spread=0.5):
    """Returns points around one corner per class, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centres = generator.normal(0, 2, (len(counts), 8))
    points = centres[labels] + generator.normal(0, spread, (len(labels), 8))
    order = generator.permutation(len(labels))
    return points[order].astype(np.float32), labels[order]


def build(classes, *, rate=0.02, metrics=True, optimizer="adam", seed=1):
    dense = keras.layers.Dense
    initializer = keras.initializers.GlorotUniform(seed)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            dense(16, "relu", kernel_initializer=initializer, name="hidden_1"),
            dense(classes, "softmax", kernel_initializer=initializer, name="out"),
        ]
    )
    model.compile(
        keras.optimizers.get(
            {"class_name": optimizer, "config": {"learning_rate": rate}}
        ),
        "sparse_categorical_crossentropy",
        metrics=[ConfusionMatrix(classes)] if metrics else ["accuracy"],
        run_eagerly=True,  # tracing takes longer than training
    )
    return model


def kill(model):
    """Makes every hidden unit 0 for all points, as a step that is too long does."""
    kernel, bias = model.get_layer("hidden_1").get_weights()
    model.get_layer("hidden_1").set_weights([kernel * 0, bias - 1])


def fit(model, data, detector, epochs, **arguments):
    return model.fit(
        *data,
        validation_data=data,
        epochs=epochs,
        verbose=0,
        callbacks=[detector],
        **arguments,
    ).history


def test_a_dead_network_is_noticed_in_its_first_epoch(tmp_path):
    data = draw_points([30, 20, 10])
    model = build(3)
    kill(model)
    detector = CollapseDetector(
        data, class_counts=[30, 20, 10], class_names=["daisy", "roses", "tulips"]
    )
    logger = HistoryLogger(tmp_path)
    with pytest.warns(CollapseWarning) as caught:
        model.fit(
            *data,
            validation_data=data,
            epochs=3,
            verbose=0,
            callbacks=[detector, logger],
        )
    (warning,) = [w for w in caught if w.category is CollapseWarning]
    text = str(warning.message)
    assert "\n" not in text
    assert "Epoch 1:" in text and "'daisy' for every image" in text
    assert "16 of 16 units of hidden_1 are always 0" in text
    assert "`learning_rate`" in text
    assert detector.collapse.epoch == 1 and detector.collapse.answer == 0
    assert logger.history["collapsed"] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("validated", ["matrix", "data", "loss alone"])
def test_a_stuck_network_is_noticed_after_epochs_without_progress(validated):
    data = draw_points([20, 20, 20, 20])
    model = build(4, rate=1e-9, metrics=validated == "matrix")
    # Different probabilities, and one answer all the same.
    kernel, _ = model.get_layer("out").get_weights()
    model.get_layer("out").set_weights([kernel * 0.002, np.array([0.02, 0, 0, 0])])
    detector = CollapseDetector(data if validated == "data" else None)
    with pytest.warns(CollapseWarning, match="Epoch 3") as caught:
        history = fit(model, data, detector, 4)
    # The rate is so low that the loss hardly changes.
    assert ("ten times" in str(caught[0].message)) == (validated == "data")
    assert detector.collapse.varies == (validated == "data")
    assert history["collapsed"] == [1.0, 1.0]  # Keras has no value for others
    assert detector.collapse.answer == (None if validated == "loss alone" else 0)
    assert not detector.collapse.dead_units


def test_a_loss_that_is_not_a_number_is_noticed_at_once():
    data = draw_points([20, 20])
    model = build(2)
    model.get_layer("out").set_weights([np.full((16, 2), np.nan), np.zeros(2)])
    with pytest.warns(CollapseWarning, match="Epoch 1: the training has diverged"):
        history = fit(model, data, CollapseDetector(data), 2)
    assert history["collapsed"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("counts", "rate", "arguments"),
    [
        ([40, 40, 40, 40, 40], 0.0005, {}),
        ([20, 20], 0.02, {}),  # few classes and images
        # The largest class is the first answer of a healthy network.
        ([190, 10], 0.0005, {}),
        ([190, 10], 0.0005, {"class_weight": {0: 0.526, 1: 10.0}}),
        ([300, 6, 6, 6], 0.02, {}),
    ],
    ids=str,
)
def test_a_network_that_learns_gives_no_alarm(counts, rate, arguments):
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        data = draw_points(counts)
        weights = arguments.get("class_weight")
        detectors = [
            CollapseDetector(data, class_counts=counts, class_weights=weights),
            CollapseDetector(),
        ]
        history = (
            build(len(counts), rate=rate)
            .fit(
                *data,
                validation_data=data,
                epochs=6,
                batch_size=50,
                verbose=0,
                callbacks=detectors,
                **arguments,
            )
            .history
        )
    assert "collapsed" not in history
    assert history["loss"][-1] < history["loss"][0]


def test_the_loss_of_guessing_is_that_of_the_best_constant_answer():
    detector = CollapseDetector(class_counts=[30, 10])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert detector._loss_of_guessing() == pytest.approx(entropy)
    balanced = CollapseDetector(
        class_counts=[30, 10], class_weights={0: 40 / 60, 1: 40 / 20}
    )
    assert balanced._loss_of_guessing() == pytest.approx(math.log(2))


def test_a_recovery_is_noticed_too():
    data = draw_points([20, 20])
    model = build(2)
    alive = model.get_weights()
    kill(model)
    revive = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: (
            model.set_weights(alive) if epoch == 1 else None
        )
    )
    detector = CollapseDetector(data)
    with pytest.warns(CollapseWarning):
        history = model.fit(
            *data,
            validation_data=data,
            epochs=4,
            verbose=0,
            callbacks=[revive, detector],
        ).history
    assert history["collapsed"] == [1.0, 0.0, 0.0, 0.0]
    assert detector.collapse is None


def test_a_resumed_training_warns_once(tmp_path):
    data = draw_points([20, 20])
    histories = []
    for begin, end in ((0, 2), (2, 4)):
        model = build(2)
        kill(model)
        detector = CollapseDetector(data)
        checkpoint = TrainingCheckpoint(tmp_path, [detector])
        assert checkpoint.restore(model, end) == begin
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CollapseWarning)
            history = model.fit(
                *data,
                validation_data=data,
                initial_epoch=begin,
                epochs=end,
                verbose=0,
                callbacks=[detector, checkpoint],
            )
        histories.append(history.history["collapsed"])
        assert len(caught) == (begin == 0)
    assert histories == [[1.0, 1.0]] * 2
    assert detector.collapse.epoch == 1


def test_any_model_is_watched():
    """A graph that is no chain, and one output for two classes."""
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(4, "relu", bias_initializer="zeros")(inputs)
    both = keras.layers.Concatenate()([hidden, hidden])
    outputs = keras.layers.Dense(1, "sigmoid", kernel_initializer="zeros")(both)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(1e-9), "binary_crossentropy", run_eagerly=True)
    data = draw_points([20, 20])
    # So few steps say nothing of an output that starts from zero.
    fit(model, data, CollapseDetector(data), 1)
    with pytest.warns(CollapseWarning, match="class 0' for every"):
        fit(model, data, CollapseDetector(data), 3)


def test_copies_share_the_data_and_wrong_arguments_are_named():
    data = draw_points([4, 4])
    detector = CollapseDetector(data, class_names=["a", "b"])
    twin = copy.deepcopy(detector)
    assert twin is not detector and twin.validation_data is data
    with pytest.raises(InputError, match="`patience`"):
        CollapseDetector(patience=0)
