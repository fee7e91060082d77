"""The search of a head as one writes it with KerasTuner alone, over a frozen backbone.

    python benchmarks/plain_head_search.py PHOTOS BACKBONE_FILE TRIALS EPOCHS

Prints one JSON line: the seconds of each trial, its score and its values, and the
seconds of the whole program.
"""

import json
import sys
import tempfile
import time

started = time.perf_counter()

import keras  # noqa: E402
import keras_tuner  # noqa: E402
from keras import layers  # noqa: E402
from plain_script import BATCH_SIZE  # noqa: E402

SEED = 43
DROPOUT = 0.3


class PlainHeadHyperModel(keras_tuner.HyperModel):
    """Dense layers of searched depth and widths behind a frozen backbone."""

    def __init__(self, backbone: keras.Model, class_count: int, epochs: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_count = class_count
        self.epochs = epochs

    def build(self, hp: keras_tuner.HyperParameters) -> keras.Model:
        """Returns the compiled model."""
        model = keras.Sequential([self.backbone])
        if len(self.backbone.output_shape) == 4:
            model.add(layers.GlobalAveragePooling2D())
        model.add(layers.LayerNormalization())
        count = hp.Int("layers", 1, 3)
        for number in range(1, 4):
            if number == 1:
                units = hp.Int("units_1", 64, 512, step=64)
            else:
                with hp.conditional_scope("layers", list(range(number, 4))):
                    units = hp.Int(f"units_{number}", 64, 512, step=64)
            if number <= count:
                model.add(layers.Dense(units, activation="relu"))
                model.add(layers.Dropout(DROPOUT))
        model.add(layers.Dense(self.class_count, activation="softmax"))
        hp.Fixed("epochs", self.epochs)
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


class TimedSearch(keras_tuner.RandomSearch):
    """Notes how long each trial took."""

    def run_trial(self, trial, *args, **kwargs):
        """Runs the trial between two looks at the clock."""
        begin = time.perf_counter()
        result = super().run_trial(trial, *args, **kwargs)
        trial_seconds.append(time.perf_counter() - begin)
        return result


trial_seconds: list[float] = []


def main(folder: str, backbone_file: str, trials: int, epochs: int) -> None:
    """Searches and prints what it took."""
    backbone = keras.models.load_model(backbone_file, compile=False)
    backbone.trainable = False
    train, validation = keras.utils.image_dataset_from_directory(
        folder,
        image_size=backbone.input_shape[1:3],
        batch_size=BATCH_SIZE,
        validation_split=0.2,
        subset="both",
        seed=42,
        verbose=False,
    )
    with tempfile.TemporaryDirectory() as directory:
        tuner = TimedSearch(
            PlainHeadHyperModel(backbone, len(train.class_names), epochs),
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
        "trial_seconds": trial_seconds,
        "seconds": time.perf_counter() - started,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:5]))
