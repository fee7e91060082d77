"""Keras's TensorBoard callback, with what an image classifier has to show."""

import contextlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras_flowers.callbacks.batch_log import (
    BatchLog,
    checked_batch_frequency,
    steps_done,
)
from keras_flowers.callbacks.event_files import EventFiles
from keras_flowers.callbacks.hyperparameters import (
    Hyperparameter,
    checked_hyperparameters,
)
from keras_flowers.callbacks.run_record import RunRecord, Shown, TensorBoardOptions

from keras_flowers.errors import InputError
from keras_flowers.files import printable_path


class TensorBoard(keras.callbacks.TensorBoard):
    """Writes for TensorBoard what Keras's callback writes, and what that does not.

    Beyond Keras's: images per second; training images as the augmentation changes
    them; the confusion matrix; precision and recall of each class; the validation
    images that were taken for another class; hyperparameters with their results; the
    graph of the model; the configuration of the run as text; and, on request, the
    validation images in the projector. Serves any Keras model on any backend. What
    nothing was passed in for is left out.

    Nothing of this touches the training: a run with the callback equals one without
    it, to the bit.

    Steps go on where a run is resumed: batches are counted from where the optimizer
    stands, and epochs by `fit(initial_epoch=...)`. What an interrupted run wrote of
    epochs that are trained again is removed from its files. A run that starts at the
    first epoch begins anew.

    The confusion matrix is that of a metric with a `matrix`, such as
    `keras_flowers.ConfusionMatrix`, where the model was compiled with one: `fit`
    fills it while it validates. Otherwise `validation_data` is classified after each
    epoch.

    Safe to deep-copy before training, and to use for several trainings. Nothing
    follows from `log_dir` before a training starts, so a tuner may change it.

    Args:
        log_dir: Folder for the event files, of one training alone.
        *keras_arguments: The further arguments of Keras's callback, in its order.
        class_names: Position `i` is the name of label `i`; by default its number.
        training_photos: Array `(count, height, width, channels)`: images as the model
            gets them, for the sheet of augmented images. The layers at the beginning
            of the model that map images to images are applied as in training.
        validation_data: `(images, labels)`, or anything that gives such batches each
            time it is gone through: for mistakes, for the projector, and for the
            confusion matrix where the model has no such metric.
        image_of: Returns the image, array `(height, width, channels)`, at a position
            of `validation_data`, where that holds what the model gets instead, such
            as features; `None` where it holds images.
        hparams: What distinguishes this run from others, by name: booleans, numbers
            and strings.
        configuration: Text, or dictionaries and lists, for the Text tab.
        photos_per_epoch: Number of images in an epoch, for the images per second.
        steps_before: Optimizer steps of earlier trainings with the same folder and
            another optimizer, of which this one is the continuation.
        options: What to show, and how often.
        **keras_options: The same by name: `histogram_freq`, `write_graph`,
            `update_freq` and so on. `write_graph=False` leaves the graph out.

    Raises:
        InputError: If an argument is outside of what is described above.

    Example:
    ```python
    watcher = TensorBoard(
        "logs/first", class_names=["daisy", "roses"], training_photos=images[:9]
    )
    model.fit(images, labels, epochs=15, callbacks=[watcher])
    ```
    """

    def __init__(
        self,
        log_dir: Any = "logs",
        *keras_arguments: Any,
        class_names: Sequence[str] | None = None,
        training_images: Any = None,
        validation_data: Any = None,
        image_of: Callable[[int], np.ndarray] | None = None,
        hparams: Mapping[str, Hyperparameter] | None = None,
        configuration: Any = None,
        images_per_epoch: int | None = None,
        steps_before: int = 0,
        options: TensorBoardOptions | None = None,
        **keras_options: Any,
    ) -> None:
        given = inspect.signature(super().__init__).bind(
            log_dir, *keras_arguments, **keras_options
        )
        # Keras counts batches from where the process began; that is done here.
        frequency = given.arguments.pop("update_freq", "epoch")
        self._batches_per_entry = checked_batch_frequency(frequency)
        super().__init__(*given.args, **given.kwargs)
        self.shown = Shown(
            class_names=_checked_class_names(class_names),
            training_images=_checked_images(training_images),
            validation_data=validation_data,
            image_of=image_of,
            hparams=None if hparams is None else checked_hyperparameters(hparams),
            configuration=configuration,
            images_per_epoch=images_per_epoch,
            options=options or TensorBoardOptions(),
        )
        # Read by Keras: the hooks of a batch may run while the next is computed.
        is_profiling = bool(given.arguments.get("profile_batch"))
        self.async_safe = self._batches_per_entry is None and not is_profiling
        self._steps_before = steps_before
        self._files: EventFiles | None = None
        self._record: RunRecord | None = None
        self._batch_log: BatchLog | None = None

    @property
    def summary(self) -> EventFiles:
        """What stands in for `tf.summary`, in the methods of Keras's callback too."""
        if self._files is None:
            self._files = EventFiles(Path(self.log_dir), self._steps_before)
        return self._files

    def set_model(self, model: keras.Model) -> None:
        """Takes the model and, by now final, the folder."""
        self._files = self._record = self._batch_log = None
        super().set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Starts the clock; before the first epoch writes what is known by then."""
        super().on_epoch_begin(epoch, logs)
        if self._record is None:
            # Not when the training begins: only now the first epoch is known.
            self.summary.drop_repeats(epoch, steps_done(self.model))
            self._record = RunRecord(self.summary, self.model, self.shown)
            self._record.start(_name(self.log_dir), self.write_graph)
            self._batch_log = self._new_batch_log()
        self._record.begin_epoch(epoch)
        if self._batch_log is not None:
            self._batch_log.begin_epoch()

    def on_train_batch_begin(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Starts an entry of the batch where that was asked for."""
        super().on_train_batch_begin(batch, logs)
        if self._batch_log is not None:
            self._batch_log.begin_batch(batch)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Writes the entry of the batch where that was asked for."""
        if self._batch_log is not None:
            self._batch_log.end_batch(batch, logs)
        if not self.async_safe:
            # Else there is nothing to do, and Keras's method would ask for the model,
            # which on JAX must not be done beside a training step.
            super().on_train_batch_end(batch, logs)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Notes when the training part of the epoch ended."""
        super().on_test_begin(logs)
        if self._record is not None:
            self._record.begin_validation()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Takes the confusion matrix that validation counted."""
        super().on_test_end(logs)
        if self._record is not None:
            self._record.end_validation()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Writes what there is to show of the epoch."""
        super().on_epoch_end(epoch, logs)
        if self._record is not None:
            self._record.end_epoch()
        self.summary.flush()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Writes what is shown of the whole training, and closes the files."""
        if self._record is not None:
            self._record.finish()
        super().on_train_end(logs)
        self.summary.close()
        self._files = self._record = self._batch_log = None

    def _new_batch_log(self) -> BatchLog | None:
        if self._batches_per_entry is None:
            return None
        return BatchLog(
            self.summary,
            self.model,
            self._batches_per_entry,
            self.write_steps_per_second,
        )


def _name(log_dir: Any) -> str:
    """Returns what tells a training from others, as short as can be."""
    path = Path(log_dir).absolute()
    if path.name == "tensorboard":
        path = path.parent  # the run directory
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return printable_path(path)


def _checked_class_names(class_names: Any) -> tuple[str, ...] | None:
    if class_names is None:
        return None
    names = () if isinstance(class_names, str) else tuple(class_names)
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            "`class_names` must be strings, one for each label. "
            f"Received: class_names={class_names!r}"
        )
    return names


def _checked_images(images: Any) -> np.ndarray | None:
    if images is None:
        return None
    array = np.asarray(keras.ops.convert_to_numpy(images))
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise InputError(
            "`training_photos` must be an array (count, height, width, 1 or 3). "
            f"Received: training_photos of shape {array.shape}"
        )
    return array
