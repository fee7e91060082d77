"""A search with or without pruning, as a child process of `pruning.py`.

    python benchmarks/our_pruned_search.py PHOTOS BACKBONE PRUNING TRIALS EPOCHS

Searches heads on a backbone file, or `small_convnet` on images of 64 by 64 pixels. The
learning rates span three orders of magnitude. Prints one JSON line.
"""

import json
import resource
import sys
import tempfile
import time

from keras_flowers.tuning import ImageClassifierHyperModel, search

import keras_flowers


def cpu_seconds() -> float:
    """Returns the processor time of this process, which does all the work."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(photos: str, backbone: str, pruning: str, trials: int, epochs: int) -> None:
    """Searches and prints what it took, without the images and the features."""
    loader = photos
    if backbone == "small_convnet":
        loader = keras_flowers.ImageDatasetLoader(photos, image_size=(64, 64))
    hypermodel = ImageClassifierHyperModel(
        loader,
        layers=(0, 2),
        dropout=(0.0, 0.5),
        epochs=epochs,
        learning_rate=(1e-5, 1e-2),
        backbone=backbone,
    )
    hypermodel.load()
    begin, begin_cpu = time.perf_counter(), cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        result = search(hypermodel, folder, trials=trials, pruning=pruning)
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
            }
            for trial in result.trials
        ],
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:6]))
