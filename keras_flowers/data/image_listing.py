"""Lists the class folders of a data folder and their files, without opening any."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_flowers.data.image_files import IMAGE_SUFFIXES, is_clutter
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the file system says about a file.

    Attributes:
        path: Relative to the data folder, with `/` as the separator.
        size: File size in bytes.
        modified_ns: Modification time in nanoseconds since 1970.
    """

    path: str
    size: int
    modified_ns: int


@dataclass(frozen=True)
class ImageListing:
    """The content of a data folder before any file is opened.

    All paths are sorted and relative to `root`, with `/` as the separator.

    Attributes:
        root: The data folder.
        class_names: The folders in it that contain files, in Python's sort order. As
            in Keras, the position of a name is its label.
        files: Every file in a class folder, at any depth and with any suffix.
        empty_classes: The folders without any file.
        clutter: Ignored files and folders of systems and programs: hidden ones,
            `__MACOSX`, `Thumbs.db`, `desktop.ini`.
        ignored: Other ignored entries that may be or contain images: images outside
            the class folders, links to folders in a class folder, links back to the
            data folder, pipes and devices.
        unreadable: Folders that cannot be listed.
    """

    root: Path
    class_names: tuple[str, ...]
    files: tuple[FileEntry, ...]
    empty_classes: tuple[str, ...] = ()
    clutter: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()


def list_images(root: Path) -> ImageListing:
    """Finds the class folders of a data folder and the files in them.

    A class is a folder, or a link to one, directly in `root`. Its images may be in
    subfolders at any depth. There, links to files are followed and links to folders
    are not, so that circular links do no harm.

    Args:
        root: The data folder.

    Returns:
        The listing. No file is opened.

    Raises:
        InputError: If `root` is not a folder that can be listed, or contains fewer
            than two class folders with files.
    """
    walk = _Walk(root)
    class_names: list[str] = []
    empty_classes: list[str] = []
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(
            f"`{printable_path(root)}` must be a folder with one folder of images per "
            f"class. Received: {error.strerror or type(error).__name__}"
        ) from error
    for entry in entries:
        if is_clutter(entry.name):
            walk.clutter.append(entry.name)
        elif not _is_folder(entry):
            # A LICENSE.txt belongs here; an image may be misplaced.
            if Path(entry.name).suffix.lower() in IMAGE_SUFFIXES:
                walk.ignored.append(entry.name)
        elif _leads_back(entry, root):
            walk.ignored.append(entry.name)
        else:
            before = len(walk.files)
            walk.visit(entry.name)
            found = class_names if len(walk.files) > before else empty_classes
            found.append(entry.name)
    require_two_classes(root, class_names, "with files")
    return ImageListing(
        root=root,
        class_names=tuple(class_names),
        files=tuple(sorted(walk.files, key=lambda file: file.path)),
        empty_classes=tuple(empty_classes),
        clutter=tuple(sorted(walk.clutter)),
        ignored=tuple(sorted(walk.ignored)),
        unreadable=tuple(sorted(walk.unreadable)),
    )


class _Walk:
    """Collects the content of the class folders."""

    def __init__(self, root: Path) -> None:
        self.files: list[FileEntry] = []
        self.clutter: list[str] = []
        self.ignored: list[str] = []
        self.unreadable: list[str] = []
        self._root = root

    def visit(self, folder: str) -> None:
        folders = [folder]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self._root / folder) as entries:
                    folders.extend(self._sort_in(folder, entries))
            except OSError:
                self.unreadable.append(folder)

    def _sort_in(
        self, folder: str, entries: Iterable[os.DirEntry[str]]
    ) -> Iterator[str]:
        """Adds the entries of a folder and yields its subfolders."""
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if is_clutter(entry.name):
                self.clutter.append(path)
            elif entry.is_dir(follow_symlinks=False):
                yield path
            else:
                self._add_file(path, entry)

    def _add_file(self, path: str, entry: os.DirEntry[str]) -> None:
        try:
            status = entry.stat()
        except OSError:  # A broken link: the inspection names the reason.
            self.files.append(FileEntry(path, 0, 0))
            return
        if stat.S_ISREG(status.st_mode):
            self.files.append(FileEntry(path, status.st_size, status.st_mtime_ns))
        else:
            self.ignored.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def _leads_back(entry: os.DirEntry[str], root: Path) -> bool:
    """Returns whether a link leads to the data folder or to a folder above it."""
    if not entry.is_symlink():
        return False
    return root.resolve().is_relative_to(Path(entry.path).resolve())


def require_two_classes(root: Path, class_names: Sequence[str], which: str) -> None:
    """Checks that there is something to classify.

    Raises:
        InputError: If there are fewer than two class folders `which`, such as "with
            files".
    """
    if len(class_names) >= 2:
        return
    received = "none" if not class_names else f"one: {printable_path(class_names[0])}"
    raise InputError(
        f"`{printable_path(root)}` must contain at least two class folders {which}. "
        f"Received: {received}"
    )
