"""Broken metadata of any format costs no image; missing pixels are never invented."""

import base64
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from image_drawing import blobs, encoded
from keras_flowers_runtime.decoding import (
    DecodeOptions,
    UnusableImageError,
    decode_image,
    identify_format,
)
from PIL import Image, ImageCms

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DRAWN = blobs(3, (32, 24))


def decode(data, **options):
    format_name = identify_format(data, len(data))
    return decode_image(data, format_name, None, DecodeOptions(**options))


def pinned_heic():
    path = Path(__file__).parents[1] / "data" / "decoded_files.json"
    return base64.b64decode(json.loads(path.read_text())["phone.heic"])


def gif_files():
    whole = encoded(DRAWN.convert("P"), "GIF", comment=b"some words", transparency=7)
    extension = whole.index(b"!\xfe")
    for block in (
        b"!\xfe\xc8too short",  # a comment that swallows the image
        b"!\xfe\x05longer than five bytes\0",
        b"!\xff\0",
        b"!\xff\x0bXMP DataXMP" + b"no blocks," * 9 + b"\1\0",
        b"!\xf9\x01\0\0",
        b"!\x99\x05never",
    ):
        yield whole, whole[:extension] + block + whole[extension:]


def tiff_files():
    exif = Image.Exif()
    exif[0x010F] = "a maker of cameras"
    exif[0x0112] = 6
    for compression in (None, "tiff_lzw"):
        whole = encoded(DRAWN, "TIFF", compression=compression, exif=exif.tobytes())
        (start,) = struct.unpack_from("<I", whole, 4)
        (count,) = struct.unpack_from("<H", whole, start)
        entries = range(start + 2, start + 2 + 12 * count, 12)
        (maker,) = (e for e in entries if whole[e : e + 2] == b"\x0f\x01")
        for entry in (
            struct.pack("<HHII", 0x010F, 2, 19, 0xFFFFFF00),  # behind the end
            struct.pack("<HHII", 0x010F, 5, 1, len(whole) - 3),
        ):
            yield whole, whole[:maker] + entry + whole[maker + 12 :]


def avif_files():
    exif = Image.Exif()
    exif[0x010F] = "maker"
    whole = encoded(DRAWN, "AVIF", icc_profile=PROFILE, exif=exif.tobytes())
    tiff = whole.index(b"MM\0*") if b"MM\0*" in whole else whole.index(b"II*\0")
    yield whole, whole[:tiff] + b"\xff" * 12 + whole[tiff + 12 :]


def heic_files():
    whole = pinned_heic()
    yield whole, whole.replace(b"colrnclx", b"colr????")


def jpeg2000_files():
    whole = encoded(DRAWN, "JPEG2000")
    header, stream = whole.index(b"jp2h") - 4, whole.index(b"jp2c") - 4
    (length,) = struct.unpack_from(">I", whole, header)
    for box in (b"\x7f\xff\xff\xffxml ?", b"\0\0\0\2xml ?"):
        yield whole, whole[:stream] + box + whole[stream:]
    color = whole.index(b"colr") - 4
    for box in (b"\0\0\0\x0bcolr\2\0\0", b"\0\0\0\x08colr"):
        size = struct.pack(">I", length - 15 + len(box))
        head = whole[:header] + size + whole[header + 4 : color]
        yield whole, head + box + whole[color + 15 :]
    raw = encoded(DRAWN, "JPEG2000", no_jp2=True, comment=b"words")
    comment = raw.index(b"\xff\x64")
    yield raw, raw[: comment + 2] + b"\0\1" + raw[comment + 4 :]


FILES = [
    pytest.param(whole, broken, id=f"{name}-{number}")
    for name, files in {
        "gif": gif_files,
        "tiff": tiff_files,
        "avif": avif_files,
        "heic": heic_files,
        "jpeg2000": jpeg2000_files,
    }.items()
    for number, (whole, broken) in enumerate(files())
]


@pytest.mark.parametrize(("whole", "broken"), FILES)
def test_broken_metadata_costs_no_image(whole, broken):
    assert broken != whole
    found = decode(broken)
    assert found.note_kind == "broken_metadata"
    np.testing.assert_array_equal(found.image, decode(whole).image)


@pytest.mark.parametrize(
    "whole",
    [
        *(encoded(DRAWN, name) for name in ("GIF", "TIFF", "AVIF", "JPEG2000", "WEBP")),
        encoded(DRAWN, "TIFF", compression="tiff_lzw"),
        encoded(DRAWN, "JPEG2000", no_jp2=True),
        encoded(DRAWN, "BMP"),
        pinned_heic(),
    ],
    ids=lambda data: identify_format(data, len(data)),
)
def test_a_file_that_is_cut_anywhere_is_refused(whole):
    for part in range(1, 16):
        with pytest.raises(UnusableImageError):
            decode(whole[: len(whole) * part // 16])


@pytest.mark.parametrize(
    "whole",
    [
        encoded(DRAWN.convert("P"), "GIF", interlace=False),
        encoded(DRAWN, "PNG"),
        encoded(DRAWN, "BMP"),
    ],
    ids=lambda data: identify_format(data, len(data)),
)
def test_what_is_there_of_a_cut_file_is_kept_if_asked_for(whole):
    found = decode(whole[: len(whole) * 5 // 6], truncated="keep")
    assert found.note_kind == "truncated"
    same = np.asarray(found.image) == np.asarray(decode(whole).image)
    upright = same if identify_format(whole, len(whole)) != "BMP" else same[::-1]
    assert upright[: len(upright) // 3].all(), "the first rows are there"
    assert not upright[-2:].all(), "the last rows are missing"


def test_a_page_is_read_whatever_the_metadata_of_the_next_one_is():
    pages = [DRAWN.rotate(180), DRAWN]
    buffer = io.BytesIO()
    pages[1].save(buffer, "TIFF", save_all=True, append_images=pages[:1])
    whole = buffer.getvalue()
    (start,) = struct.unpack_from("<I", whole, 4)
    (count,) = struct.unpack_from("<H", whole, start)
    following = start + 2 + 12 * count
    broken = whole[:following] + b"\xf0\xff\xff\xff" + whole[following + 4 :]
    np.testing.assert_array_equal(decode(broken).image, DRAWN)
