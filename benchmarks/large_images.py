"""Compares the first pass over large images with `image_dataset_from_directory`.

Draws 300 JPEG images of 12 megapixels, or as many as given, and reads them at 256x256:
once with `ImageDatasetLoader`, including the audit and the cache, and once with
`keras.utils.image_dataset_from_directory`, which neither audits nor caches. The passes
take turns, and the fastest of each counts.

    python benchmarks/large_images.py [--count 300] [--passes 3]
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
from PIL import Image

import keras_flowers

SIZE = (4000, 3000)


def draw(folder: Path, count: int) -> None:
    """Draws different images of two classes, with the detail of photos."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (90, 120, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
        path = folder / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        image.save(path, quality=90)


def read_with_loader(folder: Path) -> float:
    """Returns the seconds of a first pass with audit and cache."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        loader = keras_flowers.ImageDatasetLoader(
            folder, keep_near_duplicates_together=False, cache_directory=cache
        )
        datasets = loader.load()
        for part in (datasets.train, datasets.validation):
            for _ in part:
                pass
        return time.perf_counter() - start


def read_with_keras(folder: Path) -> float:
    """Returns the seconds of a first pass of Keras."""
    start = time.perf_counter()
    dataset = keras.utils.image_dataset_from_directory(
        folder, image_size=(256, 256), batch_size=32, verbose=False
    )
    for _ in dataset:
        pass
    return time.perf_counter() - start


def main() -> None:
    """Draws, reads in turn and prints the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--passes", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), arguments.count)
        ours, theirs = [], []
        for _ in range(arguments.passes):
            ours.append(read_with_loader(Path(folder)))
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            theirs.append(read_with_keras(Path(folder)))
            print(f"loader {ours[-1]:.2f} s, Keras {theirs[-1]:.2f} s", flush=True)
    print(f"Keras takes {min(theirs) / min(ours):.2f} times as long as the loader")
    print(f"peak memory after the last pass of the loader: {memory:.0f} MB")


if __name__ == "__main__":
    main()
