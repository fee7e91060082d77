import base64
import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import draw_images
from PIL import Image

from keras_flowers.data import image_cache
from keras_flowers.data.image_cache import CacheSettings, ImageCache
from keras_flowers.data.image_files import ImageOptions, load_image
from keras_flowers.data.image_listing import list_images

SIZE = (8, 8)
COUNTS = {"daisy": 3, "roses": 4}


@pytest.fixture
def folder(tmp_path):
    return draw_images(tmp_path / "photos", COUNTS)


@pytest.fixture
def settings(tmp_path):
    return CacheSettings(tmp_path / "cache")


def opened(folder, settings, decoded=None):
    def progress(stage, done, total):
        assert stage == "decode"
        if decoded is not None:
            decoded.append((done, total))

    return ImageCache.open(list_images(folder), SIZE, settings, progress)


def read(reader, positions):
    images = np.empty((len(positions), *reader.image_shape), np.uint8)
    reader.read_into(images, np.asarray(positions, dtype=np.int64))
    return images


def pixels(cache):
    usable = [record for record in cache.records if record.problem is None]
    return read(cache.reader(usable), range(len(usable)))


def expected(folder):
    paths = sorted(folder.rglob("*.png"), key=lambda path: path.as_posix())
    return np.stack([load_image(path, SIZE) for path in paths])


def test_rows_are_the_decoded_images_in_order(folder, settings):
    cache = opened(folder, settings)
    assert cache.reason_not_cached is None
    assert [r.path for r in cache.records] == [
        path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))
    ]
    np.testing.assert_array_equal(pixels(cache), expected(folder))


def test_positions_may_repeat_and_come_in_any_order(folder, settings):
    cache = opened(folder, settings)
    reader = cache.reader(cache.records)
    np.testing.assert_array_equal(read(reader, [5, 0, 5]), expected(folder)[[5, 0, 5]])
    assert read(reader, []).shape == (0, *SIZE, 3)


def test_a_second_opening_decodes_nothing(folder, settings):
    opened(folder, settings)
    decoded = []
    cache = opened(folder, settings, decoded)
    assert decoded == []
    np.testing.assert_array_equal(pixels(cache), expected(folder))


def test_only_changed_and_added_images_are_decoded_again(folder, settings):
    opened(folder, settings)
    (folder / "roses" / "000.png").unlink()
    shutil.copy(folder / "roses" / "001.png", folder / "daisy" / "new.png")
    changed = folder / "daisy" / "001.png"
    shutil.copy(folder / "roses" / "002.png", changed)
    os.utime(changed, ns=(1, 1))
    decoded = []
    cache = opened(folder, settings, decoded)
    assert decoded[-1] == (2, 2)
    np.testing.assert_array_equal(pixels(cache), expected(folder))


def test_rows_of_removed_images_are_given_back(folder, settings):
    cache = opened(folder, settings)
    old_reader, old = cache.reader(cache.records), expected(folder)
    for name in ("daisy/000", "daisy/002", "roses/000", "roses/001", "roses/003"):
        (folder / f"{name}.png").unlink()
    smaller = opened(folder, settings)
    np.testing.assert_array_equal(pixels(smaller), expected(folder))
    (file,) = smaller.directory.glob("photos-*.u8")
    assert file.stat().st_size == 2 * 8 * 8 * 3
    # Whoever reads the old rows still can.
    np.testing.assert_array_equal(read(old_reader, range(7)), old)


def test_unreadable_files_have_a_record_and_no_row(folder, settings):
    (folder / "daisy" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    cache = opened(folder, settings)
    problems = [record.path for record in cache.records if record.problem]
    assert problems == ["daisy/broken.jpg"]
    np.testing.assert_array_equal(pixels(cache), expected(folder))
    decoded = []
    opened(folder, settings, decoded)
    assert decoded == []


def test_each_image_size_has_its_own_cache(folder, settings):
    opened(folder, settings)
    other = ImageCache.open(list_images(folder), (4, 6), settings)
    assert read(other.reader(other.records), [0]).shape == (1, 4, 6, 3)
    np.testing.assert_array_equal(pixels(opened(folder, settings)), expected(folder))


def test_beyond_the_budget_images_are_decoded_on_the_fly(folder, settings):
    budget = CacheSettings(settings.cache_directory, disk_budget=100)
    cache = opened(folder, budget)
    assert "decoded on the fly" in cache.reason_not_cached
    assert "\n" not in cache.reason_not_cached
    np.testing.assert_array_equal(pixels(cache), expected(folder))
    assert not list(cache.directory.glob("*.u8"))
    decoded = []
    opened(folder, budget, decoded)
    assert decoded == []  # the audit is kept nevertheless
    np.testing.assert_array_equal(pixels(opened(folder, settings)), expected(folder))


def test_a_disk_that_is_too_small_is_noticed_before(folder, settings, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(image_cache.shutil, "disk_usage", lambda path: usage)
    cache = opened(folder, settings)
    assert "do not fit on the disk" in cache.reason_not_cached
    np.testing.assert_array_equal(pixels(cache), expected(folder))


def test_a_disk_that_fills_up_leaves_the_old_cache(folder, settings, monkeypatch):
    opened(folder, settings)
    before = expected(folder)
    (path,) = settings.cache_directory.rglob("photos-*.u8")
    size = path.stat().st_size
    new = folder / "daisy" / "new.png"
    shutil.copy(folder / "roses" / "000.png", new)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(image_cache.os, "pwrite", full)
        on_the_fly = opened(folder, settings)
    assert re.search("No space.*cache_directory.*fly", on_the_fly.reason_not_cached)
    np.testing.assert_array_equal(pixels(on_the_fly), expected(folder))
    assert path.stat().st_size == size
    new.unlink()
    np.testing.assert_array_equal(pixels(opened(folder, settings)), before)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "index.json").write_text("{"),
        lambda folder: (folder / "index.json").write_text('{"format": 99}'),
        lambda folder: next(folder.glob("photos-*.u8")).unlink(),
        lambda folder: next(folder.glob("photos-*.u8")).write_bytes(b"short"),
    ],
)
def test_a_damaged_cache_is_built_again(folder, settings, damage):
    damage(opened(folder, settings).directory)
    np.testing.assert_array_equal(pixels(opened(folder, settings)), expected(folder))


def test_rows_left_by_a_killed_writer_are_not_trusted(folder, settings):
    directory = opened(folder, settings).directory
    (rows,) = directory.glob("photos-*.u8")
    with rows.open("ab") as file:
        file.write(b"x" * 1000)
    (directory / "photos-left.u8").write_bytes(b"x")
    shutil.copy(folder / "roses" / "000.png", folder / "daisy" / "new.png")
    np.testing.assert_array_equal(pixels(opened(folder, settings)), expected(folder))
    assert list(directory.glob("photos-*.u8")) == [rows]


def test_when_every_image_changed_the_old_rows_go(folder, settings):
    reader = (cache := opened(folder, settings)).reader(cache.records)
    old = expected(folder)
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        os.utime(path, ns=(number, number))
    changed = opened(folder, settings)
    (rows,) = changed.directory.glob("photos-*.u8")
    assert rows.stat().st_size == 7 * 8 * 8 * 3
    np.testing.assert_array_equal(read(reader, range(7)), old)


def test_dead_rows_count_against_the_budget(folder, settings):
    budget = CacheSettings(settings.cache_directory, disk_budget=7 * 8 * 8 * 3)
    opened(folder, budget)
    os.utime(folder / "daisy" / "000.png", ns=(1, 1))
    cache = opened(folder, budget)
    (rows,) = cache.directory.glob("photos-*.u8")
    assert rows.stat().st_size == 7 * 8 * 8 * 3
    np.testing.assert_array_equal(pixels(cache), expected(folder))


def test_two_threads_that_build_at_once_end_with_one_good_cache(folder, settings):
    results, errors = [], []

    def build():
        try:
            results.append(pixels(opened(folder, settings)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for result in results:
        np.testing.assert_array_equal(result, expected(folder))
    assert len(list(settings.cache_directory.rglob("photos-*.u8"))) == 1


KILLED_HALF_WAY = """
import os, signal, sys
from pathlib import Path
from keras_flowers.data.image_cache import CacheSettings, ImageCache
from keras_flowers.data.image_listing import list_images

def progress(stage, done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

folder, cache = map(Path, sys.argv[1:])
ImageCache.open(list_images(folder), (8, 8), CacheSettings(cache), progress)
"""


def test_a_writer_that_is_killed_leaves_nothing_that_is_trusted(folder, settings):
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_HALF_WAY, folder, settings.cache_directory],
        check=False,
    )
    assert killed.returncode == -9
    decoded = []
    cache = opened(folder, settings, decoded)
    assert decoded[-1] == (7, 7)
    np.testing.assert_array_equal(pixels(cache), expected(folder))


def test_a_cache_that_is_a_file_is_named(folder, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    cache = opened(folder, CacheSettings(tmp_path / "cache"))
    assert f"{tmp_path / 'cache'}" in cache.reason_not_cached
    np.testing.assert_array_equal(pixels(cache), expected(folder))


@pytest.mark.parametrize(
    "code", [errno.EDQUOT, errno.ENOSPC, errno.EROFS, errno.EACCES]
)
@pytest.mark.parametrize("call", ["makedirs", "open", "pwrite", "fsync", "truncate"])
def test_where_nothing_can_be_written_images_are_decoded_on_the_fly(
    folder, settings, monkeypatch, code, call
):
    def refuse(*arguments, **options):
        raise OSError(code, os.strerror(code))

    before = expected(folder)
    decoded = []
    with monkeypatch.context() as patch:
        if call == "makedirs":
            patch.setattr(Path, "mkdir", refuse)
        else:
            patch.setattr(image_cache.os, call, refuse)
        cache = opened(folder, settings, decoded)
    assert os.strerror(code) in cache.reason_not_cached
    assert str(settings.cache_directory) in cache.reason_not_cached
    assert "cache_directory" in cache.reason_not_cached
    assert "\n" not in cache.reason_not_cached
    assert len(decoded) == 7, "no image is inspected twice"
    np.testing.assert_array_equal(pixels(cache), before)
    # The next opening, on a disk with room, caches everything.
    again = opened(folder, settings)
    assert again.reason_not_cached is None
    np.testing.assert_array_equal(pixels(again), before)


def test_an_interrupt_leaves_the_old_cache(folder, settings):
    def interrupt(stage, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ImageCache.open(list_images(folder), SIZE, settings, interrupt)
    np.testing.assert_array_equal(pixels(opened(folder, settings)), expected(folder))


def decode_pinned_files(folder):
    """Returns the pixels of the files in decoded_files.json."""
    contents = json.loads(Path(__file__).with_name("decoded_files.json").read_text())
    pixels = {}
    for name, content in contents.items():
        (folder / name).write_bytes(base64.b64decode(content))
        pixels[name] = load_image(folder / name, (12, 10))
    return pixels


def test_other_pixels_need_another_decoder_version(tmp_path):
    # If this fails because decoding has changed on purpose, raise DECODER_VERSION and
    # replace version and digests. The files stay as they are.
    digests = {
        name: hashlib.sha256(pixels.tobytes()).hexdigest()[:16]
        for name, pixels in decode_pinned_files(tmp_path).items()
    }
    assert (image_cache.DECODER_VERSION, digests) == (
        2,
        {
            "turned.jpg": "06f0418c8e1bd86b",
            "reduced.jpg": "6c5bc78bc5923adf",
            "cmyk.jpg": "b8ecd9dbfdbfdc6d",
            "transparent.png": "6a7c785c254f3878",
            "gray16.png": "834bff716bea444e",
            "palette.gif": "44dbdfd656faa5bf",
            "lossy.webp": "42301f79523feb82",
            "float.tif": "5bcfc29aa8e9766e",
            "phone.heic": "c7602e61e5847e8d",
            "lossless.jp2": "05dba909a5c95768",
        },
    )


def test_swapped_names_are_noticed_although_sizes_and_times_are_equal(folder, settings):
    one, other = folder / "daisy" / "new.bmp", folder / "roses" / "new.bmp"
    for path, colour in ((one, "white"), (other, "red")):
        Image.new("RGB", (9, 9), colour).save(path)
        os.utime(path, ns=(10**18, 10**18))
    before = opened(folder, settings)
    one.rename(folder / "aside")
    other.rename(one)
    (folder / "aside").rename(other)
    assert one.stat().st_mtime_ns == other.stat().st_mtime_ns == 10**18
    after = opened(folder, settings)
    for cache, first in ((before, "white"), (after, "red")):
        records = [r for r in cache.records if r.path == "daisy/new.bmp"]
        (pixels,) = read(cache.reader(records), [0])
        np.testing.assert_array_equal(pixels, Image.new("RGB", (8, 8), first))
    (record,) = [r for r in after.records if r.path == "daisy/new.bmp"]
    assert record.sha256 == hashlib.sha256(one.read_bytes()).hexdigest()


def test_a_replaced_file_with_kept_times_is_noticed(folder, settings):
    opened(folder, settings)
    path = folder / "daisy" / "000.png"
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    decoded = []
    opened(folder, settings, decoded)
    assert decoded[-1] == (1, 1)


def test_each_way_to_decode_has_its_own_cache(folder, settings):
    listing = list_images(folder)
    caches = [
        ImageCache.open(listing, (4, 8), settings, options=ImageOptions(resize=resize))
        for resize in ("stretch", "crop", "pad")
    ]
    assert len({cache.directory for cache in caches}) == 3
    for cache in caches:
        fly = ImageCache.open(
            listing, (4, 8), CacheSettings(folder, 0), options=cache.options
        )
        cached, decoded = (read(c.reader(c.records), range(7)) for c in (cache, fly))
        np.testing.assert_array_equal(cached, decoded)
