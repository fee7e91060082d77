import errno
import functools
import hashlib
import io
import os
import shutil
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras_flowers_runtime.files
import platformdirs
import pytest
from loopback_server import serving

import keras_flowers.data.sample
from keras_flowers.data import downloads, sources
from keras_flowers.data.sources import (
    ExtractionLimits,
    KnownDataset,
    default_cache_directory,
    resolve_source,
)
from keras_flowers.errors import InputError

FLOWERS = (
    "flower_photos/daisy/1.jpg",
    "flower_photos/roses/2.JPG",
    "flower_photos/LICENSE.txt",
)


def write(folder: Path, *names: str) -> Path:
    """Creates empty files, which is all that their names are asked for."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def tar_bytes(*names: str, content: bytes = b"photo") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "flowers.tgz"
    path.write_bytes(tar_bytes(*FLOWERS))
    return path


@pytest.fixture
def site(monkeypatch):
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.setattr(downloads, "_RETRY_SECONDS", ())
    with serving() as site:
        site.content = tar_bytes(*FLOWERS)
        yield site


@pytest.fixture
def known(site, monkeypatch):
    """Has the name `flower_photos` lead to the loopback server."""
    known = KnownDataset(
        url=f"{site.address}/flower_photos.tgz",
        sha256=hashlib.sha256(site.content).hexdigest(),
        size=len(site.content),
    )
    monkeypatch.setitem(sources.KNOWN_DATASETS, "flower_photos", known)
    return known


@pytest.fixture
def extractions(monkeypatch):
    """The archives that were really extracted."""
    extracted = []
    extract = sources.extract_archive

    def extract_and_note(archive, target, **options):
        extracted.append(archive)
        return extract(archive, target, **options)

    monkeypatch.setattr(sources, "extract_archive", extract_and_note)
    return extracted


def leftovers(cache: Path) -> list[Path]:
    """What a failure or a killed process might have left in the cache."""
    return [
        path
        for path in cache.rglob("*")
        if path.suffix in (".tmp", ".part") or path.name.endswith(".part.json")
    ]


# Folders, files and names


def test_a_folder_is_used_where_it_is(tmp_path, cache, monkeypatch):
    write(tmp_path, *FLOWERS)
    root = tmp_path / "flower_photos"
    monkeypatch.setenv("HOME", str(tmp_path))

    for data in (tmp_path, str(tmp_path), "~"):
        assert resolve_source(data, cache_directory=cache) == tmp_path
    for data in (root, "~/flower_photos"):
        assert resolve_source(data, cache_directory=cache) == root
    assert not cache.exists()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "an empty string"),
        ("no-such-name", "one of the names flower_photos, sample"),
        ("flower_foto", "Did you mean flower_photos?"),
        ("sampel", "Did you mean sample?"),
        ("no/such/folder", "no/such/folder, which does not exist"),
        ("~no-such-user/x", "does not exist"),
        ("nul\0character", "does not exist"),
        ("x" * 5000, "does not exist"),
        ("ftp://host/flowers.tgz", "ftp:// in"),
        ("file:///etc", "file:// in"),
        ("https://", "must name a host"),
    ],
)
def test_what_is_no_source_is_refused(data, reason, cache):
    with pytest.raises(InputError) as caught:
        resolve_source(data, cache_directory=cache)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not cache.exists()


def test_names_and_urls_are_strings(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in (Path("sample"), Path("flower_photos"), Path("http://127.0.0.1/x")):
        with pytest.raises(InputError, match="does not exist"):
            resolve_source(data, cache_directory=cache)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("daisy.jpg", b"\xff\xd8\xff\xe0", "none of them"),
        ("notes.txt", b"", "none of them"),
        ("flowers.tgz", b"<html>not found</html>", "damaged"),
        ("flowers.ZIP", b"", "damaged"),
        ("flowers.tgz", tar_bytes(*FLOWERS)[:-20], "damaged"),
    ],
)
def test_files_that_are_no_archives_are_refused(tmp_path, cache, name, content, reason):
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError, match=reason) as caught:
        resolve_source(tmp_path / name, cache_directory=cache)
    assert str(tmp_path / name) in str(caught.value)
    assert leftovers(cache) == []


def test_a_pipe_is_not_waited_for(tmp_path, cache):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(InputError, match="pipe, which is none of them"):
        resolve_source(tmp_path / "pipe", cache_directory=cache)


def test_a_folder_comes_before_a_data_set_of_its_name(tmp_path, cache, monkeypatch):
    write(tmp_path, *FLOWERS, "sample/tulips/1.jpg", "sample/roses/2.jpg")
    monkeypatch.chdir(tmp_path)

    for name in ("flower_photos", "sample"):
        assert resolve_source(name, cache_directory=cache) == Path(name)
    assert not cache.exists()


# Archives


def test_an_archive_is_unpacked_once_by_its_content(
    tmp_path, cache, archive, extractions
):
    copy = tmp_path / "copy.bin"
    copy.write_bytes(archive.read_bytes())

    root = resolve_source(archive, cache_directory=cache)

    assert cache in root.parents
    assert (root / "flower_photos").is_dir()
    assert sorted(path.name for path in (root / "flower_photos").iterdir()) == [
        "LICENSE.txt",
        "daisy",
        "roses",
    ]
    assert resolve_source(str(archive), cache_directory=cache) == root
    assert resolve_source(copy, cache_directory=cache) == root
    assert extractions == [archive]
    assert leftovers(cache) == []


def test_another_archive_under_the_same_name_is_unpacked_anew(cache, archive):
    first = resolve_source(archive, cache_directory=cache)
    archive.write_bytes(tar_bytes("daisy/7.jpg"))
    second = resolve_source(archive, cache_directory=cache)

    assert (first / "flower_photos/daisy/1.jpg").exists()
    assert [path.name for path in (second / "daisy").iterdir()] == ["7.jpg"]


def test_a_zip_made_on_a_mac_is_unpacked(tmp_path, cache):
    path = tmp_path / "flowers.zip"
    with zipfile.ZipFile(path, "w") as opened:
        for name in (*FLOWERS, "__MACOSX/flower_photos/daisy/._1.jpg"):
            opened.writestr(name, b"photo")

    assert (resolve_source(path, cache_directory=cache) / "flower_photos").is_dir()


def test_progress_of_unpacking_is_told_by_stage(cache, archive):
    seen = []

    resolve_source(
        archive, cache_directory=cache, progress=lambda *step: seen.append(step)
    )

    assert seen == [("extract", 1, None), ("extract", 2, None), ("extract", 3, None)]


def test_limits_can_be_raised(cache, archive):
    with pytest.raises(InputError, match="--max-extracted-files"):
        resolve_source(archive, cache_directory=cache, limits=ExtractionLimits(files=5))
    assert leftovers(cache) == []

    resolve_source(archive, cache_directory=cache, limits=ExtractionLimits(files=6))


def test_what_a_killed_process_left_is_not_trusted(cache, archive):
    root = resolve_source(archive, cache_directory=cache)
    extracted = root
    workplace = extracted.with_name(f".{extracted.name}.tmp")
    workplace.mkdir()
    extracted.rename(workplace / extracted.name)
    (workplace / extracted.name / "flower_photos/daisy/1.jpg").unlink()

    root = resolve_source(archive, cache_directory=cache)
    assert (root / "flower_photos/daisy/1.jpg").exists()
    assert leftovers(cache) == []


def test_an_interruption_leaves_nothing(cache, archive):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve_source(archive, cache_directory=cache, progress=interrupt)
    assert leftovers(cache) == []
    assert not [path for path in cache.rglob("*") if path.is_dir()][1:]


def test_an_archive_that_changes_while_it_is_read_is_refused(cache, archive):
    def change(*_: object) -> None:
        os.utime(archive, ns=(0, 0))

    with pytest.raises(InputError, match="changed while it was read"):
        resolve_source(archive, cache_directory=cache, progress=change)
    assert leftovers(cache) == []


def test_two_at_once_end_with_one_good_folder(cache, archive, extractions):
    together = threading.Barrier(4)

    def resolve(_: int) -> Path:
        together.wait()
        return resolve_source(archive, cache_directory=cache)

    with ThreadPoolExecutor(4) as pool:
        roots = set(pool.map(resolve, range(4)))

    assert len(roots) == 1
    assert (roots.pop() / "flower_photos/daisy/1.jpg").read_bytes() == b"photo"
    assert extractions == [archive]
    assert leftovers(cache) == []


def test_a_cache_that_cannot_be_written_is_named(tmp_path, archive):
    for cache in (write(tmp_path, "file") / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="KERAS_FLOWERS_CACHE") as caught:
            resolve_source(archive, cache_directory=cache)
        assert str(cache) in str(caught.value)


DISK_ERRORS = [errno.EDQUOT, errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO]


def assert_explained(message: str, code: int, path: Path) -> None:
    assert f"cannot be written: {os.strerror(code)}" in message
    assert str(path) in message
    assert "--cache-dir" in message
    assert "`cache_directory=...`" in message
    assert "KERAS_FLOWERS_CACHE" in message


@pytest.mark.parametrize("code", DISK_ERRORS)
@pytest.mark.parametrize("failing_mode", ["xb", "wb"])
def test_a_failing_disk_is_named_with_reason_and_option(
    cache, site, monkeypatch, code, failing_mode
):
    """While an archive is extracted, and while it is downloaded."""
    real_open = Path.open

    def fail(path, mode="r", *rest, **options):
        if mode == failing_mode:
            raise OSError(code, os.strerror(code), str(path))
        return real_open(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(InputError) as caught:
        resolve_source(f"{site.address}/flowers.tgz", cache_directory=cache)
    place = "extracted" if failing_mode == "xb" else "downloads"
    assert_explained(str(caught.value), code, cache / place)
    assert leftovers(cache) == []


def test_a_disk_that_is_full_at_the_last_file_is_named_too(cache, site, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(keras_flowers_runtime.files, "_sync_folder", fail)
    with pytest.raises(InputError) as caught:
        resolve_source(f"{site.address}/flowers.tgz", cache_directory=cache)
    assert_explained(str(caught.value), errno.EDQUOT, cache / "downloads")


@pytest.mark.parametrize("code", DISK_ERRORS)
def test_a_cache_that_cannot_be_created_is_named(cache, archive, monkeypatch, code):
    def fail(path, *_, **__):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(InputError) as caught:
        resolve_source(archive, cache_directory=cache)
    assert_explained(str(caught.value), code, cache)


def test_an_archive_that_cannot_be_read_is_named_without_the_cache(
    cache, archive, monkeypatch
):
    def fail(*_: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(sources, "sha256_of_file", fail)
    with pytest.raises(InputError, match="cannot be read: Input/output error") as error:
        resolve_source(archive, cache_directory=cache)
    assert str(archive) in str(error.value)
    assert "--cache-dir" not in str(error.value)


# Names in archives


@pytest.fixture
def japanese(tmp_path):
    """A zip archive whose names are in the code page of a Japanese Windows."""
    name = "薔薇/1.jpg".encode("cp932")
    path = tmp_path / "flowers.zip"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("x" * len(name), b"photo")
        opened.writestr("daisy/2.jpg", b"photo")
    path.write_bytes(path.read_bytes().replace(b"x" * len(name), name))
    return path


def test_names_of_unknown_encoding_are_reported_every_time(cache, japanese):
    for _ in range(2):
        found = []
        root = resolve_source(japanese, cache_directory=cache, on_finding=found.append)
        assert len(list(root.iterdir())) == 2
        (finding,) = found
        assert finding.kind == "name_encoding"
        assert finding.message.startswith(f"{japanese}: names of unknown encoding")
        assert "--archive-encoding" in finding.message
        assert "cp932 for 薔薇" in finding.message
    assert leftovers(cache) == []


def test_an_encoding_has_an_extraction_of_its_own(cache, japanese, extractions):
    found = []

    def resolve(encoding: str | None) -> set[str]:
        root = resolve_source(
            japanese,
            cache_directory=cache,
            archive_encoding=encoding,
            on_finding=found.append,
        )
        return {path.name for path in root.iterdir()}

    assert resolve("cp932") == resolve("MS932") == {"薔薇", "daisy"}
    assert found == []
    assert resolve(None) != {"薔薇", "daisy"}
    assert len(found) == 1
    assert len(extractions) == 2


def test_an_encoding_that_does_not_fit_is_refused(cache, japanese):
    with pytest.raises(InputError, match="not ascii; --archive-encoding") as caught:
        resolve_source(japanese, cache_directory=cache, archive_encoding="ascii")
    assert str(caught.value).startswith(str(japanese))
    with pytest.raises(InputError, match="`archive_encoding` must be"):
        resolve_source(japanese, cache_directory=cache, archive_encoding="no-such")


def test_a_downloaded_archive_reports_its_names_too(cache, site, japanese):
    site.content = japanese.read_bytes()
    url = f"{site.address}/flowers.zip"
    for _ in range(2):
        found = []
        resolve_source(url, cache_directory=cache, on_finding=found.append)
        assert [finding.message.split(": ")[0] for finding in found] == [url]
    assert len(site.requests) == 1


# Downloads


def test_a_url_is_downloaded_and_unpacked_once(cache, site, extractions):
    url = f"{site.address}/flowers.tgz?version=1"
    seen = []

    root = resolve_source(
        url, cache_directory=cache, progress=lambda *step: seen.append(step)
    )

    assert (root / "flower_photos/roses/2.JPG").read_bytes() == b"photo"
    size = len(site.content)
    assert seen[0] == ("download", min(size, downloads.HEAD_BYTES), size)
    assert seen[-1] == ("extract", 3, None)
    assert resolve_source(url, cache_directory=cache) == root
    assert len(site.requests) == len(extractions) == 1
    assert leftovers(cache) == []


def test_every_url_has_a_download_of_its_own(cache, site):
    first = resolve_source(f"{site.address}/a.tgz", cache_directory=cache)
    site.content = tar_bytes("daisy/7.jpg")
    second = resolve_source(f"{site.address}/b.tgz", cache_directory=cache)

    assert len(site.requests) == 2
    assert (first / "flower_photos/daisy/1.jpg").exists()
    assert (second / "daisy/7.jpg").exists()


def test_an_unpacked_folder_that_was_removed_needs_no_download(
    cache, site, extractions
):
    url = f"{site.address}/flowers.tgz"
    root = resolve_source(url, cache_directory=cache)
    root.parent.rename(cache / "elsewhere")

    assert resolve_source(url, cache_directory=cache) == root
    assert len(site.requests) == 1
    assert len(extractions) == 2


def test_a_lost_or_damaged_note_needs_no_download(cache, site):
    url = f"{site.address}/flowers.tgz"
    root = resolve_source(url, cache_directory=cache)
    (note,) = (cache / "downloads").glob("*.json")

    for content in ("", "[]", '{"sha256": "../../.."}', '{"sha256": 1}'):
        note.write_text(content)
        assert resolve_source(url, cache_directory=cache) == root
    note.unlink()
    assert resolve_source(url, cache_directory=cache) == root
    assert len(site.requests) == 1


def test_a_note_does_not_outlive_its_download(cache, site, monkeypatch):
    url = f"{site.address}/flowers.tgz"
    shutil.rmtree(resolve_source(url, cache_directory=cache).parent)
    for path in (cache / "downloads").glob("[!.]*[!n]"):
        path.unlink()
    site.content = tar_bytes("daisy/7.jpg")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sources, "write_text_atomically", killed)
        resolve_source(url, cache_directory=cache)

    root = resolve_source(url, cache_directory=cache)
    assert (root / "daisy/7.jpg").exists()
    assert cache / "extracted" / hashlib.sha256(site.content).hexdigest() == root


def test_a_damaged_download_is_not_kept(cache, site):
    url = f"{site.address}/flowers.tgz"
    good, site.content = site.content, site.content[:-20]
    with pytest.raises(InputError, match="damaged") as caught:
        resolve_source(url, cache_directory=cache)
    assert str(caught.value).startswith(url)
    site.content = good

    assert (resolve_source(url, cache_directory=cache) / "flower_photos").is_dir()


def test_a_refused_download_is_not_repeated_for_higher_limits(cache, site):
    url = f"{site.address}/flowers.tgz"
    with pytest.raises(InputError, match="--max-extracted-files"):
        resolve_source(url, cache_directory=cache, limits=ExtractionLimits(files=1))

    resolve_source(url, cache_directory=cache)
    assert len(site.requests) == 1


def test_a_download_is_bounded_by_the_limits(cache, site):
    with pytest.raises(InputError, match="--max-extracted-size"):
        resolve_source(
            f"{site.address}/flowers.tgz",
            cache_directory=cache,
            limits=ExtractionLimits(total_bytes=len(site.content) - 1),
        )
    assert leftovers(cache) == []


def test_errors_of_a_download_name_the_url(cache, site):
    url = f"{site.address}/flowers.tgz"
    site.statuses = [404]

    with pytest.raises(InputError, match="answers 404") as caught:
        resolve_source(url, cache_directory=cache)
    assert url in str(caught.value)
    assert leftovers(cache) == []


def test_two_downloads_at_once_ask_once(cache, site, extractions):
    url = f"{site.address}/flowers.tgz"

    def resolve(_: int) -> Path:
        return resolve_source(url, cache_directory=cache)

    with ThreadPoolExecutor(4) as pool:
        roots = set(pool.map(resolve, range(4)))

    assert len(roots) == len(site.requests) == len(extractions) == 1


@pytest.mark.usefixtures("known")
def test_a_known_name_is_downloaded_checked_and_kept(cache, site, extractions):
    root = resolve_source("flower_photos", cache_directory=cache)

    assert (root / "flower_photos").is_dir()
    assert resolve_source("flower_photos", cache_directory=cache) == root
    assert len(site.requests) == len(extractions) == 1


@pytest.mark.usefixtures("known")
def test_a_known_name_uses_an_unpacked_copy_of_the_same_archive(
    tmp_path, cache, site, extractions
):
    (tmp_path / "own.tgz").write_bytes(site.content)
    root = resolve_source(tmp_path / "own.tgz", cache_directory=cache)

    assert resolve_source("flower_photos", cache_directory=cache) == root
    assert site.requests == []
    assert len(extractions) == 1


@pytest.mark.usefixtures("known")
def test_a_known_name_with_another_content_is_refused(cache, site, extractions):
    good = site.content
    site.content = tar_bytes(*FLOWERS[:2], "flower_photos/LICENSE.md")
    site.content = (site.content + bytes(len(good)))[: len(good)]

    with pytest.raises(InputError, match="wrong checksum"):
        resolve_source("flower_photos", cache_directory=cache)
    assert leftovers(cache) == []
    assert extractions == []


def test_a_download_from_before_the_checksum_changed_is_replaced(
    cache, site, known, monkeypatch
):
    resolve_source("flower_photos", cache_directory=cache)
    site.content = tar_bytes("daisy/7.jpg")
    newer = KnownDataset(
        known.url, hashlib.sha256(site.content).hexdigest(), len(site.content)
    )
    monkeypatch.setitem(sources.KNOWN_DATASETS, "flower_photos", newer)

    root = resolve_source("flower_photos", cache_directory=cache)
    assert (root / "daisy/7.jpg").exists()


def test_flower_photos_is_the_official_archive():
    known = sources.KNOWN_DATASETS["flower_photos"]

    assert known.url.startswith("https://storage.googleapis.com/download.tensorflow")
    assert len(bytes.fromhex(known.sha256)) == 32
    assert known.size == 228_813_984


# The sample and the cache directory


@pytest.fixture
def drawings(monkeypatch):
    """Draws few and small photos; lists the folders drawn into."""
    drawn = []
    write_sample = functools.partial(
        keras_flowers.data.sample.write_sample, images_per_class=1, image_size=(32, 32)
    )

    def write_and_note(directory, **options):
        drawn.append(directory)
        return write_sample(directory, **options)

    monkeypatch.setattr(keras_flowers.data.sample, "write_sample", write_and_note)
    return drawn


def test_the_sample_is_drawn_once(tmp_path, cache, drawings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []

    root = resolve_source(
        "sample", cache_directory=cache, progress=lambda *step: seen.append(step)
    )

    assert root.parent == cache
    assert root.name.startswith("sample-")
    assert sorted(path.name for path in root.iterdir()) == sorted(
        keras_flowers.data.sample.SAMPLE_CLASS_NAMES
    )
    assert seen == [("sample", done, 5) for done in range(1, 6)]
    assert resolve_source("sample", cache_directory=cache) == root
    assert len(drawings) == 1
    assert leftovers(cache) == []


def test_two_samples_at_once_are_drawn_once(tmp_path, cache, drawings, monkeypatch):
    monkeypatch.chdir(tmp_path)

    with ThreadPoolExecutor(2) as pool:
        roots = set(
            pool.map(lambda _: resolve_source("sample", cache_directory=cache), "ab")
        )

    assert len(roots) == len(drawings) == 1


def test_a_new_drawing_is_a_new_sample(tmp_path, cache, drawings, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = resolve_source("sample", cache_directory=cache)
    monkeypatch.setattr(keras_flowers.data.sample, "SAMPLE_VERSION", "another")

    assert resolve_source("sample", cache_directory=cache) != first
    assert len(drawings) == 2


def test_the_cache_directory_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path))
    assert default_cache_directory() == tmp_path

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", "~/here")
    assert default_cache_directory() == tmp_path / "here"

    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("KERAS_FLOWERS_CACHE")
        else:
            monkeypatch.setenv("KERAS_FLOWERS_CACHE", unset)
        assert default_cache_directory() == platformdirs.user_cache_path(
            "keras_flowers", appauthor=False
        )


def test_the_default_cache_directory_is_used(archive, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_FLOWERS_CACHE", str(tmp_path / "chosen"))

    assert tmp_path / "chosen" in resolve_source(archive).parents
