"""The search as one writes it with KerasTuner alone, over the lesson's model.

    python benchmarks/plain_search.py PHOTOS TRIALS MAX_EPOCHS

Prints one JSON line: the trials with their values and scores, the seconds of the whole
program and its peak memory in bytes.
"""

import json
import resource
import sys
import tempfile
import time

started = time.perf_counter()

import keras  # noqa: E402
import keras_tuner  # noqa: E402
from keras import layers  # noqa: E402
from plain_script import BATCH_SIZE, IMAGE_SIZE, augmentation, load  # noqa: E402

SEED = 43


class PlainHyperModel(keras_tuner.HyperModel):
    """The lesson's model with searched depth, widths and epochs."""

    def __init__(self, class_count: int, max_epochs: int) -> None:
        super().__init__()
        self.class_count = class_count
        self.max_epochs = max_epochs

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Returns the model, compiled as in the lesson."""
        model = keras.Sequential(
            [
                keras.Input((*IMAGE_SIZE, 3)),
                layers.Resizing(*IMAGE_SIZE),
                layers.Rescaling(1 / 255),
                *augmentation(),
                layers.Flatten(),
            ]
        )
        count = hp.Int("layers", 1, 3)
        for number in range(1, 4):
            if number == 1:
                units = hp.Int("units_1", 64, 512, step=64)
            else:
                with hp.conditional_scope("layers", list(range(number, 4))):
                    units = hp.Int(f"units_{number}", 64, 512, step=64)
            if number <= count:
                model.add(layers.Dense(units, activation="relu"))
        model.add(layers.Dense(self.class_count, activation="softmax"))
        hp.Int("epochs", max(1, self.max_epochs // 3), self.max_epochs)
        hp.Fixed("batch_size", BATCH_SIZE)
        model.compile(
            optimizer="adam",
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model

    def fit(self, hp, model, *args, **kwargs):
        """Trains for the epochs of the trial."""
        return model.fit(*args, epochs=hp.get("epochs"), **kwargs)


def main(folder: str, trials: int, max_epochs: int) -> None:
    """Searches and prints what it took."""
    train, validation = load(folder)
    with tempfile.TemporaryDirectory() as directory:
        tuner = keras_tuner.RandomSearch(
            PlainHyperModel(len(train.class_names), max_epochs),
            "val_accuracy",
            max_trials=trials,
            seed=SEED,
            directory=directory,
        )
        tuner.search(train, validation_data=validation, verbose=0)
        found = [
            {"values": dict(trial.hyperparameters.values), "score": trial.score}
            for trial in tuner.oracle.trials.values()
        ]
    result = {
        "trials": found,
        "seconds": time.perf_counter() - started,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
