"""Shows the data of a run and what has come of it."""

import dataclasses
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_flowers_cli.findings import show_findings
from keras_flowers_cli.output import Output, TextTable

if TYPE_CHECKING:
    from keras_flowers.data.dataset_loader import ImageDatasets
    from keras_flowers.training.train import TrainingRun

SPLITS = ("train", "validation", "test")
_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


def show_datasets(output: Output, datasets: "ImageDatasets") -> None:
    """Prints the data and the device."""
    splits = [split for split in SPLITS if datasets.paths(split)]
    rows = TextTable("class", *splits)
    counts = {split: datasets.counts(split) for split in splits}
    for name in datasets.class_names:
        rows.add_row(name, *(str(counts[split][name]) for split in splits))
    rows.add_row("all", *(str(sum(counts[s].values())) for s in splits), style="bold")
    output.say(str(datasets.audit.root))
    if datasets.audit.layout is not None:
        output.say(datasets.audit.layout.description)
    output.show(rows)
    show_findings(output, datasets.audit.findings)
    unnamed = len(datasets.split.not_in_manifest)
    if unnamed:
        output.say(f"{unnamed} images of the folder are not in the split manifest")
    if datasets.reason_not_cached:
        output.say(datasets.reason_not_cached)
    _show_device(output)


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


def show_run(
    output: Output, run: "TrainingRun", directory: Path, seconds: float
) -> None:
    """Prints the history, the files and what comes next."""
    if run.interrupted:
        has_checkpoint = any(directory.glob("checkpoint/*"))
        how = "resumes it" if has_checkpoint else "starts it again"
        output.say(
            "Interrupted: what was trained so far is saved. "
            f"keras-flowers train --resume {shlex.quote(str(directory))} {how}."
        )
    columns = [name for name in _METRICS if name in run.history]
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
    model = shlex.quote(str(directory / "model.keras"))
    output.say(f"Next: keras-flowers predict {model} PHOTO")


def run_as_json(run: "TrainingRun", directory: Path, seconds: float) -> dict[str, Any]:
    """Returns what `train --json` prints."""
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


def _show_device(output: Output) -> None:
    from keras_flowers_cli.devices import describe_device, gpus

    output.say(f"Training on: {describe_device()}")
    if not gpus():
        output.say(
            "No GPU is in use, so an epoch takes longer. Fewer --epochs, a "
            "smaller --image-size, narrower --hidden-units or --early-stopping shorten "
            "the run; keras-flowers doctor says what a GPU needs."
        )
