"""The table of other images in docs/accuracy.md.

    python benchmarks/other_images.py PHOTOS BACKBONE [ROW...]

PHOTOS has the folders train, validation and test, as in
github.com/alexeygrigorev/clothing-dataset-small. Runs `keras-flowers train PHOTOS` with
the options of each row, once for each seed, and judges the saved model on the test
images with `keras-flowers evaluate`. The reference is scikit-learn's logistic
regression on the same features, with its default `C`, and with the `C` that suits the
validation images best. Prints a Markdown table. ROW names the rows to measure; all but
`fine-tuned` by default.
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import KERAS_FLOWERS, machine, timed
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import keras_flowers
from keras_flowers.evaluation.calibration import measure_calibration
from keras_flowers.training.feature_datasets import load_features

SEEDS = (42, 1, 2)
# By name: what is added to both commands, and to that of training.
ROWS = {
    "frozen": ("", ""),
    "views": ("--tta 3", "--feature-views 3"),
    "fine-tuned": ("", "--fine-tune-epochs 6"),
}
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)


def measure(images, backbone, name):
    """Returns accuracy, negative log-likelihood and calibration error by seed."""
    both, training = (options.split() for options in ROWS[name])
    seeds = SEEDS if name != "fine-tuned" else SEEDS[:1]
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in seeds:
            run = f"{scratch}/{seed}"
            timed(
                *(KERAS_FLOWERS, "train", images, "--backbone", backbone, *both),
                *(*training, "--seed", str(seed), "--run-dir", run, "--json"),
            )
            _, printed = timed(
                *(KERAS_FLOWERS, "evaluate", f"{run}/model.keras", images, *both),
                *("--split-manifest", f"{run}/split.json", "--split", "test"),
                "--json",
            )
            test = json.loads(printed)
            found.append((test["accuracy"], test["loss"], test["calibration"]["error"]))
            print(name, seed, found[-1], file=sys.stderr, flush=True)
    return found


def measure_scikit_learn(images, backbone):
    """Returns the scores of logistic regression by the name of the row."""
    backbone = keras_flowers.Backbone(backbone)
    loader = keras_flowers.ImageDatasetLoader(images, image_size=backbone.image_size)
    datasets = loader.load()
    model = keras_flowers.ImageClassifier(datasets.class_names, backbone=backbone)
    splits = ("train", "validation", "test")
    arrays = load_features(datasets, model, dict.fromkeys(splits, 1))
    labels = {split: datasets.labels(split) for split in splits}
    scaler = StandardScaler().fit(arrays["train"][0])
    rows = {split: scaler.transform(arrays[split][0]) for split in splits}
    fitted = {
        c: LogisticRegression(C=c, max_iter=500).fit(rows["train"], labels["train"])
        for c in STRENGTHS
    }

    def judge(c, split):
        return scores(fitted[c].predict_proba(rows[split]), labels[split])

    best = min(STRENGTHS, key=lambda c: judge(c, "validation")[1])
    return {
        "scikit-learn, `StandardScaler`, `C=1`": [judge(1.0, "test")],
        f"the same, `C={best}` by the validation images": [judge(best, "test")],
    }


def scores(probabilities, labels):
    """Returns accuracy, negative log-likelihood and calibration error."""
    is_right = probabilities.argmax(axis=1) == labels
    own = probabilities[np.arange(len(labels)), labels]
    error = measure_calibration(probabilities.max(axis=1), is_right).error
    return is_right.mean(), -np.log(np.maximum(own, 1e-12)).mean(), error


def row(name, results):
    """Returns a row of the table."""
    accuracies, losses, errors = zip(*results, strict=True)
    accuracy = f"{statistics.mean(accuracies):.3f}"
    if len(results) > 1:
        accuracy += f" ({min(accuracies):.3f} to {max(accuracies):.3f})"
    loss, error = statistics.mean(losses), statistics.mean(errors)
    return f"| {name} | {accuracy} | {loss:.3f} | {error:.3f} |"


def main(images, backbone, names):
    """Prints the table."""
    results = {}
    for name in names or ("frozen", "views", "scikit-learn"):
        if name == "scikit-learn":
            results |= measure_scikit_learn(images, backbone)
            continue
        options = " ".join(filter(None, ROWS[name]))
        shown = f"`--backbone {Path(backbone).name} {options}".strip() + "`"
        results[shown] = measure(images, backbone, name)
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
