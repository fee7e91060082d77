"""Settings of the data: which images, how they are read and split."""

from keras_flowers_settings.kinds import (
    MAX_INT32,
    MAX_SIDE,
    Choice,
    ExistingFile,
    Flag,
    ImageSize,
    Integer,
    Number,
    Text,
)
from keras_flowers_settings.recorded import (
    excluded_paths,
    near_duplicates_are_split,
    of_loader,
)
from keras_flowers_settings.setting import DATA, Automatic, ModelFacts, Setting

FRACTION = Number(0, 1, highest_is_open=True)


def _image_size(facts: ModelFacts) -> tuple[int, int] | None:
    return None if facts.has_backbone else (256, 256)


IMAGE_SIZE = Setting(
    name="image_size",
    kind=ImageSize(),
    meaning="Size to which images are resized: the side in pixels, or `HEIGHTxWIDTH`; "
    f"at most {MAX_SIDE}",
    commands=("train", "lr-find", "tune"),
    group=DATA,
    default=Automatic("256; that of a backbone", _image_size),
    arguments=("ImageDatasetLoader.image_size",),
    recorded=of_loader("image_size"),
    hyperparameter="image_size",
)
BATCH_SIZE = Setting(
    name="batch_size",
    kind=Integer(highest=MAX_INT32),
    meaning="Images in a batch",
    commands=("train", "lr-find"),
    group=DATA,
    default=32,
    arguments=("ImageDatasetLoader.batch_size",),
    recorded=of_loader("batch_size"),
    hyperparameter="batch_size",
)
VALIDATION_SPLIT = Setting(
    name="validation_split",
    kind=FRACTION,
    meaning="Fraction of each class for validation",
    commands=("train", "lr-find", "tune"),
    group=DATA,
    default=0.2,
    arguments=("ImageDatasetLoader.validation_split",),
    recorded=of_loader("validation_split"),
)
TEST_SPLIT = Setting(
    name="test_split",
    kind=FRACTION,
    meaning="Fraction of each class that is kept out of training and validation",
    commands=("train", "lr-find", "tune"),
    group=DATA,
    default=0.0,
    arguments=("ImageDatasetLoader.test_split",),
    recorded=of_loader("test_split"),
)
SPLIT_MANIFEST = Setting(
    name="split_manifest",
    kind=ExistingFile(),
    meaning="A `split.json` that decides the split; replaces `--validation-split` and "
    "`--test-split`",
    commands=("train", "lr-find"),
    group=DATA,
    arguments=("ImageDatasetLoader.split_manifest",),
    recorded=of_loader("split_manifest"),
)
SPLIT_NEAR_DUPLICATES = Setting(
    name="split_near_duplicates",
    kind=Flag(),
    meaning="Allow images that look alike in different splits: for frames of a video",
    commands=("train", "lr-find"),
    group=DATA,
    default=False,
    recorded=near_duplicates_are_split,
)
ARCHIVE_ENCODING = Setting(
    name="archive_encoding",
    kind=Text("NAME"),
    meaning="Encoding of the names in an archive that does not say it, such as `cp932`",
    commands=("train", "lr-find", "tune", "evaluate", "audit"),
    group=DATA,
    default=Automatic("UTF-8, or the code page that fits best"),
    arguments=("ImageDatasetLoader.archive_encoding",),
    recorded=of_loader("archive_encoding"),
)
SEED = Setting(
    name="seed",
    kind=Integer(0, MAX_INT32),
    meaning="Seed of the split, the order, the initial weights, augmentation and "
    "dropout",
    commands=("train", "lr-find"),
    group=DATA,
    default=42,
    arguments=("ImageDatasetLoader.seed",),
    recorded=of_loader("seed"),
    hyperparameter="seed",
)

_LOADERS = ("train", "lr-find", "tune", "evaluate", "audit")
CLASS_DEPTH = Setting(
    name="class_depth",
    kind=Integer(highest=100),
    meaning="How many levels below the data folder the class folders are; without it, "
    "their names and content decide",
    commands=_LOADERS,
    group=DATA,
    arguments=("ImageDatasetLoader.class_depth",),
    recorded=of_loader("class_depth"),
)
SPLIT_MODE = Setting(
    name="split",
    kind=Choice(("auto", "ready-made", "random")),
    meaning="Use the ready-made split of a folder with parts such as `train` and "
    "`test`, or split at random; `auto` uses a ready-made split where there is one",
    commands=("train", "lr-find", "tune"),
    group=DATA,
    default="auto",
    arguments=("ImageDatasetLoader.split",),
    recorded=of_loader("split"),
)
RESIZE = Setting(
    name="resize",
    kind=Choice(("stretch", "crop", "pad")),
    meaning="How images get the image size: `stretch` ignores the aspect ratio, `crop` "
    "cuts off what is too much, `pad` adds black borders",
    commands=("train", "lr-find", "tune"),
    group=DATA,
    default="stretch",
    arguments=("ImageDatasetLoader.resize",),
    recorded=of_loader("resize"),
)
TRUNCATED = Setting(
    name="truncated",
    kind=Choice(("refuse", "keep")),
    meaning="Refuse images that end early, or keep the pixels that are there",
    commands=_LOADERS,
    group=DATA,
    default="refuse",
    arguments=("ImageDatasetLoader.truncated",),
    recorded=of_loader("truncated"),
)
MAX_PIXELS = Setting(
    name="max_pixels",
    kind=Integer(highest=MAX_INT32),
    meaning="The largest number of pixels to allocate for an image; 89,478,485 without "
    "it",
    commands=_LOADERS,
    group=DATA,
    arguments=("ImageDatasetLoader.max_pixels",),
    recorded=of_loader("max_pixels"),
)
GRAY_BITS = Setting(
    name="gray_bits",
    kind=Integer(8, 16),
    meaning="The bits in use of 16-bit gray images that do not state it; 16 without it",
    commands=_LOADERS,
    group=DATA,
    arguments=("ImageDatasetLoader.gray_bits",),
    recorded=of_loader("gray_bits"),
)
SMALL_CLASSES = Setting(
    name="small_classes",
    kind=Choice(("leave-out", "train-only")),
    meaning="What to do with classes that have too few images to split; without it, "
    "they are an error",
    commands=("train", "lr-find", "tune"),
    group=DATA,
    arguments=("ImageDatasetLoader.small_classes",),
    recorded=of_loader("small_classes"),
)
GROUP_BY = Setting(
    name="group_by",
    kind=Text("folder|column|PATTERN"),
    meaning="Keep the images of a patient, a place or a video on one side of the "
    "split: those in one `folder`, with one value in a `column` of the label file, or "
    "with one match of a regular expression in their paths",
    commands=("train", "lr-find", "tune"),
    group=DATA,
    arguments=("ImageDatasetLoader.group_by",),
    recorded=of_loader("group_by"),
)
LABELS = Setting(
    name="labels",
    kind=ExistingFile(),
    meaning="A label file (.csv, .tsv or .parquet) that names the class of each image "
    "in the data folder",
    commands=_LOADERS,
    group=DATA,
    arguments=("ImageDatasetLoader.labels",),
    recorded=of_loader("labels"),
)


def _column(role: str, meaning: str) -> Setting:
    return Setting(
        name=f"{role}_column",
        kind=Text("COLUMN"),
        meaning=f"The column of the label file with {meaning}",
        commands=_LOADERS,
        group=DATA,
        arguments=(f"ImageDatasetLoader.{role}_column",),
        recorded=of_loader(f"{role}_column"),
    )


PATH_COLUMN = _column("path", "paths of images")
LABEL_COLUMN = _column("label", "class names")
SPLIT_COLUMN = _column("split", "`train`, `validation` or `test`")
GROUP_COLUMN = _column("group", "the group of each image")
LABEL_SEPARATOR = Setting(
    name="label_separator",
    kind=Text("TEXT"),
    meaning='What separates the labels of an image in the label column, such as `"|"`: '
    "an image may then have several labels, or none",
    commands=_LOADERS,
    group=DATA,
    arguments=("ImageDatasetLoader.label_separator",),
    recorded=of_loader("label_separator"),
)
MULTI_LABEL = Setting(
    name="multi_label",
    kind=Flag(),
    meaning="An image may have several labels, or none: several columns of the label "
    "file are 1, or the image has several rows",
    commands=_LOADERS,
    group=DATA,
    default=False,
    arguments=("ImageDatasetLoader.multi_label",),
    recorded=of_loader("multi_label"),
)
EXCLUDE = Setting(
    name="exclude",
    kind=ExistingFile(),
    meaning="Leave out the images that this text file lists, one path per line, or "
    "those of findings in the JSON file of an audit",
    commands=_LOADERS,
    group=DATA,
    arguments=("ImageDatasetLoader.exclude",),
    recorded=excluded_paths,
)
EXCLUDE_KINDS = Setting(
    name="exclude_kinds",
    kind=Text("KIND[,KIND...]"),
    meaning="The kinds of findings of the audit to leave out, such as "
    "`near_duplicate,label_conflict`",
    commands=_LOADERS,
    group=DATA,
    arguments=("ImageDatasetLoader.exclude_kinds",),
    recorded=of_loader("exclude_kinds"),
)
IGNORE_UNKNOWN_CLASSES = Setting(
    name="ignore_unknown_classes",
    kind=Flag(),
    meaning="Leave out images of classes that the model does not know",
    commands=("evaluate",),
    group=DATA,
    default=False,
    arguments=("ImageDatasetLoader.ignore_unknown_classes",),
    recorded=of_loader("ignore_unknown_classes"),
)

SETTINGS = (
    IMAGE_SIZE,
    BATCH_SIZE,
    VALIDATION_SPLIT,
    TEST_SPLIT,
    SPLIT_MANIFEST,
    SPLIT_NEAR_DUPLICATES,
    ARCHIVE_ENCODING,
    SEED,
    CLASS_DEPTH,
    SPLIT_MODE,
    RESIZE,
    TRUNCATED,
    MAX_PIXELS,
    GRAY_BITS,
    SMALL_CLASSES,
    GROUP_BY,
    LABELS,
    PATH_COLUMN,
    LABEL_COLUMN,
    SPLIT_COLUMN,
    GROUP_COLUMN,
    LABEL_SEPARATOR,
    MULTI_LABEL,
    EXCLUDE,
    EXCLUDE_KINDS,
    IGNORE_UNKNOWN_CLASSES,
)
