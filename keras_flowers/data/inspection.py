"""Decodes many image files in parallel: the one pass that audits and caches share.

`inspect_files` opens every file once. Its records are what an audit is made of, and its
pixels are what an image cache holds:

    list_images -> inspect_files -> audit_images    (keras_flowers.data.audit)
                                 -> ImageCache      (keras_flowers.data.image_cache)
"""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keras_flowers.argument_checks import check_integer
from keras_flowers.data.image_files import (
    DEFAULT_OPTIONS,
    ImageOptions,
    ImageRecord,
    Pixels,
    inspect_image,
)
from keras_flowers.data.image_listing import FileEntry
from keras_flowers.progress import Progress

Visit = Callable[[int, ImageRecord, Pixels | None], None]

_MOST_WORKERS = 16  # more threads than this wait for Python's lock


def inspect_files(
    root: Path,
    files: Sequence[FileEntry],
    *,
    image_size: tuple[int, int] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    step: str = "inspect",
    options: ImageOptions = DEFAULT_OPTIONS,
    visit: Visit | None = None,
) -> list[ImageRecord]:
    """Inspects files in several threads, each of which holds one image at a time.

    Args:
        root: The data folder.
        files: The files to inspect.
        image_size: `(height, width)` of the pixels to pass to `visit`.
        workers: The number of threads; None uses one more than there are processors,
            up to 16, so that some decode while another waits for the disk.
        progress: Called as `progress(step, done, total)` in the calling thread after
            each file.
        step: What `progress` calls this pass.
        options: How images become pixels.
        visit: Called as `visit(index, record, pixels)` after each file, with its
            position in `files` and the result of `inspect_image`. It is called from
            the worker threads, concurrently and in any order. An error that it raises
            ends the inspection and is raised here.

    Returns:
        The records, in the order of `files`.

    Raises:
        InputError: If `workers` is not positive.
    """
    if workers is not None:
        workers = check_integer("workers", workers, lowest=1)
    workers = min(workers or default_workers(), max(1, len(files)))
    records: dict[int, ImageRecord] = {}
    outcomes: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    todo = iter(range(len(files)))
    lock = threading.Lock()
    stopped = threading.Event()

    def inspect_next() -> bool:
        with lock:
            index = next(todo, None)
        if index is None:
            return False
        record, pixels = inspect_image(root, files[index].path, image_size, options)
        if visit is not None:
            visit(index, record, pixels)
        records[index] = record
        return True

    def work() -> None:
        try:
            while not stopped.is_set() and inspect_next():
                outcomes.put(None)
        except BaseException as error:
            outcomes.put(error)

    with ThreadPoolExecutor(workers, thread_name_prefix="inspect") as pool:
        try:
            for _ in range(workers):
                pool.submit(work)
            for done in range(1, len(files) + 1):
                error = outcomes.get()
                if error is not None:
                    raise error
                if progress is not None:
                    progress(step, done, len(files))
        finally:
            # Also on Ctrl-C: each thread finishes its current image and ends.
            stopped.set()
    return [records[index] for index in range(len(files))]


def default_workers() -> int:
    """Returns the best number of threads to read and decode images with."""
    return min(_MOST_WORKERS, processors() + 1)


def processors() -> int:
    """Returns the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
