import io
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_flowers.data.archives import extract_archive
from keras_flowers.data.member_names import check_archive_encoding
from keras_flowers.errors import InputError


def zip_of(*names: bytes, marked: bool = False, extra: bytes = b"") -> bytes:
    """A zip archive whose names have these bytes, marked as UTF-8 or not."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index, name in enumerate(names):
            info = zipfile.ZipInfo(_placeholder(index, name))
            info.extra = extra
            archive.writestr(info, b"photo")
    content = buffer.getvalue()
    for index, name in enumerate(names):
        content = content.replace(_placeholder(index, name).encode(), name)
    if marked:
        for signature, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
            parts = content.split(signature)
            flag = len(signature)
            content = parts[0] + b"".join(
                signature + part[: offset - flag] + b"\x08" + part[offset - flag + 1 :]
                for part in parts[1:]
            )
    return content


def _placeholder(index: int, name: bytes) -> str:
    return f"{index:x}".rjust(len(name), "|")


def tar_of(*names: str, encoding: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, encoding=encoding
    ) as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return buffer.getvalue()


def extract(
    folder: Path, content: bytes, encoding: str | None = None
) -> tuple[set[str], str | None]:
    """Returns the paths of the files in an archive, and the note on their names."""
    (folder / "archive").write_bytes(content)
    note = extract_archive(
        folder / "archive", folder / "target", name="flowers.zip", encoding=encoding
    )
    target = folder / "target"
    return {
        path.relative_to(target).as_posix()
        for path in target.rglob("*")
        if path.is_file()
    }, note


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("name", ["Löwenzahn/1.jpg", "薔薇/1.jpg", "🌹/é.jpg"])
def test_utf8_names_are_read_with_and_without_the_mark(tmp_path, name, marked):
    content = zip_of(name.encode(), b"daisy/2.jpg", marked=marked)

    assert extract(tmp_path, content) == ({name, "daisy/2.jpg"}, None)


def test_names_of_a_mac_are_read_as_they_are(tmp_path):
    decomposed = unicodedata.normalize("NFD", "Löwenzahn/1.jpg")

    assert extract(tmp_path, zip_of(decomposed.encode())) == ({decomposed}, None)


def test_names_in_the_standard_code_page_are_read(tmp_path):
    names, note = extract(tmp_path, zip_of("Löwenzahn/1.jpg".encode("cp437")))

    assert names == {"Löwenzahn/1.jpg"}
    assert "were read as cp437, such as Löwenzahn. " in note


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("薔薇", "cp932"),
        ("チューリップ", "cp932"),
        ("玫瑰", "gbk"),
        ("鬱金香", "big5"),
        ("장미", "cp949"),
        ("одуванчик", "cp866"),
        ("ромашка", "cp1251"),
        ("Blåbær", "cp850"),
        ("Größe", "cp1252"),
    ],
)
def test_other_names_are_reported_with_the_encodings_that_fit(tmp_path, name, encoding):
    content = zip_of(f"{name}/1.jpg".encode(encoding), b"daisy/2.jpg")
    names, note = extract(tmp_path, content)
    (tmp_path / "target").rename(tmp_path / "first")

    assert len(names) == 2
    assert name in note
    assert "--archive-encoding" in note
    assert "`archive_encoding=...`" in note
    assert note.isprintable()
    if encoding not in ("cp850",):  # reads as cp437 does
        assert f"{encoding} for {name}" in note
    assert extract(tmp_path, content, encoding) == (
        {f"{name}/1.jpg", "daisy/2.jpg"},
        None,
    )


@pytest.mark.parametrize(
    ("name", "encoding"), [("表/ソ.jpg", "cp932"), ("許功/1.jpg", "big5")]
)
def test_a_backslash_within_a_character_is_no_separator(tmp_path, name, encoding):
    assert b"\\" in name.encode(encoding)

    names, note = extract(tmp_path, zip_of(name.encode(encoding), b"daisy/2.jpg"))
    (tmp_path / "target").rename(tmp_path / "first")
    assert {found.count("/") for found in names} == {1}
    assert name.split("/")[0] in note
    assert extract(tmp_path, zip_of(name.encode(encoding)), encoding)[0] == {name}


def test_backslashes_are_separators_where_there_are_no_slashes(tmp_path):
    names, _ = extract(tmp_path, zip_of("Café\\1.jpg".encode("cp437")))

    assert names == {"Café/1.jpg"}


def test_a_unicode_path_in_the_extra_field_is_used(tmp_path):
    raw = "薔薇.jpg".encode("cp932")
    path = struct.pack("<BL", 1, zlib.crc32(raw)) + "薔薇.jpg".encode()
    field = struct.pack("<HH", 0x7075, len(path)) + path

    content = zip_of(raw, extra=b"\x99\x99\x02\x00ab" + field)
    assert extract(tmp_path, content) == ({"薔薇.jpg"}, None)
    (tmp_path / "target").rename(tmp_path / "first")
    # The field does not apply once another tool has renamed the member.
    assert extract(tmp_path, zip_of(b"rose.jpg", extra=field)) == ({"rose.jpg"}, None)


def test_tar_names_of_unknown_encoding_keep_their_bytes_and_are_reported(tmp_path):
    content = tar_of("薔薇/1.jpg", encoding="cp932")
    names, note = extract(tmp_path, content)
    (tmp_path / "target").rename(tmp_path / "first")

    assert {name.encode("utf-8", "surrogateescape") for name in names} == {
        "薔薇/1.jpg".encode("cp932")
    }
    assert "cp932 for 薔薇" in note
    assert note.isprintable()
    assert extract(tmp_path, content, "cp932") == ({"薔薇/1.jpg"}, None)


@pytest.mark.parametrize(
    "content",
    [zip_of("Größe/1.jpg".encode("cp1252")), tar_of("Größe/1", encoding="cp1252")],
    ids=["zip", "tar"],
)
def test_names_that_do_not_have_the_given_encoding_are_refused(tmp_path, content):
    with pytest.raises(InputError, match="not utf-8") as caught:
        extract(tmp_path, content, "utf-8")
    assert str(caught.value).startswith("flowers.zip ")
    assert "--archive-encoding" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


@pytest.mark.parametrize("encoding", ["no-such", "", "utf-16", "rot13", "cp037", 932])
def test_encodings_that_names_cannot_have_are_refused(encoding):
    with pytest.raises(InputError, match="`archive_encoding` must be an encoding"):
        check_archive_encoding(encoding)


@pytest.mark.parametrize("encoding", [None, "cp932", "UTF-8", "shift_jis", "gb18030"])
def test_encodings_that_extend_ascii_are_taken(encoding):
    assert check_archive_encoding(encoding) == encoding


# The characters that a file name may have on all systems; "." only within a name.
NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters='\0/\\:<>"|?*.'),
    min_size=1,
    max_size=20,
)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


@settings(max_examples=100, deadline=None)
@given(names=st.lists(PATHS, min_size=1, max_size=3), kind=st.integers(0, 2))
def test_utf8_names_round_trip(names, kind):
    names = [f"{index}/{name}" for index, name in enumerate(names)]
    if kind == 2:
        content = tar_of(*names, encoding="utf-8")
    else:
        content = zip_of(*map(str.encode, names), marked=kind == 1)
    with tempfile.TemporaryDirectory() as folder:
        assert extract(Path(folder), content) == (set(names), None)


ALPHABETS = {
    "cp932": "薔薇表ソ雛菊チュー十能ｱ a1",
    "gbk": "玫瑰乗俓蒲公英 a1",
    "big5": "許功蓋鬱金香 a1",
    "cp949": "장미민들레 a1",
    "cp866": "одуванчик a1",
    "cp1251": "ромашка a1",
    "cp850": "äöüßéÑø a1",
    "cp1252": "äöüßéÑ€ a1",
}


@settings(max_examples=100, deadline=None)
@given(
    data=st.data(), encoding=st.sampled_from(list(ALPHABETS)), make_zip=st.booleans()
)
def test_names_in_a_given_encoding_round_trip(data, encoding, make_zip):
    name = data.draw(st.text(ALPHABETS[encoding], min_size=1, max_size=20))
    names = [f"{name}/1.jpg", "daisy/2.jpg"]
    if make_zip:
        content = zip_of(*(name.encode(encoding) for name in names))
    else:
        content = tar_of(*names, encoding=encoding)
    with tempfile.TemporaryDirectory() as folder:
        assert extract(Path(folder), content, encoding) == (set(names), None)


@settings(max_examples=200, deadline=None)
@given(
    names=st.lists(
        st.lists(
            st.sampled_from([b"..", b".", b"/", b"\\", b"a", b"C:", b"\x95\x5c"])
            | st.binary(max_size=3),
            min_size=1,
            max_size=6,
        ).map(b"".join),
        min_size=1,
        max_size=3,
        unique=True,
    ).filter(all),
    marked=st.booleans(),
    encoding=st.sampled_from([None, "cp932", "utf-8", "cp1252", "unicode_escape"]),
)
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_no_bytes_of_a_name_lead_out_of_the_target(names, marked, encoding):
    content = zip_of(*names, marked=marked)
    with tempfile.TemporaryDirectory() as folder:
        outer = Path(folder, "outer")
        outer.mkdir()
        try:
            extract(outer, content, encoding)
        except InputError:
            assert [path.name for path in outer.iterdir()] == ["archive"]
        assert {path.name for path in outer.iterdir()} <= {"archive", "target"}
        assert [path.name for path in Path(folder).iterdir()] == ["outer"]
