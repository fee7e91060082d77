"""A search of heads on a frozen backbone against the same with KerasTuner alone.

    python benchmarks/head_search.py PHOTOS BACKBONE_FILE [TRIALS EPOCHS PLAIN_TRIALS]

Each side runs in its own process. This package does everything from the first import
to the best model, with an empty cache: images and features too. KerasTuner alone would
take hours for 50 trials, so it gets the first few of the same, and only the seconds of
its trials count, not its start.
"""

import statistics
import sys
import tempfile

from common import FAST, child, machine

HOUR = 3600
_WAYS = (("one process", "0"), ("one worker", "1"), ("two workers", "2"))
SPACE = ("layers", "units_1", "units_2", "units_3", "epochs")


def values(result: dict) -> list[tuple]:
    """Returns what was searched, to compare."""
    return [
        tuple(trial["values"].get(name) for name in SPACE) for trial in result["trials"]
    ]


def show(name: str, result: dict, per_hour: float) -> None:
    """Prints what a search took."""
    best = max(trial["score"] for trial in result["trials"])
    print(
        f"{name:28} {len(result['trials']):3} trials {result['seconds']:7.0f} s  "
        f"{statistics.median(result['trial_seconds']):6.1f} s a trial  "
        f"{per_hour:7.1f} trials per hour, best {best:.3f}"
    )


def main(
    images: str,
    backbone_file: str,
    trials: str = "50",
    epochs: str = "15",
    plain_trials: str = "2",
) -> None:
    """Prints both searches and their ratios."""
    print(machine())
    plain = child(
        "benchmarks/plain_head_search.py", images, backbone_file, plain_trials, epochs
    )
    plain_per_hour = HOUR / statistics.mean(plain["trial_seconds"])
    show("KerasTuner alone", plain, plain_per_hour)
    for name, workers in _WAYS:
        with tempfile.TemporaryDirectory() as cache:
            ours = child(
                "benchmarks/our_head_search.py",
                images,
                backbone_file,
                trials,
                epochs,
                workers,
                **FAST,
                KERAS_FLOWERS_CACHE=cache,
            )
        if not set(values(plain)) <= set(values(ours)):
            raise SystemExit("The searches had different trials.")
        per_hour = HOUR * len(ours["trials"]) / ours["seconds"]
        show(f"keras_flowers, {name}", ours, per_hour)
        print(f"ratio to {name}: {per_hour / plain_per_hour:.0f}")


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 6:
        raise SystemExit(
            f"usage: python {sys.argv[0]} PHOTOS BACKBONE_FILE "
            "[TRIALS EPOCHS PLAIN_TRIALS]"
        )
    main(*sys.argv[1:])
