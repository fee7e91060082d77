"""What watching a run costs: HistoryLogger and TensorBoard as `train` uses them.

    python benchmarks/watching.py PHOTOS [PAIRS]

The lesson's model on 256x256. In one training every second epoch is watched; the
medians of both kinds are compared. Then each kind of summary is timed alone.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from common import FAST, images_argument, machine, seconds

os.environ.update(FAST, TF_CPP_MIN_LOG_LEVEL="2")

import dataclasses

import keras
from keras_flowers.callbacks import HistoryLogger, TensorBoard, TensorBoardOptions
from keras_flowers.callbacks.event_writer import EventWriter
from keras_flowers.callbacks.run_record import RunContents, RunRecord

import keras_flowers
from keras_flowers.training.tensorboard_setup import tensorboard_of_run

NOTHING = TensorBoardOptions(
    augmented_images=0, confusion_matrix=False, class_scores=False, mistakes=0
)


class EverySecondEpoch(keras.callbacks.Callback):
    """Passes on the calls of every second epoch, as if there were no others."""

    async_safe = True

    def __init__(self, callbacks: list[keras.callbacks.Callback]) -> None:
        super().__init__()
        self.callbacks = callbacks
        self.plain: list[float] = []
        self.watched: list[float] = []
        self._is_watched = False
        self._begin = 0.0

    def set_model(self, model: keras.Model) -> None:
        """Passes the model on."""
        super().set_model(model)
        for callback in self.callbacks:
            callback.set_model(model)

    def _pass_on(self, hook: str, *arguments: object) -> None:
        if self._is_watched:
            for callback in self.callbacks:
                getattr(callback, hook)(*arguments)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Passes on the call."""
        for callback in self.callbacks:
            callback.on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        self._is_watched = epoch % 2 == 1
        self._begin = time.perf_counter()
        self._pass_on("on_epoch_begin", epoch // 2, logs)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Passes on the call."""
        self._pass_on("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Passes on the call."""
        self._pass_on("on_train_batch_end", batch, logs)

    def on_test_begin(self, logs: dict | None = None) -> None:
        """Passes on the call."""
        self._pass_on("on_test_begin", logs)

    def on_test_end(self, logs: dict | None = None) -> None:
        """Passes on the call."""
        self._pass_on("on_test_end", logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stops the clock."""
        self._pass_on("on_epoch_end", epoch // 2, logs)
        times = self.watched if self._is_watched else self.plain
        times.append(time.perf_counter() - self._begin)


@dataclasses.dataclass
class Run:
    """The model, its data, and the callbacks that watch it."""

    model: keras.Model
    datasets: keras_flowers.ImageDatasets
    tensorboard: TensorBoard
    logger: HistoryLogger


def prepare(images: str, folder: Path) -> Run:
    """Returns what `train` would train."""
    loader = keras_flowers.ImageDatasetLoader(images)
    config = keras_flowers.TrainingConfig(loader, lambda _: None)
    datasets = loader.load()
    model = keras_flowers.ImageClassifier(datasets.class_names, seed=loader.seed)
    model.compile()
    content = config.to_json(model)
    tensorboard = tensorboard_of_run(folder / "tensorboard", content, model, datasets)
    return Run(model, datasets, tensorboard, HistoryLogger(folder, 1))


def compare(run: Run, pairs: int) -> float:
    """Trains, prints what watched epochs cost more, returns the seconds of a plain one.

    Of the ten watched epochs of the default two draw mistakes, as in any run: the mean
    has them in it, the median has not.
    """
    watcher = EverySecondEpoch([run.logger, run.tensorboard])
    run.model.fit(
        run.datasets.train,
        validation_data=run.datasets.validation,
        epochs=2 * pairs,
        shuffle=False,
        callbacks=[watcher],
        verbose=0,
    )
    # The first of each kind traces and compiles.
    plain, watched = watcher.plain[1:], watcher.watched[1:]
    differences = [b - a for a, b in zip(plain, watched, strict=True)]
    print(f"{len(plain)} epochs of each kind, in turns{'median':>15}{'mean':>10}")
    for name, times in (("plain", plain), ("watched", watched)):
        median, mean = statistics.median(times), statistics.mean(times)
        print(f"  {name:36}{median:8.2f} s{mean:8.2f} s")
    median = statistics.median(differences) / statistics.median(plain)
    mean = statistics.mean(differences) / statistics.mean(plain)
    print(f"  {'overhead':36}{median:10.1%}{mean:10.1%}")
    return statistics.median(plain)


def show_costs(run: Run, folder: Path, epoch: float) -> None:
    """Prints what each kind of summary costs."""
    events = EventWriter(folder / "each")
    record = RunRecord(events, run.model, replace_options(run, NOTHING))
    (augmentation,) = (
        layer
        for layer in run.model.layers
        if isinstance(layer, keras_flowers.ImageAugmentation)
    )
    nothing = seconds(lambda: one_epoch(record, augmentation))

    def cost(**options: int | bool) -> float:
        contents = replace_options(run, dataclasses.replace(NOTHING, **options))
        record = RunRecord(events, run.model, contents)
        return seconds(lambda: one_epoch(record, augmentation), 9) - nothing

    logs = run.logger.history
    logs = {name: values[-1] for name, values in logs.items() if "loss" in name}
    plain = keras.callbacks.TensorBoard(str(folder / "plain"), write_graph=False)
    plain.set_model(run.model)
    every = TensorBoardOptions.images_every
    rows = {
        "history.json and history.csv": seconds(
            lambda: run.logger.on_epoch_end(0, logs)
        ),
        "metrics, as Keras writes them": seconds(lambda: keras_metrics(plain, logs)),
        "precision and recall": cost(class_scores=True),
        "confusion matrix": cost(confusion_matrix=True),
        f"augmented photos, every {every}th epoch": cost(
            augmented_images=TensorBoardOptions.augmented_images
        )
        / every,
        f"mistakes, every {every}th epoch": cost(
            mistakes=TensorBoardOptions.mistakes, images_every=1
        )
        / every,
    }
    print("mean of an epoch")
    for name, value in {**rows, "sum": sum(rows.values())}.items():
        print(f"  {name:36}{value * 1000:7.1f} ms{value / epoch:10.2%} of an epoch")
    print("once in a run")
    begin = time.perf_counter()
    record.start("benchmark", with_graph=True)
    print(f"  {'graphs':36}{time.perf_counter() - begin:8.2f} s")
    options = dataclasses.replace(NOTHING, embedded_images=1000)
    record = RunRecord(events, run.model, replace_options(run, options))
    begin = time.perf_counter()
    record.finish()
    print(f"  {'projector, on request':36}{time.perf_counter() - begin:8.2f} s")


def replace_options(run: Run, options: TensorBoardOptions) -> RunContents:
    """Returns the contents of the run with other options."""
    return dataclasses.replace(
        run.tensorboard.contents,
        options=options,
        hparams=None,
        configuration=None,
        images_per_epoch=None,
    )


def one_epoch(record: RunRecord, augmentation: keras.layers.Layer) -> None:
    """Does what is done after the validation of an epoch."""
    augmentation.seed_generator.next()  # as training does: images would be the same
    record.begin_epoch(0)
    record.end_validation()
    record.end_epoch()


def keras_metrics(callback: keras.callbacks.TensorBoard, logs: dict) -> None:
    """Writes what Keras's callback writes of an epoch."""
    callback.on_test_begin()
    callback.on_test_end({"loss": 1.0, "accuracy": 0.5})
    callback.on_epoch_end(0, {**logs, "accuracy": 0.5, "val_accuracy": 0.5})


def main(pairs: int) -> None:
    """Prints everything."""
    images = images_argument()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        run = prepare(images, Path(folder))
        epoch = compare(run, pairs)
        show_costs(run, Path(folder), epoch)


if __name__ == "__main__":
    main(int(sys.argv[2]) if len(sys.argv) > 2 else 11)
