"""The whole training step against the sum of its bare parts, in one run.

    python benchmarks/training_step.py [tensorflow|jax|both]

The lesson's model on batches of 32 images of 256x256. Bare parts: the forward product
of the first layer, its weight gradient and its Adam update, each a compiled kernel of
its own, and OpenCV's warpAffine for the augmentation. The step reads its images from
an image cache through the training pipeline. `both` measures the step on TensorFlow and
on JAX alternately, each in its own process, and prints their ratio.
"""

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from common import FAST, child, machine, seconds

BATCH, SIDE, UNITS = 32, 256, 256
# Of `both`: the backends take turns, because the machine may change its speed.
ROUNDS = 2


def opencv_warp() -> float:
    """Returns the seconds of a batch in OpenCV."""
    import cv2
    import numpy as np

    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    matrices = [
        cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), angle, 1.05)
        for angle in generator.uniform(-36, 36, BATCH)
    ]

    def warp() -> None:
        for image, matrix in zip(images, matrices, strict=True):
            cv2.warpAffine(image, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)

    return seconds(warp)


def whole_step(images_per_class: int = 160, epochs: int = 8) -> float:
    """Returns the median over epochs of the seconds of a step."""
    from plain_script import EpochTimes

    import keras_flowers

    times = EpochTimes()
    with tempfile.TemporaryDirectory() as folder:
        images = keras_flowers.write_sample(
            Path(folder, "photos"), images_per_class=images_per_class
        )
        loader = keras_flowers.ImageDatasetLoader(
            images, cache_directory=folder, validation_split=0.0
        )
        run = keras_flowers.train(loader, epochs=epochs, callbacks=[times], verbose=0)
    return statistics.median(times.seconds[1:]) / len(run.datasets.train)


def compare_with_parts(backend: str) -> None:
    """Prints the parts, the step and their ratio."""
    os.environ.update(FAST, TF_CPP_MIN_LOG_LEVEL="2", KERAS_BACKEND=backend)
    from bare_parts import bare_parts

    def measure() -> dict[str, float]:
        parts = bare_parts(BATCH, SIDE, UNITS)
        return {**parts, "OpenCV warpAffine": opencv_warp()}

    parts = measure()
    step = whole_step()
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


def compare_backends() -> None:
    """Prints the step on both backends and their ratio."""
    steps: dict[str, list[float]] = {"tensorflow": [], "jax": []}
    for _ in range(ROUNDS):
        for backend, found in steps.items():
            found.append(child(__file__, "step", KERAS_BACKEND=backend, **FAST)["step"])
    print(machine())
    best = {backend: min(found) for backend, found in steps.items()}
    for backend, value in best.items():
        print(f"{backend:20}{value * 1000:8.1f} ms")
    print(f"{'jax / tensorflow':20}{best['jax'] / best['tensorflow']:8.2f}")


def main() -> None:
    """Measures what the argument says."""
    what = sys.argv[1] if len(sys.argv) > 1 else "tensorflow"
    if what == "step":
        print(json.dumps({"step": whole_step(32, 4)}))
    elif what == "both":
        compare_backends()
    elif what in ("tensorflow", "jax"):
        compare_with_parts(what)
    else:
        raise SystemExit(f"usage: python {sys.argv[0]} [tensorflow|jax|both]")


if __name__ == "__main__":
    main()
