"""Turns a folder, an archive, a URL or a name into a folder of images.

What has to be downloaded, extracted or drawn for that is kept in a cache directory:

```
downloads/    one file per URL, and a note of its SHA-256
extracted/    one folder per archive, named by the SHA-256 of the archive
sample-.../   the sample data set, one folder per version
```
"""

import codecs
import difflib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

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
from keras_flowers.data.audit import Finding
from keras_flowers.data.downloads import (
    Expectation,
    check_url,
    download_archive,
    sha256_of_file,
)
from keras_flowers.data.layout import is_clutter
from keras_flowers.data.member_names import check_archive_encoding
from keras_flowers.errors import InputError
from keras_flowers.files import (
    explain_os_error,
    printable_path,
    write_text_atomically,
)
from keras_flowers.locks import exclusive_lock
from keras_flowers.progress import Progress

CACHE_VARIABLE = "KERAS_FLOWERS_CACHE"
"""The environment variable that names the cache directory."""

CACHE_HINT = (
    "Choose another cache directory with --cache-dir, `cache_directory=...` in Python, "
    f"or the environment variable {CACHE_VARIABLE}"
)
"""How to change the cache directory, for messages about one that cannot be written."""

SAMPLE_NAME = "sample"
"""The name of the data set that `keras_flowers.data.sample` draws."""


@dataclass(frozen=True)
class KnownDataset:
    """A data set that has a name.

    Attributes:
        url: The address of its archive.
        sha256: The SHA-256 of the archive, in lower-case hexadecimal digits.
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
"""The data sets that can be downloaded by name."""


def default_cache_directory() -> Path:
    """Returns the folder that caches downloads, extracted archives and images.

    Returns:
        `$KERAS_FLOWERS_CACHE` if it is set, else the user's cache directory, for
        example `~/.cache/keras_flowers`. The folder may not exist yet.
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
    archive_encoding: str | None = None,
    progress: Progress | None = None,
    on_finding: Callable[[Finding], None] | None = None,
) -> Path:
    """Returns the folder of images, downloading and extracting if necessary.

    Args:
        data: One of:

            - a folder;
            - a .tgz, .tar.gz, .tar.bz2, .tar.xz, .tar or .zip archive of such a folder,
              recognized by its content and extracted to the cache once;
            - the http or https URL of such an archive, downloaded once;
            - a name: `flower_photos`, the 3,670 images of the TensorFlow tutorials
              (229 MB, checked against its SHA-256), or `sample`, a small data set that
              is drawn without a network. A folder of that name in the current
              directory comes first. Only a string can be a URL or a name.
        cache_directory: Where to keep downloaded and extracted files. Defaults to
            `default_cache_directory()`. Several processes may share it.
        limits: The largest archive to download and extract.
        archive_encoding: The encoding of the names in an archive that does not say it.
            None reads them as UTF-8, or as the code page that fits best.
        progress: Called with the step "download" (in bytes), "extract" (in files) or
            "sample" (in images). The total is None where it is not known.
        on_finding: Called with a finding about the names in an archive if their
            encoding is unknown.

    Returns:
        The folder. `keras_flowers.data.layout` decides which folders in it are classes.
        If `data` is not a folder, the result is in the cache; do not change it.

    Raises:
        InputError: If `data` is none of the above, cannot be read or downloaded, has a
            wrong checksum, is a damaged or unsafe archive, or exceeds `limits`; or if
            the cache directory cannot be written, with the reason.
    """
    text = os.fspath(data)
    if not text:
        raise InputError(f"{_describe_sources()}. Received: an empty string")
    cache = _Cache(
        default_cache_directory() if cache_directory is None else Path(cache_directory),
        limits,
        check_archive_encoding(archive_encoding),
        progress,
        on_finding,
    )
    path = _expand_user(Path(text))
    if isinstance(data, str):
        if re.match("[A-Za-z][A-Za-z0-9+.-]*://", data):
            check_url(data)
            return cache.download(data, Expectation())
        if not _is_folder(path):
            if data == SAMPLE_NAME:
                return cache.draw_sample()
            if data in KNOWN_DATASETS:
                known = KNOWN_DATASETS[data]
                expected = Expectation(sha256=known.sha256, size=known.size)
                return cache.download(known.url, expected)
    if _is_folder(path):
        return path
    if _is_archive(path):
        return cache.extract(path)
    names = _list_known_names() if isinstance(data, str) and path.name == data else []
    raise InputError(f"{_describe_sources()}. Received: {_explain(path, names)}")


@dataclass(frozen=True)
class _Cache:
    """Creates the entries of one cache directory, each of them once."""

    directory: Path
    limits: ExtractionLimits
    encoding: str | None
    progress: Progress | None
    on_finding: Callable[[Finding], None] | None

    def draw_sample(self) -> Path:
        """Returns the sample data set."""
        version = keras_flowers.data.sample.SAMPLE_VERSION

        def draw(target: Path) -> None:
            progress = self._report("sample")
            keras_flowers.data.sample.write_sample(target, progress=progress)

        return self._create_once(self.directory / f"sample-{version}", draw)

    def extract(self, archive: Path) -> Path:
        """Returns the folder with the content of a user's archive."""
        name = printable_path(archive)
        try:
            before = _read_version(archive)
            digest = sha256_of_file(archive)
        except OSError as error:
            raise explain_os_error(error, archive, action="read") from error

        def extract(target: Path) -> None:
            self._extract(archive, target, name)
            if _read_version(archive) != before:
                raise InputError(f"{name} changed while it was read. Try again")

        folder = self._create_once(self._folder_of(digest), extract)
        return self._report_names(folder, name)

    def download(self, url: str, expected: Expectation) -> Path:
        """Returns the folder with the content of the archive at a URL."""
        key = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        archive = self.directory / "downloads" / key
        note = archive.with_name(f"{key}.json")
        digest = expected.sha256 or _read_digest(note)
        if digest is not None and self._folder_of(digest).is_dir():
            return self._report_names(self._folder_of(digest), url)
        with self._lock(archive):
            # A download appears under its name only when it is complete and checked.
            digest = None
            if archive.exists():
                digest = _read_digest(note) or sha256_of_file(archive)
            if digest is None or expected.sha256 not in (None, digest):
                note.unlink(missing_ok=True)
                expected = replace(expected, max_bytes=self.limits.total_bytes)
                progress = self._report("download")
                digest = download_archive(url, archive, expected, progress)
                text = json.dumps({"url": url, "sha256": digest})
                write_text_atomically(note, text, CACHE_HINT)

            def extract(target: Path) -> None:
                try:
                    self._extract(archive, target, url)
                except CorruptArchiveError:
                    # Download it again the next time.
                    note.unlink(missing_ok=True)
                    archive.unlink(missing_ok=True)
                    raise

            folder = self._create_once(self._folder_of(digest), extract)
        return self._report_names(folder, url)

    def _folder_of(self, digest: str) -> Path:
        # Another encoding gives other names.
        suffix = f"-{codecs.lookup(self.encoding).name}" if self.encoding else ""
        return self.directory / "extracted" / f"{digest}{suffix}"

    def _report_names(self, folder: Path, name: str) -> Path:
        """Reports names of unknown encoding in an extracted archive."""
        note = folder.with_name(f"{folder.name}.txt")
        if self.on_finding is not None and note.exists():
            message = f"{name}: {note.read_text(encoding='utf-8')}"
            self.on_finding(Finding("name_encoding", (), message))
        return folder

    def _extract(self, archive: Path, target: Path, name: str) -> None:
        note = extract_archive(
            archive,
            target,
            name=name,
            limits=self.limits,
            encoding=self.encoding,
            progress=self._report("extract"),
        )
        if note is not None:
            # Next to the folder in the cache, so that later runs report it, too.
            path = target.parent.with_name(f"{target.name}.txt")
            write_text_atomically(path, note, CACHE_HINT)

    def _report(self, step: str) -> Callable[[int, int | None], None] | None:
        return None if self.progress is None else partial(self.progress, step)

    def _create_once(self, folder: Path, create: Callable[[Path], None]) -> Path:
        """Lets `create` make a folder under a temporary name, then renames it."""
        if folder.is_dir():
            return folder
        with self._lock(folder):
            if not folder.is_dir():
                # Under the lock, only a killed process can have left this folder.
                workplace = folder.with_name(f".{folder.name}.tmp")
                shutil.rmtree(workplace, ignore_errors=True)
                workplace.mkdir()
                try:
                    create(workplace / folder.name)
                    (workplace / folder.name).replace(folder)
                finally:
                    shutil.rmtree(workplace, ignore_errors=True)
        return folder

    @contextmanager
    def _lock(self, path: Path) -> Iterator[None]:
        """Locks an entry of the cache, and explains why it cannot be written."""
        with exclusive_lock(path.with_name(f".{path.name}.lock"), hint=CACHE_HINT):
            try:
                yield
            except OSError as error:
                failed = Path(os.fsdecode(error.filename)) if error.filename else path
                if failed.is_relative_to(self.directory):
                    raise explain_os_error(error, failed, CACHE_HINT) from error
                raise explain_os_error(error, failed, action="read") from error


def _read_version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _read_digest(note: Path) -> str | None:
    try:
        digest = json.loads(note.read_text(encoding="utf-8"))["sha256"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    valid = isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)
    return digest if valid else None


def _scan(folder: Path) -> Iterator["os.DirEntry[str]"]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_clutter(entry.name):
                yield entry


def _expand_user(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        # No user has this name, but a folder may.
        return path


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(_read_mode(path))


def _read_mode(path: Path) -> int:
    """Returns the type and mode of a file or folder, or 0 if there is none."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        # The name is too long or has a NUL character.
        return 0


def _is_archive(path: Path) -> bool:
    """Returns whether a path is an archive, judged by its content.

    Raises:
        InputError: If `path` exists, but is not an archive or cannot be read.
    """
    shown, mode = printable_path(path), _read_mode(path)
    if mode == 0:
        return False
    try:
        # Reading a pipe would block.
        head = _read_head(path) if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise explain_os_error(error, path, action="read") from error
    if archive_kind(head) is not None:
        return True
    if path.name.lower().endswith(ARCHIVE_SUFFIXES):
        raise InputError(
            f"{shown} is damaged: its name is that of an archive, its content is not"
        )
    raise InputError(f"{_describe_sources()}. Received: {shown}, which is none of them")


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def _list_known_names() -> list[str]:
    return [*KNOWN_DATASETS, SAMPLE_NAME]


def _describe_sources() -> str:
    suffixes, names = ", ".join(ARCHIVE_SUFFIXES), ", ".join(_list_known_names())
    return (
        f"`data` must be a folder, an archive ({suffixes}), the http(s) URL of an "
        f"archive, or one of the names {names}"
    )


def _explain(path: Path, other_names: list[str]) -> str:
    """Says why a path is not a folder, and suggests a similar one."""
    if _read_mode(path) != 0:
        return f"{printable_path(path)}, which is a file"
    # The first missing part of the path is the misspelled one.
    part = path
    while not _is_folder(part.parent) and part.parent != part:
        part = part.parent
    try:
        names = [entry.name for entry in _scan(part.parent)]
    except OSError:
        names = []
    close = difflib.get_close_matches(part.name, names + other_names, n=1)
    shown = f"{printable_path(path)}, which does not exist"
    if not close:
        return shown
    return f"{shown}. Did you mean {printable_path(part.parent / close[0])}?"
