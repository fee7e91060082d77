"""Peak memory of training as the number of images grows.

    python benchmarks/memory.py [SMALL LARGE]

Draws 2,000 and 100,000 small JPEG images, trains one epoch on each with the store on
disk, and prints the peak resident memory of both processes. Peak memory against the
plain script is in what `epoch_time.py` prints.
"""

import sys
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
from common import FAST, child, machine
from PIL import Image

SIDE = 32


def draw(folder: Path, count: int) -> None:
    """Writes `count` noisy images in two classes."""
    generator = np.random.default_rng(0)
    for name in ("dark", "light"):
        (folder / name).mkdir(parents=True)
    for index in range(count):
        name = ("dark", "light")[index % 2]
        pixels = generator.integers(0, 128, (SIDE, SIDE, 3), dtype=np.uint8)
        data = BytesIO()
        Image.fromarray(pixels + 127 * (index % 2)).save(data, "JPEG")
        (folder / name / f"{index:06}.jpg").write_bytes(data.getvalue())


def main(counts: list[int]) -> None:
    """Prints the peak memory for each number of images."""
    print(machine())
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            draw(Path(scratch, "photos"), count)
            result = child(
                "benchmarks/our_run.py",
                f"{scratch}/photos",
                "1",
                str(SIDE),
                **FAST,
                KERAS_FLOWERS_CACHE=f"{scratch}/cache",
            )
        print(
            f"{count:8} photos: peak {result['peak_bytes'] / 1e9:.2f} GB, "
            f"{result['seconds']:.0f} s in all"
        )


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [2_000, 100_000])
