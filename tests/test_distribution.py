"""Training on several devices at once."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import small_loader
from keras_flowers.callbacks import TensorBoard, TrainingCheckpoint

import keras_flowers
from keras_flowers import ImageClassifier, InputError


@pytest.mark.timeout(900)
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute")
def test_mirrored_strategy_on_two_devices(tmp_path):
    script = Path(__file__).with_name("mirrored_training.py")
    result = subprocess.run(
        [sys.executable, script, tmp_path],
        env=os.environ | {"KERAS_FLOWERS_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-5000:]


@pytest.fixture
def two_devices():
    devices = keras.distribution.list_devices()
    if keras.backend.backend() != "jax" or len(devices) != 2:
        pytest.skip("needs JAX with two devices, as in test_jax_backend.py")
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    )
    yield
    keras.distribution.set_distribution(None)


def test_two_devices_of_jax_share_batches(tmp_path, two_devices):
    loader = small_loader(tmp_path)
    datasets = loader.load()
    model = ImageClassifier(datasets.class_names, (8, 8), hidden_units=(4,), seed=1)
    model.compile()
    images = np.random.default_rng(0).integers(0, 256, (31, 8, 8, 3), np.uint8)
    labels = np.arange(31) % 3
    needed = "multiple of 2, the number of devices"
    for call in (model.fit, model.evaluate):
        with pytest.raises(InputError, match=f"{needed}.*batch_size=31"):
            call(images, labels, batch_size=31, verbose=0)
    with pytest.raises(InputError, match=f"{needed}.*a batch of 31 in `x`"):
        model.predict(images, verbose=0)
    with pytest.raises(InputError, match=f"{needed}.*a batch of 3 in train"):
        keras_flowers.train(loader, verbose=0)
    callbacks = [
        TrainingCheckpoint(tmp_path / "checkpoint"),
        TensorBoard(tmp_path / "logs", validation_data=datasets.validation),
    ]
    model.fit(images[:30], labels[:30], 10, verbose=0, callbacks=callbacks)
    # Predictions need no equal parts.
    paths = datasets.paths("validation")
    evaluation = keras_flowers.evaluate(model, datasets)
    assert len(evaluation.labels) == 5
    assert [one.label for one in model.classify(paths)] == [
        datasets.class_names[label] for label in evaluation.predictions
    ]
    with pytest.raises(InputError, match=needed):
        model.fit(datasets.train, verbose=0, shuffle=False)
