"""Loads a saved classifier, or says what is wrong with the file."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras

from keras_flowers.errors import InputError, first_line
from keras_flowers.files import printable_path
from keras_flowers.models.image_classifier import OPTIMIZER_IS_BUILT, ImageClassifier


def load_classifier(path: str | os.PathLike[str]) -> ImageClassifier:
    """Returns the classifier in a `.keras` file.

    Raises:
        InputError: If the file holds none, or cannot be loaded.
    """
    file, shown = Path(path), printable_path(path)
    if file.suffix in (".h5", ".hdf5"):
        raise InputError(
            f"{shown} is an HDF5 file, which may hold code and does not keep the "
            "preprocessing. Save the model as a .keras file instead."
        )
    if file.suffix != ".keras" or not zipfile.is_zipfile(file):
        raise InputError(f"{shown} is not a model file; a .keras file is needed.")
    try:
        model = keras.models.load_model(file)
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise  # such as a file that may not be read
        # Keras raises almost any error for a file that is not a saved model.
        raise InputError(f"{shown} cannot be loaded: {first_line(error)}") from error
    if not isinstance(model, ImageClassifier):
        raise InputError(
            f"{shown} holds a {type(model).__name__}; an ImageClassifier is needed."
        )
    return model


def has_optimizer_state(path: str | os.PathLike[str]) -> bool:
    """Tells whether a `.keras` file has the state of the optimizer of its model.

    Raises:
        OSError, KeyError, ValueError or BadZipFile: If the file is damaged.
    """
    compiled = _read_config(path).get("compile_config") or {}
    return bool(compiled.get(OPTIMIZER_IS_BUILT, True))


def load_calibration(model: ImageClassifier, path: str | os.PathLike[str]) -> None:
    """Gives a model the temperature and the thresholds of one in a `.keras` file.

    Raises:
        OSError, KeyError, ValueError or BadZipFile: If the file is damaged.
    """
    config = _read_config(path)["config"]
    model.temperature = float(config.get("temperature", 1.0))
    model.thresholds = config.get("thresholds")


def _read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    with zipfile.ZipFile(path) as file:
        return dict(json.loads(file.read("config.json")))
