"""The settings agree with the library and with each other."""

import inspect

import keras
import pytest
from helpers import tiny_network
from keras_flowers.tuning import ImageClassifierHyperModel, search
from keras_flowers.tuning.hypermodel import SCORES
from keras_flowers.tuning.oracles import STRATEGIES
from keras_flowers.tuning.pruning import PRUNINGS
from keras_flowers_settings import ALL_SETTINGS, Automatic, ModelFacts, settings_of
from keras_flowers_settings.data import SPLIT_NEAR_DUPLICATES
from keras_flowers_settings.files import STORAGE
from keras_flowers_settings.inference import FORMAT, QUANTIZE, SPLIT
from keras_flowers_settings.kinds import Choice
from keras_flowers_settings.model import AUGMENTATION, DROPOUT
from keras_flowers_settings.search import MAX_EPOCHS, PRUNING, SCORE, STRATEGY
from keras_flowers_settings.training import LEARNING_RATE, OPTIMIZERS, WEIGHT_DECAY

from keras_flowers import (
    Backbone,
    FineTuning,
    ImageClassifier,
    ImageDatasetLoader,
    InputError,
    TrainingConfig,
    audit_with_backbone,
    find_learning_rate,
    train,
    write_sample,
)
from keras_flowers.data.dataset_loader import STORAGE_ARGUMENTS
from keras_flowers.data.splits import SPLIT_NAMES
from keras_flowers.export import export_model
from keras_flowers.export.conversion import FILES, PRECISIONS
from keras_flowers.optimizers import Muon

CALLEES = {
    callee.__name__: callee
    for callee in (
        FineTuning,
        ImageClassifier,
        ImageClassifierHyperModel,
        ImageDatasetLoader,
        TrainingConfig,
        audit_with_backbone,
        export_model,
        find_learning_rate,
        search,
        train,
        write_sample,
    )
}
# Arguments without an option: data, objects that only Python can pass, and what the
# command line decides.
WITHOUT_OPTION = {
    "FineTuning": set(),
    "ImageClassifier": {
        "class_names",
        "image_size",
        "seed",
        "resize",
        "temperature",
        "multi_label",
        "thresholds",
        "kwargs",
    },
    "ImageClassifierHyperModel": {"loader", "epochs", "seed"},
    "ImageDatasetLoader": {
        "data",
        "keep_near_duplicates_together",
        "class_names",
    },
    "TrainingConfig": {"loader", "build_model", "fine_tuning"},
    "audit_with_backbone": {"data", "backbone", "progress"},
    "export_model": {"model", "directory", "progress"},
    "find_learning_rate": {"model", "data", "progress"},
    "search": {"hypermodel", "directory", "workers", "progress"},
}
ARGUMENTS = [
    (setting, *argument.split("."))
    for setting in ALL_SETTINGS
    for argument in setting.arguments
]
COMMANDS = sorted({command for s in ALL_SETTINGS for command in s.commands})


def parameters_of(callee):
    return inspect.signature(CALLEES[callee]).parameters


@pytest.mark.parametrize(
    ("setting", "callee", "argument"), ARGUMENTS, ids=lambda value: str(value)[:40]
)
def test_defaults_are_those_of_the_library(setting, callee, argument):
    default = parameters_of(callee)[argument].default
    if default is inspect.Parameter.empty:
        assert setting.default is None, "the library asks for it"
    elif isinstance(setting.default, Automatic):
        assert default in (None, setting.default_for(ModelFacts()))
    else:
        assert default == setting.default
        assert type(default) is type(setting.default)


@pytest.mark.parametrize("callee", WITHOUT_OPTION)
def test_every_argument_has_a_setting(callee):
    found = {argument for _, name, argument in ARGUMENTS if name == callee}
    assert found | WITHOUT_OPTION[callee] == set(parameters_of(callee))
    assert not found & WITHOUT_OPTION[callee]


def test_settings_that_python_says_otherwise():
    together = parameters_of("ImageDatasetLoader")["keep_near_duplicates_together"]
    assert together.default is not SPLIT_NEAR_DUPLICATES.default
    highest = MAX_EPOCHS.default
    epochs = parameters_of("ImageClassifierHyperModel")["epochs"].default
    assert epochs == (highest // 3, highest)
    assert {setting.name for setting in STORAGE} == set(STORAGE_ARGUMENTS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_each_name_and_option_once(command):
    settings = settings_of(command)
    assert len({setting.name for setting in settings}) == len(settings)
    assert len({setting.flag for setting in settings}) == len(settings)


def test_names_of_hyperparameters_are_unique():
    names = [s.hyperparameter for s in ALL_SETTINGS if s.hyperparameter]
    assert len(set(names)) == len(names)


def test_what_is_recorded_has_a_group_and_what_has_a_group_is_recorded():
    for setting in ALL_SETTINGS:
        assert bool(setting.group) == (setting.recorded is not None), setting.name
        assert setting.recorded or not setting.hyperparameter


def test_defaults_are_values_of_their_kind():
    for setting in ALL_SETTINGS:
        if isinstance(setting.kind, Choice) and isinstance(setting.default, str):
            assert setting.default in setting.kind.words


def test_automatic_defaults_are_what_the_classifier_does(tmp_path):
    network = tiny_network()
    network.save(tmp_path / "tiny.keras")
    backbones = (None, Backbone(network, None), Backbone(tmp_path / "tiny.keras"))
    seen = set()
    for backbone in backbones:
        model = ImageClassifier(["a", "b"], (8, 8), (2,), backbone=backbone)
        pretrained = backbone is not None and backbone.is_pretrained
        facts = ModelFacts(backbone is not None, pretrained)
        seen.add(facts)
        assert model.dropout_rate == DROPOUT.default_for(facts)
        assert model.augments == bool(AUGMENTATION.default_for(facts))
    assert len(seen) == 3
    for multi_label in (False, True):
        model = ImageClassifier(
            ["a", "b"], backbone=backbones[-1], multi_label=multi_label
        )
        model.compile()
        facts = ModelFacts(
            True,
            True,
            optimizer="sgd",
            has_linear_head=True,
            is_multi_label=multi_label,
        )
        assert model.optimizer.weight_decay == WEIGHT_DECAY.default_for(facts)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_learning_rates_are_those_of_the_optimizers(name):
    optimizer = Muon() if name == "muon" else keras.optimizers.get(name)
    rate = float(optimizer.learning_rate)
    assert LEARNING_RATE.is_default(rate, ModelFacts(optimizer=name))
    assert not LEARNING_RATE.is_default(rate * 2, ModelFacts(optimizer=name))


@pytest.mark.parametrize("callee", ["ImageDatasetLoader", "FineTuning"])
def test_limits_are_within_those_of_the_library(callee):
    required = {"ImageDatasetLoader": {"data": "."}, "FineTuning": {"epochs": 1}}
    tested = 0
    for setting, name, argument in ARGUMENTS:
        lowest = getattr(setting.kind, "lowest", None)
        if name != callee or lowest is None or "train" not in setting.commands:
            continue
        call = CALLEES[callee]
        is_open = getattr(setting.kind, "lowest_is_open", False)
        allowed = lowest + 1 if is_open else lowest
        call(**required[callee] | {argument: allowed})
        with pytest.raises(InputError, match=argument.removesuffix("_split")):
            call(**required[callee] | {argument: lowest if is_open else lowest - 1})
        tested += 1
    assert tested >= 2


def test_choices_are_those_of_the_library():
    assert SCORE.kind.words == SCORES
    assert STRATEGY.kind.words == STRATEGIES
    assert PRUNING.kind.words == PRUNINGS
    assert SPLIT.kind.words == SPLIT_NAMES
    assert set(FORMAT.kind.words) == set(FILES)
    assert (QUANTIZE.default.sentence, *QUANTIZE.kind.words) == PRECISIONS
