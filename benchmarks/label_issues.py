"""The table of wrong labels in docs/accuracy.md.

    python benchmarks/label_issues.py PHOTOS BACKBONE
        [--views N]... [--json FILE] [SEED...]

Gives 5 % of the images another class at random, and ranks all images by how well their
label fits. Prints the average precision of this ranking, and precision and recall of
the images that an audit reports as `label_issue`: the mean of the seeds, and of the
average precision the range. The seed decides which labels are wrong; 1, 2 and 3 by
default, by which nothing was chosen. Some labels of the photos may be wrong to begin
with: to find those counts as an error here.

The reference is the plain way: the out-of-fold probability that the default linear
head gives to the label.

The features of all views are computed once, in the cache that KERAS_FLOWERS_CACHE
names, or the default one.
"""

import argparse
import dataclasses
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from common import machine
from sklearn.metrics import average_precision_score

import keras_flowers
from keras_flowers.data.split_assignment import number_groups
from keras_flowers.evaluation.label_issues import (
    find_label_issues,
    judge_labels,
    rank_labels,
)
from keras_flowers.evaluation.neighbors import find_neighbors
from keras_flowers.evaluation.out_of_fold import out_of_fold_probabilities
from keras_flowers.training.feature_datasets import load_features

FRACTION = 0.05
VIEWS = (1, 2, 3, 5)


@dataclasses.dataclass
class Images:
    """The audited images, and their features in all views."""

    audit: keras_flowers.Audit
    labels: np.ndarray
    groups: np.ndarray
    features: np.ndarray


def load(folder, network, views):
    """Returns the images, with the features of the largest number of views."""
    backbone = keras_flowers.Backbone(network)
    loader = keras_flowers.ImageDatasetLoader(
        folder, image_size=backbone.image_size, validation_split=0.0
    )
    datasets = loader.load()
    model = keras_flowers.ImageClassifier(datasets.class_names, backbone=backbone)
    features = load_features(datasets, model, {"train": max(views)})["train"]
    audit = datasets.audit
    return Images(
        audit,
        datasets.labels("train"),
        number_groups(audit.images, audit.near_duplicate_groups),
        np.stack(features),
    )


def flip(labels, seed):
    """Returns labels of which a fraction is wrong, and which these are."""
    generator = np.random.default_rng(seed)
    count = round(FRACTION * len(labels))
    wrong = generator.choice(len(labels), count, replace=False)
    classes = labels.max() + 1
    given = labels.copy()
    given[wrong] = (labels[wrong] + generator.integers(1, classes, count)) % classes
    return given, given != labels


def with_labels(audit, labels):
    """Returns the audit of the same images with other labels."""
    images = tuple(
        dataclasses.replace(record, class_name=audit.class_names[label])
        for record, label in zip(audit.images, labels.tolist(), strict=True)
    )
    return dataclasses.replace(audit, images=images)


def measure(images, views, seed):
    """Returns the figures of the audit's way for one seed."""
    given, is_wrong = flip(images.labels, seed)
    features = images.features[:views]
    begin, cpu = time.perf_counter(), cpu_seconds()
    neighbors = find_neighbors(features)
    judged = judge_labels(features, given, neighbors, images.groups)
    issues = find_label_issues(with_labels(images.audit, given), judged)
    seconds, cpu = time.perf_counter() - begin, cpu_seconds() - cpu
    found = {issue.paths[0] for issue in issues}
    reported = np.array([record.path in found for record in images.audit.images])
    return {
        "average_precision": precision_of(is_wrong, rank_labels(given, judged)),
        "precision": float(is_wrong[reported].mean()),
        "recall": float(reported[is_wrong].mean()),
        "reported": len(found),
        "seconds": seconds,
        "cpu_seconds": cpu,
    }


def measure_plain_way(images, seed):
    """Returns the average precision of the default head alone for one seed."""
    given, is_wrong = flip(images.labels, seed)
    found = out_of_fold_probabilities(images.features[0], given, groups=images.groups)
    scores = found[np.arange(len(given)), given]
    return {"average_precision": precision_of(is_wrong, scores)}


def precision_of(is_wrong, scores):
    """Returns the average precision of a ranking, the lowest score first."""
    return float(average_precision_score(is_wrong, -scores))


def cpu_seconds():
    """Returns the processor time of this process so far, of all cores."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def row(name, results):
    """Returns a row of the table."""
    scores = [result["average_precision"] for result in results]
    cells = [
        name,
        f"{statistics.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})",
    ]
    for figure, form in (
        ("precision", ".2f"),
        ("recall", ".2f"),
        ("cpu_seconds", ".0f"),
    ):
        values = [result[figure] for result in results if figure in result]
        cells.append(format(statistics.mean(values), form) if values else "")
    return f"| {' | '.join(cells)} |"


def main():
    """Prints the table, and writes all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", metavar="PHOTOS")
    parser.add_argument("backbone", metavar="BACKBONE")
    parser.add_argument("seeds", metavar="SEED", nargs="*", type=int, default=[1, 2, 3])
    parser.add_argument("--json", metavar="FILE", type=Path)
    parser.add_argument(
        "--views", metavar="N", type=int, action="append", help="rows to measure"
    )
    arguments = parser.parse_intermixed_args()
    of_rows = arguments.views or VIEWS
    images = load(arguments.images, arguments.backbone, of_rows)
    plain = "default head, `score` alone, 1 view"
    results = {plain: [measure_plain_way(images, seed) for seed in arguments.seeds]}
    for views in of_rows:
        name = f"`audit --backbone --feature-views {views}`"
        results[name] = [measure(images, views, seed) for seed in arguments.seeds]
        print(name, results[name], file=sys.stderr, flush=True)
    print(machine())
    print()
    print("| way | average precision | precision | recall | CPU seconds |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name, of_seeds in results.items():
        print(row(name, of_seeds))
    if arguments.json is not None:
        found = {"machine": machine(), "seeds": arguments.seeds, "results": results}
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
