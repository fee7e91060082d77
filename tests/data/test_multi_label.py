"""Images with several labels, from the label file to the batches."""

import csv
from collections import Counter

import numpy as np
import pytest
from image_drawing import draw_image

from keras_flowers import ImageDatasetLoader, InputError
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.label_files import LabelColumns, list_labeled_images
from keras_flowers.data.split_assignment import SplitAssignment, order_groups
from keras_flowers.data.split_manifest import read_manifest, write_manifest

LABELS = {
    0: ("sand", "water"),
    1: (),
    2: ("water",),
    3: ("sand",),
    4: ("people", "sand", "water"),
    5: ("people",),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(24):
        draw_image(folder / f"{number}.jpg", number, size=(20, 20))
    return folder


def write(path, header, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def labels_in(path, images, **columns):
    listing = list_labeled_images(path, images, LabelColumns(**columns))
    return listing, listing.labels_by_path()


def test_three_forms_of_label_files_mean_the_same(images, tmp_path):
    path = tmp_path / "labels.csv"
    expected = {f"{n}.jpg": names for n, names in LABELS.items()}
    # As in Kaggle's planet data: names without suffix, tags with spaces.
    write(path, ["image_name", "tags"], [[n, " ".join(x)] for n, x in LABELS.items()])
    listing, found = labels_in(path, images, label="tags", separator=" ")
    assert found == expected
    assert listing.class_names == ("people", "sand", "water")
    assert "several per image" in listing.layout.description
    unlisted, unlabelled = listing.findings
    assert (unlisted.kind, len(unlisted.paths)) == ("unlisted", 18)
    assert (unlabelled.kind, unlabelled.paths) == ("no_label", ("1.jpg",))

    names = ("water", "sand", "people")
    table = [[f"{n}.jpg", *(int(x in row) for x in names)] for n, row in LABELS.items()]
    write(path, ["path", *names], table)
    assert labels_in(path, images, multi_label=True)[1] == expected
    with pytest.raises(InputError, match=r"Row 2 .* one class.*--multi-label"):
        labels_in(path, images)

    # One row per label, labels in two Unicode forms, and the same row twice.
    rows = [[f"{n}.jpg", x] for n, row in LABELS.items() for x in row or ("",)]
    write(path, ["path", "label"], [*rows, rows[0]])
    listing, found = labels_in(path, images, multi_label=True)
    assert found == expected
    assert [finding.kind for finding in listing.findings] == ["unlisted", "no_label"]


def test_labels_in_lists_of_parquet(images, tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(
        {
            "file": [f"{n}.jpg" for n in LABELS],
            "labels": [list(names) for names in LABELS.values()],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "labels.parquet")
    _, found = labels_in(tmp_path / "labels.parquet", images, multi_label=True)
    assert found == {f"{n}.jpg": names for n, names in LABELS.items()}


def loader_of(images, tmp_path, rows, **arguments):
    path = write(tmp_path / "labels.csv", ["path", "label"], rows)
    return ImageDatasetLoader(
        images,
        (8, 8),
        batch_size=5,
        labels=path,
        cache_directory=tmp_path / "cache",
        **arguments,
    )


def test_batches_and_the_manifest_have_the_labels(images, tmp_path):
    rows = [[f"{n}.jpg", "|".join(LABELS[n % 6])] for n in range(24)]
    loader = loader_of(images, tmp_path, rows, label_separator="|")
    datasets = loader.load()
    assert datasets.multi_label
    assert datasets.class_names == ("people", "sand", "water")
    for split in ("train", "validation"):
        batches = [labels for _, labels in datasets.in_order(split).as_numpy_iterator()]
        found = np.concatenate(batches)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, datasets.labels(split))
        for path, row in zip(datasets.paths(split), found, strict=True):
            names = LABELS[int(path.stem) % 6]
            assert row.tolist() == [int(n in names) for n in datasets.class_names]
        sums = found.sum(axis=0).astype(int).tolist()
        assert list(datasets.counts(split).values()) == sums
    rare = [f.paths for f in datasets.audit.findings if f.kind == "rare_class"]
    assert rare == [("people",), ("sand",), ("water",)]

    write_manifest(datasets.split, tmp_path / "split.json")
    entries = {
        entry.path: entry for entry in read_manifest(tmp_path / "split.json").images
    }
    assert entries["4.jpg"].labels == ["people", "sand", "water"]
    assert entries["1.jpg"].labels == []
    again = ImageDatasetLoader.from_config(
        {**loader.get_config(), "split_manifest": str(tmp_path / "split.json")}
    ).load()
    assert again.split.train == datasets.split.train
    assert again.multi_label

    known = {**loader.get_config(), "class_names": ("sand", "water")}
    with pytest.raises(InputError, match="Received: people"):
        ImageDatasetLoader.from_config(known).load()
    known["ignore_unknown_classes"] = True
    rest = ImageDatasetLoader.from_config(known).load()
    # The images with another label stay, without it.
    assert rest.audit.counts == {"sand": 12, "water": 12}
    assert len(rest.audit.images) == 24


def test_a_manifest_of_one_class_may_have_images_in_no_folder(images, tmp_path):
    rows = [[f"{n}.jpg", ("cats", "dogs")[n % 2]] for n in range(24)]
    datasets = loader_of(images, tmp_path, rows).load()
    write_manifest(datasets.split, tmp_path / "split.json")
    manifest = tmp_path / "split.json"
    again = loader_of(images, tmp_path, rows, split_manifest=manifest).load()
    assert again.split.validation == datasets.split.validation
    np.testing.assert_array_equal(again.labels("train"), datasets.labels("train"))


def test_folders_cannot_give_several_labels(images):
    for arguments in ({"multi_label": True}, {"label_separator": ";"}):
        with pytest.raises(InputError, match="need a label file"):
            ImageDatasetLoader(images, **arguments).list_images()
    with pytest.raises(InputError, match="at least one character"):
        ImageDatasetLoader(images, label_separator="")


def record_of(number, labels):
    return ImageRecord(
        f"{number}.jpg", 1, 1, f"{number:064x}", 8, 8, "JPEG", "", None, None,
        labels=tuple(labels),
    )  # fmt: skip


def test_the_split_has_the_same_part_of_every_label():
    generator = np.random.default_rng(3)
    chances = {"a": 0.6, "b": 0.3, "c": 0.1, "d": 0.03, "e": 0.012}
    records = [
        record_of(n, [name for name, p in chances.items() if generator.random() < p])
        for n in range(1000)
    ]
    linked = [[f"{n}.jpg", f"{n + 1}.jpg"] for n in range(0, 200, 2)]
    groups = order_groups(records, linked, seed=1)
    sizes = Counter(name for record in records for name in record.class_names)
    targets = {
        part: {name: round(fraction * count) for name, count in sizes.items()}
        for part, fraction in (("validation", 0.2), ("test", 0.1))
    }
    assignment = SplitAssignment(groups, targets)
    assignment.fill_by_rarity(sizes)
    parts = assignment.parts()
    assert sorted(r.path for p in parts.values() for r in p) == sorted(
        record.path for record in records
    )
    for part, target in targets.items():
        found = Counter(name for r in parts[part] for name in r.class_names)
        for name, count in target.items():
            assert abs(found[name] - count) <= 1
        # As many images, too, among them those without a label.
        fraction = sum(target.values()) / sizes.total()
        assert len(parts[part]) == pytest.approx(1000 * fraction, abs=2)
        without = sum(not record.class_names for record in parts[part])
        assert without == pytest.approx(250 * fraction, rel=0.35)
    part_of = {r.path: part for part, images in parts.items() for r in images}
    assert all(part_of[one] == part_of[other] for one, other in linked)
    again = SplitAssignment(groups, targets)
    again.fill_by_rarity(sizes)
    assert again.parts() == parts


def test_a_forgotten_or_wrong_separator_is_noticed(images, tmp_path):
    def doubts(cells, **columns):
        rows = [[f"{number}.jpg", cell] for number, cell in enumerate(cells)]
        path = write(tmp_path / "labels.csv", ["path", "label"], rows)
        listing = list_labeled_images(path, images, LabelColumns(**columns))
        return [f.message for f in listing.findings if f.kind == "separator"]

    several = ["sand|water", "people|sand", "water", "people|water"]
    (message,) = doubts(several)
    assert "3 labels contain '|'" in message and "--label-separator" in message
    unused, message = doubts(several, separator=";")
    assert "no label contains the separator ';'" in unused and "'|'" in message
    assert doubts(several, separator="|") == []
    assert len(doubts(["sea sand", "sea", "sand", "sand sea", "sea"])) == 1
    # Names of several words are not several labels.
    assert doubts(["red rose", "white rose", "red tulip", "lily, white", "sun"]) == []
