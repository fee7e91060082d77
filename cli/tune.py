"""`keras-flowers tune`: searches for a better model."""

import os
import shlex
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.backbones import resolve_backbone
from keras_flowers_cli.errors import (
    EXIT_BAD_INPUT,
    EXIT_DEFECT,
    EXIT_DONE,
    EXIT_INTERRUPTED,
)
from keras_flowers_cli.options import (
    arguments_for,
    check_backbone_options,
    check_writable,
    given_options,
    new_run_directory,
    setting_options,
)
from keras_flowers_cli.output import Output, ProgressBars, echo_error
from keras_flowers_cli.search_view import SearchView
from keras_flowers_cli.train_view import show_datasets

if TYPE_CHECKING:
    from keras_flowers.tuning import ImageClassifierHyperModel, SearchResult


@click.command()
@click.argument("data")
@setting_options("tune")
def tune(
    data: str,
    run_dir: Path | None,
    max_epochs: int,
    objective: str | None,
    workers: int | str,
    trials: int,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Search for the hidden layers and the epochs that suit the images in DATA.

    With a pretrained --backbone, features are computed once and each trial trains the
    layers on top in seconds.

    With KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT set, the
    command takes part in a search over several machines.
    """
    if run_dir is None and (resume or _is_chief_elsewhere()):
        option = "--resume" if resume else "KERASTUNER_ORACLE_IP"
        raise click.UsageError(f"{option} needs the --run-dir of the search.")
    given = given_options({**options, "trials": trials, "workers": workers})
    if _is_chief_elsewhere() and given.get("workers"):
        raise click.UsageError(
            "--workers starts its own chief, and KERASTUNER_ORACLE_IP names another "
            "one. Leave one of them out."
        )
    check_backbone_options(given)
    runtime.share_gpu_memory()
    runtime.start_keras()
    from keras_flowers.tuning import SearchError, search
    from keras_flowers.tuning.worker_choice import choose_workers

    output = Output(as_json)
    started = time.monotonic()
    hypermodel = _build_hypermodel(data, max_epochs, given)
    objective = objective or hypermodel.default_objective
    directory = run_dir or new_run_directory(data, "-search")
    check_writable(directory, "--run-dir")
    with ProgressBars() as progress:
        datasets = hypermodel.load(progress)
    show_datasets(output, datasets)
    if _is_chief_elsewhere():
        workers = 0
    elif workers == "auto":
        choice = choose_workers(hypermodel, trials)
        output.say(str(choice))
        workers = choice.count
    _warn_of_chance(output, workers, **options)
    view = SearchView(output, objective, -1 if "loss" in objective else 1)
    try:
        with view:
            result = search(
                hypermodel,
                directory,
                workers=workers or None,
                objective=objective,
                resume=resume,
                progress=view,
                **arguments_for("search", "tune", given),
            )
    except SearchError as error:
        echo_error(f"error: {error}")
        return EXIT_DEFECT
    seconds = time.monotonic() - started
    _show(output, view, result, seconds)
    output.result({**_as_json(result, seconds), "workers": workers})
    if result.interrupted:
        return EXIT_INTERRUPTED
    return _exit_code(result)


def _build_hypermodel(
    data: str, max_epochs: int, given: dict[str, Any]
) -> "ImageClassifierHyperModel":
    from keras_flowers.tuning import ImageClassifierHyperModel

    from keras_flowers.data.dataset_loader import ImageDatasetLoader

    loader = ImageDatasetLoader(
        data, **arguments_for("ImageDatasetLoader", "tune", given)
    )
    loader, backbone = resolve_backbone(loader, given)
    arguments = arguments_for("ImageClassifierHyperModel", "tune", given)
    return ImageClassifierHyperModel(
        loader,
        epochs=(max(1, max_epochs // 3), max_epochs),
        **arguments | {"backbone": backbone},
    )


def _warn_of_chance(
    output: Output, workers: int | str, strategy: str, pruning: str, **_: Any
) -> None:
    """Says so where the timing of workers decides which trials there are."""
    follows = strategy in ("bayesian", "hyperband") or pruning != "none"
    if follows and (int(workers) > 1 or _is_chief_elsewhere()):
        output.say(
            "Several workers: what is tried or pruned next depends on which trials are "
            "finished, so a resumed search may differ from an uninterrupted one."
        )


def _is_chief_elsewhere() -> bool:
    return "KERASTUNER_ORACLE_IP" in os.environ


def _exit_code(result: "SearchResult") -> int:
    if result.best is not None:
        return EXIT_DONE
    errors = [trial.error for trial in result.trials if trial.error]
    first = f" The first: {errors[0]}" if errors else ""
    echo_error(f"error: no trial was completed.{first}")
    return EXIT_BAD_INPUT


def _show(
    output: Output, view: SearchView, result: "SearchResult", seconds: float
) -> None:
    if result.interrupted:
        if output.is_terminal:
            output.say()  # the terminal shows ^C on the current line
        output.say("Interrupted: --resume resumes the search.")
    output.show(view.table(result.trials))
    counts = Counter(trial.status for trial in result.trials)
    count = len(result.trials)
    pruned = f"{counts['pruned']} pruned, " if counts["pruned"] else ""
    output.say(
        f"{count} trial{'s' * (count != 1)}, {pruned}{counts['failed']} failed, "
        f"{seconds:.0f} s in all"
    )
    collapsed = sum(trial.has_collapsed for trial in result.trials)
    if collapsed:
        output.say(
            f"{collapsed} trial{'s' * (collapsed > 1)} collapsed: every image gets the "
            "same answer. A lower --learning-rate avoids it."
        )
    for path in sorted(result.directory.iterdir()):
        if not path.name.startswith("."):
            output.say(f"  {path}")
    if result.best is not None:
        output.say(f"model.keras has the weights of trial {result.best.id}")
        model = shlex.quote(str(result.directory / "model.keras"))
        output.say(f"Next: keras-flowers predict {model} PHOTO")


def _as_json(result: "SearchResult", seconds: float) -> dict[str, Any]:
    best = result.best
    return {
        "run_directory": str(result.directory),
        "model": None if best is None else str(result.directory / "model.keras"),
        "interrupted": result.interrupted,
        "seconds": seconds,
        "best": None if best is None else best.to_json(),
        "trials": [trial.to_json() for trial in result.trials],
    }
