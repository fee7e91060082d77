"""Tells models apart, and loads a saved classifier once Keras has started."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_flowers.models.image_classifier import ImageClassifier


def is_exported(path: Path) -> bool:
    """Returns whether a path must be an exported model, and no model of Keras."""
    return path.is_dir() and not (path / "model.keras").is_file()


def load_classifier(path: Path) -> "ImageClassifier":
    """Returns the `ImageClassifier` in a `.keras` file, or raises `InputError`."""
    from keras_flowers.models import saved_classifier

    return saved_classifier.load_classifier(path)
