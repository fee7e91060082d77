"""Images as points in the space of a network, for TensorBoard's projector."""

import dataclasses
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras_flowers.callbacks.contact_sheet import PAPER, displayable, thumbnail
from keras_flowers.callbacks.labelled_images import batches, probabilities

from keras_flowers.files import (
    printable_path,
    temporary_sibling,
    write_text_atomically,
)

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 48


@dataclasses.dataclass(frozen=True)
class Point:
    """An image in the projector.

    Attributes:
        vector: Float array `(size,)`.
        true: Label of its class.
        predicted: Label that the model gave it.
        picture: The image, small.
    """

    vector: np.ndarray
    true: int
    predicted: int
    picture: "Image"


def embedded(model: keras.Model, data: Any, most: int) -> list[Point]:
    """Returns images with what the last layer of a model gets of them.

    Where the layers of the model do not know their inputs, it is what the model
    returns.

    Args:
        model: Any classifier.
        data: What `batches` takes.
        most: Points to return. Of more images, every second is taken, or every
            fourth, and so on.
    """
    both = _with_embedding(model)
    points: list[Point] = []
    step, position = 1, 0
    for images, labels in batches(data):
        vectors, outputs = both(images)
        said = probabilities(outputs).argmax(axis=1)
        pixels = displayable(images)
        for index, label in enumerate(labels):
            if (position + index) % step == 0:
                picture = thumbnail(pixels[index], _SIDE)
                vector = np.array(vectors[index], np.float32).reshape(-1)
                points.append(Point(vector, int(label), int(said[index]), picture))
            if len(points) > most:
                points, step = points[::2], step * 2
        position += len(labels)
    return points


def _with_embedding(model: keras.Model) -> Any:
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return lambda images: (outputs := model.predict_on_batch(images), outputs)
    if len(inputs) == 1:
        inputs = inputs[0]
    both = keras.Model(inputs, [model.layers[-1].input, *model.outputs[:1]])
    return both.predict_on_batch


def write_projector(
    directory: Path, points: Sequence[Point], class_names: Sequence[str]
) -> None:
    """Writes vectors, classes and pictures into a folder that TensorBoard reads.

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
        true, said = (
            printable_path(class_names[i]) for i in (point.true, point.predicted)
        )
        verdict = "right" if point.true == point.predicted else "wrong"
        rows.write(f"{true}\t{said}\t{verdict}\n")
    write_text_atomically(directory / "embeddings.tsv", vectors.getvalue())
    write_text_atomically(directory / "metadata.tsv", rows.getvalue())
    with temporary_sibling(directory / "sprite.png") as path:
        _sprite([point.picture for point in points]).save(path)
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


def _sprite(pictures: Sequence["Image"]) -> "Image":
    from PIL import Image

    columns = max(1, math.ceil(math.sqrt(len(pictures))))
    sprite = Image.new("RGB", (columns * _SIDE, columns * _SIDE), PAPER)
    for index, picture in enumerate(pictures):
        x, y = index % columns * _SIDE, index // columns * _SIDE
        x, y = x + (_SIDE - picture.width) // 2, y + (_SIDE - picture.height) // 2
        sprite.paste(picture, (x, y))
    return sprite
