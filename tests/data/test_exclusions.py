import json
import unicodedata

import keras
import numpy as np
import pytest
from image_drawing import draw_data_set, draw_image

from keras_flowers import ImageDatasetLoader, InputError, TrainingConfig, scan
from keras_flowers.data.audit import audit_images
from keras_flowers.data.exclusions import (
    EXCLUDABLE_KINDS,
    check_kinds,
    exclude_files,
    read_exclusions,
)
from keras_flowers.data.findings import AuditError
from keras_flowers.data.image_listing import list_images
from keras_flowers.data.inspection import inspect_files
from keras_flowers.data.split_manifest import write_manifest

NAME = unicodedata.normalize("NFC", "blüte.jpg")


@pytest.fixture
def root(tmp_path):
    """Two classes with a copy, a near-copy, a conflict, and a damaged file."""
    root = draw_data_set(tmp_path / "photos", {"daisy": 8, "roses": 8})
    for name in ("daisy/copy.jpg", "roses/conflict.jpg"):
        (root / name).write_bytes((root / "daisy/001.jpg").read_bytes())
    (root / "daisy/twin.jpg").write_bytes((root / "daisy/002.jpg").read_bytes())
    draw_image(root / "roses" / "small.png", 9, size=(40, 30), format_name="PNG")
    draw_image(root / "roses" / unicodedata.normalize("NFD", NAME), 77)
    (root / "daisy" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    return root


def loader(root, **arguments):
    defaults = {"image_size": (8, 8), "cache_directory": root.parent / "cache"}
    return ImageDatasetLoader(root, **defaults | arguments)


def found(audit, kind):
    return [finding for finding in audit.findings if finding.kind == kind]


def test_paths_are_found_however_they_are_written(root, tmp_path):
    listing = list_images(root.parent / "photos")
    lines = [
        "./daisy/000.jpg",
        "daisy\\003.jpg",
        str(root / "daisy" / "004.jpg"),
        f"roses/{NAME}",
        " roses/../roses/005.jpg ",
        "",
        "roses/gone.jpg",
        "/etc/passwd",
        "../photos/daisy/000.jpg",
    ]
    (tmp_path / "list.txt").write_text("\ufeff" + "\r\n".join(lines))
    kept = exclude_files(listing, read_exclusions(tmp_path / "list.txt"))
    assert len(kept.excluded) == 5
    assert {file.path for file in kept.files}.isdisjoint(kept.excluded)
    assert len(kept.files) == len(kept.classes) == len(listing.files) - 5
    left_out, missing = kept.findings
    assert (left_out.kind, left_out.action) == ("excluded", "left out")
    assert left_out.paths == kept.excluded
    assert missing.kind == "not_found"
    assert missing.paths == (
        "roses/gone.jpg",
        "/etc/passwd",
        "../photos/daisy/000.jpg",
    )


def test_a_folder_means_its_files_and_an_empty_class_is_named(root):
    listing = exclude_files(list_images(root), ["roses/"])
    assert listing.class_names == ("daisy",)
    assert [f.kind for f in listing.findings] == ["excluded", "empty_class"]
    records = inspect_files(listing.root, listing.files)
    with pytest.raises(AuditError, match="at least two class folders") as error:
        audit_images(listing, records)
    assert {"excluded", "empty_class", "corrupt"} <= {
        finding.kind for finding in error.value.findings
    }


def test_paths_may_start_at_the_folder_that_the_user_knows(tmp_path):
    draw_data_set(tmp_path / "data" / "inner", {"a": 3, "b": 3})
    listing = list_images(tmp_path / "data")
    assert listing.layout.root == "inner"
    for path in ("inner/a/000.jpg", "a/000.jpg"):
        assert exclude_files(listing, [path]).excluded == ("a/000.jpg",)


def test_the_findings_of_an_audit_are_excluded_by_kind(root, tmp_path):
    path = tmp_path / "audit.json"
    path.write_text(json.dumps(loader(root).audit().to_json()))
    conflict = {"daisy/001.jpg", "daisy/copy.jpg", "roses/conflict.jpg"}
    expected = {
        "label_conflict": conflict,  # which one is right is not known
        "duplicate": {"daisy/twin.jpg"},
        "near_duplicate": {"roses/small.png"},
        "corrupt": {"daisy/broken.jpg"},
    }
    for kind, paths in expected.items():
        assert set(read_exclusions(path, [kind])) == paths
    kinds = "label_conflict, duplicate,near_duplicate,corrupt"
    audit = loader(root, exclude=path, exclude_kinds=kinds).audit()
    assert {f.kind for f in audit.findings} == {"excluded"}
    assert set(audit.excluded) == set.union(*expected.values())


def test_of_a_leak_the_copy_for_training_is_excluded(tmp_path):
    for part in ("train", "test"):
        draw_data_set(tmp_path / "data" / part, {"a": 3, "b": 3})
        for index in range(3):
            draw_image(tmp_path / "data" / part / "a" / f"{index}.jpg", 50 + index)
        (tmp_path / "data" / part / "b" / "000.jpg").unlink()
        draw_image(tmp_path / "data" / part / "b" / f"{part}.jpg", len(part))
    leaks = found(scan(tmp_path / "data"), "leakage")
    assert len(leaks) >= 3
    for leak in leaks:
        assert leak.exclude
        assert all(path.startswith("train/") for path in leak.exclude)


@pytest.mark.parametrize(
    ("content", "kinds", "message"),
    [
        ("daisy/000.jpg", ["corrupt"], "exclude_kinds.* needs the JSON file"),
        ('{"findings": [1]}', ["corrupt"], "keras-flowers audit --json"),
        ("{", ["corrupt"], "keras-flowers audit --json"),
        ("\0\1", None, "binary"),
        (
            '{"findings": [{"kind": "corrupt", "exclude": ["a"]}]}',
            None,
            "exclude_kinds.* must choose .*: corrupt",
        ),
    ],
)
def test_files_of_another_form_are_refused(root, tmp_path, content, kinds, message):
    (tmp_path / "list").write_text(content)
    with pytest.raises(InputError, match=message):
        loader(root, exclude=tmp_path / "list", exclude_kinds=kinds).load()


def test_wrong_arguments_are_named(root, tmp_path):
    with pytest.raises(InputError, match="imbalanced"):
        check_kinds("corrupt,imbalanced")
    with pytest.raises(InputError, match="exclude_kinds"):
        loader(root, exclude_kinds=["imbalance"])  # it names classes, not images
    with pytest.raises(InputError, match="exclude=3"):
        loader(root, exclude=3)
    with pytest.raises(InputError, match="No such file"):
        loader(root, exclude=tmp_path / "none.txt").load()
    with pytest.raises(InputError, match="needs the JSON file"):
        loader(root, exclude_kinds="corrupt").load()
    assert "label_conflict" in EXCLUDABLE_KINDS


def test_excluded_images_are_in_no_split_and_stay_in_the_cache(root):
    everything = loader(root).load()
    decoded = []
    datasets = loader(root, exclude=["daisy/000.jpg"]).load(
        lambda *progress: decoded.append(progress)
    )
    assert decoded == [], "the cache has them all"
    paths = {record.path for record in datasets.audit.images}
    assert paths == {r.path for r in everything.audit.images} - {"daisy/000.jpg"}
    assert sum(map(len, map(datasets.records, ("train", "validation")))) == len(paths)


def test_a_manifest_applies_without_the_excluded_images(root, tmp_path):
    split = loader(root).load().split
    write_manifest(split, tmp_path / "split.json")
    gone = split.validation[0].path
    again = loader(root, exclude=[gone], split_manifest=tmp_path / "split.json").load()
    assert again.split.train == split.train
    assert again.split.validation == split.validation[1:]
    assert again.split.not_in_manifest == ()


def test_a_run_records_the_paths_not_the_file(root, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("daisy/000.jpg\n")
    given = loader(root, exclude=listed)
    assert given.get_config()["exclude"] == str(listed)
    same = type(given).from_config(json.loads(json.dumps(given.get_config())))
    assert same.get_config() == given.get_config()
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    config = json.loads(
        json.dumps(TrainingConfig(given, lambda _: model).to_json(model))
    )
    listed.unlink()
    assert config["loader"]["config"]["exclude"] == ["daisy/000.jpg"]
    assert config["loader"]["config"]["exclude_kinds"] is None
    recorded = keras.saving.deserialize_keras_object(config["loader"])
    assert recorded.read_exclusions() == ("daisy/000.jpg",)
    assert "daisy/000.jpg" not in {r.path for r in recorded.load().audit.images}
    again = TrainingConfig(recorded, lambda _: model).to_json(model)
    assert again["loader"]["config"]["exclude"] == ["daisy/000.jpg"]
    np.testing.assert_equal(again["loader"]["config"], config["loader"]["config"])
