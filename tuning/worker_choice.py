"""`workers="auto"`: how many workers suit a search on this machine."""

import dataclasses
import math
import os

import keras
from keras_flowers.tuning.hypermodel import ImageClassifierHyperModel

from keras_flowers.data.inspection import processors

# Dividing the work of narrower layers among cores takes longer than doing it.
WIDTH_FOR_ONE_THREAD = 1024
# A step of a dense network works on weights, gradients and two moments of Adam. What
# the last cache of a processor cannot hold comes from the memory, which decides how
# fast the step is and which all cores share.
_BYTES_PER_WEIGHT = 16
_CACHE_MEGABYTES = 32
# More cores hardly speed up the convolutions of one batch of this size of images.
_CORES_FOR_CONVOLUTIONS = 4
# What a worker needs for itself: TensorFlow, the pipeline, a small model.
_BYTES_PER_WORKER = 2**30


@dataclasses.dataclass(frozen=True)
class WorkerChoice:
    """How many workers a search gets, and why.

    Attributes:
        count: The number of workers, at least 1.
        reason: Why, as part of a sentence.
    """

    count: int
    reason: str

    def __str__(self) -> str:
        """Returns one line for people."""
        return f"{self.count} worker{'s' * (self.count > 1)}: {self.reason}"


def choose_workers(hypermodel: ImageClassifierHyperModel, trials: int) -> WorkerChoice:
    """Returns how many workers finish a search on this machine soonest.

    Args:
        hypermodel: What a trial trains.
        trials: Maximum number of trials; more workers would have nothing to do.
    """
    gpus = len(visible_gpus())
    if gpus:
        count = min(gpus, trials)
        return WorkerChoice(count, f"one for each of {gpus} GPU{'s' * (gpus > 1)}")
    choice = _choose_for_cores(hypermodel, processors())
    most = max(1, _memory_bytes() // _BYTES_PER_WORKER)
    if most < min(choice.count, trials):
        return WorkerChoice(most, f"each needs about 1 GiB of memory, {choice.reason}")
    return dataclasses.replace(choice, count=min(choice.count, trials))


def _choose_for_cores(
    hypermodel: ImageClassifierHyperModel, cores: int
) -> WorkerChoice:
    if has_small_trials(hypermodel):
        return WorkerChoice(
            cores, f"a trial on cached features keeps {_describe_share(1, cores)} busy"
        )
    if hypermodel.backbones.exist:
        count = max(1, cores // _CORES_FOR_CONVOLUTIONS)
        return WorkerChoice(
            count,
            "a network with a backbone keeps "
            f"{_describe_share(_CORES_FOR_CONVOLUTIONS, cores)} busy",
        )
    megabytes = _BYTES_PER_WEIGHT * _count_weights(hypermodel) / 1e6
    if megabytes > _CACHE_MEGABYTES:
        return WorkerChoice(
            1,
            f"each step of the largest network works on {megabytes:,.0f} MB, so the "
            "memory is the limit and a second worker would gain nothing",
        )
    share = _describe_share(1, cores)
    return WorkerChoice(cores, f"a network this small keeps {share} busy")


def _describe_share(used: int, cores: int) -> str:
    if used >= cores:
        return "the only core" if cores == 1 else f"all {cores} cores"
    return f"{'only one' if used == 1 else f'up to {used}'} of {cores} cores"


def has_small_trials(hypermodel: ImageClassifierHyperModel) -> bool:
    """Tells whether trials train heads that are too small to divide among cores."""
    is_narrow = hypermodel.units.high <= WIDTH_FOR_ONE_THREAD
    return hypermodel.trains_on_features and is_narrow


def _count_weights(hypermodel: ImageClassifierHyperModel) -> int:
    """Returns the weights of the first layer of the largest network without a backbone.

    The others are few compared with it.
    """
    inputs = 3 * math.prod(hypermodel.loader.image_size)
    return inputs * (hypermodel.units.high if hypermodel.layers.high else 1)


def visible_gpus() -> list[str]:
    """Returns what `CUDA_VISIBLE_DEVICES` calls the GPUs that Keras's backend uses."""
    count = _count_gpus()
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in listed.split(",") if name.strip()]
    return names[:count] if names else [str(index) for index in range(count)]


def _count_gpus() -> int:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Unlike Keras's list, this one starts nothing on the devices.
        return len(tf.config.list_physical_devices("GPU"))
    try:
        return len(keras.distribution.list_devices("gpu"))
    except (AttributeError, RuntimeError):
        return 0  # The backend has no such devices, or cannot list them.


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**63  # An operating system that does not tell.
