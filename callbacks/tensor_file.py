"""Named arrays in one file of safetensors, written atomically."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from keras_flowers.files import remove_leftovers, temporary_sibling

STORABLE = frozenset(
    np.dtype(name)
    for name in (
        "bool",
        *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
        *("float16", "float32", "float64", ml_dtypes.bfloat16),
    )
)
# Under such a name safetensors writes before it renames the file.
_TEMPORARY_NAME = re.compile(r"\.tmp[A-Za-z0-9]{6}")
_ERROR_NUMBER = re.compile(r"\(os error (\d+)\)")


def write_tensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes arrays and texts into one file, atomically.

    Args:
        path: The file to write or to replace. Its folder must exist.
        tensors: Arrays of a dtype in `STORABLE`, of any shape.
        metadata: Texts by name.

    Raises:
        InputError: If the file cannot be written, with the reason, such as a full disk.
    """
    # safetensors takes the memory of an array as it is. Unlike np.ascontiguousarray,
    # this keeps scalars.
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with temporary_sibling(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(arrays, temporary, dict(metadata))
        except SafetensorError as error:
            number = _ERROR_NUMBER.search(str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        temporary.chmod(mode)  # safetensors 0.8 leaves it to its owner alone


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Reads a file of safetensors.

    Args:
        path: The file.

    Returns:
        The arrays and the texts.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is damaged or not a file of safetensors.
    """
    try:
        with safe_open(path, framework="np") as file:
            return file.get_tensors(), file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def remove_unfinished(folder: Path) -> None:
    """Removes the files of a process that was killed while it wrote tensors.

    For folders in which nobody else writes at that time.

    Args:
        folder: An existing folder.
    """
    remove_leftovers(folder)
    for path in folder.iterdir():
        if _TEMPORARY_NAME.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)
