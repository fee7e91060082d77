"""Settings of a hyperparameter search."""

from keras_flowers_settings.kinds import (
    MAX_INT32,
    Choice,
    Count,
    Flag,
    Integer,
    Range,
    Text,
)
from keras_flowers_settings.model import DROPOUT_DEFAULT
from keras_flowers_settings.setting import Automatic, Setting

STRATEGIES = ("random", "bayesian", "hyperband", "grid")
PRUNINGS = ("none", "median")
_RANGE = "`LOW:HIGH`, `LOW:HIGH:STEP` or one number"

LAYERS = Setting(
    name="layers",
    kind=Range(int),
    meaning=f"Number of hidden layers: {_RANGE}",
    commands=("tune",),
    default=(1, 3),
    arguments=("ImageClassifierHyperModel.layers",),
)
UNITS = Setting(
    name="units",
    kind=Range(int),
    meaning=f"Width of each hidden layer: {_RANGE}",
    commands=("tune",),
    default=(64, 512, 64),
    arguments=("ImageClassifierHyperModel.units",),
)
DROPOUT_RANGE = Setting(
    name="dropout",
    kind=Range(float),
    meaning=f"Fraction of units to drop after each hidden layer: {_RANGE}",
    commands=("tune",),
    default=DROPOUT_DEFAULT,
    arguments=("ImageClassifierHyperModel.dropout",),
)
LEARNING_RATES = Setting(
    name="learning_rate",
    kind=Range(float, "LOW:HIGH"),
    meaning="Learning rate of Adam, searched by order of magnitude; with a backbone "
    "the highest one of a trial: `LOW:HIGH` or one number",
    commands=("tune",),
    default=Automatic("that of Adam"),
    arguments=("ImageClassifierHyperModel.learning_rate",),
)
BATCH_SIZES = Setting(
    name="batch_size",
    kind=Range(int, "N[,N...]", ","),
    meaning="Images in a batch: one number, or several to choose from, separated by "
    "commas",
    commands=("tune",),
    default=Automatic("32"),
    arguments=("ImageClassifierHyperModel.batch_size",),
)
MAX_EPOCHS = Setting(
    name="max_epochs",
    kind=Integer(),
    meaning="Highest number of epochs of a trial; the lowest is a third of it",
    commands=("tune",),
    default=15,
)
SCORE = Setting(
    name="score",
    kind=Choice(("last", "best")),
    meaning="Epoch that decides the score of a trial and whose weights are saved",
    commands=("tune",),
    default="last",
    arguments=("ImageClassifierHyperModel.score",),
)
STRATEGY = Setting(
    name="strategy",
    kind=Choice(STRATEGIES),
    meaning="How the next trial is chosen",
    commands=("tune",),
    default="random",
    arguments=("search.strategy",),
)
TRIALS = Setting(
    name="trials",
    kind=Integer(),
    meaning="Maximum number of trials",
    commands=("tune",),
    default=20,
    arguments=("search.trials",),
)
OBJECTIVE = Setting(
    name="objective",
    kind=Text(),
    meaning="Metric that scores a trial: `val_accuracy`, `val_loss` or, where images "
    "may have several labels, `val_mean_average_precision`",
    commands=("tune",),
    default=Automatic(
        "`val_accuracy`; with several labels `val_mean_average_precision`"
    ),
    arguments=("search.objective",),
)
EXECUTIONS = Setting(
    name="executions_per_trial",
    kind=Integer(highest=1000),
    meaning="Trainings per trial; the score is their mean",
    commands=("tune",),
    default=1,
    option="--executions",
    arguments=("search.executions_per_trial",),
)
SEED = Setting(
    name="seed",
    kind=Integer(0, MAX_INT32 - 1),
    meaning="Seed of the split, the order, the trials and everything random in them",
    commands=("tune",),
    default=42,
    arguments=("search.seed",),
)
WORKERS = Setting(
    name="workers",
    kind=Count("auto", 0, 1000),
    meaning="Start a chief and this many worker processes; with 0, trials run in the "
    "process of the command; `auto` starts one per GPU, or as many as speed up the "
    "search, and says why",
    commands=("tune",),
    default=1,
)
PRUNING = Setting(
    name="pruning",
    kind=Choice(PRUNINGS),
    meaning="End hopeless trials early: `median` ends those that are worse than the "
    "median of the completed ones, `none` trains every trial to its end",
    commands=("tune",),
    default="none",
    arguments=("search.pruning",),
)
RETRAIN = Setting(
    name="retrain",
    kind=Flag(),
    meaning="Finally train the best hyperparameters on the training and validation "
    "images together",
    commands=("tune",),
    default=False,
    arguments=("search.retrain",),
)

SPACE = (
    LAYERS,
    UNITS,
    DROPOUT_RANGE,
    LEARNING_RATES,
    BATCH_SIZES,
    MAX_EPOCHS,
    SCORE,
)
SEARCH = (STRATEGY, TRIALS, PRUNING, OBJECTIVE, EXECUTIONS, SEED, WORKERS, RETRAIN)
