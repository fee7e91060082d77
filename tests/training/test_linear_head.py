"""The default head behind a pretrained backbone, from training to prediction."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import assert_same_weights, small_loader, tiny_network
from interruption import Interrupt, InterruptedAtError

from keras_flowers import (
    Backbone,
    FineTuning,
    ImageClassifier,
    InputError,
    TrainingConfig,
    evaluate,
    train,
)
from keras_flowers.data.pipelines import EpochOrder
from keras_flowers.evaluation.pages import format_number
from keras_flowers.training.feature_datasets import load_features


def build(datasets):
    return ImageClassifier(
        datasets.class_names, datasets.image_size, backbone="network.keras", seed=1
    )


@pytest.fixture
def loader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny_network().save("network.keras")
    return small_loader(tmp_path)


def test_it_is_the_default_of_pretrained_backbones_only():
    names = ["a", "b"]
    pretrained = ImageClassifier(names, backbone=Backbone(tiny_network()))
    assert pretrained.has_linear_head
    assert pretrained.hidden_units is None
    assert pretrained.dropout_rate == 0
    kinds = [type(layer).__name__ for layer in pretrained.head().layers]
    assert kinds == ["InputLayer", "FeatureStandardization", "Dense"]
    assert not pretrained.layers[-1].kernel.numpy().any()
    pretrained.compile()
    assert isinstance(pretrained.optimizer, keras.optimizers.SGD)
    for other in (
        ImageClassifier(names, (8, 8)),
        ImageClassifier(names, backbone=Backbone(tiny_network(), None)),
        ImageClassifier(names, backbone=Backbone(tiny_network()), dropout=0.1),
    ):
        assert other.hidden_units == (256, 128)
        other.compile()
        assert isinstance(other.optimizer, keras.optimizers.Adam)


def test_a_run_trains_saves_reproduces_and_resumes(tmp_path, loader):
    arguments = {"epochs": 4, "feature_views": 3, "verbose": 0}
    whole = train(loader, build, run_directory="whole", tta=2, **arguments)
    assert whole.history["val_loss"][-1] < 0.9 < np.log(3)
    loaded = keras.models.load_model("whole/model.keras")
    assert loaded.has_linear_head
    assert_same_weights(loaded, whole.model)
    statistics = whole.model.get_layer("feature_standardization").get_weights()
    assert all(values.any() for values in statistics)

    config = TrainingConfig.read("whole/config.json")
    assert config.feature_views == 3
    assert_same_weights(train(config, verbose=0).model, whole.model)

    with pytest.raises(InterruptedAtError):
        train(
            loader,
            build,
            run_directory="half",
            callbacks=[Interrupt(2)],
            **arguments,
        )
    with pytest.raises(InputError, match="feature_views was 3 and is now 1"):
        train(loader, build, run_directory="half", resume=True, epochs=4, verbose=0)
    half = train(loader, build, run_directory="half", resume=True, **arguments)
    assert half.history["loss"] == whole.history["loss"]
    assert_same_weights(half.model, whole.model)

    # The report averages over views, as evaluate and classify do.
    averaged = evaluate(loaded, whole.datasets, tta=2)
    single = evaluate(loaded, whole.datasets)
    assert format_number(averaged.loss) != format_number(single.loss)
    content = (tmp_path / "whole/report.html").read_text()
    assert f">{format_number(averaged.loss)}<" in content
    paths = whole.datasets.paths("validation")
    for row, path in zip(
        averaged.probabilities, loaded.classify(paths, tta=2), strict=True
    ):
        got = [path.probabilities[name] for name in loaded.class_names]
        np.testing.assert_allclose(got, row, atol=1e-5)


def test_a_run_of_an_earlier_version_has_one_view(loader):
    train(loader, build, epochs=1, run_directory="run", verbose=0)
    path = Path("run/config.json")
    content = json.loads(path.read_text())
    for name in ("feature_views", "inference_precision"):
        del content[name]
    path.write_text(json.dumps(content))
    assert TrainingConfig.read(path).feature_views == 1
    train(loader, build, epochs=1, run_directory="run", resume=True, verbose=0)


def test_views_take_turns():
    order = EpochOrder(50, 3)
    epochs = []
    for epoch in range(3):
        positions = order.take_epoch_of_views(3)
        assert sorted(positions % 50) == list(range(50))
        np.testing.assert_array_equal(positions % 50, order.positions(epoch))
        epochs.append(np.argsort(positions % 50))
        views = positions // 50
        epochs[-1] = views[np.argsort(positions % 50)]
    assert (np.sort(epochs, axis=0) == np.arange(3)[:, None]).all()
    np.testing.assert_array_equal(
        EpochOrder(50, 3).take_epoch_of_views(1), order.positions(0)
    )


def test_with_augmentation_the_features_are_measured_and_views_are_refused(loader):
    def augmented(datasets):
        return ImageClassifier(
            datasets.class_names,
            backbone=Backbone("network.keras"),
            augmentation=True,
        )

    run = train(loader, augmented, epochs=1, verbose=0)
    (features,) = load_features(run.datasets, run.model, {"train": 1})["train"]
    standardize = run.model.get_layer("feature_standardization")
    np.testing.assert_allclose(np.mean(standardize(features), axis=0), 0, atol=1e-4)
    with pytest.raises(InputError, match="`feature_views` needs"):
        train(loader, augmented, epochs=1, feature_views=2, verbose=0)


def test_fine_tuning_does_not_use_the_optimizer_of_the_head(loader):
    run = train(loader, build, epochs=1, fine_tuning=FineTuning(epochs=1), verbose=0)
    assert isinstance(run.model.optimizer, keras.optimizers.Adam)
    # That of a linear head, 0.3, would be far too strong for a network.
    assert run.model.optimizer.weight_decay == 0.01
