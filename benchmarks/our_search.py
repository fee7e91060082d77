"""The same search as `plain_search.py` with this package, as a child process.

    python benchmarks/our_search.py PHOTOS TRIALS MAX_EPOCHS WORKERS [SIDE]

0 workers search in the process itself. Prints one JSON line as `plain_search.py` does,
and the memory of all processes of the search after each trial.
"""

import json
import sys
import tempfile
import time

started = time.perf_counter()

import psutil  # noqa: E402
from keras_flowers.tuning import ImageClassifierHyperModel, search  # noqa: E402

import keras_flowers  # noqa: E402


def memory() -> int:
    """Returns the bytes that this process and all below it hold for themselves."""
    here = psutil.Process()
    total = 0
    for process in (here, *here.children(recursive=True)):
        try:
            total += process.memory_full_info().uss
        except psutil.NoSuchProcess:
            continue
    return total


def main(folder: str, trials: int, max_epochs: int, workers: int, side: int) -> None:
    """Searches and prints what it took."""
    used: list[int] = []

    def watch(records: tuple, planned: int) -> None:
        del planned
        if sum(record.status != "running" for record in records) > len(used):
            used.append(memory())

    loader = keras_flowers.ImageDatasetLoader(folder, image_size=(side, side))
    lowest = max(1, max_epochs // 3)
    hypermodel = ImageClassifierHyperModel(loader, epochs=(lowest, max_epochs))
    with tempfile.TemporaryDirectory() as directory:
        result = search(
            hypermodel,
            directory,
            trials=trials,
            workers=workers or None,
            progress=watch,
        )
    found = [
        {"values": record.hyperparameters, "score": record.score}
        for record in result.trials
    ]
    report = {
        "trials": found,
        "trial_seconds": [record.seconds for record in result.trials],
        "seconds": time.perf_counter() - started,
        "memory": used,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]), int((sys.argv[5:] or [256])[0]))
