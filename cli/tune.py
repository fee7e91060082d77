"""`keras-flowers tune`: searches for a better model."""

import logging
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.backbones import with_backbone
from keras_flowers_cli.errors import EXIT_BAD_INPUT, EXIT_DEFECT, EXIT_DONE
from keras_flowers_cli.errors import EXIT_INTERRUPTED as INTERRUPTED
from keras_flowers_cli.options import (
    FRACTION,
    Command,
    ImageSize,
    UserPath,
    backbone_options,
    check_backbone_options,
    given,
    json_option,
    loader_options,
    new_run_directory,
)
from keras_flowers_cli.output import Output, ProgressBars
from keras_flowers_cli.search_view import SearchView

if TYPE_CHECKING:
    from keras_flowers.tuning import ImageClassifierHyperModel, SearchResult

STRATEGIES = ("random", "bayesian", "hyperband", "grid")
_SPACE = (
    "layers",
    "units",
    "dropout",
    "learning_rate",
    "batch_size",
    "score",
    "augmentation",
)
_SEARCH = (
    "strategy",
    "trials",
    "objective",
    "executions_per_trial",
    "seed",
    "resume",
    "retrain",
)


class Range(click.ParamType):  # type: ignore[type-arg]
    """`LOW:HIGH`, `LOW:HIGH:STEP` or one number, as a tuple or a number."""

    name = "range"

    def __init__(self, number: type, separator: str = ":") -> None:
        self._number = number
        self._separator = separator

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """Returns the number, or the tuple of them."""
        if not isinstance(value, str):
            return value
        try:
            parts = tuple(self._number(part) for part in value.split(self._separator))
        except ValueError:
            form = self._separator.join(("LOW", "HIGH"))
            self.fail(f"{value!r} is neither a number nor {form}.", param, ctx)
        return parts[0] if len(parts) == 1 else parts


@click.command(cls=Command)
@click.argument("data")
@click.option(
    "--strategy",
    type=click.Choice(STRATEGIES),
    help="Who chooses the next trial.  [default: random]",
)
@click.option(
    "--trials",
    type=click.IntRange(1, 1_000_000),
    help="How many at most.  [default: 20]",
)
@click.option(
    "--max-epochs",
    type=click.IntRange(1, 1_000_000),
    help="Epochs are searched from a third of it up.  [default: 15]",
)
@click.option(
    "--layers",
    type=Range(int),
    metavar="LOW:HIGH[:STEP]",
    help="Number of hidden layers.  [default: 1:3]",
)
@click.option(
    "--units",
    type=Range(int),
    metavar="LOW:HIGH[:STEP]",
    help="Width of each hidden layer.  [default: 64:512:64]",
)
@click.option(
    "--dropout",
    type=Range(float),
    metavar="LOW:HIGH[:STEP]",
    help="Rate after each hidden layer.  [default: 0; 0.3 with a pretrained backbone]",
)
@click.option(
    "--learning-rate",
    type=Range(float),
    metavar="LOW:HIGH",
    help="Of Adam, by order of magnitude; with a backbone the highest of a trial.  "
    "[default: that of Adam]",
)
@click.option(
    "--batch-size",
    type=Range(int, ","),
    metavar="N[,N...]",
    help="Photos in a training step, to choose from.  [default: 32]",
)
@click.option(
    "--executions",
    "executions_per_trial",
    type=click.IntRange(1, 1000),
    help="Trainings per trial; its score is their mean.  [default: 1]",
)
@click.option(
    "--objective",
    metavar="NAME",
    help="val_accuracy or val_loss.  [default: val_accuracy]",
)
@click.option(
    "--score",
    type=click.Choice(("last", "best")),
    help="The epoch by which a trial is judged and saved.  [default: last]",
)
@click.option(
    "--workers",
    type=click.IntRange(0, 1000),
    default=1,
    show_default=True,
    metavar="K",
    help="Start a chief and K processes that train; with 0, trials run in the process "
    "of the command.",
)
@click.option(
    "--image-size",
    type=ImageSize(),
    help="Pixels, or HEIGHTxWIDTH.  [default: 256; that of a backbone]",
)
@click.option("--validation-split", type=FRACTION, help="[default: 0.2]")
@click.option("--test-split", type=FRACTION, help="[default: 0]")
@click.option(
    "--augmentation/--no-augmentation",
    default=None,
    help="Change the photos at random in training.  [default: yes; no with a "
    "pretrained backbone, whose features are then computed once for all trials]",
)
@backbone_options
@click.option("--seed", type=click.IntRange(0, 2**31 - 2), help="[default: 42]")
@click.option(
    "--retrain",
    is_flag=True,
    help="At the end, train the best on training and validation photos together.",
)
@click.option(
    "--run-dir",
    type=UserPath(path_type=Path),
    help="New folder for the results.  [default: runs/NAME-search-TIME]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the search in --run-dir, if there is one.",
)
@loader_options
@json_option
def tune(
    data: str,
    run_dir: Path | None,
    workers: int,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Search for the hidden layers and the epochs that suit the images in DATA.

    With a pretrained --backbone its features are computed once, and trials train the
    layers behind it in seconds.

    With KERASTUNER_TUNER_ID, KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT set, the
    command takes part in a search over several machines.
    """
    if run_dir is None and (resume or _is_chief_elsewhere()):
        option = "--resume" if resume else "KERASTUNER_ORACLE_IP"
        raise click.UsageError(f"{option} needs the --run-dir of the search.")
    chosen = {
        name: value
        for name, value in given(options).items()
        if value is not False or name == "augmentation"
    }
    check_backbone_options(chosen)
    runtime.start_keras()
    # It warns of each new model that it traces.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    from keras_flowers.tuning import SearchError, search

    output = Output(as_json)
    search_options = {name: chosen.pop(name) for name in _SEARCH if name in chosen}
    started = time.monotonic()
    hypermodel = _hypermodel(data, chosen)
    directory = run_dir or new_run_directory(data, "-search")
    with ProgressBars() as progress:
        hypermodel.load(progress)
    objective = search_options.get("objective", "val_accuracy")
    view = SearchView(output, objective, -1 if "loss" in objective else 1)
    try:
        with view:
            result = search(
                hypermodel,
                directory,
                workers=None if _is_chief_elsewhere() else workers or None,
                resume=resume,
                progress=view,
                **search_options,
            )
    except SearchError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_DEFECT
    seconds = time.monotonic() - started
    _show(output, view, result, seconds)
    output.result(_as_json(result, seconds))
    if result.interrupted:
        return INTERRUPTED
    return _outcome(result)


def _hypermodel(data: str, options: dict[str, Any]) -> "ImageClassifierHyperModel":
    from keras_flowers.tuning import ImageClassifierHyperModel

    from keras_flowers.data.dataset_loader import ImageDatasetLoader

    space = {name: options.pop(name) for name in _SPACE if name in options}
    asked: dict[str, Any] = {
        name: options.pop(name) for name in ("backbone", "weights") if name in options
    }
    highest = options.pop("max_epochs", 15)
    loader, backbone = with_backbone(
        ImageDatasetLoader(data, **options), asked, options
    )
    return ImageClassifierHyperModel(
        loader,
        epochs=(max(1, highest // 3), highest),
        backbone=backbone,
        **space,
    )


def _is_chief_elsewhere() -> bool:
    return "KERASTUNER_ORACLE_IP" in os.environ


def _outcome(result: "SearchResult") -> int:
    if result.best is not None:
        return EXIT_DONE
    errors = [trial.error for trial in result.trials if trial.error]
    first = f" The first: {errors[0]}" if errors else ""
    click.echo(f"error: no trial was completed.{first}", err=True)
    return EXIT_BAD_INPUT


def _show(
    output: Output, view: SearchView, result: "SearchResult", seconds: float
) -> None:
    if result.interrupted:
        output.say("Interrupted: --resume goes on with it.")
    output.show(view.table(result.trials))
    failed = sum(trial.status == "failed" for trial in result.trials)
    output.say(f"{len(result.trials)} trials, {failed} failed, {seconds:.0f} s in all")
    for path in sorted(result.directory.iterdir()):
        if not path.name.startswith("."):
            output.say(f"  {path}")
    if result.best is not None:
        output.say(f"Next: keras-flowers predict {result.directory}/model.keras PHOTO")


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
