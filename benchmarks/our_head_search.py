"""The same search as `plain_head_search.py` with this package, as a child process.

    python benchmarks/our_head_search.py PHOTOS BACKBONE_FILE TRIALS EPOCHS WORKERS

0 workers search in the process itself. Prints one JSON line as `plain_head_search.py`
does.
"""

import json
import sys
import tempfile
import time

started = time.perf_counter()

from keras_flowers.tuning import ImageClassifierHyperModel, search  # noqa: E402


def main(
    folder: str, backbone_file: str, trials: int, epochs: int, workers: int
) -> None:
    """Searches and prints what it took."""
    hypermodel = ImageClassifierHyperModel(
        folder, epochs=epochs, backbone=backbone_file
    )
    with tempfile.TemporaryDirectory() as directory:
        result = search(hypermodel, directory, trials=trials, workers=workers or None)
    report = {
        "trials": [
            {"values": record.hyperparameters, "score": record.score}
            for record in result.trials
        ],
        "trial_seconds": [record.seconds for record in result.trials],
        "seconds": time.perf_counter() - started,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:6]))
