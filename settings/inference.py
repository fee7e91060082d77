"""Settings of the commands that use, evaluate and watch models."""

from keras_flowers_settings.kinds import (
    MANY,
    MAX_INT32,
    Choice,
    ExistingFile,
    Flag,
    Folder,
    Integer,
    NewFile,
    Text,
)
from keras_flowers_settings.setting import Automatic, Setting

EVALUATED_MANIFEST = Setting(
    name="split_manifest",
    kind=ExistingFile(),
    meaning="The `split.json` of a run: evaluate one of its splits instead of all "
    "images",
    commands=("evaluate",),
)
TTA = Setting(
    name="tta",
    kind=Integer(1, 7),
    meaning="Test-time augmentation: number of views of each image (the image, its "
    "mirror image, and crops) over which probabilities are averaged; `train` does it "
    "in the report. N views take N times as long",
    commands=("train", "predict", "evaluate", "export"),
    default=1,
    arguments=("train.tta", "export_model.tta"),
)
PREDICTION_PRECISION = Setting(
    name="inference_precision",
    kind=Choice(("float32", "bf16", "int8")),
    meaning="Precision of the features of a backbone: `bf16` and `int8` are faster "
    "for many images, with OpenVINO and where the processor has them; what they change "
    "is shown for 128 of the images",
    commands=("predict", "evaluate"),
    default="float32",
)
FOLDS = Setting(
    name="folds",
    kind=Integer(2, 1000),
    meaning="Also cross-validate a linear head on cached features in this many folds: "
    "shows mean and spread of the accuracy, or with several labels per image of the "
    "mean average precision, and writes predictions for all images, by heads that have "
    "not seen them, to `out_of_fold.csv`",
    commands=("train",),
    arguments=("train.folds",),
)
SPLIT = Setting(
    name="split",
    kind=Choice(("train", "validation", "test")),
    meaning="Split of the manifest to evaluate",
    commands=("evaluate",),
    default=Automatic("test, or validation without one"),
)
BATCH_SIZE = Setting(
    name="batch_size",
    kind=Integer(highest=MAX_INT32),
    meaning="Images classified at once",
    commands=("predict", "evaluate", "serve"),
    default=32,
    arguments=("ImageDatasetLoader.batch_size",),
)
TOP_IN_TABLE = Setting(
    name="top",
    kind=Integer(highest=MANY),
    meaning="Number of classes of each image in `predictions.csv`",
    commands=("evaluate",),
    default=3,
)
MISTAKES = Setting(
    name="mistakes",
    kind=Integer(highest=1000),
    meaning="Number of the worst mistakes in `mistakes.png` and `evaluation.json`, at "
    "most 1000",
    commands=("evaluate",),
    default=24,
)
OUTPUT_DIRECTORY = Setting(
    name="output_dir",
    kind=Folder(),
    meaning="Folder for the tables and plots",
    commands=("evaluate",),
    default=Automatic("evaluation next to MODEL; comparison next to MODEL_B"),
)
TOP = Setting(
    name="top",
    kind=Integer(highest=MANY),
    meaning="Number of classes shown for each image",
    commands=("predict",),
    default=3,
)
UNKNOWN = Setting(
    name="unknown",
    kind=Text("auto|THRESHOLD"),
    meaning="Report images that show none of the classes as `none of these`: with "
    "`auto`, by the threshold of training, which rejects 5 % of the validation images; "
    "with a number from 0 to 1, if the highest probability is below it. Where images "
    "may have several labels, a number raises all lower thresholds to it",
    commands=("predict",),
)
CSV_FILE = Setting(
    name="csv_file",
    kind=NewFile(),
    option="--csv",
    meaning="Also write path, class and all probabilities to this file",
    commands=("predict",),
)
MOVE_TO = Setting(
    name="move_to",
    kind=Folder(),
    meaning="Move each image into the folder of its class in this folder. Nothing is "
    "overwritten: if a name is taken, the image gets a number",
    commands=("predict",),
)
COPY_TO = Setting(
    name="copy_to",
    kind=Folder(),
    meaning="Copy each image instead of moving it, otherwise as `--move-to`. An image "
    "with several labels is copied into the folder of each",
    commands=("predict",),
)
DRY_RUN = Setting(
    name="dry_run",
    kind=Flag(),
    meaning="Only list what `--move-to` or `--copy-to` would do",
    commands=("predict",),
    default=False,
)
EXPLAIN = Setting(
    name="explain_to",
    kind=Folder(),
    option="--explain",
    meaning="Write a picture for each image to this folder that shows which parts of "
    "the image decide its class. Not for an exported model",
    commands=("predict",),
)
EXPLAIN_MISTAKES = Setting(
    name="explain_to",
    kind=Folder(),
    option="--explain",
    meaning="Write pictures of the worst mistakes to this folder that show which parts "
    "of the image speak for the predicted class, and which for the true class",
    commands=("evaluate",),
)
FORMAT = Setting(
    name="format",
    kind=Choice(("onnx", "litert", "openvino", "saved_model")),
    meaning="Format of the exported model",
    commands=("export",),
    default="onnx",
    arguments=("export_model.format",),
)
QUANTIZE = Setting(
    name="quantize",
    kind=Choice(("float16", "int8")),
    meaning="`float16` stores the weights in half precision; `int8` computes with "
    "8-bit integers, calibrated on training images of the run",
    commands=("export",),
    default=Automatic("float32"),
    arguments=("export_model.quantize",),
)
EXPORT_DIRECTORY = Setting(
    name="directory",
    kind=Folder(),
    option="--output",
    meaning="New or empty folder for the exported model",
    commands=("export",),
    default=Automatic("named after the format, in RUN or next to MODEL"),
)
CARD_FILE = Setting(
    name="card_file",
    kind=NewFile(),
    option="--output",
    meaning="Markdown file to write or to replace",
    commands=("card",),
    default=Automatic("MODEL_CARD.md in RUN or next to MODEL"),
)
PLOT_FILE = Setting(
    name="plot_file",
    kind=NewFile(),
    option="--plot",
    meaning="PNG file for the curves of all runs",
    commands=("compare",),
    default=Automatic("comparison.png next to the first run"),
)
SCRIPT_DATA = Setting(
    name="data",
    kind=Text("DATA"),
    meaning="What the script trains on: a folder, an archive, a URL of one, "
    "`flower_photos` or `sample`",
    commands=("new",),
    default="sample",
)
HOST = Setting(
    name="host",
    kind=Text(),
    meaning="Name or address under which this machine answers; `0.0.0.0` for the whole "
    "network",
    commands=("tensorboard",),
    default="localhost",
)
PORT = Setting(
    name="port",
    kind=Integer(0, 65535),
    meaning="Port of the server; 0 for any free one",
    commands=("tensorboard",),
    default=Automatic("6006, or the next free one"),
)
IMAGES_PER_CLASS = Setting(
    name="images_per_class",
    kind=Integer(highest=100_000),
    option="--photos-per-class",
    meaning="Number of images of each class",
    commands=("sample",),
    default=80,
    arguments=("write_sample.images_per_class",),
)
SAMPLE_SEED = Setting(
    name="seed",
    kind=Integer(0, MAX_INT32),
    meaning="Seed of what is drawn",
    commands=("sample",),
    default=42,
    arguments=("write_sample.seed",),
)
MEASURE = Setting(
    name="measure",
    kind=Flag(),
    meaning="Measure loading, the training step and the forward pass for ten seconds, "
    "and say which of them limits this machine",
    commands=("doctor",),
    default=False,
)

SETTINGS = (
    TTA,
    PREDICTION_PRECISION,
    FOLDS,
    EVALUATED_MANIFEST,
    SPLIT,
    BATCH_SIZE,
    TOP_IN_TABLE,
    MISTAKES,
    OUTPUT_DIRECTORY,
    TOP,
    UNKNOWN,
    CSV_FILE,
    MOVE_TO,
    COPY_TO,
    DRY_RUN,
    EXPLAIN,
    EXPLAIN_MISTAKES,
    FORMAT,
    QUANTIZE,
    EXPORT_DIRECTORY,
    CARD_FILE,
    PLOT_FILE,
    SCRIPT_DATA,
    HOST,
    PORT,
    IMAGES_PER_CLASS,
    SAMPLE_SEED,
    MEASURE,
)
