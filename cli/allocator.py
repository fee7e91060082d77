"""Lets the allocators of CPUs keep large buffers from one training step to the next.

By default they return each large buffer to the kernel and get it again in the next
step, which takes a third to a half of the time of a step with a wide dense layer.
"""

import ctypes
import os
import platform

_OF_TENSORFLOW = "TF_CPU_ALLOCATOR_USE_BFC"
# JAX takes its buffers from the C library. These are variables of glibc, the number of
# each parameter in `mallopt`, and its value: one arena for all threads, because others
# have a limited size; no separate mappings; and no memory that is given back.
_OF_GLIBC = {
    "MALLOC_ARENA_MAX": (-8, 1),
    "MALLOC_MMAP_MAX_": (-4, 0),
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1),
}


def keep_large_buffers() -> None:
    """Sets up the allocator of the backend, before the backend is imported.

    What the user has set stays. Processes that this one starts inherit the settings.
    """
    os.environ.setdefault(_OF_TENSORFLOW, "true")
    if os.environ.get("KERAS_BACKEND") != "jax" or platform.libc_ver()[0] != "glibc":
        return
    library = ctypes.CDLL(None)
    for name, (parameter, value) in _OF_GLIBC.items():
        if name not in os.environ and library.mallopt(parameter, value):
            # The library reads them only when a process starts.
            os.environ[name] = str(value)


def describe_allocator(backend: str) -> str:
    """Returns whether the allocator of a backend keeps large buffers."""
    if backend == "jax":
        keeps = all(
            os.environ.get(name) == str(value) for name, (_, value) in _OF_GLIBC.items()
        )
        if keeps:
            return "glibc, which keeps large buffers"
        return f"default (slower on a CPU: {', '.join(_OF_GLIBC)} are not set)"
    if os.environ.get(_OF_TENSORFLOW, "").lower() == "true":
        return "BFC"
    return f"default (slower: {_OF_TENSORFLOW} is not true)"
