"""`keras-flowers train`: from a folder of photos to a saved classifier."""

import dataclasses
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.errors import EXIT_DONE, EXIT_INTERRUPTED
from keras_flowers_cli.findings import show_findings
from keras_flowers_cli.options import (
    BATCH_SIZE,
    EXISTING_FILE,
    FRACTION,
    Command,
    HiddenUnits,
    ImageSize,
    Number,
    UserPath,
    given,
    json_option,
    loader_options,
)
from keras_flowers_cli.output import Output, ProgressBars, TextTable

if TYPE_CHECKING:
    import keras

    from keras_flowers.dataset_loader import ImageDatasets
    from keras_flowers.training import TrainingConfig, TrainingRun

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "nadam", "adamax", "lion")
# Where things are kept is no part of what a run computes.
BESIDE_CONFIG = (
    "cache_directory",
    "disk_budget",
    "max_extracted_size",
    "max_extracted_files",
)
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """What the command line says of the model."""

    hidden_units: tuple[int, ...]
    dropout: float
    augmentation: bool
    optimizer: str
    learning_rate: float | None
    mixed_precision: bool
    seed: int

    def build(self, datasets: "ImageDatasets") -> "keras.Model":
        """Returns the compiled model for the loaded data."""
        import keras
        from keras_flowers_cli.devices import mixed_precision_policy

        from keras_flowers.image_classifier import ImageClassifier

        model = ImageClassifier(
            datasets.class_names,
            image_size=datasets.image_size,
            hidden_units=self.hidden_units,
            dropout=self.dropout,
            augmentation=self.augmentation,
            seed=self.seed,
            dtype=mixed_precision_policy() if self.mixed_precision else None,
        )
        settings = given({"learning_rate": self.learning_rate})
        model.compile(
            keras.optimizers.get({"class_name": self.optimizer, "config": settings})
        )
        return model


@click.command(cls=Command)
@click.argument("data", required=False)
@click.option(
    "--config",
    "config_file",
    type=EXISTING_FILE,
    help="Repeat the run of this config.json; takes the place of DATA and of all "
    "options but --run-dir, --no-tensorboard, --json, --cache-dir and the limits.",
)
@click.option("--epochs", type=click.IntRange(1, 1_000_000), help="[default: 15]")
@click.option("--batch-size", type=BATCH_SIZE, help="[default: 32]")
@click.option(
    "--image-size", type=ImageSize(), help="Pixels, or HEIGHTxWIDTH.  [default: 256]"
)
@click.option(
    "--hidden-units",
    type=HiddenUnits(),
    help="Widths of the hidden layers, or none.  [default: 256,128]",
)
@click.option(
    "--dropout", type=FRACTION, help="Rate after each hidden layer.  [default: 0]"
)
@click.option(
    "--optimizer", type=click.Choice(OPTIMIZERS), help="[default: adam]", metavar="NAME"
)
@click.option(
    "--learning-rate",
    type=Number(0, 100, min_open=True),
    help="[default: that of the optimizer]",
)
@click.option("--validation-split", type=FRACTION, help="[default: 0.2]")
@click.option("--test-split", type=FRACTION, help="[default: 0]")
@click.option(
    "--split-manifest",
    type=EXISTING_FILE,
    help="A split.json that decides the split instead of the two fractions.",
)
@click.option(
    "--split-near-duplicates",
    is_flag=True,
    help="Let photos that look alike stand in different splits: for video frames.",
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), help="[default: 42]")
@click.option(
    "--no-augmentation", is_flag=True, help="Train on the photos as they are."
)
@click.option(
    "--early-stopping",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="Stop after N epochs without a lower validation loss; keep the best weights.",
)
@click.option(
    "--class-weights",
    type=click.Choice(["balanced"]),
    help="Weigh classes by the inverse of their share.",
)
@click.option("--mixed-precision", is_flag=True, help="Compute in 16 bits: for GPUs.")
@click.option(
    "--run-dir",
    type=UserPath(path_type=Path),
    help="New folder for the results.  [default: runs/NAME-TIME]",
)
@click.option("--no-tensorboard", is_flag=True, help="Write nothing for TensorBoard.")
@loader_options
@json_option
@click.pass_context
def train(
    context: click.Context,
    /,
    data: str | None,
    config_file: Path | None,
    run_dir: Path | None,
    no_tensorboard: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Train a classifier on the photos in DATA and save it with its history."""
    chosen = {
        name: value for name, value in given(options).items() if value is not False
    }
    if (data is None) == (config_file is None):
        raise click.UsageError("Give either DATA or --config.")
    replaced = chosen.keys() - set(BESIDE_CONFIG)
    if config_file is not None and replaced:
        names = _option_names(context.command, replaced)
        raise click.UsageError(f"--config takes the place of {names}.")
    _check_splits(chosen)
    runtime.start_keras()
    from keras_flowers.training import TrainingConfig
    from keras_flowers.training import train as train_model

    output = Output(as_json)
    if config_file is None:
        config = _config(data, chosen)
    else:
        config = _with_loader_options(TrainingConfig.read(config_file), chosen)
    run_dir = run_dir or _new_run_directory(config.loader.data)
    started = time.monotonic()
    with output.stdout_for_people(), ProgressBars() as progress:

        def describe(datasets: "ImageDatasets") -> None:
            progress.stop()
            _describe(output, datasets)

        run = train_model(
            config,
            run_directory=run_dir,
            # Keras's progress bar redraws its line; elsewhere one line per epoch.
            verbose=1 if output.is_terminal else 2,
            progress=progress,
            on_loaded=describe,
            tensorboard=not no_tensorboard,
        )
    seconds = time.monotonic() - started
    _show(output, run, run_dir, seconds)
    output.result(_as_json(run, run_dir, seconds))
    return EXIT_INTERRUPTED if run.interrupted else EXIT_DONE


def _option_names(command: click.Command, parameters: Collection[str]) -> str:
    return ", ".join(
        option.opts[0] for option in command.params if option.name in parameters
    )


def _check_splits(options: dict[str, Any]) -> None:
    if "split_manifest" in options:
        if "validation_split" in options or "test_split" in options:
            raise click.UsageError(
                "--split-manifest takes the place of --validation-split and "
                "--test-split."
            )
        return
    validation = options.get("validation_split", 0.2)
    test = options.get("test_split", 0.0)
    if validation + test >= 1:
        raise click.UsageError(
            f"--validation-split and --test-split must leave photos to train on. "
            f"Received: {validation} and {test}."
        )
    if options.get("early_stopping") and validation == 0:
        raise click.UsageError("--early-stopping needs a --validation-split above 0.")


def _config(data: str | None, options: dict[str, Any]) -> "TrainingConfig":
    from keras_flowers.dataset_loader import ImageDatasetLoader
    from keras_flowers.training import TrainingConfig

    def take(*names: str) -> dict[str, Any]:
        return {name: options.pop(name) for name in names if name in options}

    fit = take("epochs", "early_stopping", "class_weights")
    defaults: dict[str, Any] = {
        "hidden_units": (256, 128),
        "dropout": 0.0,
        "optimizer": "adam",
        "learning_rate": None,
        "mixed_precision": False,
    }
    augmentation = not options.pop("no_augmentation", False)
    model = defaults | take(*defaults)
    apart = options.pop("split_near_duplicates", False)
    loader = ImageDatasetLoader(
        data or "", keep_near_duplicates_together=not apart, **options
    )
    build = ModelOptions(**model, augmentation=augmentation, seed=loader.seed).build
    return TrainingConfig(loader, build, **fit)


def _with_loader_options(
    config: "TrainingConfig", options: dict[str, Any]
) -> "TrainingConfig":
    loader = config.loader
    changed = type(loader).from_config({**loader.get_config(), **options})
    return dataclasses.replace(config, loader=changed)


def _new_run_directory(data: str) -> Path:
    name = Path(data.rstrip("/")).name.split(".")[0] or "run"
    moment = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{name}-{moment}"


def _describe(output: Output, datasets: "ImageDatasets") -> None:
    """Prints the data and the device."""
    splits = [split for split in SPLITS if datasets.paths(split)]
    rows = TextTable("class", *splits)
    counts = {split: datasets.counts(split) for split in splits}
    for name in datasets.class_names:
        rows.add_row(name, *(str(counts[split][name]) for split in splits))
    rows.add_row("all", *(str(sum(counts[s].values())) for s in splits), style="bold")
    output.say(str(datasets.catalog.root))
    output.show(rows)
    show_findings(output, datasets.catalog.findings)
    left_aside = len(datasets.split.not_in_manifest)
    if left_aside:
        output.say(f"{left_aside} photos of the folder are not in the split manifest")
    if datasets.reason_not_stored:
        output.say(datasets.reason_not_stored)
    _describe_device(output)


def _describe_device(output: Output) -> None:
    from keras_flowers_cli.devices import description, gpus

    output.say(f"Training on: {description()}")
    if not gpus():
        output.say(
            "No GPU is in use, so an epoch takes longer. Fewer --epochs, a smaller "
            "--image-size, narrower --hidden-units or --early-stopping shorten the "
            "run; keras-flowers doctor says what a GPU lacks."
        )


def _show(output: Output, run: "TrainingRun", directory: Path, seconds: float) -> None:
    if run.interrupted:
        output.say("Interrupted: what was trained so far is saved.")
    shown = ("loss", "accuracy", "val_loss", "val_accuracy")
    columns = [name for name in shown if name in run.history]
    if columns:
        rows = TextTable("epoch", *columns, "seconds")
        for index, epoch in enumerate(run.history["epoch"]):
            values = (f"{run.history[name][index]:.4f}" for name in columns)
            rows.add_row(
                str(int(epoch)), *values, f"{run.history['seconds'][index]:.1f}"
            )
        output.show(rows)
    if run.history.get("val_accuracy"):
        best = max(run.history["val_accuracy"])
        output.say(
            f"Validation accuracy {run.history['val_accuracy'][-1]:.3f} "
            f"(best {best:.3f}), {seconds:.0f} s in all"
        )
    for path in sorted(directory.iterdir()):
        output.say(f"  {path}")
    output.say(f"Next: keras-flowers predict {directory}/model.keras PHOTO")


def _as_json(run: "TrainingRun", directory: Path, seconds: float) -> dict[str, Any]:
    datasets = run.datasets
    return {
        "run_directory": str(directory),
        "model": str(directory / "model.keras"),
        "interrupted": run.interrupted,
        "seconds": seconds,
        "counts": {split: datasets.counts(split) for split in SPLITS},
        "left_out": [dataclasses.asdict(f) for f in datasets.catalog.left_out],
        "history": run.history,
    }
