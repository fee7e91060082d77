"""Settings of the model."""

from keras_flowers_settings.data import FRACTION
from keras_flowers_settings.kinds import MAX_WIDTH, Strength, Text, Widths
from keras_flowers_settings.recorded import (
    LINEAR,
    augmentation,
    backbone,
    hidden_units,
    of_classifier,
    weights,
)
from keras_flowers_settings.setting import MODEL, Automatic, ModelFacts, Setting


def _hidden_units(facts: ModelFacts) -> tuple[int, ...] | str:
    if facts.is_pretrained:
        return LINEAR
    return () if facts.is_from_scratch else (256, 128)


def _dropout(facts: ModelFacts) -> float:
    return 0.3 if facts.is_pretrained else 0.0


def _augmentation(facts: ModelFacts) -> bool | str:
    return "strong" if facts.is_from_scratch else not facts.is_pretrained


DROPOUT_DEFAULT = Automatic(
    "0; 0.3 with hidden layers behind a pretrained backbone", _dropout
)

BACKBONE = Setting(
    name="backbone",
    kind=Text("NAME|FILE"),
    meaning="Network that computes the features of an image: a name that "
    "`keras-flowers backbones` lists, or a `.keras` file",
    commands=("train", "lr-find", "tune", "audit"),
    group=MODEL,
    default=Automatic("none"),
    arguments=("ImageClassifier.backbone", "ImageClassifierHyperModel.backbone"),
    recorded=backbone,
    hyperparameter="backbone",
)
WEIGHTS = Setting(
    name="pretrained_weights",
    aliases=("--weights",),
    kind=Text("imagenet|FILE|none"),
    meaning="Weights of the backbone: `imagenet`, which Keras downloads, an `.h5` or "
    "`.keras` file, or `none` to train it from random weights; formerly `--weights`",
    commands=("train", "lr-find", "tune", "audit"),
    group=MODEL,
    default=Automatic("imagenet for a name that has such; those of a .keras file"),
    recorded=weights,
)
HIDDEN_UNITS = Setting(
    name="hidden_units",
    kind=Widths(),
    meaning=f"Widths of the hidden layers, from 1 to {MAX_WIDTH}, separated by commas, "
    "or `none`",
    commands=("train", "lr-find"),
    group=MODEL,
    default=Automatic(
        "256,128; a linear head with a pretrained backbone, none with one without "
        "weights",
        _hidden_units,
    ),
    arguments=("ImageClassifier.hidden_units",),
    recorded=hidden_units,
    hyperparameter="hidden_units",
)
DROPOUT = Setting(
    name="dropout",
    kind=FRACTION,
    meaning="Fraction of units to drop after each hidden layer, from 0 to below 1",
    commands=("train", "lr-find"),
    group=MODEL,
    default=DROPOUT_DEFAULT,
    arguments=("ImageClassifier.dropout",),
    recorded=of_classifier("dropout"),
    hyperparameter="dropout",
)
AUGMENTATION = Setting(
    name="augmentation",
    kind=Strength(("none", "light", "strong")),
    meaning="Change the training images at random: `light` crops, mirrors and changes "
    "colors a little, `strong` more; `--augmentation` alone flips, rotates, zooms and "
    "changes the contrast, as in the lesson",
    commands=("train", "lr-find", "tune"),
    group=MODEL,
    default=Automatic(
        "yes, as in the lesson; `strong` with a backbone without weights; no with a "
        "pretrained backbone, whose features are then computed once",
        _augmentation,
    ),
    arguments=(
        "ImageClassifier.augmentation",
        "ImageClassifierHyperModel.augmentation",
    ),
    recorded=augmentation,
    hyperparameter="augmentation",
)

SETTINGS = (BACKBONE, WEIGHTS, HIDDEN_UNITS, DROPOUT, AUGMENTATION)
