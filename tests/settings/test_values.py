import pytest
from keras_flowers_settings.kinds import ByteSize, Count, ImageSize, Range, Widths
from keras_flowers_settings.values import parse, to_text


@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("0", 0),
        ("20000000000", 20 * 10**9),
        ("3b", 3),
        ("1.5kB", 1500),
        ("32GiB", 32 * 2**30),
        ("1 kib", 2**10),
        ("2MiB", 2**21),
        ("1TiB", 2**40),
        ("1TB", 10**12),
    ],
)
def test_sizes(size, count):
    assert parse(ByteSize(), size) == count


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (ImageSize(), "8", (8, 8)),
        (ImageSize(), "8x10", (8, 10)),
        (ImageSize(), "8X10", (8, 10)),
        (Widths(), "none", ()),
        (Widths(), "256, 128", (256, 128)),
        (Range(int), "3", 3),
        (Range(int), "1:3", (1, 3)),
        (Range(float), "0:0.5:0.25", (0.0, 0.5, 0.25)),
        (Range(int, separator=","), "4,8", (4, 8)),
    ],
)
def test_a_value_is_shown_as_it_is_read(kind, text, value):
    assert parse(kind, text) == value
    assert parse(kind, to_text(kind, value)) == value


@pytest.mark.parametrize("count", [0, 1, 10**6, 2**10, 3 * 2**30, 2**40 + 1])
def test_sizes_are_shown_exactly(count):
    assert parse(ByteSize(), to_text(ByteSize(), count).replace(" bytes", "")) == count


@pytest.mark.parametrize(
    ("kind", "text", "named"),
    [
        (ImageSize(), "big", "HEIGHTxWIDTH"),
        (ImageSize(), "1x2x3", "HEIGHTxWIDTH"),
        (ImageSize(), "0", "1 to 4096"),
        (ImageSize(), "9" * 5000, "1 to 4096"),
        (Widths(), "", "256,128"),
        (Widths(), "8,1000001", "1000000"),
        (ByteSize(), "lots", "500MB"),
        (ByteSize(), "-1", "500MB"),
        (Range(int), "1:x", "LOW:HIGH"),
        (Count("auto"), "0", "neither a number from 1 to 1000000 nor 'auto'"),
        (Count("auto", 0, 9), "10", "neither a number from 0 to 9 nor 'auto'"),
        (Range(int, separator=","), "1:2", "LOW,HIGH"),
    ],
)
def test_other_texts_are_refused(kind, text, named):
    with pytest.raises(ValueError, match=named):
        parse(kind, text)
