"""This package and other libraries on the same images, judged by the same code.

    python benchmarks/peers.py PHOTOS WEIGHTS_FOLDER [ROW...] --peer-python PYTHON
    python benchmarks/peers.py --table [ROW...]

For each of the seeds 42, 1 and 2, the images are split once: a fifth is the test part,
a tenth is for validation, and the rest trains. Each row trains on the same parts in its
own process, saves its model, and predicts the test part in another process. All start
from the same ImageNet weights of EfficientNet-Lite0, except `scratch`. This program
alone computes accuracy, negative log-likelihood and calibration error from the
probabilities. The seconds, and the CPU seconds of all processes and threads, are those
from the start of the training command, with an empty cache, to its end.

Each run adds a line to the file `--results` as soon as it is complete. Runs that the
file already holds are skipped, so a benchmark that was stopped continues where it was.
`--table` prints the results as a table in Markdown. ROW names the rows; all by default.
PYTHON is the interpreter of an environment with the peers, see docs/accuracy.md. Their
programs are `peer_fastai.py` and `peer_timm.py`.
"""

import argparse
import csv
import dataclasses
import json
import resource
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from common import KERAS_FLOWERS, machine, read_files, timed
from frozen_heads import scores

import keras_flowers
from keras_flowers.data.split_manifest import read_manifest, write_manifest
from keras_flowers.data.splits import SplitOptions, split_audit
from keras_flowers.scores import wilson_interval

SEEDS = (42, 1, 2)
VALIDATION_SPLIT, TEST_SPLIT = 0.1, 0.2
EFFICIENTNET = "--backbone {efficientnet_lite0_notop.keras}"
NO_BRACES = str.maketrans("", "", "{}")
HEADER = (
    "| program | accuracy | 95 % interval | negative log-likelihood | "
    "calibration error | seconds | CPU seconds |\n"
    "| --- | --- | --- | ---: | ---: | ---: | ---: |"
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to train, and ways to predict with its model.

    Attributes:
        options: Options of the training command. In braces, a file of weights.
        predictions: Options of the prediction; each is a row of the table.
        program: The program of a peer in this folder; None for this package.
        title: What the table says instead of the options.
    """

    options: str = ""
    predictions: tuple[str, ...] = ("",)
    program: str | None = None
    title: str | None = None


ROWS = {
    "frozen": Row(EFFICIENTNET),
    "views": Row(f"{EFFICIENTNET} --feature-views 3 --tta 3", ("--tta 3",)),
    "288-pixels": Row(
        "--backbone {efficientnet_lite0_288.keras}",
        title=f"`{EFFICIENTNET}`, with inputs of 288 pixels".translate(NO_BRACES),
    ),
    "fine-tuned": Row(f"{EFFICIENTNET} --fine-tune-epochs 6", ("", "--tta 2")),
    "fastai": Row(
        "--epochs 6",
        ("", "--tta 4"),
        program="peer_fastai.py",
        title="fastai, `fine_tune(6)`",
    ),
    "timm": Row(
        "--epochs 8",
        ("", "--tta 2"),
        program="peer_timm.py",
        title="timm, 8 epochs",
    ),
    "scratch": Row("--backbone small_convnet"),
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the runs find what they need.

    Attributes:
        photos: The folder of images.
        weights: The folder of weights.
        prepared: The folder with the split of each seed and the network with larger
            inputs.
        peer_python: The interpreter for the peers, or None.
    """

    photos: str
    weights: str
    prepared: Path
    peer_python: str | None = None


def write_splits(photos: str, folder: Path, seeds: Sequence[int] = SEEDS) -> None:
    """Writes the splits that `keras-flowers train --seed N` makes with these parts."""
    audit = keras_flowers.ImageDatasetLoader(photos).audit()
    for seed in seeds:
        options = SplitOptions(VALIDATION_SPLIT, TEST_SPLIT, seed)
        write_manifest(split_audit(audit, options), folder / f"{seed}.json")


def read_test_part(photos: str, split: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Returns paths and labels of the test images, and the class names."""
    manifest = read_manifest(split)
    paths = [image.path for image in manifest.images if image.split == "test"]
    labels = [manifest.class_names.index(Path(path).parent.name) for path in paths]
    return [str(Path(photos, p)) for p in paths], np.array(labels), manifest.class_names


def judge(table: Path, photos: str, split: Path) -> dict[str, float]:
    """Returns what the probabilities in a table are worth.

    Args:
        table: CSV with the column `path` and one for each class.
        photos: The folder of images.
        split: The split manifest.

    Returns:
        Number of test images, accuracy, negative log-likelihood and calibration error.

    Raises:
        SystemExit: If the table does not have exactly the images of the test part, or
            the probabilities of an image do not add up to 1.
    """
    paths, labels, class_names = read_test_part(photos, split)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {row["path"]: [float(row[name]) for name in class_names] for row in rows}
    if len(rows) != len(paths) or found.keys() != set(paths):
        raise SystemExit(f"{table} must have each test image once.")
    probabilities = np.array([found[path] for path in paths])
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise SystemExit(f"The rows of {table} must be probabilities.")
    accuracy, loss, error = map(float, scores(probabilities, labels))
    return {
        "images": len(paths),
        "accuracy": accuracy,
        "negative_log_likelihood": loss,
        "calibration_error": error,
    }


def enlarge_inputs(network: str, size: int, path: Path) -> None:
    """Saves a convolutional network with inputs of another size."""
    model = keras.saving.load_model(network)
    inputs = keras.Input((size, size, 3))
    larger = keras.models.clone_model(model, input_tensors=inputs)
    larger.set_weights(model.get_weights())
    larger.save(path)


def find_weights(name: str, place: Place) -> str:
    """Returns the path of a file of weights."""
    prepared = place.prepared / name
    return str(prepared) if prepared.exists() else f"{place.weights}/{name}"


def build_commands(
    row: Row, place: Place, seed: int, folder: Path
) -> tuple[list[str], list[list[str]]]:
    """Returns the training command, and the prediction commands.

    The predictions are in `0.csv`, `1.csv` and so on in the folder.
    """
    split = place.prepared / f"{seed}.json"
    words = [
        find_weights(word[1:-1], place) if word.startswith("{") else word
        for word in row.options.split()
    ]
    tables = [str(folder / f"{n}.csv") for n in range(len(row.predictions))]
    pairs = list(zip(row.predictions, tables, strict=True))
    if row.program is not None:
        program = str(Path(__file__).parent / row.program)
        start = [str(place.peer_python), program]
        files = [place.photos, str(split), str(folder / "model")]
        return (
            [*start, "train", *files, *words, "--seed", str(seed)],
            [[*start, "predict", *files, t, *o.split()] for o, t in pairs],
        )
    run = str(folder / "run")
    paths, _, _ = read_test_part(place.photos, split)
    return (
        [
            *(KERAS_FLOWERS, "train", place.photos, *words, "--seed", str(seed)),
            *("--split-manifest", str(split), "--run-dir", run),
        ],
        [
            [KERAS_FLOWERS, "predict", run, *paths, "--csv", t, *o.split()]
            for o, t in pairs
        ],
    )


def run_row(row: Row, place: Place, seed: int) -> dict[str, Any]:
    """Trains and predicts; returns times and scores."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        training, predictions = build_commands(row, place, seed, folder)
        cache = {"KERAS_FLOWERS_CACHE": str(folder / "cache")}
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds, printed = timed(*training, **cache)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        split = place.prepared / f"{seed}.json"
        answers = {}
        for number, options in enumerate(row.predictions):
            timed(*predictions[number], **cache)
            answers[options] = judge(folder / f"{number}.csv", place.photos, split)
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    return {
        "seconds": seconds,
        "cpu_seconds": user + system,
        "versions": printed.strip().splitlines()[-1] if row.program else machine(),
        "answers": answers,
    }


def read_results(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a file of results; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def key_of(name: str) -> str:
    """Returns what tells a row from an earlier version of it."""
    return json.dumps(dataclasses.astuple(ROWS[name])[:3])


def run_rows(
    place: Place, names: Sequence[str], path: Path, seeds: Sequence[int] = SEEDS
) -> None:
    """Runs what is missing in the file of results, seed by seed."""
    for seed in seeds:
        for name in names:
            key = key_of(name)
            done = {(line["key"], line["seed"]) for line in read_results(path)}
            if (key, seed) in done:
                continue
            result = run_row(ROWS[name], place, seed)
            line = {"row": name, "key": key, "seed": seed, **result}
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), file=sys.stderr, flush=True)


def describe_row(name: str, options: str) -> str:
    """Returns the first cell of a row of the table."""
    row = ROWS[name]
    title = row.title or f"`{row.options.translate(NO_BRACES)}`"
    return f"{title}, `{options}`" if options and options not in row.options else title


def format_table(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Returns the table of the rows of which there are results.

    A row is the mean of its seeds. The interval is that of one run with the mean
    accuracy: the test parts of different seeds share images.
    """
    table = [HEADER]
    for name in names:
        runs = [line for line in lines if line["key"] == key_of(name)]
        for options in ROWS[name].predictions if runs else ():
            answers = [run["answers"][options] for run in runs]
            accuracies = [answer["accuracy"] for answer in answers]
            mean, images = statistics.mean(accuracies), answers[0]["images"]
            low, high = wilson_interval(round(mean * images), images)

            def average(figure: str, of: Sequence[dict[str, Any]] = answers) -> str:
                return f"{statistics.mean(one[figure] for one in of):.3f}"

            cells = (
                describe_row(name, options),
                f"{mean:.3f} ({min(accuracies):.3f} to {max(accuracies):.3f})",
                f"{low:.3f} to {high:.3f}",
                average("negative_log_likelihood"),
                average("calibration_error"),
                f"{statistics.median(run['seconds'] for run in runs):.0f}",
                f"{statistics.median(run['cpu_seconds'] for run in runs):.0f}",
            )
            note = "" if len(runs) == len(SEEDS) else f" ({len(runs)} of 3 seeds)"
            table.append(f"| {cells[0]}{note} | {' | '.join(cells[1:])} |")
    return "\n".join(table)


def main() -> None:
    """Runs the rows or prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*", metavar="PHOTOS WEIGHTS_FOLDER ROW")
    parser.add_argument("--peer-python", metavar="PYTHON")
    parser.add_argument("--results", type=Path, default=Path("peers.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_intermixed_args()
    if not given.table and len(given.words) < 2:
        parser.error("PHOTOS and WEIGHTS_FOLDER are missing")
    folders = [] if given.table else given.words[:2]
    names = given.words[len(folders) :]
    if unknown := set(names) - set(ROWS):
        parser.error(f"{sorted(unknown)} are not among the rows {', '.join(ROWS)}")
    names = names or list(ROWS)
    if folders:
        if given.peer_python is None and any(ROWS[name].program for name in names):
            parser.error("fastai and timm need --peer-python")
        photos, weights = (str(Path(folder).resolve()) for folder in folders)
        print(machine(), file=sys.stderr)
        read_files(photos)
        with tempfile.TemporaryDirectory() as folder:
            place = Place(photos, weights, Path(folder), given.peer_python)
            write_splits(photos, place.prepared, given.seeds)
            if "288-pixels" in names:
                network = f"{weights}/efficientnet_lite0_notop.keras"
                larger = place.prepared / "efficientnet_lite0_288.keras"
                enlarge_inputs(network, 288, larger)
            run_rows(place, names, given.results, given.seeds)
    print(format_table(read_results(given.results), names))


if __name__ == "__main__":
    main()
