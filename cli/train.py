"""`keras-flowers train`: from a folder of images to a saved classifier."""

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.backbones import with_backbone
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
    backbone_options,
    check_backbone_options,
    given,
    json_option,
    loader_options,
    new_run_directory,
)
from keras_flowers_cli.output import Output, ProgressBars, TextTable

if TYPE_CHECKING:
    import keras

    from keras_flowers.data.dataset_loader import ImageDatasets
    from keras_flowers.models.backbone import Backbone
    from keras_flowers.training.config import FineTuning, TrainingConfig
    from keras_flowers.training.train import TrainingRun

SCHEDULES = ("constant", "cosine")
OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "nadam", "adamax", "lion")
# Where things are kept is no part of what a run computes.
BESIDE_CONFIG = (
    "cache_directory",
    "disk_budget",
    "max_extracted_size",
    "max_extracted_files",
)
_FINE_TUNING = ("fine_tune_epochs", "fine_tune_learning_rate", "unfreeze_from")
_EPOCHS_FROM_SCRATCH = 35
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """What the command line says of the model."""

    backbone: "Backbone | None"
    hidden_units: tuple[int, ...]
    dropout: float | None
    augmentation: bool | None
    optimizer: str
    learning_rate: float | None
    schedule: str
    epochs: int
    policy: str | None
    xla: bool | None
    seed: int

    def build(self, datasets: "ImageDatasets") -> "keras.Model":
        """Returns the compiled model for the loaded data."""
        from keras_flowers.models.image_classifier import ImageClassifier

        model = ImageClassifier(
            datasets.class_names,
            image_size=datasets.image_size,
            hidden_units=self.hidden_units,
            dropout=self.dropout,
            augmentation=self.augmentation,
            seed=self.seed,
            backbone=self.backbone,
            dtype=self.policy,
        )
        model.compile(
            self._optimizer(datasets),
            jit_compile="auto" if self.xla is None else self.xla,
        )
        return model

    def _optimizer(self, datasets: "ImageDatasets") -> "keras.optimizers.Optimizer":
        import keras

        from keras_flowers.training.schedules import warm_up_and_cosine
        from keras_flowers.training.stages import steps_per_epoch

        settings = given({"learning_rate": self.learning_rate})
        optimizer = keras.optimizers.get(
            {"class_name": self.optimizer, "config": settings}
        )
        if self.schedule == "cosine":
            peak = float(optimizer.learning_rate)
            steps = self.epochs * steps_per_epoch(datasets)
            settings["learning_rate"] = warm_up_and_cosine(peak, steps)
            optimizer = type(optimizer)(**settings)
        return optimizer


@click.command(cls=Command)
@click.argument("data", required=False)
@click.option(
    "--config",
    "config_file",
    type=EXISTING_FILE,
    help="Repeat the run of this config.json; takes the place of DATA and of all "
    "options that change the outcome.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1, 1_000_000),
    help=f"[default: 15; {_EPOCHS_FROM_SCRATCH} with a backbone without weights]",
)
@click.option("--batch-size", type=BATCH_SIZE, help="[default: 32]")
@click.option(
    "--image-size",
    type=ImageSize(),
    help="Pixels, or HEIGHTxWIDTH.  [default: 256; that of a backbone]",
)
@click.option(
    "--hidden-units",
    type=HiddenUnits(),
    help="Widths of the hidden layers, or none.  [default: 256,128; none with a "
    "backbone without weights]",
)
@click.option(
    "--dropout",
    type=FRACTION,
    help="Rate after each hidden layer.  [default: 0; 0.3 with a pretrained backbone]",
)
@backbone_options
@click.option(
    "--optimizer", type=click.Choice(OPTIMIZERS), help="[default: adam]", metavar="NAME"
)
@click.option(
    "--learning-rate",
    type=Number(0, 100, min_open=True),
    help="[default: that of the optimizer]",
)
@click.option(
    "--schedule",
    type=click.Choice(SCHEDULES),
    help="The learning rate stays, or rises shortly and falls to zero along a cosine.  "
    "[default: constant; cosine with a backbone]",
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
    "--augmentation/--no-augmentation",
    default=None,
    help="Change the photos at random in training.  [default: yes; no with a "
    "pretrained backbone, whose features are then computed once]",
)
@click.option(
    "--fine-tune-epochs",
    type=click.IntRange(1, 1_000_000),
    metavar="N",
    help="Then train for N epochs more, the pretrained backbone as well.",
)
@click.option(
    "--fine-tune-learning-rate",
    type=Number(0, 100, min_open=True),
    help="Highest learning rate of these epochs.  [default: 0.0001]",
)
@click.option(
    "--unfreeze-from",
    metavar="LAYER",
    help="First layer of the backbone that they train.  [default: all]",
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
@click.option(
    "--xla/--no-xla",
    default=None,
    help="Compile the training step with XLA.  [default: where it pays]",
)
@click.option("--mixed-precision", is_flag=True, help="Compute in 16 bits: for GPUs.")
@click.option(
    "--run-dir",
    type=UserPath(path_type=Path),
    help="New folder for the results.  [default: runs/NAME-TIME]",
)
@click.option(
    "--resume",
    type=UserPath(path_type=Path),
    metavar="RUN",
    help="Go on with the run in the folder RUN after its last complete epoch. DATA and "
    "options may be left out; else they must be those of the run, which is started "
    "where there is none yet.",
)
@click.option(
    "--checkpoint-every",
    type=click.IntRange(0, 1_000_000),
    metavar="N",
    default=1,
    show_default=True,
    help="Epochs between two checkpoints for --resume; 0 for none.",
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
    resume: Path | None,
    checkpoint_every: int,
    no_tensorboard: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Train a classifier on the images in DATA and save it with its history."""
    chosen = {
        name: value
        for name, value in given(options).items()
        if value is not False or name in ("augmentation", "xla")
    }
    if resume is not None:
        if run_dir is not None:
            raise click.UsageError("--resume takes the place of --run-dir.")
        if data is None and config_file is None:
            config_file = _config_of_run(resume)
    if (data is None) == (config_file is None):
        raise click.UsageError("Give either DATA or --config.")
    replaced = {k: v for k, v in chosen.items() if k not in BESIDE_CONFIG}
    if config_file is not None and replaced:
        names = _option_names(context.command, replaced)
        taker = "--config" if resume is None else "--resume without DATA"
        raise click.UsageError(f"{taker} takes the place of {names}.")
    _check_splits(chosen)
    check_backbone_options(chosen)
    _check_fine_tuning(chosen)
    runtime.start_keras()
    from keras_flowers.training.config import TrainingConfig
    from keras_flowers.training.train import train as train_model

    output = Output(as_json)
    if config_file is None:
        config = _config(data, chosen)
    else:
        config = _with_loader_options(TrainingConfig.read(config_file), chosen)
    run_dir = resume or run_dir or new_run_directory(config.loader.data)
    if resume is not None:
        _warn_of_other_versions(output, resume)
    started = time.monotonic()
    with output.stdout_for_people(), ProgressBars() as progress:

        def describe(datasets: "ImageDatasets") -> None:
            progress.stop()
            _describe(output, datasets)

        def report(stage: str, done: int, total: int | None) -> None:
            if stage == "features" and not done:
                output.say(f"The features of {total} photos are computed once.")
            progress(stage, done, total)

        run = train_model(
            config,
            run_directory=run_dir,
            resume=resume is not None,
            checkpoint_every=checkpoint_every or None,
            # Keras's progress bar redraws its line; elsewhere one line per epoch.
            verbose=1 if output.is_terminal else 2,
            progress=report,
            on_loaded=describe,
            tensorboard=not no_tensorboard,
        )
    seconds = time.monotonic() - started
    _show(output, run, run_dir, seconds)
    output.result(_as_json(run, run_dir, seconds))
    return EXIT_INTERRUPTED if run.interrupted else EXIT_DONE


def _option_names(command: click.Command, chosen: dict[str, Any]) -> str:
    """Returns the names of options as they were given."""
    return ", ".join(
        (option.secondary_opts if chosen[option.name] is False else option.opts)[0]
        for option in command.params
        if option.name in chosen
    )


def _config_of_run(directory: Path) -> Path:
    path = directory / "config.json"
    # An empty one is of a process that died before it had written what to train.
    if not path.is_file() or not path.stat().st_size:
        raise click.UsageError(f"--resume: there is no run in {directory}.")
    return path


def _warn_of_other_versions(output: Output, directory: Path) -> None:
    """Says which packages have other versions than when the run was started."""
    from keras_flowers.training.config import versions

    try:
        then = dict(json.loads((directory / "config.json").read_text())["versions"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # no run yet, or a file that `train` will complain of
    changed = [
        f"{name} {then.get(name)} is now {version}"
        for name, version in versions().items()
        if then.get(name) != version
    ]
    if changed:
        output.say(
            "The rest of the run may differ in the last bits from one that was never "
            f"interrupted: {', '.join(changed)}."
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


def _check_fine_tuning(options: dict[str, Any]) -> None:
    if "fine_tune_epochs" in options:
        if "backbone" not in options:
            raise click.UsageError("--fine-tune-epochs needs a --backbone.")
        return
    for name in _FINE_TUNING:
        if name in options:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} needs --fine-tune-epochs.")


def _config(data: str | None, options: dict[str, Any]) -> "TrainingConfig":
    from keras_flowers_cli.devices import mixed_precision_policy

    from keras_flowers.data.dataset_loader import ImageDatasetLoader
    from keras_flowers.training.config import TrainingConfig

    def take(*names: str) -> dict[str, Any]:
        return {name: options.pop(name) for name in names if name in options}

    fit = take("epochs", "early_stopping", "class_weights")
    fine_tuning = _fine_tuning(take(*_FINE_TUNING))
    policy = mixed_precision_policy() if options.pop("mixed_precision", False) else None
    backbone_options = take("backbone", "weights")
    defaults: dict[str, Any] = {
        "hidden_units": (256, 128),
        "dropout": None,
        "augmentation": None,
        "optimizer": "adam",
        "learning_rate": None,
        "xla": None,
        "schedule": "cosine" if backbone_options else "constant",
    }
    hidden_units = {k: v for k, v in options.items() if k == "hidden_units"}
    model = defaults | take(*defaults)
    apart = options.pop("split_near_duplicates", False)
    loader = ImageDatasetLoader(
        data or "", keep_near_duplicates_together=not apart, **options
    )
    loader, backbone = with_backbone(loader, backbone_options, options, policy)
    if backbone is not None and not backbone.is_pretrained:
        if fine_tuning is not None:
            raise click.UsageError(
                "--fine-tune-epochs needs a backbone with pretrained weights."
            )
        # What is learned from scratch takes longer; its features need no more layers.
        fit = {"epochs": _EPOCHS_FROM_SCRATCH} | fit
        model = model | {"hidden_units": ()} | hidden_units
    build = ModelOptions(
        **model,
        backbone=backbone,
        epochs=fit.get("epochs", TrainingConfig.epochs),
        policy=policy,
        seed=loader.seed,
    ).build
    return TrainingConfig(loader, build, fine_tuning=fine_tuning, **fit)


def _fine_tuning(options: dict[str, Any]) -> "FineTuning | None":
    from keras_flowers.training.config import FineTuning

    if not options:
        return None
    names = {"fine_tune_epochs": "epochs", "fine_tune_learning_rate": "learning_rate"}
    return FineTuning(**{names.get(k, k): v for k, v in options.items()})


def _with_loader_options(
    config: "TrainingConfig", options: dict[str, Any]
) -> "TrainingConfig":
    loader = config.loader
    changed = type(loader).from_config({**loader.get_config(), **options})
    return dataclasses.replace(config, loader=changed)


def _describe(output: Output, datasets: "ImageDatasets") -> None:
    """Prints the data and the device."""
    splits = [split for split in SPLITS if datasets.paths(split)]
    rows = TextTable("class", *splits)
    counts = {split: datasets.counts(split) for split in splits}
    for name in datasets.class_names:
        rows.add_row(name, *(str(counts[split][name]) for split in splits))
    rows.add_row("all", *(str(sum(counts[s].values())) for s in splits), style="bold")
    output.say(str(datasets.audit.root))
    output.show(rows)
    show_findings(output, datasets.audit.findings)
    left_aside = len(datasets.split.not_in_manifest)
    if left_aside:
        output.say(f"{left_aside} photos of the folder are not in the split manifest")
    if datasets.reason_not_cached:
        output.say(datasets.reason_not_cached)
    _describe_device(output)


def _describe_device(output: Output) -> None:
    from keras_flowers_cli.devices import description, gpus

    output.say(f"Training on: {description()}")
    if not gpus():
        output.say(
            "No GPU is in use, so an epoch on photos takes longer. Fewer --epochs, a "
            "smaller --image-size, narrower --hidden-units or --early-stopping shorten "
            "the run; keras-flowers doctor says what a GPU lacks."
        )


def _show(output: Output, run: "TrainingRun", directory: Path, seconds: float) -> None:
    if run.interrupted:
        how = "goes on" if any(directory.glob("checkpoint/*")) else "begins anew"
        output.say(
            "Interrupted: what was trained so far is saved. "
            f"keras-flowers train --resume {directory} {how}."
        )
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
        "left_out": [dataclasses.asdict(f) for f in datasets.audit.left_out],
        "history": run.history,
    }
