"""The table of heads on a frozen backbone in docs/accuracy.md.

    python benchmarks/frozen_heads.py PHOTOS BACKBONE [SEED...]

Trains each head on the same four fifths of the images, and judges it on the other
fifth, which nothing is chosen by. The seed decides the split; 42, 1 and 2 by default.
Prints accuracy, negative log-likelihood and expected calibration error: the mean of the
seeds, and of the accuracy the range. The reference is scikit-learn's logistic
regression on the same features, with two values of `C` that suit these images.

The features of all views are computed once, in the cache that KERAS_FLOWERS_CACHE
names, or the default one.
"""

import statistics
import sys

import keras
import numpy as np
from common import machine
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import keras_flowers
from keras_flowers.evaluation.calibration import measure_calibration
from keras_flowers.training.feature_datasets import load_features

EPOCHS = 15
# By name: hidden units, views in training, views over which the answer is averaged.
ROWS = {
    "hidden layers 256 and 128, Adam (`--hidden-units 256,128`)": ((256, 128), 1, 1),
    "linear head": (None, 1, 1),
    "linear head, `--tta 2`": (None, 1, 2),
    "linear head, `--feature-views 2 --tta 2`": (None, 2, 2),
    "linear head, `--feature-views 3 --tta 3`": (None, 3, 3),
    "linear head, `--feature-views 5 --tta 5`": (None, 5, 5),
}
VIEWS = max(max(row[1:]) for row in ROWS.values())


def scores(probabilities, labels):
    """Returns accuracy, negative log-likelihood and calibration error."""
    is_right = probabilities.argmax(axis=1) == labels
    own = probabilities[np.arange(len(labels)), labels]
    error = measure_calibration(probabilities.max(axis=1), is_right).error
    return is_right.mean(), -np.log(np.maximum(own, 1e-12)).mean(), error


def train_head(loader, backbone, hidden_units, views):
    """Returns the model and data of a run with the defaults of the command line."""

    def build(datasets):
        model = keras_flowers.ImageClassifier(
            datasets.class_names,
            hidden_units=hidden_units,
            backbone=backbone.for_another_model(),
            seed=loader.seed,
        )
        model.compile()
        steps = EPOCHS * len(datasets.train)
        highest = float(model.optimizer.learning_rate)
        rate = keras_flowers.warm_up_and_cosine(highest, steps)
        optimizer = type(model.optimizer).from_config(
            {**model.optimizer.get_config(), "learning_rate": rate}
        )
        model.compile(optimizer)
        return model

    run = keras_flowers.train(
        loader, build, epochs=EPOCHS, feature_views=views, verbose=0
    )
    return run.model, run.datasets


def measure(images, backbone, seed):
    """Returns the scores of each row for one split."""
    loader = keras_flowers.ImageDatasetLoader(
        images,
        image_size=backbone.image_size,
        validation_split=0.0,
        test_split=0.2,
        seed=seed,
    )
    found = {}
    for name, (hidden_units, views, averaged) in ROWS.items():
        model, datasets = train_head(loader, backbone, hidden_units, views)
        features = load_features(datasets, model, {"train": 1, "test": VIEWS})
        head, labels = model.head(), datasets.labels("test")
        answers = [head.predict(f, verbose=0) for f in features["test"][:averaged]]
        found[name] = scores(np.mean(answers, axis=0), labels)
        print(seed, name, found[name], file=sys.stderr, flush=True)
    for name, averaged, c in (
        ("scikit-learn, `StandardScaler`, `C=0.01`", 1, 0.01),
        ("the same on 5 views, averaged, `C=0.03`", VIEWS, 0.03),
    ):
        arrays = load_features(datasets, model, {"train": averaged, "test": averaged})
        scaler = StandardScaler()
        rows = scaler.fit_transform(np.concatenate(arrays["train"]))
        solver = LogisticRegression(C=c, max_iter=300)
        solver.fit(rows, np.tile(datasets.labels("train"), averaged))
        answers = [solver.predict_proba(scaler.transform(f)) for f in arrays["test"]]
        found[name] = scores(np.mean(answers, axis=0), labels)
        print(seed, name, found[name], file=sys.stderr, flush=True)
    return found


def main(images, network, seeds):
    """Prints the table."""
    backbone = keras_flowers.Backbone(network)
    found = [measure(images, backbone, seed) for seed in seeds]
    print(machine())
    print()
    print("| head | accuracy | negative log-likelihood | calibration error |")
    print("| --- | --- | ---: | ---: |")
    for name in found[0]:
        rows = list(zip(*(of_seed[name] for of_seed in found), strict=True))
        accuracy, loss, error = (statistics.mean(map(float, row)) for row in rows)
        span = f"({min(rows[0]):.3f} to {max(rows[0]):.3f})"
        print(f"| {name} | {accuracy:.3f} {span} | {loss:.3f} | {error:.3f} |")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(f"usage: python {sys.argv[0]} PHOTOS BACKBONE [SEED...]")
    keras.utils.set_random_seed(0)
    main(sys.argv[1], sys.argv[2], [int(seed) for seed in sys.argv[3:]] or [42, 1, 2])
