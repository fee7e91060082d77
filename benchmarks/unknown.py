"""The table of images of other things in docs/accuracy.md.

    python benchmarks/unknown.py PHOTOS OTHER_PHOTOS WEIGHTS
        [--leave-out CLASS,...] [--json FILE] [SEED...]

Trains a linear head on the features of WEIGHTS, once for each seed; 42, 1 and 2 by
default. A fifth of PHOTOS is for validation, a fifth is for testing. The model then
tells, as with `--unknown auto`, which of the test images and which of OTHER_PHOTOS show
none of its classes. Prints the area under the ROC curve of its score, and the parts of
unknown and of known images that it rejects: the mean of the seeds and the range. The
features decide, so one epoch is enough.

With `--leave-out`, each of these classes of PHOTOS is also left out of the training
images, one after the other, and its images are the unknown ones; `all` leaves out every
class.

The cache is the one that KERAS_FLOWERS_CACHE names, or the default one.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import keras
import numpy as np
from common import machine
from sklearn.metrics import roc_auc_score

import keras_flowers
from keras_flowers.training.feature_datasets import load_features


def train(images, backbone, seed, left_out=()):
    """Returns the model of a run, and the paths of its test images."""
    loader = keras_flowers.ImageDatasetLoader(
        images,
        image_size=backbone.image_size,
        test_split=0.2,
        seed=seed,
        split="random",
        exclude=list(left_out) or None,
    )

    def build(datasets):
        model = keras_flowers.ImageClassifier(
            datasets.class_names, backbone=backbone.for_another_model(), seed=seed
        )
        model.compile()
        return model

    run = keras_flowers.train(loader, build, epochs=1, verbose=0)
    return run.model, [record.path for record in run.datasets.records("test")]


class Features:
    """The features of all images of a folder, by path."""

    def __init__(self, folder, model):
        loader = keras_flowers.ImageDatasetLoader(
            folder, image_size=model.image_size, validation_split=0.0, split="random"
        )
        datasets = loader.load()
        (rows,) = load_features(datasets, model, {"train": 1})["train"]
        paths = [record.path for record in datasets.records("train")]
        self._rows = dict(zip(paths, rows, strict=True))

    def of(self, paths):
        """Returns the features of some images."""
        return np.stack([self._rows[path] for path in paths])

    @property
    def paths(self):
        """The paths of all images below the folder."""
        return list(self._rows)


def judge(model, known, unknown):
    """Returns the area under the ROC curve, rejected unknown and rejected known."""
    detector, head = model.unknown_detector, model.head()
    scores, rejected = [], []
    for features in (known, unknown):
        found = model.scale_probabilities(head.predict(features, verbose=0))
        probabilities = keras.ops.convert_to_numpy(found)
        scores.append(detector.similarities(features))
        rejected.append(detector.find_unknown(probabilities, features).mean())
    is_known = np.repeat([True, False], [len(known), len(unknown)])
    area = roc_auc_score(is_known, np.concatenate(scores))
    return {"auroc": area, "unknown": rejected[1], "known": rejected[0]}


def row(name, results):
    """Returns a row of the table."""
    cells = [name]
    for figure in ("auroc", "unknown", "known"):
        values = [result[figure] for result in results]
        low, high = min(values), max(values)
        cells.append(f"{statistics.mean(values):.3f} ({low:.3f} to {high:.3f})")
    return f"| {' | '.join(cells)} |"


def measure_others(images, others, backbone, seeds):
    """Returns the results with the images of another folder as the unknown ones."""
    found, features, unknown = [], None, None
    for seed in seeds:
        model, known = train(images, backbone, seed)
        if features is None:
            features, other = Features(images, model), Features(others, model)
            unknown = other.of(other.paths)
        found.append(judge(model, features.of(known), unknown))
        report("others", seed, len(known), len(unknown), found[-1])
    return found


def measure_left_out(images, name, backbone, seeds):
    """Returns the results with the images of one class as the unknown ones."""
    found, features = [], None
    for seed in seeds:
        model, known = train(images, backbone, seed, [name])
        features = features or Features(images, model)
        unknown = [p for p in features.paths if p.startswith(f"{name}/")]
        found.append(judge(model, features.of(known), features.of(unknown)))
        report(f"without {name}", seed, len(known), len(unknown), found[-1])
    return found


def report(name, seed, known, unknown, result):
    """Prints a result on stderr."""
    figures = ", ".join(f"{key} {value:.3f}" for key, value in result.items())
    line = f"{name}, seed {seed}: {figures}; {known} known, {unknown} unknown images"
    print(line, file=sys.stderr, flush=True)


def main():
    """Prints the table, and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", metavar="PHOTOS")
    parser.add_argument("others", metavar="OTHER_PHOTOS")
    parser.add_argument("weights", metavar="WEIGHTS")
    parser.add_argument("seeds", metavar="SEED", nargs="*", type=int)
    parser.add_argument("--leave-out", metavar="CLASS,...", default="")
    parser.add_argument("--json", metavar="FILE", type=Path)
    given = parser.parse_intermixed_args()
    seeds = given.seeds or [42, 1, 2]
    names = [name for name in given.leave_out.split(",") if name]
    if names == ["all"]:
        names = sorted(p.name for p in Path(given.images).iterdir() if p.is_dir())
    backbone = keras_flowers.Backbone(given.weights)
    others = Path(given.others).resolve().name
    results = {others: measure_others(given.images, given.others, backbone, seeds)}
    for name in names:
        found = measure_left_out(given.images, name, backbone, seeds)
        results[f"{name}, left out"] = found
    print(machine())
    print()
    print("| unknown images | AUROC | unknown rejected | known rejected |")
    print("| --- | --- | --- | --- |")
    for name, of_seeds in results.items():
        print(row(name, of_seeds))
    if given.json is not None:
        found = {"machine": machine(), "seeds": seeds, "results": results}
        given.json.write_text(json.dumps(found, indent=1, default=float) + "\n")


if __name__ == "__main__":
    main()
