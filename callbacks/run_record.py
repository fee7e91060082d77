"""What TensorBoard is shown of one training, beyond what Keras writes."""

import dataclasses
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras_flowers.callbacks.augmented_images import augmented, image_layers
from keras_flowers.callbacks.confusion_image import confusion_image
from keras_flowers.callbacks.contact_sheet import contact_sheet, displayable
from keras_flowers.callbacks.event_files import TRAIN, VALIDATION, WHOLE, EventFiles
from keras_flowers.callbacks.hyperparameters import Hyperparameter, HyperparameterLog
from keras_flowers.callbacks.labelled_images import Answers, answers
from keras_flowers.callbacks.model_graph import write_model_graphs
from keras_flowers.callbacks.projector_files import embedded, write_projector

from keras_flowers.errors import InputError
from keras_flowers.files import json_text, printable_path


@dataclasses.dataclass(frozen=True)
class TensorBoardOptions:
    """What a `TensorBoard` shows beyond metrics, and how often.

    Attributes:
        augmented_photos: Training images on the sheet of augmented images; 0 for
            none.
        confusion_matrix: Whether to draw the confusion matrix after each epoch.
        class_scores: Whether to write precision and recall of each class.
        mistakes: Validation images on the sheet of mistakes, those of the highest
            loss; 0 for none.
        photos_every: Epochs from one pair of sheets to the next. Mistakes take a pass
            over the validation images. The first epoch gets augmented images too, and
            the last one mistakes.
        embedded_photos: The most validation images in the projector, at the end of
            training; 0 for none.
        photo_side: Pixels, the longer side of each image on the sheets. With the
            default, sheets of nine are as wide as TensorBoard's cards.

    Raises:
        InputError: If a number is negative, or `images_every` or `image_side` 0.
    """

    augmented_images: int = 9
    confusion_matrix: bool = True
    class_scores: bool = True
    mistakes: int = 9
    images_every: int = 5
    embedded_images: int = 0
    image_side: int = 108

    def __post_init__(self) -> None:
        """Checks the numbers."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            lowest = 1 if field.name in ("images_every", "image_side") else 0
            if not hasattr(value, "__index__") or value < lowest:
                raise InputError(
                    f"`{field.name}` must be an integer from {lowest} up. "
                    f"Received: {field.name}={value!r}"
                )


@dataclasses.dataclass(frozen=True)
class Shown:
    """What a `TensorBoard` was given to show.

    The attributes are arguments of `TensorBoard`, checked.
    """

    class_names: tuple[str, ...] | None
    training_images: np.ndarray | None
    validation_data: Any
    image_of: Callable[[int], np.ndarray] | None
    hparams: Mapping[str, Hyperparameter] | None
    configuration: Any
    images_per_epoch: int | None
    options: TensorBoardOptions

    def __deepcopy__(self, memo: Any) -> Self:
        """Returns itself: nothing in it changes, and pipelines cannot be copied."""
        return self

    def names(self, count: int) -> Sequence[str]:
        """Returns the names of `count` classes; a number where there is no name."""
        known = self.class_names or ()
        return [*known[:count], *(str(i) for i in range(len(known), count))]


class RunRecord:
    """Writes what is shown of one training, as it goes on.

    Args:
        files: Where to write.
        model: The model that is trained.
        shown: What there is to show.
    """

    def __init__(self, files: EventFiles, model: keras.Model, shown: Shown) -> None:
        self._files = files
        self._model = model
        self._shown = shown
        self._options = shown.options
        self._hparams: HyperparameterLog | None = None
        self._epoch = -1
        self._started = 0.0
        self._trained: float | None = None
        self._matrix: np.ndarray | None = None
        self._has_mistakes = False
        self._image_layers: keras.Model | None = None
        self._sheet: np.ndarray | None = None

    def start(self, name: str, with_graph: bool) -> None:
        """Writes what is known before the first epoch.

        Args:
            name: Of the training, in the table of hyperparameters.
            with_graph: Whether to write the graph of the model.
        """
        if with_graph:
            self._write_graph()
        if self._shown.configuration is not None:
            text = _markdown(self._shown.configuration)
            with self._files.writer(WHOLE).as_default():
                self._files.text("configuration", text, step=0)
        if self._shown.hparams is not None:
            self._hparams = HyperparameterLog(self._files, self._shown.hparams, name)
            self._hparams.start()
        self._files.flush()

    def begin_epoch(self, epoch: int) -> None:
        """Starts the clock."""
        self._epoch = epoch
        self._started = time.perf_counter()
        self._trained = None
        self._matrix = None
        self._has_mistakes = False

    def begin_validation(self) -> None:
        """Stops the clock: what follows is no training."""
        self._trained = time.perf_counter()

    def end_validation(self) -> None:
        """Takes the confusion matrix that a metric counted."""
        self._matrix = _counted_matrix(self._model)

    def end_epoch(self) -> None:
        """Writes what there is to show of the epoch."""
        self._write_speed()
        is_due = (self._epoch + 1) % self._options.images_every == 0
        if is_due or self._epoch == 0:
            self._write_augmented_images()
        self._write_validation(with_mistakes=is_due)

    def finish(self) -> None:
        """Writes what is shown of the whole training."""
        if self._epoch >= 0 and not self._has_mistakes and self._can_find_mistakes():
            self._write_mistakes(self._answers(self._options.mistakes))
        if self._options.embedded_images and self._shown.validation_data is not None:
            self._write_projector()
        if self._hparams is not None:
            self._hparams.finish()

    def _write_graph(self) -> None:
        try:
            write_model_graphs(self._files, self._model)
        except Exception as error:  # a model may do anything when it is traced
            warnings.warn(f"The model graph was not written: {error}", stacklevel=2)

    def _write_speed(self) -> None:
        if self._shown.images_per_epoch is None:
            return
        seconds = (self._trained or time.perf_counter()) - self._started
        speed = self._shown.images_per_epoch / seconds
        with self._files.writer(TRAIN).as_default(self._epoch):
            self._files.scalar("epoch_photos_per_second", speed)

    def _write_augmented_images(self) -> None:
        images = self._shown.training_images
        if images is None or not self._options.augmented_images:
            return
        images = images[: self._options.augmented_images]
        if self._image_layers is None:
            self._image_layers = image_layers(self._model)
        if self._image_layers is not None:
            images = augmented(self._image_layers, images)
        sheet = contact_sheet(list(displayable(images)), side=self._options.image_side)
        if self._sheet is None or not np.array_equal(sheet, self._sheet):
            # Without augmentation they are the same in each epoch.
            self._write_image(TRAIN, "augmented_photos", sheet)
        self._sheet = sheet

    def _write_validation(self, with_mistakes: bool) -> None:
        with_mistakes = with_mistakes and self._can_find_mistakes()
        wants_matrix = self._options.confusion_matrix or self._options.class_scores
        has_data = self._shown.validation_data is not None
        if with_mistakes or (wants_matrix and self._matrix is None and has_data):
            found = self._answers(self._options.mistakes if with_mistakes else 0)
            if self._matrix is None:
                self._matrix = found.matrix
            if with_mistakes:
                self._write_mistakes(found)
        if self._matrix is not None and self._matrix.size:
            self._write_matrix(self._matrix)

    def _can_find_mistakes(self) -> bool:
        return bool(self._options.mistakes) and self._shown.validation_data is not None

    def _answers(self, mistakes: int) -> Answers:
        shown = self._shown
        return answers(self._model, shown.validation_data, mistakes, shown.image_of)

    def _write_matrix(self, matrix: np.ndarray) -> None:
        names = self._shown.names(len(matrix))
        if self._options.confusion_matrix:
            image = confusion_image(matrix, names)
            self._write_image(VALIDATION, "confusion_matrix", image)
        if self._options.class_scores:
            with self._files.writer(VALIDATION).as_default(self._epoch):
                for tag, value in _class_scores(matrix, names):
                    self._files.scalar(tag, value)

    def _write_mistakes(self, found: Answers) -> None:
        names = self._shown.names(len(found.matrix))
        total = int(found.matrix.sum())
        wrong = total - int(np.trace(found.matrix))
        title = f"{wrong or 'none'} of {total} wrong"
        if wrong > len(found.mistakes):
            title += f", {len(found.mistakes)} of the highest loss"
        sheet = contact_sheet(
            [displayable(mistake.image) for mistake in found.mistakes],
            [
                (f"true: {names[m.true]}", f"{m.probability:.0%} {names[m.predicted]}")
                for m in found.mistakes
            ],
            title,
            self._options.image_side,
        )
        self._write_image(VALIDATION, "mistakes", sheet)
        self._has_mistakes = True

    def _write_image(self, run: str, tag: str, image: np.ndarray) -> None:
        with self._files.writer(run).as_default(self._epoch):
            self._files.image(tag, image[None])

    def _write_projector(self) -> None:
        data, most = self._shown.validation_data, self._options.embedded_images
        points = embedded(self._model, data, most)
        if points:
            highest = max(max(point.true, point.predicted) for point in points)
            names = self._shown.names(highest + 1)
            # The projector looks for them where event files are.
            self._files.writer(VALIDATION).flush()
            write_projector(self._files.directory / VALIDATION, points, names)


def _counted_matrix(model: keras.Model) -> np.ndarray | None:
    """Returns the counts of the first metric that has them."""
    for metric in _metrics(model):
        matrix = getattr(metric, "matrix", None)
        if matrix is not None:
            counts = np.asarray(keras.ops.convert_to_numpy(matrix), np.float64)
            if counts.ndim == 2 and counts.shape[0] == counts.shape[1]:
                return counts
    return None


def _metrics(model: keras.Model) -> Iterator[Any]:
    for metric in model.metrics:
        yield metric
        # Those that were passed to `compile` stand within one that holds them.
        yield from getattr(metric, "metrics", ())


def _class_scores(
    matrix: np.ndarray, names: Sequence[str]
) -> Iterator[tuple[str, float]]:
    """Yields precision and recall of each class by their tags; 0 where undefined."""
    right = matrix.diagonal()
    for tag, totals in (
        ("precision", matrix.sum(axis=0)),
        ("recall", matrix.sum(axis=1)),
    ):
        values = right / np.where(totals > 0, totals, 1)
        for name, value in zip(names, values.tolist(), strict=True):
            yield f"{tag}/{printable_path(name)}", value


def _markdown(configuration: Any) -> str:
    """Returns a text as it is, and anything else as an indented block of JSON."""
    if isinstance(configuration, str):
        return configuration
    return "\n".join(f"    {line}" for line in json_text(configuration).splitlines())
