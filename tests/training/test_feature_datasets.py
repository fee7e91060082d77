import json
import shutil

import filelock
import keras
import numpy as np
import pytest
from helpers import (
    draw_images,
    no_file_larger_than,
    small_loader,
    small_model,
    tiny_network,
)

from keras_flowers import Backbone, InputError
from keras_flowers.data.feature_cache import CacheWarning, FeatureCache
from keras_flowers.training import feature_datasets as features
from keras_flowers.training.feature_datasets import with_features

SPLITS = ("train", "validation", "test")


# --- the store


def rows(count, first=0, size=3):
    return np.arange(first, first + count * size, dtype=np.float32).reshape(-1, size)


def store_of(tmp_path, *checksums, first=0):
    """Returns a store to which features of some images were added."""
    store = FeatureCache(tmp_path / "store", "key", 3)
    with store.lock():
        store.missing(checksums)
        store.add(checksums, rows(len(checksums), first))
    return store


def data_file(tmp_path):
    (path,) = (tmp_path / "store").glob("*.f32")
    return path


def index_file(tmp_path):
    (path,) = (tmp_path / "store").glob("*.json")
    return path


def test_features_come_back_in_the_order_asked_for(tmp_path):
    store_of(tmp_path, "a", "b", "c")
    store = FeatureCache(tmp_path / "store", "key", 3)
    assert store.missing(["b", "d", "a", "b"]) == {"d"}
    np.testing.assert_array_equal(store.read(["c", "a", "c"]), rows(3)[[2, 0, 2]])
    assert store.read([]).shape == (0, 3)
    assert store.read(["a"]).dtype == np.float32


def test_features_are_added_behind_the_others(tmp_path):
    store_of(tmp_path, "a", "b")
    before = data_file(tmp_path).read_bytes()
    store = store_of(tmp_path, "c", first=6)
    np.testing.assert_array_equal(store.read(["b", "c", "a"]), rows(3)[[1, 2, 0]])
    assert data_file(tmp_path).read_bytes().startswith(before)


def test_another_key_is_another_file(tmp_path):
    store_of(tmp_path, "a")
    other = FeatureCache(tmp_path / "store", "other", 3)
    assert other.missing(["a"]) == {"a"}


@pytest.mark.parametrize("extra", [5, 12, 24])
def test_what_a_killed_writer_left_behind_the_rows_is_overwritten(tmp_path, extra):
    store_of(tmp_path, "a")
    with data_file(tmp_path).open("ab") as file:
        file.write(b"\xff" * extra)  # its index was not written
    store = store_of(tmp_path, "b", first=3)
    np.testing.assert_array_equal(store.read(["a", "b"]), rows(2))
    assert data_file(tmp_path).stat().st_size == rows(2).nbytes


@pytest.mark.parametrize("size", [0, 5, 23])
def test_rows_that_were_cut_are_computed_anew(tmp_path, size):
    store_of(tmp_path, "a", "b")
    with data_file(tmp_path).open("r+b") as file:
        file.truncate(size)
    store = FeatureCache(tmp_path / "store", "key", 3)
    assert store.missing(["a", "b"]) == {"a", "b"}
    store.add(["b", "a"], rows(2))
    np.testing.assert_array_equal(store.read(["a", "b"]), rows(2)[::-1])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"3",
        b"[" * 100_000,
        b'{"format": 1}',
        b'{"format": 2, "checksums": ["a", "b"]}',
        b'{"format": 1, "checksums": 5}',
        b'{"format": 1, "checksums": [["a"], ["b"]]}',
        b'{"format": 1, "checksums": ["a", "a"]}',
    ],
)
def test_an_index_that_cannot_be_trusted_is_not(tmp_path, content):
    store_of(tmp_path, "a", "b")
    index_file(tmp_path).write_bytes(content)
    store = FeatureCache(tmp_path / "store", "key", 3)
    assert store.missing(["a", "b"]) == {"a", "b"}
    store.add(["a"], rows(1))
    store.add(["b"], rows(1, 3))
    again = FeatureCache(tmp_path / "store", "key", 3)
    assert not again.missing(["a", "b"])
    np.testing.assert_array_equal(again.read(["a", "b"]), rows(2))


def test_a_full_disk_is_named_and_keeps_what_is_there(tmp_path):
    store = store_of(tmp_path, "a")
    with (
        no_file_larger_than(20),
        store.lock(),
        pytest.warns(CacheWarning, match="store` cannot be written: .*not cached"),
    ):
        store.add(["b"], rows(1, 3))
    assert not store.missing(["a", "b"])
    np.testing.assert_array_equal(store.read(["b", "a"]), rows(2)[::-1])
    again = FeatureCache(tmp_path / "store", "key", 3)
    assert again.missing(["a", "b"]) == {"b"}
    np.testing.assert_array_equal(again.read(["a"]), rows(1))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "store").touch()
    store = FeatureCache(tmp_path / "store", "key", 3)
    with (
        pytest.warns(
            CacheWarning, match="store` cannot be written: File .*cache_directory"
        ),
        store.lock(),
    ):
        store.add(["a"], rows(1))
    np.testing.assert_array_equal(store.read(["a", "a"]), rows(1)[[0, 0]])


# --- features instead of images


class Progress:
    """Notes what is reported of features."""

    def __init__(self):
        self.reports = []

    def __call__(self, stage, done, total):
        if stage == "features":
            self.reports.append((done, total))


def model_of(datasets, **arguments):
    backbone = Backbone(tiny_network(**arguments))
    return small_model(datasets, backbone=backbone)


def computed(datasets, model=None):
    """Returns how many features were computed, and what has come of it."""
    progress = Progress()
    found = with_features(datasets, model or model_of(datasets), progress)
    reports = progress.reports or [(0, 0)]
    done, total = reports[-1]
    assert done == total
    assert reports == sorted(reports)
    return total, found


def arrays(pipeline):
    batches = list(pipeline.as_numpy_iterator())
    return tuple(np.concatenate(part) for part in zip(*batches, strict=True))


def test_features_stand_in_place_of_their_images(tmp_path):
    datasets = small_loader(tmp_path, test_split=0.2).load()
    model = model_of(datasets)
    extractor = model.feature_extractor()
    count, found = computed(datasets, model)
    assert count == 24
    for split in SPLITS:
        images, labels = arrays(datasets.in_order(split))
        got, got_labels = arrays(found.in_order(split))
        np.testing.assert_array_equal(got_labels, labels)
        assert (got.dtype, got_labels.dtype) == (np.float32, np.int32)
        expected = extractor.predict(images, verbose=0)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
        assert found.paths(split) == datasets.paths(split)
    sizes = [len(labels) for _, labels in found.train.as_numpy_iterator()]
    assert sizes == [len(labels) for _, labels in datasets.train.as_numpy_iterator()]
    assert sizes[-1] < sizes[0]
    assert len(found.train) == len(sizes)


@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_has_the_order_of_the_images(tmp_path, epoch):
    datasets = small_loader(tmp_path).load()
    model = model_of(datasets)
    _, found = computed(datasets, model)
    datasets.epoch_order.epoch = epoch
    images, labels = arrays(datasets.train)
    found.epoch_order.epoch = epoch
    got, got_labels = arrays(found.train)
    np.testing.assert_array_equal(got_labels, labels)
    expected = model.feature_extractor().predict(images, verbose=0)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
    _, later = arrays(found.train)
    assert not np.array_equal(later, got_labels)


def test_without_validation_there_is_no_pipeline(tmp_path):
    datasets = small_loader(tmp_path, validation_split=0.0).load()
    _, found = computed(datasets)
    assert (found.validation, found.test) == (None, None)


def test_features_are_computed_once(tmp_path):
    loader = small_loader(tmp_path)
    _, first = computed(loader.load())
    # A network of another process: the same weights, other seeds and numbers in names.
    count, second = computed(small_loader(tmp_path, seed=7, batch_size=5).load())
    assert count == 0
    for found in (first, second):
        assert len(arrays(found.train)[0]) == 19


def test_features_of_new_images_alone_are_computed(tmp_path):
    datasets = small_loader(tmp_path).load()
    computed(datasets)
    folder = tmp_path / "photos" / "roses"
    (folder / "001.png").rename(folder / "moved.png")
    shutil.copy(folder / "000.png", folder / "copy.png")
    draw_images(tmp_path / "more", {"roses": 3}, seed=9)
    for path in (tmp_path / "more" / "roses").iterdir():
        shutil.copy(path, folder / f"new-{path.name}")
    count, found = computed(small_loader(tmp_path).load())
    assert count == 3
    assert sum(len(found.records(split)) for split in SPLITS) == 28
    stored = json.loads(
        next(datasets.image_cache_directory.glob("features-*.json")).read_text()
    )
    assert len(stored["checksums"]) == 27  # equal images share theirs


def test_another_network_has_features_of_its_own(tmp_path):
    datasets = small_loader(tmp_path).load()
    counts = [
        computed(datasets, model_of(datasets, seed=seed))[0] for seed in (1, 2, 1)
    ]
    assert counts == [24, 24, 0]
    assert len(list(datasets.image_cache_directory.glob("features-*.f32"))) == 2


class InterruptAfter(Progress):
    """Ctrl-C when some features are computed."""

    def __init__(self, least):
        super().__init__()
        self.least = least

    def __call__(self, stage, done, total):
        super().__call__(stage, done, total)
        if stage == "features" and done >= self.least:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_the_features_computed_so_far(tmp_path):
    datasets = small_loader(tmp_path).load()
    with pytest.raises(KeyboardInterrupt):
        with_features(datasets, model_of(datasets), InterruptAfter(8))
    count, found = computed(datasets)
    assert count == 24 - 8
    model = model_of(datasets)
    expected = model.feature_extractor().predict(datasets.validation, verbose=0)
    got, _ = arrays(found.validation)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)


def test_rows_are_written_now_and_then(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_ROWS_AT_ONCE", 6)
    added = []
    add = FeatureCache.add

    def count(store, checksums, found):
        added.append(len(checksums))
        add(store, checksums, found)

    monkeypatch.setattr(FeatureCache, "add", count)
    computed(small_loader(tmp_path).load())
    assert sum(added) == 24
    assert added[0] == 8  # two batches


def test_of_two_processes_one_computes(tmp_path, monkeypatch):
    datasets = small_loader(tmp_path).load()
    acquire = filelock.FileLock.acquire

    def others_first(lock, *arguments, **options):
        with monkeypatch.context() as patch:
            patch.setattr(filelock.FileLock, "acquire", acquire)
            assert computed(datasets)[0] == 24
        return acquire(lock, *arguments, **options)

    monkeypatch.setattr(filelock.FileLock, "acquire", others_first)
    assert computed(datasets)[0] == 0


def test_images_that_are_not_stored_have_features_too(tmp_path):
    stored = computed(small_loader(tmp_path).load())[1]
    other = small_loader(tmp_path, disk_budget=0, cache_directory=tmp_path / "other")
    datasets = other.load()
    assert datasets.reason_not_cached
    count, found = computed(datasets)
    assert count == 24
    for first, second in zip(
        arrays(stored.validation), arrays(found.validation), strict=True
    ):
        np.testing.assert_array_equal(first, second)


def test_a_image_that_cannot_be_read_is_named(tmp_path):
    datasets = small_loader(tmp_path, disk_budget=0).load()
    datasets.paths("train")[5].unlink()
    with pytest.raises(InputError, match=r"photos.*\.png.*cannot be read"):
        with_features(datasets, model_of(datasets))


def test_a_network_too_large_for_constants_gives_the_same(tmp_path, monkeypatch):
    _, folded = computed(small_loader(tmp_path).load())
    monkeypatch.setattr("keras_flowers.inference._MOST_CONSTANT_BYTES", 0)
    other = small_loader(tmp_path, cache_directory=tmp_path / "other").load()
    count, plain = computed(other)
    assert count == 24
    for first, second in zip(
        arrays(folded.validation), arrays(plain.validation), strict=True
    ):
        np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-5)


def test_half_precision_features_are_kept_as_they_are(tmp_path):
    datasets = small_loader(tmp_path).load()
    backbone = Backbone(tiny_network(), dtype="mixed_bfloat16")
    model = small_model(datasets, backbone=backbone)
    count, found = computed(datasets, model)
    assert count == 24
    got, _ = arrays(found.validation)
    halves = keras.ops.cast(keras.ops.cast(got, "bfloat16"), "float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(halves), got)


def test_a_model_without_backbone_has_no_features(tmp_path):
    datasets = small_loader(tmp_path).load()
    with pytest.raises(InputError, match="must have a backbone"):
        with_features(datasets, small_model(datasets))
