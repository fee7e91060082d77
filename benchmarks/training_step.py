"""The whole training step against the sum of its bare parts, in one run.

    python benchmarks/training_step.py [tensorflow|jax|both] [--small]

The lesson's model on batches of 32 images of 256x256. Bare parts: the forward product
of the first layer, its weight gradient and its Adam update, each a compiled kernel of
its own, and OpenCV's warpAffine for the augmentation. The step reads its images from
an image cache through the training pipeline. `both` measures the step on TensorFlow and
on JAX alternately, each in its own process, and prints their ratio, and the processor
time of a step. `--small` does the same with small images and few steps: it shows that
everything works.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

from common import child, machine, seconds
from keras_flowers_cli.allocator import keep_large_buffers

BATCH, UNITS = 32, 256
# Of `both`: the backends take turns, because the machine may change its speed.
ROUNDS = 2


def opencv_warp(side: int) -> float:
    """Returns the seconds of a batch in OpenCV."""
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH, side, side, 3), dtype=np.uint8)
    matrices = [
        cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.05)
        for angle in generator.uniform(-36, 36, BATCH)
    ]

    def warp() -> None:
        for image, matrix in zip(images, matrices, strict=True):
            cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)

    return seconds(warp)


def whole_step(side: int, images_per_class: int, epochs: int) -> dict[str, float]:
    """Returns the seconds and the processor seconds of a step, medians over epochs."""
    from plain_script import EpochTimes

    import keras_flowers

    class BothTimes(EpochTimes):
        def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
            super().on_epoch_begin(epoch, logs)
            self.processor_begin = time.process_time()

        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            super().on_epoch_end(epoch, logs)
            processor.append(time.process_time() - self.processor_begin)

    times, processor = BothTimes(), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        images = keras_flowers.write_sample(
            Path(folder, "photos"), images_per_class=images_per_class
        )
        loader = keras_flowers.ImageDatasetLoader(
            images, (side, side), BATCH, validation_split=0.0, cache_directory=folder
        )
        run = keras_flowers.train(loader, epochs=epochs, callbacks=[times], verbose=0)
    steps = len(run.datasets.train)
    return {
        "step": statistics.median(times.seconds[1:]) / steps,
        "processor": statistics.median(processor[1:]) / steps,
    }


def start(backend: str) -> None:
    """Sets what must be set before Keras is imported."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="2", KERAS_BACKEND=backend)
    keep_large_buffers()


def compare_with_parts(backend: str, small: bool) -> None:
    """Prints the parts, the step and their ratio."""
    start(backend)
    side, images_per_class, epochs = (32, 8, 3) if small else (256, 160, 8)
    from bare_parts import bare_parts

    def measure() -> dict[str, float]:
        parts = bare_parts(BATCH, side, UNITS)
        return {**parts, "OpenCV warpAffine": opencv_warp(side)}

    parts = measure()
    step = whole_step(side, images_per_class, epochs)["step"]
    again = measure()
    # The mean of before and after: the machine may be at another speed by then.
    parts = {name: (parts[name] + again[name]) / 2 for name in parts}
    print(f"{machine()}, {backend} backend")
    for name, value in parts.items():
        print(f"{name:20}{value * 1000:8.1f} ms")
    total = sum(parts.values())
    print(f"{'sum of the parts':20}{total * 1000:8.1f} ms")
    print(f"{'whole step':20}{step * 1000:8.1f} ms")
    print(f"{'ratio':20}{step / total:8.2f}")


def compare_backends(small: bool) -> None:
    """Prints the step on both backends and their ratio."""
    rounds: dict[str, list[dict[str, float]]] = {"tensorflow": [], "jax": []}
    options = ["--small"] if small else []
    for _ in range(1 if small else ROUNDS):
        for backend, found in rounds.items():
            found.append(child(__file__, backend, "--child", *options))
    print(machine())
    best = {
        backend: {name: min(one[name] for one in found) for name in found[0]}
        for backend, found in rounds.items()
    }
    for backend, of_step in best.items():
        step, processor = of_step["step"] * 1000, of_step["processor"] * 1000
        print(f"{backend:20}{step:8.1f} ms{processor:8.1f} ms of processor time")
    ratios = [best["jax"][name] / best["tensorflow"][name] for name in best["jax"]]
    print(f"{'jax / tensorflow':20}{ratios[0]:8.2f}   {ratios[1]:8.2f}")


def main() -> None:
    """Measures what the arguments say."""
    parser = argparse.ArgumentParser()
    backends = ("tensorflow", "jax", "both")
    parser.add_argument("backend", nargs="?", default="tensorflow", choices=backends)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        start(given.backend)
        print(json.dumps(whole_step(*((32, 8, 3) if given.small else (256, 64, 4)))))
    elif given.backend == "both":
        compare_backends(given.small)
    else:
        compare_with_parts(given.backend, given.small)


if __name__ == "__main__":
    main()
