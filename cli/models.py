"""Loads a saved classifier once Keras has started."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_flowers.models.image_classifier import ImageClassifier


def load_classifier(path: Path) -> "ImageClassifier":
    """Returns the `ImageClassifier` in a `.keras` file, or raises `InputError`."""
    from keras_flowers.models import saved_classifier

    return saved_classifier.load_classifier(path)
