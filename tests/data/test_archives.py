import bz2
import errno
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keras_flowers.data import archives
from keras_flowers.data.archives import (
    DEFAULT_LIMITS,
    CorruptArchiveError,
    ExtractionLimits,
    archive_kind,
    extract_archive,
)
from keras_flowers.errors import InputError

FILES = {
    "flower_photos/daisy/1.jpg": b"daisy" * 1000,
    "flower_photos/roses/2.jpg": os.urandom(3000),
    "flower_photos/LICENSE.txt": b"",
}


def tar_bytes(files: dict[str, bytes], mode: str = "w:") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_of(*members: tarfile.TarInfo, content: bytes = b"photo") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            if member.isreg():
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(
    files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(_zip_member(name, compression), content)
    return buffer.getvalue()


def zip_with_mode(name: str, mode: int, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("flowers/1.jpg", b"photo")
        info = zipfile.ZipInfo(name)
        info.create_system = 3
        info.external_attr = mode << 16
        archive.writestr(info, content)
    return buffer.getvalue()


def _zip_member(name: str, compression: int) -> zipfile.ZipInfo:
    # The constructor would cut the name at a NUL character.
    info = zipfile.ZipInfo("name")
    info.filename = info.orig_filename = name
    info.compress_type = compression
    return info


def member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def extracted(
    tmp_path: Path, content: bytes, limits: ExtractionLimits = DEFAULT_LIMITS
) -> dict[str, bytes]:
    """Extracts an archive and reads back what came out of it."""
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    target = tmp_path / "target"
    extract_archive(archive, target, name="flowers.tgz", limits=limits)
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }


def refused(
    tmp_path: Path, content: bytes, limits: ExtractionLimits = DEFAULT_LIMITS
) -> str:
    """Checks that an archive is refused and nothing written; returns the message."""
    with pytest.raises(InputError) as caught:
        extracted(tmp_path, content, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]
    message = str(caught.value)
    assert message.startswith("flowers.tgz ")
    assert message.isprintable()
    return message


ALL_FORMATS: dict[str, Callable[[], bytes]] = {
    "tar": lambda: tar_bytes(FILES),
    "gzip": lambda: tar_bytes(FILES, "w:gz"),
    "bzip2": lambda: tar_bytes(FILES, "w:bz2"),
    "xz": lambda: tar_bytes(FILES, "w:xz"),
    "zip": lambda: zip_bytes(FILES),
}


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_every_format_is_recognized_and_unpacked(tmp_path, kind):
    content = ALL_FORMATS[kind]()

    assert archive_kind(content[: archives.HEAD_BYTES]) == kind
    assert extracted(tmp_path, content) == FILES


@pytest.mark.parametrize("kind", ALL_FORMATS)
def test_a_truncated_archive_is_refused_wherever_it_ends(tmp_path, kind):
    content = ALL_FORMATS[kind]()
    ends = [1, 20, 511, 600, len(content) // 2, len(content) - 1]
    if kind == "tar":
        # Between two members, where tarfile sees nothing wrong, and before the mark of
        # the end is complete. Of what lies behind that, nothing is needed.
        end_of_first, end_of_last = 512 + 5120, 512 + 5120 + 512 + 3072 + 512
        ends[-2:] = [end_of_first, end_of_last, end_of_last + 511]
    for end in ends:
        assert end < len(content)
        with pytest.raises(CorruptArchiveError):
            extracted(tmp_path, content[:end])
        assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("kind", ALL_FORMATS)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_damaged_bytes_end_in_input_errors_only(kind, data):
    content = bytearray(ALL_FORMATS[kind]())
    places = st.integers(0, len(content) - 1)
    for place, value in data.draw(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)
    ):
        content[place] = value
    with tempfile.TemporaryDirectory() as folder:
        try:
            extracted(Path(folder), bytes(content))
        except InputError:
            assert not (Path(folder) / "target").exists()


def test_damage_within_a_tar_is_not_taken_for_its_end(tmp_path):
    content = bytearray(tar_bytes(FILES))
    second_header = 512 + 5120
    content[second_header : second_header + 10] = b"\xff" * 10

    assert "damaged" in refused(tmp_path, bytes(content))


def test_a_wrong_checksum_at_the_end_of_gzip_is_noticed(tmp_path):
    content = bytearray(tar_bytes(FILES, "w:gz"))
    content[-6] ^= 1

    assert "CRC" in refused(tmp_path, bytes(content))


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xd8\xff a photo", bytes(10240), b"<html>" * 200]
)
def test_other_files_are_no_archives(tmp_path, content):
    assert archive_kind(content[: archives.HEAD_BYTES]) is None
    assert "must be a tar or zip archive" in refused(tmp_path, content)


def test_compressed_files_without_a_tar_inside_are_refused(tmp_path):
    for compress in (gzip.compress, bz2.compress, lzma.compress):
        assert "holds no tar" in refused(tmp_path, compress(b"class,photo\n" * 99))


UNSAFE_NAMES = {
    "/etc/cron.d/x": "absolute",
    "../x": "'..'",
    "flowers/../../x": "'..'",
    "flowers/..": "'..'",
    "C:/windows/x": "drive",
    "c:x": "drive",
    "flowers/ü.jpg\0.txt": "no file can have",
    "a/" * 70 + "x": "deep",
    "x" * 300: "too long",
}


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("make", [tar_bytes, zip_bytes])
def test_unsafe_names_are_refused_by_name(tmp_path, make, name):
    message = refused(tmp_path, make({"flowers/1.jpg": b"photo", name: b"x"}))

    assert UNSAFE_NAMES[name] in message
    assert repr(name)[1:50].rstrip("'") in message


BACKSLASHES = {
    "flowers\\..\\..\\x": "'..'",
    "..\\x": "'..'",
    "\\server\\share\\x": "absolute",
    "\\\\server\\share\\x": "absolute",
    "C:\\windows\\x": "drive",
    "flowers\\C:\\x": "drive",
    "a\\" * 70 + "x": "deep",
    "flowers\\1.jpg": "has the same path",
}


@pytest.mark.parametrize("name", BACKSLASHES)
def test_unsafe_names_with_backslashes_are_refused(tmp_path, name):
    files = {"flowers/1.jpg": b"photo", name: b"x"}

    assert BACKSLASHES[name] in refused(tmp_path, zip_bytes(files))
    assert re.search("has a backslash|drive", refused(tmp_path, tar_bytes(files)))


def test_backslashes_of_a_zip_from_windows_are_separators(tmp_path):
    files = {f"flowers\\daisy\\{name}.jpg": b"photo" for name in "aä雛"}
    content = zip_bytes({"flowers\\": b"", "flowers\\empty\\": b"", **files})

    assert extracted(tmp_path, content) == {
        name.replace("\\", "/"): b"photo" for name in files
    }
    assert (tmp_path / "target/flowers/empty").is_dir()


@pytest.mark.parametrize("make", [tar_bytes, zip_bytes])
def test_control_characters_of_a_name_do_not_reach_the_screen(tmp_path, make):
    refused(tmp_path, make({"../\x1b[2J\n\u202e": b"x"}))


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(
        st.lists(
            st.sampled_from(["..", ".", "", "a", "C:", "\\", "/", "\0", "é", "~"])
            | st.text(max_size=4),
            min_size=1,
            max_size=5,
        ).map("/".join),
        min_size=1,
        max_size=4,
    ),
    link=st.booleans(),
    make_zip=st.booleans(),
)
@example(names=["\0"], link=False, make_zip=True)
@example(names=["..//../a"], link=False, make_zip=True)
@example(names=["a", "a/../../b"], link=True, make_zip=False)
def test_no_name_leads_out_of_the_target(names, link, make_zip):
    names = [name.encode("utf-8", "replace").decode() for name in names]
    if make_zip:
        names = [name for name in names if len(name.encode()) < 2**16]
        content = zip_bytes(dict.fromkeys(names, b"x"))
    elif link:
        links = [member(f"l{i}", tarfile.SYMTYPE, n) for i, n in enumerate(names)]
        content = tar_of(*links, *[member(f"{link.name}/x") for link in links])
    else:
        content = tar_bytes(dict.fromkeys(names, b"x"))
    with tempfile.TemporaryDirectory() as folder:
        outer = Path(folder, "outer")
        outer.mkdir()
        try:
            extracted(outer, content)
        except InputError:
            assert [path.name for path in outer.iterdir()] == ["archive"]
        assert {path.name for path in outer.iterdir()} <= {"archive", "target"}
        assert [path.name for path in Path(folder).iterdir()] == ["outer"]


@pytest.mark.parametrize("link", ["/etc/passwd", "../../x", "1.jpg/../../../x", "C:x"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_links_out_of_the_archive_are_refused(tmp_path, kind, link):
    message = refused(
        tmp_path, tar_of(member("flowers/1.jpg"), member("flowers/x.jpg", kind, link))
    )

    assert "'flowers/x.jpg' links out of the archive" in message


def test_zip_links_out_of_the_archive_are_refused(tmp_path):
    content = zip_with_mode("flowers/x.jpg", stat.S_IFLNK | 0o777, b"../../../etc")

    assert "'flowers/x.jpg' links out of the archive" in refused(tmp_path, content)


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    content = tar_of(
        member("flowers", tarfile.SYMTYPE, str(tmp_path / "elsewhere")),
        member("flowers/1.jpg"),
    )

    with pytest.raises(InputError, match="links out of the archive"):
        extracted(tmp_path, content)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(
    "content",
    [
        tar_of(
            member("flowers/x.jpg", tarfile.SYMTYPE, "./1.jpg"), member("flowers/1.jpg")
        ),
        tar_of(
            member("./flowers/1.jpg"),
            member("flowers/x.jpg", tarfile.LNKTYPE, "./flowers/1.jpg"),
        ),
        zip_with_mode("flowers/x.jpg", stat.S_IFLNK | 0o777, b"../flowers/1.jpg"),
    ],
    ids=["symbolic", "hard", "zip"],
)
def test_links_within_the_archive_become_copies(tmp_path, content):
    files = extracted(tmp_path, content)

    assert files == {"flowers/1.jpg": b"photo", "flowers/x.jpg": b"photo"}
    assert not (tmp_path / "target/flowers/x.jpg").is_symlink()
    assert (tmp_path / "target/flowers/x.jpg").stat().st_nlink == 1


@pytest.mark.parametrize("link", ["missing.jpg", ".", "x.jpg", "y.jpg"])
def test_links_to_what_is_no_file_are_refused(tmp_path, link):
    content = tar_of(
        member("flowers/1.jpg"),
        member("flowers/y.jpg", tarfile.SYMTYPE, "1.jpg"),
        member("flowers/x.jpg", tarfile.SYMTYPE, link),
    )

    assert "no file of the archive" in refused(tmp_path, content)


def test_copies_for_links_count_as_files(tmp_path):
    links = [member(f"{i}.jpg", tarfile.LNKTYPE, "0.jpg") for i in range(1, 9)]
    content = tar_of(member("0.jpg"), *links)

    message = refused(tmp_path, content, ExtractionLimits(total_bytes=30))
    assert "--max-extracted-size" in message
    assert "--max-extracted-files" in refused(
        tmp_path, content, ExtractionLimits(files=8)
    )
    assert len(extracted(tmp_path, content, ExtractionLimits(45, 9))) == 9


@pytest.mark.parametrize(
    "kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"]
)
def test_special_files_are_refused(tmp_path, kind):
    content = tar_of(member("flowers/1.jpg"), member("flowers/dev", kind))

    assert "'flowers/dev' is a device, a pipe" in refused(tmp_path, content)


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_special_files_in_zip_are_refused(tmp_path, kind):
    content = zip_with_mode("flowers/dev", kind | 0o644, b"")

    assert "'flowers/dev' is a device, a pipe" in refused(tmp_path, content)


def test_sparse_files_are_refused(tmp_path):
    content = bytearray(tar_of(member("flowers/1.jpg")))
    content[156:157] = tarfile.GNUTYPE_SPARSE
    content[148:156] = b"%06o\0 " % (sum(content[:512]) - sum(content[148:156]) + 256)

    assert "sparse" in refused(tmp_path, bytes(content))


@pytest.mark.parametrize(
    "names",
    [
        ("a/1.jpg", "a/1.jpg"),
        ("a/1.jpg", "./a//1.jpg"),
        ("a", "a/1.jpg"),
        ("a/1.jpg", "a"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_in_one_place_are_refused(tmp_path, names):
    tar = tar_of(*map(member, names))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"photo")

    for content in (tar, buffer.getvalue()):
        assert "has the same path as another member" in refused(tmp_path, content)


def test_permissions_of_the_archive_are_ignored(tmp_path):
    folder = member("flowers", tarfile.DIRTYPE, mode=0o000)
    image = member("flowers/1.jpg", mode=0o6777)

    extracted(tmp_path, tar_of(folder, image))

    mode = (tmp_path / "target/flowers/1.jpg").stat().st_mode
    assert mode & 0o7111 == 0
    assert mode & 0o600 == 0o600
    assert (tmp_path / "target/flowers").stat().st_mode & 0o700 == 0o700


@pytest.mark.parametrize("make", [tar_bytes, zip_bytes])
def test_limits_hold_exactly(tmp_path, make):
    content = make(FILES)
    size = sum(map(len, FILES.values()))
    entries = len(FILES) + 3

    message = refused(tmp_path, content, ExtractionLimits(total_bytes=size - 1))
    assert f"more than {size - 1:,} bytes" in message
    assert "ExtractionLimits(total_bytes=...)" in message
    assert "--max-extracted-size" in message
    message = refused(tmp_path, content, ExtractionLimits(files=entries - 1))
    assert f"more than {entries - 1} files" in message
    assert "ExtractionLimits(files=...)" in message
    assert "--max-extracted-files" in message
    assert extracted(tmp_path, content, ExtractionLimits(size, entries)) == FILES


def test_a_tar_that_declares_too_much_is_refused_before_it_is_written(tmp_path):
    header = member("1.jpg")
    header.size = 2**40

    assert "--max-extracted-size" in refused(tmp_path, header.tobuf())


def test_links_count_before_they_are_resolved(tmp_path):
    links = [member(f"{i}.jpg", tarfile.LNKTYPE, "missing") for i in range(9)]

    message = refused(tmp_path, tar_of(*links), ExtractionLimits(files=8))
    assert "--max-extracted-files" in message


def test_folders_that_no_member_declares_count_too(tmp_path):
    content = tar_bytes({"a/b/c/d/1.jpg": b""})

    refused(tmp_path, content, ExtractionLimits(files=4))
    extracted(tmp_path, content, ExtractionLimits(files=5))


@pytest.mark.parametrize("declared", [1, 2**31])
def test_a_zip_that_lies_about_its_size_is_refused(tmp_path, declared):
    size = 300_000
    content = zip_bytes({"1.jpg": bytes(size)})
    limits = ExtractionLimits(total_bytes=size // 2)
    lie = content.replace(struct.pack("<L", size), struct.pack("<L", declared))
    assert lie != content

    refused(tmp_path, lie, limits)
    refused(tmp_path, lie, ExtractionLimits())


def test_bytes_are_counted_while_they_are_written(tmp_path):
    # Whatever a header declared, this is what comes out of it.
    endless = iter(lambda: bytes(100), b"")
    limits = ExtractionLimits(1000)
    extraction = archives._Extraction("x", tmp_path, limits, None, None)

    with pytest.raises(InputError, match="more than 1,000 bytes"):
        extraction.add(member("1.jpg"), endless)
    assert (tmp_path / "1.jpg").stat().st_size <= 1000


def test_a_huge_tar_header_is_not_read_into_memory(tmp_path):
    info = tarfile.TarInfo("1.jpg")
    info.pax_headers = {"comment": "x" * 3 * 2**20}

    assert "header is too large" in refused(tmp_path, tar_of(info))


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_negative_header_size_does_not_read_everything(tmp_path, kind):
    header = bytearray(member("1.jpg", kind).tobuf())
    header[124:136] = b"\xff" * 10 + b"\xf0\x00"
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 256)

    message = refused(tmp_path, bytes(header) + tar_bytes(FILES))
    assert "header is too large" in message


def test_a_negative_file_size_does_not_lead_back(tmp_path):
    info = member("1.jpg")
    info.pax_headers = {"size": "-1024"}

    assert "negative size" in refused(tmp_path, tar_of(info))


def test_endless_padding_behind_a_tar_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_PADDING_BYTES", 2**16)
    content = tar_bytes(FILES)

    assert extracted(tmp_path, gzip.compress(content + bytes(2**15))) == FILES
    (tmp_path / "target").rename(tmp_path.parent / f"{tmp_path.name}-moved")
    message = refused(tmp_path, gzip.compress(content + bytes(2**17)))
    assert "continues after its end" in message


def test_an_encrypted_zip_is_refused(tmp_path):
    content = bytearray(zip_bytes({"flowers/1.jpg": b"photo"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1

    assert "'flowers/1.jpg' is encrypted" in refused(tmp_path, bytes(content))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_methods_without_bounded_memory_are_refused(tmp_path, compression):
    content = zip_bytes({"flowers/1.jpg": b"photo"}, compression)

    assert "another compression method than deflate" in refused(tmp_path, content)


def test_progress_counts_files(tmp_path):
    archive = tmp_path / "archive"
    seen: list[tuple[int, int | None]] = []

    for content, total in ((zip_bytes(FILES), 3), (tar_bytes(FILES), None)):
        archive.write_bytes(content)
        seen.clear()
        target = tmp_path / f"target-{total}"
        extract_archive(
            archive, target, name="x", progress=lambda *step: seen.append(step)
        )
        assert seen == [(1, total), (2, total), (3, total)]


def test_an_interruption_leaves_nothing(tmp_path):
    archive = tmp_path / "archive"
    archive.write_bytes(tar_bytes(FILES))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_archive(archive, tmp_path / "target", name="x", progress=interrupt)
    assert list(tmp_path.iterdir()) == [archive]


def test_a_full_disk_is_told_with_its_path_and_leaves_nothing(tmp_path, monkeypatch):
    archive = tmp_path / "archive"
    archive.write_bytes(tar_bytes(FILES))
    real_open = Path.open

    class FullDisk(io.BytesIO):
        def write(self, *_):
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(path, mode="r", **options):
        return FullDisk() if "x" in mode else real_open(path, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left") as caught:
        extract_archive(archive, tmp_path / "target", name="x")
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename.endswith("daisy/1.jpg")
    assert list(tmp_path.iterdir()) == [archive]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "10"])
@pytest.mark.parametrize("name", ["total_bytes", "files"])
def test_limits_must_be_positive_integers(name, value):
    with pytest.raises(InputError, match=f"`{name}` must be a positive integer"):
        ExtractionLimits(**{name: value})
