"""Unpacks tar and zip archives from untrusted sources.

`tarfile` and `zipfile` read the archives, and `tarfile.data_filter` judges the members
of both. The files are written here because an archive of training images needs
stricter rules than `extractall` has: nothing is renamed, replaced or linked, and the
size and the number of files are limited.
"""

import bz2
import errno
import gzip
import lzma
import os
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from keras_flowers.argument_checks import check_integer
from keras_flowers.data.member_names import (
    decode_zip_names,
    describe_encoding,
)
from keras_flowers.errors import InputError

ARCHIVE_SUFFIXES = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar", ".zip")
"""The suffixes of the archives that can be read."""

HEAD_BYTES = 512
"""How many bytes `archive_kind` needs."""

ArchiveKind = Literal["zip", "gzip", "bzip2", "xz", "tar"]

_MAGIC: dict[bytes, ArchiveKind] = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",  # without members
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
}
_DECOMPRESSORS: dict[ArchiveKind, Callable[..., Any]] = {
    "gzip": gzip.open,
    "bzip2": bz2.open,
    "xz": lzma.open,
    "tar": open,
}
_CHUNK_BYTES = 2**16
# tarfile reads a header into memory at once. Real headers have a few kilobytes.
_MAX_HEADER_BYTES = 2**18
# tar pads the end to a full record, 10 KiB by default.
_PADDING_BYTES = 16 * 2**20
_MAX_DEPTH = 64
_MAX_LINK_BYTES = 4096


class CorruptArchiveError(InputError):
    """Raised when an archive is damaged, truncated, or not an archive."""


@dataclass(frozen=True)
class ExtractionLimits:
    """The largest archive that is extracted.

    The limits stop archives of a few kilobytes that would fill the disk. They apply to
    what an archive declares and to what is written.

    Attributes:
        total_bytes: The maximum size of all files together. Defaults to 10 GiB.
        files: The maximum number of files and folders. Defaults to 200,000.

    Raises:
        InputError: If a limit is not a positive integer.
    """

    total_bytes: int = 10 * 2**30
    files: int = 200_000

    def __post_init__(self) -> None:
        """Checks the values."""
        check_integer("total_bytes", self.total_bytes, lowest=1)
        check_integer("files", self.files, lowest=1)


DEFAULT_LIMITS = ExtractionLimits()


def archive_kind(head: bytes) -> ArchiveKind | None:
    """Returns the format of an archive, judged by its content.

    Args:
        head: The first `HEAD_BYTES` bytes of a file, or all of a shorter one.

    Returns:
        The container or the compression, or None if the file is not an archive.
    """
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    try:
        # Old tar files have no magic number, but each header has a checksum.
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
    encoding: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> str | None:
    """Extracts an archive into a new folder, or leaves nothing behind.

    Only folders and regular files are created, with default permissions; owners,
    permissions and times in the archive are ignored. A link to a file in the same
    archive becomes a copy of that file.

    Args:
        archive: A tar (plain, gzip, bzip2 or xz) or zip file.
        target: The folder to create. Its parent must exist. If the process is killed,
            the folder stays incomplete: extract to a temporary name, then rename.
        name: How messages refer to the archive.
        limits: The largest archive to extract.
        encoding: The encoding of member names that are not marked as UTF-8. Defaults to
            UTF-8 if all of them are UTF-8, else to the code page that fits best.
        progress: Called as `progress(done, total)` after each file. `total` is None for
            tar archives, which do not store their number of files.

    Returns:
        A note on the encoding of the names if it is unknown, else None.

    Raises:
        CorruptArchiveError: If `archive` is damaged, truncated, or not an archive.
        InputError: If a member has an unsafe name, links to anything but a file in the
            archive, is a device or another special file, is encrypted, or has the same
            path as another member; or if a limit is exceeded, or a name does not have
            the given encoding. The message names the member.
        OSError: If the disk is full or fails.
    """
    with archive.open("rb") as file:
        kind = archive_kind(file.read(HEAD_BYTES))
    if kind is None:
        raise CorruptArchiveError(
            f"{name} must be a tar or zip archive. Received: a file without the "
            "signature of one"
        )
    target.mkdir()
    try:
        extraction = _Extraction(name, target, limits, encoding, progress)
        if kind == "zip":
            members = _read_zip(archive, extraction)
        else:
            members = _read_tar(archive, kind, extraction)
        with closing(members):
            for member, chunks in members:
                extraction.add(member, chunks)
        extraction.copy_linked_files()
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return extraction.encoding_note


@dataclass
class _Extraction:
    """Writes the members of one archive into an empty folder, within the limits."""

    name: str
    target: Path
    limits: ExtractionLimits
    encoding: str | None
    progress: Callable[[int, int | None], None] | None
    encoding_note: str | None = None
    file_count: int | None = None
    folders: set[PurePosixPath] = field(default_factory=lambda: {PurePosixPath()})
    files: set[PurePosixPath] = field(default_factory=set)
    links: list[tuple[tarfile.TarInfo, PurePosixPath]] = field(default_factory=list)
    bytes_written: int = 0

    def refuse(self, member: str | bytes, reason: str) -> InputError:
        return InputError(
            f"{self.name} cannot be extracted: its member {_quote(member)} {reason}"
        )

    def refuse_encoding(self, member: bytes) -> InputError:
        reason = f"has a name that is not {self.encoding}; --archive-encoding"
        return self.refuse(member, f"{reason} (`archive_encoding`) must name another")

    def require_room(self, count: int, size: int) -> None:
        """Refuses the archive if this many more entries or bytes exceed a limit."""
        count += len(self.folders) - 1 + len(self.files)
        if self.bytes_written + size > self.limits.total_bytes:
            excess = f"{self.limits.total_bytes:,} bytes"
            argument, option = "total_bytes", "--max-extracted-size"
        elif count > self.limits.files:
            excess = f"{self.limits.files:,} files and folders"
            argument, option = "files", "--max-extracted-files"
        else:
            return
        raise InputError(
            f"{self.name} cannot be extracted: it holds more than {excess}. If you "
            f"trust it, pass a higher `ExtractionLimits({argument}=...)`; on the "
            f"command line {option}"
        )

    def add(self, member: tarfile.TarInfo, chunks: Iterator[bytes]) -> None:
        """Writes a file or a folder, or notes a link for `copy_linked_files`."""
        path = self._check(member)
        if member.isdir():
            self._make_folders(path, member.name)
        elif member.isreg():
            self._write_file(path, member, chunks)
        else:
            self.require_room(len(self.links) + 1, 0)
            self.links.append((member, path))

    def copy_linked_files(self) -> None:
        """Copies the file that each link points to."""
        originals = frozenset(self.files)
        for member, path in self.links:
            # Hard links are relative to the root of a tar archive.
            folder = path.parent if member.issym() else PurePosixPath()
            linked = PurePosixPath(posixpath.normpath(folder / member.linkname))
            if linked not in originals:
                target = _quote(member.linkname)
                reason = f"links to {target}, which is no file of the archive"
                raise self.refuse(member.name, reason)
            with (self.target / linked).open("rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                chunks = iter(lambda: file.read(_CHUNK_BYTES), b"")
                self._write_file(path, member, chunks)

    def _write_file(
        self, path: PurePosixPath, member: tarfile.TarInfo, chunks: Iterator[bytes]
    ) -> None:
        self._make_folders(path.parent, member.name)
        self.require_room(1, member.size)
        target, written = self.target / path, 0
        with self._explain(target, member.name), target.open("xb") as file:
            for chunk in chunks:
                written += len(chunk)
                self.require_room(1, written)
                file.write(chunk)
        if written != member.size:
            raise CorruptArchiveError(
                f"{self.name} is damaged or truncated: {_quote(member.name)} has "
                f"{written:,} bytes, its header says {member.size:,}"
            )
        self.bytes_written += written
        self.files.add(path)
        if self.progress is not None:
            self.progress(len(self.files), self.file_count)

    def _make_folders(self, path: PurePosixPath, member: str) -> None:
        for folder in reversed((path, *path.parents)):
            if folder not in self.folders:
                self.require_room(1, 0)
                with self._explain(self.target / folder, member):
                    (self.target / folder).mkdir()
                self.folders.add(folder)

    @contextmanager
    def _explain(self, path: Path, member: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError as error:
            raise self.refuse(member, "has the same path as another member") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise self.refuse(member, "has a name that is too long") from error
            error.filename = error.filename or os.fspath(path)
            raise

    def _check(self, member: tarfile.TarInfo) -> PurePosixPath:
        """Returns the path of a member below the target, or refuses the member."""
        name, link, path = member.name, member.linkname, PurePosixPath(member.name)
        outside = f"links out of the archive, to {_quote(link)}"
        for refused, reason in (
            (path.is_absolute(), "has an absolute path"),
            (any(re.match("[A-Za-z]:", part) for part in path.parts), "names a drive"),
            ("\\" in name, "has a backslash in its path"),
            (".." in path.parts, "leaves its folder with '..'"),
            (len(path.parts) > _MAX_DEPTH, f"is more than {_MAX_DEPTH} folders deep"),
            (not _can_be_a_path(name), "has a name that no file can have"),
            (not path.parts and not member.isdir(), "has no file name"),
            (member.issparse(), "is a sparse file"),
            (re.match(r"[A-Za-z]:|\\", link) or not _can_be_a_path(link), outside),
        ):
            if refused:
                raise self.refuse(name, reason)
        try:
            tarfile.data_filter(member, os.fspath(self.target))
        except tarfile.SpecialFileError as error:
            reason = "is a device, a pipe or another special file"
            raise self.refuse(name, reason) from error
        except tarfile.FilterError as error:
            raise self.refuse(name, outside) from error
        return path


class _HeaderReader:
    """The file that tarfile reads from: forward only, and never much at once."""

    def __init__(self, file: IO[bytes]) -> None:
        self.last_read = b""
        self.tell = file.tell
        self._file = file

    def read(self, size: int) -> bytes:
        # A negative size, taken from a header, would read the whole file.
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError("a header is too large")
        self.last_read = self._file.read(size)
        return self.last_read

    def seek(self, position: int) -> int:
        if position < self.tell():
            raise tarfile.ReadError("a header points backwards")
        return self._file.seek(position)


# A member of either format and its content.
_Members = Generator[tuple[tarfile.TarInfo, Iterator[bytes]], None, None]


def _read_tar(archive: Path, kind: ArchiveKind, extraction: _Extraction) -> _Members:
    name, decompress = extraction.name, _DECOMPRESSORS[kind]
    with _explain_damage(archive, name), decompress(archive, "rb") as file:
        reader = _HeaderReader(file)
        tar = tarfile.TarFile(
            fileobj=reader,  # type: ignore[arg-type]
            mode="r",
            encoding=extraction.encoding or "utf-8",
            errors="surrogateescape",
        )
        for member in tar:
            if member.size < 0:
                raise tarfile.ReadError("a member has a negative size")
            if extraction.encoding_note is None and not _is_text(member.name):
                name_bytes = os.fsencode(member.name)
                if extraction.encoding is not None:
                    raise extraction.refuse_encoding(name_bytes)
                extraction.encoding_note = describe_encoding([name_bytes], "utf-8")
            yield member, _read_chunks(tar.extractfile, member, archive, name)
        # tarfile takes damage in the middle, and a missing end, for the end.
        if reader.last_read != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end is missing")
        # The checksum of the compression follows the padding.
        if len(file.read(_PADDING_BYTES + 1)) > _PADDING_BYTES:
            raise tarfile.ReadError("it continues after its end")


def _read_zip(archive: Path, extraction: _Extraction) -> _Members:
    name = extraction.name
    with _explain_damage(archive, name), zipfile.ZipFile(archive) as opened:
        infos = opened.infolist()
        extraction.require_room(len(infos), sum(info.file_size for info in infos))
        try:
            names, note = decode_zip_names(infos, extraction.encoding)
        except UnicodeDecodeError as error:
            raise extraction.refuse_encoding(error.object) from error
        extraction.encoding_note = note
        extraction.file_count = sum(not name.endswith("/") for name in names)
        for info, member_name in zip(infos, names, strict=True):
            member = tarfile.TarInfo(member_name)
            member.size = info.file_size
            if info.flag_bits & 0x1:
                raise extraction.refuse(member.name, "is encrypted")
            # zipfile does not limit the memory of other decompressors.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                reason = "uses another compression method than deflate"
                raise extraction.refuse(member.name, reason)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind == stat.S_IFLNK:
                member.type = tarfile.SYMTYPE
                with opened.open(info) as content:
                    link = content.read(_MAX_LINK_BYTES)
                member.linkname = link.decode("utf-8", "surrogateescape")
            elif kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                member.type = tarfile.FIFOTYPE
            elif member.name.endswith("/"):
                member.type = tarfile.DIRTYPE
            yield member, _read_chunks(opened.open, info, archive, name)


def _read_chunks(
    open_member: Callable[[Any], IO[bytes] | None],
    member: Any,
    archive: Path,
    name: str,
) -> Iterator[bytes]:
    with _explain_damage(archive, name):
        content = open_member(member)
        assert content is not None  # only regular files are read
        with content:
            while chunk := content.read(_CHUNK_BYTES):
                yield chunk


@contextmanager
def _explain_damage(archive: Path, name: str) -> Iterator[None]:
    """Turns what invalid bytes raise in tarfile and zipfile into one error."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        # Decompressors raise OSError without a number, and EINVAL is a seek to where a
        # damaged header points. Any other number comes from the disk.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            error.filename = error.filename or os.fspath(archive)
            raise
        raise CorruptArchiveError(
            f"{name} is damaged, truncated, or holds no tar or zip archive: "
            f"{str(error) or type(error).__name__}"
        ) from error


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _can_be_a_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _quote(name: str | bytes) -> str:
    """Quotes a name from an archive, without control characters and not too long."""
    return repr(name[:120]) + ("..." if len(name) > 120 else "")
