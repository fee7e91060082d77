"""Decodes the names of the members of archives.

A zip archive marks a name as UTF-8 or leaves its encoding open. Many tools write UTF-8
without the mark, others write in the code page of their Windows. A tar archive marks
nothing. The encoding of a name that is not UTF-8 cannot be told reliably: it is read
in one way, and a note lists the others.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Sequence

from keras_flowers.errors import InputError
from keras_flowers.files import printable_path

# The code pages of most Windows systems.
_CODE_PAGES = ("cp932", "gbk", "big5", "cp949", "cp866", "cp1251", "cp850", "cp1252")
# In these, a backslash can be the second byte of a character.
_DOUBLE_BYTE = ("cp932", "gbk", "big5")
_PRINTABLE_ASCII = bytes(range(0x20, 0x7F))
_UTF8_FLAG = 0x800
_UNICODE_PATH = 0x7075


def check_archive_encoding(encoding: str | None) -> str | None:
    """Returns `encoding` if member names can have it.

    Raises:
        InputError: If Python has no such encoding, or it does not extend ASCII.
    """
    if encoding is None:
        return None
    try:
        extends_ascii = _PRINTABLE_ASCII.decode(encoding) == _PRINTABLE_ASCII.decode()
    except (LookupError, ValueError, TypeError):
        extends_ascii = False
    if not extends_ascii:
        raise InputError(
            "`archive_encoding` must be an encoding that extends ASCII, such as "
            f"'cp932', 'gbk' or 'cp1252'. Received: archive_encoding={encoding!r}"
        )
    return encoding


def decode_zip_names(
    members: Sequence[zipfile.ZipInfo], encoding: str | None
) -> tuple[list[str], str | None]:
    """Decodes the names of the members of a zip archive.

    Backslashes become slashes: some Windows tools write them as separators.

    Args:
        members: All members, read without `metadata_encoding`.
        encoding: The encoding of names without a mark. None reads them as UTF-8, or in
            the code page that fits best if one of them is not UTF-8.

    Returns:
        The names in the order of the members, and what `describe_encoding` says if an
        encoding had to be chosen, else None.

    Raises:
        UnicodeDecodeError: If a name does not have the given encoding.
    """
    marked = [_read_marked_name(member) for member in members]
    # cp437, in which zipfile reads names without a mark, has a character for each byte.
    unmarked = [
        member.orig_filename.encode("cp437")
        for member, name in zip(members, marked, strict=True)
        if name is None
    ]
    note = None
    if encoding is None and _is_other_than_utf8(unmarked):
        encoding = _choose_code_page(unmarked)
        note = describe_encoding(unmarked, encoding)
    decoded = iter([name.decode(encoding or "utf-8") for name in unmarked])
    names = [next(decoded) if name is None else name for name in marked]
    return [name.replace("\\", "/") for name in names], note


def _is_other_than_utf8(names: Sequence[bytes]) -> bool:
    """Returns whether one of the names is not UTF-8."""
    try:
        b"\n".join(names).decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False


def describe_encoding(names: Sequence[bytes], encoding: str) -> str:
    """Returns a note on names that are not UTF-8: how one reads, and could read.

    Args:
        names: The names; at least one of them is not UTF-8.
        encoding: The encoding in which they were read.
    """
    example = next(
        part
        for name in names
        for part in name.split(b"/")
        if _is_other_than_utf8([part])
    )
    read = printable_path(example.decode(encoding, "surrogateescape"))
    readings: dict[str, str] = {}
    for codec in _CODE_PAGES:
        try:
            b"\n".join(names).decode(codec)
            text = example.decode(codec)
        except UnicodeDecodeError:
            continue
        if text.isprintable() and text not in (read, *readings.values()):
            readings[codec] = text
    others = ", ".join(f"{codec} for {text}" for codec, text in readings.items())
    return (
        f"names of unknown encoding were read as {encoding}, such as {read}. If that "
        "is wrong, pass --archive-encoding, or `archive_encoding=...` in Python"
        f"{': ' if others else ''}{others}"
    )


def _read_marked_name(member: zipfile.ZipInfo) -> str | None:
    """Returns the name of a member if its encoding is known."""
    if member.flag_bits & _UTF8_FLAG:
        return member.orig_filename
    # The extra field with a Unicode path, which Info-ZIP and 7-Zip write.
    extra, raw = member.extra, member.orig_filename.encode("cp437")
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and field[:5] == struct.pack(
            "<BL", 1, zlib.crc32(raw)
        ):
            return field[5:].decode("utf-8", "replace")
    return None


def _choose_code_page(names: Sequence[bytes]) -> str:
    """Chooses cp437, the standard of zip, unless a backslash ends a character."""
    everything = b"\n".join(names)
    if b"/" in everything and re.search(rb"[\x80-\xff]\\", everything):
        for encoding in _DOUBLE_BYTE:
            try:
                if "\\" not in everything.decode(encoding):
                    return encoding
            except UnicodeDecodeError:
                continue
    return "cp437"
