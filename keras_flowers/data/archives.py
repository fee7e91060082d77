"""Unpacks tar and zip archives that nobody has vouched for.

Nothing here calls `extractall`, whose rules differ between tar and zip and between
releases of Python: every folder and file is created by this module, under one set of
rules, and what is written is counted while it is written.
"""

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from struct import error as StructError  # noqa: N812
from typing import Literal

from keras_flowers.errors import InputError

ARCHIVE_SUFFIXES = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar", ".zip")
"""The suffixes by which users know the archives that can be read."""

HEAD_BYTES = 512
"""How much of a file's beginning `archive_kind` wants to see."""

ArchiveKind = Literal["zip", "gzip", "bzip2", "xz", "tar"]

_MAGIC: dict[bytes, ArchiveKind] = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # without any member
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_CHUNK_BYTES = 2**20
# A header of an honest member has a few hundred bytes, with long names and extended
# attributes some thousand. tarfile reads it into memory whole, however large.
_HEADER_BYTES = 2**20
# tar pads the end to a full record, 10 KiB by default.
_PADDING_BYTES = 16 * 2**20
_MOST_LEVELS = 64
_MOST_LINK_BYTES = 4096
_SHOWN_CHARACTERS = 120

# What tarfile, zipfile and the decompressors raise on bytes that make no sense.
_NONSENSE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    StructError,
    ValueError,
    ArithmeticError,
    LookupError,
    NotImplementedError,
    RecursionError,
)


class CorruptArchiveError(InputError):
    """Raised when an archive is damaged, cut off, or not the archive it seemed."""


@dataclass(frozen=True)
class ExtractionLimits:
    """How much an archive may unpack to before it is refused.

    The limits guard against archives of a few kilobytes that unpack to more than the
    disk holds. They bind both what an archive declares and what is really written.

    Attributes:
        total_bytes: The most bytes that all files together may have, 10 GiB unless
            told.
        files: The most files and folders together.

    Raises:
        InputError: A limit is not a positive integer.
    """

    total_bytes: int = 10 * 2**30
    files: int = 200_000

    def __post_init__(self) -> None:
        """Checks the values."""
        for name in ("total_bytes", "files"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(
                    f"`{name}` must be a positive integer. Received: {name}={value!r}"
                )


DEFAULT_LIMITS = ExtractionLimits()


def archive_kind(head: bytes) -> ArchiveKind | None:
    """Tells the kind of an archive by the first `HEAD_BYTES` bytes of its content.

    Args:
        head: The beginning of a file; all of it, if the file is shorter.

    Returns:
        The container or compression found, or None for anything else.
    """
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    try:
        # Old tar files have no magic number, but every header carries a checksum.
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return None
    return "tar"


def extract_archive(
    archive: Path,
    target: Path,
    *,
    name: str,
    limits: ExtractionLimits = DEFAULT_LIMITS,
    progress: Callable[[int, int | None], None] | None = None,
) -> None:
    """Unpacks an archive into a new folder, or leaves nothing behind.

    Only folders and regular files are created, with the default permissions; owners,
    permissions and times in the archive are ignored. A link to a file of the same
    archive becomes a copy of that file.

    Args:
        archive: A tar (plain, gzip, bzip2 or xz) or zip file, recognized by content.
        target: The folder to create; its parent must exist. A process that is killed
            leaves it incomplete: extract beside the final place and rename.
        name: What the messages call the archive.
        limits: What to refuse for its size.
        progress: Called as `progress(done, total)` after every file. `total` is None
            for a tar archive, which does not say how many files it holds.

    Raises:
        CorruptArchiveError: `archive` is damaged, cut off or no archive.
        InputError: A member has an unsafe name, is a link out of the archive or to
            something that is no file in it, a device or another special file, is
            encrypted, stands twice in the archive; or a limit is exceeded. The message
            names the member.
        OSError: The disk is full or fails.
    """
    with archive.open("rb") as file:
        kind = archive_kind(file.read(HEAD_BYTES))
    if kind is None:
        raise CorruptArchiveError(
            f"{name} must be a tar or zip archive. Received: a file that begins with "
            "none of their signatures"
        )
    target.mkdir()
    writer = _Writer(name, target, limits, progress)
    try:
        if kind == "zip":
            _extract_zip(archive, writer)
        else:
            _extract_tar(archive, kind, writer)
        writer.copy_linked_files()
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


Parts = tuple[str, ...]


class _Writer:
    """Creates the members of one archive below an empty folder, and counts them."""

    def __init__(
        self,
        name: str,
        target: Path,
        limits: ExtractionLimits,
        progress: Callable[[int, int | None], None] | None,
    ) -> None:
        self.name = name
        self.expected_files: int | None = None
        self._target = target
        self._limits = limits
        self._progress = progress
        self._folders: set[Parts] = set()
        self._files: set[Parts] = set()
        self._links: list[tuple[str, Parts, str, Parts]] = []
        self._entries = 0
        self._bytes = 0

    def refusal(self, member: str, reason: str) -> InputError:
        return InputError(
            f"{self.name} is refused: its member {_shown(member)} {reason}"
        )

    def require_bytes(self, count: int) -> None:
        """Refuses the archive if `count` more bytes would be too many."""
        if self._bytes + count > self._limits.total_bytes:
            raise InputError(
                f"{self.name} is refused: it unpacks to more than "
                f"{self._limits.total_bytes:,} bytes. If you trust it, pass a higher "
                "`ExtractionLimits(total_bytes=...)`; on the command line "
                "--max-extracted-size"
            )

    def require_entries(self, count: int) -> None:
        """Refuses the archive if `count` more files or folders would be too many."""
        if self._entries + count > self._limits.files:
            raise InputError(
                f"{self.name} is refused: it holds more than {self._limits.files:,} "
                "files and folders. If you trust it, pass a higher "
                "`ExtractionLimits(files=...)`; on the command line "
                "--max-extracted-files"
            )

    def add_folder(self, member: str) -> None:
        self._make_folders(member, self._safe_parts(member))

    def add_file(self, member: str, chunks: Iterator[bytes]) -> None:
        parts = self._file_parts(member)
        self._make_folders(member, parts[:-1])
        self._count_entry()
        path = self._target.joinpath(*parts)
        with self._creating(member, path), path.open("xb") as file:
            for chunk in chunks:
                self.require_bytes(len(chunk))
                self._bytes += len(chunk)
                file.write(chunk)
        self._files.add(parts)
        if self._progress is not None:
            self._progress(len(self._files), self.expected_files)

    def add_link(self, member: str, link: str, *, from_root: bool) -> None:
        """Notes a link, to be resolved once every file is there.

        Args:
            member: The name of the link.
            link: Where it points to, relative to the folder of the member, or to the
                root of the archive if `from_root`.
            from_root: True for the hard links of tar.
        """
        parts = self._file_parts(member)
        self.require_entries(len(self._links) + 1)
        pointed_to = [] if from_root else list(parts[:-1])
        escape = self.refusal(member, f"links out of the archive, to {_shown(link)}")
        if link.startswith(("/", "\\")) or re.match("[A-Za-z]:", link):
            raise escape
        for part in link.split("/"):
            if part == "..":
                if not pointed_to:
                    raise escape
                pointed_to.pop()
            elif part not in ("", "."):
                pointed_to.append(part)
        self._links.append((member, parts, link, tuple(pointed_to)))

    def copy_linked_files(self) -> None:
        """Writes a copy for every link to a file that the archive holds itself."""
        written = frozenset(self._files)
        for member, _, link, pointed_to in self._links:
            if pointed_to not in written:
                raise self.refusal(
                    member, f"links to {_shown(link)}, which is no file of the archive"
                )
        links, self._links = self._links, []
        for member, _, _, pointed_to in links:
            with self._target.joinpath(*pointed_to).open("rb") as source:
                self.add_file(member, iter(lambda: source.read(_CHUNK_BYTES), b""))

    def _count_entry(self) -> None:
        self.require_entries(1)
        self._entries += 1

    def _file_parts(self, member: str) -> Parts:
        parts = self._safe_parts(member)
        if not parts:
            raise self.refusal(member, "has no file name")
        return parts

    def _safe_parts(self, member: str) -> Parts:
        """The folders and the name of a member that stays below the target."""
        parts = tuple(part for part in member.split("/") if part not in ("", "."))
        if member.startswith("/"):
            raise self.refusal(member, "has an absolute path")
        if any(re.match("[A-Za-z]:", part) for part in parts):
            raise self.refusal(member, "names a drive")
        if "\\" in member:
            raise self.refusal(member, "has a backslash in its path")
        if ".." in parts:
            raise self.refusal(member, "leaves its folder with '..'")
        if len(parts) > _MOST_LEVELS:
            raise self.refusal(member, f"lies more than {_MOST_LEVELS} folders deep")
        try:
            encoded = os.fsencode(member)
        except UnicodeEncodeError:
            encoded = b"\0"
        if b"\0" in encoded:
            raise self.refusal(member, "has a name that no file can have")
        return parts

    def _make_folders(self, member: str, parts: Parts) -> None:
        for level in range(1, len(parts) + 1):
            folder = parts[:level]
            if folder in self._folders:
                continue
            self._count_entry()
            path = self._target.joinpath(*folder)
            with self._creating(member, path):
                path.mkdir()
            self._folders.add(folder)

    @contextmanager
    def _creating(self, member: str, path: Path) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise self.refusal(member, "stands where another member stands") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise self.refusal(member, "has a name too long") from error
            if error.filename is None:
                error.filename = os.fspath(path)
            raise


class _ForwardReader:
    """What tarfile reads headers from: sequential, and bounded in what it returns."""

    def __init__(self, source: io.BufferedIOBase) -> None:
        self.last_read = b""
        self._source = source
        self._position = 0
        self._header_bytes = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise tarfile.ReadError("a header points backwards")
        while self._position < position:
            if not self.read_data(min(_CHUNK_BYTES, position - self._position)):
                break
        return self._position

    def read(self, size: int) -> bytes:
        self._header_bytes += size
        # A negative size, taken from a header, would mean all there is.
        if size < 0 or self._header_bytes > _HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        self.last_read = self.read_data(size)
        return self.last_read

    def read_data(self, size: int) -> bytes:
        data = self._source.read(size)
        self._position += len(data)
        return data

    def start_header(self) -> None:
        self._header_bytes = 0


def _extract_tar(archive: Path, kind: ArchiveKind, writer: _Writer) -> None:
    with ExitStack() as stack:
        stream = _ForwardReader(stack.enter_context(_decompressed(archive, kind)))
        for member in _tar_members(archive, stream, writer.name):
            if member.isdir():
                writer.add_folder(member.name)
            elif member.issym() or member.islnk():
                writer.add_link(member.name, member.linkname, from_root=member.islnk())
            elif member.issparse():
                raise writer.refusal(member.name, "is a sparse file")
            elif member.isreg():
                writer.require_bytes(member.size)
                chunks = _tar_chunks(archive, stream, member, writer.name)
                writer.add_file(member.name, chunks)
            else:
                raise writer.refusal(
                    member.name, "is a device, a pipe or another special file"
                )
        with _reading(archive, writer.name):
            _read_to_the_end(stream)


def _decompressed(archive: Path, kind: ArchiveKind) -> io.BufferedIOBase:
    if kind == "gzip":
        return gzip.open(archive, "rb")
    if kind == "bzip2":
        return bz2.open(archive, "rb")
    if kind == "xz":
        return lzma.open(archive, "rb")
    return archive.open("rb")


def _tar_members(
    archive: Path, stream: _ForwardReader, name: str
) -> Iterator[tarfile.TarInfo]:
    with _reading(archive, name):
        # The stream has exactly the methods that reading needs.
        tar = tarfile.TarFile(fileobj=stream, mode="r")  # type: ignore[arg-type]
    while True:
        with _reading(archive, name):
            stream.start_header()
            member = tar.next()
        if member is None:
            return
        yield member


def _tar_chunks(
    archive: Path, stream: _ForwardReader, member: tarfile.TarInfo, name: str
) -> Iterator[bytes]:
    with _reading(archive, name):
        if member.size < 0:
            raise tarfile.ReadError("a member has a negative size")
        stream.seek(member.offset_data)
    remaining = member.size
    while remaining:
        with _reading(archive, name):
            chunk = stream.read_data(min(_CHUNK_BYTES, remaining))
            if not chunk:
                raise EOFError(f"it ends within {_shown(member.name)}")
        remaining -= len(chunk)
        yield chunk


def _read_to_the_end(stream: _ForwardReader) -> None:
    # tarfile takes a damaged header in the middle, and a missing end, for the end.
    if stream.last_read != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends without the mark of its end")
    # The checksum of the compressed stream stands behind the padding.
    padding = 0
    while chunk := stream.read_data(_CHUNK_BYTES):
        padding += len(chunk)
        if padding > _PADDING_BYTES:
            raise tarfile.ReadError("it goes on behind the mark of its end")


def _extract_zip(archive: Path, writer: _Writer) -> None:
    with ExitStack() as stack:
        with _reading(archive, writer.name):
            opened = stack.enter_context(zipfile.ZipFile(archive))
        members = opened.infolist()
        writer.require_entries(len(members))
        writer.require_bytes(sum(member.file_size for member in members))
        writer.expected_files = sum(
            not member.orig_filename.endswith("/") for member in members
        )
        for member in members:
            _extract_zip_member(archive, opened, member, writer)


def _extract_zip_member(
    archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo, writer: _Writer
) -> None:
    # zipfile cuts `filename` at a NUL character; the original shows it.
    name = member.orig_filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.flag_bits & 0x1:
        raise writer.refusal(name, "is encrypted")
    # zipfile decompresses the other methods without a bound on memory.
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise writer.refusal(name, "is compressed with another method than deflate")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        raise writer.refusal(name, "is a device, a pipe or another special file")
    chunks = _zip_chunks(archive, opened, member, writer.name)
    if name.endswith("/"):
        writer.add_folder(name)
    elif kind == stat.S_IFLNK:
        if member.file_size > _MOST_LINK_BYTES:
            raise writer.refusal(name, "is a link with too long a target")
        link = b"".join(chunks).decode("utf-8", "surrogateescape")
        writer.add_link(name, link, from_root=False)
    else:
        writer.add_file(name, chunks)


def _zip_chunks(
    archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo, name: str
) -> Iterator[bytes]:
    with ExitStack() as stack:
        with _reading(archive, name):
            source = stack.enter_context(opened.open(member))
        received = 0
        while True:
            with _reading(archive, name):
                chunk = source.read(_CHUNK_BYTES)
            if not chunk:
                break
            received += len(chunk)
            yield chunk
        if received != member.file_size:
            raise CorruptArchiveError(
                f"{name} is damaged or cut off: {_shown(member.orig_filename)} has "
                f"{received:,} bytes, declared are {member.file_size:,}"
            )


@contextmanager
def _reading(archive: Path, name: str) -> Iterator[None]:
    """Tells damaged content from a disk that fails."""
    try:
        yield
    except _NONSENSE as error:
        raise _corrupt(name, error) from error
    except OSError as error:
        # The decompressors raise OSError without a number; a seek to where a damaged
        # header points is an invalid argument.
        if error.errno in (None, errno.EINVAL):
            raise _corrupt(name, error) from error
        if error.filename is None:
            error.filename = os.fspath(archive)
        raise


def _corrupt(name: str, error: Exception) -> CorruptArchiveError:
    reason = str(error) or type(error).__name__
    return CorruptArchiveError(
        f"{name} is damaged, cut off, or holds no tar or zip archive: {reason}"
    )


def _shown(text: str) -> str:
    """Quotes a name from an archive so that no control character reaches a screen."""
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "..."
    return repr(text)
