"""Loading against image_dataset_from_directory: first pass and steady state.

    python benchmarks/loading.py PHOTOS

First pass: audit, decode and store every image, and one epoch read from the store,
against the first epoch of the plain loader plus one read of every file. Steady state:
images per second of later epochs. The files are read once before, so that both find
them in the page cache.
"""

import os
import tempfile
import time

from common import FAST, images_argument, machine, read_files

os.environ.update(FAST, TF_CPP_MIN_LOG_LEVEL="2")

from plain_script import load

import keras_flowers


def epoch(dataset: object) -> tuple[int, float]:
    """Iterates once; returns images and seconds."""
    begin = time.perf_counter()
    count = sum(len(labels) for _, labels in dataset)
    return count, time.perf_counter() - begin


def main() -> None:
    """Prints both comparisons."""
    folder = images_argument()
    read_files(folder)
    read = read_files(folder)

    begin = time.perf_counter()
    splits = load(folder)
    listed = time.perf_counter() - begin
    # Both splits: the first pass of ours decodes all images.
    plain_first = listed + sum(epoch(split)[1] for split in splits)
    plain = [epoch(splits[0]) for _ in range(2)]

    with tempfile.TemporaryDirectory() as cache:
        begin = time.perf_counter()
        datasets = keras_flowers.ImageDatasetLoader(
            folder, cache_directory=cache
        ).load()
        decoded = time.perf_counter() - begin
        epoch(datasets.train)
        epoch(datasets.validation)
        ours_first = time.perf_counter() - begin
        ours = [epoch(datasets.train) for _ in range(5)]

    print(machine())
    print("first pass over all photos")
    print(f"  plain loader, listing and first epoch    {plain_first:8.2f} s")
    print(f"  a read of every file                     {read:8.2f} s")
    print(f"  ours: audit, decode and store            {decoded:8.2f} s")
    print(f"  ours: the same and first epoch           {ours_first:8.2f} s")
    print(
        f"  ratio (ours / plain + read)              "
        f"{ours_first / (plain_first + read):8.2f}"
    )
    speeds = [max(n / s for n, s in runs) for runs in (plain, ours)]
    print("steady state, training photos per second")
    print(f"  plain loader                             {speeds[0]:8.0f}")
    print(f"  ours                                     {speeds[1]:8.0f}")
    print(f"  ratio                                    {speeds[1] / speeds[0]:8.1f}")


if __name__ == "__main__":
    main()
