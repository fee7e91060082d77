import base64
import hashlib
import json
import os
import random
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from image_drawing import blobs, draw_image, encoded
from PIL import Image, ImageFile

from keras_flowers.data.image_files import (
    IMAGE_SUFFIXES,
    ImageOptions,
    ImageRecord,
    inspect_image,
    load_image,
    resize_image,
)
from keras_flowers.errors import InputError

COLOURS = {"red": (200, 40, 30), "green": (30, 160, 60), "blue": (40, 60, 210)}

# How each format is written, and how far a colour may move on the way.
FORMATS = {
    "JPEG": ({"quality": 95, "subsampling": 0}, 4),
    "progressive JPEG": ({"quality": 95, "subsampling": 0, "progressive": True}, 4),
    "PNG": ({}, 0),
    "WEBP": ({"quality": 95}, 8),
    "lossless WEBP": ({"lossless": True}, 0),
    "BMP": ({}, 0),
    "GIF": ({}, 0),
    "TIFF": ({}, 0),
    "LZW TIFF": ({"compression": "tiff_lzw"}, 0),
    "deflate TIFF": ({"compression": "tiff_adobe_deflate"}, 0),
}


def stripes(size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Returns three upright stripes: red, green, blue."""
    image = Image.new("RGB", size)
    width = size[0] // 3
    for position, colour in enumerate(COLOURS.values()):
        image.paste(colour, (position * width, 0, (position + 1) * width, size[1]))
    return image


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def inspected(path: Path, size: tuple[int, int] | None = None):
    return inspect_image(path.parent, path.name, size)


def problem_of(path: Path) -> tuple[str | None, str | None]:
    record, pixels = inspected(path, (8, 8))
    assert pixels is None or record.problem is None
    return record.problem_kind, record.problem


def png_chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width: int, height: int, bits: int, samples: bytes) -> bytes:
    """Returns an RGB photo with `bits` per sample; the rows begin with a zero."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    data += png_chunk(b"IDAT", zlib.compress(samples))
    return data + png_chunk(b"IEND", b"")


# What a sound photo gives


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_keeps_its_colours(tmp_path: Path, name: str) -> None:
    options, tolerance = FORMATS[name]
    format_name = name.split()[-1]
    path = written(tmp_path / "photo", encoded(stripes(), format_name, **options))
    pixels = load_image(path)
    assert pixels.shape == (32, 48, 3)
    assert pixels.dtype == np.uint8
    for column, colour in zip((8, 24, 40), COLOURS.values(), strict=True):
        assert np.abs(pixels[16, column].astype(int) - colour).max() <= tolerance
    record, _ = inspected(path)
    assert (record.format, record.width, record.height) == (format_name, 48, 32)


def test_a_record_says_what_is_known_of_a_file(tmp_path: Path) -> None:
    path = draw_image(tmp_path / "daisy" / "a.jpg", 1, size=(40, 30))
    record, pixels = inspect_image(tmp_path, "daisy/a.jpg")
    status = path.stat()
    assert pixels is None
    assert record.path == "daisy/a.jpg"
    assert record.class_name == "daisy"
    assert (record.size, record.modified_ns) == (status.st_size, status.st_mtime_ns)
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (record.width, record.height, record.format) == (40, 30, "JPEG")
    assert len(record.perceptual_hash) == 64
    assert (record.problem_kind, record.problem) == (None, None)


def test_a_record_survives_json() -> None:
    record = ImageRecord("a\udcff\n/b", 1, 2, "ab", 3, 4, "PNG", "cd", None, None)
    assert ImageRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    with pytest.raises(TypeError):
        ImageRecord.from_json({"path": "a"})


def test_pixels_are_resized_with_antialiasing_and_without_the_aspect(
    tmp_path: Path,
) -> None:
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    path = written(tmp_path / "a.png", encoded(Image.fromarray(board), "PNG"))
    _, pixels = inspected(path, (8, 16))
    assert pixels is not None
    assert pixels.shape == (8, 16, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - 127).max() <= 8


@pytest.mark.parametrize("image_size", [(256, 256), (5, 300), (600, 400), (900, 1200)])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG"])
def test_loading_gives_what_inspecting_gives(
    tmp_path: Path, image_size: tuple[int, int], format_name: str
) -> None:
    path = draw_image(tmp_path / "a", 3, size=(2400, 1200), format_name=format_name)
    _, pixels = inspected(path, image_size)
    np.testing.assert_array_equal(load_image(path, image_size), pixels)


# A JPEG of more than twice the wanted size is reduced while it is decoded


def test_a_large_image_looks_the_same_however_it_was_decoded(tmp_path: Path) -> None:
    path = draw_image(tmp_path / "a.jpg", 4, size=(3200, 2400))
    expected = Image.open(path).resize((256, 200), Image.Resampling.BILINEAR)
    difference = np.abs(load_image(path, (200, 256)) - np.asarray(expected, np.int16))
    assert 0 < difference.mean() < 0.5
    assert load_image(path).shape == (2400, 3200, 3)


def test_a_large_image_keeps_its_size_in_the_record(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = draw_image(tmp_path / "a.jpg", 4, size=(3200, 2400), exif=exif)
    record, _ = inspected(path, (64, 64))
    assert (record.width, record.height) == (2400, 3200)


def test_the_perceptual_hash_does_not_depend_on_the_wanted_size(
    tmp_path: Path,
) -> None:
    path = draw_image(tmp_path / "a.jpg", 5, size=(3200, 2400))
    sizes = [None, (16, 16), (256, 256), (400, 400), (1300, 1300)]
    assert len({inspected(path, size)[0].perceptual_hash for size in sizes}) == 1


def test_a_large_image_that_was_cut_is_found(tmp_path: Path) -> None:
    data = encoded(blobs(6, (3200, 2400)))
    for keep in (0.1, 0.5, 0.95):
        path = written(tmp_path / "a.jpg", data[: int(keep * len(data))])
        assert problem_of(path)[0] == "corrupt"


# Every mode becomes RGB


@pytest.mark.parametrize(
    ("mode", "format_name"),
    [("L", "JPEG"), ("L", "PNG"), ("1", "PNG"), ("1", "TIFF"), ("L", "TIFF")],
)
def test_gray_becomes_gray(tmp_path: Path, mode: str, format_name: str) -> None:
    image = Image.new("L", (20, 10), 255)
    image.paste(0, (0, 0, 10, 10))
    path = written(tmp_path / "a", encoded(image.convert(mode), format_name))
    pixels = load_image(path)
    assert pixels[5, 2].tolist() == [0, 0, 0]
    assert pixels[5, 17].tolist() == [255, 255, 255]


@pytest.mark.parametrize("format_name", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_becomes_its_colours(tmp_path: Path, format_name: str) -> None:
    image = stripes().quantize(3)
    assert image.mode == "P"
    path = written(tmp_path / "a", encoded(image, format_name))
    np.testing.assert_array_equal(load_image(path), np.asarray(stripes()))


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF"])
def test_transparent_parts_show_a_white_ground(
    tmp_path: Path, format_name: str
) -> None:
    image = Image.new("RGBA", (30, 10), (100, 0, 0, 255))
    image.paste((100, 0, 0, 0), (0, 0, 10, 10))
    image.paste((100, 0, 0, 102), (10, 0, 20, 10))
    path = written(tmp_path / "a", encoded(image, format_name, lossless=True))
    pixels = load_image(path).astype(int)
    assert pixels[5, 5].tolist() == [255, 255, 255]
    assert np.abs(pixels[5, 15] - [193, 153, 153]).max() <= 1
    assert pixels[5, 25].tolist() == [100, 0, 0]


@pytest.mark.parametrize("format_name", ["PNG", "GIF"])
def test_a_transparent_palette_colour_shows_a_white_ground(
    tmp_path: Path, format_name: str
) -> None:
    image = Image.new("P", (20, 10), 0)
    image.putpalette([200, 10, 10, 10, 200, 10])
    image.paste(1, (10, 0, 20, 10))
    path = written(tmp_path / "a", encoded(image, format_name, transparency=0))
    pixels = load_image(path)
    assert pixels[5, 5].tolist() == [255, 255, 255]
    assert pixels[5, 15].tolist() == [10, 200, 10]


@pytest.mark.parametrize(("mode", "key"), [("L", 80), ("RGB", (80, 80, 80))])
def test_a_transparent_key_colour_shows_a_white_ground(
    tmp_path: Path, mode: str, key: int | tuple[int, ...]
) -> None:
    image = Image.new("RGB", (20, 10), (80, 80, 80))
    image.paste((10, 10, 10), (10, 0, 20, 10))
    data = encoded(image.convert(mode), "PNG", transparency=key)
    pixels = load_image(written(tmp_path / "a", data))
    assert pixels[5, 5].tolist() == [255, 255, 255]
    assert pixels[5, 15].tolist() == [10, 10, 10]


def test_gray_with_alpha_shows_a_white_ground(tmp_path: Path) -> None:
    path = written(tmp_path / "a", encoded(Image.new("LA", (4, 4), (0, 51)), "PNG"))
    assert load_image(path)[0, 0].tolist() == [204, 204, 204]


@pytest.mark.parametrize("format_name", ["JPEG", "TIFF"])
def test_ink_becomes_colour(tmp_path: Path, format_name: str) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    path = written(tmp_path / "a", encoded(image, format_name))
    assert np.abs(load_image(path)[8, 8].astype(int) - [255, 0, 0]).max() <= 2


def test_ink_that_is_not_adobes_is_not_inverted(tmp_path: Path) -> None:
    data = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG")
    start = data.index(b"\xff\xee")
    assert data[start + 4 : start + 9] == b"Adobe"
    (length,) = struct.unpack(">H", data[start + 2 : start + 4])
    plain = data[:start] + data[start + 2 + length :]
    # The stored samples are 255, 0, 0, 255: now they are the amount of ink.
    assert load_image(written(tmp_path / "a", plain))[8, 8].max() <= 2


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_16_bits_are_scaled(tmp_path: Path, format_name: str) -> None:
    samples = np.array([[0, 257, 32896, 65535, 255, 385]], np.uint16)
    path = written(tmp_path / "a", encoded(Image.fromarray(samples), format_name))
    pixels = load_image(path)
    assert pixels[0, :, 0].tolist() == [0, 1, 128, 255, 1, 1]
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_12_bits_are_scaled(tmp_path: Path) -> None:
    def entry(tag: int, kind: int, value: int) -> bytes:
        return struct.pack("<HHII", tag, kind, 1, value)

    entries = [
        entry(256, 3, 2),  # width
        entry(257, 3, 1),  # height
        entry(258, 3, 12),  # bits per sample
        entry(259, 3, 1),  # no compression
        entry(262, 3, 1),  # black is zero
        entry(273, 4, 8),  # where the samples start
        entry(277, 3, 1),  # samples per pixel
        entry(278, 3, 1),  # rows per strip
        entry(279, 4, 3),  # bytes of samples
    ]
    samples = bytes([0xFF, 0xF8, 0x00])  # 4095 and 2048
    data = b"II*\0" + struct.pack("<I", 12) + samples + b"\0"
    data += struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    assert load_image(written(tmp_path / "a.tif", data))[0, :, 0].tolist() == [255, 128]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([[0, 51, 255]], np.int32), [0, 51, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[0, 2**30, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[-7, 51, 255]], np.int32), [0, 51, 255]),
        (np.array([[0.0, 0.2, 1.0]], np.float32), [0, 51, 255]),
        (np.array([[0.0, 51.2, 254.0]], np.float32), [0, 51, 254]),
        (np.array([[0.0, 1e20, 2e20]], np.float32), [0, 128, 255]),
        (np.array([[np.nan, -1.0, 1.0]], np.float32), [0, 0, 255]),
        (np.zeros((1, 3), np.float32), [0, 0, 0]),
    ],
)
def test_32_bits_are_scaled_by_the_nearest_white(
    tmp_path: Path, samples: np.ndarray, expected: list[int]
) -> None:
    path = written(tmp_path / "a", encoded(Image.fromarray(samples), "TIFF"))
    assert load_image(path)[0, :, 1].tolist() == expected


def test_16_bit_colour_is_scaled(tmp_path: Path) -> None:
    row = b"\0" + struct.pack(">6H", 0, 32896, 65535, 257, 514, 0)
    pixels = load_image(written(tmp_path / "a.png", png(2, 1, 16, row)))
    assert pixels.tolist() == [[[0, 128, 255], [1, 2, 0]]]


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_of_several_frames_is_taken(tmp_path: Path, format_name: str) -> None:
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue", "green")]
    data = encoded(
        frames[0], format_name, save_all=True, append_images=frames[1:], lossless=True
    )
    assert load_image(written(tmp_path / "a", data))[8, 8].tolist() == [255, 0, 0]


# EXIF


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns the pixels that a file of this orientation holds (EXIF 2.3, 4.6.4)."""
    stored = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels.transpose(1, 0, 2)[::-1],
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: pixels.transpose(1, 0, 2)[:, ::-1],
    }
    return np.ascontiguousarray(stored[orientation])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_is_applied(
    tmp_path: Path, format_name: str, orientation: int
) -> None:
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :16] = (255, 0, 0)
    upright[:16, 32:] = (0, 255, 0)
    upright[16:, :16] = (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(oriented(upright, orientation))
    data = encoded(
        stored, format_name, exif=exif, lossless=True, quality=95, subsampling=0
    )
    path = written(tmp_path / "a", data)
    record, _ = inspected(path)
    assert (record.width, record.height) == (48, 32)
    assert np.abs(load_image(path).astype(int) - upright).mean() < 3


@pytest.mark.parametrize(
    "exif",
    [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(40)],
    ids=["empty", "header only", "far offset", "zeros"],
)
def test_broken_exif_data_does_not_cost_the_image(tmp_path: Path, exif: bytes) -> None:
    path = written(tmp_path / "a.jpg", encoded(stripes(), exif=exif))
    assert load_image(path).shape == (32, 48, 3)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_is_upright(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = written(tmp_path / "a.png", encoded(stripes(), "PNG", exif=exif))
    np.testing.assert_array_equal(load_image(path), np.asarray(stripes()))


# What a bad file gives


def test_an_empty_file(tmp_path: Path) -> None:
    assert problem_of(written(tmp_path / "a.jpg", b"")) == ("empty_file", "empty file")


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"BMW is a car, as everybody knows",
        b"\xff\xd8",
        b"RIFF    WAVE",
        b"\0",
    ],
)
def test_a_file_that_is_no_image(tmp_path: Path, data: bytes) -> None:
    path = written(tmp_path / "a.jpg", data)
    assert problem_of(path) == ("not_an_image", "not an image")
    record, _ = inspected(path)
    assert (record.size, record.sha256) == (len(data), "")
    assert (record.width, record.height, record.format) == (0, 0, "")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\1\0\1\0", "Windows icon"),
        (b"P6\n1 1\n255\nabc", "PNM"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
    ],
)
def test_an_image_of_another_format_is_named(
    tmp_path: Path, data: bytes, name: str
) -> None:
    kind, problem = problem_of(written(tmp_path / "a.jpg", data))
    assert kind == "unsupported_format"
    assert problem is not None
    assert name in problem
    assert "JPEG" in problem


def test_a_postscript_file_never_reaches_a_decoder(tmp_path: Path) -> None:
    header = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    path = written(tmp_path / "a.jpg", header + b"(x) (w) file\nshowpage\n")
    assert problem_of(path)[0] == "unsupported_format"
    with pytest.raises(InputError, match="PostScript"):
        load_image(path)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_that_was_cut(tmp_path: Path, name: str) -> None:
    options, _ = FORMATS[name]
    data = encoded(blobs(2, (96, 64)), name.split()[-1], **options)
    for keep in (0.02, 0.1, 0.5, 0.9, 0.98):
        path = written(tmp_path / "a", data[: max(30, int(keep * len(data)))])
        kind, problem = problem_of(path)
        assert kind == "corrupt", (keep, problem)
        assert problem is not None
        assert problem.startswith("truncated or corrupt: ")
        assert "0x" not in problem  # an address would differ from run to run
        assert inspected(path)[0].sha256


def test_a_cut_file_is_found_whatever_pillow_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(blobs(2))
    path = written(tmp_path / "a.jpg", data[: len(data) // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert problem_of(path)[0] == "corrupt"
    assert ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    ("width", "height"), [(60000, 60000), (10000, 9000), (2**31 - 1, 2**31 - 1)]
)
def test_a_decompression_bomb_is_refused_from_its_header(
    tmp_path: Path, width: int, height: int
) -> None:
    bomb = png(width, height, 8, bytes(1000))
    assert problem_of(written(tmp_path / "a.png", bomb))[0] == "decompression_bomb"
    with pytest.raises(InputError, match="pixels"):
        load_image(tmp_path / "a.png")


@pytest.mark.parametrize("name", FORMATS)
def test_the_limit_of_pixels_is_pillows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    options, _ = FORMATS[name]
    path = written(tmp_path / "a", encoded(stripes(), name.split()[-1], **options))
    for limit, kind in (
        (48 * 32 // 3, "decompression_bomb"),
        (48 * 32 - 1, "decompression_bomb"),
        (48 * 32, None),
        (None, None),
    ):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert problem_of(path)[0] == kind


def test_a_missing_file_a_folder_and_a_pipe(tmp_path: Path) -> None:
    kind, problem = problem_of(tmp_path / "none.jpg")
    assert kind == "unreadable"
    assert problem == "cannot be read: No such file or directory"
    (tmp_path / "folder.jpg").mkdir()
    assert problem_of(tmp_path / "folder.jpg")[0] == "unreadable"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert problem_of(tmp_path / "pipe.jpg")[0] == "unreadable"


def test_a_lack_of_memory_is_not_the_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    path = draw_image(tmp_path / "a.jpg", 0)
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    assert problem_of(path) == ("unreadable", "cannot be read: not enough memory")


@settings(max_examples=150, deadline=None)
@given(
    head=st.sampled_from(
        [
            b"",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\xff\0\0\0WEBPVP8 ",
            b"GIF89a",
            b"II*\0",
            b"MM\0*",
            b"MM\0+",
            b"BM" + bytes(12) + b"\x28\0\0\0",
        ]
    ),
    rest=st.binary(max_size=300),
)
def test_no_bytes_whatever_raise(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, rest: bytes
) -> None:
    path = written(tmp_path_factory.getbasetemp() / "random", head + rest)
    record, pixels = inspected(path, (8, 8))
    if record.problem is None:
        assert pixels is not None
        assert pixels.shape == (8, 8, 3)
    else:
        assert pixels is None
        assert record.problem.isprintable()
        assert len(record.problem) < 300
        with pytest.raises(InputError):
            load_image(path)


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    seed=st.integers(0, 2**32),
    count=st.integers(1, 20),
)
def test_no_damage_raises(
    tmp_path_factory: pytest.TempPathFactory, name: str, seed: int, count: int
) -> None:
    options, _ = FORMATS[name]
    data = bytearray(encoded(stripes(), name.split()[-1], **options))
    generator = random.Random(seed)
    for _ in range(count):
        data[generator.randrange(len(data))] = generator.randrange(256)
    path = written(tmp_path_factory.getbasetemp() / "damaged", bytes(data))
    record, pixels = inspected(path, (8, 8))
    assert (pixels is None) == (record.problem is not None)


@pytest.mark.parametrize(
    "name", ["line\nbreak.jpg", "röse 花.jpg", b"\xff.jpg", "a\x1b"]
)
def test_odd_names(tmp_path: Path, name: str | bytes) -> None:
    relative = os.fsdecode(name)
    draw_image(tmp_path / relative, 0)
    record, _ = inspect_image(tmp_path, relative)
    assert record.problem is None
    assert record.path == relative
    written(tmp_path / relative, b"no photo")
    with pytest.raises(InputError) as caught:
        load_image(tmp_path / relative)
    assert str(caught.value).isprintable()


def test_loading_names_the_path_and_the_reason(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jpg", encoded(stripes())[:200])
    with pytest.raises(InputError) as caught:
        load_image(path)
    assert str(path) in str(caught.value)
    assert "truncated or corrupt" in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        load_image(str(tmp_path / "none.jpg"))


# What the process keeps


def test_pillows_warnings_reach_nobody_and_other_filters_stay(tmp_path: Path) -> None:
    data = encoded(stripes(), "PNG")
    animated_without_frames = png_chunk(b"acTL", bytes(8))
    data = data[:33] + animated_without_frames + data[33:]
    path = written(tmp_path / "a.png", data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="APNG"):
            Image.open(path)
        before = list(warnings.filters)
        assert problem_of(path)[0] is None
        assert warnings.filters == before


def test_many_threads_leave_the_settings_of_the_process_as_they_were(
    tmp_path: Path,
) -> None:
    names = []
    for seed in range(40):
        path = draw_image(tmp_path / f"{seed}.jpg", seed)
        if seed % 4 == 0:
            written(path, path.read_bytes()[:300])
        names.append(path.name)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        records = list(pool.map(lambda n: inspect_image(tmp_path, n)[0], names * 5))
    assert [r.problem_kind for r in records] == (["corrupt"] + [None] * 3) * 50
    assert warnings.filters == before
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_the_suffixes_are_lower_case() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tiff"} <= IMAGE_SUFFIXES
    assert all(s.startswith(".") and s == s.lower() for s in IMAGE_SUFFIXES)


# Formats of phones and cameras


@pytest.mark.parametrize(
    ("format_name", "options", "tolerance"),
    [
        ("AVIF", {"quality": 95}, 12),
        ("JPEG2000", {}, 0),
        ("MPO", {"quality": 95, "subsampling": 0}, 4),
    ],
)
def test_more_formats_keep_their_colours(
    tmp_path: Path, format_name: str, options: dict, tolerance: int
) -> None:
    path = written(tmp_path / "photo", encoded(stripes(), format_name, **options))
    record, pixels = inspected(path, (32, 48))
    assert record.problem is None
    for column, colour in zip((8, 24, 40), COLOURS.values(), strict=True):
        assert np.abs(pixels[16, column].astype(int) - colour).max() <= tolerance


def pinned_file(name: str) -> bytes:
    text = Path(__file__).with_name("decoded_files.json").read_text()
    return base64.b64decode(json.loads(text)[name])


def test_an_image_of_a_phone(tmp_path: Path) -> None:
    data = pinned_file("phone.heic")
    path = written(tmp_path / "IMG_1.HEIC", data)
    record, pixels = inspected(path, (48, 64))
    assert (record.format, record.width, record.height) == ("HEIF", 64, 48)
    drawn = blobs(1, (12, 9)).resize((64, 48), Image.Resampling.BICUBIC)
    assert np.abs(pixels.astype(int) - np.asarray(drawn)).mean() < 10
    for length in (100, 300, len(data) - 5):
        assert problem_of(written(path, data[:length]))[0] == "corrupt"


def large_jpeg(path: Path, size: tuple[int, int], **options: object) -> Path:
    image = Image.linear_gradient("L").resize(size, Image.Resampling.NEAREST)
    return written(path, encoded(image.convert("RGB"), quality=50, **options))


def test_a_jpeg_beyond_the_limit_is_decoded_reduced(tmp_path: Path) -> None:
    path = large_jpeg(tmp_path / "a.jpg", (4000, 3000))
    few = ImageOptions(max_pixels=1_000_000)
    record, pixels = inspect_image(tmp_path, "a.jpg", (64, 64), few)
    assert record.problem_kind == "decompression_bomb"  # more than 8 times the limit
    enough = ImageOptions(max_pixels=2_000_000)
    record, pixels = inspect_image(tmp_path, "a.jpg", (64, 64), enough)
    assert (record.width, record.height, record.problem) == (4000, 3000, None)
    np.testing.assert_array_equal(load_image(path, (64, 64), enough), pixels)
    np.testing.assert_array_equal(load_image(path, (64, 64)), pixels)
    with pytest.raises(
        InputError, match=r"limit is 2000000 pixels \(max_pixels, --max"
    ):
        load_image(path, None, enough)


def test_a_progressive_jpeg_counts_in_full(tmp_path: Path) -> None:
    large_jpeg(tmp_path / "a.jpg", (4000, 3000), progressive=True)
    options = ImageOptions(max_pixels=11_000_000)
    record, _ = inspect_image(tmp_path, "a.jpg", (64, 64), options)
    assert record.problem_kind == "decompression_bomb"


# Files that are broken, but not in their pixels


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_without_its_end_is_used(
    tmp_path: Path, options: dict, cut: int
) -> None:
    whole = written(tmp_path / "a.jpg", encoded(blobs(3, (200, 150)), **options))
    expected = load_image(whole)
    path = written(tmp_path / "b.jpg", whole.read_bytes()[:-cut])
    record, _ = inspected(path)
    assert (record.problem, record.note_kind) == (None, "no_end_marker")
    assert "all pixels are there" in record.note
    np.testing.assert_array_equal(load_image(path), expected)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_jpeg_that_lacks_pixels_is_refused_or_kept(
    tmp_path: Path, options: dict
) -> None:
    data = encoded(blobs(3, (200, 150)), **options)
    keep = ImageOptions(truncated="keep")
    for length in range(len(data) * 3 // 4, len(data) - 4, 97):
        path = written(tmp_path / "a.jpg", data[:length])
        assert problem_of(path)[0] == "corrupt"
        record, pixels = inspect_image(tmp_path, "a.jpg", (150, 200), keep)
        assert (record.problem, record.note_kind) == (None, "truncated")
        whole = np.asarray(blobs(3, (200, 150)), int)
        assert np.abs(pixels[:50] - whole[:50]).mean() < 25


@pytest.mark.parametrize("format_name", ["PNG", "BMP"])
def test_a_cut_file_of_rows_can_be_kept(tmp_path: Path, format_name: str) -> None:
    data = encoded(blobs(3, (200, 150)), format_name)
    path = written(tmp_path / "a", data[: len(data) // 2])
    assert problem_of(path)[0] == "corrupt"
    pixels = load_image(path, None, ImageOptions(truncated="keep"))
    matching = (pixels == np.asarray(blobs(3, (200, 150)))).all(axis=(1, 2)).sum()
    assert 50 <= matching <= 80


def with_chunk(data: bytes, chunk: bytes) -> bytes:
    """Returns a PNG with one more chunk after its header."""
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"iCCP", b"profile\0\0" + b"no deflate stream"),
        png_chunk(b"iCCP", b""),
        png_chunk(b"pHYs", bytes(9))[:-4] + b"\0\0\0\0",
        png_chunk(b"tEXt", b"a" * 20)[:-4] + b"\1\2\3\4",
        png_chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(70_000_000))),
        png_chunk(b"gAMA", b"\1"),
        png_chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
        png_chunk(b"tRNS", b"\1"),
        png_chunk(b"cHRM", b"\1\2"),
    ],
    ids=lambda chunk: chunk[4:8].decode(),
)
def test_broken_metadata_never_costs_a_png(tmp_path: Path, chunk: bytes) -> None:
    path = written(tmp_path / "a.png", with_chunk(encoded(stripes(), "PNG"), chunk))
    record, _ = inspected(path)
    assert record.problem is None
    np.testing.assert_array_equal(load_image(path), np.asarray(stripes()))


def test_broken_pixels_are_still_found(tmp_path: Path) -> None:
    data = bytearray(encoded(blobs(1), "PNG"))
    place = data.index(b"IDAT") + 40
    data[place] ^= 255
    assert problem_of(written(tmp_path / "a.png", bytes(data)))[0] == "corrupt"


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe2\0\x20ICC_PROFILE\0\5\1" + bytes(16),
        b"\xff\xe2\0\x10MPF\0II*\0\xff\xff\xff\xff\0\0",
        b"\xff\xed\0\x20Photoshop 3.0\x008BIM\4\4\0\0\0\xff\0\0\0\0\0\0",
        b"\xff\xe1\0\x16Exif\0\0II*\0\xff\xff\xff\xff\0\0\0\0",
        b"\xff\xe0\0\x07JFIF\0",
    ],
    ids=["ICC", "MPF", "Photoshop", "Exif", "JFIF"],
)
def test_broken_metadata_never_costs_a_jpeg(tmp_path: Path, segment: bytes) -> None:
    data = encoded(stripes(), quality=95, subsampling=0)
    expected = load_image(written(tmp_path / "a.jpg", data))
    path = written(tmp_path / "a.jpg", data[:2] + segment + data[2:])
    assert inspected(path)[0].problem is None
    np.testing.assert_array_equal(load_image(path), expected)


def test_broken_metadata_never_costs_a_webp(tmp_path: Path) -> None:
    icc, exif = b"no profile", b"no EXIF data"
    data = encoded(stripes(), "WEBP", lossless=True, icc_profile=icc, exif=exif)
    np.testing.assert_array_equal(
        load_image(written(tmp_path / "a.webp", data)), np.asarray(stripes())
    )
    place = data.index(b"EXIF") + 4
    long = data[:place] + struct.pack("<I", 9999) + data[place + 4 :]
    path = written(tmp_path / "a.webp", long)
    record, _ = inspected(path)
    assert record.problem is None, record.problem


# 12 bits in 16


def gray_png(bits: int, stated: int | None) -> bytes:
    samples = np.array([[0, 2 ** (bits - 1), 2**bits - 1]], np.uint16)
    data = encoded(Image.fromarray(samples), "PNG")
    return (
        data
        if stated is None
        else with_chunk(data, png_chunk(b"sBIT", bytes([stated])))
    )


def test_the_stated_depth_of_16_bit_gray_is_used(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", gray_png(12, 12))
    assert load_image(path)[0, :, 0].tolist() == [0, 128, 255]
    assert inspected(path)[0].note_kind is None
    samples = np.array([[0, 2048, 4095]], np.uint16)
    data = encoded(Image.fromarray(samples), "TIFF", tiffinfo={281: 4095})
    path = written(tmp_path / "a.tif", data)
    assert load_image(path)[0, :, 0].tolist() == [0, 128, 255]


def test_dark_16_bit_gray_is_a_finding_and_has_an_option(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", gray_png(12, None))
    record, _ = inspected(path)
    assert (record.problem, record.note_kind) == (None, "low_bit_depth")
    assert "--gray-bits" in record.note
    assert load_image(path)[0, :, 0].tolist() == [0, 8, 16]
    bright = ImageOptions(gray_bits=12)
    assert load_image(path, None, bright)[0, :, 0].tolist() == [0, 128, 255]
    assert inspect_image(tmp_path, "a.png", None, bright)[0].note_kind is None
    full = written(tmp_path / "b.png", gray_png(16, None))
    assert inspected(full)[0].note_kind is None


# Resizing


def test_crop_keeps_the_middle_and_pad_keeps_everything(tmp_path: Path) -> None:
    path = written(tmp_path / "a.png", encoded(stripes((48, 16)), "PNG"))
    cropped = load_image(path, (16, 16), ImageOptions(resize="crop"))
    np.testing.assert_array_equal(
        cropped[:, 1:-1], np.full((16, 14, 3), COLOURS["green"])
    )
    padded = load_image(path, (24, 24), ImageOptions(resize="pad"))
    assert (padded[:8] == 0).all()
    assert (padded[16:] == 0).all()
    np.testing.assert_array_equal(padded[8:16, 2], np.full((8, 3), COLOURS["red"]))
    np.testing.assert_array_equal(padded[8:16, 21], np.full((8, 3), COLOURS["blue"]))
    tall = load_image(path, (30, 10), ImageOptions(resize="crop"))
    assert tall.shape == (30, 10, 3)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    image_size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    resize=st.sampled_from(["stretch", "crop", "pad"]),
)
@example(size=(3, 25), image_size=(11, 1), resize="crop")
def test_every_way_gives_the_wanted_size(
    size: tuple[int, int], image_size: tuple[int, int], resize: str
) -> None:
    pixels = resize_image(Image.new("RGB", size, "white"), image_size, resize)
    assert (pixels.shape, pixels.dtype) == ((*image_size, 3), np.uint8)
    assert (pixels == 255).any()
    assert resize == "pad" or (pixels == 255).all()


def test_a_file_that_changes_while_it_is_read_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = draw_image(tmp_path / "a.jpg", 0)
    fstat, calls = os.fstat, []

    def changing(descriptor: int) -> os.stat_result:
        calls.append(descriptor)
        os.utime(path, ns=(len(calls), len(calls)))
        return fstat(descriptor)

    monkeypatch.setattr(os, "fstat", changing)
    assert problem_of(path) == ("unreadable", "changed while it was read")
