"""A small run that a test kills and resumes: a model, its callbacks, its hashes."""

import hashlib
import json
import sys
from pathlib import Path

import keras
import numpy as np
from helpers import small_loader

import keras_flowers


def build_model(datasets):
    """Returns a model with every kind of state; its checkpoint is some megabytes."""
    model = keras_flowers.ImageClassifier(
        datasets.class_names,
        image_size=datasets.image_size,
        hidden_units=(1024, 64),
        dropout=0.2,
        seed=7,
    )
    model.compile(keras.optimizers.Adam(0.002))
    return model


def callbacks(folder):
    """Returns callbacks that change the training by what they have seen."""
    return [
        keras.callbacks.ReduceLROnPlateau(
            monitor="val_loss", factor=0.5, patience=1, min_delta=0.05
        ),
        keras.callbacks.ModelCheckpoint(
            Path(folder) / "best.weights.h5",
            monitor="val_accuracy",
            save_best_only=True,
            save_weights_only=True,
        ),
    ]


class Announce(keras.callbacks.Callback):
    """Says on stdout how far the training is, for who wants to kill it."""

    def on_train_begin(self, logs=None):
        """Says that the training begins."""
        self.say("training")

    def on_epoch_end(self, epoch, logs=None):
        """Says that an epoch was trained."""
        self.say("epoch")

    def say(self, word):
        """Writes a line at once."""
        sys.stdout.write(f"{word}\n")
        sys.stdout.flush()


def train(folder, epochs):
    """Trains or resumes the run in `folder/run` on photos in `folder/photos`."""
    folder = Path(folder)
    return keras_flowers.train(
        small_loader(folder, {"daisy": 30, "roses": 24, "tulips": 18}),
        build_model,
        run_directory=folder / "run",
        resume=True,
        epochs=epochs,
        early_stopping=epochs,  # never stops, and brings the best weights back
        verbose=0,
        callbacks=[*callbacks(folder), Announce()],
    )


def fingerprint(run):
    """Returns hashes of all variables and of the history but for its times."""
    digest = hashlib.sha256()
    for variable in [*run.model.variables, *run.model.optimizer.variables]:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)))
    timed = ("seconds", "photos_per_second")
    history = {n: v for n, v in run.history.items() if n not in timed}
    return digest.hexdigest(), repr(sorted(history.items()))


if __name__ == "__main__":
    finished = train(sys.argv[1], int(sys.argv[2]))
    sys.stdout.write(json.dumps(fingerprint(finished)))
