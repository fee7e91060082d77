"""The table of docs/accuracy.md: accuracy, time and size of several models.

    python benchmarks/accuracy.py PHOTOS WEIGHTS_FOLDER [ROW...]

Runs `keras-flowers train PHOTOS` with the options of each row, once for each seed, and
prints a Markdown table. ROW names the rows to measure; all by default.

Each row begins with an empty cache: its first run also decodes the images and computes
the features, the others find both. Every file is read once before, so that all rows
find the files in the page cache of the system.
"""

import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path

from common import KERAS_FLOWERS, child, machine, read_files, timed

SEEDS = (42, 1, 2)
MOBILENET = "mobilenet_2_5_224_tf_no_top.h5"
EFFICIENTNET = "efficientnet_lite0_notop.keras"
# By name: what is added to the command. In braces, a file of WEIGHTS_FOLDER.
ROWS = {
    "lesson": "",
    "small_convnet": "--backbone small_convnet",
    "mobilenet": f"--backbone mobilenet_0.25 --pretrained-weights {{{MOBILENET}}}",
    "mobilenet-320": (
        f"--backbone mobilenet_0.25 --pretrained-weights {{{MOBILENET}}} "
        "--image-size 320"
    ),
    "efficientnet-lite0": f"--backbone {{{EFFICIENTNET}}}",
    "efficientnet-lite0-fine-tuned": (
        f"--backbone {{{EFFICIENTNET}}} --fine-tune-epochs 2"
    ),
}
_SIZE = """
import json, sys
import keras, keras_flowers
model = keras.models.load_model(sys.argv[1], compile=False)
print(json.dumps({"parameters": model.count_params()}))
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """What one command took and gave.

    Attributes:
        seconds: From the start of the process to its end.
        accuracies: Validation accuracy after each epoch.
        parameters: Weights of the saved model.
        file_bytes: Size of `model.keras`.
    """

    seconds: float
    accuracies: list[float]
    parameters: int
    file_bytes: int


def train(images: str, options: list[str], seed: int, cache: str) -> Run:
    """Runs the command in a separate process."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = f"{scratch}/run"
        seconds, printed = timed(
            *(KERAS_FLOWERS, "train", images, *options),
            *("--keep", "last", "--save-optimizer"),
            *("--seed", str(seed), "--run-dir", directory, "--json"),
            KERAS_FLOWERS_CACHE=cache,
        )
        model = f"{directory}/model.keras"
        return Run(
            seconds,
            json.loads(printed)["history"]["val_accuracy"],
            child("-c", _SIZE, model)["parameters"],
            Path(model).stat().st_size,
        )


def measured(name: str, images: str, weights: str) -> list[Run]:
    """Runs a row with every seed and says on stderr how it goes."""
    options = [
        f"{weights}/{word[1:-1]}" if word.startswith("{") else word
        for word in ROWS[name].split()
    ]
    runs = []
    with tempfile.TemporaryDirectory() as cache:
        for seed in SEEDS:
            run = train(images, options, seed, cache)
            runs.append(run)
            print(
                f"{name}, seed {seed}: {run.accuracies[-1]:.3f}, {run.seconds:.1f} s",
                file=sys.stderr,
                flush=True,
            )
    return runs


def spread(values: list[float]) -> str:
    """Returns the mean and the range of some accuracies."""
    mean = statistics.mean(values)
    return f"{mean:.3f} ({min(values):.3f} to {max(values):.3f})"


def row(name: str, runs: list[Run]) -> str:
    """Returns a row of the table."""
    first, *others = runs
    added = ROWS[name].replace("{", "").replace("}", "")
    cells = (
        f"`{added}`" if added else "none: the lesson's model",
        spread([run.accuracies[-1] for run in runs]),
        spread([max(run.accuracies) for run in runs]),
        f"{first.seconds:.0f}",
        f"{statistics.median(run.seconds for run in others):.0f}",
        f"{first.parameters:,}",
        f"{first.file_bytes / 1e6:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def main(images: str, weights: str, names: list[str]) -> None:
    """Prints the table."""
    unknown = set(names) - set(ROWS)
    if unknown:
        raise SystemExit(f"There are the rows {', '.join(ROWS)}.")
    read_files(images)
    print(machine())
    print()
    print(
        "| options | validation accuracy | best epoch | first run (s) | "
        "later runs (s) | parameters | MB |"
    )
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for name in names or ROWS:
        print(row(name, measured(name, images, weights)), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(f"usage: python {sys.argv[0]} PHOTOS WEIGHTS_FOLDER [ROW...]")
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
