"""Where images come from: a folder, an archive, a URL or a name becomes a folder.

The folder found is the one that holds a folder of images for each class. What has to
be downloaded, unpacked or drawn for that is done once and kept in a cache directory:

```
downloads/    one file per URL, and a note of its SHA-256
extracted/    one folder per archive, named by the SHA-256 of the archive
sample-.../   the sample data set, one per version of its drawing
```
"""

import difflib
import errno
import functools
import hashlib
import inspect
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import platformdirs

import keras_flowers.data.sample
from keras_flowers.data.archives import (
    ARCHIVE_SUFFIXES,
    DEFAULT_LIMITS,
    HEAD_BYTES,
    CorruptArchiveError,
    archive_kind,
    extract_archive,
)
from keras_flowers.data.archives import ExtractionLimits as ExtractionLimits
from keras_flowers.data.downloads import (
    Expectation,
    download_archive,
    require_web_address,
    sha256_of_file,
)
from keras_flowers.data.image_files import IMAGE_SUFFIXES, is_clutter
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path, write_text_atomically

Progress = Callable[[str, int, int | None], None]
"""Called as `progress(stage, done, total)`; see `resolve_source`."""

CACHE_VARIABLE = "KERAS_FLOWERS_CACHE"
"""The environment variable that names the cache directory."""

SAMPLE_NAME = "sample"
"""The name of the data set that `keras_flowers.data.sample` draws."""

# Names of folders that hold class folders, in lower case, and are no classes.
_SPLIT_NAMES = frozenset(
    {"train", "training", "val", "valid", "validation", "test", "testing", "eval"}
)


@dataclass(frozen=True)
class KnownDataset:
    """A data set that can be asked for by its name.

    Attributes:
        url: The address of its archive.
        sha256: The SHA-256 of the archive, in hexadecimal digits.
        size: The size of the archive, in bytes.
    """

    url: str
    sha256: str
    size: int


KNOWN_DATASETS = {
    # The checksum is the one that TensorFlow Datasets records for `tf_flowers`.
    "flower_photos": KnownDataset(
        url=(
            "https://storage.googleapis.com/download.tensorflow.org/example_images/"
            "flower_photos.tgz"
        ),
        sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
        size=228_813_984,
    ),
}
"""The data sets that are downloaded when they are asked for by name."""


def default_cache_directory() -> Path:
    """The folder for what is downloaded, unpacked, drawn or decoded once.

    Returns:
        `$KERAS_FLOWERS_CACHE` if that is set, else the user's cache directory as the
        operating system has it, for example `~/.cache/keras_flowers`. The folder need
        not exist.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    return platformdirs.user_cache_path("keras_flowers", appauthor=False)


def resolve_source(
    data: str | os.PathLike[str],
    *,
    cache_directory: Path | None = None,
    limits: ExtractionLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Path:
    """Finds, and fetches where needed, the folder that holds the class folders.

    Args:
        data: One of

            - a folder, see `find_class_root`;
            - a .tgz, .tar.gz, .tar.bz2, .tar.xz, .tar or .zip archive of one,
              recognized by content, which is unpacked into the cache once;
            - the http or https URL of such an archive. A download is resumed after an
              interruption, and what has once been downloaded completely from a URL is
              used from then on without asking the server again;
            - a name: `flower_photos`, the 3,670 images of TensorFlow's lessons
              (229 MB, checked against its SHA-256), or `sample`, a small data set that
              is drawn without a network. A folder of that name in the working
              directory comes first. Only a string is taken for a URL or a name.
        cache_directory: Where to keep what is fetched, `default_cache_directory()`
            unless told. Several processes may use it at the same time.
        limits: What to refuse for its size when an archive is downloaded and unpacked.
        progress: Called as `progress(stage, done, total)` with the stage "download"
            (in bytes), "extract" (in files) or "sample" (in images). `total` is None
            where it is not known.

    Returns:
        The folder whose subfolders are the classes. Those of a folder passed as `data`
        lie in it; the others lie in the cache and must not be changed.

    Raises:
        InputError: `data` is none of the above, cannot be read or downloaded, has a
            wrong checksum, is a damaged or unsafe archive or exceeds `limits`, or no
            class folders are found in it; or the cache directory cannot be written.
        OSError: The disk is full or fails.
    """
    text = os.fspath(data)
    if not text:
        raise InputError(f"{_allowed()}. Received: an empty string")
    cache = _Cache(
        default_cache_directory() if cache_directory is None else Path(cache_directory),
        limits,
        progress,
    )
    path = _expanded(Path(text))
    if isinstance(data, str):
        if re.match("[A-Za-z][A-Za-z0-9+.-]*://", data):
            require_web_address(data)
            return _class_root(cache.downloaded(data, Expectation()), data)
        if not _is_folder(path):
            if data == SAMPLE_NAME:
                return cache.sample()
            if data in KNOWN_DATASETS:
                known = KNOWN_DATASETS[data]
                expected = Expectation(sha256=known.sha256, size=known.size)
                return _class_root(cache.downloaded(known.url, expected), data)
    if _is_folder(path):
        return find_class_root(path)
    if _is_archive(path):
        return _class_root(cache.unpacked(path), printable_path(path))
    names = _known_names() if isinstance(data, str) and path.name == data else []
    raise InputError(f"{_allowed()}. Received: {_missing(path, names)}")


def find_class_root(folder: Path) -> Path:
    """Finds the folder that holds the class folders, in `folder` or below it.

    A class folder is one that holds an image, by its suffix, directly or in a folder
    below. Folders that only wrap another, as archives bring them along, are passed
    through. What systems leave behind is ignored: names that begin with a dot,
    `__MACOSX`, `Thumbs.db` and the like.

    Args:
        folder: The folder to search.

    Returns:
        `folder`, or the folder below it, at least one of whose class folders holds
        images directly.

    Raises:
        InputError: `folder` is missing, cannot be read, or holds no images, images
            without class folders, a ready-made split such as train/ and val/, or
            several folders of class folders.
    """
    if not _is_folder(folder):
        raise InputError(f"`folder` must be a folder. Received: {_missing(folder, [])}")
    return _class_root(folder, printable_path(folder))


class _Cache:
    """What is made once and kept, under one cache directory."""

    def __init__(
        self, directory: Path, limits: ExtractionLimits, progress: Progress | None
    ) -> None:
        self._directory = directory
        self._limits = limits
        self._progress = progress

    def sample(self) -> Path:
        """The sample data set, drawn unless it is there."""
        # The source stands for the version, so that no drawing outlives its code.
        source = inspect.getsource(keras_flowers.data.sample)
        version = hashlib.sha256(source.encode()).hexdigest()[:12]

        def draw(target: Path) -> None:
            progress = self._stage("sample")
            keras_flowers.data.sample.write_sample(target, progress=progress)

        return self._made_once(self._directory / f"sample-{version}", draw)

    def unpacked(self, archive: Path) -> Path:
        """The folder with the content of an archive of the user."""
        name = printable_path(archive)
        try:
            before = _version(archive)
            digest = sha256_of_file(archive)
        except OSError as error:
            raise InputError(f"{name} cannot be read: {error.strerror}") from error

        def extract(target: Path) -> None:
            self._extract(archive, target, name)
            if _version(archive) != before:
                raise InputError(f"{name} was changed while it was read. Try again")

        return self._made_once(self._extracted(digest), extract)

    def downloaded(self, url: str, expected: Expectation) -> Path:
        """The folder with the content of the archive that a URL leads to."""
        key = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        archive = self._directory / "downloads" / key
        note = archive.with_name(f"{key}.json")
        digest = expected.sha256 or _noted_digest(note)
        if digest is not None and self._extracted(digest).is_dir():
            return self._extracted(digest)
        with self._lock(archive):
            # A download appears under its name only once it is complete and checked.
            digest = None
            if archive.exists():
                digest = _noted_digest(note) or sha256_of_file(archive)
            if digest is None or expected.sha256 not in (None, digest):
                note.unlink(missing_ok=True)
                expected = Expectation(
                    expected.sha256, expected.size, self._limits.total_bytes
                )
                stage = self._stage("download")
                digest = download_archive(url, archive, expected, stage)
                write_text_atomically(note, json.dumps({"url": url, "sha256": digest}))

            def extract(target: Path) -> None:
                try:
                    self._extract(archive, target, url)
                except CorruptArchiveError:
                    # Otherwise every later call would meet the same broken file.
                    note.unlink(missing_ok=True)
                    archive.unlink(missing_ok=True)
                    raise

            return self._made_once(self._extracted(digest), extract)

    def _extracted(self, digest: str) -> Path:
        return self._directory / "extracted" / digest

    def _extract(self, archive: Path, target: Path, name: str) -> None:
        extract_archive(
            archive,
            target,
            name=name,
            limits=self._limits,
            progress=self._stage("extract"),
        )

    def _stage(self, stage: str) -> Callable[[int, int | None], None] | None:
        if self._progress is None:
            return None
        return functools.partial(self._progress, stage)

    def _made_once(self, folder: Path, make: Callable[[Path], None]) -> Path:
        """Has `make` create a folder elsewhere and moves it to its place when ready."""
        if folder.is_dir():
            return folder
        with self._lock(folder):
            if not folder.is_dir():
                # Holding the lock, whatever stands there was left by a killed process.
                workplace = folder.with_name(f".{folder.name}.tmp")
                shutil.rmtree(workplace, ignore_errors=True)
                workplace.mkdir()
                try:
                    make(workplace / folder.name)
                    (workplace / folder.name).replace(folder)
                finally:
                    shutil.rmtree(workplace, ignore_errors=True)
        return folder

    def _lock(self, path: Path) -> filelock.BaseFileLock:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            writable = os.access(path.parent, os.W_OK)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            writable = False
        if not writable:
            raise InputError(
                f"The cache directory {printable_path(self._directory)} cannot be "
                "written. Choose another, for example with the variable "
                f"{CACHE_VARIABLE}"
            )
        return filelock.FileLock(path.with_name(f".{path.name}.lock"))


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _noted_digest(note: Path) -> str | None:
    try:
        digest = json.loads(note.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    valid = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
    return digest if valid else None


def _class_root(folder: Path, name: str) -> Path:
    """Does the work of `find_class_root`; `name` is what the messages call it."""
    while True:
        classes = _class_folders(folder)
        split = [path for path in classes if path.name.lower() in _SPLIT_NAMES]
        usable = [path for path in split if _class_folders(path)]
        if len(split) > 1 and usable:
            raise InputError(
                f"{name} holds a ready-made split, {_listed(split)}, which would "
                "become the classes. Pass one of them, such as "
                f"{printable_path(usable[0])}, or merge them"
            )
        direct = [path for path in classes if _holds_images_directly(path)]
        # A lone folder of several others is their wrapper even if an image, such as a
        # preview, stands beside them: one class alone could not be learned anyway.
        if len(classes) != 1 or (direct and len(_class_folders(classes[0])) < 2):
            break
        folder = classes[0]
    if direct:
        return folder
    if classes:
        raise InputError(
            f"{name} must hold one folder of photos per class. Received: several "
            f"folders of folders, {_listed(classes)}. Pass one of them"
        )
    if _holds_images_directly(folder):
        raise InputError(
            f"In {name} the photos must stand in one folder per class. Received: "
            "photos directly in it, and no class folders"
        )
    raise InputError(
        f"{name} must hold one folder of photos per class. Received: no photo "
        f"({', '.join(sorted(IMAGE_SUFFIXES))}) in any folder"
    )


def _class_folders(folder: Path) -> list[Path]:
    """The folders in a folder that hold images, at whatever depth."""
    try:
        entries = list(_visible(folder))
    except OSError as error:
        raise InputError(
            f"{printable_path(folder)} cannot be read: {error.strerror}"
        ) from error
    paths = [Path(entry) for entry in entries if entry.is_dir()]
    return sorted(path for path in paths if _holds_images(path))


def _holds_images(folder: Path) -> bool:
    pending = [folder]
    seen = set()
    while pending:
        current = pending.pop()
        try:
            status = current.stat()
            # Links between folders may run in a circle.
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            for entry in _visible(current):
                if _is_image(entry):
                    return True
                if entry.is_dir():
                    pending.append(Path(entry))
        except PermissionError:
            # Such as lost+found, at the root of a disk.
            continue
    return False


def _holds_images_directly(folder: Path) -> bool:
    return any(_is_image(entry) for entry in _visible(folder))


def _visible(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_clutter(entry.name):
                yield entry


def _is_image(entry: "os.DirEntry[str]") -> bool:
    return Path(entry.name).suffix.lower() in IMAGE_SUFFIXES and entry.is_file()


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        # There is no such user, but there may be such a folder.
        return path


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """The type and mode of what stands at a path, 0 if nothing does."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        # No file can have a name too long or with a NUL character.
        return 0


def _is_archive(path: Path) -> bool:
    """Tells an archive by its content.

    Raises:
        InputError: `path` exists, but is no archive that can be read.
    """
    shown, mode = printable_path(path), _mode(path)
    if mode == 0:
        return False
    try:
        # A pipe would be waited for.
        head = _head(path) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {error.strerror}") from error
    if archive_kind(head) is not None:
        return True
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise InputError(
            f"{shown} is damaged: it has the name of an archive, but not the content"
        )
    raise InputError(f"{_allowed()}. Received: {shown}, which is none of them")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _known_names() -> list[str]:
    return [*KNOWN_DATASETS, SAMPLE_NAME]


def _allowed() -> str:
    return (
        f"`data` must be a folder, an archive ({', '.join(ARCHIVE_SUFFIXES)}), the "
        f"http(s) URL of an archive, or one of the names {', '.join(_known_names())}"
    )


def _missing(path: Path, other_names: list[str]) -> str:
    """Says what is wrong with a path that is no folder, and what may be meant."""
    if _mode(path) != 0:
        return f"{printable_path(path)}, which is a file"
    # The first part of the path that is missing is the one that was misspelled.
    part = path
    while not _is_folder(part.parent) and part.parent != part:
        part = part.parent
    try:
        names = [entry.name for entry in _visible(part.parent)]
    except OSError:
        names = []
    close = difflib.get_close_matches(part.name, names + other_names, n=1)
    shown = f"{printable_path(path)}, which does not exist"
    if not close:
        return shown
    return f"{shown}. Did you mean {printable_path(part.parent / close[0])}?"


def _listed(folders: list[Path]) -> str:
    names = [f"{printable_path(folder.name)}/" for folder in folders[:5]]
    return ", ".join(names) + (", ..." if len(folders) > 5 else "")
