import json
import shutil

import keras
import numpy as np
import pytest
from event_reading import read_runs
from helpers import (
    RESULTS,
    assert_same_weights,
    small_loader,
    small_model,
    tiny_network,
)
from interruption import Interrupt, InterruptedAtError
from keras import ops
from keras_flowers.callbacks import read_history

from keras_flowers import (
    Backbone,
    FineTuning,
    ImageClassifier,
    InputError,
    TrainingConfig,
    train,
)
from keras_flowers.data.image_files import load_image
from keras_flowers.training.schedules import warm_up_and_cosine
from keras_flowers.training.tensorboard_setup import hyperparameters

EPOCHS = 3
TUNING = FineTuning(epochs=2, learning_rate=0.01, unfreeze_from="last")
STEPS = 5  # in an epoch of 19 images


@pytest.fixture
def file(tmp_path):
    """A network in a file."""
    path = tmp_path / "tiny.keras"
    tiny_network().save(path)
    return path


def builder(backbone, **arguments):
    """Returns what builds a model with a backbone of its own each time."""

    def build(datasets):
        made = backbone() if callable(backbone) else backbone
        return small_model(datasets, backbone=made, **arguments)

    return build


def run(tmp_path, *, directory="run", loader=None, backbone=None, **options):
    model = {n: options.pop(n) for n in ("augmentation", "dtype") if n in options}
    defaults = {
        "epochs": EPOCHS,
        "fine_tuning": TUNING,
        "verbose": 0,
        "tensorboard": False,
        "keep": "last",
        "build_model": builder(backbone or tmp_path / "tiny.keras", **model),
    }
    return train(
        loader or small_loader(tmp_path),
        run_directory=None if directory is None else tmp_path / directory,
        **(defaults | options),
    )


def weights_of(model, layer):
    return model.backbone.network.get_layer(layer).get_weights()


def all_variables(model):
    """Returns what a training depends on; the seeds of a frozen network are not."""
    network = model.backbone.network
    seeds = {id(v) for v in network.variables} - {id(v) for v in network.weights}
    variables = [*model.variables, *model.optimizer.variables]
    return [ops.convert_to_numpy(v) for v in variables if id(v) not in seeds]


def assert_same_run(first, second):
    for a, b in zip(*map(all_variables, (first.model, second.model)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.history.keys() == second.history.keys()
    for name, values in first.history.items():
        if name not in ("seconds", "photos_per_second"):
            np.testing.assert_array_equal(values, second.history[name], name)


class Watch(keras.callbacks.Callback):
    """Notes which model each epoch trains."""

    def __init__(self):
        super().__init__()
        self.models = []

    def on_epoch_begin(self, epoch, logs=None):
        self.models.append(self.model)


# --- on features


def test_the_head_alone_is_trained_on_features(tmp_path, file, monkeypatch):
    called = []
    call = Backbone.call

    def noted(self, inputs, training=None):
        called.append(training)
        return call(self, inputs, training=training)

    class NotedAnew(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            called.clear()

        def on_train_end(self, logs=None):
            assert not called, "the network was used while the head was trained"

    monkeypatch.setattr(Backbone, "call", noted)
    watch = Watch()
    result = run(
        tmp_path,
        directory=None,
        fine_tuning=None,
        callbacks=[NotedAnew(), watch],
    )
    assert {model.name for model in watch.models} == {"head"}
    assert isinstance(result.model, ImageClassifier)
    fresh = builder(file)(result.datasets)
    assert_same_weights(result.model.backbone.network, fresh.backbone.network)
    assert int(result.model.optimizer.iterations) == EPOCHS * STEPS
    loss, accuracy = result.model.evaluate(result.datasets.validation, verbose=0)
    assert loss == pytest.approx(result.history["val_loss"][-1], rel=1e-3)
    assert accuracy == pytest.approx(result.history["val_accuracy"][-1])
    assert loss < result.history["val_loss"][0]


def test_a_second_run_computes_no_features(tmp_path, file):
    def stages(**options):
        reports = []
        run(
            tmp_path,
            directory=None,
            fine_tuning=None,
            epochs=1,
            progress=lambda stage, done, total: reports.append((stage, total)),
            **options,
        )
        return dict(reports)

    assert stages()["features"] == 24
    wider = builder(file, augmentation=False, dtype="float32")
    assert "features" not in stages(build_model=wider)


def test_images_are_trained_on_where_they_change(tmp_path, file):
    watch = Watch()
    result = run(
        tmp_path, directory=None, fine_tuning=None, augmentation=True, callbacks=[watch]
    )
    assert set(watch.models) == {result.model}
    assert not list(result.datasets.image_cache_directory.glob("features-*"))


# --- two stages


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder with a run that was never interrupted, for several tests."""
    folder = tmp_path_factory.mktemp("whole")
    tiny_network().save(folder / "tiny.keras")
    watch = Watch()
    result = run(folder, directory="whole", callbacks=[watch], tensorboard=True)
    return folder, result, watch.models


def test_both_stages_are_one_run(whole):
    folder, result, models = whole
    names = [model.name for model in models]
    assert names == ["head"] * EPOCHS + [result.model.name] * TUNING.epochs
    assert result.history["epoch"] == [1, 2, 3, 4, 5]
    assert read_history(folder / "whole") == result.history
    assert all(np.isfinite(result.history["val_loss"]))
    assert sorted(p.name for p in (folder / "whole").iterdir()) == RESULTS
    fresh = builder(folder / "tiny.keras")(result.datasets)
    for layer in ("stem", "norm", "scale"):
        for a, b in zip(
            weights_of(result.model, layer), weights_of(fresh, layer), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(
        weights_of(result.model, "last"), weights_of(fresh, "last"), strict=True
    ):
        assert not np.array_equal(a, b)
    loaded = keras.models.load_model(folder / "whole" / "model.keras")
    assert_same_weights(loaded, result.model)
    rate = warm_up_and_cosine(TUNING.learning_rate, TUNING.epochs * STEPS)
    rates = [float(rate(STEPS)), float(rate(2 * STEPS))]
    np.testing.assert_allclose(
        result.history["learning_rate"], [0.01] * EPOCHS + rates, rtol=1e-5
    )
    assert rates[0] < TUNING.learning_rate


def test_images_are_augmented_in_the_second_stage_alone(tmp_path, file):
    seen = {}

    class Note(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            layers = [type(layer).__name__ for layer in self.model.layers]
            seen[epoch] = "ImageAugmentation" in layers

    loader = small_loader(tmp_path)
    for augmentation, strength, expected in (
        (None, None, [False, True]),
        (None, "none", [False, False]),
        (False, None, [False, False]),
        ("light", None, [True, True]),
        ("light", "none", [True, False]),
    ):
        tuning = FineTuning(1, augmentation=strength, label_smoothing=0.2)
        result = run(
            tmp_path,
            directory=None,
            loader=loader,
            epochs=1,
            fine_tuning=tuning,
            augmentation=augmentation,
            callbacks=[Note()],
        )
        assert list(seen.values()) == expected, (augmentation, strength)
        seen.clear()
    assert result.model.label_smoothing == 0.2
    assert result.model.optimizer.weight_decay == 0.01
    labels = result.datasets.labels("validation")
    probabilities = result.model.predict(result.datasets.validation, verbose=0)
    plain = keras.losses.SparseCategoricalCrossentropy()(labels, probabilities)
    # The validation loss is that of the labels as they are.
    assert result.history["val_loss"][-1] == pytest.approx(float(plain), rel=1e-3)


def test_a_configuration_without_the_newer_settings_means_what_it_did(whole, tmp_path):
    folder, _, _ = whole
    content = json.loads((folder / "whole" / "config.json").read_text())
    for name in ("augmentation", "label_smoothing", "weight_decay"):
        content["fine_tuning"].pop(name)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    tuning = TrainingConfig.read(path).fine_tuning
    assert (tuning.augmentation, tuning.label_smoothing) == ("none", 0.0)
    assert tuning.weight_decay == 0.0
    content["model"]["config"]["augmentation"] = True
    path.write_text(json.dumps(content))
    assert TrainingConfig.read(path).fine_tuning.augmentation is None


def test_batch_normalization_is_trained_but_keeps_its_statistics(tmp_path, file):
    tuning = FineTuning(epochs=1, learning_rate=0.05)
    result = run(tmp_path, directory=None, epochs=1, fine_tuning=tuning)
    after = weights_of(result.model, "norm")
    before = weights_of(builder(file)(result.datasets), "norm")
    changed = [not np.array_equal(a, b) for a, b in zip(after, before, strict=True)]
    assert changed == [True, True, False, False]  # gamma, beta, mean, variance


def test_a_configuration_repeats_both_stages(whole, tmp_path):
    folder, expected, _ = whole
    path = folder / "whole" / "config.json"
    config = TrainingConfig.read(path)
    assert config.fine_tuning == TUNING
    assert_same_run(expected, train(config, verbose=0))
    gone = tmp_path / "config.json"
    gone.write_text(path.read_text().replace("tiny.keras", "gone.keras"))
    with pytest.raises(InputError, match="no weights file .*gone.keras"):
        train(TrainingConfig.read(gone), verbose=0)


def test_other_weights_in_place_of_those_of_a_run_are_refused(tmp_path, file):
    run(tmp_path, epochs=1, fine_tuning=None)
    network = keras.models.load_model(file)
    network.set_weights([2 * weight for weight in network.get_weights()])
    network.save(file)
    config = TrainingConfig.read(tmp_path / "run" / "config.json")
    with pytest.raises(InputError, match="had other weights than .*tiny.keras"):
        train(config, verbose=0)
    with pytest.raises(
        InputError, match=r"another configuration: pretrained\.weights was"
    ):
        run(tmp_path, epochs=1, fine_tuning=None, resume=True)


def test_another_architecture_is_not_called_other_weights(tmp_path, file):
    run(tmp_path, epochs=1, fine_tuning=None)
    path = tmp_path / "run" / "config.json"
    content = json.loads(path.read_text())
    content["pretrained"]["architecture"] = "1:another"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="had another architecture than"):
        train(TrainingConfig.read(path), verbose=0)
    with pytest.raises(InputError, match=r"configuration: pretrained\.architecture"):
        run(tmp_path, epochs=1, fine_tuning=None, resume=True)
    content["pretrained"]["architecture"] = "0:of another version"
    path.write_text(json.dumps(content))
    train(TrainingConfig.read(path), verbose=0)


def going_astray(file):
    """Returns what builds a model whose validation loss soon rises."""

    def build(datasets):
        model = small_model(datasets, backbone=file)
        model.compile(keras.optimizers.SGD(20.0))
        return model

    return build


@pytest.mark.filterwarnings("ignore::keras_flowers.callbacks.CollapseWarning")
def test_early_stopping_ends_the_first_stage_with_its_best_weights(tmp_path, file):
    class Begin(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 30:
                begun.append(self.model.get_weights())

    begun = []
    result = run(
        tmp_path,
        directory=None,
        build_model=going_astray(file),
        callbacks=[Begin()],
        epochs=30,
        early_stopping=2,
        keep="best",
    )
    done = result.history["epoch"]
    assert done[-2:] == [31, 32]
    first = result.history["val_loss"][: done.index(31)]
    assert len(first) < 30
    result.model.set_weights(begun[0])
    loss, _ = result.model.evaluate(result.datasets.validation, verbose=0)
    assert loss == pytest.approx(min(first), rel=1e-3)


# --- interrupted


def interrupted_in(epoch, tmp_path, error=InterruptedAtError, **options):
    if error is KeyboardInterrupt:
        assert run(tmp_path, callbacks=[Interrupt(epoch, error)], **options).interrupted
    else:
        with pytest.raises(error):
            run(tmp_path, callbacks=[Interrupt(epoch, error)], **options)


# In the first stage, between the two, and in the second.
@pytest.mark.parametrize(
    ("epoch", "error"),
    [
        (1, InterruptedAtError),
        (EPOCHS, InterruptedAtError),
        (EPOCHS, KeyboardInterrupt),
        (EPOCHS + 1, KeyboardInterrupt),
    ],
)
def test_a_resumed_run_equals_one_that_was_never_interrupted(whole, epoch, error):
    folder, expected, _ = whole
    directory = folder / f"run-{epoch}-{error.__name__}"
    options = {"directory": directory, "tensorboard": True}
    interrupted_in(epoch, folder, error, **options)
    assert read_history(directory)["epoch"] == list(range(1, epoch + 1))
    if error is KeyboardInterrupt:
        model = keras.models.load_model(directory / "model.keras")
        assert not model.has_fixed_features  # of the second stage
        assert (directory / "report.html").exists()
    watch = Watch()
    resumed = run(folder, resume=True, callbacks=[watch], **options)
    assert len(watch.models) == EPOCHS + TUNING.epochs - epoch
    assert_same_run(expected, resumed)
    assert not resumed.interrupted
    assert sorted(p.name for p in directory.iterdir()) == RESULTS
    assert read_history(directory) == resumed.history
    assert_same_events(folder / "whole", directory)


def assert_same_events(first, second):
    """Fails where TensorBoard shows two runs differently."""
    expected, got = (read_runs(folder / "tensorboard") for folder in (first, second))
    for run_name in ("train", "validation"):
        for tag, values in expected[run_name].items():
            # Mistakes are shown at the end of each `fit` too.
            if tag in ("epoch_photos_per_second", "keras", "mistakes"):
                continue
            # Files that were begun in one second stand in any order.
            values, there = (
                sorted(shown, key=lambda value: value[0])
                for shown in (values, got[run_name][tag])
            )
            assert [step for step, _ in values] == [step for step, _ in there], tag
            for (_, one), (_, other) in zip(values, there, strict=True):
                np.testing.assert_array_equal(one, other)


def test_ctrl_c_in_the_first_stage_leaves_its_model_and_configuration(whole):
    folder, expected, _ = whole
    directory = folder / "configured"
    interrupted_in(1, folder, KeyboardInterrupt, directory=directory)
    model = keras.models.load_model(directory / "model.keras")
    assert model.has_fixed_features
    config = TrainingConfig.read(directory / "config.json")
    resumed = train(config, run_directory=directory, resume=True, verbose=0)
    assert_same_run(expected, resumed)


def test_a_run_on_images_is_resumed_at_the_border(tmp_path, file):
    options = {"augmentation": True, "epochs": 1}
    expected = run(tmp_path, directory="whole", **options)
    interrupted_in(1, tmp_path, **options)
    assert_same_run(expected, run(tmp_path, resume=True, **options))


@pytest.mark.filterwarnings("ignore::keras_flowers.callbacks.CollapseWarning")
def test_an_early_stopped_first_stage_stays_so_when_the_run_is_resumed(tmp_path, file):
    options = {"epochs": 30, "early_stopping": 1, "keep": "best"}
    build = going_astray(file)
    expected = run(tmp_path, directory="whole", build_model=build, **options)
    assert len(expected.history["epoch"]) < 15
    for epoch in (30, 31):
        place = {"directory": f"run-{epoch}", "build_model": build}
        interrupted_in(epoch, tmp_path, **place, **options)
        assert_same_run(expected, run(tmp_path, resume=True, **place, **options))


def test_a_complete_run_is_returned(whole):
    folder, expected, _ = whole
    files = {p: p.stat().st_mtime_ns for p in (folder / "whole").rglob("*")}
    watch = Watch()
    again = run(folder, directory="whole", resume=True, callbacks=[watch])
    assert not watch.models
    assert_same_weights(expected.model, again.model)
    assert again.history == read_history(folder / "whole")
    assert {p: p.stat().st_mtime_ns for p in (folder / "whole").rglob("*")} == files


@pytest.mark.parametrize(
    ("tuning", "named"),
    [
        (None, "fine_tuning"),
        (FineTuning(1, 0.01, "last"), "fine_tuning.epochs was 2 and is now 1"),
        (FineTuning(2, 0.02, "last"), "fine_tuning.learning_rate was 0.01 and is now"),
        (FineTuning(2, 0.01, "stem"), "unfreeze_from was last and is now stem"),
    ],
)
def test_a_run_is_resumed_as_it_was_started(whole, tuning, named):
    folder, _, _ = whole
    with pytest.raises(InputError, match=f"another configuration: .*{named}"):
        run(folder, directory="whole", resume=True, fine_tuning=tuning)


class InterruptFeatures:
    """Ctrl-C while features are computed."""

    def __init__(self):
        self.total = None

    def __call__(self, stage, done, total):
        if stage == "features":
            self.total = total
            if done >= 8:
                raise KeyboardInterrupt


def test_ctrl_c_while_features_are_computed_leaves_no_run(tmp_path, file):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=InterruptFeatures())
    assert not (tmp_path / "run").exists()
    progress = InterruptFeatures()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=progress)
    assert progress.total == 24 - 8  # those computed are kept
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_features_are_computed_again_keeps_the_run(tmp_path, file):
    expected = run(tmp_path, directory="whole")
    interrupted_in(2, tmp_path)
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, resume=True, progress=InterruptFeatures())
    assert read_history(tmp_path / "run")["epoch"] == [1, 2]
    assert_same_run(expected, run(tmp_path, resume=True))


# --- with other options


def test_the_validation_split_may_be_empty(tmp_path, file):
    loader = small_loader(tmp_path, validation_split=0.0)
    result = run(tmp_path, loader=loader)
    assert "val_loss" not in result.history
    assert result.history["epoch"] == [1, 2, 3, 4, 5]


def test_class_weights_and_a_test_split(tmp_path, file):
    loader = small_loader(tmp_path, test_split=0.2)
    losses = [
        run(tmp_path, directory=None, loader=loader, class_weights=weights).history[
            "loss"
        ]
        for weights in (None, {"daisy": 2.0, "roses": 2.0, "tulips": 2.0})
    ]
    assert losses[1][0] == pytest.approx(2 * losses[0][0], rel=0.05)
    # In the second stage the gradients of Adam are the same again.
    assert losses[1][-1] == pytest.approx(2 * losses[0][-1], rel=0.1)


def test_mixed_precision(tmp_path, file):
    result = run(tmp_path, dtype="mixed_float16")
    optimizer = result.model.optimizer
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    assert not isinstance(
        optimizer.inner_optimizer, keras.optimizers.LossScaleOptimizer
    )
    assert all(np.isfinite(result.history["loss"]))
    again = run(tmp_path, dtype="mixed_float16", resume=True)
    assert_same_weights(result.model, again.model)


def test_a_loss_that_keras_does_not_know(tmp_path, file):
    def loss(true, predicted):
        return keras.losses.sparse_categorical_crossentropy(true, predicted) * 2

    def build(datasets):
        model = small_model(datasets, backbone=file)
        model.compile(keras.optimizers.Adam(0.01), loss)
        return model

    result = run(tmp_path, directory=None, build_model=build)
    assert result.model.loss is loss
    assert len(result.history["epoch"]) == 5


@pytest.mark.parametrize("name", ["epochs", "learning_rate"])
@pytest.mark.parametrize("value", [0, -1, "many", None, float("nan")])
def test_wrong_numbers_are_named(name, value):
    with pytest.raises(InputError, match=f"`{name}`.*Received: {name}="):
        FineTuning(**({"epochs": 1} | {name: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [("augmentation", "wild"), ("label_smoothing", 1), ("weight_decay", -1)],
)
def test_wrong_settings_of_the_stage_are_named(name, value):
    with pytest.raises(InputError, match=f"`{name}`.*Received: {name}="):
        FineTuning(1, **{name: value})


def test_wrong_fine_tuning_is_named(tmp_path, file):
    with pytest.raises(InputError, match="`fine_tuning` must be a FineTuning"):
        train("sample", fine_tuning=3)
    with pytest.raises(InputError, match="`unfreeze_from`.*Did you mean last"):
        run(tmp_path, fine_tuning=FineTuning(1, unfreeze_from="lst"))
    for build in (
        small_model,
        builder(lambda: Backbone(tiny_network(), None)),
    ):
        with pytest.raises(InputError, match="`fine_tuning` needs .*pretrained"):
            run(tmp_path, build_model=build)
    assert not (tmp_path / "run").exists()


# --- the learning rate


@pytest.mark.parametrize("steps", [1, 2, 19, 20, 45])
def test_the_rate_rises_shortly_and_falls_to_zero(steps):
    schedule = warm_up_and_cosine(0.5, steps)
    rates = [float(schedule(step)) for step in range(steps + 1)]
    rising = round(steps / 20)
    assert max(rates) == rates[rising if steps > 1 else 0] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0, abs=1e-6)
    assert rates[: rising + 1] == sorted(rates[: rising + 1])
    assert rates[rising:] == sorted(rates[rising:], reverse=True)
    restored = keras.optimizers.schedules.deserialize(
        keras.optimizers.schedules.serialize(schedule)
    )
    assert float(restored(rising + 1)) == rates[rising + 1]


@pytest.mark.parametrize(
    "rate",
    [
        0.25,
        warm_up_and_cosine(0.25, 100),
        warm_up_and_cosine(0.25, 1),
        keras.optimizers.schedules.ExponentialDecay(0.25, 10, 0.5),
    ],
)
def test_tensorboard_knows_a_schedule_by_its_highest_rate(tmp_path, file, rate):
    datasets = small_loader(tmp_path).load()
    model = small_model(datasets, backbone=file)
    model.compile(keras.optimizers.Adam(rate))
    config = TrainingConfig(small_loader(tmp_path), small_model, fine_tuning=TUNING)
    shown = hyperparameters(config.to_json(model), model, datasets)
    assert shown["learning_rate"] == 0.25
    assert shown["backbone"] == "tiny"
    assert shown["fine_tuning_epochs"] == TUNING.epochs
    assert shown["dropout"] == pytest.approx(0.3)
    assert shown["augmentation"] == "no"


# --- TensorBoard


def test_tensorboard_shows_both_stages_as_one_run(whole):
    folder, _, _ = whole
    shown = read_runs(folder / "whole" / "tensorboard")
    epochs = list(range(EPOCHS + TUNING.epochs))
    for run_name in ("train", "validation"):
        steps = [step for step, _ in shown[run_name]["epoch_loss"]]
        assert steps == epochs
    steps = [s for s, _ in shown["validation"]["evaluation_loss_vs_iterations"]]
    assert steps == [(epoch + 1) * STEPS for epoch in epochs]
    assert [s for s, _ in shown["validation"]["confusion_matrix"]] == epochs


def test_mistakes_are_shown_as_images(tmp_path, file, monkeypatch):
    grids = []
    from keras_flowers.callbacks import run_record

    draw = run_record.draw_image_grid

    def draw_noted(tiles, *arguments, **options):
        grids.append([tile.image for tile in tiles])
        return draw(tiles, *arguments, **options)

    monkeypatch.setattr(run_record, "draw_image_grid", draw_noted)

    def build(datasets):
        model = small_model(datasets, backbone=file)
        model.compile(keras.optimizers.Adam(0.0))  # stays wrong
        return model

    result = run(
        tmp_path, epochs=1, fine_tuning=None, build_model=build, tensorboard=True
    )
    paths = result.datasets.paths("validation")
    probabilities = result.model.predict(result.datasets.validation, verbose=0)
    labels = result.datasets.labels("validation")
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    assert len(wrong)
    order = wrong[np.argsort(probabilities[wrong, labels[wrong]], kind="stable")]
    expected = [load_image(paths[i], (8, 8)) for i in order]
    assert len(grids[-1]) == len(expected)
    for shown, image in zip(grids[-1], expected, strict=True):
        np.testing.assert_allclose(shown, image, atol=1)
    assert "mistakes" in read_runs(tmp_path / "run" / "tensorboard")["validation"]


def test_the_report_of_a_run_on_features_shows_its_evaluation(whole):
    folder, result, _ = whole
    page = (folder / "whole" / "report.html").read_text()
    assert "could not be evaluated" not in page
    assert f"{result.history['val_accuracy'][-1]:.3f}" in page
    config = json.loads((folder / "whole" / "config.json").read_text())
    assert config["fine_tuning"]["unfreeze_from"] == "last"


@pytest.mark.filterwarnings("ignore::keras_flowers.callbacks.CollapseWarning")
def test_the_best_epoch_of_the_frozen_stage_is_kept_with_its_backbone(tmp_path, file):
    tuning = FineTuning(epochs=2, learning_rate=1e4)  # goes astray
    options = {"fine_tuning": tuning, "keep": "best"}
    whole = run(tmp_path, directory="whole", **options)
    losses = whole.history["val_loss"]
    assert whole.saved_epoch == losses.index(min(losses)) + 1 <= EPOCHS
    interrupted_in(EPOCHS + 1, tmp_path, **options)
    resumed = run(tmp_path, resume=True, **options)
    for result in (whole, resumed):
        loss, _ = result.model.evaluate(result.datasets.validation, verbose=0)
        assert loss == pytest.approx(min(losses), rel=1e-3)
        fresh = builder(file)(result.datasets)
        assert_same_weights(result.model.backbone, fresh.backbone)
    assert_same_weights(whole.model, resumed.model)


def test_a_finished_run_is_fine_tuned_and_then_further(tmp_path, file):
    expected = run(tmp_path, directory="whole")
    run(tmp_path, fine_tuning=None)
    further = run(tmp_path, resume=True)
    assert_same_run(expected, further)
    longer = FineTuning(3, TUNING.learning_rate, TUNING.unfreeze_from)
    longest = run(tmp_path, fine_tuning=longer, resume=True)
    assert longest.history["epoch"] == [1, 2, 3, 4, 5, 6]
    assert longest.history["loss"][:5] == expected.history["loss"]
