"""Settings of where things are kept and what a command prints."""

from keras_flowers_settings.kinds import (
    MAX_INT32,
    ByteSize,
    ExistingFile,
    Flag,
    Folder,
    Integer,
    NewFile,
    OptionalText,
)
from keras_flowers_settings.recorded import of_loader
from keras_flowers_settings.setting import ENVIRONMENT, Automatic, Setting

CONFIG_FILE = Setting(
    name="config_file",
    kind=ExistingFile(),
    option="--config",
    meaning="Reproduce the run of this `config.json`; replaces `DATA` and all options "
    "that change the outcome",
    commands=("train",),
)
RUN_DIRECTORY = Setting(
    name="run_dir",
    kind=Folder(),
    meaning="New or empty folder for the results",
    commands=("train",),
    default=Automatic("runs/NAME-TIME"),
)
RESUME = Setting(
    name="resume",
    kind=Folder("RUN"),
    meaning="Resume the run in the folder `RUN` after its last complete epoch, or "
    "start it if there is none. What is not given is taken from the run; options that "
    "are given must match it. With more `--epochs` or `--fine-tune-epochs`, a finished "
    "run is trained further",
    commands=("train",),
)
CHECKPOINT_EVERY = Setting(
    name="checkpoint_every",
    kind=Integer(0),
    meaning="Epochs between checkpoints for `--resume`; 0 for none",
    commands=("train",),
    default=1,
    arguments=("train.checkpoint_every",),
)
NO_TENSORBOARD = Setting(
    name="no_tensorboard",
    kind=Flag(),
    meaning="Write nothing for TensorBoard",
    commands=("train",),
    default=False,
)
SAVE_OPTIMIZER = Setting(
    name="save_optimizer",
    kind=Flag(),
    meaning="Save the state of the optimizer in `model.keras`, which makes it up to "
    "three times as large. `--resume` does not need it",
    commands=("train",),
    default=False,
    arguments=("train.save_optimizer",),
)
DISCARD_CHECKPOINT = Setting(
    name="discard_checkpoint",
    kind=Flag(),
    meaning="Remove the last checkpoint of the finished run, which `--resume RUN "
    "--epochs MORE` needs",
    commands=("train",),
    default=False,
    arguments=("train.discard_checkpoint",),
)
SEARCH_DIRECTORY = Setting(
    name="run_dir",
    kind=Folder(),
    meaning="New or empty folder for the results",
    commands=("tune",),
    default=Automatic("runs/NAME-search-TIME"),
)
RESUME_SEARCH = Setting(
    name="resume",
    kind=Flag(),
    meaning="Resume the search in `--run-dir`, if there is one",
    commands=("tune",),
    default=False,
    arguments=("search.resume",),
)
RUN = (
    CONFIG_FILE,
    RUN_DIRECTORY,
    RESUME,
    CHECKPOINT_EVERY,
    NO_TENSORBOARD,
    SAVE_OPTIMIZER,
    DISCARD_CHECKPOINT,
    SEARCH_DIRECTORY,
    RESUME_SEARCH,
)

HTML_FILE = Setting(
    name="html_file",
    kind=NewFile(),
    option="--html",
    meaning="Write the findings with their images to this file, one self-contained "
    "page",
    commands=("audit",),
)
RELABEL_FILE = Setting(
    name="relabel_file",
    kind=NewFile(),
    option="--relabel",
    meaning="Write a label file with the suggested labels to this CSV file, the surest "
    "first. Edit it, then pass it to `--labels` of `train`. Needs `--backbone`",
    commands=("audit",),
)
CACHE_DIRECTORY = Setting(
    name="cache_directory",
    kind=Folder(),
    option="--cache-dir",
    meaning="Folder for downloads, unpacked archives and decoded images",
    commands=("train", "lr-find", "tune", "evaluate", "audit"),
    group=ENVIRONMENT,
    arguments=("ImageDatasetLoader.cache_directory",),
    recorded=of_loader("cache_directory"),
)
DISK_BUDGET = Setting(
    name="disk_budget",
    kind=ByteSize(),
    meaning="Maximum disk space for decoded images; images beyond it are decoded on "
    "the fly",
    commands=("train", "lr-find", "tune", "evaluate", "audit"),
    group=ENVIRONMENT,
    default=32 * 2**30,
    arguments=("ImageDatasetLoader.disk_budget",),
    recorded=of_loader("disk_budget"),
)
MAX_EXTRACTED_SIZE = Setting(
    name="max_extracted_size",
    kind=ByteSize(),
    meaning="Maximum size of an unpacked archive",
    commands=("train", "lr-find", "tune", "evaluate", "audit"),
    group=ENVIRONMENT,
    default=10 * 2**30,
    arguments=("ImageDatasetLoader.max_extracted_size",),
    recorded=of_loader("max_extracted_size"),
)
MAX_EXTRACTED_FILES = Setting(
    name="max_extracted_files",
    kind=Integer(highest=MAX_INT32),
    meaning="Maximum number of files in an archive",
    commands=("train", "lr-find", "tune", "evaluate", "audit"),
    group=ENVIRONMENT,
    default=200_000,
    arguments=("ImageDatasetLoader.max_extracted_files",),
    recorded=of_loader("max_extracted_files"),
)
# Where things are kept does not change what a run computes.
STORAGE = (CACHE_DIRECTORY, DISK_BUDGET, MAX_EXTRACTED_SIZE, MAX_EXTRACTED_FILES)

AS_JSON = Setting(
    name="as_json",
    kind=Flag(),
    option="--json",
    meaning="Print the result as JSON on stdout",
    commands=(
        "train",
        "lr-find",
        "tune",
        "predict",
        "evaluate",
        "export",
        "compare",
        "audit",
        "backbones",
        "doctor",
    ),
    default=False,
)
DEBUG = Setting(
    name="debug",
    kind=Flag(),
    meaning="Show the traceback of an error",
    commands=(
        *AS_JSON.commands,
        "tensorboard",
        "card",
        "serve",
        "sample",
        "new",
        "completion",
    ),
    default=False,
)
MLFLOW = Setting(
    name="mlflow",
    kind=OptionalText("URI"),
    meaning="Send parameters, metrics, report and model to MLflow: to this server or "
    "store, such as `sqlite:///mlflow.db`, or without a value to MLflow's default",
    commands=("train",),
)
WANDB = Setting(
    name="wandb",
    kind=OptionalText("PROJECT"),
    meaning="Send them to Weights & Biases: to this project, or without a value to "
    "`keras-flowers`",
    commands=("train",),
)
TRACKERS = (MLFLOW, WANDB)
OUTPUT = (HTML_FILE, RELABEL_FILE, AS_JSON, DEBUG)
