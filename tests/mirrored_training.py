"""Trains on two virtual devices with `tf.distribute`; run by test_distribution.py.

TensorFlow divides a processor into devices only before it uses it.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from helpers import assert_same_weights, small_loader, small_model, tiny_network
from keras_flowers.callbacks import TensorBoard, TrainingCheckpoint

import keras_flowers
from keras_flowers import ImageClassifier, InputError

folder = Path(sys.argv[1])
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def build(seed):
    with strategy.scope():
        return ImageClassifier(
            datasets.class_names, (8, 8), hidden_units=(8,), dropout=0.2, seed=seed
        )


# Two images in the last batch: one for each device.
loader = small_loader(folder, validation_split=0.34)
datasets = loader.load()
paths = datasets.paths("validation")

# Compiled outside of the scope, and with the default XLA.
model = build(seed=1)
model.compile()
assert model.jit_compile is False
checkpoint = TrainingCheckpoint(folder / "checkpoint")
tensorboard = TensorBoard(
    folder / "tensorboard",
    class_names=datasets.class_names,
    training_images=next(iter(datasets.train))[0],
    validation_data=datasets.validation,
    options=keras_flowers.callbacks.TensorBoardOptions(embedded_images=8),
)
model.fit(
    datasets.train,
    validation_data=datasets.validation,
    epochs=2,
    verbose=0,
    callbacks=[tensorboard, checkpoint],
)
assert len((folder / "tensorboard/validation/metadata.tsv").open().readlines()) == 9

# Every image is counted once, and the answers are those of one device.
logs = model.evaluate(datasets.validation, verbose=0, return_dict=True)
evaluation = keras_flowers.evaluate(model, datasets)
np.testing.assert_allclose(logs["loss"], evaluation.loss, rtol=1e-5)
np.testing.assert_allclose(logs["accuracy"], evaluation.accuracy)
model.save(folder / "model.keras")
alone = keras.models.load_model(folder / "model.keras")
for one, other in zip(model.classify(paths), alone.classify(paths), strict=True):
    assert one.label == other.label
    np.testing.assert_allclose(one.probability, other.probability, rtol=1e-5)
assert len(keras_flowers.explain(model, paths[:3])) == 3

# Checkpoint and file continue on both devices.
resumed = build(seed=2)
resumed.compile()
assert TrainingCheckpoint(folder / "checkpoint").restore(resumed, epochs=3) == 2
assert_same_weights(resumed, model)
for one, other in zip(
    resumed.optimizer.variables, model.optimizer.variables, strict=True
):
    np.testing.assert_array_equal(one.numpy(), other.numpy())
with strategy.scope():
    loaded = keras.models.load_model(folder / "model.keras")
for continued in (resumed, loaded):
    continued.fit(datasets.train, epochs=3, initial_epoch=2, verbose=0)

# A run with both stages: a head on features, then the whole network.
tiny_network(pooled=True).save(folder / "network.keras")


def build_with_backbone(datasets):
    with strategy.scope():
        return ImageClassifier(
            datasets.class_names, backbone=folder / "network.keras", hidden_units=(8,)
        )


run = keras_flowers.train(
    loader,
    build_with_backbone,
    epochs=1,
    fine_tuning=keras_flowers.FineTuning(epochs=1),
    run_directory=folder / "run",
    verbose=0,
)
assert len(run.history["val_loss"]) == 2
assert (folder / "run/report.html").is_file()

# `train` creates the strategy itself.
histories = [
    keras_flowers.train(
        loader,
        lambda datasets: small_model(datasets, augmentation=False),
        epochs=2,
        devices=devices,
        verbose=0,
    ).history
    for devices in (1, "all")
]
for name in ("loss", "val_loss", "accuracy", "val_accuracy"):
    np.testing.assert_allclose(histories[1][name], histories[0][name], rtol=1e-4)

# A last batch of one image leaves a device without any: 19 images for training are
# 6 + 6 + 6 + 1, and 5 for validation are 4 + 1.
run = keras_flowers.train(
    small_loader(folder, batch_size=6),
    lambda datasets: small_model(datasets, augmentation=False),
    epochs=2,
    devices="all",
    verbose=0,
)
best = run.saved_epoch - 1
evaluation = keras_flowers.evaluate(run.model, run.datasets)
np.testing.assert_allclose(run.history["val_loss"][best], evaluation.loss, rtol=1e-5)
np.testing.assert_allclose(run.history["val_accuracy"][best], evaluation.accuracy)
counted = 19 * np.array(run.history["accuracy"])
np.testing.assert_allclose(counted, counted.round(), atol=1e-4)
assert np.isfinite(run.history["loss"]).all()

try:
    keras_flowers.train(small_loader(folder, batch_size=32), devices="all", verbose=0)
except InputError as error:
    assert "multiple of 2, the number of replicas" in str(error)
    assert "a batch of 19 in train" in str(error)
else:
    raise AssertionError("one batch of 19 images was accepted for two devices")
