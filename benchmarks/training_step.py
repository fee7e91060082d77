"""The whole training step against the sum of its bare parts, in one run.

    python benchmarks/training_step.py

The lesson's model on batches of 32 images of 256x256. Bare parts: the forward product
of the first layer, its weight gradient and its Adam update, each a compiled kernel of
its own, and OpenCV's warpAffine for the augmentation. The step reads its images from
an image cache through the training pipeline.
"""

import os
import tempfile
from pathlib import Path

from common import FAST, machine, seconds

os.environ.update(FAST, TF_CPP_MIN_LOG_LEVEL="2")

import cv2
import numpy as np
import tensorflow as tf
from plain_script import EpochTimes

import keras_flowers

BATCH, SIDE, UNITS = 32, 256, 256
INPUTS = SIDE * SIDE * 3


def bare_parts() -> dict[str, float]:
    """Returns the seconds of each part."""
    generator = np.random.default_rng(0)
    x = tf.constant(generator.random((BATCH, INPUTS), dtype=np.float32))
    w = tf.Variable(generator.random((INPUTS, UNITS), dtype=np.float32) * 0.01)
    dy = tf.constant(generator.random((BATCH, UNITS), dtype=np.float32))
    gradient = tf.constant(generator.random((INPUTS, UNITS), dtype=np.float32))
    first, second = tf.Variable(tf.zeros_like(w)), tf.Variable(tf.zeros_like(w))

    @tf.function(jit_compile=True)
    def forward() -> tf.Tensor:
        return x @ w

    @tf.function(jit_compile=True)
    def weight_gradient() -> tf.Tensor:
        return tf.matmul(x, dy, transpose_a=True)

    @tf.function(jit_compile=True)
    def adam() -> None:
        first.assign_add((gradient - first) * 0.1)
        second.assign_add((tf.square(gradient) - second) * 0.001)
        w.assign_sub(0.001 * first / (tf.sqrt(second) + 1e-7))

    images = generator.integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    matrices = [
        cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), angle, 1.05)
        for angle in generator.uniform(-36, 36, BATCH)
    ]

    def warp() -> None:
        for image, matrix in zip(images, matrices, strict=True):
            cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)

    return {
        "forward product": seconds(forward),
        "weight gradient": seconds(weight_gradient),
        "Adam update": seconds(adam),
        "OpenCV warpAffine": seconds(warp),
    }


def whole_step() -> float:
    """Returns the median over epochs of the seconds of a step."""
    times = EpochTimes()
    with tempfile.TemporaryDirectory() as folder:
        images = keras_flowers.write_sample(
            Path(folder, "photos"), images_per_class=160
        )
        loader = keras_flowers.ImageDatasetLoader(
            images, cache_directory=folder, validation_split=0.0
        )
        run = keras_flowers.train(loader, epochs=8, callbacks=[times], verbose=0)
    return float(np.median(times.seconds[1:])) / len(run.datasets.train)


def main() -> None:
    """Prints the parts, the step and their ratio."""
    parts = bare_parts()
    step = whole_step()
    again = bare_parts()
    # The mean of before and after: the machine may be at another speed by then.
    parts = {name: (parts[name] + again[name]) / 2 for name in parts}
    print(machine())
    for name, value in parts.items():
        print(f"{name:20}{value * 1000:8.1f} ms")
    total = sum(parts.values())
    print(f"{'sum of the parts':20}{total * 1000:8.1f} ms")
    print(f"{'whole step':20}{step * 1000:8.1f} ms")
    print(f"{'ratio':20}{step / total:8.2f}")


if __name__ == "__main__":
    main()
