"""The table of docs/accuracy.md: models judged on images that nothing was chosen by.

    python benchmarks/accuracy.py PHOTOS WEIGHTS_FOLDER [ROW...]

Runs `keras-flowers train PHOTOS` with the options of each row, once for each seed, with
a fifth of the images as the test part and a tenth for validation. `keras-flowers
evaluate` then judges the saved model on the test part. The same seed gives each row the
same parts. Prints a Markdown table. ROW names the rows to measure; all by default.

Each row begins with an empty cache, so the first seed takes longer than the others.
"""

import json
import statistics
import sys
import tempfile

from common import KERAS_FLOWERS, machine, read_files, timed

SEEDS = (42, 1, 2)
PARTS = ("--test-split", "0.2", "--validation-split", "0.1")
MOBILENET = "mobilenet_2_5_224_tf_no_top.h5"
EFFICIENTNET = "efficientnet_lite0_notop.keras"
# By name: what is added to the command. In braces, a file of WEIGHTS_FOLDER.
ROWS = {
    "lesson": "",
    "scratch": "--backbone small_convnet",
    "mobilenet": f"--backbone mobilenet_0.25 --pretrained-weights {{{MOBILENET}}}",
    "mobilenet-320": (
        f"--backbone mobilenet_0.25 --pretrained-weights {{{MOBILENET}}} "
        "--image-size 320"
    ),
    "frozen": f"--backbone {{{EFFICIENTNET}}}",
    "bf16": f"--backbone {{{EFFICIENTNET}}} --inference-precision bf16",
    "int8": f"--backbone {{{EFFICIENTNET}}} --inference-precision int8",
    "views": f"--backbone {{{EFFICIENTNET}}} --feature-views 3",
    "fine-tuned": f"--backbone {{{EFFICIENTNET}}} --fine-tune-epochs 6",
}
# By name of the row: what is added to the evaluation.
EVALUATE = {"views": "--tta 3"}


def measure(name: str, images: str, weights: str) -> list[tuple[float, float, float]]:
    """Runs a row with every seed.

    Returns:
        Accuracy and negative log-likelihood on the test part, and the seconds of the
        training command.
    """
    options = [
        f"{weights}/{word[1:-1]}" if word.startswith("{") else word
        for word in ROWS[name].split()
    ]
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in SEEDS:
            run = f"{scratch}/{seed}"
            cache = {"KERAS_FLOWERS_CACHE": f"{scratch}/cache"}
            seconds, _ = timed(
                *(KERAS_FLOWERS, "train", images, *options, *PARTS, "--json"),
                *("--seed", str(seed), "--run-dir", run),
                **cache,
            )
            _, printed = timed(
                *(KERAS_FLOWERS, "evaluate", f"{run}/model.keras", images, "--json"),
                *("--split-manifest", f"{run}/split.json", "--split", "test"),
                *EVALUATE.get(name, "").split(),
                **cache,
            )
            test = json.loads(printed)
            results.append((test["accuracy"], test["loss"], seconds))
            print(
                f"{name}, seed {seed}: {test['accuracy']:.3f}, {test['loss']:.3f}, "
                f"{seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    return results


def row(name: str, results: list[tuple[float, float, float]]) -> str:
    """Returns a row of the table."""
    accuracies, losses, seconds = zip(*results, strict=True)
    options = ROWS[name].replace("{", "").replace("}", "")
    shown = f"`{options}`" if options else "none: the lesson's model"
    if name in EVALUATE:
        shown += f", `evaluate {EVALUATE[name]}`"
    cells = (
        shown,
        f"{statistics.mean(accuracies):.3f} "
        f"({min(accuracies):.3f} to {max(accuracies):.3f})",
        f"{statistics.mean(losses):.3f}",
        f"{statistics.median(seconds):.0f}",
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
    print("| options | test accuracy | negative log-likelihood | time (s) |")
    print("| --- | --- | --- | ---: |")
    for name in names or ROWS:
        print(row(name, measure(name, images, weights)), flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(f"usage: python {sys.argv[0]} PHOTOS WEIGHTS_FOLDER [ROW...]")
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
