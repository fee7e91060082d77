"""Starts Keras for a command: fast, and without its start-up log."""

import contextlib
import faulthandler
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

import click

_BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")


def start_keras() -> None:
    """Sets what must be set before TensorFlow starts, and starts it.

    Variables that the user set stay. What TensorFlow writes to stderr while it starts
    is shown only if the start fails, or if the user set `TF_CPP_MIN_LOG_LEVEL`: that
    variable alone does not silence those lines.
    """
    _check_backend()
    # Without it the CPU allocator returns every large buffer to the kernel after each
    # step, which takes half the time of a step with a wide dense layer.
    os.environ.setdefault("TF_CPU_ALLOCATOR_USE_BFC", "true")
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        _import_backend()
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    with stderr_on_failure_only():
        _import_backend()


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


def _import_backend() -> None:
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.list_physical_devices()


def hide_retracing_warnings() -> None:
    """Drops TensorFlow's warning that functions are traced again.

    A search builds many models, and each of them has to be traced.
    """
    logging.getLogger("tensorflow").addFilter(_is_not_about_retracing)


def _is_not_about_retracing(record: logging.LogRecord) -> bool:
    return "tf.function retracing" not in record.getMessage()


@contextlib.contextmanager
def stderr_on_failure_only() -> Iterator[None]:
    """Shows what is written to stderr, also by C++ code, only if the block fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    # If native code aborts, nothing below runs; this then says where it was.
    reports_crash = not faulthandler.is_enabled()
    if reports_crash:
        faulthandler.enable(stderr)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        except BaseException:
            buffer.seek(0)
            os.write(stderr, buffer.read())
            raise
        finally:
            if reports_crash:
                faulthandler.disable()
            os.dup2(stderr, 2)
            os.close(stderr)
