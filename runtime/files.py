"""Writes files that appear at once; shows paths on one line and numbers in JSON."""

import csv
import errno
import json
import math
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keras_flowers_runtime.errors import FileAccessError

_TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{16}(\.[^.]*)?")


@contextmanager
def temporary_sibling(path: str | os.PathLike[str], hint: str = "") -> Iterator[Path]:
    """Yields a temporary path whose file replaces `path` at the end.

    The temporary file is in the same folder and has the same suffixes. The body of the
    `with` statement writes it. At the end, the file is flushed to disk and renamed: a
    reader sees either the old file or the new one. If the body raises, the temporary
    file is removed and the old one stays.

    Args:
        path: The file to write or to replace. Its folder must exist.
        hint: As for `explain_os_error`.

    Yields:
        The path to write to. No file exists there yet.

    Raises:
        FileAccessError: If the file cannot be written, with the reason: a missing or
            read-only folder, a full disk.
    """
    target = Path(path)
    # A name of the form that `remove_leftovers` knows.
    # All of them: Keras wants weights to end in `.weights.h5`.
    suffixes = "".join(target.suffixes)
    temporary = target.with_name(f".{secrets.token_hex(8)}{suffixes}")
    try:
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
            _sync_folder(target.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise explain_os_error(error, path, hint) from error


def explain_os_error(
    error: OSError,
    path: str | os.PathLike[str],
    hint: str = "",
    *,
    action: str = "written",
) -> FileAccessError:
    """Returns the error to raise in place of one of the operating system.

    Args:
        error: The error, such as a full disk, an exceeded quota, a read-only disk or
            missing permissions.
        path: The file or folder that the user knows.
        hint: A sentence without a full stop that names the option to change.
        action: What failed: `"written"` or `"read"`.

    Returns:
        An error whose message has the path, the reason and the hint.
    """
    code = None if error.errno is None else os.strerror(error.errno)
    reason = error.strerror or code or str(error) or type(error).__name__
    message = f"`{printable_path(path)}` cannot be {action}: {reason}"
    return FileAccessError(f"{message}. {hint}" if hint else message)


def find_existing_folder(path: str | os.PathLike[str]) -> Path:
    """Returns a path, or the nearest one above it that exists and can be seen."""
    for place in (Path(path), *Path(path).absolute().parents):
        with suppress(PermissionError):
            if place.exists():
                return place
    return Path(os.sep)


def require_writable_folder(path: str | os.PathLike[str], hint: str = "") -> None:
    """Makes sure that files can be written in a folder, which need not exist yet.

    Args:
        path: The folder.
        hint: As for `explain_os_error`.

    Raises:
        FileAccessError: If they cannot, with the reason.
    """
    existing = find_existing_folder(path)
    if not existing.is_dir():
        code = errno.ENOTDIR
    elif os.statvfs(existing).f_flag & os.ST_RDONLY:
        code = errno.EROFS
    elif not os.access(existing, os.W_OK | os.X_OK):
        code = errno.EACCES
    else:
        return
    raise explain_os_error(OSError(code, os.strerror(code)), path, hint)


def _sync_folder(folder: Path) -> None:
    """Makes a new name last through a power cut, where the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Removes what a killed process left in a folder under a temporary name.

    For folders in which nobody else writes at that time.

    Args:
        folder: An existing folder.
    """
    for path in Path(folder).iterdir():
        if _TEMPORARY_NAME.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def write_text_atomically(
    path: str | os.PathLike[str], text: str, hint: str = ""
) -> None:
    """Writes a text file as UTF-8, either completely or not at all.

    Args:
        path: The file to write or to replace. Its folder must exist.
        text: The content. Line ends are written as they are.
        hint: As for `explain_os_error`.

    Raises:
        FileAccessError: As for `temporary_sibling`.
    """
    with temporary_sibling(path, hint) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_csv_atomically(
    path: str | os.PathLike[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Writes a CSV file as UTF-8 that is either whole or not there.

    Names keep their bytes, also those that are no text. A NaN is written as `nan`.

    Args:
        path: The file to write or to replace. Its folder must exist.
        rows: The rows, that of the column names first.

    Raises:
        FileAccessError: As for `temporary_sibling`.
    """
    with (
        temporary_sibling(path) as temporary,
        temporary.open(
            "w", newline="", encoding="utf-8", errors="surrogateescape"
        ) as file,
    ):
        csv.writer(file).writerows(rows)


def json_text(content: Any) -> str:
    """Returns strict JSON, which has no numbers for NaN and infinities.

    They become the strings `"NaN"`, `"Infinity"` and `"-Infinity"`, which `float`
    reads.

    Args:
        content: Dictionaries, lists, tuples, strings, numbers, booleans and None.

    Returns:
        The text, without a line break at its end.
    """
    return json.dumps(_strict(content), indent=1, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _strict(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return value


def printable_path(path: str | os.PathLike[str]) -> str:
    r"""Returns a path as one line that every terminal and file can take.

    Line breaks, other control characters and bytes that are no text are shown as
    escapes (`\n`, `\x1b`, `\udcff`); every other character stays as it is.

    Args:
        path: Any path.

    Returns:
        A text without control characters that encodes to UTF-8.
    """
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in os.fspath(path)
    )


def path_below(root: Path | None, path: Path) -> str:
    """Returns a path relative to a folder, or as it is if it is not in the folder."""
    if root is not None and path.is_relative_to(root):
        path = path.relative_to(root)
    return os.fspath(path)
