"""Settings of the data: which images, how they are read and split."""

from keras_flowers_settings.kinds import (
    MAX_INT32,
    MAX_SIDE,
    ExistingFile,
    Flag,
    ImageSize,
    Integer,
    Number,
    Text,
)
from keras_flowers_settings.recorded import near_duplicates_are_split, of_loader
from keras_flowers_settings.setting import DATA, Automatic, ModelFacts, Setting

FRACTION = Number(0, 1, highest_is_open=True)


def _image_size(facts: ModelFacts) -> tuple[int, int] | None:
    return None if facts.has_backbone else (256, 256)


IMAGE_SIZE = Setting(
    name="image_size",
    kind=ImageSize(),
    meaning="Size to which images are resized: the side in pixels, or `HEIGHTxWIDTH`; "
    f"at most {MAX_SIDE}",
    commands=("train", "tune"),
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
    commands=("train",),
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
    commands=("train", "tune"),
    group=DATA,
    default=0.2,
    arguments=("ImageDatasetLoader.validation_split",),
    recorded=of_loader("validation_split"),
)
TEST_SPLIT = Setting(
    name="test_split",
    kind=FRACTION,
    meaning="Fraction of each class that is kept out of training and validation",
    commands=("train", "tune"),
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
    commands=("train",),
    group=DATA,
    arguments=("ImageDatasetLoader.split_manifest",),
    recorded=of_loader("split_manifest"),
)
SPLIT_NEAR_DUPLICATES = Setting(
    name="split_near_duplicates",
    kind=Flag(),
    meaning="Allow images that look alike in different splits: for frames of a video",
    commands=("train",),
    group=DATA,
    default=False,
    recorded=near_duplicates_are_split,
)
ARCHIVE_ENCODING = Setting(
    name="archive_encoding",
    kind=Text("NAME"),
    meaning="Encoding of the names in an archive that does not say it, such as `cp932`",
    commands=("train", "tune", "evaluate", "audit"),
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
    commands=("train",),
    group=DATA,
    default=42,
    arguments=("ImageDatasetLoader.seed",),
    recorded=of_loader("seed"),
    hyperparameter="seed",
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
)
