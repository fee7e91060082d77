"""What checkpoints cost: an epoch with and without them, against the disk alone.

    python benchmarks/checkpoints.py PHOTOS [EPOCHS]

Trains the lesson's model in turns without checkpoints, with one after each epoch that
is written while the next epoch trains, and with one that is written before it begins.
Then writes as many bytes as a checkpoint has to the same disk with nothing around it.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import FAST, images_argument, machine

os.environ.update(FAST, TF_CPP_MIN_LOG_LEVEL="2")

import keras
from keras_flowers.callbacks import TrainingCheckpoint
from plain_script import EpochTimes

import keras_flowers


class Waits(keras.callbacks.Callback):
    """Waits at the end of an epoch until its checkpoint is written."""

    def __init__(self, checkpoint: TrainingCheckpoint) -> None:
        super().__init__()
        self._checkpoint = checkpoint

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Waits."""
        del epoch, logs
        self._checkpoint.wait()


def epoch_seconds(
    datasets: keras_flowers.ImageDatasets, epochs: int, *callbacks: object
) -> list[float]:
    """Returns the seconds of each epoch but the first, from begin to begin."""
    model = keras_flowers.ImageClassifier(datasets.class_names, seed=42)
    model.compile()
    begins = Begins()
    model.fit(
        datasets.train,
        validation_data=datasets.validation,
        epochs=epochs + 1,
        callbacks=[begins, *callbacks],
        verbose=0,
    )
    return [b - a for a, b in zip(begins.moments[1:], begins.moments[2:], strict=False)]


class Begins(EpochTimes):
    """Collects when each epoch begins: what an epoch costs after its end counts."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the list."""
        super().on_train_begin(logs)
        self.moments: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Notes the moment."""
        super().on_epoch_begin(epoch, logs)
        self.moments.append(time.perf_counter())


def disk_seconds(path: Path, size: int) -> float:
    """Returns the median time of writing `size` bytes until they are on the disk."""
    block = os.urandom(2**20)
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        with path.open("wb") as file:
            for _ in range(size // len(block)):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def main(epochs: int) -> None:
    """Runs everything and prints the table."""
    images = images_argument()
    seconds: dict[str, list[float]] = {"none": [], "background": [], "waiting": []}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        datasets = keras_flowers.ImageDatasetLoader(images).load()
        for _ in range(2):
            seconds["none"] += epoch_seconds(datasets, epochs)
            checkpoint = TrainingCheckpoint(Path(folder, "a"))
            seconds["background"] += epoch_seconds(datasets, epochs, checkpoint)
            checkpoint = TrainingCheckpoint(Path(folder, "a"))
            callbacks = (checkpoint, Waits(checkpoint))
            seconds["waiting"] += epoch_seconds(datasets, epochs, *callbacks)
        size = checkpoint.path.stat().st_size
        alone = disk_seconds(Path(folder, "bytes"), size)
    print(machine())
    print(f"checkpoint {size / 1e6:.0f} MB; the disk alone needs {alone:.2f} s for it")
    base = statistics.median(seconds["none"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(
            f"{name:12}{median:8.2f} s an epoch {median - base:+8.2f} s"
            f" {100 * (median / base - 1):+6.1f} %"
        )


if __name__ == "__main__":
    main(int(sys.argv[2]) if len(sys.argv) > 2 else 4)
