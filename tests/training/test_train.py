import json
import shutil

import keras
import numpy as np
import pytest
from helpers import RESULTS, assert_same_weights, small_loader, small_model
from keras_flowers.callbacks import CollapseWarning

import keras_flowers
from keras_flowers import (
    ImageClassifier,
    InputError,
    TrainingConfig,
    train,
)
from keras_flowers.training import recording
from keras_flowers.training.preparation import weigh_labels


def run(tmp_path, *, directory="run", build_model=small_model, loader=None, **options):
    options = {"epochs": 2, "verbose": 0} | options
    return train(
        loader or small_loader(tmp_path),
        build_model,
        run_directory=None if directory is None else tmp_path / directory,
        **options,
    )


def contents(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_run_leaves_everything_in_its_directory(tmp_path):
    result = run(tmp_path)
    directory = tmp_path / "run"
    assert sorted(path.name for path in directory.iterdir()) == RESULTS
    assert result.directory == directory
    assert not result.interrupted
    assert result.history["epoch"] == [1, 2]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= set(result.history)
    assert json.loads((directory / "history.json").read_text())["epoch"] == [1, 2]
    assert (directory / "history.png").read_bytes().startswith(b"\x89PNG")
    split = json.loads((directory / "split.json").read_text())
    assert len(split["photos"]) == 24
    json.loads((directory / "audit.json").read_text())


def test_the_saved_model_predicts_as_the_trained_one(tmp_path):
    result = run(tmp_path)
    loaded = keras.models.load_model(tmp_path / "run" / "model.keras")
    images = result.datasets.validation
    np.testing.assert_array_equal(
        result.model.predict(images, verbose=0), loaded.predict(images, verbose=0)
    )


def test_it_learns(tmp_path):
    result = run(tmp_path, epochs=12, directory=None)
    assert result.history["val_accuracy"][-1] > 0.9


def test_the_default_model_is_that_of_the_package(tmp_path):
    result = train(small_loader(tmp_path), epochs=1, verbose=0)
    assert isinstance(result.model, ImageClassifier)
    assert result.model.hidden_units == (256, 128)
    assert result.model.image_size == (8, 8)
    assert result.model.seed == 42
    assert result.directory is None


@pytest.mark.xla
def test_two_runs_are_equal_to_the_bit(tmp_path):
    first, second = (run(tmp_path, directory=None) for _ in range(2))
    assert_same_weights(first.model, second.model)
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert first.history[name] == second.history[name]


def test_a_run_is_repeated_from_its_config(tmp_path):
    first = run(
        tmp_path,
        build_model=lambda data: small_model(data, seed=7, dropout=0.2),
        class_weights="balanced",
        early_stopping=5,
    )
    config = TrainingConfig.read(tmp_path / "run" / "config.json")
    assert config.early_stopping == 5
    second = train(config, run_directory=tmp_path / "again", verbose=0)
    assert_same_weights(first.model, second.model)
    assert second.model.optimizer.get_config() == first.model.optimizer.get_config()
    for name in ("split.json", "audit.json"):
        written = [(tmp_path / d / name).read_text() for d in ("run", "again")]
        assert written[0] == written[1]


def test_a_later_start_sees_the_images_of_its_epoch(tmp_path):
    """What a resumed run needs: the order of epoch k is that of epoch k."""
    whole = run(tmp_path, directory=None, epochs=3)
    datasets = small_loader(tmp_path).load()
    model = small_model(datasets)
    follow = keras_flowers.training.train.FollowEpochs(datasets)
    for first, last in ((0, 1), (1, 3)):
        next(iter(datasets.train))  # somebody looks at the data in between
        model.fit(
            datasets.train,
            initial_epoch=first,
            epochs=last,
            callbacks=[follow],
            verbose=0,
        )
    assert_same_weights(model, whole.model)


@pytest.mark.filterwarnings("ignore::keras_flowers.callbacks.CollapseWarning")
def test_early_stopping_brings_the_best_weights_back(tmp_path):
    def build(datasets):
        model = small_model(datasets)
        model.compile(keras.optimizers.SGD(50.0))  # goes astray at once
        return model

    with pytest.warns(CollapseWarning):
        result = run(
            tmp_path, directory=None, build_model=build, epochs=30, early_stopping=2
        )
    assert "collapsed" in result.history
    losses = result.history["val_loss"]
    assert len(losses) < 30
    loss, _ = result.model.evaluate(result.datasets.validation, verbose=0)
    assert loss == pytest.approx(min(losses), rel=1e-4)


def test_balanced_class_weights(tmp_path):
    datasets = small_loader(tmp_path).load()
    weights = weigh_labels("balanced", datasets)
    counts = datasets.counts("train")
    products = [weights[i] * n for i, n in enumerate(counts.values())]
    assert products == pytest.approx([sum(counts.values()) / 3] * 3)
    named = {"daisy": 1.0, "roses": 2.0, "tulips": 3.0}
    assert weigh_labels(named, datasets) == {
        0: 1.0,
        1: 2.0,
        2: 3.0,
    }
    with pytest.raises(InputError, match="class_weights"):
        weigh_labels({"daisy": 1.0}, datasets)


class InterruptAt(keras.callbacks.Callback):
    def __init__(self, epoch, batch):
        super().__init__()
        self.at = (epoch, batch)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("epoch", "done"), [(0, []), (1, [1])])
def test_ctrl_c_saves_what_is_there(tmp_path, epoch, done):
    result = run(tmp_path, epochs=5, callbacks=[InterruptAt(epoch, 2)])
    assert result.interrupted
    assert result.history.get("epoch", []) == done
    loaded = keras.models.load_model(tmp_path / "run" / "model.keras")
    assert_same_weights(loaded, result.model)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    expected = {*RESULTS, "checkpoint"} - {"last-checkpoint"}
    expected -= set() if done else {"history.png"}
    assert names == expected


def test_a_run_directory_is_never_overwritten(tmp_path):
    run(tmp_path)
    before = contents(tmp_path / "run")
    with pytest.raises(InputError, match="run is not empty"):
        run(tmp_path)
    assert contents(tmp_path / "run") == before


def test_a_run_directory_that_is_a_file(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="is a file"):
        run(tmp_path)
    with pytest.raises(InputError, match="cannot be written"):
        run(tmp_path, directory="run/below")


def test_a_disk_without_room_for_the_model_is_noticed_before_training(
    tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=2000)
    small_loader(tmp_path).load()  # decoded while there is room
    monkeypatch.setattr(recording.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match=r"run is full: .*checkpoints take"):
        run(tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_run_without_tensorboard_equals_one_with_it(tmp_path):
    first = run(tmp_path)
    second = run(tmp_path, directory="plain", tensorboard=False)
    assert (tmp_path / "run" / "tensorboard" / "train").exists()
    assert not (tmp_path / "plain" / "tensorboard").exists()
    assert_same_weights(first.model, second.model)


def test_bad_data_leaves_no_run_directory(tmp_path):
    with pytest.raises(InputError):
        train(tmp_path / "missing", run_directory=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_on_loaded_sees_the_data_before_training(tmp_path):
    seen = []
    result = run(tmp_path, directory=None, on_loaded=seen.append)
    assert seen == [result.datasets]


def test_any_compiled_keras_model_can_be_trained(tmp_path):
    def build(datasets):
        model = keras.Sequential(
            [
                keras.Input((*datasets.image_size, 3)),
                keras_flowers.ResizeAndRescale(datasets.image_size),
                keras_flowers.ImageAugmentation(value_range=(0, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(len(datasets.class_names), activation="softmax"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    run(tmp_path, build_model=build)
    config = TrainingConfig.read(tmp_path / "run" / "config.json")
    train(config, verbose=0)
    with pytest.raises(InputError, match="compiled model"):
        run(tmp_path, directory=None, build_model=lambda _: keras.Sequential())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"early_stopping": 0}, "early_stopping"),
        ({"class_weights": "heavy"}, "class_weights"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(InputError, match=f"`{named}`.*Received: {named}="):
        train("sample", **options)


def test_a_history_has_the_same_columns_without_a_directory(tmp_path):
    kept, written = run(tmp_path, directory=None), run(tmp_path)
    assert set(kept.history) == set(written.history)
    assert kept.history["epoch"] == [1, 2]


def test_integers_of_numpy_are_accepted(tmp_path):
    run(tmp_path, epochs=np.int64(1), early_stopping=np.int32(2))
    weights = {name: np.float32(1) for name in ("daisy", "roses", "tulips")}
    run(tmp_path, directory="again", epochs=1, class_weights=weights)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["class_weights"] == {"daisy": 1.0, "roses": 1.0, "tulips": 1.0}


@pytest.mark.parametrize("weight", [-1, float("nan"), "heavy"])
def test_class_weights_are_numbers(weight):
    with pytest.raises(InputError, match="`class_weights`"):
        train("sample", class_weights={"daisy": weight})


def test_of_two_runs_that_take_a_directory_at_once_one_stops(tmp_path):
    def another_run_comes_first(datasets):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.json").write_text("theirs")
        return small_model(datasets)

    with pytest.raises(InputError, match="not empty"):
        run(tmp_path, build_model=another_run_comes_first)
    assert (tmp_path / "run" / "config.json").read_text() == "theirs"
    assert len(list((tmp_path / "run").iterdir())) == 1


class FailAtOnce(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise RuntimeError("a defect")


def test_a_run_that_fails_at_once_gives_its_directory_back(tmp_path):
    with pytest.raises(RuntimeError, match="a defect"):
        run(tmp_path, callbacks=[FailAtOnce()])
    assert not (tmp_path / "run").exists()
    run(tmp_path)


def test_a_image_that_vanishes_while_training_is_named(tmp_path):
    loader = small_loader(tmp_path, disk_budget=0)

    def remove(datasets):
        datasets.paths("train")[0].unlink()

    with pytest.raises(InputError, match=r"photos.*\.png.*cannot be read"):
        run(tmp_path, loader=loader, on_loaded=remove)
    assert not (tmp_path / "run").exists()


def test_a_config_with_an_unknown_model_is_named(tmp_path):
    run(tmp_path)
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    config["model"]["registered_name"] = "elsewhere>Model"
    config["model"]["module"] = "elsewhere"
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"model of .*config\.json cannot be built"):
        train(TrainingConfig.read(path), verbose=0)
    config["loader"] = config["model"]
    path.write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"config\.json is not a run configuration"):
        TrainingConfig.read(path)


def test_early_stopping_needs_validation(tmp_path):
    loader = small_loader(tmp_path, validation_split=0.0)
    with pytest.raises(InputError, match="early_stopping"):
        run(tmp_path, loader=loader, early_stopping=1)


def test_a_config_says_everything(tmp_path):
    config = TrainingConfig(small_loader(tmp_path), small_model)
    tuning = keras_flowers.FineTuning(1)
    for given in (
        {"epochs": 3},
        {"early_stopping": 2},
        {"class_weights": "balanced"},
        {"fine_tuning": tuning},
        {"build_model": small_model},
    ):
        (name,) = given
        with pytest.raises(InputError, match=f"already holds every .*: {name}"):
            train(config, **given)
    with pytest.raises(InputError, match="did you mean `epochs`"):
        train(small_loader(tmp_path), epoch=3)


@pytest.mark.parametrize("content", ["", "{}", '{"format": 9}', "[]"])
def test_what_is_no_config_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"config\.json is not a run configuration"):
        TrainingConfig.read(path)
    with pytest.raises(InputError, match="no configuration at"):
        TrainingConfig.read(tmp_path / "missing.json")


def test_a_config_for_other_classes_is_refused(tmp_path):
    run(tmp_path)
    (tmp_path / "run" / "split.json").unlink()
    (tmp_path / "photos" / "tulips").rename(tmp_path / "photos" / "lilies")
    with pytest.raises(InputError, match="lilies"):
        train(TrainingConfig.read(tmp_path / "run" / "config.json"), verbose=0)


def test_a_model_with_other_class_names_is_refused(tmp_path):
    def build(datasets):
        names = list(reversed(datasets.class_names))
        return ImageClassifier(names, datasets.image_size, hidden_units=(2,))

    with pytest.raises(InputError, match=r"class names.*daisy.*Received.*tulips"):
        run(tmp_path, build_model=build)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("classes", [["daisy", "roses"], ["a", "b", "c", "d"]])
def test_a_model_with_more_or_fewer_classes_is_refused(tmp_path, classes):
    model = ImageClassifier(classes, (8, 8), hidden_units=(2,))
    with pytest.raises(InputError, match="class names of the data"):
        run(tmp_path, build_model=model)


def test_what_a_loader_loaded_is_loaded_again(tmp_path):
    datasets = small_loader(tmp_path, seed=3).load()
    run = train(datasets, image_size=4, epochs=1, verbose=0)
    assert run.datasets.split == datasets.split
    assert run.model.image_size == run.datasets.image_size == (4, 4)


def test_a_model_is_taken_as_it_is(tmp_path):
    datasets = small_loader(tmp_path).load()
    model = small_model(datasets)
    assert run(tmp_path, build_model=model, epochs=1).model is model


def test_what_is_not_a_model_or_a_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="must return a Keras model. Received: None"):
        run(tmp_path, build_model=lambda datasets: None)
    with pytest.raises(InputError, match="`train` has no argument `image_sise`"):
        train(tmp_path, image_sise=64)
    with pytest.raises(InputError, match="`hidden_units`: pass a model as"):
        train(tmp_path, hidden_units=(3,))
    with pytest.raises(InputError, match="`data`"):
        train(None)
