"""Loads a saved classifier, or says what is wrong with the file."""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from keras_flowers_cli.errors import first_line

if TYPE_CHECKING:
    from keras_flowers.models.image_classifier import ImageClassifier


def load_classifier(path: Path) -> "ImageClassifier":
    """Returns the `ImageClassifier` in a `.keras` file, or raises `InputError`."""
    import keras

    from keras_flowers.errors import InputError
    from keras_flowers.files import printable_path
    from keras_flowers.models.image_classifier import ImageClassifier

    shown = printable_path(path)
    if path.suffix in (".h5", ".hdf5"):
        raise InputError(
            f"{shown} is an HDF5 file, which may hold code and does not keep the "
            "preprocessing. Save the model as a .keras file instead."
        )
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise InputError(f"{shown} is not a model file; a .keras file is needed.")
    try:
        model = keras.models.load_model(path)
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
