"""`explain`: which parts of an image decide its class, as a heat map."""

import dataclasses
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras_flowers_runtime.heat import resize_heat
from keras_flowers_runtime.images import ImageOptions, load_image

from keras_flowers.errors import InputError
from keras_flowers.explanation.heatmaps import GradCam, Occlusion, find_maps
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.plots.heatmap import draw_heatmap
from keras_flowers.progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GRAD_CAM, OCCLUSION = METHODS = ("grad_cam", "occlusion")
HeatmapFunction = Callable[[np.ndarray, np.ndarray], np.ndarray]
_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Which parts of one image speak for a class.

    Attributes:
        path: The image file, or `None` for an image in memory.
        class_name: The class that is explained.
        probability: Its probability, 0..1.
        image: uint8 `(height, width, 3)`, the image as the model sees it.
        heatmap: float32 `(height, width)`, 0..1: how much each part of the image
            supports the class. The most decisive part is 1; if nothing supports the
            class, all values are 0.
        method: `"grad_cam"` or `"occlusion"`.
    """

    path: str | None
    class_name: str
    probability: float
    image: np.ndarray
    heatmap: np.ndarray
    method: str

    def plot(self) -> "Figure":
        """Draws the image and the heat map, with the class and its probability.

        Returns:
            A `matplotlib.figure.Figure` without a window.
        """
        title = f"{self.class_name} ({self.probability:.3f})"
        name = None if self.path is None else os.path.basename(self.path)  # noqa: PTH119
        return draw_heatmap(self.image, self.heatmap, title, name)


def explain(
    model: ImageClassifier,
    images: np.ndarray | Iterable[str | os.PathLike[str]],
    class_name: str | None = None,
    method: str | None = None,
    *,
    progress: Progress | None = None,
) -> list[Explanation]:
    """Shows which parts of images decide their class.

    Args:
        model: The classifier.
        images: Image files, or uint8 `(batch, height, width, 3)` in RGB, 0 to 255, in
            the image size of the model.
        class_name: The class to explain; `None` for the predicted class of each image.
        method: `"grad_cam"` weights the last feature maps of a convolutional backbone
            by their gradients. It is fast, and as coarse as the maps. `"occlusion"`
            covers one patch of the image after the other. It is slow, and works for
            every model. `None` uses Grad-CAM if the model has feature maps, which a
            model without a backbone does not.
        progress: Called as `progress("explain", done, total)` with images.

    Returns:
        One `Explanation` per image, in order.

    Raises:
        InputError: If an argument is not as described, an image cannot be decoded, or
            Grad-CAM is used with a backend other than TensorFlow and JAX.

    Example:
    ```python
    (explanation,) = keras_flowers.explain(model, ["rose.jpg"])
    explanation.plot().savefig("why.png")
    ```
    """
    if not isinstance(model, ImageClassifier):
        raise InputError(
            f"`model` must be an ImageClassifier. Received: {type(model).__name__}"
        )
    if class_name is not None and class_name not in model.class_names:
        raise InputError(
            f"`class_name` must be one of {list(model.class_names)}. "
            f"Received: class_name={class_name!r}"
        )
    heat_of, used = _choose_method(model, method)
    items = _check_images(model, images)
    options = ImageOptions(resize=model.resize)
    explanations: list[Explanation] = []
    for start in range(0, len(items), _BATCH_SIZE):
        if progress is not None:
            progress("explain", start, len(items))
        batch = items[start : start + _BATCH_SIZE]
        pixels = np.stack(
            [
                load_image(item, model.image_size, options)
                if isinstance(item, str)
                else item
                for item in batch
            ]
        )
        # `predict` would trace a graph for each batch size.
        probabilities = keras.ops.convert_to_numpy(model(pixels, training=False))
        if class_name is None:
            labels = probabilities.argmax(axis=1)
        else:
            labels = np.full(len(batch), model.class_names.index(class_name))
        heats = heat_of(pixels, labels.astype(np.int32))
        explanations += [
            Explanation(
                item if isinstance(item, str) else None,
                model.class_names[label],
                float(row[label]),
                image,
                resize_heat(heat, model.image_size),
                used,
            )
            for item, label, row, image, heat in zip(
                batch, labels, probabilities, pixels, heats, strict=True
            )
        ]
    return explanations


def heatmap_function(model: keras.Model) -> HeatmapFunction | None:
    """Returns what explains images of a model again and again.

    Args:
        model: Any model.

    Returns:
        A function that maps images, uint8 `(batch, height, width, 3)` of the size of
        the model, and labels, int32 `(batch,)`, to heat, float32
        `(batch, height, width)`, 0..1. `None` for what is no `ImageClassifier`, and
        where the backend has no gradients.
    """
    if not isinstance(model, ImageClassifier):
        return None
    try:
        heat_of, _ = _choose_method(model, None)
    except InputError:
        return None

    def explain_images(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        heats = heat_of(images, labels)
        return np.stack([resize_heat(heat, model.image_size) for heat in heats])

    return explain_images


def find_method(model: ImageClassifier) -> str:
    """Returns the method that `explain` uses for a model by default."""
    return OCCLUSION if find_maps(model) is None else GRAD_CAM


def _choose_method(model: ImageClassifier, method: str | None) -> tuple[Any, str]:
    if method not in (None, *METHODS):
        raise InputError(
            f"`method` must be one of {', '.join(METHODS)} or None. "
            f"Received: method={method!r}"
        )
    maps = None if method == OCCLUSION else find_maps(model)
    if maps is None:
        if method == GRAD_CAM:
            raise InputError(
                "`method`: grad_cam needs a backbone with feature maps of more than "
                "one position. Use occlusion."
            )
        return Occlusion(model), OCCLUSION
    if keras.backend.backend() not in ("tensorflow", "jax"):
        raise InputError(
            "`method`: grad_cam needs the TensorFlow or the JAX backend. Use occlusion."
        )
    return GradCam(model, maps), GRAD_CAM


def _check_images(model: ImageClassifier, images: Any) -> list[str | np.ndarray]:
    if isinstance(images, str | os.PathLike):
        raise InputError(f"`images` must be a list. Received: images={images!r}")
    if not isinstance(images, np.ndarray):
        return [os.fspath(path) for path in images]
    shape = (*model.image_size, 3)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        raise InputError(
            f"`images` must be uint8 of shape (batch, {', '.join(map(str, shape))}). "
            f"Received: {images.dtype} of shape {images.shape}"
        )
    return list(images)
