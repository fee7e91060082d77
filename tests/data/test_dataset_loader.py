import json
import shutil
from pathlib import Path

import component_checks
import keras
import numpy as np
import pytest
from helpers import draw_images, small_loader
from PIL import Image

import keras_flowers
from keras_flowers import ImageDatasetLoader, InputError
from keras_flowers.data.image_files import ImageOptions, load_image
from keras_flowers.data.split_manifest import write_manifest


def images_and_labels(dataset):
    batches = list(dataset.as_numpy_iterator())
    return tuple(np.concatenate(column) for column in zip(*batches, strict=True))


def test_batches_are_images_with_their_labels(tmp_path):
    datasets = small_loader(tmp_path).load()
    batches = list(datasets.train)
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 3]
    assert len(datasets.train) == 5
    images, labels = batches[0]
    assert (images.shape, images.dtype.name) == ((4, 8, 8, 3), "uint8")
    assert (labels.shape, labels.dtype.name) == ((4,), "int32")
    if keras.backend.backend() == "jax":
        assert isinstance(images, np.ndarray)
    else:
        assert datasets.train.element_spec[0].shape.as_list() == [None, 8, 8, 3]
    assert datasets.class_names == ("daisy", "roses", "tulips")


def test_validation_is_never_shuffled_and_row_i_is_path_i(tmp_path):
    datasets = small_loader(tmp_path, test_split=0.2).load()
    for split in ("validation", "test", "train"):
        paths = datasets.paths(split)
        expected = np.stack([load_image(path, (8, 8)) for path in paths])
        for _ in range(2):
            images, labels = images_and_labels(datasets.in_order(split))
            np.testing.assert_array_equal(images, expected)
            np.testing.assert_array_equal(labels, datasets.labels(split))
        names = [datasets.class_names[label] for label in labels]
        assert names == [path.parent.name for path in paths]


def test_splits_are_disjoint_and_complete(tmp_path):
    datasets = small_loader(tmp_path, test_split=0.2).load()
    paths = [p for s in ("train", "validation", "test") for p in datasets.paths(s)]
    assert len(paths) == len(set(paths)) == 24
    assert datasets.counts("validation") == {"daisy": 2, "roses": 2, "tulips": 1}
    assert datasets.counts("train") == {"daisy": 6, "roses": 4, "tulips": 4}


def test_every_epoch_has_another_order_that_depends_on_the_seed_alone(tmp_path):
    first, second = (small_loader(tmp_path).load() for _ in range(2))
    epochs = [images_and_labels(first.train)[0] for _ in range(3)]
    again = [images_and_labels(second.train)[0] for _ in range(3)]
    np.testing.assert_array_equal(epochs, again)
    assert not np.array_equal(epochs[0], epochs[1])
    sets = [sorted(image.tobytes() for image in epoch) for epoch in epochs]
    assert sets[0] == sets[1] == sets[2]
    second.epoch_order.epoch = 1
    np.testing.assert_array_equal(images_and_labels(second.train)[0], epochs[1])
    other = small_loader(tmp_path, seed=7).load()
    assert not np.array_equal(images_and_labels(other.train)[0], epochs[0])


def test_labels_follow_their_images_when_shuffled(tmp_path):
    datasets = small_loader(tmp_path).load()
    label_of = {
        load_image(path, (8, 8)).tobytes(): label
        for path, label in zip(
            datasets.paths("train"), datasets.labels("train"), strict=True
        )
    }
    images, labels = images_and_labels(datasets.train)
    assert [label_of[image.tobytes()] for image in images] == labels.tolist()


def test_without_validation_there_is_none(tmp_path):
    datasets = small_loader(tmp_path, validation_split=0.0).load()
    assert datasets.validation is None
    assert datasets.test is None
    assert len(datasets.paths("train")) == 24
    assert datasets.paths("validation") == ()


def test_on_the_fly_gives_the_same_images(tmp_path):
    stored = small_loader(tmp_path).load()
    decoded = small_loader(tmp_path, disk_budget=0).load()
    assert stored.reason_not_cached is None
    assert decoded.reason_not_cached
    for a, b in zip(stored.train, decoded.train, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


def test_bad_files_are_left_out_and_nothing_of_the_user_changes(tmp_path):
    loader = small_loader(tmp_path)
    folder = Path(loader.data)
    (folder / "daisy" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "daisy" / "empty.png").touch()
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    datasets = loader.load()
    assert len(datasets.paths("train")) + len(datasets.paths("validation")) == 24
    assert {path for f in datasets.audit.left_out for path in f.paths} == {
        "daisy/broken.jpg",
        "daisy/empty.png",
    }
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_a_manifest_reproduces_the_split_elsewhere(tmp_path):
    datasets = small_loader(tmp_path, validation_split=0.3).load()
    write_manifest(datasets.split, tmp_path / "split.json")
    (tmp_path / "elsewhere").mkdir()
    copy = draw_images(tmp_path / "elsewhere", {"daisy": 10, "roses": 8, "tulips": 6})
    loader = small_loader(tmp_path, split_manifest=tmp_path / "split.json", seed=5)
    loader.data = str(copy)
    other = loader.load()
    for split in ("train", "validation"):
        assert [p.relative_to(copy) for p in other.paths(split)] == [
            p.relative_to(tmp_path / "photos") for p in datasets.paths(split)
        ]


def test_a_path_is_never_the_name_of_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="sample"):
        small_loader(tmp_path).from_config(
            small_loader(tmp_path).get_config() | {"data": Path("sample")}
        ).load()


def test_images_that_are_all_alike_can_be_split_if_asked(tmp_path):
    loader = small_loader(tmp_path)
    for name in ("daisy", "roses"):
        images = sorted((Path(loader.data) / name).iterdir())
        ramp = np.tile(np.linspace(0, 255, 64, dtype=np.uint8), (64, 1))
        for index, image in enumerate(images):
            pixels = np.stack([ramp, ramp, np.roll(ramp, index)], axis=-1)
            Image.fromarray(pixels).save(image)
    with pytest.raises(InputError, match="keep_near_duplicates_together"):
        loader.load()
    apart = small_loader(tmp_path, keep_near_duplicates_together=False).load()
    assert apart.counts("validation")["daisy"] == 2


def test_progress_is_reported(tmp_path):
    calls = []
    small_loader(tmp_path).load(lambda *call: calls.append(call))
    assert calls[-1] == ("decode", 24, 24)


def test_component_checks(tmp_path):
    loader = small_loader(tmp_path, split_manifest="split.json", test_split=0.1)
    component_checks.config_covers_signature(loader)
    component_checks.config_round_trips(loader)
    component_checks.from_config_leaves_its_argument(loader)
    component_checks.has_registered_name(loader, "keras_flowers>ImageDatasetLoader")


def test_a_serialized_loader_loads_the_same(tmp_path):
    loader = small_loader(tmp_path)
    text = json.dumps(keras.saving.serialize_keras_object(loader))
    rebuilt = keras.saving.deserialize_keras_object(json.loads(text))
    assert rebuilt.load().paths("train") == loader.load().paths("train")


def test_names_in_an_archive_are_a_finding_or_have_the_given_encoding(tmp_path):
    draw_images(tmp_path / "photos", {"daisy": 4, "roses": 4, "tulips": 4})
    name = "薔薇".encode("cp932")
    placeholder = "|" * len(name)
    (tmp_path / "photos" / "roses").rename(tmp_path / "photos" / placeholder)
    archive = Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path, "photos"))
    archive.write_bytes(archive.read_bytes().replace(placeholder.encode(), name))
    options = {"image_size": (8, 8), "cache_directory": tmp_path / "cache"}

    for _ in range(2):
        datasets = ImageDatasetLoader(archive, **options).load()
        finding = datasets.audit.findings[0]
        assert finding.kind == "name_encoding"
        assert "cp932 for 薔薇" in finding.message
        assert "薔薇" not in datasets.class_names
    loader = ImageDatasetLoader(archive, **options, archive_encoding="cp932")
    datasets = ImageDatasetLoader.from_config(loader.get_config()).load()
    assert datasets.class_names == ("daisy", "tulips", "薔薇")
    assert not any(f.kind == "name_encoding" for f in datasets.audit.findings)


def test_unknown_split_is_named(tmp_path):
    with pytest.raises(InputError, match="`split`.*Received: split='trial'"):
        small_loader(tmp_path).load().paths("trial")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"image_size": (0, 1)}, "image_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": True}, "batch_size"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"disk_budget": -1}, "disk_budget"),
        ({"max_extracted_size": 0}, "max_extracted_size"),
        ({"max_extracted_files": None}, "max_extracted_files"),
        ({"archive_encoding": "no-such"}, "archive_encoding"),
        ({"archive_encoding": 932}, "archive_encoding"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(InputError, match=f"`{named}`.*Received: {named}="):
        ImageDatasetLoader("photos", **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"validation_split": 1.0},
        {"validation_split": -0.1},
        {"validation_split": 0.6, "test_split": 0.5},
        {"validation_split": "half"},
    ],
)
def test_impossible_splits_are_refused_before_anything_is_read(arguments):
    with pytest.raises(InputError, match="_split"):
        ImageDatasetLoader("no such folder", **arguments)


def test_a_failed_pass_names_the_image_of_that_pass(tmp_path):
    datasets = small_loader(tmp_path, disk_budget=0).load()
    first, second = datasets.paths("validation")[:2]
    content = first.read_bytes()

    def read():
        with datasets.naming_unreadable_images():
            images_and_labels(datasets.validation)

    first.unlink()
    with pytest.raises(InputError, match=f"{first.name}.*No such file"):
        read()
    first.write_bytes(content)
    second.write_bytes(b"no image")
    with pytest.raises(InputError, match=f"{second.name}.*not an image"):
        read()
    second.write_bytes(content)
    read()
    assert datasets.read_error() is None


def test_an_earlier_read_error_does_not_hide_another_error(tmp_path):
    datasets = small_loader(tmp_path, disk_budget=0).load()
    path = datasets.paths("validation")[0]
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(InputError), datasets.naming_unreadable_images():
        images_and_labels(datasets.validation)
    path.write_bytes(content)
    with (
        pytest.raises(ZeroDivisionError),
        datasets.naming_unreadable_images(),
    ):
        for _ in datasets.train:
            raise ZeroDivisionError


def test_the_audit_has_its_name_of_version_0_1(tmp_path):
    datasets = small_loader(tmp_path).load()
    assert datasets.catalog is datasets.audit
    assert keras_flowers.Catalog is type(datasets.audit)


def ready_made_folder(tmp_path):
    for number, part in enumerate(("training_set", "test_set")):
        draw_images(tmp_path / "kaggle" / part, {"daisy": 6, "roses": 5}, seed=number)
    draw_images(tmp_path / "other", {"daisy": 2}, seed=9)
    (tmp_path / "other" / "daisy").rename(tmp_path / "kaggle" / "single_prediction")
    return tmp_path / "kaggle"


def test_a_ready_made_split_is_used_and_can_be_overridden(tmp_path):
    folder = ready_made_folder(tmp_path)
    before = sorted(folder.rglob("*"))

    def load(**arguments):
        return ImageDatasetLoader(
            folder, (8, 8), cache_directory=tmp_path / "cache", **arguments
        ).load()

    datasets = load()
    assert datasets.class_names == ("daisy", "roses")
    assert datasets.counts("test") == {"daisy": 6, "roses": 5}
    assert datasets.counts("train") == {"daisy": 5, "roses": 4}
    assert datasets.counts("validation") == {"daisy": 1, "roses": 1}
    assert all("test_set" in path.parts for path in datasets.paths("test"))
    images, _ = images_and_labels(datasets.test)
    expected = np.stack([load_image(path, (8, 8)) for path in datasets.paths("test")])
    np.testing.assert_array_equal(images, expected)
    assert "single_prediction/" in datasets.audit.layout.description
    everything = load(split="random", test_split=0.5)
    assert everything.counts("test") == {"daisy": 6, "roses": 5}
    parts = {r.part for r in everything.records("test")}
    assert parts == {"train", "test"}
    write_manifest(datasets.split, tmp_path / "split.json")
    again = load(split_manifest=tmp_path / "split.json")
    assert again.paths("validation") == datasets.paths("validation")
    assert again.paths("test") == datasets.paths("test")
    assert sorted(folder.rglob("*")) == before


def test_a_ready_made_split_that_is_missing_is_named(tmp_path):
    with pytest.raises(InputError, match="split='ready-made'.*Classes: the 3 folders"):
        small_loader(tmp_path, split="ready-made").load()


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_images_are_resized_as_asked(tmp_path, resize):
    datasets = small_loader(tmp_path, image_size=(8, 16), resize=resize).load()
    images, _ = images_and_labels(datasets.validation)
    options = ImageOptions(resize=resize)
    for image, path in zip(images, datasets.paths("validation"), strict=True):
        np.testing.assert_array_equal(image, load_image(path, (8, 16), options))


def test_an_archive_is_named_in_messages(tmp_path):
    import tarfile

    (tmp_path / "a.jpg").write_bytes(b"x")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(tmp_path / "a.jpg", "x/a.jpg")
    loader = small_loader(tmp_path)
    loader.data = str(tmp_path / "images.tar")
    with pytest.raises(InputError, match=r"images.tar` must contain at least two"):
        loader.load()


@pytest.mark.parametrize(
    "arguments",
    [
        {"split": "kaggle"},
        {"resize": "zoom"},
        {"truncated": None},
        {"class_depth": 0},
        {"max_pixels": -1},
        {"gray_bits": 17},
    ],
)
def test_wrong_choices_are_named(arguments):
    (name,) = arguments
    with pytest.raises(InputError, match=f"`{name}`.*Received: {name}="):
        ImageDatasetLoader("photos", **arguments)


def test_small_classes_are_a_finding(tmp_path):
    folder = draw_images(tmp_path / "photos", {"daisy": 5, "roses": 5, "tulips": 1})
    with pytest.raises(InputError, match="class tulips is too small.*--small-classes"):
        small_loader(tmp_path).load()
    datasets = small_loader(tmp_path, small_classes="leave-out").load()
    assert datasets.class_names == ("daisy", "roses")
    (finding,) = [f for f in datasets.audit.findings if f.kind == "small_class"]
    assert finding.paths == ("tulips",)
    assert "left out" in finding.message
    datasets = small_loader(tmp_path, small_classes="train-only").load()
    assert datasets.counts("train") == {"daisy": 4, "roses": 4, "tulips": 1}
    assert datasets.counts("validation") == {"daisy": 1, "roses": 1, "tulips": 0}
    assert folder.exists()


def test_some_of_the_classes_of_a_model_are_enough(tmp_path):
    draw_images(tmp_path / "photos", {"roses": 3})
    known = {"class_names": ["daisy", "roses", "tulips"], "validation_split": 0.0}
    datasets = small_loader(tmp_path, **known).load()
    assert datasets.class_names == ("daisy", "roses", "tulips")
    assert datasets.labels("train").tolist() == [1, 1, 1]
    draw_images(tmp_path / "more", {"daisy": 2}, seed=5)
    (tmp_path / "more" / "daisy").rename(tmp_path / "photos" / "weeds")
    with pytest.raises(InputError, match="weeds. .*--ignore-unknown-classes"):
        small_loader(tmp_path, **known).load()
    datasets = small_loader(tmp_path, **known, ignore_unknown_classes=True).load()
    assert datasets.labels("train").tolist() == [1, 1, 1]
    (finding,) = [f for f in datasets.audit.findings if f.kind == "unknown_class"]
    assert finding.paths == ("weeds",)
    with pytest.raises(InputError, match="classes that the model knows: x, y. Rec"):
        small_loader(
            tmp_path, class_names=["x", "y"], ignore_unknown_classes=True
        ).load()
