"""Searches with a backbone: what trials train, keep and share."""

import copy
import json
import pickle

import h5py
import keras
import keras_tuner
import numpy as np
import pytest
from helpers import small_loader
from keras_flowers.callbacks import read_history
from keras_flowers.tuning import ImageClassifierHyperModel, search
from keras_flowers_cli.main import run as run_command
from keras_flowers_cli.output import ProgressBars
from tuning_helpers import SmallSpace, build, small_space

from keras_flowers import Backbone, ImageClassifier, InputError

# Features in another order of the same operations: constants are folded.
ROUNDING = 1e-4


def small_network(seed=0):
    """A network of 4 features, with batch normalization and fixed random weights."""
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Rescaling(1 / 255)(inputs)
    initializer = keras.initializers.GlorotUniform(seed)
    x = keras.layers.Conv2D(4, 3, kernel_initializer=initializer, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(inputs, x, name="small_network")


def backbone_space(tmp_path, kind=ImageClassifierHyperModel, **arguments):
    backbone = Backbone(small_network())
    options = {"backbone": backbone, "augmentation": None} | arguments
    return small_space(tmp_path, kind, **options)


def convnet_space(tmp_path, kind=ImageClassifierHyperModel, **arguments):
    loader = small_loader(tmp_path, image_size=(32, 32))
    defaults = {"backbone": "small_convnet", "loader": loader, "augmentation": None}
    options = defaults | arguments
    return small_space(tmp_path, kind, **options)


def run(tmp_path, hypermodel=None, *, directory="search", **options):
    return search(
        hypermodel or backbone_space(tmp_path),
        tmp_path / directory,
        **{"trials": 2, "objective": "val_loss"} | options,
    )


def network_of(model):
    return model.backbone.network


class Counted(ImageClassifierHyperModel):
    """Notes what each training was of, and on what."""

    def fit(self, hp, model, *args, **kwargs):
        noted = self.noted = []

        class Note(keras.callbacks.Callback):
            def on_train_begin(self, logs=None):
                noted.append(self.model.name)

        callbacks = [*kwargs.pop("callbacks", ()), Note()]
        return super().fit(hp, model, *args, callbacks=callbacks, **kwargs)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("found")
    hypermodel = backbone_space(folder, batch_size=(4, 8), epochs=(1, 3))
    return folder, run(
        folder, hypermodel, trials=3, executions_per_trial=2, retrain=True
    )


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("execution", [0, 1])
def test_evaluating_the_whole_model_on_images_gives_the_score(found, number, execution):
    folder, result = found
    trial = result.trials[number]
    record = trial.executions[execution]
    model = result.load_model(trial, execution)
    images = backbone_space(folder).datasets().validation
    loss, accuracy = model.evaluate(images, verbose=0)
    assert loss == pytest.approx(record.score, abs=ROUNDING)
    assert accuracy == record.metrics["val_accuracy"]


def test_the_best_model_is_whole_and_has_the_weights_of_the_backbone(found):
    folder, result = found
    model = keras.models.load_model(result.directory / "model.keras")
    assert isinstance(model, ImageClassifier)
    for there, here in zip(
        network_of(model).get_weights(), small_network().get_weights(), strict=True
    ):
        np.testing.assert_array_equal(there, here)
    images = backbone_space(folder).datasets().validation
    loss, _ = model.evaluate(images, verbose=0)
    scores = [execution.score for execution in result.best.executions]
    assert loss == pytest.approx(min(scores), abs=ROUNDING)


def test_a_trial_keeps_the_weights_of_its_head_alone(found):
    _, result = found
    model = result.load_model()
    path = result.directory / f"trials/trial_{result.best.id}/execution_0"
    kept = []
    with h5py.File(path / "model.weights.h5") as file:
        file.visititems(lambda name, item: kept.append(getattr(item, "shape", None)))
    shapes = [shape for shape in kept if shape is not None]
    assert sorted(shapes) == sorted(w.shape for w in model.head().get_weights())


def test_the_winner_is_trained_again_as_a_whole(found):
    _, result = found
    model = keras.models.load_model(result.directory / "retrained" / "model.keras")
    assert isinstance(model, ImageClassifier)
    assert model.backbone.is_frozen
    rates = read_history(result.directory / "retrained")["learning_rate"]
    assert len(rates) == result.best.executions[0].epoch
    assert rates[-1] == pytest.approx(0, abs=1e-9), "its schedule is of fewer photos"


def test_trials_train_a_head_on_features_that_are_computed_once(tmp_path):
    hypermodel = backbone_space(tmp_path, Counted)
    assert hypermodel.trains_on_features
    told = []
    hypermodel.load(lambda *progress: told.append(progress))
    stages = [stage for stage, _, _ in told]
    assert "features" in stages
    assert told[-1] == ("features", 24, 24)
    # Were a photo to pass through the network again, this would be seen.
    network_of(build(hypermodel, layers=1, units_1=8)).call = None
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    hypermodel.fit(hp, model, verbose=0)
    assert hypermodel.noted == ["head"]


@pytest.mark.parametrize("augmentation", [True, False])
def test_with_augmentation_the_whole_model_sees_images(tmp_path, augmentation):
    hypermodel = backbone_space(tmp_path, Counted, augmentation=augmentation)
    assert hypermodel.trains_on_features is not augmentation
    hp = keras_tuner.HyperParameters()
    model = hypermodel.build(hp)
    hypermodel.fit(hp, model, verbose=0)
    assert (hypermodel.noted == ["head"]) is not augmentation


def test_models_share_a_frozen_network_and_nothing_else(tmp_path):
    hypermodel = backbone_space(tmp_path)
    first, second = build(hypermodel), build(hypermodel)
    assert network_of(first) is network_of(second)
    # A layer knows all that it was called on, and would keep every model alive.
    assert first.backbone is not second.backbone
    kept = copy.deepcopy(hypermodel)
    assert network_of(build(kept)) is network_of(first)


def test_a_hypermodel_with_a_backbone_can_be_sent_to_another_process(tmp_path):
    hypermodel = backbone_space(tmp_path, seed=3)
    sent = pickle.loads(pickle.dumps(hypermodel))
    description = hypermodel.backbones.description()
    assert sent.backbones.description() == description
    assert description["name"] == "small_network"
    for there, here in zip(
        build(sent).get_weights(), build(hypermodel).get_weights(), strict=True
    ):
        np.testing.assert_array_equal(there, here)


def test_a_backbone_without_weights_is_new_for_each_trial(tmp_path):
    hypermodel = convnet_space(tmp_path, seed=1)
    assert not hypermodel.trains_on_features
    assert hypermodel.augments
    first, again = (network_of(build(hypermodel)) for _ in range(2))
    other = network_of(build(hypermodel, seed=2))
    assert first is not again
    kernels = [network.trainable_variables[0].numpy() for network in (first, again)]
    np.testing.assert_array_equal(*kernels)
    assert (other.trainable_variables[0].numpy() != kernels[0]).any()


def test_an_unfrozen_backbone_begins_each_trial_with_the_same_weights(tmp_path):
    backbone = Backbone(small_network())
    backbone.unfreeze()
    hypermodel = backbone_space(tmp_path, backbone=backbone)
    first = network_of(build(hypermodel))
    before = [weights.copy() for weights in first.get_weights()]
    first.set_weights([weights + 1 for weights in before])
    second = build(hypermodel)
    assert second.backbone.is_pretrained
    assert not second.backbone.is_frozen
    for there, here in zip(network_of(second).get_weights(), before, strict=True):
        np.testing.assert_array_equal(there, here)


def test_a_search_of_trials_that_train_the_backbone_keeps_all_weights(tmp_path):
    hypermodel = convnet_space(tmp_path, SmallSpace, layers=0, epochs=1)
    result = run(tmp_path, hypermodel, trials=1)
    images = hypermodel.datasets().validation
    loss, _ = result.load_model().evaluate(images, verbose=0)
    assert loss == result.best.score


def test_a_trial_that_unfreezes_what_all_share_is_told_so(tmp_path):
    class Unfreezing(ImageClassifierHyperModel):
        def fit(self, hp, model, *args, **kwargs):
            model.backbone.unfreeze()
            raise MemoryError

    result = run(tmp_path, backbone_space(tmp_path, Unfreezing))
    assert result.trials[1].status == "failed"
    assert "has unfrozen the backbone" in result.trials[1].error


def test_dropout_is_that_of_the_classifier_unless_it_is_searched(tmp_path):
    assert build(small_space(tmp_path)).dropout_rate == 0
    assert build(backbone_space(tmp_path)).dropout_rate == 0.3
    assert build(backbone_space(tmp_path, dropout=0.1)).dropout_rate == 0.1
    assert build(convnet_space(tmp_path)).dropout_rate == 0


def rates_of(result, trial):
    folder = result.directory / "trials" / f"trial_{trial.id}" / "execution_0"
    return read_history(folder)["learning_rate"]


def test_the_rate_of_a_trial_falls_to_zero_over_its_own_epochs(tmp_path):
    hypermodel = backbone_space(tmp_path, epochs=(2, 4), learning_rate=0.01)
    result = run(tmp_path, hypermodel, trials=2)
    for trial in result.trials:
        rates = rates_of(result, trial)
        assert len(rates) == trial.hyperparameters["epochs"]
        assert rates[-1] == pytest.approx(0, abs=1e-9)
        assert 0 < max(rates) < 0.01


def test_hyperband_goes_on_with_a_head_and_begins_the_schedule_anew(tmp_path):
    hypermodel = backbone_space(tmp_path, layers=1, units=(1, 99), epochs=3)
    result = run(tmp_path, hypermodel, strategy="hyperband", trials=4)
    promoted = [trial for trial in result.trials if trial.continues]
    assert promoted
    for trial in promoted:
        rates = rates_of(result, trial)
        assert len(rates) == trial.hyperparameters["epochs"]
        assert rates[-1] == pytest.approx(0, abs=1e-9)
        past = next(t for t in result.trials if t.id == trial.continues)
        assert rates[: past.epoch] == rates_of(result, past)
        assert rates[past.epoch] > 1e-5


def test_a_compile_of_ones_own_is_that_of_the_head(tmp_path):
    class WithTopTwo(ImageClassifierHyperModel):
        def compile(self, hp, model):
            top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_two")
            model.compile("sgd", metrics=["accuracy", top])

    objective = keras_tuner.Objective("val_top_two", "max")
    hypermodel = backbone_space(tmp_path, WithTopTwo, score="best", epochs=3)
    result = run(tmp_path, hypermodel, objective=objective)
    best = result.best
    assert best.score == best.executions[0].metrics["val_top_two"]
    images = hypermodel.datasets().validation
    scores = result.load_model().evaluate(images, verbose=0, return_dict=True)
    assert scores["top_two"] == best.score


@pytest.mark.filterwarnings("ignore:Skipping variable loading")
@pytest.mark.parametrize("score", ["last", "best"])
def test_a_tuner_of_keras_tuner_saves_the_whole_model(tmp_path, score):
    hypermodel = backbone_space(tmp_path, epochs=(2, 3), score=score, seed=1)
    tuner = keras_tuner.RandomSearch(
        hypermodel, "val_loss", max_trials=2, directory=tmp_path, project_name="stock"
    )
    tuner.search(verbose=0)
    images = hypermodel.datasets().validation
    for trial in tuner.oracle.get_best_trials(2):
        loss, _ = tuner.load_model(trial).evaluate(images, verbose=0)
        assert loss == pytest.approx(trial.score, abs=ROUNDING)


def test_a_search_goes_on_with_the_same_backbone_alone(tmp_path):
    first = run(tmp_path, trials=1)
    elsewhere = tmp_path / "elsewhere.keras"
    small_network().save(elsewhere)
    same = backbone_space(tmp_path, backbone=elsewhere)
    assert run(tmp_path, same, trials=2, resume=True).trials[:1] == first.trials
    other = backbone_space(tmp_path, backbone=Backbone(small_network(seed=1)))
    with pytest.raises(InputError, match=r"another search: its backbone\.key is"):
        run(tmp_path, other, resume=True)
    with pytest.raises(InputError, match="another search: its "):
        run(tmp_path, small_space(tmp_path, augmentation=False), resume=True)


def test_images_must_have_the_size_of_the_backbone(tmp_path):
    loader = small_loader(tmp_path, image_size=(16, 16))
    with pytest.raises(InputError, match=r"`image_size` .*\(8, 8\).*\(16, 16\)"):
        backbone_space(tmp_path, loader=loader)
    space = ImageClassifierHyperModel(
        str(tmp_path / "photos"), backbone=Backbone(small_network())
    )
    assert space.loader.image_size == (8, 8)


def test_workers_train_as_one_process_does(tmp_path):
    hypermodel = backbone_space(tmp_path, layers=1)
    here = run(tmp_path, hypermodel, directory="here")
    scores = [trial.score for trial in here.trials]
    for workers in (1, 2):
        there = run(
            tmp_path, hypermodel, workers=workers, directory=f"{workers}-workers"
        )
        # Workers with fewer cores may add in another order.
        assert [trial.score for trial in there.trials] == pytest.approx(
            scores, rel=1e-5
        )


# --- on the command line


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "cache"))
    small_loader(tmp_path)
    small_network().save(tmp_path / "network.keras")

    def tune(*options):
        arguments = "tune photos --layers 1 --units 8 --max-epochs 1 --workers 0"
        return run_command(
            [*arguments.split(), "--trials", "1", "--run-dir", "search", *options]
        )

    return tune


def searched(tmp_path):
    return json.loads((tmp_path / "search" / "search.json").read_text())


def test_tune_takes_a_backbone_and_the_size_of_its_images(
    tmp_path, command, monkeypatch
):
    stages = set()
    monkeypatch.setattr(
        ProgressBars, "__call__", lambda self, stage, done, total: stages.add(stage)
    )
    assert command("--backbone", "network.keras") == 0
    assert "features" in stages
    content = searched(tmp_path)
    assert content["backbone"]["name"] == "small_network"
    assert content["data"]["image_size"] == [8, 8]
    assert content["augmentation"] is False
    model = keras.models.load_model(tmp_path / "search" / "model.keras")
    assert model.image_size == (8, 8)


def test_tune_takes_augmentation_with_a_backbone(tmp_path, command):
    assert command("--backbone", "network.keras", "--augmentation") == 0
    assert searched(tmp_path)["augmentation"] is True


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ["--weights", "imagenet"],
            "--pretrained-weights needs a --backbone",
        ),
        (["--backbone", "mobilenet_v9"], "mobilenet_v"),
        (["--backbone", "nowhere.keras"], "nowhere.keras"),
        (["--backbone", "network.keras", "--image-size", "9"], "8x8"),
    ],
)
def test_tune_names_a_backbone_it_cannot_use(tmp_path, command, capsys, options, named):
    assert command(*options) == 2
    error = capsys.readouterr().err.strip()
    assert 1 <= len(error.splitlines()) <= 2, error
    assert named in error
    assert not (tmp_path / "search").exists()
