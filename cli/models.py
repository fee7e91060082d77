"""Loads a saved classifier, and says what is wrong with a file that is none."""

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_flowers.image_classifier import ImageClassifier


def load_classifier(path: Path) -> "ImageClassifier":
    """Returns the `ImageClassifier` in a `.keras` file, or raises `InputError`."""
    import keras

    from keras_flowers.errors import InputError
    from keras_flowers.image_classifier import ImageClassifier

    if path.suffix in (".h5", ".hdf5"):
        raise InputError(
            f"{path} is an HDF5 file, which may hold code and does not keep the "
            "preprocessing. Save the model as a .keras file."
        )
    if path.suffix != ".keras" or not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no model file; a .keras file is needed.")
    try:
        model = keras.models.load_model(path)
    except OSError:
        raise
    except Exception as error:
        # Keras raises nearly anything for a file that is not what it should be.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} cannot be loaded: {reason}") from error
    if not isinstance(model, ImageClassifier):
        raise InputError(
            f"{path} holds a {type(model).__name__}; an ImageClassifier is needed."
        )
    return model
