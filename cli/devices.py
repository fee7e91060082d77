"""What the computation runs on, and what is missing for a GPU."""

import ctypes
import importlib
import importlib.util
import os
import shutil
from pathlib import Path

import keras


def gpus() -> list[str]:
    """Returns the names of the GPUs that Keras's backend uses."""
    if keras.backend.backend() == "torch":
        torch = importlib.import_module("torch")
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    try:
        return list(keras.distribution.list_devices("gpu"))
    except (RuntimeError, ValueError):
        return []  # JAX raises where it has no such platform.
    except AttributeError:
        return []  # This backend knows no devices.


def count_devices() -> int:
    """Returns how many devices `train --devices all` uses."""
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        return 1
    if backend == "tensorflow":
        tensorflow = importlib.import_module("tensorflow")
        return len(gpus() or tensorflow.config.list_logical_devices("CPU"))
    return int(importlib.import_module("jax").local_device_count())


def describe_device() -> str:
    """Returns one line on the device that the run uses."""
    backend = keras.backend.backend()
    names = gpus()
    if names:
        return f"{len(names)} GPU ({', '.join(names)}), {backend} backend"
    return f"CPU with {os.cpu_count()} cores, {backend} backend"


def missing_for_gpu() -> str | None:
    """Returns what keeps Keras's backend from using a GPU, or `None` if it uses one."""
    if gpus():
        return None
    if not _has_nvidia_device():
        return "no NVIDIA GPU is visible on this machine"
    if not _loads("libcuda.so.1"):
        return "the NVIDIA driver (libcuda.so.1) is not installed"
    return _missing_for_backend(keras.backend.backend())


def _missing_for_backend(backend: str) -> str:
    if backend == "jax":
        return (
            "JAX does not see the GPU; it needs its CUDA plugin: "
            'pip install "jax[cuda12]"'
        )
    if backend == "torch":
        return "PyTorch does not see the GPU; it needs a build of PyTorch with CUDA"
    if backend != "tensorflow":
        return f"the {backend} backend of Keras uses no NVIDIA GPU"
    for library in ("libcudart.so.12", "libcudnn.so.9", "libcublas.so.12"):
        if not _loads(library) and not _in_site_packages(library):
            return f"{library} is missing; install keras-flowers[gpu]"
    return (
        "TensorFlow does not see the GPU although driver and libraries are there; "
        "see CUDA_VISIBLE_DEVICES and the TensorFlow log (TF_CPP_MIN_LOG_LEVEL=0)"
    )


def mixed_precision_policy() -> str:
    """Returns the dtype policy for mixed precision on the device.

    bfloat16 where the hardware computes with it, because it needs no loss scaling;
    float16 on NVIDIA GPUs before compute capability 8.0, which do not have it.
    """
    if keras.backend.backend() != "tensorflow" or not gpus():
        return "mixed_bfloat16"
    import tensorflow as tf

    details = tf.config.experimental.get_device_details(
        tf.config.list_physical_devices("GPU")[0]
    )
    capability = details.get("compute_capability", (0, 0))
    return "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16"


def _has_nvidia_device() -> bool:
    present = any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()
    return present or shutil.which("nvidia-smi") is not None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _in_site_packages(library: str) -> bool:
    """Says whether the library came with TensorFlow's `and-cuda` packages."""
    packages = importlib.util.find_spec("nvidia")
    folders = packages.submodule_search_locations if packages else None
    return any(
        next(Path(folder).rglob(library), None) is not None for folder in folders or ()
    )
