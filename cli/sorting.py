"""Sorts classified images into one folder per class without overwriting files."""

import errno
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from keras_flowers_cli.options import check_writable

if TYPE_CHECKING:
    from keras_flowers_runtime.classification import Classification


@dataclass(frozen=True)
class Sorting:
    """Where classified images go.

    Attributes:
        folder: The folder that gets one folder per class.
        moves: Whether the images are moved, not copied.
        is_dry: Whether to only tell what would happen.
    """

    folder: Path
    moves: bool
    is_dry: bool

    @property
    def option(self) -> str:
        """The option that asked for it."""
        return "--move-to" if self.moves else "--copy-to"


def choose_sorting(
    move_to: Path | None, copy_to: Path | None, dry_run: bool
) -> Sorting | None:
    """Returns what the options ask for, or `None`."""
    if move_to is not None and copy_to is not None:
        raise click.UsageError("--move-to and --copy-to exclude each other.")
    folder = move_to or copy_to
    if folder is None:
        if dry_run:
            raise click.UsageError("--dry-run needs --move-to or --copy-to.")
        return None
    sorting = Sorting(folder, move_to is not None, dry_run)
    check_writable(folder, sorting.option)
    return sorting


def check_class_names(sorting: Sorting, class_names: Iterable[str]) -> None:
    """Refuses a class that cannot be a folder: a model file may hold any names."""
    from keras_flowers_runtime.errors import InputError
    from keras_flowers_runtime.files import printable_path

    for name in class_names:
        if name in ("", ".", "..") or "/" in name or os.sep in name or "\0" in name:
            raise InputError(
                f"{sorting.option}: the class {printable_path(name)!r} cannot be the "
                "name of a folder."
            )


def sort_images(
    sorting: Sorting, results: Iterable["Classification"]
) -> Iterator[tuple[Path, Path]]:
    """Moves or copies each image into the folder of its class, or of each label.

    If a name is taken, the image gets a number. An image that is already in its
    folder stays there.

    Yields:
        Old and new path of each image that was moved or copied, or would be.
    """
    promised: set[Path] = set()
    for result in results:
        labels = (result.label,) if result.labels is None else result.labels
        for label in labels:
            source, folder = Path(result.path), sorting.folder / label
            if folder.is_dir() and source.parent.resolve() == folder.resolve():
                continue
            target = _sort_image(sorting, source, folder, promised)
            promised.add(target)
            yield source, target


def _sort_image(
    sorting: Sorting, source: Path, folder: Path, promised: Collection[Path]
) -> Path:
    """Moves or copies an image into a folder; returns its new path."""
    for target in _names(folder, source.name):
        if target in promised or os.path.lexists(target):
            continue
        if sorting.is_dry:
            return target
        folder.mkdir(parents=True, exist_ok=True)
        # Otherwise another process took the name just now.
        if _place(source, target, sorting.moves):
            return target
    raise AssertionError("there is always another name")


def _names(folder: Path, name: str) -> Iterator[Path]:
    yield folder / name
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  bytes that are no text stay
    number = 2
    while True:
        yield folder / f"{stem}-{number}{suffix}"
        number += 1


def _place(source: Path, target: Path, moves: bool) -> bool:
    """Copies or moves a file to a name that is free; returns whether it still was.

    A link is followed: the image itself is copied. The file appears when it is
    complete.
    """
    if moves and not source.is_symlink():
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        except OSError as error:
            # Another file system, or one without hard links: copied instead.
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP):
                raise
        else:
            source.unlink()
            return True
    temporary = target.with_name(f".{secrets.token_hex(8)}")
    try:
        shutil.copy2(source, temporary)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP):
                raise
            # Without hard links only a rename is left; the name was free a moment ago.
            temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
    if moves:
        source.unlink()
    return True
