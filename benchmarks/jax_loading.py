"""On JAX: batches of NumPy arrays against a `tf.data` pipeline of the same images.

    python benchmarks/jax_loading.py PHOTOS

Each in its own process, from the same image cache: the seconds and the processor
time until the first batch is there, imports included, and the images per second of
later passes.
"""

import json
import os
import resource
import sys
import tempfile
import time

begin = time.perf_counter()


def processor_seconds() -> float:
    """Returns the processor time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(folder: str, cache: str, kind: str) -> dict[str, float]:
    """Returns the figures of one kind of pipelines."""
    import keras_flowers
    from keras_flowers.data import pipelines

    if kind == "tf.data":
        pipelines.needs_no_tensorflow = lambda: False
    datasets = keras_flowers.ImageDatasetLoader(folder, cache_directory=cache).load()
    next(iter(datasets.train.as_numpy_iterator()))
    start, start_processor = time.perf_counter() - begin, processor_seconds()
    speeds, processor = [], processor_seconds()
    passes = 5
    for _ in range(passes):
        pass_begin = time.perf_counter()
        count = sum(len(y) for _, y in datasets.train.as_numpy_iterator())
        speeds.append(count / (time.perf_counter() - pass_begin))
    processor = (processor_seconds() - processor) / passes / count
    return {
        "start": start,
        "start_processor": start_processor,
        "images_per_second": max(speeds),
        "processor_microseconds_per_image": processor * 1e6,
    }


def main() -> None:
    """Prints both."""
    from common import child, images_argument, machine

    folder = images_argument()
    with tempfile.TemporaryDirectory() as cache:
        for kind in ("arrays", "tf.data", "arrays", "tf.data"):
            # The first one decodes the images, and is measured again.
            found = child(__file__, "child", folder, cache, kind, KERAS_BACKEND="jax")
            print(f"{kind:10}" + "  ".join(f"{k} {v:.1f}" for k, v in found.items()))
    print(machine())


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        print(json.dumps(measure(*sys.argv[2:5])))
    else:
        main()
