"""Takes image files apart: what is metadata, and whether all pixels are there."""

import struct
import zlib
from collections.abc import Iterator


def strip_metadata(data: bytes, format_name: str) -> Iterator[bytes]:
    """Yields the file without metadata, first with what changes the pixels.

    The orientation and the transparency are metadata that change the pixels.
    """
    strip = {"PNG": _strip_png, "JPEG": _strip_jpeg, "WEBP": _strip_webp}.get(
        format_name
    )
    if strip is None:
        return
    for keep_useful in (True, False):
        try:
            stripped = strip(data, keep_useful)
        except (struct.error, IndexError):
            return
        if stripped != data:
            yield stripped


def _strip_png(data: bytes, keep_useful: bool) -> bytes:
    kept, position = [data[:8]], 8
    useful = (b"tRNS", b"eXIf") if keep_useful else ()
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        chunk = data[position : position + 12 + length]
        kind = chunk[4:8]
        is_critical = kind[:1].isupper()
        if kind in useful:
            # Its checksum may be wrong; broken content fails when it is decoded.
            kept.append(chunk[:-4] + struct.pack(">I", zlib.crc32(chunk[4:-4])))
        elif is_critical:
            kept.append(chunk)
        position += 12 + length
    return b"".join(kept)


def _strip_jpeg(data: bytes, keep_useful: bool) -> bytes:
    kept, position = [data[:2]], 2
    while data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] == 0xFF:  # a fill byte
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        marker = data[position + 1]
        segment = data[position : position + 2 + length]
        is_exif = marker == 0xE1 and segment[4:10] == b"Exif\0\0"
        # Adobe's APP14 says how colors are stored.
        is_metadata = (0xE0 <= marker <= 0xEF and marker != 0xEE) or marker == 0xFE
        if not is_metadata or (keep_useful and is_exif):
            kept.append(segment)
        position += 2 + length
    return b"".join([*kept, data[position:]])


def has_all_scans(data: bytes) -> bool:
    """Returns whether a JPEG has a scan of every bit of every coefficient."""
    missing: set[tuple[int, int]] = set()
    position = 2
    while position + 4 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF or marker in (0x00, 0xFF, *range(0xD0, 0xD9)):
            # Pixels, or a marker without a length.
            position = data.find(b"\xff", position + 1)
            if position < 0:
                break
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        body = data[position + 4 : position + 2 + length]
        if marker in (0xC0, 0xC1, 0xC2) and len(body) > 5:
            components = body[6::3][: body[5]]
            missing = {(c, k) for c in components for k in range(64)}
        elif marker == 0xDA and body and len(body) >= 2 * body[0] + 4:
            components = body[1 : 1 + 2 * body[0] : 2]
            first, last, bits = body[-3:]
            if bits & 15 == 0:
                missing -= {(c, k) for c in components for k in range(first, last + 1)}
        position += 2 + length
    return not missing


def _strip_webp(data: bytes, keep_useful: bool) -> bytes:
    kept: list[bytearray] = []
    position, flags = 12, None
    dropped = {b"ICCP": 0x20, b"XMP ": 0x04} | ({} if keep_useful else {b"EXIF": 0x08})
    while position + 8 <= len(data):
        kind = data[position : position + 4]
        (length,) = struct.unpack_from("<I", data, position + 4)
        chunk = bytearray(data[position : position + 8 + length + length % 2])
        if kind == b"VP8X":
            flags = len(kept)
        if kind not in dropped:
            kept.append(chunk)
        position += len(chunk)
    if flags is not None and len(kept[flags]) > 8:
        for flag in dropped.values():
            kept[flags][8] &= ~flag
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body
