"""Starts Keras as every command needs it: fast and quiet."""

import contextlib
import faulthandler
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import TextIO

import click

_BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")


def start_keras() -> None:
    """Sets what must be set before TensorFlow starts, and starts it.

    What the user set in the environment stays. TensorFlow's log of how it was built
    is dropped unless `TF_CPP_MIN_LOG_LEVEL` is set: that variable alone does not
    silence the lines it writes while it starts.
    """
    _check_backend()
    # Without it the CPU allocator returns every large buffer to the kernel after
    # each step: half of the time of a step of a wide dense layer.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        _load()
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    with stderr_on_failure_only():
        _load()


def _check_backend() -> None:
    backend = os.environ.get("KERAS_BACKEND", "")
    if not backend:
        return
    if backend not in _BACKENDS:
        raise click.ClickException(
            f"KERAS_BACKEND must be one of {', '.join(_BACKENDS)}. Received: {backend}"
        )
    if importlib.util.find_spec(backend) is None:
        raise click.ClickException(
            f"KERAS_BACKEND={backend} needs the package {backend}, "
            "which is not installed"
        )


def _load() -> None:
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.list_physical_devices()


@contextlib.contextmanager
def stderr_on_failure_only() -> Iterator[TextIO]:
    """Holds back what the process writes to stderr, C++ code included.

    Yields:
        The real stderr, for what people should see meanwhile.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    visible = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
    # Where native code aborts, nothing below runs; then this says where it was.
    reports_crash = not faulthandler.is_enabled()
    if reports_crash:
        faulthandler.enable(stderr)
    with tempfile.TemporaryFile() as held_back:
        os.dup2(held_back.fileno(), 2)
        try:
            yield visible
        except BaseException:
            visible.flush()
            held_back.seek(0)
            os.write(stderr, held_back.read())
            raise
        finally:
            if reports_crash:
                faulthandler.disable()
            visible.close()
            os.dup2(stderr, 2)
            os.close(stderr)
