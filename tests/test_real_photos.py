"""The whole path on real photos; CI names their folder."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_flowers
from keras_flowers.data.image_files import load_image

pytestmark = [
    pytest.mark.usefixtures("with_charts"),
    pytest.mark.real_photos,
    pytest.mark.skipif(
        "KERAS_FLOWERS_TEST_DATA" not in os.environ,
        reason="KERAS_FLOWERS_TEST_DATA names no folder of photos",
    ),
]


def test_a_run_on_real_images(tmp_path):
    loader = keras_flowers.ImageDatasetLoader(
        os.environ["KERAS_FLOWERS_TEST_DATA"],
        image_size=(64, 64),
        cache_directory=tmp_path / "cache",
    )
    run = keras_flowers.train(
        loader, epochs=8, run_directory=tmp_path / "run", verbose=0
    )
    paths = run.datasets.paths("validation")
    images = np.concatenate([images for images, _ in run.datasets.validation])
    assert len(paths) == len(images) == sum(run.datasets.counts("validation").values())
    for index in range(0, len(paths), 40):
        expected = load_image(paths[index], (64, 64))
        np.testing.assert_array_equal(images[index], expected)
    assert max(run.history["val_accuracy"]) > 0.35  # chance is 0.24
    assert run.history["loss"][-1] < run.history["loss"][0]

    loaded = keras.models.load_model(tmp_path / "run" / "model.keras")
    first, second = (
        keras_flowers.evaluate(model, run.datasets) for model in (run.model, loaded)
    )
    np.testing.assert_array_equal(first.probabilities, second.probabilities)
    assert first.accuracy == pytest.approx(run.history["val_accuracy"][-1])
    labels = [result.label for result in loaded.classify(paths[:20])]
    predicted = first.probabilities[:20].argmax(axis=1)
    assert labels == [loaded.class_names[label] for label in predicted]

    # 24 thumbnails of the worst mistakes, two drawings, no more.
    assert (tmp_path / "run" / "report.html").stat().st_size < 3_000_000
    first.plot_mistakes().savefig(tmp_path / "mistakes.png")
    assert 0 <= first.calibration().error < 1


@pytest.mark.skipif(
    "KERAS_FLOWERS_TEST_WEIGHTS" not in os.environ,
    reason="KERAS_FLOWERS_TEST_WEIGHTS names no folder of pretrained weights",
)
def test_a_pretrained_backbone_knows_nine_images_in_ten(tmp_path):
    weights = Path(os.environ["KERAS_FLOWERS_TEST_WEIGHTS"])
    backbone = keras_flowers.Backbone(weights / "efficientnet_lite0_notop.keras")
    loader = keras_flowers.ImageDatasetLoader(
        os.environ["KERAS_FLOWERS_TEST_DATA"],
        image_size=backbone.image_size,
        cache_directory=tmp_path / "cache",
    )
    run = keras_flowers.train(
        loader,
        lambda datasets: keras_flowers.ImageClassifier(
            datasets.class_names, seed=42, backbone=backbone
        ),
        epochs=10,
        run_directory=tmp_path / "run",
        verbose=0,
    )
    assert run.history["val_accuracy"][-1] > 0.88
    loaded = keras.models.load_model(tmp_path / "run" / "model.keras")
    paths = run.datasets.paths("validation")
    labels = [result.label for result in loaded.classify(paths)]
    right = np.mean(
        [path.parent.name == label for path, label in zip(paths, labels, strict=True)]
    )
    # Photos through the whole model, against features that were computed before.
    assert right == pytest.approx(run.history["val_accuracy"][-1], abs=0.006)
