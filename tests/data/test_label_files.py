import csv
import unicodedata
from pathlib import Path

import pytest
from image_drawing import draw_image

from keras_flowers import ImageDatasetLoader, InputError
from keras_flowers.data.image_listing import ImageListing
from keras_flowers.data.label_files import (
    LabelColumns,
    is_label_file,
    list_labeled_images,
)

NAMES = ("cats", "dogs")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(8):
        draw_image(tmp_path / "images" / f"{number}.jpg", number)
    return tmp_path


def rows(count: int = 8) -> list[list[object]]:
    return [[f"{number}.jpg", NAMES[number % 2]] for number in range(count)]


def write(path: Path, header: list[str], rows: list, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([header, *rows])
    return path


def listed(file: Path, **columns: str) -> ImageListing:
    return list_labeled_images(file, file.parent / "images", LabelColumns(**columns))


def classes(listing: ImageListing) -> dict[str, str]:
    return {
        file.path: folder.class_name
        for file, folder in zip(listing.files, listing.classes, strict=True)
    }


EXPECTED = {f"{number}.jpg": NAMES[number % 2] for number in range(8)}


@pytest.mark.parametrize(
    ("name", "delimiter", "header"),
    [
        ("labels.csv", ",", ["path", "label"]),
        ("labels.csv", ";", ["File Name", "Class"]),
        ("labels.tsv", "\t", ["image_id", "breed"]),
        ("labels.CSV", ",", ["filename", "category"]),
    ],
)
def test_tables_of_paths_and_labels(
    root: Path, name: str, delimiter: str, header: list[str]
) -> None:
    path = write(root / name, header, rows(), delimiter)
    assert is_label_file(path)
    listing = listed(path)
    assert classes(listing) == EXPECTED
    assert listing.class_names == NAMES
    assert listing.findings == ()
    assert listing.layout.description == f"Classes: the labels of 8 images in {path}"


def test_paths_may_lack_their_suffix_and_be_relative_to_the_file(root: Path) -> None:
    table = [[f"images/{number}", NAMES[number % 2]] for number in range(8)]
    path = write(root / "labels.csv", ["id", "label"], table)
    assert classes(list_labeled_images(path)) == {
        f"images/{name}": label for name, label in EXPECTED.items()
    }


def test_a_byte_order_mark_and_backslashes(root: Path) -> None:
    text = "path,label\nimages\\0.jpg,cats\nimages\\1.jpg,dogs\n"
    (root / "labels.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    found = classes(list_labeled_images(root / "labels.csv"))
    assert found == {"images/0.jpg": "cats", "images/1.jpg": "dogs"}


def test_the_unicode_text_of_excel_and_paths_through_the_parent(root: Path) -> None:
    lines = [f"../images/{path}\t{name}" for path, name in rows()]
    text = "\r\n".join(["path\tlabel", *lines])
    (root / "labels.csv").write_text(text, encoding="utf-16")
    assert classes(listed(root / "labels.csv")) == EXPECTED


def test_one_column_per_class(root: Path) -> None:
    table = [[f"{n}.jpg", n % 2, 1 - n % 2, 0] for n in range(8)]
    path = write(root / "labels.csv", ["image", "dogs", "cats", "owls"], table)
    assert classes(listed(path)) == EXPECTED
    table[3][2] = 1
    write(path, ["image", "dogs", "cats", "owls"], table)
    with pytest.raises(InputError, match="Row 5 of .* one class. Received: dogs, cats"):
        listed(path)


def test_parquet(root: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    names, labels = zip(*rows(), strict=True)
    table = pyarrow.table({"file": names, "label": labels})
    pyarrow.parquet.write_table(table, root / "labels.parquet")
    assert classes(listed(root / "labels.parquet")) == EXPECTED
    (root / "labels.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="must be a Parquet file"):
        listed(root / "labels.parquet")


def test_ambiguous_columns_are_asked_for_by_name(root: Path) -> None:
    table = [[name, name, label, label] for name, label in rows()]
    header = ["path", "filename", "label", "category"]
    path = write(root / "labels.csv", header, table)
    with pytest.raises(
        InputError, match=r"may be the path: 'path', 'filename'.*--path-column"
    ):
        listed(path)
    with pytest.raises(InputError, match=r"may be the label: .*--label-column"):
        listed(path, path="path")
    assert classes(listed(path, path="filename", label="category")) == EXPECTED
    with pytest.raises(InputError, match="Received: path_column='file'"):
        listed(path, path="file")
    write(path, ["a", "b"], rows())
    with pytest.raises(InputError, match="no column that is called like a path.*'a'"):
        listed(path)
    with pytest.raises(InputError, match="no column that is called like a label"):
        listed(path, path="a")
    assert classes(listed(path, path="a", label="b")) == EXPECTED


def test_wrong_rows_are_findings(root: Path) -> None:
    table = [
        *rows(),
        ["missing.jpg", "cats"],
        ["../outside.jpg", "cats"],
        ["", "cats"],
        ["0.jpg", "cats"],
        ["2", "dogs"],
        ["3.jpg", ""],
    ]
    draw_image(root / "outside.jpg", 50)
    listing = listed(write(root / "labels.csv", ["path", "label"], table))
    found = {finding.kind: finding.paths for finding in listing.findings}
    assert found == {
        "missing_file": ("missing.jpg", "../outside.jpg", "(row 12)"),
        "missing_label": ("3.jpg",),
        "duplicate_row": ("0.jpg",),
        "contradicting_labels": ("2.jpg",),
    }
    expected = {name: label for name, label in EXPECTED.items() if name != "2.jpg"}
    assert classes(listing) == expected


def test_names_are_compared_in_one_unicode_form(root: Path) -> None:
    name = unicodedata.normalize("NFD", "Löwe")
    draw_image(root / "images" / f"{name}.jpg", 20)
    table = [[unicodedata.normalize("NFC", name), name], *rows()]
    table.append(["7.jpg", "dogs"])
    listing = listed(write(root / "labels.csv", ["path", "label"], table))
    assert listing.class_names == ("Löwe", "cats", "dogs")


def test_files_that_are_no_tables(root: Path) -> None:
    path = root / "labels.csv"
    path.write_bytes(b"path,label\n\xff\xfe,x\n")
    with pytest.raises(InputError, match="must be a table in UTF-8"):
        listed(path)
    write(path, ["path", "label"], rows(1))
    with pytest.raises(InputError, match="at least two classes .*Received: 1 images"):
        listed(path)
    path.unlink()
    with pytest.raises(InputError, match="No such file"):
        listed(path)


def load(root: Path, data: Path, **arguments: object):
    loader = ImageDatasetLoader(
        data, (8, 8), cache_directory=root / "cache", **arguments
    )
    return loader.load()


def test_a_label_file_is_trained_on(root: Path) -> None:
    table = [[f"images/{name}", label] for name, label in rows()]
    path = write(root / "labels.csv", ["path", "label"], table)
    datasets = load(root, path)
    assert datasets.class_names == NAMES
    assert datasets.counts("train") == {"cats": 3, "dogs": 3}
    for split in ("train", "validation"):
        for file, label in zip(
            datasets.paths(split), datasets.labels(split), strict=True
        ):
            assert EXPECTED[file.name] == NAMES[label]
    write(path, ["path", "label"], rows())
    other = load(root, root / "images", labels=path)
    assert [p.name for p in other.paths("validation")] == [
        p.name for p in datasets.paths("validation")
    ]


def test_parts_and_groups_of_a_label_file(root: Path) -> None:
    parts = ["train", "Train", "train", "train", "val", "val", "test_set", "test_set"]
    table = [[*row, part] for row, part in zip(rows(), parts, strict=True)]
    path = write(root / "labels.csv", ["path", "label", "split"], table)
    datasets = load(root, root / "images", labels=path)
    assert [p.name for p in datasets.paths("validation")] == ["4.jpg", "5.jpg"]
    assert [p.name for p in datasets.paths("test")] == ["6.jpg", "7.jpg"]
    table[3][2] = "fold 3"
    write(path, ["path", "label", "split"], table)
    with pytest.raises(InputError, match="Row 5 .* Received: 'fold 3'"):
        load(root, root / "images", labels=path)

    table = [[*row, f"patient {n // 4}"] for n, row in enumerate(rows())]
    write(path, ["path", "label", "patient_id"], table)
    for seed in range(5):
        datasets = load(
            root,
            root / "images",
            labels=path,
            group_by="column",
            seed=seed,
            validation_split=0.5,
        )
        sides = {
            tuple(sorted(p.name for p in datasets.paths(s)))
            for s in ("train", "validation")
        }
        assert sides == {
            ("0.jpg", "1.jpg", "2.jpg", "3.jpg"),
            ("4.jpg", "5.jpg", "6.jpg", "7.jpg"),
        }


def test_images_without_a_row_are_left_out_and_listed(root: Path) -> None:
    draw_image(root / "images" / "more" / "9.jpg", 9)
    draw_image(root / "elsewhere" / "10.jpg", 10)
    (root / "images" / "Thumbs.db").touch()
    (root / "images" / "notes.txt").write_text("not an image")
    unlabelled = [["7.jpg", ""]]
    (found,) = (
        finding
        for finding in listed(
            write(root / "a.csv", ["path", "label"], rows(7) + unlabelled)
        ).findings
        if finding.kind == "unlisted"
    )
    assert found.paths == ("more/9.jpg",)
    assert found.action == "left out" and found.exclude == ()
    # Without a data folder, only the folders of the listed images are searched.
    table = [[f"images/{name}", label] for name, label in rows(6)]
    listing = list_labeled_images(write(root / "b.csv", ["path", "suggested"], table))
    (found,) = listing.findings
    assert found.paths == ("images/6.jpg", "images/7.jpg", "images/more/9.jpg")
