"""Reads label files: tables that name the class of each image, or its classes.

A label file is CSV, TSV or Parquet. It has a column of paths and a column of labels, or
one column of zeros and ones per class. Columns for the part of a split and for groups
are optional.

An image has one class, unless the caller says that images may have several: then the
label column has them all with a separator, or the image has several rows, or several
columns are 1. It may also have none.
"""

import codecs
import csv
import dataclasses
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_flowers.data.findings import Finding, list_paths
from keras_flowers.data.image_files import IMAGE_SUFFIXES
from keras_flowers.data.image_listing import (
    FileEntry,
    ImageListing,
    find_image_files,
)
from keras_flowers.data.layout import ClassFolder, Layout, normalize_name, split_part
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path

LABEL_FILE_SUFFIXES = frozenset({".csv", ".tsv", ".parquet"})
"""The suffixes of label files, in lower case."""

# The usual names of columns, those that can mean nothing else first.
_COLUMN_NAMES = {
    "path": (
        "path filepath file_path filename file_name file image_path img_path "
        "image_file relative_path",
        "image img image_id image_name photo picture id name",
    ),
    "label": (
        "label class class_name category label_name classname",
        "target y species breed diagnosis labels",
        # What an audit writes, next to the column `given`.
        "suggested",
    ),
    "split": ("split subset partition part", "set"),
    "group": (
        "group group_id patient patient_id subject subject_id",
        "video video_id place location lesion_id site",
    ),
}
# What usually separates the labels of an image.
_SEPARATORS = ("|", ";", ",", " ")


@dataclass(frozen=True)
class LabelColumns:
    """The columns of a label file; None for those to find by their names.

    Attributes:
        path: The column of paths, with or without suffix.
        label: The column of class names.
        split: The column of parts: train, validation or test.
        group: The column of groups, the images of which stay on one side of a split.
        separator: What separates the labels of an image in the label column; None if
            the column has one label.
        multi_label: Whether an image may have several labels, or none; a separator
            implies it.
    """

    path: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None
    separator: str | None = None
    multi_label: bool = False

    @property
    def gives_several_labels(self) -> bool:
        """Whether an image may have several labels, or none."""
        return self.multi_label or self.separator is not None


def is_label_file(data: str | os.PathLike[str]) -> bool:
    """Returns whether a path is that of a label file."""
    path = Path(data).expanduser()
    return path.suffix.lower() in LABEL_FILE_SUFFIXES and path.is_file()


def list_labeled_images(
    labels: Path, root: Path | None = None, columns: LabelColumns = LabelColumns()
) -> ImageListing:
    """Returns the images that a label file lists.

    Args:
        labels: The label file.
        root: The folder that the paths are relative to; None for that of the file.
        columns: The names of the columns.

    Returns:
        The listing. Rows without a file or with contradicting labels are findings, and
        so are images without a row: all of `root`, or those in the folders of the
        listed images if there is no `root`.

    Raises:
        InputError: If the file cannot be read, its columns are not clear, or it lists
            fewer than two classes.
    """
    table = _read_table(labels)
    rows = list(_find_rows(labels, table, columns))
    listing = _list_rows(
        labels,
        labels.parent if root is None else root,
        rows,
        columns.gives_several_labels,
        # There may be anything in the folder of a label file.
        searches_root=root is not None,
    )
    doubts = _doubt_separator(labels, rows, columns.separator)
    return dataclasses.replace(listing, findings=(*doubts, *listing.findings))


@dataclass(frozen=True)
class _Table:
    columns: list[str]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class _Row:
    number: int
    path: str
    labels: tuple[str, ...]
    part: str | None
    group: str | None


def _find_encoding(path: Path) -> str:
    """Returns UTF-16 for what Excel saves as Unicode text, UTF-8 for all else."""
    with path.open("rb") as file:
        start = file.read(2)
    return (
        "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    )


def _read_table(path: Path) -> _Table:
    name = printable_path(path)
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path)
        with path.open(newline="", encoding=_find_encoding(path)) as file:
            head = file.readline()
            file.seek(0)
            delimiter = max("\t,;", key=head.count)
            reader = csv.DictReader(file, delimiter=delimiter)
            columns = list(reader.fieldnames or ())
            rows = [{k: v for k, v in row.items() if k is not None} for row in reader]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"`{name}` cannot be read: {reason}") from error
    except (UnicodeError, csv.Error) as error:
        raise InputError(
            f"`{name}` must be a table in UTF-8. Received: {error}"
        ) from error
    if len(set(columns)) < len(columns):
        raise InputError(f"`{name}` must have different columns. Received: {columns}")
    return _Table(columns, rows)


def _read_parquet(path: Path) -> _Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"`{printable_path(path)}` needs pyarrow: pip install "
            "keras-flowers[parquet]. Or convert it to CSV"
        ) from error
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise InputError(
            f"`{printable_path(path)}` must be a Parquet file. Received: {error}"
        ) from error
    return _Table(table.column_names, table.to_pylist())


def _find_rows(path: Path, table: _Table, columns: LabelColumns) -> Iterator[_Row]:
    """Yields the rows of a table, whatever its columns are called."""
    path_column = _find_column(path, table, "path", columns.path, required=True)
    assert path_column is not None
    split_column = _find_column(path, table, "split", columns.split)
    group_column = _find_column(path, table, "group", columns.group)
    others = [
        c for c in table.columns if c not in (path_column, split_column, group_column)
    ]
    label_column = _find_column(path, table, "label", columns.label)
    one_hot = label_column is None and _is_one_hot(table, others)
    if label_column is None and not one_hot:
        _find_column(path, table, "label", None, required=True)
    for number, row in enumerate(table.rows, 2):
        if label_column is not None:
            labels = _split_labels(row.get(label_column), columns.separator)
        else:
            labels = tuple(c for c in others if _text(row.get(c)) in ("1", "1.0"))
        if len(labels) > 1 and not columns.gives_several_labels:
            raise InputError(
                f"Row {number} of `{printable_path(path)}` must have one class. "
                f"Received: {', '.join(labels)}. If images may have several, pass "
                "`multi_label=True` (--multi-label)"
            )
        part = _text(row.get(split_column)) if split_column else ""
        if part and split_part(part) is None:
            raise InputError(
                f"Row {number} of `{printable_path(path)}` must have train, validation "
                f"or test in the column {split_column!r}. Received: {part!r}"
            )
        yield _Row(
            number,
            _text(row.get(path_column)).replace("\\", "/"),
            labels,
            split_part(part) if part else None,
            (_text(row.get(group_column)) or None) if group_column else None,
        )


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _find_column(
    path: Path, table: _Table, role: str, given: str | None, *, required: bool = False
) -> str | None:
    """Returns the column of a role.

    Raises:
        InputError: If there are several, or a column that is given or required is
            missing.
    """
    option = f"{role}_column (--{role}-column)"
    shown = ", ".join(repr(column) for column in table.columns) or "no columns"
    if given is not None:
        if given not in table.columns:
            raise InputError(
                f"`{role}_column` must be a column of `{printable_path(path)}`: "
                f"{shown}. Received: {role}_column={given!r}"
            )
        return given
    for names in _COLUMN_NAMES[role]:
        found = [
            column
            for column in table.columns
            if column.strip().lower().replace(" ", "_").replace("-", "_")
            in names.split()
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(
                f"Several columns of `{printable_path(path)}` may be the {role}: "
                f"{', '.join(repr(c) for c in found)}. Name it with {option}"
            )
    if required:
        raise InputError(
            f"`{printable_path(path)}` has no column that is called like a {role}. "
            f"Name it with {option}. Received: {shown}"
        )
    return None


def _is_one_hot(table: _Table, columns: Sequence[str]) -> bool:
    values = {_text(row.get(column)) for row in table.rows for column in columns}
    return len(columns) > 1 and "1" in values and values <= {"0", "1", "0.0", "1.0", ""}


def _split_labels(value: Any, separator: str | None) -> tuple[str, ...]:
    """Returns the labels in a cell of a label column; in Parquet, it may be a list."""
    if isinstance(value, list):
        parts = list(map(_text, value))
    else:
        text = _text(value)
        parts = [text] if separator is None else text.split(separator)
    return tuple(part.strip() for part in parts if part.strip())


def _doubt_separator(
    labels: Path, rows: Sequence[_Row], separator: str | None
) -> tuple[Finding, ...]:
    """Returns a finding if the labels look as if another character separates them."""
    names = {name for row in rows for name in row.labels}
    messages = []
    if separator is not None and all(len(row.labels) < 2 for row in rows):
        messages.append(f"no label contains the separator {separator!r}")
    for other in _SEPARATORS:
        together = [name for name in sorted(names) if other in name]
        parts = {part.strip() for name in names for part in name.split(other)}
        # A list of few words repeats them; a name that happens to contain the
        # character does not.
        if len(together) > 1 and len(parts) <= len(names) and parts & names:
            messages.append(
                f"{len(together)} labels contain {other!r}, such as {together[0]!r}. "
                f"If they are several labels, pass `label_separator={other!r}` "
                f"(--label-separator)"
            )
    return tuple(
        Finding("separator", (), f"{printable_path(labels)}: {message}")
        for message in messages
    )


def _list_rows(
    labels: Path,
    root: Path,
    rows: Sequence[_Row],
    multi_label: bool,
    *,
    searches_root: bool,
) -> ImageListing:
    by_path: defaultdict[str, list[_Row]] = defaultdict(list)
    missing, unlabeled = [], []
    find = _FileFinder(root)
    for row in rows:
        path = find(row.path) if row.path else None
        if path is None:
            missing.append(row.path or f"(row {row.number})")
        elif not row.labels and not multi_label:
            unlabeled.append(path)
        else:
            by_path[path].append(row)
    files, classes, groups = [], [], {}
    labels_of: dict[str, tuple[str, ...]] = {}
    twice, contradicting = [], []
    for path, found in sorted(by_path.items()):
        names = sorted({normalize_name(name) for row in found for name in row.labels})
        parts = {row.part for row in found}
        if len(parts) > 1 or (len(names) > 1 and not multi_label):
            contradicting.append(path)
            continue
        if len(found) > 1 and not multi_label:
            twice.append(path)
        (part,) = parts
        labels_of[path] = tuple(names)
        files.append(_describe_file(root, path))
        # No folder has this name, which shows what the image is.
        shown = " | ".join(names)
        classes.append(ClassFolder(shown, shown, part))
        if found[0].group is not None:
            groups[path] = found[0].group
    name = printable_path(labels)
    named = {*by_path, *unlabeled}
    unlisted = _find_unlisted(root, named, searches_root=searches_root)
    messages = (
        ("missing_file", missing, "rows without a file"),
        ("missing_label", unlabeled, "rows without a label, left out"),
        ("duplicate_row", twice, "images in several rows with the same label"),
        (
            "contradicting_labels",
            contradicting,
            "images with contradicting labels or parts, left out",
        ),
        ("unlisted", unlisted, "images without a row, left out"),
        (
            "no_label",
            [path for path, names in labels_of.items() if not names],
            "images without any label",
        ),
    )
    findings = tuple(
        Finding(kind, tuple(paths), f"{name}: {len(paths)} {text}: {list_paths(paths)}")
        for kind, paths, text in messages
        if paths
    )
    if len({name for names in labels_of.values() for name in names}) < 2:
        problem = "; ".join(f.message for f in findings)
        raise InputError(
            f"`{name}` must list images of at least two classes in "
            f"`{printable_path(root)}`. Received: {len(files)} images"
            f"{'; ' if problem else ''}{problem}"
        )
    return ImageListing(
        root=root,
        layout=Layout(
            "",
            tuple(sorted(set(classes), key=lambda f: (f.class_name, f.part or ""))),
            f"Classes: the labels of {len(files)} images in {name}"
            + (", several per image" if multi_label else ""),
        ),
        files=tuple(files),
        classes=tuple(classes),
        groups=groups,
        labels=labels_of if multi_label else None,
        findings=findings,
    )


def _find_unlisted(
    root: Path, named: Collection[str], *, searches_root: bool
) -> list[str]:
    """Returns the images that no row names, in the folder or next to those named."""
    if searches_root:
        found = find_image_files(root)
    else:
        folders = {path.partition("/")[0] for path in named if "/" in path}
        found = {path for folder in folders for path in find_image_files(root, folder)}
    known = {normalize_name(path) for path in named}
    return sorted(path for path in found if normalize_name(path) not in known)


class _FileFinder:
    """Finds the file of a path that may lack its suffix."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stems: dict[str, dict[str, list[str]]] = {}

    def __call__(self, path: str) -> str | None:
        """Returns the path relative to the root, or None if there is no such file."""
        root = self._root.absolute()
        relative = os.path.relpath(root / path, root)
        if relative.startswith(".."):
            return None
        if (self._root / relative).is_file():
            return relative
        folder, _, name = relative.rpartition("/")
        candidates = self._list_stems(folder).get(normalize_name(name), [])
        return candidates[0] if len(candidates) == 1 else None

    def _list_stems(self, folder: str) -> dict[str, list[str]]:
        """Returns the images of a folder by their names with and without suffix."""
        if folder not in self._stems:
            stems: defaultdict[str, list[str]] = defaultdict(list)
            try:
                names = os.listdir(self._root / folder)  # noqa: PTH208
            except OSError:
                names = []
            for name in names:
                stem, suffix = os.path.splitext(name)  # noqa: PTH122
                path = f"{folder}/{name}" if folder else name
                stems[normalize_name(name)].append(path)
                if suffix.lower() in IMAGE_SUFFIXES:
                    stems[normalize_name(stem)].append(path)
            self._stems[folder] = dict(stems)
        return self._stems[folder]


def _describe_file(root: Path, path: str) -> FileEntry:
    status = (root / path).stat()
    return FileEntry(
        path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    )
