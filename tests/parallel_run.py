"""One process of a training on JAX: `parallel_run.py FOLDER EPOCHS [options]`.

Prints the epochs, and what has come of the training as JSON in the last line.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import keras
import numpy as np
from helpers import small_loader

import keras_flowers
from keras_flowers.training.processes import NUMBER


class Steps(keras.callbacks.Callback):
    """Counts the steps, says which epoch is over, and waits after one of them."""

    def __init__(self, wait_after=None):
        super().__init__()
        self.count = 0
        self.wait_after = wait_after

    def on_train_batch_end(self, batch, logs=None):
        """Counts."""
        self.count += 1

    def on_epoch_begin(self, epoch, logs=None):
        """Says how many epochs are complete, and on disk."""
        if epoch:
            time.sleep(0.2)
            sys.stdout.write(f"epoch {epoch}\n")
            sys.stdout.flush()
        if epoch == self.wait_after and keras.backend.backend() == "jax":
            import jax

            # Process 0 goes on, into a step that waits for the others.
            time.sleep(300 if jax.process_index() else 0)


def build_model(datasets):
    """Returns a model whose steps depend on everything that must be the same."""
    model = keras_flowers.ImageClassifier(
        datasets.class_names,
        image_size=datasets.image_size,
        hidden_units=(8,),
        augmentation=False,
        dropout=0.2,
        seed=7,
    )
    model.compile(keras.optimizers.Adam(0.01))
    return model


def train(folder, epochs, devices, run, wait_after):
    """Trains, and returns what tells one training from another."""
    steps = Steps(wait_after)
    result = keras_flowers.train(
        small_loader(folder, batch_size=8),
        build_model,
        epochs=epochs,
        early_stopping=epochs,
        class_weights="balanced",
        run_directory=folder / "run" if run else None,
        resume=run,
        devices=devices,
        tensorboard=False,
        verbose=0,
        callbacks=[steps],
    )
    compiled = [m for one in result.model.metrics for m in getattr(one, "metrics", ())]
    matrix = next(metric.matrix for metric in compiled if hasattr(metric, "matrix"))
    weights = b"".join(np.asarray(w).tobytes() for w in result.model.get_weights())
    return {
        "history": result.history,
        "steps": int(keras.ops.convert_to_numpy(result.model.optimizer.iterations)),
        "confusions": matrix.tolist(),  # of the last validation
        "weights": hashlib.sha256(weights).hexdigest(),
        "directory": None if result.directory is None else str(result.directory),
    }


def train_on_features(folder):
    """Trains a head with a cache that no other process has; returns what came of it."""
    computed = []

    def count(stage, done, total):
        if stage == "features" and done == total:
            computed.append(total)

    cache = folder / f"cache-{os.environ.get(NUMBER, 'alone')}"
    loader = small_loader(folder, batch_size=8, cache_directory=cache)
    result = keras_flowers.train(
        loader,
        lambda datasets: keras_flowers.ImageClassifier(
            datasets.class_names, backbone=folder / "network.keras"
        ),
        epochs=1,
        progress=count,
        verbose=0,
    )
    (features,) = cache.rglob("*.f32")
    index = json.loads(features.with_suffix(".json").read_text())
    rows = np.fromfile(features, np.float32).reshape(len(index["checksums"]), -1)
    order = np.argsort(index["checksums"])
    return {
        "computed": sum(computed),
        "images": len(rows),
        "features": hashlib.sha256(rows[order].tobytes()).hexdigest(),
        "history": result.history,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("epochs", type=int)
    parser.add_argument("--devices", type=int, nargs="*")
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--wait-after", type=int)
    parser.add_argument("--features", action="store_true")
    given = parser.parse_args()
    if given.features:
        sys.stdout.write(f"{json.dumps(train_on_features(given.folder))}\n")
        sys.stdout.flush()
    results = [
        train(given.folder, given.epochs, devices, given.run, given.wait_after)
        for devices in given.devices or [None]
    ]
    sys.stdout.write(json.dumps(results if given.devices else results[0]))
