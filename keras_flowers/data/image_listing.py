"""Lists the classes of a data folder and their files, without decoding any."""

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from keras_flowers.data.findings import Finding
from keras_flowers.data.image_files import IMAGE_SUFFIXES, starts_like_an_image
from keras_flowers.data.layout import (
    ClassFolder,
    Layout,
    find_layout,
    is_clutter,
    is_program_folder,
)
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path

_TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What the file system says about a file.

    Attributes:
        path: Relative to the root of the listing, with `/` as the separator.
        size: File size in bytes.
        modified_ns: Modification time in nanoseconds since 1970.
        changed_ns: Time of the last change of content, name or permissions in
            nanoseconds since 1970. Unlike the modification time, no program sets it.
        inode: The number of the file in its file system.
    """

    path: str
    size: int
    modified_ns: int
    changed_ns: int = 0
    inode: int = 0


@dataclass(frozen=True)
class ImageListing:
    """The content of a data folder before any file is decoded.

    All paths are sorted and relative to `root`, with `/` as the separator.

    Attributes:
        root: The folder that contains the classes, or the parts of a split.
        layout: Which folders are classes, and why.
        files: Every file in a class folder, at any depth and with any suffix.
        classes: The class folder of each file in `files`.
        empty_classes: Folders next to class folders without any file.
        clutter: Ignored files and folders of systems and programs.
        ignored: Pipes, devices, and images directly next to class folders.
        unlabeled: Folders of images that are not in a class folder.
        circles: Links to folders that contain them or are already listed.
        unreadable: Folders that cannot be listed.
        groups: The names of groups by path, from a label file.
        labels: The classes of each file by path, from a label file that may give an
            image several classes or none; None if each file has one class.
        excluded: The files that the user has excluded, which are not in `files`.
        findings: What a label file is wrong about, and what is excluded.
    """

    root: Path
    layout: Layout
    files: tuple[FileEntry, ...]
    classes: tuple[ClassFolder, ...]
    empty_classes: tuple[str, ...] = ()
    clutter: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unlabeled: tuple[str, ...] = ()
    circles: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] | None = None
    excluded: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes that contain files, sorted as Python sorts text."""
        found = self.labels_by_path().values()
        return tuple(sorted({name for names in found for name in names}))

    def labels_by_path(self) -> dict[str, tuple[str, ...]]:
        """Returns the classes of each file: one, unless a label file says otherwise."""
        pairs = zip(self.files, self.classes, strict=True)
        return {
            file.path: (
                (folder.class_name,) if self.labels is None else self.labels[file.path]
            )
            for file, folder in pairs
        }


def list_images(
    root: Path,
    *,
    name: str | None = None,
    class_depth: int | None = None,
    class_names: Collection[str] = (),
) -> ImageListing:
    """Finds the class folders of a data folder and the files in them.

    `keras_flowers.data.layout` decides which folders are classes. Links to files and
    folders are followed; a folder is listed once, so that circular links do no harm.
    Of files without a usual suffix, the first bytes are read.

    Args:
        root: The data folder.
        name: What messages call the data folder, such as the archive that it is from;
            None for its path.
        class_depth: How many levels below `root` the class folders are; None decides
            by the content of the folder.
        class_names: Class names to look for, such as those that a model knows. A
            single class is enough then.

    Returns:
        The listing.

    Raises:
        InputError: If `root` is not a folder that can be listed, or contains fewer
            than two classes.
    """
    name = f"`{printable_path(root if name is None else name)}`"
    walk = _Walk(root)
    try:
        walk.visit()
    except OSError as error:
        raise InputError(
            f"{name} must be a folder with one folder of images per class. "
            f"Received: {error.strerror or type(error).__name__}"
        ) from error
    try:
        layout = find_layout(
            sorted(walk.images),
            name=name,
            class_depth=class_depth,
            class_names=class_names,
        )
        listing = _sort_into_classes(walk, layout)
        if not class_names:
            require_two_classes(name, listing.class_names, "with images")
    except InputError as error:
        names = (file.path for file in walk.files)
        tables = [name for name in names if name.lower().endswith(_TABLE_SUFFIXES)]
        if not tables:
            raise
        raise InputError(
            f"{error}. If a label file such as {printable_path(min(tables))} names the "
            "classes, pass it as `labels` (--labels)"
        ) from error
    return listing


def find_image_files(root: Path, folder: str = "") -> set[str]:
    """Returns the images in a folder, at any depth, whatever they are labelled with.

    Args:
        root: The data folder.
        folder: A folder in it; all of it by default.

    Returns:
        Paths relative to `root`, without those in folders that cannot be listed.
    """
    walk = _Walk(root / folder)
    try:
        walk.visit()
    except OSError:
        return set()
    return {f"{folder}/{path}" if folder else path for path in walk.images}


class _Walk:
    """Collects the files and folders in a data folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[FileEntry] = []
        self.images: set[str] = set()
        self.folders: list[str] = []
        self.clutter: list[str] = []
        self.special: list[str] = []
        self.circles: list[str] = []
        self.unreadable: list[str] = []
        self._links: list[str] = []
        self._visited: set[tuple[int, int]] = set()

    def visit(self) -> None:
        """Visits the data folder, then the folders that links in it lead to."""
        starts = {"": self.root.resolve()}  # the folder that each link leads to
        self._visit_tree("")
        while self._links:
            self._links.sort(reverse=True)
            link = self._links.pop()
            target = (self.root / link).resolve()
            above = (s for p, s in starts.items() if f"{link}/".startswith(p))
            if any(start.is_relative_to(target) for start in above):
                self.circles.append(link)  # It leads upwards, to its own folder.
            else:
                starts[f"{link}/"] = target
                self._visit_tree(link)

    def _visit_tree(self, folder: str) -> None:
        pending = [folder]
        while pending:
            folder = pending.pop()
            path = self.root / folder
            try:
                status = path.stat()
                with os.scandir(path) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                if not folder:
                    raise
                self.unreadable.append(folder)
                continue
            identity = (status.st_dev, status.st_ino)
            if identity in self._visited:
                self.circles.append(folder)
            elif folder and is_program_folder(entry.name for entry in found):
                self.clutter.append(folder)
            else:
                self._visited.add(identity)
                self.folders.append(folder)
                pending.extend(self._visit_entries(folder, found))

    def _visit_entries(
        self, folder: str, entries: Sequence[os.DirEntry[str]]
    ) -> Iterator[str]:
        """Adds the files of a folder and yields its subfolders."""
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_clutter(entry.name):
                self.clutter.append(path)
            elif entry.is_dir(follow_symlinks=False):
                yield path
            elif _is_folder(entry):
                self._links.append(path)
            else:
                self._add_file(path, entry)

    def _add_file(self, path: str, entry: os.DirEntry[str]) -> None:
        try:
            status = entry.stat()
        except OSError:  # A broken link: the inspection names the reason.
            file = FileEntry(path, 0, 0)
        else:
            if not stat.S_ISREG(status.st_mode):
                self.special.append(path)
                return
            file = FileEntry(
                path,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
            )
        self.files.append(file)
        suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122  (much faster)
        if suffix in IMAGE_SUFFIXES or starts_like_an_image(self.root / path):
            self.images.add(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # A link to itself.
        return False


def _sort_into_classes(walk: _Walk, layout: Layout) -> ImageListing:
    prefix = f"{layout.root}/" if layout.root else ""

    def relative(paths: Collection[str]) -> list[str]:
        # What is next to a skipped folder keeps the path that leads to it.
        up = "../" * (prefix.count("/"))
        return [
            path[len(prefix) :] if path.startswith(prefix) else up + path
            for path in sorted(paths)
        ]

    files = sorted(walk.files, key=lambda file: file.path)
    paths = relative([file.path for file in files])
    used, classes, stray, unlabeled = [], [], [], set()
    parents = {
        above for folder in layout.class_folders for above in _ancestors(folder.path)
    } | {"..", ""}
    for file, path, folder in zip(
        files, paths, layout.class_folders_of(paths), strict=True
    ):
        if folder is not None:
            used.append(replace(file, path=path))
            classes.append(folder)
        elif file.path in walk.images:
            # The topmost folder that contains no class folder represents its images.
            topmost = next(
                (a for a in _ancestors(path) if a not in parents and a.strip("./")),
                None,
            )
            if topmost is None:
                stray.append(path)
            else:
                unlabeled.add(topmost)
    order = sorted(range(len(used)), key=lambda index: used[index].path)
    direct_parents = {f.path.rpartition("/")[0] for f in layout.class_folders}
    present = {folder.path for folder in layout.class_folders}
    empty = [
        path
        for path in relative([folder for folder in walk.folders if folder])
        if path.rpartition("/")[0] in direct_parents
        and not path.startswith("../")
        and path not in present | unlabeled | parents
    ]
    return ImageListing(
        root=walk.root / layout.root,
        layout=layout,
        files=tuple(used[index] for index in order),
        classes=tuple(classes[index] for index in order),
        empty_classes=tuple(empty),
        clutter=tuple(relative(walk.clutter)),
        ignored=tuple(sorted([*relative(walk.special), *stray])),
        unlabeled=tuple(sorted(unlabeled)),
        circles=tuple(relative(walk.circles)),
        unreadable=tuple(relative(walk.unreadable)),
    )


def _ancestors(path: str) -> Iterator[str]:
    """Yields the folders above a path, the topmost first."""
    for index, character in enumerate(path):
        if character == "/":
            yield path[:index]


def require_two_classes(name: str, class_names: Sequence[str], which: str) -> None:
    """Checks that there is something to classify in the data folder `name`.

    Raises:
        InputError: If there are fewer than two class folders `which`, such as "with
            images".
    """
    if len(class_names) >= 2:
        return
    received = "none" if not class_names else f"one: {printable_path(class_names[0])}"
    raise InputError(
        f"{name} must contain at least two class folders {which}. Received: {received}"
    )
