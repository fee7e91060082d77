"""How fast the command line classifies photos: saved and exported models, in turn.

    python benchmarks/predict.py RUN PHOTOS [--baseline COMMAND] [--formats onnx ...]

Exports the model of RUN, then times whole commands, from nothing to the last answer:
one photo, and every photo of the folder PHOTOS with its sub-folders. With --baseline,
such as the `keras-flowers` of an older version, the same command line of that is timed
in the same rounds. Prints medians, and ratios to the first row of each part.
"""

import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from common import KERAS_FLOWERS, machine, read_files


def main() -> None:
    """Prints the medians and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--baseline", help="keras-flowers of another version")
    parser.add_argument("--formats", nargs="+", default=["onnx", "openvino", "litert"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    read_files(os.fspath(options.photos))
    model = os.fspath(options.run / "model.keras")
    first = os.fspath(next(iter(sorted(options.photos.rglob("*.jpg")))))
    with tempfile.TemporaryDirectory() as folder:
        commands = {"predict model.keras": [KERAS_FLOWERS, "predict", model]}
        if options.baseline:
            baseline = {"baseline": [options.baseline, "predict", model]}
            commands = baseline | commands
        for name in options.formats:
            exported = f"{folder}/{name}"
            export = [KERAS_FLOWERS, "export", options.run, "--format", name]
            subprocess.run(
                [*export, "--output", exported], check=True, capture_output=True
            )
            commands[f"predict {name}"] = [KERAS_FLOWERS, "predict", exported]
        photos = sum(1 for _ in options.photos.rglob("*.jpg"))
        compare("one photo", commands, first, options.rounds, 1)
        compare("a folder", commands, os.fspath(options.photos), options.rounds, photos)


def compare(
    title: str,
    commands: dict[str, list[str]],
    photos: str,
    rounds: int,
    count: int,
) -> None:
    """Times each command once per round, so that all see the same machine."""
    walls: dict[str, list[float]] = {name: [] for name in commands}
    processors: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            wall, processor = measure([*command, photos])
            walls[name].append(wall)
            processors[name].append(processor)
    reference = statistics.median(walls[next(iter(commands))])
    work = statistics.median(processors[next(iter(commands))])
    print(f"\n{title} ({count})")
    print(f"{'':24}{'s':>8}{'photos/s':>10}{'ratio':>7}{'CPU s':>8}{'ratio':>7}")
    for name in commands:
        wall = statistics.median(walls[name])
        processor = statistics.median(processors[name])
        print(
            f"{name:24}{wall:8.2f}{count / wall:10.1f}{reference / wall:7.2f}"
            f"{processor:8.2f}{work / processor:7.2f}"
        )


def measure(command: Sequence[str]) -> tuple[float, float]:
    """Returns the seconds of a command, by the clock and of the processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    wall = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    return wall, used


if __name__ == "__main__":
    main()
