import math

import keras
import numpy as np
import pytest
from helpers import draw_images, tiny_network
from PIL import Image

from keras_flowers import ImageClassifier, ImageDatasetLoader, evaluate, train
from keras_flowers.data.image_files import load_image
from keras_flowers.evaluation.calibration import fit_temperature
from keras_flowers.models.label_modes import SINGLE_LABEL
from keras_flowers.models.unknown import UnknownDetector
from keras_flowers.training.best_epoch import find_saved_epoch


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)


def test_the_temperature_that_was_applied_is_found():
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (4000, 5))
    true = softmax(logits)
    labels = np.array([generator.choice(5, p=row / row.sum()) for row in true])
    for temperature in (0.5, 1.7):
        sure = softmax(logits * temperature)
        assert fit_temperature(sure, labels) == pytest.approx(temperature, rel=0.1)
        scaled = np.asarray(SINGLE_LABEL.scale_probabilities(sure, temperature))
        np.testing.assert_allclose(scaled, true, atol=1e-5)


def test_a_temperature_that_cannot_be_known_is_1():
    generator = np.random.default_rng(0)
    probabilities = softmax(generator.normal(0, 2, (60, 3)))
    right, wrong = probabilities.argmax(axis=1), generator.integers(0, 3, 60)
    assert fit_temperature(probabilities, right) == 1  # no mistake
    assert fit_temperature(probabilities[:49], wrong[:49]) == 1  # too few images
    probabilities[3] = np.nan
    assert fit_temperature(probabilities, wrong) == 1


def test_a_detector_rejects_one_of_twenty_and_what_is_unlike_all_examples():
    generator = np.random.default_rng(0)
    probabilities = softmax(generator.normal(0, 2, (200, 3)))
    known, others = generator.normal(5, 1, (2, 200, 8))
    unlike = generator.normal(0, 1, (50, 8))
    plain = UnknownDetector.fit(probabilities)
    assert plain.find_unknown(probabilities, None).mean() == pytest.approx(0.05)
    detector = UnknownDetector.fit(probabilities, known, others)
    assert detector.find_unknown(probabilities, known).mean() == pytest.approx(0.05)
    assert detector.find_unknown(probabilities[:50], unlike).mean() > 0.9
    again = UnknownDetector.from_arrays(detector.to_arrays())
    np.testing.assert_array_equal(
        again.find_unknown(probabilities[:50], unlike),
        detector.find_unknown(probabilities[:50], unlike),
    )
    nan = np.full((1, 3), np.nan, np.float32)
    assert plain.find_unknown(nan, None).all()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with more than 50 validation images, one of which has the wrong label."""
    folder = tmp_path_factory.mktemp("judged")
    counts = {"daisy": 60, "roses": 60, "tulips": 60}
    images = draw_images(folder / "images", counts)
    for index in range(12):
        name = f"{index:03}.png"
        (images / "daisy" / name).rename(images / "roses" / f"wrong-{name}")
    tiny_network().save(folder / "tiny.keras")
    loader = ImageDatasetLoader(
        images,
        image_size=(8, 8),
        validation_split=0.35,
        cache_directory=folder / "cache",
    )

    def build(datasets):
        return ImageClassifier(
            datasets.class_names,
            hidden_units=(),
            backbone=folder / "tiny.keras",
            seed=1,
        )

    return folder, train(
        loader, build, epochs=8, run_directory=folder / "run", verbose=0
    )


def test_the_temperature_lowers_the_loss_and_is_saved(trained, tmp_path):
    folder, run = trained
    model, temperature = run.model, run.model.temperature
    assert temperature != 1
    evaluation = evaluate(model, run.datasets)
    loaded = keras.models.load_model(folder / "run" / "model.keras")
    assert loaded.temperature == temperature
    again = evaluate(loaded, run.datasets)
    np.testing.assert_allclose(evaluation.probabilities, again.probabilities, atol=1e-6)
    # Keras's own loss sees it too, and what is trained on does not.
    assert model.evaluate(run.datasets.validation, verbose=0)[0] == pytest.approx(
        evaluation.loss, rel=1e-4
    )
    batch = next(iter(run.datasets.validation))[0]
    raw, scaled = (np.asarray(model(batch, training=t)) for t in (True, False))
    loaded.temperature = 1.0
    before = evaluate(loaded, run.datasets)
    np.testing.assert_allclose(raw, before.probabilities[: len(raw)], atol=1e-6)
    assert not np.allclose(raw, scaled, atol=1e-3)
    assert evaluation.loss < before.loss
    report = (folder / "run" / "report.html").read_text()
    assert f"{temperature:.3f}" in report
    assert f"{before.calibration().error:.3f}" in report
    low, high = evaluation.accuracy_interval
    assert low < evaluation.accuracy < high
    assert f"95 % interval {low:.3f} to {high:.3f}" in report


def test_images_of_none_of_the_classes_are_found(trained, tmp_path):
    folder, run = trained
    for index, pixels in enumerate((np.zeros((9, 9, 3)), np.full((9, 9, 3), 255))):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{index}.png")
    others = sorted(tmp_path.glob("*.png"))
    known = run.datasets.paths("validation")
    loaded = keras.models.load_model(folder / "run" / "model.keras")
    for model in (run.model, loaded):
        found = model.classify([*known, *others], unknown="auto")
        unknown = [one.is_unknown for one in found]
        assert sum(unknown[: len(known)]) == pytest.approx(0.05 * len(known), abs=1)
        extractor = model.feature_extractor()
        batch = np.stack([load_image(path, (8, 8)) for path in others])
        similarities = model.unknown_detector.similarities(extractor.predict(batch))
        limit = model.unknown_detector.similarity_threshold
        np.testing.assert_array_equal(unknown[len(known) :], similarities < limit)
        plain = model.classify(known)
        assert not any(one.is_unknown for one in plain)
        for a, b in zip(found, plain, strict=False):
            assert a.probabilities == pytest.approx(b.probabilities, abs=1e-5)
    sure = [one.is_unknown for one in loaded.classify(known, unknown=1.0)]
    assert all(sure)


@pytest.mark.parametrize(
    ("losses", "accuracies", "best"),
    [
        ([0.3, 0.2, 0.4, 0.3], [0.8, 0.9, 0.92, 0.93], 4),  # fine-tuning gained
        ([0.3, 0.2, 0.4, 0.5], [0.8, 0.9, 0.92, 0.93], 3),
        ([0.3, 0.2, 1.6, 1.5], [0.8, 0.9, 0.2, 0.2], 2),  # it collapsed
        ([0.3, 0.2, math.nan, math.inf], [0.8, 0.9, 0.95, 0.95], 2),
        ([0.3, 0.2, 0.1, 0.15], [0.8, 0.9, 0.9, 0.95], 3),
        ([math.nan] * 4, [0.1] * 4, 4),
    ],
)
def test_which_epoch_of_two_stages_is_the_best(losses, accuracies, best):
    history = {"epoch": [1, 2, 3, 4], "val_loss": losses, "val_accuracy": accuracies}
    assert find_saved_epoch(history, "best", 2) == best
    assert find_saved_epoch(history, "last", 2) == 4
