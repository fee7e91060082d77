"""Writes what TensorBoard shows of one training beyond what Keras writes."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras_flowers.callbacks.augmented_images import augment_images, find_image_layers
from keras_flowers.callbacks.confusion_counts import find_matrix
from keras_flowers.callbacks.event_writer import TRAIN, VALIDATION, WHOLE, EventWriter
from keras_flowers.callbacks.hyperparameters import (
    Hyperparameter,
    HyperparameterLog,
    select_results,
)
from keras_flowers.callbacks.labelled_images import (
    MisclassifiedImage,
    Predictions,
    classify_batches,
)
from keras_flowers.callbacks.model_graph import write_model_graphs
from keras_flowers.callbacks.projector_files import embed_images, write_projector
from keras_flowers_runtime.heat import blend_heat

from keras_flowers.argument_checks import check_integer
from keras_flowers.errors import InputError
from keras_flowers.files import json_text, printable_path
from keras_flowers.plots.confusion_matrix import (
    arrange_confusions,
    draw_confusion_matrix,
)
from keras_flowers.plots.image_grid import Tile, draw_image_grid, scale_to_pixels
from keras_flowers.scores import score_classes


@dataclasses.dataclass(frozen=True)
class TensorBoardOptions:
    """What a `TensorBoard` shows beyond metrics, and how often.

    Attributes:
        augmented_images: Number of training images in the grid of augmented images; 0
            for none.
        confusion_matrix: Whether to draw the confusion matrix after each epoch.
        class_scores: Whether to write precision and recall of each class.
        mistakes: Maximum number of validation images in the grid of mistakes, those of
            the highest loss; 0 for none.
        heatmaps: Maximum number of the worst mistakes that have a heat map, at the end
            of training; 0 for none.
        images_every: Epochs from one pair of grids to the next. Mistakes take a pass
            over the validation images. Augmented images are also drawn after the first
            epoch, mistakes after the last one.
        embedded_images: Maximum number of validation images in the projector, at the
            end of training; 0 for none.
        image_side: Pixels, the longer side of each image in the grids. With the
            default, a grid of nine is as wide as TensorBoard's cards.

    Raises:
        InputError: If a number is negative, `images_every` or `image_side` is 0, or
            another value has the wrong type.
    """

    augmented_images: int = 9
    confusion_matrix: bool = True
    class_scores: bool = True
    mistakes: int = 9
    heatmaps: int = 4
    images_every: int = 5
    embedded_images: int = 0
    image_side: int = 108

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            lowest = 1 if field.name in ("images_every", "image_side") else 0
            if not isinstance(field.default, bool):
                check_integer(field.name, value, lowest=lowest)
            elif not isinstance(value, bool):
                raise InputError(
                    f"`{field.name}` must be True or False. "
                    f"Received: {field.name}={value!r}"
                )


@dataclasses.dataclass(frozen=True)
class RunContents:
    """What a `TensorBoard` callback has to show.

    The attributes are the arguments of `TensorBoard`, checked.
    """

    class_names: tuple[str, ...] | None
    training_images: np.ndarray | None
    validation_data: Any
    image_of: Callable[[int], np.ndarray] | None
    heatmaps_of: Callable[[np.ndarray, np.ndarray], np.ndarray] | None
    hparams: Mapping[str, Hyperparameter] | None
    configuration: Any
    images_per_epoch: int | None
    options: TensorBoardOptions

    def __deepcopy__(self, memo: Any) -> Self:
        """Returns itself: it never changes, and pipelines cannot be copied."""
        return self

    def names(self, count: int) -> Sequence[str]:
        """Returns the names of `count` classes; a class without one gets its number."""
        known = self.class_names or ()
        return [*known[:count], *(str(i) for i in range(len(known), count))]


class RunRecord:
    """Writes what TensorBoard shows of one training, epoch by epoch.

    Args:
        events: Where to write.
        model: The model that is trained.
        contents: What there is to show.
    """

    def __init__(
        self, events: EventWriter, model: keras.Model, contents: RunContents
    ) -> None:
        self._events = events
        self._model = model
        self._contents = contents
        self._options = contents.options
        self._hparams: HyperparameterLog | None = None
        self._epoch = -1
        self._started = 0.0
        self._training_end: float | None = None
        self._matrix: np.ndarray | None = None
        self._has_mistakes = False
        self._worst: Sequence[MisclassifiedImage] = ()
        self._image_layers: keras.Model | None = None
        self._grid: np.ndarray | None = None

    def start(self, name: str, with_graph: bool) -> None:
        """Writes what is known before the first epoch.

        Args:
            name: Name of the training in the table of hyperparameters.
            with_graph: Whether to write the graph of the model.
        """
        if with_graph:
            self._write_graph()
        if self._contents.configuration is not None:
            text = _to_markdown(self._contents.configuration)
            self._events.write_texts(WHOLE, 0, {"configuration": text})
        if self._contents.hparams is not None:
            self._hparams = HyperparameterLog(
                self._events, self._contents.hparams, name
            )
            self._hparams.start()
        self._events.flush()

    def begin_epoch(self, epoch: int) -> None:
        """Starts the clock."""
        self._epoch = epoch
        self._started = time.perf_counter()
        self._training_end = None
        self._matrix = None
        self._has_mistakes = False

    def begin_validation(self) -> None:
        """Stops the clock: validation is not training."""
        self._training_end = time.perf_counter()

    def end_validation(self) -> None:
        """Reads the confusion matrix that a metric counted."""
        self._matrix = find_matrix(self._model)

    def end_epoch(self, logs: Mapping[str, Any]) -> None:
        """Writes what there is to show of the epoch.

        Args:
            logs: Its metrics by name, as Keras passes them to callbacks.
        """
        self._write_speed()
        if self._hparams is not None:
            self._events.write_scalars(WHOLE, self._epoch, select_results(logs))
        is_due = (self._epoch + 1) % self._options.images_every == 0
        if is_due or self._epoch == 0:
            self._write_augmented_images()
        self._write_validation(with_mistakes=is_due)

    def finish(self) -> None:
        """Writes what there is to show of the whole training."""
        if self._epoch >= 0 and not self._has_mistakes and self._can_find_mistakes():
            self._write_mistakes(self._classify(self._options.mistakes))
        self._write_heatmaps()
        if self._options.embedded_images and self._contents.validation_data is not None:
            self._write_projector()
        if self._hparams is not None:
            self._hparams.finish()

    def _write_graph(self) -> None:
        try:
            write_model_graphs(self._events, self._model)
        except Exception as error:  # tracing runs any code of the model
            warnings.warn(f"The model graph was not written: {error}", stacklevel=2)

    def _write_speed(self) -> None:
        if self._contents.images_per_epoch is None:
            return
        seconds = (self._training_end or time.perf_counter()) - self._started
        speed = self._contents.images_per_epoch / seconds
        scalars = {"epoch_photos_per_second": speed}
        self._events.write_scalars(TRAIN, self._epoch, scalars)

    def _write_augmented_images(self) -> None:
        images = self._contents.training_images
        if images is None or not self._options.augmented_images:
            return
        images = images[: self._options.augmented_images]
        if self._image_layers is None:
            self._image_layers = find_image_layers(self._model)
        if self._image_layers is not None:
            images = augment_images(self._image_layers, images)
        tiles = [Tile(image) for image in scale_to_pixels(images)]
        grid = np.asarray(draw_image_grid(tiles, side=self._options.image_side))
        if self._grid is None or not np.array_equal(grid, self._grid):
            # Without augmentation they are the same in each epoch.
            self._write_image(TRAIN, "augmented_photos", grid)
        self._grid = grid

    def _write_validation(self, with_mistakes: bool) -> None:
        with_mistakes = with_mistakes and self._can_find_mistakes()
        wants_matrix = self._options.confusion_matrix or self._options.class_scores
        has_data = self._contents.validation_data is not None
        if with_mistakes or (wants_matrix and self._matrix is None and has_data):
            predictions = self._classify(self._options.mistakes if with_mistakes else 0)
            if self._matrix is None:
                self._matrix = predictions.matrix
            if with_mistakes:
                self._write_mistakes(predictions)
        if self._matrix is not None and self._matrix.size:
            self._write_matrix(self._matrix)

    def _can_find_mistakes(self) -> bool:
        return (
            bool(self._options.mistakes) and self._contents.validation_data is not None
        )

    def _classify(self, mistakes: int) -> Predictions:
        contents = self._contents
        return classify_batches(
            self._model, contents.validation_data, mistakes, contents.image_of
        )

    def _write_matrix(self, matrix: np.ndarray) -> None:
        names = self._contents.names(len(matrix))
        if self._options.confusion_matrix:
            total = float(matrix.sum())
            accuracy = float(np.trace(matrix)) / total if total else 0.0
            title = f"{total:.10g} images, accuracy {accuracy:.3f}"
            drawing = draw_confusion_matrix(arrange_confusions(matrix, names, title))
            self._write_image(VALIDATION, "confusion_matrix", np.asarray(drawing))
        if self._options.class_scores:
            scalars = _tag_scores(matrix, names)
            self._events.write_scalars(VALIDATION, self._epoch, scalars)

    def _write_mistakes(self, predictions: Predictions) -> None:
        names = self._contents.names(len(predictions.matrix))
        wrong = predictions.count - int(np.trace(predictions.matrix))
        title = f"{wrong or 'none'} of {predictions.count} wrong"
        if wrong > len(predictions.mistakes):
            title += f", {len(predictions.mistakes)} of the highest loss"
        tiles = [
            Tile(
                scale_to_pixels(one.image),
                (
                    f"true: {names[one.true]}",
                    "non-finite prediction"
                    if one.predicted < 0
                    else f"{one.probability:.0%} {names[one.predicted]}",
                ),
            )
            for one in predictions.mistakes
        ]
        grid = draw_image_grid(tiles, title, self._options.image_side)
        self._write_image(VALIDATION, "mistakes", np.asarray(grid))
        self._has_mistakes = True
        self._worst = predictions.mistakes

    def _write_heatmaps(self) -> None:
        """Writes which parts of the worst mistakes speak for the predicted class."""
        heatmaps_of = self._contents.heatmaps_of
        worst = [one for one in self._worst if one.predicted >= 0]
        worst = worst[: self._options.heatmaps]
        if heatmaps_of is None or not worst:
            return
        labels = np.array([one.predicted for one in worst], np.int32)
        names = self._contents.names(1 + int(labels.max()))
        images = np.stack([scale_to_pixels(one.image) for one in worst])
        tiles = []
        for one, image, heat in zip(
            worst, images, heatmaps_of(images, labels), strict=True
        ):
            caption = f"{one.probability:.0%} {names[one.predicted]}"
            tiles.append(Tile(blend_heat(image, heat), (caption,)))
        title = "bright: speaks for the predicted class"
        grid = draw_image_grid(tiles, title, self._options.image_side)
        self._write_image(VALIDATION, "mistakes_heat_maps", np.asarray(grid))

    def _write_image(self, run: str, tag: str, image: np.ndarray) -> None:
        self._events.write_images(run, self._epoch, {tag: image})

    def _write_projector(self) -> None:
        data, most = self._contents.validation_data, self._options.embedded_images
        points = embed_images(self._model, data, most)
        if points:
            highest = max(max(point.true, point.predicted) for point in points)
            names = self._contents.names(highest + 1)
            # The projector looks for its files in folders with event files.
            self._events.file_writer(VALIDATION).flush()
            write_projector(self._events.directory / VALIDATION, points, names)


def _tag_scores(matrix: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Returns precision and recall of each class by tag; 0 if undefined."""
    true, predicted = np.nonzero(matrix)
    scores = score_classes(true, predicted, len(matrix), matrix[true, predicted])
    pairs = list(zip(map(printable_path, names), scores, strict=True))
    return {
        **{f"precision/{name}": one.precision for name, one in pairs},
        **{f"recall/{name}": one.recall for name, one in pairs},
    }


def _to_markdown(configuration: Any) -> str:
    """Returns a text unchanged, and anything else as an indented block of JSON."""
    if isinstance(configuration, str):
        return configuration
    return "\n".join(f"    {line}" for line in json_text(configuration).splitlines())
