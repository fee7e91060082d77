"""Images as points in the embedding space of a network, for TensorBoard's projector."""

import dataclasses
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras_flowers.callbacks.labelled_images import iterate_batches, to_probabilities

from keras_flowers.distribution import predict_batch, strategy_scope
from keras_flowers.files import (
    printable_path,
    temporary_sibling,
    write_text_atomically,
)
from keras_flowers.plots.image_grid import draw_sprite, resize_image, scale_to_pixels
from keras_flowers.scores import predict_labels

_SIDE = 48


@dataclasses.dataclass(frozen=True)
class Point:
    """An image in the projector.

    Attributes:
        vector: Float array `(size,)`.
        true: Label of its class.
        predicted: Label of the predicted class, -1 if the prediction is non-finite.
        image: The image, uint8 `(height, width, 3)` of at most 48 pixels.
    """

    vector: np.ndarray
    true: int
    predicted: int
    image: np.ndarray


def embed_images(model: keras.Model, data: Any, most: int) -> list[Point]:
    """Returns images with the inputs of the last layer of a model.

    If the layers of the model do not know their inputs, the embedding is the output
    of the model.

    Args:
        model: Any classifier.
        data: What `iterate_batches` takes.
        most: Maximum number of points. Of more images, every second is taken, or every
            fourth, and so on.
    """
    embed = _build_embedding(model)
    points: list[Point] = []
    step, position = 1, 0
    for images, labels in iterate_batches(data):
        vectors, outputs = embed(images)
        predicted = predict_labels(to_probabilities(outputs))
        pixels = scale_to_pixels(images)
        for index, label in enumerate(labels):
            if (position + index) % step == 0:
                image = np.asarray(resize_image(pixels[index], _SIDE))
                vector = np.array(vectors[index], np.float32).reshape(-1)
                points.append(Point(vector, int(label), int(predicted[index]), image))
            if len(points) > most:
                points, step = points[::2], step * 2
        position += len(labels)
    return points


def _build_embedding(model: keras.Model) -> Callable[[Any], tuple[Any, Any]]:
    """Returns a function from a batch of images to embeddings and outputs."""
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return lambda images: (outputs := predict_batch(model, images), outputs)
    if len(inputs) == 1:
        inputs = inputs[0]
    with strategy_scope(model):
        both = keras.Model(inputs, [model.layers[-1].input, *model.outputs[:1]])
    return lambda images: predict_batch(both, images)


def write_projector(
    directory: Path, points: Sequence[Point], class_names: Sequence[str]
) -> None:
    """Writes vectors, classes and images into a folder that TensorBoard reads.

    The files are `embeddings.tsv`, `metadata.tsv`, `sprite.png` and
    `projector_config.pbtxt`.
    """
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig

    directory.mkdir(parents=True, exist_ok=True)
    vectors, rows = io.StringIO(), io.StringIO()
    rows.write("true\tpredicted\tis\n")
    for point in points:
        vectors.write("\t".join(f"{value:.6g}" for value in point.vector) + "\n")
        predicted = "none" if point.predicted < 0 else class_names[point.predicted]
        names = (printable_path(name) for name in (class_names[point.true], predicted))
        verdict = "right" if point.true == point.predicted else "wrong"
        rows.write("\t".join((*names, verdict)) + "\n")
    write_text_atomically(directory / "embeddings.tsv", vectors.getvalue())
    write_text_atomically(directory / "metadata.tsv", rows.getvalue())
    with temporary_sibling(directory / "sprite.png") as path:
        draw_sprite([point.image for point in points], _SIDE).save(path)
    config = ProjectorConfig()
    embedding = config.embeddings.add(
        tensor_name="validation photos",
        tensor_path="embeddings.tsv",
        metadata_path="metadata.tsv",
    )
    embedding.sprite.image_path = "sprite.png"
    embedding.sprite.single_image_dim.extend([_SIDE, _SIDE])
    text = text_format.MessageToString(config)
    write_text_atomically(directory / "projector_config.pbtxt", text)
