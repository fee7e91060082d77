"""The table of other images in docs/accuracy.md.

    python benchmarks/other_images.py PHOTOS BACKBONE [ROW...]

PHOTOS has the folders train, validation and test, as in
github.com/alexeygrigorev/clothing-dataset-small. Trains with the defaults of
`keras-flowers train PHOTOS --backbone BACKBONE` once for each seed, and judges the
model, with its temperature, on the test images. The reference is scikit-learn's
logistic regression on the same features, with its default `C`, and with the one that
suits flower_photos. Prints a Markdown table. ROW names the rows to
measure: `frozen`, `views` and `scikit-learn`, all by default.
"""

import statistics
import sys

import keras
import numpy as np
from common import machine
from frozen_heads import scores, train_head
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import keras_flowers
from keras_flowers.training.feature_datasets import load_features

SEEDS = (42, 1, 2)
# By name: the options, views in training, and views over which the answer is averaged.
ROWS = {
    "frozen": ("defaults", 1, 1),
    "views": ("`--feature-views 3 --tta 3`", 3, 3),
}
STRENGTHS = (1.0, 0.01)


def measure(images, backbone, views, averaged):
    """Returns accuracy, negative log-likelihood and calibration error by seed."""
    found = []
    for seed in SEEDS:
        loader = keras_flowers.ImageDatasetLoader(
            images, image_size=backbone.image_size, seed=seed
        )
        model, datasets = train_head(loader, backbone, None, views)
        (features,) = load_features(datasets, model, {"test": averaged}).values()
        head = model.head()
        answers = [
            keras.ops.convert_to_numpy(
                model.scale_probabilities(head.predict(rows, verbose=0))
            )
            for rows in features
        ]
        found.append(scores(np.mean(answers, axis=0), datasets.labels("test")))
        print(views, seed, found[-1], file=sys.stderr, flush=True)
    return found


def measure_scikit_learn(images, backbone):
    """Returns the scores of logistic regression by the name of the row."""
    loader = keras_flowers.ImageDatasetLoader(images, image_size=backbone.image_size)
    datasets = loader.load()
    model = keras_flowers.ImageClassifier(datasets.class_names, backbone=backbone)
    arrays = load_features(datasets, model, {"train": 1, "test": 1})
    scaler = StandardScaler().fit(arrays["train"][0])
    train, test = (scaler.transform(arrays[split][0]) for split in ("train", "test"))
    found = {}
    for c in STRENGTHS:
        solver = LogisticRegression(C=c, max_iter=300)
        solver.fit(train, datasets.labels("train"))
        results = scores(solver.predict_proba(test), datasets.labels("test"))
        found[f"scikit-learn, `StandardScaler`, `C={c:g}`"] = [results]
    return found


def row(name, results):
    """Returns a row of the table."""
    accuracies, losses, errors = zip(*results, strict=True)
    accuracy = f"{statistics.mean(accuracies):.3f}"
    if len(results) > 1:
        accuracy += f" ({min(accuracies):.3f} to {max(accuracies):.3f})"
    loss, error = statistics.mean(losses), statistics.mean(errors)
    return f"| {name} | {accuracy} | {loss:.3f} | {error:.3f} |"


def main(images, network, names):
    """Prints the table."""
    backbone, results = keras_flowers.Backbone(network), {}
    for name in names or (*ROWS, "scikit-learn"):
        if name == "scikit-learn":
            results |= measure_scikit_learn(images, backbone)
        else:
            options, views, averaged = ROWS[name]
            results[options] = measure(images, backbone, views, averaged)
    print(machine())
    print()
    print("| way | test accuracy | negative log-likelihood | calibration error |")
    print("| --- | --- | ---: | ---: |")
    for name, of_seeds in results.items():
        print(row(name, of_seeds))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(f"usage: python {sys.argv[0]} PHOTOS BACKBONE [ROW...]")
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
