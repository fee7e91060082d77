"""Epoch time and peak memory against the plain script, in one run.

    python benchmarks/epoch_time.py PHOTOS [EPOCHS]

The two programs run in turns; the first epoch of each, which traces and compiles, is
shown apart from the others.
"""

import statistics
import sys

from common import FAST, child, images_argument, machine


def main(epochs: int) -> None:
    """Runs both and prints the ratios."""
    images = images_argument()
    plain = child("benchmarks/plain_script.py", images, str(epochs))
    ours = child("benchmarks/our_run.py", images, str(epochs), **FAST)
    print(machine())
    print(f"{'':24}{'plain script':>14}{'keras_flowers':>15}{'ratio':>8}")
    rows = {
        "first epoch (s)": lambda run: run["epochs"][0],
        "later epochs, median (s)": lambda run: statistics.median(run["epochs"][1:]),
        "fastest epoch (s)": lambda run: min(run["epochs"]),
        "whole program (s)": lambda run: run["seconds"],
        "peak memory (GB)": lambda run: run["peak_bytes"] / 1e9,
    }
    for name, value in rows.items():
        a, b = value(plain), value(ours)
        print(f"{name:24}{a:14.2f}{b:15.2f}{a / b:8.2f}")


if __name__ == "__main__":
    main(int(sys.argv[2]) if len(sys.argv) > 2 else 5)
