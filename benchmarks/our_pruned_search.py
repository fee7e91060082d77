"""A search with or without pruning, as a child process of `pruning.py`.

    python benchmarks/our_pruned_search.py PHOTOS PRUNING TRIALS EPOCHS [STRATEGY]

Trains `small_convnet` on images of 64 by 64 pixels, with learning rates of three orders
of magnitude, as a first search does. Prints one JSON line.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from keras_flowers.callbacks import read_history
from keras_flowers.tuning import ImageClassifierHyperModel, search

import keras_flowers


def cpu_seconds() -> float:
    """Returns the processor time of this process, which does all the work."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(photos: str, pruning: str, trials: int, epochs: int, strategy: str) -> None:
    """Searches and prints what it took, without the decoding of the images."""
    loader = keras_flowers.ImageDatasetLoader(photos, image_size=(64, 64))
    hypermodel = ImageClassifierHyperModel(
        loader,
        layers=(0, 1),
        units=(64, 256, 64),
        epochs=epochs,
        learning_rate=(1e-5, 1e-2),
        backbone=keras_flowers.Backbone(
            "small_convnet", image_size=(64, 64), pretrained_weights=None
        ),
    )
    hypermodel.load()
    begin, begin_cpu = time.perf_counter(), cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        result = search(
            hypermodel, folder, strategy=strategy, trials=trials, pruning=pruning
        )
        curves = {
            trial.id: read_history(
                Path(folder) / "trials" / f"trial_{trial.id}" / "execution_0"
            )["val_accuracy"]
            for trial in result.trials
        }
    report = {
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": cpu_seconds() - begin_cpu,
        "best": result.best.score if result.best else None,
        "trials": [
            {
                "status": trial.status,
                "score": trial.score,
                "epoch": trial.epoch,
                "seconds": trial.seconds,
                "values": trial.hyperparameters,
                "curve": curves[trial.id],
            }
            for trial in result.trials
        ],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    strategy = sys.argv[5] if len(sys.argv) > 5 else "random"
    main(*sys.argv[1:3], *map(int, sys.argv[3:5]), strategy)
