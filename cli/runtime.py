"""Starts Keras for a command: fast, and without its start-up log."""

import contextlib
import faulthandler
import gc
import importlib.util
import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click
from keras_flowers_cli.allocator import keep_large_buffers
from rich.console import Console

_BACKENDS = ("tensorflow", "jax", "torch", "numpy", "openvino")
# What Keras and TensorFlow import if it is installed, for functions that no command
# calls: wrappers of scikit-learn, data frames, galleries of images. Together they take
# as long as Keras itself.
_UNUSED = ("cv2", "matplotlib", "pandas", "sklearn")


def start_keras() -> None:
    """Sets what must be set before TensorFlow starts, and starts it.

    Variables that the user set stay. What TensorFlow writes to stderr while it starts
    is shown only if the start fails, or if the user asked for it with 0 or 1 in
    `TF_CPP_MIN_LOG_LEVEL`: higher levels alone do not silence those lines.
    """
    _check_backend()
    keep_large_buffers()
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with _show_start():
        if level in ("0", "1"):
            _import_backend()
            return
        with stderr_on_failure_only():
            _import_backend()


def share_gpu_memory() -> None:
    """Keeps the backend from taking all memory of a GPU when it starts.

    The workers of a search compute on the GPUs that the command itself has used.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


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


@contextlib.contextmanager
def _show_start() -> Iterator[None]:
    """Says on a terminal that Keras is starting, which takes seconds."""
    if not sys.stderr.isatty():
        yield
        return
    # A second descriptor, because the first one is redirected meanwhile.
    with (
        os.fdopen(os.dup(2), "w") as terminal,
        Console(file=terminal).status("Starting Keras ..."),
    ):
        yield


def _import_backend() -> None:
    _hide_retracing_warnings()
    if "keras_flowers" in sys.modules:
        return
    with _pause_garbage_collection():
        is_tensorflow = _find_backend() == "tensorflow"
        with _hide_packages(*_UNUSED, *(["jax"] if is_tensorflow else [])):
            if is_tensorflow:
                import tensorflow as tf

                tf.config.list_physical_devices()
            import keras  # noqa: F401
        # What commands need of it comes from here on in no time.
        import keras_flowers  # noqa: F401


def _find_backend() -> str:
    """Returns the backend that Keras will choose."""
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    try:
        settings = json.loads((home / "keras.json").read_text())
        return str(settings.get("backend", "tensorflow"))
    except (OSError, ValueError, AttributeError):
        return "tensorflow"


@contextlib.contextmanager
def _hide_packages(*names: str) -> Iterator[None]:
    """Lets packages that are not imported yet look as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    # What Python documents for this: importing them raises a ModuleNotFoundError.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _pause_garbage_collection() -> Iterator[None]:
    """Lets what is imported alone, now and in later collections.

    Modules stay until the process ends, and with TensorFlow they are a million objects.
    To look through them again and again takes seconds, the last time at the end.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def keep_libraries_off_stdout() -> None:
    """Sends to stderr what libraries print, but not what Python prints.

    Gloo, which connects the processes of a training, prints on stdout.
    """
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(
        stdout, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors
    )


def end_failed_process(code: int) -> None:
    """Ends a process at once that has failed in a training of several processes.

    At a regular end, JAX waits for processes that may be gone.
    """
    jax = sys.modules.get("jax")
    if code and jax is not None and jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _hide_retracing_warnings() -> None:
    """Drops TensorFlow's warning that functions are traced again.

    A command has several models, and a search many: each of them has to be traced.
    """
    logging.getLogger("tensorflow").addFilter(_is_not_about_retracing)


def _is_not_about_retracing(record: logging.LogRecord) -> bool:
    return "tf.function retracing" not in record.getMessage()


@contextlib.contextmanager
def stderr_on_failure_only() -> Iterator[TextIO]:
    """Shows what is written to stderr, also by C++ code, only if the block fails.

    Yields:
        The real stderr, for what people should see meanwhile.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    visible = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")
    # If native code aborts, nothing below runs; this then says where it was.
    reports_crash = not faulthandler.is_enabled()
    if reports_crash:
        faulthandler.enable(stderr)
    with tempfile.TemporaryFile() as buffer:
        os.dup2(buffer.fileno(), 2)
        try:
            yield visible
        except BaseException:
            visible.flush()
            buffer.seek(0)
            os.write(stderr, buffer.read())
            raise
        finally:
            if reports_crash:
                faulthandler.disable()
            visible.close()
            os.dup2(stderr, 2)
            os.close(stderr)
