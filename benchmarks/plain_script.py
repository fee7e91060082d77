"""The lesson as it stands: the plain Keras script that everything is compared with.

    python benchmarks/plain_script.py PHOTOS [EPOCHS]

Prints one JSON line: the seconds of each epoch, the seconds of the whole program and
its peak memory in bytes.
"""

import json
import resource
import sys
import time

started = time.perf_counter()

import keras  # noqa: E402
from keras import layers  # noqa: E402

IMAGE_SIZE = (256, 256)
BATCH_SIZE = 32


def load(folder: str) -> tuple:
    """Returns training and validation data as the lesson loads them."""
    return keras.utils.image_dataset_from_directory(
        folder,
        image_size=IMAGE_SIZE,
        batch_size=BATCH_SIZE,
        validation_split=0.2,
        subset="both",
        seed=42,
        verbose=False,
    )


def augmentation() -> list[keras.layers.Layer]:
    """Returns the four layers of the lesson."""
    return [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.1),
        layers.RandomContrast(0.1, value_range=(0, 1)),
    ]


def build(class_count: int) -> keras.Model:
    """Returns the model of the lesson, compiled."""
    model = keras.Sequential(
        [
            keras.Input((*IMAGE_SIZE, 3)),
            layers.Resizing(*IMAGE_SIZE),
            layers.Rescaling(1 / 255),
            *augmentation(),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dense(128, activation="relu"),
            layers.Dense(class_count, activation="softmax"),
        ]
    )
    model.compile(
        optimizer="adam",
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


class EpochTimes(keras.callbacks.Callback):
    """Collects the seconds of each epoch, validation included."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Starts the list."""
        del logs
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Starts the clock."""
        del epoch, logs
        self._begin = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stops the clock."""
        del epoch, logs
        self.seconds.append(time.perf_counter() - self._begin)


def main(folder: str, epochs: int) -> None:
    """Trains and prints what it took."""
    train, validation = load(folder)
    model = build(len(train.class_names))
    times = EpochTimes()
    history = model.fit(
        train,
        validation_data=validation,
        epochs=epochs,
        callbacks=[times],
        verbose=0,
    )
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "epochs": times.seconds,
        "seconds": time.perf_counter() - started,
        "peak_bytes": usage.ru_maxrss * 1024,
        "val_accuracy": history.history["val_accuracy"],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 15)
