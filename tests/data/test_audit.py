import json
import os
import threading
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_drawing import blobs, draw_data_set, draw_image, encoded

from keras_flowers.data.audit import (
    Audit,
    Finding,
    audit_images,
    scan,
)
from keras_flowers.data.image_files import ImageRecord, inspect_image
from keras_flowers.data.image_listing import FileEntry, list_images
from keras_flowers.data.inspection import inspect_files
from keras_flowers.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return draw_data_set(tmp_path / "data", {"daisy": 3, "roses": 2})


def kinds(audit: Audit) -> dict[str, int]:
    return dict(Counter(found.kind for found in audit.findings))


def only(audit: Audit, kind: str) -> Finding:
    (finding,) = [found for found in audit.findings if found.kind == kind]
    return finding


# Listing


def test_folders_are_classes_and_files_are_sorted(root: Path) -> None:
    (root / "LICENSE.txt").write_text("free")
    listing = list_images(root)
    assert listing.root == root
    assert listing.class_names == ("daisy", "roses")
    assert [file.path for file in listing.files] == [
        "daisy/000.jpg",
        "daisy/001.jpg",
        "daisy/002.jpg",
        "roses/000.jpg",
        "roses/001.jpg",
    ]
    status = (root / "daisy/000.jpg").stat()
    first = FileEntry(
        "daisy/000.jpg",
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )
    assert listing.files[0] == first
    assert listing.clutter == listing.ignored == listing.empty_classes == ()


def test_names_are_sorted_as_keras_sorts_them(tmp_path: Path) -> None:
    names = ["b", "B", "a b", "a", "10", "2", "é"]
    draw_data_set(tmp_path, dict.fromkeys(names, 1))
    assert list_images(tmp_path).class_names == tuple(sorted(names))


def test_images_may_stand_deeper_and_need_no_suffix(root: Path) -> None:
    draw_image(root / "daisy" / "garden" / "2024" / "photo", 100)
    audit = scan(root)
    assert audit.counts == {"daisy": 4, "roses": 2}
    assert "daisy/garden/2024/photo" in [record.path for record in audit.images]


def test_clutter_is_no_image_and_no_class(root: Path) -> None:
    draw_image(root / "__MACOSX" / "daisy" / "._000.jpg", 0)
    draw_image(root / ".ipynb_checkpoints" / "a.jpg", 0)
    draw_image(root / "daisy" / ".ipynb_checkpoints" / "a.jpg", 0)
    draw_image(root / "daisy" / "._000.jpg", 0)
    for name in (".DS_Store", "daisy/Thumbs.db", "roses/desktop.ini"):
        (root / name).write_bytes(b"x")
    audit = scan(root)
    assert audit.counts == {"daisy": 3, "roses": 2}
    assert only(audit, "clutter").paths == (
        ".DS_Store",
        ".ipynb_checkpoints",
        "__MACOSX",
        "daisy/._000.jpg",
        "daisy/.ipynb_checkpoints",
        "daisy/Thumbs.db",
        "roses/desktop.ini",
    )
    assert kinds(audit) == {"clutter": 1}


def test_an_empty_folder_is_no_class(root: Path) -> None:
    (root / "tulips" / "deeper").mkdir(parents=True)
    listing = list_images(root)
    assert listing.class_names == ("daisy", "roses")
    assert listing.empty_classes == ("tulips",)
    assert only(scan(root), "empty_class").paths == ("tulips",)


def test_images_outside_of_the_classes_are_reported(root: Path) -> None:
    draw_image(root / "stray.JPG", 0)
    (root / "notes.txt").write_text("")
    assert only(scan(root), "ignored").paths == ("stray.JPG",)


def test_links_to_files_are_followed(root: Path, tmp_path: Path) -> None:
    (root / "roses" / "linked.jpg").symlink_to(draw_image(tmp_path / "other.jpg", 50))
    audit = scan(root)
    assert audit.counts["roses"] == 3
    assert audit.images[-1].size == (tmp_path / "other.jpg").stat().st_size


def test_a_class_may_be_a_link(root: Path, tmp_path: Path) -> None:
    draw_image(tmp_path / "elsewhere" / "a.jpg", 50)
    (root / "tulips").symlink_to(tmp_path / "elsewhere")
    assert scan(root).counts == {"daisy": 3, "roses": 2, "tulips": 1}


def test_circles_of_links_end(root: Path) -> None:
    (root / "daisy" / "self").symlink_to(root / "daisy")
    (root / "back").symlink_to(root)
    (root / "up").symlink_to(root.parent)
    (root / "nowhere").symlink_to(root / "nowhere")
    audit = scan(root)
    assert audit.counts == {"daisy": 3, "roses": 2}
    found = {f.paths[0] for f in audit.findings if f.kind == "circular_link"}
    assert found == {"back", "daisy/self", "up"}


def test_a_broken_link_and_a_pipe(root: Path) -> None:
    (root / "daisy" / "broken.jpg").symlink_to(root / "none.jpg")
    os.mkfifo(root / "daisy" / "pipe.jpg")
    audit = scan(root)
    assert only(audit, "unreadable").paths == ("daisy/broken.jpg",)
    assert only(audit, "ignored").paths == ("daisy/pipe.jpg",)


def test_a_folder_that_may_not_be_listed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_image(root / "daisy" / "locked" / "a.jpg", 60)
    scandir = os.scandir

    def refusing(path: Path):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    found = only(scan(root), "unreadable")
    assert found.paths == ("daisy/locked",)
    assert found.message == "daisy/locked: folder cannot be read"


# What a folder has to hold


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none` must be a folder.*No such file"):
        scan(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Not a directory"):
        scan(tmp_path / "file")


def test_fewer_than_two_class_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one folder of images.*no image in any"):
        scan(tmp_path)
    draw_image(tmp_path / "stray.jpg", 0)
    with pytest.raises(InputError, match="one folder of images.*images directly in"):
        scan(tmp_path)
    draw_image(tmp_path / "daisy" / "a.jpg", 0)
    (tmp_path / "roses").mkdir()
    with pytest.raises(InputError, match="at least two class folders.*one: daisy"):
        scan(tmp_path)


def test_fewer_than_two_classes_with_readable_images(root: Path) -> None:
    for path in (root / "roses").iterdir():
        path.write_text("no photo")
    with pytest.raises(InputError, match="with readable images.*one: daisy"):
        scan(root)
    for path in (root / "daisy").iterdir():
        path.write_text("no photo")
    with pytest.raises(InputError, match="must contain readable images.*5 files"):
        scan(root)


def test_a_class_without_readable_images_is_dropped(root: Path) -> None:
    (root / "lilies").mkdir()
    (root / "lilies" / "a.jpg").write_text("no photo")
    audit = scan(root)
    assert audit.class_names == ("daisy", "roses")
    found = only(audit, "empty_class")
    assert found.paths == ("lilies",)
    assert "without a readable image" in found.message


# Findings


def test_a_clean_folder_has_no_findings(root: Path) -> None:
    audit = scan(root)
    assert audit.findings == ()
    assert audit.left_out == ()
    assert audit.class_names == ("daisy", "roses")
    assert audit.counts == {"daisy": 3, "roses": 2}
    assert [audit.label_of(r) for r in audit.images] == [0, 0, 0, 1, 1]


def test_every_bad_file_is_reported_and_left_out(root: Path) -> None:
    bad = {
        "cut.jpg": (encoded(blobs(9))[:200], "corrupt"),
        "empty.png": (b"", "empty_file"),
        "notes.txt": (b"notes", "not_an_image"),
        "photo.psd": (b"8BPS\0\1", "unsupported_format"),
    }
    for name, (data, _) in bad.items():
        (root / "daisy" / name).write_bytes(data)
    before = {path: path.read_bytes() for path in root.rglob("*.*")}
    audit = scan(root)
    found = {f.paths[0]: f.kind for f in audit.left_out}
    assert found == {f"daisy/{name}": kind for name, (_, kind) in bad.items()}
    assert audit.findings == audit.left_out
    assert audit.counts["daisy"] == 3
    messages = {f.paths[0]: f.message for f in audit.left_out}
    assert messages["daisy/notes.txt"] == "daisy/notes.txt: not an image"
    assert {path: path.read_bytes() for path in root.rglob("*.*")} == before


def test_copies_within_a_class_and_across_classes(root: Path) -> None:
    data = (root / "daisy" / "000.jpg").read_bytes()
    (root / "daisy" / "copy.jpg").write_bytes(data)
    other = (root / "daisy" / "001.jpg").read_bytes()
    (root / "roses" / "copy.jpg").write_bytes(other)
    audit = scan(root)
    assert only(audit, "duplicate").paths == ("daisy/000.jpg", "daisy/copy.jpg")
    conflict = only(audit, "label_conflict")
    assert conflict.paths == ("daisy/001.jpg", "roses/copy.jpg")
    assert "daisy/001.jpg, roses/copy.jpg" in conflict.message
    assert kinds(audit) == {"duplicate": 1, "label_conflict": 1}
    assert audit.duplicate_groups == (
        ("daisy/000.jpg", "daisy/copy.jpg"),
        ("daisy/001.jpg", "roses/copy.jpg"),
    )
    assert audit.near_duplicate_groups == audit.duplicate_groups
    assert len(audit.images) == 7
    assert audit.left_out == ()


def test_near_duplicates_are_joined_with_copies(root: Path) -> None:
    image = blobs(70, (200, 150))
    for name, quality in (("daisy/x.jpg", 95), ("daisy/y.jpg", 60), ("roses/z", 60)):
        (root / name).write_bytes(encoded(image, quality=quality))
    audit = scan(root)
    group = ("daisy/x.jpg", "daisy/y.jpg", "roses/z")
    assert only(audit, "near_duplicate").paths == group
    assert audit.near_duplicate_groups == (group,)
    assert audit.duplicate_groups == (group[1:],)
    assert kinds(audit) == {"near_duplicate": 1, "label_conflict": 1}


@pytest.mark.parametrize(("count", "reported"), [(6, False), (7, True)])
def test_imbalance_is_more_than_three_to_one(
    tmp_path: Path, count: int, reported: bool
) -> None:
    draw_data_set(tmp_path, {"daisy": count, "roses": 2, "tulips": 4})
    found = [f for f in scan(tmp_path).findings if f.kind == "imbalance"]
    assert bool(found) == reported
    if reported:
        assert found[0].paths == ("daisy", "roses")
        assert found[0].message == "daisy has 7 images, roses only 2"


def test_messages_are_one_line_whatever_the_names(root: Path) -> None:
    odd = ["line\nbreak.jpg", os.fsdecode(b"\xff.jpg"), "\x1b[31m.jpg"]
    for name in odd:
        (root / "daisy" / name).write_text("no photo")
        (root / "roses" / name).write_bytes(encoded(blobs(80)))
    audit = scan(root)
    assert kinds(audit) == {"not_an_image": 3, "duplicate": 1}
    assert all(f.message.isprintable() for f in audit.findings)
    assert {f"daisy/{name}" for name in odd} == {f.paths[0] for f in audit.left_out}


def test_the_audit_as_json(root: Path) -> None:
    (root / "daisy" / os.fsdecode(b"\xff")).write_text("no photo")
    content = json.loads(json.dumps(scan(root).to_json()))
    assert content["class_names"] == ["daisy", "roses"]
    assert content["photos"] == 5
    assert content["counts"] == {"daisy": 3, "roses": 2}
    assert content["root"] == str(root)
    (finding,) = content["findings"]
    assert finding["kind"] == "not_an_image"
    assert finding["paths"] == ["daisy/\udcff"]
    assert finding["message"] == r"daisy/\udcff: not an image"


def test_the_order_of_the_records_does_not_matter(root: Path) -> None:
    (root / "daisy" / "copy.jpg").write_bytes((root / "roses/000.jpg").read_bytes())
    listing = list_images(root)
    records = inspect_files(root, listing.files)
    assert audit_images(listing, records) == audit_images(listing, records[::-1])


# Inspecting many files


def test_records_come_in_the_order_of_the_files(root: Path) -> None:
    files = list_images(root).files[::-1]
    seen: dict[int, tuple[ImageRecord, tuple[int, ...]]] = {}
    reported: list[tuple[str, int, int | None]] = []
    callers = set()

    def visit(index: int, record: ImageRecord, pixels) -> None:
        seen[index] = (record, pixels.shape)

    def progress(step: str, done: int, total: int | None) -> None:
        callers.add(threading.current_thread())
        reported.append((step, done, total))

    records = inspect_files(
        root, files, image_size=(6, 8), workers=3, progress=progress, visit=visit
    )
    assert [record.path for record in records] == [file.path for file in files]
    assert records == [inspect_image(root, file.path)[0] for file in files]
    assert seen == {index: (r, (6, 8, 3)) for index, r in enumerate(records)}
    assert reported == [("inspect", done, 5) for done in range(1, 6)]
    assert callers == {threading.current_thread()}


def test_without_files_there_is_nothing_to_do(tmp_path: Path) -> None:
    assert inspect_files(tmp_path, []) == []


def test_bad_files_are_visited_without_pixels(root: Path) -> None:
    (root / "daisy" / "000.jpg").write_bytes(b"")
    seen = {}
    inspect_files(
        root,
        list_images(root).files,
        image_size=(4, 4),
        visit=lambda index, _, pixels: seen.update({index: pixels is None}),
    )
    assert seen == {0: True, 1: False, 2: False, 3: False, 4: False}


@pytest.mark.parametrize("error", [OSError(28, "full"), KeyboardInterrupt()])
def test_what_a_visit_raises_ends_the_inspection(
    tmp_path: Path, error: BaseException
) -> None:
    files = list_images(draw_data_set(tmp_path, {"a": 60, "b": 1})).files
    visited = []

    def visit(index: int, *_: object) -> None:
        visited.append(index)
        if index == 3:
            raise error

    before = threading.active_count()
    with pytest.raises(type(error)):
        inspect_files(tmp_path, files, workers=2, visit=visit)
    assert len(visited) < 60
    assert threading.active_count() == before


def test_an_interrupt_of_the_caller_ends_the_inspection(tmp_path: Path) -> None:
    files = list_images(draw_data_set(tmp_path, {"a": 60, "b": 1})).files
    visited = []
    go_on = threading.Event()

    def visit(index: int, *_: object) -> None:
        visited.append(index)
        if index >= 10:
            go_on.wait(10)

    def progress(step: str, done: int, _: int | None) -> None:
        if done == 5:
            threading.Timer(0.05, go_on.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_files(tmp_path, files, workers=2, progress=progress, visit=visit)
    assert len(visited) < 20


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_workers_must_be_positive(root: Path, workers: object) -> None:
    with pytest.raises(InputError, match=f"`workers` must be.*workers={workers}"):
        scan(root, workers=workers)


# Whatever stands in a folder

FILE_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) < 200)
IMAGE = encoded(blobs(0))
CONTENTS = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([IMAGE, IMAGE[:-30], IMAGE[:100], encoded(blobs(1), "PNG"), b""]),
)


@settings(max_examples=60, deadline=None)
@given(
    files=st.dictionaries(
        st.tuples(st.sampled_from(["a", "b", "c", "b/deeper"]), FILE_NAMES),
        CONTENTS,
        max_size=12,
    )
)
def test_every_file_is_used_or_reported(
    tmp_path_factory: pytest.TempPathFactory, files: dict[tuple[str, str], bytes]
) -> None:
    root = tmp_path_factory.mktemp("hostile")
    draw_image(root / "a" / "good", 5)
    draw_image(root / "z" / "good", 6)
    for (folder, name), content in files.items():
        (root / folder).mkdir(exist_ok=True, parents=True)
        if not (root / folder / name).is_dir():
            (root / folder / name).write_bytes(content)
    audit = scan(root)
    present = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()]
    used = [record.path for record in audit.images]
    left_out = [path for found in audit.left_out for path in found.paths]
    clutter = [p for f in audit.findings if f.kind == "clutter" for p in f.paths]
    # Of a folder without any image, only the folder is reported.
    empty = [p for f in audit.findings if f.kind == "empty_class" for p in f.paths]
    inside = [p for p in present if p.startswith(tuple(f"{f}/" for f in empty))]
    reported = {*used, *left_out, *clutter, *inside}
    assert reported == set(present)
    assert not set(used) & {*left_out, *clutter, *inside}
    assert used == sorted(used)
    assert sum(audit.counts.values()) == len(used)
    assert set(audit.counts) == {record.class_name for record in audit.images}
    assert all(found.message.isprintable() for found in audit.findings)


@pytest.mark.real_photos
@pytest.mark.skipif(
    "KERAS_FLOWERS_TEST_DATA" not in os.environ,
    reason="KERAS_FLOWERS_TEST_DATA names no folder of photos",
)
def test_the_real_images() -> None:
    audit = scan(os.environ["KERAS_FLOWERS_TEST_DATA"])
    assert audit.counts == {
        "daisy": 348,
        "dandelion": 494,
        "roses": 354,
        "sunflowers": 385,
        "tulips": 439,
    }
    assert audit.left_out == ()
    assert only(audit, "label_conflict").paths == (
        "roses/15922772266_1167a06620.jpg",
        "tulips/15922772266_1167a06620.jpg",
    )
    copies = [f.paths for f in audit.findings if f.kind == "duplicate"]
    assert [len(paths) for paths in copies] == [2, 2]
    assert all(path.startswith("sunflowers/") for pair in copies for path in pair)
    # Each of these pairs was looked at: they show the same picture.
    near = [f.paths for f in audit.findings if f.kind == "near_duplicate"]
    assert sorted(paths[0].split("_")[0] for paths in near) == [
        "dandelion/284497199",
        "dandelion/506659320",
        "sunflowers/17433282043",
        "sunflowers/2588234269",
    ]
