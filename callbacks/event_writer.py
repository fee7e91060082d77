"""Writes what TensorBoard reads: one event file per folder, and no epoch twice."""

import contextlib
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_flowers.errors import InputError
from keras_flowers.files import printable_path, temporary_sibling

# The runs of one training: its two splits, and what belongs to it as a whole.
TRAIN, VALIDATION, WHOLE = "train", "validation", "."

# Only files with this ending are ever changed: others may write into the folder too.
_MARK = ".keras_flowers"
_LAYERS_TAG = "keras"
_EPOCH_PREFIXES = ("epoch_", "precision/", "recall/", "average_precision/")
_EPOCH_TAGS = ("augmented_photos", "confusion_matrix", "mistakes")
_EPOCH_ENDINGS = ("/histogram", "/image")
_STEP_ENDING = "_vs_iterations"


class EventWriter:
    """Writes the event files of one training.

    A TensorBoard server reads one growing file per folder, so everything that goes
    into a folder goes through one file writer, that of `file_writer`.

    Args:
        directory: The folder that holds the folders of the runs.
        steps_before: Optimizer steps of earlier trainings with the same files.

    Attributes:
        directory: As above.
        steps_before: As above.
    """

    def __init__(self, directory: Path, steps_before: int = 0) -> None:
        import tensorflow as tf

        if keras.backend.backend() != "tensorflow":
            # TensorFlow only writes files then; its claim on a GPU's memory would
            # starve the backend. Too late if it has used the GPU before.
            with contextlib.suppress(RuntimeError):
                tf.config.set_visible_devices([], "GPU")
        self._summary = tf.summary
        self.directory = directory
        self.steps_before = steps_before
        self._ending = f".{secrets.token_hex(4)}{_MARK}"
        self._writers: dict[Path, FileWriter] = {}

    def write_scalars(self, run: str, step: int, scalars: Mapping[str, float]) -> None:
        """Writes numbers by tag.

        Args:
            run: `TRAIN`, `VALIDATION` or `WHOLE`, as in all methods.
            step: The epoch, or the step of the optimizer.
            scalars: The number of each tag.
        """
        with self.file_writer(run).as_default(step):
            for tag, value in scalars.items():
                self._summary.scalar(tag, value)

    def write_images(
        self, run: str, step: int, images: Mapping[str, np.ndarray]
    ) -> None:
        """Writes images by tag, uint8 `(height, width, 3)` each."""
        with self.file_writer(run).as_default(step):
            for tag, image in images.items():
                self._summary.image(tag, image[np.newaxis])

    def write_texts(self, run: str, step: int, texts: Mapping[str, str]) -> None:
        """Writes texts in Markdown by tag."""
        with self.file_writer(run).as_default(step):
            for tag, text in texts.items():
                self._summary.text(tag, text)

    def write_operations(self, run: str, graph: Any) -> None:
        """Writes the operations of a model, a `tf.compat.v1.GraphDef`."""
        with self.file_writer(run).as_default():
            self._summary.graph(graph)

    def write_layers(self, run: str, config: str) -> None:
        """Writes the layers of a model, the JSON of its configuration."""
        import tensorflow as tf

        metadata = tf.compat.v1.SummaryMetadata()
        # The name by which TensorBoard knows it, as Keras's callback writes it.
        metadata.plugin_data.plugin_name = "graph_keras_model"
        metadata.plugin_data.content = b"1"
        with self.file_writer(run).as_default():
            self._summary.write(_LAYERS_TAG, config, step=0, metadata=metadata)

    @contextlib.contextmanager
    def receive_summaries(
        self, run: str, step: int, is_recorded: bool
    ) -> Iterator[None]:
        """Takes the summaries that a model writes itself within this context.

        Args:
            run: The run that they belong to.
            step: Their step.
            is_recorded: Whether to write them.
        """
        with (
            self.file_writer(run).as_default(step),
            self._summary.record_if(is_recorded),
        ):
            yield

    def file_writer(self, run: str) -> "FileWriter":
        """Returns the only writer of the folder of a run."""
        path = self.directory / run
        if path not in self._writers:
            with _name_folder(path):
                writer = self._summary.create_file_writer(
                    str(path), filename_suffix=self._ending
                )
            self._writers[path] = FileWriter(writer, path)
        return self._writers[path]

    def flush(self) -> None:
        """Writes to disk what is still in memory."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Closes all files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def remove_repeats(self, epoch: int, step: int) -> None:
        """Removes from earlier event files what is about to be written again.

        A run that was killed wrote more than its last checkpoint holds. TensorBoard
        would show those epochs twice. Files that TensorBoard or others wrote are left
        alone.

        Args:
            epoch: The next epoch, from 0.
            step: Steps that the optimizer has done.
        """
        step += self.steps_before
        for run in (TRAIN, VALIDATION, WHOLE):
            for path in sorted((self.directory / run).glob(f"*tfevents*{_MARK}")):
                if path.name.endswith(self._ending):
                    continue
                if run == WHOLE:
                    path.unlink()  # configuration, which each start writes again
                else:
                    _remove_repeats(path, epoch, step)


class KerasSummary:
    """What Keras's TensorBoard callback calls in place of the module `tf.summary`.

    Keras creates its own file writers through the property `summary` of its callback.
    This object hands out those of an `EventWriter` instead, and passes on the rest.

    Args:
        events: Where Keras's summaries go.
    """

    def __init__(self, events: EventWriter) -> None:
        import tensorflow as tf

        self._events = events
        self.histogram = tf.summary.histogram
        self.image = tf.summary.image
        self.graph = tf.summary.graph
        self.record_if = tf.summary.record_if
        self.trace_on = tf.summary.trace_on
        self.trace_export = tf.summary.trace_export
        self._write_scalar = tf.summary.scalar

    def create_file_writer(self, directory: str) -> "FileWriter":
        """Returns the writer of a folder below that of the `EventWriter`."""
        run = Path(directory).relative_to(self._events.directory)
        return self._events.file_writer(run.as_posix())

    def scalar(self, name: str, data: Any, step: Any = None) -> Any:
        """Writes a number as `tf.summary.scalar` does."""
        if name.endswith(_STEP_ENDING):
            # Keras asks the optimizer, which counts from where it was created.
            step = int(keras.ops.convert_to_numpy(step)) + self._events.steps_before
        return self._write_scalar(name, data, step)


class FileWriter:
    """A file writer of TensorFlow whose errors name the folder and the reason.

    Args:
        writer: What `tf.summary.create_file_writer` returned.
        directory: The folder of its file.
    """

    def __init__(self, writer: Any, directory: Path) -> None:
        self._writer = writer
        self._directory = directory

    @contextlib.contextmanager
    def as_default(self, step: int | None = None) -> Iterator[None]:
        """Makes it the writer of all summaries within this context."""
        with _name_folder(self._directory), self._writer.as_default(step):
            yield

    def flush(self) -> None:
        """Writes to disk what is still in memory."""
        with _name_folder(self._directory):
            self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        with _name_folder(self._directory):
            self._writer.close()


@contextlib.contextmanager
def _name_folder(directory: Path) -> Iterator[None]:
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        message = str(error.message)
        full = "No space left on device"
        reason = full if full in message else message.splitlines()[0]
        raise InputError(
            f"`{printable_path(directory)}` cannot be written: {reason}"
        ) from error


def _remove_repeats(path: Path, epoch: int, step: int) -> None:
    import tensorflow as tf

    kept, is_changed, is_empty = [], False, True
    # The last record of a killed process may be torn; reading ends there.
    with contextlib.suppress(tf.errors.DataLossError):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            if _is_repeated(event, epoch, step):
                is_changed = True
            else:
                kept.append(record)
                is_empty = is_empty and not event.HasField("summary")
    if is_empty:
        path.unlink()
    elif is_changed:
        with (
            temporary_sibling(path) as temporary,
            tf.io.TFRecordWriter(str(temporary)) as writer,
        ):
            for record in kept:
                writer.write(record)


def _is_repeated(event: Any, epoch: int, step: int) -> bool:
    if event.HasField("graph_def"):
        return True
    return any(
        value.tag == _LAYERS_TAG
        or (event.step >= epoch if _counts_epochs(value.tag) else event.step > step)
        for value in event.summary.value
    )


def _counts_epochs(tag: str) -> bool:
    """Tells steps that are epochs, from 0, from optimizer steps, from 1."""
    return (
        tag in _EPOCH_TAGS
        or tag.startswith(_EPOCH_PREFIXES)
        or tag.endswith(_EPOCH_ENDINGS)
    )
