import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_drawing import blobs, draw_image, encoded

from keras_flowers.data.audit import Audit, scan
from keras_flowers.data.layout import Layout, find_layout, similar_names, split_part
from keras_flowers.errors import InputError


def tree(*folders: str) -> list[str]:
    """Returns the paths of two images in each folder."""
    return [f"{folder}/{i}.jpg".lstrip("/") for folder in folders for i in range(2)]


def classes(layout: Layout) -> dict[str, str]:
    return {
        f"{layout.root}/{f.path}".lstrip("/"): f"{f.class_name} {f.part or ''}".strip()
        for f in layout.class_folders
    }


# The names of parts


@pytest.mark.parametrize(
    ("names", "part"),
    [
        ("train Train TRAINING training_set Training-Set trainset train_1", "train"),
        ("train2017 seg_train flowers-train TrainingImages train_data trn", "train"),
        (
            "val Valid validation validation_set val2017 seg_val dev Dev_Set",
            "validation",
        ),
        ("test Testing test_set testset TestImages seg_test hold_out test01", "test"),
        ("cats training_vs_test trains tester contest devices valley evaluation", None),
    ],
)
def test_names_of_parts(names: str, part: str | None) -> None:
    assert {name: split_part(name) for name in names.split()} == dict.fromkeys(
        names.split(), part
    )
    assert split_part("training set") == "train"


# Which folders are classes


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["cats", "dogs"], {"cats": "cats", "dogs": "dogs"}),
        (
            ["flower_photos/cats", "flower_photos/dogs"],
            {"flower_photos/cats": "cats", "flower_photos/dogs": "dogs"},
        ),
        (
            ["", "a/b/c/cats", "a/b/c/dogs"],
            {"a/b/c/cats": "cats", "a/b/c/dogs": "dogs"},
        ),
        (["cats/2023", "dogs/2024"], {"cats": "cats", "dogs": "dogs"}),
        (
            ["cats/2023", "cats/2024", "dogs/2023", "dogs/2024", "dogs"],
            {"cats": "cats", "dogs": "dogs"},
        ),
        (["cats/images", "dogs/images/raw"], {"cats": "cats", "dogs": "dogs"}),
        (["0", "1", "10"], {"0": "0", "1": "1", "10": "10"}),
        (
            ["2023/cats", "2023/dogs", "2024/cats"],
            {"2023/cats": "cats", "2023/dogs": "dogs", "2024/cats": "cats"},
        ),
        (
            ["batch_1/cats", "batch_2/dogs"],
            {"batch_1/cats": "cats", "batch_2/dogs": "dogs"},
        ),
        (["animals/cats", "plants/roses"], {"animals": "animals", "plants": "plants"}),
    ],
)
def test_classes_without_a_split(folders: list[str], expected: dict[str, str]) -> None:
    layout = find_layout(tree(*folders))
    assert classes(layout) == expected
    assert not layout.has_parts
    assert layout.description.startswith("Classes: ")
    assert "\n" not in layout.description


@pytest.mark.parametrize(
    "folders",
    [
        ["training_set/cats", "training_set/dogs", "test_set/cats", "test_set/dogs"],
        [
            "training_set/cats",
            "training_set/dogs",
            "test_set/cats",
            "test_set/dogs",
            "single_prediction",
        ],
        [
            "seg_train/seg_train/cats",
            "seg_train/seg_train/dogs",
            "seg_test/seg_test/cats",
            "seg_test/seg_test/dogs",
            "seg_pred/seg_pred",
        ],
        ["data/Train/cats", "data/Train/dogs", "data/TEST/cats", "data/TEST/dogs"],
        ["train/cats/2023", "train/dogs", "test/cats/2024", "test/dogs/2023/a"],
        ["cats/train", "cats/test", "dogs/train", "dogs/test"],
    ],
)
def test_ready_made_splits(folders: list[str]) -> None:
    layout = find_layout(tree(*folders))
    found = {(f.class_name, f.part) for f in layout.class_folders}
    parts = ("train", "test")
    assert found == {(name, part) for name in ("cats", "dogs") for part in parts}
    assert "split" in layout.description


def test_a_part_that_lacks_a_class_and_one_with_another() -> None:
    layout = find_layout(
        tree("train/cats", "train/dogs", "val/cats/2023", "test/cats", "test/owls")
    )
    assert classes(layout) == {
        "train/cats": "cats train",
        "train/dogs": "dogs train",
        "val/cats": "cats validation",
        "test/cats": "cats test",
        "test/owls": "owls test",
    }


def test_an_unlabeled_test_folder_is_named_and_left_out() -> None:
    layout = find_layout(tree("train/cats", "train/dogs", "test", "other/unknown"))
    assert classes(layout) == {"train/cats": "cats train", "train/dogs": "dogs train"}
    assert layout.description.endswith(
        "left out, because they are not parts with class folders: other/, test/"
    )
    assert layout.class_folder_of("test/1.jpg") is None


def test_classes_may_be_named_like_one_part() -> None:
    for folders in (
        ["train", "bus", "car"],
        ["train/2023", "train/2024", "bus", "car"],
    ):
        layout = find_layout(tree(*folders))
        assert {f.class_name for f in layout.class_folders} == {"train", "bus", "car"}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "one folder of images per class. Received: no image in any folder"),
        ([""], "Received: images directly in it"),
        (["train", "test"], r"without class folders, test/, train/.*class_depth=1"),
        (
            ["north/daisy", "north/rose", "south/daisy", "south/rose"],
            r"may be north/, south/ or, .* daisy/, rose/. Pass class_depth=1 or",
        ),
    ],
)
def test_folders_without_clear_classes_are_refused(
    folders: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        find_layout(tree(*folders))


def test_the_depth_can_be_given() -> None:
    images = tree("north/daisy", "north/rose", "south/daisy", "south")
    assert set(classes(find_layout(images, class_depth=1)).values()) == {
        "north",
        "south",
    }
    deep = find_layout(images, class_depth=2)
    assert set(classes(deep)) == {"north/daisy", "north/rose", "south/daisy"}
    assert deep.class_folder_of("south/0.jpg") is None
    assert classes(find_layout(tree("train", "test"), class_depth=1)) == {
        "train": "train",
        "test": "test",
    }
    parts = find_layout(tree("train/a/x", "test/a/x", "extra/a/x"), class_depth=2)
    assert classes(parts) == {"train/a": "a train", "test/a": "a test"}
    with pytest.raises(InputError, match="no folder of images 3 levels down"):
        find_layout(images, class_depth=3)


def test_known_class_names_decide() -> None:
    layout = find_layout(tree("x/2023/cats"), class_names=["cats", "dogs"])
    assert classes(layout) == {"x/2023/cats": "cats"}


def test_names_are_compared_in_one_unicode_form() -> None:
    name = "Löwenzahn"
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    layout = find_layout(tree(*forms, "rose"))
    assert {f.class_name for f in layout.class_folders} == {forms[0], "rose"}
    assert similar_names(["Daisy", "daisy", "rose", "daisy_"]) == [
        ("Daisy", "daisy", "daisy_")
    ]


# With files


def draw_tree(root: Path, *folders: str) -> Path:
    for number, folder in enumerate(folders):
        for index in range(2):
            draw_image(root / folder / f"{index}.jpg", 10 * number + index)
    return root


def found(audit: Audit, kind: str) -> list[str]:
    return sorted(p for f in audit.findings if f.kind == kind for p in f.paths)


def test_folders_of_systems_and_programs_are_no_classes(tmp_path: Path) -> None:
    clutter = [
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "@eaDir",
        ".@__thumb",
        "@Recycle",
        ".Trash-1000",
        "lost+found",
        "daisy/#recycle",
        "daisy/@eaDir/SYNOPHOTO",
        "roses/.thumbnails",
        "roses/thumbnails",
    ]
    audit = scan(draw_tree(tmp_path, "daisy", "roses", *clutter))
    assert audit.counts == {"daisy": 2, "roses": 2}
    expected = {folder.removesuffix("/SYNOPHOTO") for folder in clutter}
    assert set(found(audit, "clutter")) == expected


def test_what_this_package_has_written_is_no_class(tmp_path: Path) -> None:
    draw_tree(tmp_path, "daisy", "roses")
    for folder, names in {
        "runs/1": ("config.json", "split.json", "history.png"),
        "evaluation": ("evaluation.json", "predictions.csv", "mistakes.png"),
        "searches/a": ("search.json", "split.json", "scores.png"),
        "daisy/run": ("config.json", "split.json", "x.jpg"),
        "cache": ("CACHEDIR.TAG", "x.jpg"),
    }.items():
        for name in names:
            draw_image(tmp_path / folder / name, 5)
    audit = scan(tmp_path)
    assert audit.counts == {"daisy": 2, "roses": 2}
    assert found(audit, "clutter") == [
        "cache",
        "daisy/run",
        "evaluation",
        "runs/1",
        "searches/a",
    ]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    draw_tree(tmp_path / "store", "x/y", "z")
    root = draw_tree(tmp_path / "data", "cats")
    (root / "dogs").mkdir()
    (root / "dogs" / "link").symlink_to(tmp_path / "store" / "x")
    (root / "dogs" / "again").symlink_to(tmp_path / "store" / "x" / "y")
    (tmp_path / "store" / "x" / "back").symlink_to(tmp_path / "store" / "x")
    (root / "dogs" / "cats").symlink_to(root / "cats")
    audit = scan(root)
    assert audit.counts == {"cats": 2, "dogs": 2}
    assert found(audit, "circular_link") == [
        "dogs/cats",
        "dogs/link/back",
        "dogs/link/y",
    ]


def test_an_unlabeled_folder_and_stray_images_are_reported(tmp_path: Path) -> None:
    draw_tree(tmp_path, "train/a", "train/b", "test", "pred/x/y", "")
    audit = scan(tmp_path)
    assert audit.counts == {"a": 2, "b": 2}
    assert found(audit, "unlabeled") == ["pred", "test"]
    assert found(audit, "ignored") == ["0.jpg", "1.jpg"]
    assert audit.to_json()["layout"] == audit.layout.description


def test_content_decides_without_a_suffix(tmp_path: Path) -> None:
    for name in ("daisy/1", "daisy/2.dat", "roses/1.jpg_large", "roses/2.txt"):
        draw_image(tmp_path / name, sum(name.encode()))
    assert scan(tmp_path).counts == {"daisy": 2, "roses": 2}


def test_similar_names_are_found(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "Löwe") for form in ("NFC", "NFD")]
    audit = scan(draw_tree(tmp_path, *forms, "Daisy", "daisy"))
    assert audit.counts == {"Daisy": 2, "Löwe": 4, "daisy": 2}
    assert found(audit, "similar_classes") == sorted(["Daisy", "daisy", *forms])


def test_a_split_with_missing_classes_and_leaks(tmp_path: Path) -> None:
    draw_tree(tmp_path, "train/a", "train/b", "test/a", "test/owls")
    copy = (tmp_path / "train/a/0.jpg").read_bytes()
    (tmp_path / "test/a/copy.jpg").write_bytes(copy)
    audit = scan(tmp_path)
    assert audit.class_names == ("a", "b")
    assert found(audit, "leakage") == ["test/a/copy.jpg", "train/a/0.jpg"]
    assert found(audit, "missing_class") == [
        "b",
        "test/owls/0.jpg",
        "test/owls/1.jpg",
    ]


NAMES = st.sampled_from(
    ["cats", "dogs", "train", "Test_set", "val", "2023", "images", "#recycle", "runs"]
)
PATHS = st.lists(NAMES, min_size=0, max_size=4).map("/".join)


@settings(max_examples=150, deadline=None)
@given(folders=st.sets(PATHS, max_size=8))
def test_every_image_is_in_a_class_of_its_path_or_in_none(folders: set[str]) -> None:
    images = tree(*sorted(folders))
    try:
        layout = find_layout(images)
    except InputError as error:
        assert str(error).isprintable()
        return
    prefix = f"{layout.root}/" if layout.root else ""
    for image in images:
        if not image.startswith(prefix):
            continue
        folder = layout.class_folder_of(image[len(prefix) :])
        if folder is not None:
            above = image.split("/")[:-1]
            assert folder.class_name in above
            if folder.part is not None:
                assert folder.part in {split_part(name) for name in above}
    # No class folder is in another one.
    paths = [f"{f.path}/" for f in layout.class_folders]
    assert not any(a != b and a.startswith(b) for a in paths for b in paths)


IMAGE = encoded(blobs(0))


@settings(max_examples=40, deadline=None)
@given(folders=st.sets(PATHS, max_size=6))
def test_every_image_is_used_or_reported(
    tmp_path_factory: pytest.TempPathFactory, folders: set[str]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for folder in {*folders, "b/cats", "b/dogs"}:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "0.jpg").write_bytes(IMAGE)
    try:
        audit = scan(root)
    except InputError:
        return
    used = {os.path.relpath(audit.root / r.path, root) for r in audit.images}
    reported = [
        os.path.relpath(audit.root / path, root)
        for f in audit.findings
        if f.kind in ("clutter", "ignored", "unlabeled", "missing_class")
        for path in f.paths
    ]
    for path in root.rglob("*.jpg"):
        relative = path.relative_to(root).as_posix()
        is_reported = any(
            relative == p or relative.startswith(f"{p}/") for p in reported
        )
        assert (relative in used) or is_reported, (relative, audit.layout.description)


def draw(root: Path, *folders: str) -> Path:
    for seed, path in enumerate(tree(*folders)):
        draw_image(root / path, seed)
    return root


def test_classes_of_parts_whose_names_differ_in_case_are_named(tmp_path: Path) -> None:
    folders = ("train/Cat", "train/Dog", "test/cat", "test/Dog")
    audit = scan(draw(tmp_path, *folders))
    assert audit.counts == {"Cat": 2, "Dog": 4}
    found = {(f.kind, f.paths) for f in audit.findings}
    assert ("similar_classes", ("Cat", "cat")) in found
    assert ("missing_class", ("test/cat/0.jpg", "test/cat/1.jpg")) in found
    (left_out,) = (f for f in audit.findings if "not in the training" in f.message)
    assert left_out.action == "left out"


def test_a_split_in_each_class_is_no_similarity_of_classes(tmp_path: Path) -> None:
    audit = scan(draw(tmp_path, "a/train", "a/test", "b/train", "b/test"))
    assert audit.counts == {"a": 4, "b": 4}
    assert audit.findings == ()


def test_photo_libraries_are_no_classes(tmp_path: Path) -> None:
    libraries = ("Photos Library.photoslibrary/originals/0", "x Previews.lrdata/1")
    audit = scan(draw(tmp_path, "a", "b", *libraries))
    assert audit.class_names == ("a", "b")
    (clutter,) = audit.findings
    assert len(clutter.paths) == 2


def test_what_stands_for_an_image_is_named(tmp_path: Path) -> None:
    draw(tmp_path, "a", "b")
    for name, content in {
        "1.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n",
        "2.png": b"\n<!DOCTYPE html><html><title>404</title></html>",
        "3.mp4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
        "4.jpg": b"PK\x03\x04 more",
    }.items():
        (tmp_path / "a" / name).write_bytes(content)
    found = {f.paths[0]: f.message for f in scan(tmp_path).findings}
    for name, words in {
        "a/1.png": "git lfs pull",
        "a/2.png": "a web page, not an image",
        "a/3.mp4": "a video, not an image",
        "a/4.jpg": "a zip archive, not an image",
    }.items():
        assert words in found[name]


@pytest.mark.parametrize("folders", [("train", "test"), ("images",)])
def test_a_label_file_next_to_images_without_classes_is_proposed(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    draw(tmp_path, *folders)
    (tmp_path / "train.csv").write_text("id,label\n0,a\n1,b\n")
    with pytest.raises(InputError, match=r"a label file such as train\.csv .*--labels"):
        scan(tmp_path)
