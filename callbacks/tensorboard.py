"""Keras's TensorBoard callback, for image classifiers."""

import contextlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras_flowers.callbacks.batch_log import (
    BatchLog,
    check_update_freq,
    count_steps,
)
from keras_flowers.callbacks.event_writer import EventWriter, KerasSummary
from keras_flowers.callbacks.hyperparameters import (
    Hyperparameter,
    check_hyperparameters,
)
from keras_flowers.callbacks.run_record import (
    RunContents,
    RunRecord,
    TensorBoardOptions,
)

from keras_flowers.errors import InputError
from keras_flowers.files import printable_path


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's TensorBoard callback, for image classifiers.

    In addition to what Keras writes, it writes images per second; training images as
    the model augments them; the confusion matrix; precision and recall of each class;
    the worst mistakes among the validation images; hyperparameters with their results;
    the graph of the model; the configuration of the run as text; and, on request, the
    validation images in the projector. It works with any Keras model on any backend,
    and leaves out what you pass no argument for.

    It does not change the training: the weights are bit-identical with and without it.

    In a resumed run the steps continue: batches from the step of the optimizer, epochs
    from `fit(initial_epoch=...)`. Epochs that are trained again are removed from the
    files of the interrupted run. A run that starts at the first epoch removes all
    earlier ones.

    The confusion matrix is that of a metric with a `matrix`, such as
    `keras_flowers.ConfusionMatrix`, if the model is compiled with one: `fit` fills it
    during validation. Otherwise `validation_data` is classified after each epoch.

    You can deep-copy it before training and use it for several trainings. It reads
    `log_dir` when a training starts, so a tuner may change it.

    Args:
        log_dir: Folder for the event files of one training.
        *keras_arguments: Further arguments of Keras's callback, in its order.
        class_names: Position `i` is the name of label `i`; by default its number.
        training_images: Array `(count, height, width, channels)`: images as the model
            gets them, for the grid of augmented images. The layers at the beginning of
            the model that map images to images are applied as in training.
        validation_data: `(images, labels)`, or anything that yields such batches each
            time you iterate over it: for mistakes, for the projector, and for the
            confusion matrix if the model has no such metric.
        image_of: Returns the image, array `(height, width, channels)`, at a position
            of `validation_data`, if that holds something else, such as features;
            `None` if it holds images.
        heatmaps_of: Maps images of `validation_data`, uint8
            `(batch, height, width, channels)`, and labels, int32 `(batch,)`, to how
            much each part of an image speaks for its label, `(batch, height, width)`,
            0..1.
        hparams: Hyperparameters of this run by name: booleans, numbers and strings.
        configuration: Text, or dictionaries and lists, for the Text tab.
        images_per_epoch: Number of images in an epoch, for the images per second.
        steps_before: Optimizer steps of earlier stages of the same run, with the same
            folder and another optimizer.
        options: What to show, and how often.
        **keras_options: Further arguments of Keras's callback by name:
            `histogram_freq`, `write_graph`, `update_freq` and so on.
            `write_graph=False` leaves out the graph.

    Raises:
        InputError: If an argument has another type or value than described above.

    Example:
    ```python
    tensorboard = TensorBoard(
        "logs/first", class_names=["daisy", "roses"], training_images=images[:9]
    )
    model.fit(images, labels, epochs=15, callbacks=[tensorboard])
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
        heatmaps_of: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
        hparams: Mapping[str, Hyperparameter] | None = None,
        configuration: Any = None,
        images_per_epoch: int | None = None,
        steps_before: int = 0,
        options: TensorBoardOptions | None = None,
        **keras_options: Any,
    ) -> None:
        bound = inspect.signature(super().__init__).bind(
            log_dir, *keras_arguments, **keras_options
        )
        # Keras counts batches from the start of the process: `BatchLog` counts.
        frequency = bound.arguments.pop("update_freq", "epoch")
        self._batches_per_entry = check_update_freq(frequency)
        super().__init__(*bound.args, **bound.kwargs)
        self.contents = RunContents(
            class_names=_check_class_names(class_names),
            training_images=_check_images(training_images),
            validation_data=validation_data,
            image_of=image_of,
            heatmaps_of=heatmaps_of,
            hparams=None if hparams is None else check_hyperparameters(hparams),
            configuration=configuration,
            images_per_epoch=images_per_epoch,
            options=options or TensorBoardOptions(),
        )
        # Read by Keras: the hooks of a batch may run while the next is computed.
        is_profiling = bool(bound.arguments.get("profile_batch"))
        self.async_safe = self._batches_per_entry is None and not is_profiling
        self._steps_before = steps_before
        self._events: EventWriter | None = None
        self._record: RunRecord | None = None
        self._batch_log: BatchLog | None = None

    @property
    def summary(self) -> KerasSummary:
        """What the methods of Keras's callback call to write summaries."""
        return KerasSummary(self.events)

    @property
    def events(self) -> EventWriter:
        """The writer of the event files, created when it is first needed."""
        if self._events is None:
            self._events = EventWriter(Path(self.log_dir), self._steps_before)
        return self._events

    def set_model(self, model: keras.Model) -> None:
        """Sets the model. `log_dir` is final now."""
        self._events = self._record = self._batch_log = None
        super().set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Starts the clock; before the first epoch, writes what is known by then."""
        super().on_epoch_begin(epoch, logs)
        if self._record is None:
            # Not in `on_train_begin`: only now is the first epoch known.
            self.events.remove_repeats(epoch, count_steps(self.model))
            self._record = RunRecord(self.events, self.model, self.contents)
            self._record.start(_name_run(self.log_dir), self.write_graph)
            self._batch_log = self._create_batch_log()
        self._record.begin_epoch(epoch)
        if self._batch_log is not None:
            self._batch_log.begin_epoch()

    def on_train_batch_begin(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Starts the entry of the batch if `update_freq` asks for one."""
        super().on_train_batch_begin(batch, logs)
        if self._batch_log is not None:
            self._batch_log.begin_batch(batch)

    def on_train_batch_end(
        self, batch: int, logs: Mapping[str, Any] | None = None
    ) -> None:
        """Writes the entry of the batch if `update_freq` asks for one."""
        if self._batch_log is not None:
            self._batch_log.end_batch(batch, logs)
        if not self.async_safe:
            # Otherwise there is nothing to do, and Keras's method would read the model,
            # which is not allowed during a training step on JAX.
            super().on_train_batch_end(batch, logs)

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Records when the training part of the epoch ended."""
        super().on_test_begin(logs)
        if self._record is not None:
            self._record.begin_validation()

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Reads the confusion matrix that validation counted."""
        super().on_test_end(logs)
        if self._record is not None:
            self._record.end_validation()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Writes what there is to show of the epoch."""
        super().on_epoch_end(epoch, logs)
        if self._record is not None:
            self._record.end_epoch(logs or {})
        self.events.flush()

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Writes what there is to show of the whole training; closes the files."""
        if self._record is not None:
            self._record.finish()
        super().on_train_end(logs)
        self.events.close()
        self._events = self._record = self._batch_log = None

    def _create_batch_log(self) -> BatchLog | None:
        if self._batches_per_entry is None:
            return None
        return BatchLog(
            self.events,
            self.model,
            self._batches_per_entry,
            self.write_steps_per_second,
        )


def _name_run(log_dir: Any) -> str:
    """Returns the shortest path that tells a training from others, its end first.

    TensorBoard cuts long names at their end.
    """
    path = Path(log_dir).absolute()
    if path.name == "tensorboard":
        path = path.parent  # the run directory
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    # Tuners have a folder for each execution of a trial.
    length = 2 if path.name.startswith("execution") else 1
    if len(path.parts) <= length:
        return printable_path(path)
    name, rest = Path(*path.parts[-length:]), Path(*path.parts[:-length])
    return printable_path(f"{_begin_with_time(str(name))} ({rest})")


def _begin_with_time(name: str) -> str:
    """Moves the time at the end of a default name to the front, where it is seen."""
    dated = re.fullmatch(r"(.+)-\d{4}(\d{4}-\d{6})", name)
    return f"{dated[2]} {dated[1]}" if dated else name


def _check_class_names(class_names: Any) -> tuple[str, ...] | None:
    if class_names is None:
        return None
    names = () if isinstance(class_names, str) else tuple(class_names)
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(
            "`class_names` must be strings, one for each label. "
            f"Received: class_names={class_names!r}"
        )
    return names


def _check_images(images: Any) -> np.ndarray | None:
    if images is None:
        return None
    array = np.asarray(keras.ops.convert_to_numpy(images))
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise InputError(
            "`training_images` must be an array (count, height, width, 1 or 3). "
            f"Received: training_images of shape {array.shape}"
        )
    return array
