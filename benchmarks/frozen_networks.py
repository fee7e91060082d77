"""Images per second of a frozen backbone, by library and precision.

    python benchmarks/frozen_networks.py PHOTOS BACKBONE [COUNT]

Computes the features of COUNT images (512 by default) with each way in turns, batch by
batch, so that all of them share what else the machine does. Prints images per second,
the speed relative to Keras's `predict_on_batch`, by the clock and in processor time,
which depends less on what else the machine does, and how far the features are from
Keras's.
Without OpenVINO, or on a processor without a precision, that row is missing.
"""

import importlib.util
import sys
import time

import numpy as np
from common import machine

import keras_flowers
from keras_flowers import inference

BATCH = 32


def ways(network, sample):
    """Returns by name what computes features."""
    found = {
        "Keras, `predict_on_batch`": network.predict_on_batch,
        "TensorFlow, constant weights": inference.build_predictor(network, 1, sample),
    }
    if importlib.util.find_spec("openvino") is None:
        return found
    many = 1_000_000
    for precision in inference.PRECISIONS:
        if inference.supported_precision(precision) == precision:
            found[f"OpenVINO, {precision}"] = inference.build_predictor(
                network, many, sample, precision
            )
    return found


def main(images, path, count):
    """Prints the table."""
    backbone = keras_flowers.Backbone(path)
    datasets = keras_flowers.ImageDatasetLoader(
        images, image_size=backbone.image_size, validation_split=0.0
    ).load()
    batches = [
        batch for batch, _ in datasets.train.take(count // BATCH).as_numpy_iterator()
    ]
    classifier = keras_flowers.ImageClassifier(datasets.class_names, backbone=backbone)
    found = ways(classifier.feature_extractor(), np.concatenate(batches[:4]))
    seconds = dict.fromkeys(found, 0.0)
    processor = dict.fromkeys(found, 0.0)
    features = {name: [] for name in found}
    for predict in found.values():
        predict(batches[0])  # traces, and plans its memory
    for batch in batches:
        for name, predict in found.items():
            begin, used = time.perf_counter(), time.process_time()
            features[name].append(np.asarray(predict(batch)))
            seconds[name] += time.perf_counter() - begin
            processor[name] += time.process_time() - used
    print(machine())
    print()
    print(
        "| way | images per second | speed by the clock | "
        "processor time per image (ms) | speed in processor time | "
        "largest difference | largest feature |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    first = next(iter(found))
    exact = np.concatenate(features[first])
    for name in found:
        difference = np.abs(np.concatenate(features[name]) - exact).max()
        rate = len(exact) / seconds[name]
        ratio = seconds[first] / seconds[name]
        print(
            f"| {name} | {rate:.0f} | {ratio:.2f} | "
            f"{1000 * processor[name] / len(exact):.1f} | "
            f"{processor[first] / processor[name]:.2f} | {difference:.1g} | "
            f"{np.abs(exact).max():.1f} |"
        )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(f"usage: python {sys.argv[0]} PHOTOS BACKBONE [COUNT]")
    main(*sys.argv[1:3], int(sys.argv[3]) if len(sys.argv) > 3 else 512)
