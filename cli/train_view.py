"""Shows the data of a run and what has come of it."""

import contextlib
import json
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_flowers_cli.errors import name_options
from keras_flowers_cli.findings import show_findings
from keras_flowers_cli.output import Output, TextTable

if TYPE_CHECKING:
    from keras_flowers.data.dataset_loader import ImageDatasets
    from keras_flowers.evaluation.cross_validation import CrossValidation
    from keras_flowers.history import History
    from keras_flowers.training.config import TrainingConfig
    from keras_flowers.training.train import TrainingRun

SPLITS = ("train", "validation", "test")


def show_datasets(output: Output, datasets: "ImageDatasets") -> None:
    """Prints the data and the device."""
    from keras_flowers_cli.devices import describe_device

    splits = [split for split in SPLITS if datasets.paths(split)]
    rows = TextTable("class", *splits)
    counts = {split: datasets.counts(split) for split in splits}
    for name in datasets.class_names:
        rows.add_row(name, *(str(counts[split][name]) for split in splits))
    totals = (str(len(datasets.records(split))) for split in splits)
    rows.add_row("all", *totals, style="bold")
    output.say(str(datasets.audit.root))
    if datasets.audit.layout is not None:
        output.say(datasets.audit.layout.description)
    output.show(rows)
    show_findings(output, datasets.audit.findings)
    unnamed = len(datasets.split.not_in_manifest)
    if unnamed:
        output.say(f"{unnamed} images of the folder are not in the split manifest")
    if datasets.reason_not_cached:
        output.say(name_options(datasets.reason_not_cached, "train"))
    output.say(f"Training on: {describe_device()}")


def show_other_versions(output: Output, directory: Path) -> None:
    """Prints which packages have other versions than when the run was started."""
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
            "The rest of the run may differ in the last bits from an uninterrupted "
            f"one: {', '.join(changed)}."
        )


def read_earlier_epochs(directory: Path | None) -> "History":
    """Returns the history of a run that is to be resumed; empty if there is none."""
    from keras_flowers.errors import InputError
    from keras_flowers.history import read_history

    try:
        return {} if directory is None else read_history(directory)
    except InputError:
        return {}  # no epoch was complete, or a file that `train` will complain of


@contextlib.contextmanager
def show_warnings(output: Output) -> Iterator[None]:
    """Prints what the library warns of during a training as lines."""
    from keras_flowers.callbacks import CollapseWarning

    from keras_flowers.data.feature_cache import CacheWarning

    with warnings.catch_warnings():
        for category in (CollapseWarning, CacheWarning):
            warnings.simplefilter("always", category)
        show = warnings.showwarning

        def show_warning(
            message: Warning | str, category: type[Warning], *where: Any, **more: Any
        ) -> None:
            if issubclass(category, CollapseWarning | CacheWarning):
                output.say(name_options(str(message), "train"))
            else:
                show(message, category, *where, **more)

        warnings.showwarning = show_warning
        yield


def show_run(
    output: Output, run: "TrainingRun", directory: Path, seconds: float
) -> None:
    """Prints what the run achieved, the files and what comes next."""
    if run.interrupted:
        if output.is_terminal:
            output.say()  # the terminal shows ^C on the current line
        has_checkpoint = any(directory.glob("checkpoint/*"))
        how = "resumes it" if has_checkpoint else "starts it again"
        output.say("Interrupted: what was trained so far is saved.")
        output.say(f"keras-flowers train --resume {shlex.quote(str(directory))} {how}.")
    _show_best(output, run, seconds)
    if run.cross_validation is not None:
        _show_cross_validation(output, run.cross_validation)
    temperature = _temperature_of(run)
    if temperature != 1:
        output.say(
            f"The probabilities are calibrated with the temperature {temperature:.2f}."
        )
    for path in sorted(directory.iterdir()):
        output.say(f"  {path}")
    model = shlex.quote(str(directory / "model.keras"))
    if (found := run.precision_difference) is not None:
        output.say(
            f"{found.images} validation images with features in {found.precision}: "
            f"{found.score_name} {found.score:.4f}, in float32 "
            f"{found.float32_score:.4f}; "
            f"probabilities differ by at most {found.largest_difference:.2g}"
        )
    output.say(f"Next: keras-flowers predict {model} PHOTO")


def _show_cross_validation(output: Output, found: "CrossValidation") -> None:
    low, high = found.score_interval
    output.say(
        f"Cross-validation of a linear head, {len(found.scores)} folds, "
        f"{len(found.fold_of)} images: {found.score_name} {found.mean:.3f} "
        f"± {found.spread:.3f} (mean and standard deviation of the folds), "
        f"95 % interval {low:.3f} to {high:.3f}"
    )


def _show_best(output: Output, run: "TrainingRun", seconds: float) -> None:
    from keras_flowers_cli.epoch_lines import best_epoch

    from keras_flowers.history import SCORES, find_score

    history, saved = run.history, run.saved_epoch
    best = best_epoch(history)
    if best is None:
        return
    column = find_score(history)
    assert column is not None  # that of the best epoch
    name = "validation" if column.startswith("val_") else "training"
    score = SCORES[column.removeprefix("val_")]
    found = dict(zip(map(int, history["epoch"]), history[column], strict=True))
    if saved is None:
        saved_text = "model.keras has the last weights"
    elif saved == best:
        saved_text = "model.keras has it"
    else:
        losses = history.get("val_loss")
        if losses and losses[history["epoch"].index(saved)] == min(losses):
            why = "the lowest validation loss"
        elif saved == history["epoch"][-1]:
            why = "the last one"
        else:
            why = "the lowest validation loss of fine-tuning"
        saved_text = f"model.keras has epoch {saved} ({found[saved]:.3f}), {why}"
    output.say(f"Best {name} {score} {found[best]:.3f} in epoch {best}; {saved_text}")
    output.say(f"This command took {seconds:.0f} s")


def show_how_to_train_further(
    output: Output, config: "TrainingConfig", directory: Path
) -> None:
    """Prints how a finished run is trained further, and what that takes on the disk."""
    kept = directory / "last-checkpoint"
    size = sum(file.stat().st_size for file in kept.rglob("*.safetensors"))
    if not size:
        return
    epochs, option = config.epochs, "--epochs"
    if config.fine_tuning is not None:
        epochs, option = config.fine_tuning.epochs, "--fine-tune-epochs"
    run = shlex.quote(str(directory))
    output.say(
        f"More epochs: keras-flowers train --resume {run} {option} {2 * epochs}. Only "
        f"this needs last-checkpoint ({size / 1e6:.1f} MB); you can delete it."
    )


def _temperature_of(run: "TrainingRun") -> float:
    return float(getattr(run.model, "temperature", 1.0))


def _thresholds_of(run: "TrainingRun") -> dict[str, float] | None:
    """Returns the threshold of each label; `None` where an image has one class."""
    thresholds = getattr(run.model, "label_thresholds", None)
    if thresholds is None:
        return None
    return dict(zip(run.datasets.class_names, thresholds, strict=True))


def run_as_json(run: "TrainingRun", directory: Path, seconds: float) -> dict[str, Any]:
    """Returns what `train --json` prints."""
    datasets = run.datasets
    return {
        "run_directory": str(directory),
        "model": str(directory / "model.keras"),
        "interrupted": run.interrupted,
        "saved_epoch": run.saved_epoch,
        "temperature": _temperature_of(run),
        "thresholds": _thresholds_of(run),
        "seconds": seconds,
        "counts": {split: datasets.counts(split) for split in SPLITS},
        "left_out": [found.to_json() for found in datasets.audit.left_out],
        "cross_validation": (
            None if run.cross_validation is None else run.cross_validation.to_json()
        ),
        "history": run.history,
    }
