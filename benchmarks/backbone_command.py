"""The whole command with a backbone against a plain pass through the same network.

    python benchmarks/backbone_command.py PHOTOS BACKBONE.keras

Every part runs in its own process; the command begins with an empty cache. Start-up is
that of the command: Python, Keras, TensorFlow and this package, and nothing done with
them. Loading the network counts neither as start-up nor in the plain pass, so the
command pays for it. Every file is read once before.
"""

import json
import statistics
import sys
import tempfile

from common import KERAS_FLOWERS, child, machine, read_files, timed

PASS_GOAL = 1.3
AGAIN_GOAL = 15
OTHER_HEAD = ("--hidden-units", "512")
_START = """
from keras_flowers_cli import runtime
from keras_flowers_cli.main import commands
runtime.start_keras()
import keras_flowers
"""


def main(images: str, backbone: str) -> None:
    """Prints the times, and the ratios against the goals."""
    read_files(images)
    start_up = statistics.median(
        timed(sys.executable, "-c", _START)[0] for _ in range(3)
    )
    plain = child("benchmarks/plain_forward.py", images, backbone)
    ours = []
    with tempfile.TemporaryDirectory() as scratch:
        for index, head in enumerate(((), OTHER_HEAD)):
            seconds, printed = timed(
                *(KERAS_FLOWERS, "train", images, "--backbone", backbone, *head),
                *("--run-dir", f"{scratch}/run-{index}", "--json"),
                KERAS_FLOWERS_CACHE=f"{scratch}/cache",
            )
            ours.append((seconds, json.loads(printed)["history"]))
    print(machine())
    print(f"start-up                      {start_up:7.1f} s")
    print(
        f"plain pass, {plain['images']} photos      {plain['seconds']:7.1f} s, "
        f"after {plain['load']:.1f} s to load the network"
    )
    for name, (seconds, history) in zip(("train", "other head"), ours, strict=True):
        accuracies = history["val_accuracy"]
        print(
            f"{name:30}{seconds:7.1f} s, without start-up {seconds - start_up:.1f} s, "
            f"validation accuracy {accuracies[-1]:.3f} (best {max(accuracies):.3f})"
        )
    ratio = (ours[0][0] - start_up) / plain["seconds"]
    print(f"train to plain pass: {ratio:.2f}, goal at most {PASS_GOAL}")
    again = ours[1][0] - start_up
    print(f"other head: {again:.1f} s, goal under {AGAIN_GOAL} s")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(f"usage: python {sys.argv[0]} PHOTOS BACKBONE.keras")
    main(sys.argv[1], sys.argv[2])
