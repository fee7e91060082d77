"""The event files that TensorBoard reads: one writer for each, and no repeats."""

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_flowers.errors import InputError
from keras_flowers.files import printable_path, temporary_sibling

TRAIN, VALIDATION, WHOLE = "train", "validation", "."

# Only files with this ending are ever changed: others may write beside them.
_MARK = ".keras_flowers"
_LAYERS = "keras"  # the tag of the graph of layers
_EPOCH_PREFIXES = ("epoch_", "precision/", "recall/")
_EPOCH_TAGS = ("augmented_photos", "confusion_matrix", "mistakes")
_EPOCH_ENDINGS = ("/histogram", "/image")
_STEP_ENDING = "_vs_iterations"


class EventFiles:
    """The event files of one training.

    A server that watches a run reads one growing file per folder, so everything
    that is written into a folder must go through one writer. This object stands in
    for the module `tf.summary`, with the difference that it gives the same writer
    to all who ask for one in a folder.

    Args:
        directory: The folder in which the folders of the runs stand.
        steps_before: Optimizer steps of earlier trainings with the same files.

    Attributes:
        directory: As above.
        steps_before: As above.
    """

    def __init__(self, directory: Path, steps_before: int = 0) -> None:
        import tensorflow as tf

        if keras.backend.backend() != "tensorflow":
            # TensorFlow only writes files then; its claim on a GPU's memory would
            # starve the backend. Too late where it has used the GPU before.
            with contextlib.suppress(RuntimeError):
                tf.config.set_visible_devices([], "GPU")
        self._summary = tf.summary
        self.directory = directory
        self.steps_before = steps_before
        self._ending = f".{secrets.token_hex(4)}{_MARK}"
        self._writers: dict[Path, EventWriter] = {}

    def __getattr__(self, name: str) -> Any:
        """Returns what `tf.summary` has under the name."""
        return getattr(self._summary, name)

    def scalar(self, name: str, data: Any, step: Any = None, **options: Any) -> Any:
        """Writes a number as `tf.summary.scalar` does."""
        if name.endswith(_STEP_ENDING):
            # Keras asks the optimizer, which counts from where it was made.
            step = int(keras.ops.convert_to_numpy(step)) + self.steps_before
        return self._summary.scalar(name, data, step, **options)

    def create_file_writer(self, directory: str) -> "EventWriter":
        """Returns the writer of a folder."""
        path = Path(directory)
        if path not in self._writers:
            with _errors_named(path):
                writer = self._summary.create_file_writer(
                    str(path), filename_suffix=self._ending
                )
            self._writers[path] = EventWriter(writer, path)
        return self._writers[path]

    def writer(self, run: str) -> "EventWriter":
        """Returns the writer of `TRAIN`, `VALIDATION` or `WHOLE`."""
        return self.create_file_writer(str(self.directory / run))

    def flush(self) -> None:
        """Writes to disk what waits in memory."""
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Closes all files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def drop_repeats(self, epoch: int, step: int) -> None:
        """Removes from earlier event files what is about to be written again.

        A run that was killed wrote more than its last checkpoint knows of. Without
        this, TensorBoard would show such epochs twice. Of what TensorBoard itself
        wrote, or anybody else, nothing is touched.

        Args:
            epoch: The first epoch to come, from 0.
            step: Steps that the optimizer has done.
        """
        step += self.steps_before
        for run in (TRAIN, VALIDATION, WHOLE):
            for path in sorted((self.directory / run).glob(f"*tfevents*{_MARK}")):
                if path.name.endswith(self._ending):
                    continue
                if run == WHOLE:
                    path.unlink()  # configuration, which each start writes anew
                else:
                    _drop_repeats(path, epoch, step)


class EventWriter:
    """A writer of TensorFlow that names the folder when it cannot be written.

    Args:
        writer: What `tf.summary.create_file_writer` returned.
        directory: The folder of its file.
    """

    def __init__(self, writer: Any, directory: Path) -> None:
        self._writer = writer
        self._directory = directory

    @contextlib.contextmanager
    def as_default(self, step: int | None = None) -> Iterator[None]:
        """Makes it the writer of all summaries; writes them to disk at the end."""
        with _errors_named(self._directory), self._writer.as_default(step):
            yield

    def flush(self) -> None:
        """Writes to disk what waits in memory."""
        with _errors_named(self._directory):
            self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        with _errors_named(self._directory):
            self._writer.close()


@contextlib.contextmanager
def _errors_named(directory: Path) -> Iterator[None]:
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


def _drop_repeats(path: Path, epoch: int, step: int) -> None:
    import tensorflow as tf

    kept, dropped, is_empty = [], False, True
    # The last record of a killed process may be torn; reading ends there.
    with contextlib.suppress(tf.errors.DataLossError):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            if _is_repeated(event, epoch, step):
                dropped = True
            else:
                kept.append(record)
                is_empty = is_empty and not event.HasField("summary")
    if is_empty:
        path.unlink()
    elif dropped:
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
        value.tag == _LAYERS
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
