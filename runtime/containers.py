"""Takes image files apart: what is metadata, and whether all pixels are there."""

import itertools
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping


def strip_metadata(data: bytes, format_name: str) -> Iterator[bytes]:
    """Yields the file without metadata, first with what changes the pixels.

    The orientation and the transparency are metadata that change the pixels.
    """
    strip = _STRIPPERS.get(format_name)
    if strip is None:
        return
    for keep_useful in (True, False):
        try:
            stripped = strip(data, keep_useful)
        except (struct.error, LookupError, ValueError, ArithmeticError):
            continue
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


_MOST_FRAMES = 1000


def _strip_gif(data: bytes, keep_useful: bool) -> bytes:
    """Returns the first frame, found even if the blocks before it are wrong."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    start = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    # Of hostile files, there is no end of places that look like a frame.
    places = itertools.islice(re.finditer(b"\x2c", data[start:]), _MOST_FRAMES)
    for place in places:
        position = start + place.start()
        end = _find_end_of_frame(data, position, width, height)
        if end is not None:
            break
    else:
        return data
    control = data[max(start, position - 8) : position]
    is_control = re.fullmatch(rb"!\xf9\x04.{4}\0", control, re.DOTALL) is not None
    kept = control if keep_useful and is_control else b""
    return data[:start] + kept + data[position:end] + b"\x3b"


def _find_end_of_frame(
    data: bytes, position: int, width: int, height: int
) -> int | None:
    """Returns the end of the frame of a GIF that starts here, or None if none does."""
    left, top, columns, rows, flags = struct.unpack_from("<HHHHB", data, position + 1)
    fits = 0 < columns <= width - left and 0 < rows <= height - top
    position += 10 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    if not fits or not 2 <= data[position] <= 8:
        return None
    position += 1
    while data[position]:
        position += 1 + data[position]
    return position + 1


# What decides the pixels of a TIFF: size, depth, compression, colors, strips, tiles.
_TIFF_PIXELS = frozenset(
    [
        *(254, *range(256, 260), 262, 263, 266, 273, *range(277, 282), 284, 292, 293),
        *(317, 320, *range(322, 326), 332, 334, *range(338, 342), 347),
        *(*range(512, 522), 529, 530, 531, 532),
    ]
)
_TIFF_ORIENTATION = 274


def _strip_tiff(data: bytes, keep_useful: bool) -> bytes:
    """Returns the first page without the tags that do not decide its pixels."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = struct.unpack_from(f"{order}H", data, 2)[0] == 43
    count_form, size, offset_form = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    (start,) = struct.unpack_from(order + offset_form, data, 8 if is_big else 4)
    (count,) = struct.unpack_from(order + count_form, data, start)
    first = start + struct.calcsize(order + count_form)
    kept = []
    for place in range(first, min(first + count * size, len(data) - size + 1), size):
        (tag,) = struct.unpack_from(f"{order}H", data, place)
        if tag in _TIFF_PIXELS or (keep_useful and tag == _TIFF_ORIENTATION):
            kept.append(data[place : place + size])
    directory = b"".join(
        [
            struct.pack(order + count_form, len(kept)),
            *kept,
            struct.pack(order + offset_form, 0),  # no further page
        ]
    )
    return data[:start] + directory + data[start + len(directory) :]


def _strip_heif(data: bytes, keep_useful: bool) -> bytes:
    """Returns a HEIF or AVIF file whose metadata has names that no decoder knows."""
    kinds = [b"mime"] if keep_useful else [b"mime", b"Exif"]
    items = rb"(infe[\x02\x03]...(?:..|....)..)(?:" + b"|".join(kinds) + rb")"
    data = re.sub(items, rb"\1none", data, flags=re.DOTALL)
    # `nclx` says how colors are stored.
    return re.sub(rb"colr(?!nclx)" if keep_useful else rb"colr", b"free", data)


_CODESTREAM = b"\xff\x4f\xff\x51"
_JP2_START = b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 \0\0\0\0jp2 "
_JP2_PIXELS = (b"ihdr", b"bpcc", b"pclr", b"cmap", b"cdef", b"colr")


def _strip_jpeg2000(data: bytes, keep_useful: bool) -> bytes:
    """Returns the codestream, at first with the boxes that decide its colors."""
    start = data.index(_CODESTREAM)
    codestream = _strip_codestream(data[start:])
    header = data.find(b"jp2h", 0, start)
    if header < 0 or not keep_useful:
        return codestream
    boxes, position = [], header + 4
    (end,) = struct.unpack_from(">I", data, header - 4)
    end = min(start, header - 4 + end)
    while position + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, position)
        if length < 8:
            break
        body = data[position + 8 : position + length]
        is_profile = kind == b"colr" and (len(body) < 7 or body[0] != 1)
        if kind in _JP2_PIXELS and not is_profile:
            boxes.append(data[position : position + length])
        position += length
    content = b"".join(boxes)
    head = struct.pack(">I", 8 + len(content)) + b"jp2h" + content
    return _JP2_START + head + b"\0\0\0\0jp2c" + codestream


def _strip_codestream(data: bytes) -> bytes:
    """Returns a codestream of JPEG 2000 without the comments of its header."""
    kept, position = [data[:2]], 2
    while data[position] == 0xFF and data[position + 1] != 0x90:
        (length,) = struct.unpack_from(">H", data, position + 2)
        is_comment = data[position + 1] == 0x64
        following = position + 2 + length
        if is_comment and data[following : following + 1] != b"\xff":
            # Its length is wrong. The first tile follows at the latest.
            found = re.compile(rb"\xff[\x52-\x64\x90]").search(data, position + 4)
            if found is None:
                break
            following = found.start()
        if not is_comment:
            kept.append(data[position:following])
        position = following
    return b"".join([*kept, data[position:]])


_STRIPPERS: Mapping[str, Callable[[bytes, bool], bytes]] = {
    "PNG": _strip_png,
    "JPEG": _strip_jpeg,
    "WEBP": _strip_webp,
    "GIF": _strip_gif,
    "TIFF": _strip_tiff,
    "HEIF": _strip_heif,
    "AVIF": _strip_heif,
    "JPEG2000": _strip_jpeg2000,
}
