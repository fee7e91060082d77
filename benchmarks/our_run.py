"""The same training as `plain_script.py` with this package, as a child process.

    python benchmarks/our_run.py PHOTOS EPOCHS [IMAGE_SIZE]

Prints one JSON line as `plain_script.py` does.
"""

import json
import resource
import sys
import time

started = time.perf_counter()

from plain_script import EpochTimes  # noqa: E402

import keras_flowers  # noqa: E402


def main(folder: str, epochs: int, side: int) -> None:
    """Trains and prints what it took."""
    times = EpochTimes()
    loader = keras_flowers.ImageDatasetLoader(folder, image_size=(side, side))
    run = keras_flowers.train(loader, epochs=epochs, verbose=0, callbacks=[times])
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result = {
        "epochs": times.seconds,
        "seconds": time.perf_counter() - started,
        "peak_bytes": usage.ru_maxrss * 1024,
        "val_accuracy": run.history["val_accuracy"],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int((sys.argv[3:] or [256])[0]))
