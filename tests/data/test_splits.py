import json
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from image_drawing import draw_data_set, draw_image

from keras_flowers.data.audit import Audit, scan
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.split_assignment import group_images
from keras_flowers.data.split_manifest import (
    apply_manifest,
    read_manifest,
    write_manifest,
)
from keras_flowers.data.splits import (
    SPLIT_NAMES,
    Split,
    SplitOptions,
    split_audit,
    split_ready_made,
)
from keras_flowers.errors import InputError


def split_images(audit: Audit, **options: Any) -> Split:
    return split_audit(audit, SplitOptions(**options))


def record(path: str, content: str | None = None) -> ImageRecord:
    digest = sha256((content or path).encode()).hexdigest()
    return ImageRecord(path, 10, 20, digest, 4, 3, "PNG", "0" * 64, None, None)


def audit_of(
    images: Sequence[ImageRecord],
    duplicates: Sequence[Sequence[str]] = (),
    near_duplicates: Sequence[Sequence[str]] | None = None,
) -> Audit:
    """Returns an audit without any file behind it."""
    near = duplicates if near_duplicates is None else near_duplicates
    return Audit(
        root=Path("data"),
        class_names=tuple(sorted({image.class_name for image in images})),
        images=tuple(sorted(images, key=lambda image: image.path)),
        findings=(),
        duplicate_groups=tuple(tuple(group) for group in duplicates),
        near_duplicate_groups=tuple(tuple(group) for group in near),
    )


def singles(counts: Mapping[str, int]) -> Audit:
    """Returns an audit of so many different photos of each class."""
    return audit_of(
        [record(f"{name}/{i:04}") for name, n in counts.items() for i in range(n)]
    )


def paths_of(split: Split) -> dict[str, list[str]]:
    return {part: [r.path for r in getattr(split, part)] for part in SPLIT_NAMES}


def part_of(split: Split) -> dict[str, str]:
    return {path: part for part, paths in paths_of(split).items() for path in paths}


def counts_of(images: Sequence[ImageRecord]) -> Counter[str]:
    return Counter(image.class_name for image in images)


@st.composite
def audits(draw: st.DrawFn, *, across: bool = True) -> Audit:
    """Draws an audit of 2 to 4 classes, some photos of which are copies."""
    images: list[ImageRecord] = []
    groups: list[list[str]] = []
    names = ["a", "b", "c", "d"][: draw(st.integers(2, 4))]
    for name in names:
        for content in range(draw(st.integers(3, 12))):
            copies = draw(st.sampled_from([1, 1, 1, 1, 2, 3]))
            paths = [f"{name}/{content}-{copy}" for copy in range(copies)]
            if across and copies > 1 and draw(st.booleans()):
                paths[-1] = f"{draw(st.sampled_from(names))}/{name}-{content}"
            images.extend(record(path, f"{name}{content}") for path in paths)
            if copies > 1:
                groups.append(sorted(paths))
    return audit_of(images, groups)


fractions = st.tuples(
    st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5]), st.sampled_from([0.0, 0.1, 0.3])
)


def split_or_none(audit: Audit, pair: tuple[float, float], seed: int = 42):
    try:
        return split_images(
            audit, validation_split=pair[0], test_split=pair[1], seed=seed
        )
    except InputError as error:
        assert "too small to split" in str(error)
        return None


@settings(max_examples=80, deadline=None)
@given(audits(), fractions, st.integers(-5, 5))
def test_each_image_is_in_one_part_and_copies_in_the_same(
    audit: Audit, pair: tuple[float, float], seed: int
) -> None:
    split = split_or_none(audit, pair, seed)
    assume(split is not None)
    parts = paths_of(split)
    everything = [path for paths in parts.values() for path in paths]
    assert sorted(everything) == [image.path for image in audit.images]
    assert all(paths == sorted(paths) for paths in parts.values())
    where = part_of(split)
    for group in audit.duplicate_groups:
        assert len({where[path] for path in group}) == 1
    for part, fraction in zip(SPLIT_NAMES, (1.0, *pair), strict=True):
        held = counts_of(getattr(split, part))
        assert set(held) == (set(audit.class_names) if fraction else set())


@settings(max_examples=80, deadline=None)
@given(audits(across=False), fractions)
def test_each_class_gives_the_wanted_fraction(
    audit: Audit, pair: tuple[float, float]
) -> None:
    split = split_or_none(audit, pair)
    assume(split is not None)
    largest = {
        name: max([len(g) for g in audit.duplicate_groups if g[0][0] == name] or [1])
        for name in audit.class_names
    }
    for part, fraction in zip(("validation", "test"), pair, strict=True):
        held = counts_of(getattr(split, part))
        for name, size in audit.counts.items():
            target = max(1, round(fraction * size)) if fraction else 0
            assert abs(held[name] - target) < largest[name]


@settings(max_examples=50, deadline=None)
@given(audits(), fractions, st.randoms(use_true_random=False))
def test_neither_order_nor_names_of_files_decide(
    audit: Audit, pair: tuple[float, float], shuffler: Any
) -> None:
    split = split_or_none(audit, pair)
    assume(split is not None)
    images, groups = list(audit.images), list(audit.duplicate_groups)
    shuffler.shuffle(images)
    shuffler.shuffle(groups)
    shuffled = audit_of(images, [group[::-1] for group in groups])
    assert split_or_none(shuffled, pair) == split
    renamed = {image.path: f"{image.path[0]}/x{i}" for i, image in enumerate(images)}
    other = audit_of(
        [
            ImageRecord(renamed[p.path], 1, 2, p.sha256, 1, 1, "GIF", "", None, None)
            for p in images
        ],
        [[renamed[path] for path in group] for group in groups],
    )
    again = split_or_none(other, pair)
    assert again is not None
    expected = {renamed[path]: part for path, part in part_of(split).items()}
    assert part_of(again) == expected


def test_without_copies_the_fractions_are_exact() -> None:
    split = split_images(
        singles({"a": 100, "b": 53, "c": 4}), validation_split=0.2, test_split=0.1
    )
    assert counts_of(split.validation) == {"a": 20, "b": 11, "c": 1}
    assert counts_of(split.test) == {"a": 10, "b": 5, "c": 1}
    assert counts_of(split.train) == {"a": 70, "b": 37, "c": 2}
    assert (split.seed, split.validation_split, split.test_split) == (42, 0.2, 0.1)
    assert split.class_names == ("a", "b", "c")
    assert split.not_in_manifest == ()


def test_the_split_is_the_same_for_ever() -> None:
    # Manifests and published results rely on it.
    split = split_images(singles({"a": 10, "b": 10}), validation_split=0.2)
    assert paths_of(split)["validation"] == [
        "a/0004",
        "a/0007",
        "b/0001",
        "b/0003",
    ]


def test_another_seed_gives_another_split() -> None:
    audit = singles({"a": 50, "b": 50})
    splits = [part_of(split_images(audit, seed=seed)) for seed in (1, 1, 2)]
    assert splits[0] == splits[1]
    moved = sum(splits[0][path] != splits[2][path] for path in splits[0])
    assert moved > 10


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 60), st.integers(0, 10**6))
def test_an_added_image_moves_few_others(count: int, number: int) -> None:
    audit = singles({"a": count, "b": 10})
    more = audit_of([*audit.images, record(f"a/new{number}")])
    before, after = (
        part_of(split_images(c, validation_split=0.2, test_split=0.1))
        for c in (audit, more)
    )
    assert sum(before[path] != after[path] for path in before) <= 4


def test_no_validation_and_no_test() -> None:
    split = split_images(singles({"a": 1, "b": 3}), validation_split=0)
    assert len(split.train) == 4
    assert split.validation == split.test == ()


def test_near_duplicates_stand_together_unless_that_is_turned_off() -> None:
    images = [record(f"a/{i}") for i in range(12)] + [record(f"b/{i}") for i in "123"]
    near = [["a/0", "a/1", "a/10", "a/11"], ["a/2", "a/3", "b/1"]]
    audit = audit_of(images, [], near)
    for seed in range(20):
        where = part_of(split_images(audit, validation_split=0.5, seed=seed))
        assert all(len({where[path] for path in group}) == 1 for group in near)
    apart = [
        part_of(
            split_images(
                audit,
                validation_split=0.5,
                seed=seed,
                keep_near_duplicates_together=False,
            )
        )
        for seed in range(20)
    ]
    assert any(len({where[path] for path in near[0]}) == 2 for where in apart)


def test_a_group_too_large_for_its_target_is_moved_where_nothing_else_is_left() -> None:
    images = [record(f"a/{i}", f"content {i // 5}") for i in range(10)]
    groups = [[f"a/{i}" for i in range(5)], [f"a/{i}" for i in range(5, 10)]]
    images += [record(f"b/{i}") for i in range(5)]
    split = split_images(audit_of(images, groups), validation_split=0.2)
    assert counts_of(split.validation) == {"a": 5, "b": 1}
    assert counts_of(split.train) == {"a": 5, "b": 4}


# What cannot be split


@pytest.mark.parametrize(("size", "test_split"), [(1, 0.0), (1, 0.1), (2, 0.1)])
def test_a_class_too_small_is_named(size: int, test_split: float) -> None:
    with pytest.raises(InputError, match=r"class b\\n is too small to split into") as e:
        split_images(singles({"a": 10, "b\n": size}), test_split=test_split)
    assert str(e.value).endswith(f"Received: {size} images")


def test_copies_that_make_a_class_too_small_are_named() -> None:
    images = [record(f"a/{i}", "same") for i in range(10)]
    images += [record(f"b/{i}") for i in range(5)]
    audit = audit_of(images, [[f"a/{i}" for i in range(10)]])
    with pytest.raises(InputError, match="class a .*10 images, in groups of copies"):
        split_images(audit)


@pytest.mark.parametrize("name", ["validation_split", "test_split"])
@pytest.mark.parametrize(
    "value", [-0.1, 1, 1.5, math.nan, math.inf, "0.2", None, True, [0.2]]
)
def test_a_fraction_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        split_images(singles({"a": 5, "b": 5}), **{name: value})
    assert str(caught.value) == (
        f"`{name}` must be a number from 0 to less than 1. Received: {name}={value!r}"
    )


def test_fractions_that_leave_nothing_for_training() -> None:
    with pytest.raises(InputError, match="together less than 1") as caught:
        split_images(
            singles({"a": 5, "b": 5}), validation_split=0.5, test_split=np.float64(0.5)
        )
    assert "validation_split=0.5" in str(caught.value)


@pytest.mark.parametrize("seed", [1.5, "1", None, True])
def test_a_seed_is_an_integer(seed: Any) -> None:
    with pytest.raises(InputError, match="`seed` must be an integer"):
        split_images(singles({"a": 5, "b": 5}), seed=seed)
    assert split_images(singles({"a": 5, "b": 5}), seed=np.int64(3)).seed == 3


# Manifests


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = draw_data_set(tmp_path / "data", {"daisy": 6, "roses": 5})
    return draw_image(root / "daisy" / "zwölf\n.jpg", 99).parent.parent


@pytest.fixture
def manifest(root: Path, tmp_path: Path) -> Path:
    path = tmp_path / "split.json"
    write_manifest(split_images(scan(root), test_split=0.2, seed=7), path)
    return path


def changed(manifest: Path, **changes: Any) -> Path:
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | changes))
    return manifest


def test_a_manifest_reproduces_the_split(root: Path, manifest: Path) -> None:
    audit = scan(root)
    expected = split_images(audit, test_split=0.2, seed=7)
    assert apply_manifest(audit, read_manifest(manifest)) == expected
    root = root.rename(root.with_name("elsewhere"))
    assert part_of(apply_manifest(scan(root), read_manifest(manifest))) == part_of(
        expected
    )


def test_a_manifest_is_plain_json(root: Path, manifest: Path) -> None:
    content = json.loads(manifest.read_text())
    images = content.pop("photos")
    assert content == {
        "format": "keras_flowers.split",
        "version": 1,
        "seed": 7,
        "validation_split": 0.2,
        "test_split": 0.2,
        "class_names": ["daisy", "roses"],
    }
    assert [image["path"] for image in images] == [r.path for r in scan(root).images]
    digest = sha256((root / "daisy/000.jpg").read_bytes()).hexdigest()
    assert images[0]["sha256"] == digest
    assert {image["split"] for image in images} == set(SPLIT_NAMES)


def test_a_manifest_with_another_class_name(root: Path, manifest: Path) -> None:
    changed(manifest, class_names=["daisy", "tulips"])
    with pytest.raises(InputError, match="no class roses, that of roses/000.jpg"):
        apply_manifest(scan(root), read_manifest(manifest))


def test_names_of_a_manifest_may_have_another_unicode_form(
    root: Path, tmp_path: Path
) -> None:
    (root / "roses").rename(root / unicodedata.normalize("NFD", "Rosé"))
    split = split_images(scan(root))
    assert split.class_names == ("Rosé", "daisy")
    write_manifest(split, tmp_path / "split.json")
    text = (tmp_path / "split.json").read_text()
    assert "\\u0301" in text
    (tmp_path / "split.json").write_text(text.replace("e\\u0301", "\\u00e9"))
    again = apply_manifest(scan(root), read_manifest(tmp_path / "split.json"))
    assert part_of(again) == part_of(split)


# Ready-made splits


def ready_made(**folders: str) -> Audit:
    """Returns an audit of six images of the classes a and b in each part."""
    images = [
        replace(record(f"{folder}/{name}/{i}"), class_name=name, part=part)
        for part, folder in folders.items()
        for name in "ab"
        for i in range(6)
    ]
    return audit_of(images)


def test_a_ready_made_split_is_used() -> None:
    audit = ready_made(train="Train", validation="val", test="test_set")
    split = split_ready_made(audit)
    for part in SPLIT_NAMES:
        assert [r for r in audit.images if r.part == part] == list(getattr(split, part))


def test_missing_parts_are_taken_from_the_training_part() -> None:
    audit = ready_made(train="train", test="test")
    split = split_ready_made(audit, SplitOptions(validation_split=0.3))
    assert counts_of(split.validation) == {"a": 2, "b": 2}
    assert counts_of(split.train) == {"a": 4, "b": 4}
    assert {r.part for r in split.validation} == {"train"}
    assert [r.part for r in split.test] == ["test"] * 12
    alone = split_ready_made(ready_made(train="train"), SplitOptions(test_split=0.2))
    assert counts_of(alone.test) == {"a": 1, "b": 1}
    assert not split_ready_made(audit, SplitOptions(validation_split=0.0)).validation


def test_copies_across_parts_do_not_move() -> None:
    audit = ready_made(train="train", test="test")
    groups = (("test/a/0", "train/a/0", "train/a/1"),)
    audit = replace(audit, duplicate_groups=groups, near_duplicate_groups=groups)
    where = part_of(split_ready_made(audit, SplitOptions(validation_split=0.5)))
    assert where["test/a/0"] == "test"
    assert where["train/a/0"] == where["train/a/1"] != "test"


def test_a_split_without_a_training_part_is_refused() -> None:
    with pytest.raises(InputError, match="training part. Received: validation and te"):
        split_ready_made(ready_made(validation="val", test="test"))


@settings(max_examples=25, deadline=None)
@given(audits(), fractions)
def test_any_split_survives_its_manifest(
    tmp_path_factory: pytest.TempPathFactory,
    audit: Audit,
    pair: tuple[float, float],
) -> None:
    split = split_or_none(audit, pair)
    assume(split is not None)
    path = tmp_path_factory.getbasetemp() / "split.json"
    write_manifest(split, path)
    assert apply_manifest(audit, read_manifest(path)) == split


def test_the_labels_are_those_of_the_manifest(root: Path, manifest: Path) -> None:
    changed(manifest, class_names=["roses", "daisy"])
    split = apply_manifest(scan(root), read_manifest(manifest))
    assert split.class_names == ("roses", "daisy")


def test_images_that_are_not_in_the_manifest_are_left_out(
    root: Path, manifest: Path
) -> None:
    draw_image(root / "roses" / "new.jpg", 200)
    draw_image(root / "tulips" / "new.jpg", 201)
    split = apply_manifest(scan(root), read_manifest(manifest))
    left_out = [image.path for image in split.not_in_manifest]
    assert left_out == ["roses/new.jpg", "tulips/new.jpg"]
    assert len(part_of(split)) == 12
    assert split.class_names == ("daisy", "roses")


def test_missing_images_are_named(root: Path, manifest: Path) -> None:
    for number in range(5):
        (root / "daisy" / f"00{number}.jpg").unlink()
    with pytest.raises(InputError) as caught:
        apply_manifest(scan(root), read_manifest(manifest))
    assert str(caught.value) == (
        f"`{root}` must contain the images of the split manifest. Received: 5 missing "
        "or unreadable: daisy/000.jpg, daisy/001.jpg, daisy/002.jpg ..."
    )


def test_images_of_another_content_are_named(root: Path, manifest: Path) -> None:
    draw_image(root / "daisy" / "zwölf\n.jpg", 300)
    with pytest.raises(
        InputError, match=r"with different content: daisy/zwölf\\n.jpg$"
    ):
        apply_manifest(scan(root), read_manifest(manifest))


def test_a_manifest_that_cannot_be_written(root: Path, tmp_path: Path) -> None:
    split = split_images(scan(root))
    with pytest.raises(InputError, match=r"missing/split\.json` cannot be written"):
        write_manifest(split, tmp_path / "missing" / "split.json")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "a file that is not JSON"),
        (b"\xff\xfe", "a file that is not JSON"),
        (b"[" * 100_000, "a file that is not JSON"),
        (b"[]", "Input should be a valid dictionary or instance of SplitManifest"),
        (
            b'{"format": "other"}',
            "format: Input should be 'keras_flowers.split', got 'other'",
        ),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "split.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_manifest(path)
    assert str(caught.value) == (
        f"`{path}` must be a split manifest. Received: {reason}"
    )


def test_a_missing_manifest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json` must be.*No such file"):
        read_manifest(tmp_path / "none.json")


DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 2}, "version: Input should be 1, got 2"),
        ({"version": None}, "version: Input should be 1, got None"),
        ({"class_names": ["a"]}, "class_names: List should have at least 2 items"),
        ({"class_names": ["a", "a"]}, "`class_names` must be different names"),
        ({"class_names": ["a", ""]}, "`class_names` must be different names"),
        ({"class_names": "daisy"}, "class_names: Input should be a valid list"),
        ({"class_names": ["daisy", 5]}, "class_names.1: Input should be an instance"),
        ({"photos": []}, "photos: List should have at least 1 item"),
        ({"photos": {}}, "photos: Input should be a valid list"),
        ({"photos": ["daisy/a"]}, "photos.0: Input should be a valid dictionary"),
        (
            {"photos": [{"path": "daisy/a", "split": "train"}]},
            "photos.0.sha256 (daisy/a): Field required",
        ),
        ({"seed": 1.5}, "seed: Input should be a valid integer, got 1.5"),
        ({"validation_split": 1}, "`validation_split` must be a number"),
        ({"test_split": math.nan}, "`test_split` must be a number"),
        ({"test_split": 0.9}, "together less than 1"),
    ],
)
def test_a_manifest_with_a_wrong_field(
    manifest: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InputError, match="must be a split manifest") as caught:
        read_manifest(changed(manifest, **changes))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"path": "/daisy/a"},
            "photos.0.path (/daisy/a): not a path in",
        ),
        (
            {"path": "daisy/../../a"},
            "photos.0.path (daisy/../../a): not a path in",
        ),
        (
            {"path": "../daisy/a"},
            "photos.0.path (../daisy/a): not a path in",
        ),
        (
            {"path": "daisy/./a"},
            "photos.0.path (daisy/./a): not a path in",
        ),
        (
            {"path": "daisy//a"},
            "photos.0.path (daisy//a): not a path in",
        ),
        ({"path": "daisy/"}, "photos.0.path (daisy/): not a path in"),
        ({"path": ""}, "photos.0.path (): not a path in"),
        ({"path": "daisy"}, "daisy is in no class folder"),
        ({"path": "daisy/001.jpg"}, "daisy/001.jpg appears twice"),
        ({"split": "dev"}, "photos.0.split (daisy/000.jpg): Input should be 'train'"),
        ({"sha256": "0" * 63}, "photos.0.sha256 (daisy/000.jpg): String should match"),
        ({"sha256": "x" * 64}, "photos.0.sha256 (daisy/000.jpg): String should match"),
        ({"sha256": 5}, "photos.0.sha256 (daisy/000.jpg): Input should be a valid s"),
    ],
)
def test_a_manifest_with_a_wrong_image(
    manifest: Path, changes: dict[str, Any], reason: str
) -> None:
    images = json.loads(manifest.read_text())["photos"]
    images[0] |= changes
    with pytest.raises(InputError, match="must be a split manifest") as caught:
        read_manifest(changed(manifest, photos=images))
    assert reason in str(caught.value)


def test_a_manifest_without_training_images(manifest: Path) -> None:
    images = json.loads(manifest.read_text())["photos"]
    images = [image | {"split": "test"} for image in images]
    with pytest.raises(InputError, match="no image for training"):
        read_manifest(changed(manifest, photos=images))


# Small classes


def test_small_classes_are_named_all_at_once() -> None:
    audit = singles({f"{i:02}": 1 for i in range(30)} | {"a": 9, "b": 9})
    with pytest.raises(InputError) as caught:
        split_images(audit)
    message = str(caught.value)
    assert message.startswith("30 classes are too small to split into train and valid")
    assert "00 (1 images), 01 (1 images)" in message
    assert message.endswith("and 25 more")
    assert "--small-classes" in message


def test_small_classes_are_left_out_or_only_trained_on() -> None:
    audit = singles({"a": 9, "b": 9, "c": 1, "d": 1})
    split = split_images(audit, small_classes="leave-out")
    assert split.class_names == ("a", "b")
    assert split.small_classes == ("c", "d")
    assert counts_of(split.train) == {"a": 7, "b": 7}
    split = split_images(audit, small_classes="train-only", test_split=0.1)
    assert split.class_names == ("a", "b", "c", "d")
    assert split.small_classes == ("c", "d")
    assert counts_of(split.train) == {"a": 6, "b": 6, "c": 1, "d": 1}
    assert counts_of(split.validation) == {"a": 2, "b": 2}
    assert split_images(singles({"a": 9, "b": 9})).small_classes == ()


def test_two_classes_must_be_large_enough() -> None:
    with pytest.raises(InputError, match="large enough to split. Received: 1"):
        split_images(singles({"a": 9, "b": 1}), small_classes="leave-out")
    with pytest.raises(InputError, match="`small_classes` must be one of 'leave-out'"):
        split_images(singles({"a": 9, "b": 1}), small_classes="drop")


# Groups


def test_groups_stay_together() -> None:
    names = [f"{c}/p{p}/{i}" for c in "ab" for p in range(6) for i in range(3)]
    audit = audit_of([record(name) for name in names])
    for seed in range(5):
        for group_by, key in (
            ("folder", lambda path: path.split("/")[1]),
            (r"p(\d)/", lambda path: path[3]),
            (r"^./p\d", lambda path: path[:4]),
        ):
            groups = group_images(audit, group_by)
            assert groups == {name: key(name) for name in names}
            split = split_images(audit, validation_split=0.3, seed=seed, groups=groups)
            sides = defaultdict(set)
            for path, part in part_of(split).items():
                sides[key(path)].add(part)
            assert all(len(parts) == 1 for parts in sides.values())
            assert set(counts_of(split.validation)) == {"a", "b"}
            assert len(split.validation) == 6


def test_groups_are_joined_with_copies() -> None:
    images = [record(f"a/{i}") for i in range(6)] + [record(f"b/{i}") for i in range(6)]
    audit = audit_of(images, [["a/0", "b/0"]])
    groups = {"a/0": "x", "a/1": "x", "b/0": "y", "b/1": "y"}
    for seed in range(5):
        where = part_of(
            split_images(audit, validation_split=0.5, seed=seed, groups=groups)
        )
        assert len({where[path] for path in groups}) == 1


def test_wrong_groups_are_named() -> None:
    audit = singles({"a": 3, "b": 3})
    with pytest.raises(
        InputError, match=r"regular expression. Received: group_by='\('"
    ):
        group_images(audit, "(")
    with pytest.raises(InputError, match="must match the paths .*'a/0000'.*'patient'"):
        group_images(audit, "patient")
    with pytest.raises(InputError, match="needs a label file"):
        group_images(audit, "column")
    assert group_images(audit, None) == group_images(audit, "folder") == {}
