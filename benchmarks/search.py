"""A search against the same search with KerasTuner alone, and one worker against two.

    python benchmarks/search.py PHOTOS [TRIALS MAX_EPOCHS]

Each side runs in its own process and does everything, from the first import to the best
model: this package also decodes the images, draws plots and saves every model.
"""

import sys
import tempfile

from common import FAST, child, images_argument, machine

SPACE = ("layers", "units_1", "units_2", "units_3", "epochs")


def values(result: dict) -> list[tuple]:
    """Returns what was searched, to compare."""
    return [
        tuple(trial["values"].get(name) for name in SPACE) for trial in result["trials"]
    ]


def show(name: str, result: dict) -> None:
    """Prints what a search took."""
    per_hour = 3600 * len(result["trials"]) / result["seconds"]
    best = max(trial["score"] for trial in result["trials"])
    print(
        f"{name:28} {result['seconds']:7.0f} s  {per_hour:6.1f} trials per hour, "
        f"best {best:.3f}"
    )


def main(images: str, trials: str, max_epochs: str) -> None:
    """Prints both searches and their ratios."""
    print(machine())
    plain = child("benchmarks/plain_search.py", images, trials, max_epochs)
    ours = {}
    for workers in ("0", "1", "2"):
        with tempfile.TemporaryDirectory() as cache:
            ours[workers] = child(
                "benchmarks/our_search.py",
                images,
                trials,
                max_epochs,
                workers,
                **FAST,
                KERAS_FLOWERS_CACHE=cache,
            )
        if values(ours[workers])[:1] != values(plain)[:1] or sorted(
            values(ours[workers]), key=str
        ) != sorted(values(plain), key=str):
            raise SystemExit("The searches had different trials.")
    show("KerasTuner alone", plain)
    show("keras_flowers, one process", ours["0"])
    show("keras_flowers, one worker", ours["1"])
    show("keras_flowers, two workers", ours["2"])
    for name, result in (("one process", ours["0"]), ("one worker", ours["1"])):
        print(f"ratio to {name}: {plain['seconds'] / result['seconds']:.2f}")
    print(
        "two workers against one: "
        f"{ours['1']['seconds'] / ours['2']['seconds']:.2f} times as fast"
    )


if __name__ == "__main__":
    main(images_argument(), *(sys.argv[2:4] or ["6", "6"]))
