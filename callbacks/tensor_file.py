"""Named arrays in one file, in the format of safetensors.

The format is an eight-byte length, a header of JSON and the bytes of the arrays
(https://huggingface.co/docs/safetensors): it holds no code, its length says whether it
is whole, and writing it costs what the disk needs for its bytes.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from keras_flowers.files import temporary_sibling

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(bool),
    "U8": np.dtype("uint8"),
    "I8": np.dtype("int8"),
    "U16": np.dtype("uint16"),
    "I16": np.dtype("int16"),
    "U32": np.dtype("uint32"),
    "I32": np.dtype("int32"),
    "U64": np.dtype("uint64"),
    "I64": np.dtype("int64"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("float32"),
    "F64": np.dtype("float64"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
STORABLE = frozenset(_NAMES)
_ALIGNMENT = 8


def write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes arrays and texts into one file that is either whole or not there.

    Args:
        path: The file to write or to replace. Its folder must exist.
        tensors: Arrays of booleans, integers or floats, of any shape.
        metadata: Texts by name.

    Raises:
        InputError: The file cannot be written, with the reason: a full disk.
        KeyError: An array has a dtype that the format lacks.
    """
    arrays = {
        # Unlike np.ascontiguousarray it leaves a scalar one.
        name: np.asarray(array, order="C")
        for name, array in tensors.items()
    }
    header = _header(arrays, metadata)
    with temporary_sibling(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for array in arrays.values():
            file.write(array.reshape(-1).view(np.uint8).data)


def _header(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    fields: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        fields[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(fields).encode()
    return text + b" " * (-len(text) % _ALIGNMENT)


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads what `write_tensors` wrote.

    Args:
        path: The file.

    Returns:
        The arrays, which are read from the file when they are used, and the texts.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It cannot be read.
        ValueError: It is no such file, or not all of it.
    """
    content = np.memmap(path, np.uint8, mode="r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    try:
        fields = json.loads(content[8:start].tobytes())
        metadata = dict(fields.pop("__metadata__"))
        arrays = {
            name: _array(content[start:], field) for name, field in fields.items()
        }
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its header is damaged ({error})") from error
    if len(content) != start + sum(array.nbytes for array in arrays.values()):
        raise ValueError("it has another length than its header says")
    return arrays, metadata


def _array(content: np.ndarray, field: Mapping[str, Any]) -> np.ndarray:
    dtype, shape = _DTYPES[field["dtype"]], tuple(field["shape"])
    start, end = field["data_offsets"]
    if end - start != math.prod(shape) * dtype.itemsize or end > len(content):
        raise ValueError("it was cut short")
    return np.frombuffer(content[start:end].data, dtype).reshape(shape)
