"""Settings of training."""

import dataclasses

from keras_flowers_settings.kinds import (
    Choice,
    Count,
    ExistingFile,
    Flag,
    Integer,
    NewFile,
    Number,
    Switch,
    Text,
)
from keras_flowers_settings.recorded import (
    class_weights,
    fine_tuning_epochs,
    init_from,
    label_smoothing,
    learning_rate,
    of_fine_tuning,
    of_run,
    optimizer,
    precision_is_mixed,
    schedule,
    warm_up,
    weight_decay,
    xla,
)
from keras_flowers_settings.setting import TRAINING, Automatic, ModelFacts, Setting

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "nadam", "adamax", "lion", "muon")
# As many as `keras_flowers.layers.views` has.
VIEWS = Integer(1, 7)
RATE = Number(0, 100, lowest_is_open=True)


def _epochs(facts: ModelFacts) -> int:
    # A backbone that starts from random weights takes longer to train.
    return 40 if facts.is_from_scratch else 15


def _optimizer(facts: ModelFacts) -> str:
    if facts.has_linear_head:
        return "sgd"
    return "muon" if facts.is_from_scratch else "adam"


def _learning_rate(facts: ModelFacts) -> float | None:
    if facts.optimizer not in OPTIMIZERS:
        return None
    return 0.01 if facts.optimizer in ("sgd", "muon") else 0.001


def _schedule(facts: ModelFacts) -> str:
    return "cosine" if facts.has_backbone else "constant"


def _warm_up(facts: ModelFacts) -> float:
    return 0.05 if facts.is_cosine else 0.0


def _label_smoothing(facts: ModelFacts) -> float:
    return 0.1 if facts.is_from_scratch else 0.0


LINEAR_HEAD_WEIGHT_DECAY = 0.3
LABEL_HEAD_WEIGHT_DECAY = 3.0  # where images may have several labels


def _weight_decay(facts: ModelFacts) -> float:
    if facts.is_from_scratch:
        return 0.05
    if facts.has_linear_head and facts.optimizer == "sgd":
        if facts.is_multi_label:
            return LABEL_HEAD_WEIGHT_DECAY
        return LINEAR_HEAD_WEIGHT_DECAY
    return 0.004 if facts.optimizer in ("adamw", "muon") else 0.0


FEATURE_VIEWS = Setting(
    name="feature_views",
    kind=VIEWS,
    meaning="Views of the training images on which a head on cached features is "
    "trained: the image, its mirror image, and crops. Each one costs a pass through "
    "the backbone",
    commands=("train", "audit"),
    group=TRAINING,
    default=1,
    arguments=("TrainingConfig.feature_views", "audit_with_backbone.feature_views"),
    recorded=of_run("feature_views"),
    hyperparameter="feature_views",
)
INFERENCE_PRECISION = Setting(
    name="inference_precision",
    kind=Choice(("float32", "bf16", "int8")),
    meaning="Precision of cached features: `bf16` and `int8` are faster with OpenVINO, "
    "where the processor has them, and slightly different",
    commands=("train", "audit"),
    group=TRAINING,
    default="float32",
    arguments=(
        "TrainingConfig.inference_precision",
        "audit_with_backbone.inference_precision",
    ),
    recorded=of_run("inference_precision"),
)
EPOCHS = Setting(
    name="epochs",
    kind=Integer(),
    meaning="Number of passes over the training images",
    commands=("train",),
    group=TRAINING,
    default=Automatic("15; 40 with a backbone without weights", _epochs),
    arguments=("TrainingConfig.epochs",),
    recorded=of_run("epochs"),
    hyperparameter="epochs",
)
OPTIMIZER = Setting(
    name="optimizer",
    kind=Choice(OPTIMIZERS),
    meaning="Optimizer",
    commands=("train", "lr-find"),
    group=TRAINING,
    default=Automatic(
        "adam; sgd for a linear head, muon with a backbone without weights", _optimizer
    ),
    recorded=lambda config: optimizer(config).lower(),
    hyperparameter="optimizer",
)
LEARNING_RATE = Setting(
    name="learning_rate",
    kind=dataclasses.replace(RATE, words=("auto",)),
    meaning="Learning rate; with a warm-up or the schedule `cosine` the highest one. "
    "`auto` finds one, as `keras-flowers lr-find` does",
    commands=("train",),
    group=TRAINING,
    default=Automatic("that of the optimizer", _learning_rate),
    recorded=learning_rate,
    hyperparameter="learning_rate",
)
SCHEDULE = Setting(
    name="schedule",
    kind=Choice(("constant", "cosine")),
    meaning="Learning rate schedule after the warm-up: `constant`, or `cosine`, which "
    "falls to zero along a cosine",
    commands=("train",),
    group=TRAINING,
    default=Automatic("constant; cosine with a backbone", _schedule),
    recorded=schedule,
)
WARM_UP = Setting(
    name="warm_up",
    kind=Number(0, 1, highest_is_open=True),
    meaning="Fraction of the steps of a stage in which the learning rate rises from 0",
    commands=("train",),
    group=TRAINING,
    default=Automatic(
        "0.05 with the schedule `cosine` and in the second stage; else 0", _warm_up
    ),
    arguments=("FineTuning.warm_up",),
    recorded=warm_up,
)
LABEL_SMOOTHING = Setting(
    name="label_smoothing",
    kind=Number(0, 1, highest_is_open=True),
    meaning="Fraction of each label that is given to all classes alike, in training",
    commands=("train",),
    group=TRAINING,
    default=Automatic(
        "0.1 in the second stage and with a backbone without weights; else 0",
        _label_smoothing,
    ),
    arguments=("FineTuning.label_smoothing",),
    recorded=label_smoothing,
)
WEIGHT_DECAY = Setting(
    name="weight_decay",
    kind=Number(0, 100),
    meaning="Fraction of each weight that a training step takes off, times the "
    "learning rate",
    commands=("train",),
    group=TRAINING,
    default=Automatic(
        "0.05 with a backbone without weights, 0.3 with a linear head, 3 with one "
        "for several labels; else that of the optimizer, or 0.01 in the second stage",
        _weight_decay,
    ),
    arguments=("FineTuning.weight_decay",),
    recorded=weight_decay,
)
EARLY_STOPPING = Setting(
    name="early_stopping",
    kind=Integer(),
    meaning="Stop each stage after this many epochs without a lower validation loss, "
    "and restore its best weights unless `--keep last`",
    commands=("train",),
    group=TRAINING,
    arguments=("TrainingConfig.early_stopping",),
    recorded=of_run("early_stopping"),
    hyperparameter="early_stopping",
)
CALIBRATE = Setting(
    name="calibrate",
    kind=Switch(),
    meaning="After training, calibrate the model on the validation images: fit the "
    "temperature of its probabilities and the detector of unknown images; or do not",
    commands=("train", "tune"),
    group=TRAINING,
    default=Automatic("with 50 validation images or more", lambda _: True),
    arguments=("TrainingConfig.calibrate", "train.calibrate", "search.calibrate"),
    recorded=of_run("calibrate"),
)
INIT_FROM = Setting(
    name="init_from",
    kind=ExistingFile(),
    meaning="Start from the weights of this `model.keras`, with its architecture, "
    "image size and resizing. Of classes that it does not have, the weights are new",
    commands=("train", "lr-find"),
    group=TRAINING,
    arguments=("TrainingConfig.init_from", "train.init_from"),
    recorded=init_from,
)
KEEP = Setting(
    name="keep",
    kind=Choice(("best", "last")),
    meaning="Which epoch `model.keras` has: `best`, the one with the lowest validation "
    "loss, or `last`. Without validation images it is the last one",
    commands=("train",),
    group=TRAINING,
    default="best",
    arguments=("TrainingConfig.keep", "train.keep"),
    recorded=of_run("keep"),
)
CLASS_WEIGHTS = Setting(
    name="class_weights",
    kind=Choice(("balanced",)),
    meaning="Class weights: `balanced` for the inverse of each class's share",
    commands=("train",),
    group=TRAINING,
    arguments=("TrainingConfig.class_weights",),
    recorded=class_weights,
    hyperparameter="class_weights",
)
FINE_TUNE_EPOCHS = Setting(
    name="fine_tune_epochs",
    kind=Integer(),
    meaning="Epochs of a second stage, which also trains the pretrained backbone",
    commands=("train",),
    group=TRAINING,
    arguments=("FineTuning.epochs",),
    recorded=fine_tuning_epochs,
    hyperparameter="fine_tuning_epochs",
)
FINE_TUNE_LEARNING_RATE = Setting(
    name="fine_tune_learning_rate",
    kind=RATE,
    meaning="Highest learning rate of the second stage, which follows the schedule "
    "`cosine`",
    commands=("train",),
    group=TRAINING,
    default=3e-4,
    arguments=("FineTuning.learning_rate",),
    recorded=of_fine_tuning("learning_rate"),
)
FINE_TUNE_AUGMENTATION = Setting(
    name="fine_tune_augmentation",
    kind=Choice(("none", "light", "strong")),
    meaning="Augmentation of the images in the second stage",
    commands=("train",),
    group=TRAINING,
    default=Automatic("that of `--augmentation` if it is given, else light"),
    arguments=("FineTuning.augmentation",),
    recorded=of_fine_tuning("augmentation"),
)
UNFREEZE_FROM = Setting(
    name="unfreeze_from",
    kind=Text("LAYER"),
    meaning="First layer of the backbone that the second stage trains, together with "
    "all layers after it",
    commands=("train",),
    group=TRAINING,
    default=Automatic("all"),
    arguments=("FineTuning.unfreeze_from",),
    recorded=of_fine_tuning("unfreeze_from"),
)
XLA = Setting(
    name="xla",
    kind=Switch(),
    meaning="Compile the training step with XLA, or do not",
    commands=("train", "lr-find"),
    group=TRAINING,
    default=Automatic("where it pays"),
    recorded=xla,
)
MIXED_PRECISION = Setting(
    name="mixed_precision",
    kind=Flag(),
    meaning="Compute in 16 bits: for GPUs",
    commands=("train", "lr-find"),
    group=TRAINING,
    default=False,
    recorded=precision_is_mixed,
)
DEVICES = Setting(
    name="devices",
    kind=Count("all"),
    meaning="Devices of each process to train on, a number or `all`; each of them "
    "computes a share of each batch",
    commands=("train",),
    default=Automatic("all GPUs or TPUs"),
    arguments=("train.devices",),
)
JOIN_TIMEOUT = Setting(
    name="join_timeout",
    kind=Integer(),
    meaning="Seconds to wait for the other processes of a training on several machines",
    commands=("train",),
    default=300,
    arguments=("train.join_timeout",),
)

LOWEST_RATE = Setting(
    name="lowest",
    kind=RATE,
    meaning="Learning rate of the first step",
    commands=("lr-find",),
    default=1e-7,
    arguments=("find_learning_rate.lowest",),
)
HIGHEST_RATE = Setting(
    name="highest",
    kind=RATE,
    meaning="Learning rate of the last step",
    commands=("lr-find",),
    default=1.0,
    arguments=("find_learning_rate.highest",),
)
STEPS = Setting(
    name="steps",
    kind=Integer(20),
    meaning="Number of training steps, each with a higher learning rate",
    commands=("lr-find",),
    default=100,
    arguments=("find_learning_rate.steps",),
)
RATES_PLOT = Setting(
    name="plot_file",
    kind=NewFile(),
    option="--plot",
    meaning="PNG file for the plot of the loss over the learning rate",
    commands=("lr-find",),
    default=Automatic("runs/NAME-lr-TIME.png"),
)

RANGE_TEST = (LOWEST_RATE, HIGHEST_RATE, STEPS, RATES_PLOT)
SETTINGS = (
    FEATURE_VIEWS,
    INFERENCE_PRECISION,
    EPOCHS,
    OPTIMIZER,
    LEARNING_RATE,
    SCHEDULE,
    WARM_UP,
    LABEL_SMOOTHING,
    WEIGHT_DECAY,
    EARLY_STOPPING,
    CALIBRATE,
    INIT_FROM,
    KEEP,
    CLASS_WEIGHTS,
    FINE_TUNE_EPOCHS,
    FINE_TUNE_LEARNING_RATE,
    FINE_TUNE_AUGMENTATION,
    UNFREEZE_FROM,
    XLA,
    MIXED_PRECISION,
    DEVICES,
    JOIN_TIMEOUT,
)
