"""A search with pruning against the same one without it.

    python benchmarks/pruning.py PHOTOS [BACKBONE TRIALS EPOCHS]

BACKBONE is a file whose heads are searched; the default is `small_convnet`.

Each side runs in its own process, with the same trials in the same order. The goal is
the same best score in at most 60 % of the time. Trust the processor time on a machine
that does something else as well.
"""

import sys
import tempfile

from common import FAST, child, images_argument, machine

GOAL = 0.6


def show(name: str, result: dict) -> None:
    """Prints what a search took and found."""
    trials = result["trials"]
    pruned = sum(trial["status"] == "pruned" for trial in trials)
    print(
        f"{name:16} {result['seconds']:6.0f} s, {result['cpu_seconds']:6.0f} s of "
        f"processor time, {sum(trial['epoch'] for trial in trials):4} epochs, "
        f"{pruned} of {len(trials)} trials pruned, best {result['best']:.4f}"
    )


def main(
    images: str,
    backbone: str = "small_convnet",
    trials: str = "24",
    epochs: str = "12",
) -> None:
    """Prints both searches and their ratios."""
    print(machine())
    with tempfile.TemporaryDirectory() as cache:
        plain, pruned = (
            child(
                "benchmarks/our_pruned_search.py",
                images,
                backbone,
                pruning,
                trials,
                epochs,
                **FAST,
                KERAS_FLOWERS_CACHE=cache,
            )
            for pruning in ("none", "median")
        )
    show("without pruning", plain)
    show("with pruning", pruned)
    for name in ("seconds", "cpu_seconds"):
        print(f"ratio of {name} (goal: {GOAL}): {pruned[name] / plain[name]:.2f}")
    print(f"difference of the best scores: {pruned['best'] - plain['best']:+.4f}")


if __name__ == "__main__":
    main(images_argument(), *sys.argv[2:5])
