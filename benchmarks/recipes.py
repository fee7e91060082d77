"""The figures next to the settings that the documentation recommends.

    python benchmarks/recipes.py PHOTOS RESULTS.jsonl [--weights FOLDER] [ROW...]
    python benchmarks/recipes.py --table RESULTS.jsonl [ROW...]

Trains with the options of each row, once for each seed, and adds one line to
RESULTS.jsonl for each run. Runs that the file already holds are skipped, so a benchmark
that was stopped continues where it was. ROW names the rows to run; all by default. Rows
with a pretrained network need FOLDER, the folder of its weights.

The images are split into 65 % for training, 20 % for validation and 15 % for the test.
Nothing is chosen by the test images, not even the epoch, so the test accuracy is an
honest one. `--table` prints the results as a table in Markdown.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from common import FAST, child, machine, read_files

SEEDS = (1, 2, 3)
MOBILENET = (
    "--backbone mobilenet_0.25 --pretrained-weights {mobilenet_2_5_224_tf_no_top.h5}"
)
# By name: the options. In braces, a file of the folder of weights.
ROWS = {
    "lesson": "",
    "warm-up": "--warm-up 0.2",
    "low-rate": "--learning-rate 0.00003",
    "low-rate-warm-up": "--learning-rate 0.00003 --warm-up 0.2",
    "low-rate-cosine": "--learning-rate 0.00003 --schedule cosine",
    "early-stopping": "--early-stopping 3",
    "early-stopping-dropout": "--early-stopping 3 --dropout 0.3",
    "low-rate-early-stopping": "--learning-rate 0.00003 --early-stopping 3",
    "low-rate-dropout": "--learning-rate 0.00003 --dropout 0.3",
    "narrow": "--hidden-units 64",
    "narrow-warm-up": "--hidden-units 64 --warm-up 0.2",
    "narrow-low-rate": "--hidden-units 64 --learning-rate 0.00003",
    "small-images": "--image-size 128",
    "small-images-warm-up": "--image-size 128 --warm-up 0.2",
    "small-images-low-rate": "--image-size 128 --learning-rate 0.00003",
    "small-images-low-rate-warm-up": (
        "--image-size 128 --learning-rate 0.00003 --warm-up 0.2"
    ),
    "auto": "--learning-rate auto",
    "small-convnet": "--backbone small_convnet",
    "frozen": MOBILENET,
    "frozen-balanced": f"{MOBILENET} --class-weights balanced",
    "frozen-early-stopping": f"{MOBILENET} --early-stopping 3",
    "frozen-no-warm-up": f"{MOBILENET} --warm-up 0",
    "frozen-auto": f"{MOBILENET} --learning-rate auto",
    "frozen-320": f"{MOBILENET} --image-size 320",
}


def find_results(path: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Returns the results in a file, by options and seed."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text().splitlines())
    return {(line["options"], line["seed"]): line for line in lines}


def run_row(name: str, images: str, weights: str | None, path: Path) -> None:
    """Runs a row with every seed that is missing in the file."""
    options = ROWS[name]
    if "{" in options and weights is None:
        print(f"{name} needs --weights: skipped", file=sys.stderr)
        return
    words = [
        f"{weights}/{word[1:-1]}" if word.startswith("{") else word
        for word in options.split()
    ]
    for seed in SEEDS:
        if (options, seed) in find_results(path):
            continue
        program = str(Path(__file__).with_name("our_recipe.py"))
        result = child(program, images, *words, "--seed", str(seed), **FAST)
        with path.open("a") as file:
            line = {"row": name, "options": options, "seed": seed, **result}
            file.write(json.dumps(line) + "\n")
        print(
            f"{name}, seed {seed}: {result['test_accuracy']:.3f}, "
            f"{result['seconds']:.0f} s",
            file=sys.stderr,
            flush=True,
        )


def spread(values: list[float]) -> str:
    """Returns the mean and the range of some figures."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def print_table(path: Path, names: list[str]) -> None:
    """Prints the rows of which the file has results, as a table in Markdown."""
    results = find_results(path)
    print(
        "| options | test accuracy | classes predicted | epochs | seconds |\n"
        "| --- | --- | --- | --- | ---: |"
    )
    for name in names:
        runs = [v for (options, _), v in results.items() if options == ROWS[name]]
        if not runs:
            continue
        options = ROWS[name].replace("{", "").replace("}", "")
        cells = (
            f"`{options}`" if options else "none: the lesson",
            spread([run["test_accuracy"] for run in runs]),
            ", ".join(str(run["predicted_classes"]) for run in runs),
            ", ".join(str(len(run["history"]["epoch"])) for run in runs),
            f"{statistics.median(run['seconds'] for run in runs):.0f}",
        )
        print(f"| {' | '.join(cells)} |")
    shares = [run["largest_class"] for run in results.values()]
    print(f"\nAlways answering the largest class: {spread(shares)}")


def main() -> None:
    """Runs the rows or prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="+", metavar="PHOTOS RESULTS ROW")
    parser.add_argument("--weights")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_intermixed_args()
    images = None if given.table else given.words.pop(0)
    if not given.words:
        parser.error("RESULTS.jsonl is missing")
    path, names = Path(given.words[0]), given.words[1:] or list(ROWS)
    if unknown := set(names) - set(ROWS):
        parser.error(f"{sorted(unknown)} are not among the rows {', '.join(ROWS)}")
    if images is not None:
        print(machine(), file=sys.stderr)
        read_files(images)
        for name in names:
            run_row(name, images, given.weights, path)
    print_table(path, names)


if __name__ == "__main__":
    main()
