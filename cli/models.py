"""Tells models apart, and loads a saved classifier once Keras has started."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_flowers.models.image_classifier import ImageClassifier

_MODEL = "model.keras"


def is_exported(path: Path) -> bool:
    """Returns whether a path must be an exported model, and no model of Keras."""
    return path.is_dir() and not (path / _MODEL).is_file()


def find_model_file(path: Path) -> Path:
    """Returns the `.keras` file of a run directory, or the path if it is none."""
    return path / _MODEL if path.is_dir() else path


def load_classifier(path: Path) -> "ImageClassifier":
    """Returns the `ImageClassifier` in a `.keras` file or of a run directory.

    Raises:
        InputError: If there is none, or it cannot be loaded.
    """
    from keras_flowers.models import saved_classifier

    return saved_classifier.load_classifier(find_model_file(path))
