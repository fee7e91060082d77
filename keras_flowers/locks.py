"""One lock for everything that several processes may write."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from keras_flowers.errors import InputError
from keras_flowers.files import explain_os_error, printable_path


class LockHeldError(InputError):
    """Raised when another process holds a lock that is not waited for."""


@contextlib.contextmanager
def exclusive_lock(path: Path, *, wait: bool = True, hint: str = "") -> Iterator[None]:
    """Keeps other processes out of what a lock file stands for.

    Args:
        path: The lock file. Its folder is created where it is missing.
        wait: Whether to wait for a process that holds the lock.
        hint: A sentence without a full stop that names the option to change if the
            folder cannot be written.

    Raises:
        LockHeldError: If another process holds the lock and `wait` is False.
        FileAccessError: If the lock file cannot be written, with the reason and the
            path.
    """
    lock = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=wait)
    except filelock.Timeout:
        raise LockHeldError(
            f"Another process is using {printable_path(path.parent)}."
        ) from None
    except OSError as error:
        raise explain_os_error(error, path.parent, hint) from error
    try:
        yield
    finally:
        lock.release()
