"""What a server needs to know of a model, whatever library computes it."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras_flowers_runtime.exported import load_exported
from keras_flowers_runtime.heat import Heat, log_odds_of, occlude, resize_heat
from keras_flowers_runtime.images import Pixels, Resize


@dataclasses.dataclass(frozen=True)
class ServedModel:
    """A classifier that a server can call.

    Attributes:
        class_names: Position `i` is the name of label `i`.
        image_size: `(height, width)` in pixels of the images that `predict` takes.
        resize: How images become `image_size`: `"stretch"`, `"crop"` or `"pad"`.
        predict: Maps uint8 `(batch, height, width, 3)` to probabilities,
            `(batch, classes)`, or to a pair of these and bool `(batch,)`, whether the
            images show none of the classes. Called from one thread.
        explain: Maps an image, uint8 `(height, width, 3)`, and a label to heat,
            float32 `(height, width)`, 0..1. Called from another thread, at the same
            time as `predict`.
        method: How `explain` works: `"grad_cam"` or `"occlusion"`.
        format: `"keras"` or the format of an exported model.
        precision: `"float32"`, `"float16"` or `"int8"`.
        unknown_threshold: Below this probability an image is unknown; `None` if the
            model always names a class or `predict` tells.
        finds_unknown: Whether `predict` tells which images are unknown.
        thresholds: The lowest probability of each label, where an image may have
            several labels or none; else `None`.
        temperature: What the logits are divided by, or `None`.
        versions: The versions of the packages that wrote the model.
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    resize: Resize
    predict: Callable[[Pixels], Any]
    explain: Callable[[Pixels, int], Heat]
    method: str
    format: str
    precision: str = "float32"
    unknown_threshold: float | None = None
    finds_unknown: bool = False
    thresholds: tuple[float, ...] | None = None
    temperature: float | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def serve_exported(
    folder: str | os.PathLike[str], threads: int | None = None
) -> ServedModel:
    """Loads an exported model for a server.

    Args:
        folder: What `export_model` or `keras-flowers export` wrote.
        threads: As for `load_exported`.

    Raises:
        InputError: As `load_exported` does.
    """
    classifier = load_exported(folder, threads)

    def explain(image: Pixels, label: int) -> Heat:
        def odds(images: Pixels) -> np.ndarray:
            found = classifier.predict(images)
            if classifier.thresholds is not None:
                # Each label by itself: the alternative is not another label.
                found = np.stack([found[:, label], 1 - found[:, label]], axis=1)
                return log_odds_of(found, 0)
            return log_odds_of(found, label)

        return resize_heat(occlude(image, odds), classifier.image_size)

    description = classifier.description
    by_similarity = classifier.similarity_threshold is not None
    return ServedModel(
        class_names=classifier.class_names,
        image_size=classifier.image_size,
        resize=classifier.resize,
        predict=classifier.predictor("auto") if by_similarity else classifier.predict,
        explain=explain,
        method="occlusion",
        format=classifier.format,
        precision=classifier.precision,
        unknown_threshold=None if by_similarity else classifier.unknown_threshold,
        finds_unknown=by_similarity,
        thresholds=classifier.thresholds,
        temperature=description.get("temperature"),
        versions=dict(description.get("versions", {})),
    )
