"""Runs the model file of each format with the library of that format."""

import importlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from keras_flowers_runtime.errors import InputError, first_line
from keras_flowers_runtime.files import printable_path
from keras_flowers_runtime.images import Pixels

# The module to import, and the extra of keras-flowers that installs it.
_MODULES = {
    "onnx": ("onnxruntime", "onnx"),
    "litert": ("ai_edge_litert.interpreter", "litert"),
    "openvino": ("openvino", "openvino"),
    "saved_model": ("tensorflow", None),
}


class Engine(Protocol):
    """Computes the outputs of a model; safe to call from several threads."""

    def __call__(self, images: Pixels, /) -> list[np.ndarray]:
        """Maps uint8 `(batch, height, width, 3)` to float32 arrays.

        The first are the probabilities, `(batch, classes)`. A model that tells how
        similar images are to its training images also returns that, `(batch,)`.
        """


def load_engine(
    format: str,  # noqa: A002  the word of the command line and of `keras.Model.export`
    path: Path,
    threads: int | None = None,
) -> Engine:
    """Loads a model file.

    Args:
        format: `"onnx"`, `"litert"`, `"openvino"` or `"saved_model"`.
        path: The file, or the folder of a SavedModel.
        threads: How many threads compute; `None` for one per core. TensorFlow decides
            for itself.

    Raises:
        InputError: If the library is not installed, or the file cannot be loaded.
    """
    module = _import_library(format)
    load = _LOADERS[format]
    try:
        return load(module, path, threads or os.cpu_count() or 1)
    except Exception as error:
        # Every library raises its own kinds of errors for a damaged file.
        raise InputError(
            f"`{printable_path(path)}` cannot be loaded: {first_line(error)}"
        ) from error


def _import_library(format: str) -> ModuleType:  # noqa: A002
    name, extra = _MODULES[format]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = f"keras-flowers[{extra}]" if extra else name
        raise InputError(
            f"A model in the format {format} needs {name.partition('.')[0]}, which is "
            f'not installed: pip install "{package}"'
        ) from error


def _load_onnx(onnxruntime: Any, path: Path, threads: int) -> Engine:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that wait for work leave the cores to those that decode.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda images: _in_order(session.run(None, {name: images}))


def _load_openvino(openvino: Any, path: Path, threads: int) -> Engine:
    # Left to itself it computes in bfloat16 where the processor can: answers would
    # differ from machine to machine.
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(os.fspath(path), "CPU", settings)
    local = threading.local()

    def run(images: Pixels) -> list[np.ndarray]:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        # Copies, because the next call writes to the same memory.
        return _in_order(map(np.array, local.request.infer([images]).values()))

    return run


def _load_litert(interpreter: Any, path: Path, threads: int) -> Engine:
    model = interpreter.Interpreter(os.fspath(path), num_threads=threads)
    inputs, outputs = model.get_input_details()[0], model.get_output_details()
    model.allocate_tensors()
    lock = threading.Lock()
    shape = tuple(inputs["shape"])

    def run(images: Pixels) -> list[np.ndarray]:
        nonlocal shape
        with lock:
            if images.shape != shape:
                model.resize_tensor_input(inputs["index"], images.shape)
                model.allocate_tensors()
                shape = images.shape
            model.set_tensor(inputs["index"], images)
            model.invoke()
            return _in_order(model.get_tensor(one["index"]) for one in outputs)

    return run


def _load_saved_model(tensorflow: Any, path: Path, _: int) -> Engine:
    model = tensorflow.saved_model.load(os.fspath(path))

    def run(images: Pixels) -> list[np.ndarray]:
        found = model.serve(tensorflow.constant(images))
        return _in_order(found.values() if isinstance(found, dict) else [found])

    return run


def _in_order(outputs: Iterable[Any]) -> list[np.ndarray]:
    """Returns outputs, the probabilities first; not all converters keep the order."""
    return sorted(map(np.asarray, outputs), key=np.ndim, reverse=True)


_LOADERS: dict[str, Callable[[Any, Path, int], Engine]] = {
    "onnx": _load_onnx,
    "litert": _load_litert,
    "openvino": _load_openvino,
    "saved_model": _load_saved_model,
}
