"""`keras-flowers train`: from a folder of images to a saved classifier."""

import contextlib
import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.errors import EXIT_DONE, EXIT_INTERRUPTED
from keras_flowers_cli.options import (
    given_options,
    new_run_directory,
    setting_options,
)
from keras_flowers_cli.output import Output, ProgressBars
from keras_flowers_cli.resumption import resume_config
from keras_flowers_cli.train_config import build_config, check_options, read_config
from keras_flowers_cli.train_view import (
    read_earlier_epochs,
    run_as_json,
    show_datasets,
    show_how_to_train_further,
    show_other_versions,
    show_run,
    show_warnings,
)
from keras_flowers_settings.files import STORAGE

if TYPE_CHECKING:
    import keras

    from keras_flowers.data.dataset_loader import ImageDatasets
    from keras_flowers.training.trackers import Tracker


@click.command()
@click.argument("data", required=False)
@setting_options("train")
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
    tta: int,
    folds: int | None,
    mlflow: str | None,
    wandb: str | None,
    save_optimizer: bool,
    discard_checkpoint: bool,
    as_json: bool,
    devices: int | str | None,
    join_timeout: int,
    **options: Any,
) -> int:
    """Train a classifier on the images in DATA and save it with its history."""
    given = given_options(options)
    if resume is not None and run_dir is not None:
        raise click.UsageError("--resume replaces --run-dir.")
    is_resumed = config_file is None and resume is not None and _is_started(resume)
    if not is_resumed:
        if resume is not None and data is None and config_file is None:
            raise click.UsageError(f"--resume: there is no run in {resume}.")
        _check_source(context.command, data, config_file, given)
        check_options(given)
        has_network = config_file is not None or {"backbone", "init_from"} & set(given)
        if folds is not None and not has_network:
            raise click.UsageError("--folds needs a --backbone.")
    for package, value in (("mlflow", mlflow), ("wandb", wandb)):
        if value is not None and importlib.util.find_spec(package) is None:
            raise click.ClickException(
                f"--{package} needs the package {package}, which is not installed: "
                f'pip install "keras-flowers[{package}]"'
            )
    runtime.start_keras()
    from keras_flowers_cli.epoch_lines import EpochLines

    from keras_flowers.training.learning_rate import find_learning_rate
    from keras_flowers.training.processes import join_processes
    from keras_flowers.training.train import train as train_model

    # Before anything is computed: JAX must know of the other processes.
    team = join_processes(join_timeout)
    is_first = team is None or team.is_first
    if team is not None:
        runtime.keep_libraries_off_stdout()
    output, progress = Output(as_json), ProgressBars()
    if team is not None and not is_first:
        output.say(
            f"Process {team.number} of {team.count}: process 0 shows the training and "
            "writes the run directory."
        )
        output = Output(as_json, is_silent=True)

    def show_progress(stage: str, done: int, total: int | None) -> None:
        if stage == "features" and not done:
            output.say(f"The features of {total} images are computed once.")
        progress(stage, done, total)

    def find_rate(model: "keras.Model", datasets: "ImageDatasets") -> float:
        found = find_learning_rate(model, datasets, progress=show_progress)
        output.say(f"Learning rate {found.suggestion:g}: found by a range test")
        return found.suggestion

    if is_resumed and resume is not None:
        config = resume_config(resume, data, given)
    elif config_file is not None:
        config = read_config(config_file, given)
    else:
        config = build_config(data or "", given, find_rate)
    run_dir = resume or run_dir or new_run_directory(config.loader.data)
    trackers = _create_trackers(run_dir, mlflow, wandb)
    if resume is not None:
        show_other_versions(output, resume)
    started = time.monotonic()
    with (
        output.stdout_for_people(),
        progress,
        EpochLines(output, read_earlier_epochs(resume)) as lines,
        show_warnings(output),
        contextlib.ExitStack() as stack,
    ):

        def show_data(datasets: "ImageDatasets") -> None:
            progress.stop()
            show_datasets(output, datasets)

        run = train_model(
            config,
            run_directory=run_dir,
            resume=resume is not None,
            checkpoint_every=checkpoint_every or None,
            callbacks=[lines, *map(stack.enter_context, trackers)],
            verbose=0,
            progress=show_progress,
            on_loaded=show_data,
            on_transferred=output.say,
            tensorboard=not no_tensorboard,
            devices=devices,
            join_timeout=join_timeout,
            tta=tta,
            folds=folds,
            save_optimizer=save_optimizer,
            discard_checkpoint=discard_checkpoint,
        )
    seconds = time.monotonic() - started
    if not is_first:
        return EXIT_DONE
    lines.show(run.history)
    show_run(output, run, run_dir, seconds)
    show_how_to_train_further(output, config, run_dir)
    output.result(run_as_json(run, run_dir, seconds))
    return EXIT_INTERRUPTED if run.interrupted else EXIT_DONE


def _create_trackers(
    run_dir: Path, mlflow: str | None, wandb: str | None
) -> list["Tracker"]:
    """Returns the trackers that were asked for; an empty text means the default."""
    from keras_flowers.training.trackers import MlflowTracker, WandbTracker

    trackers: list[Tracker] = []
    if mlflow is not None:
        trackers.append(MlflowTracker(run_dir, mlflow or None))
    if wandb is not None:
        trackers.append(WandbTracker(run_dir, *filter(None, [wandb])))
    return trackers


def _is_started(run: Path) -> bool:
    # An empty one is of a process that died before it had written what to train.
    config = run / "config.json"
    return config.is_file() and config.stat().st_size > 0


def _check_source(
    command: click.Command,
    data: str | None,
    config_file: Path | None,
    given: dict[str, Any],
) -> None:
    """Makes sure that a new run is described once."""
    if (data is None) == (config_file is None):
        raise click.UsageError("Give either DATA or --config.")
    allowed = {setting.name for setting in STORAGE}
    replaced = {name: value for name, value in given.items() if name not in allowed}
    if config_file is not None and replaced:
        names = _option_names(command, replaced)
        raise click.UsageError(f"--config replaces {names}.")


def _option_names(command: click.Command, given: dict[str, Any]) -> str:
    """Returns the names of options as they were given."""
    names = {option.name: option.opts[0] for option in command.params if option.name}
    return ", ".join(
        f"--no-{flag.removeprefix('--')}" if given[name] is False else flag
        for name, flag in names.items()
        if name in given
    )
