"""The index of an image cache: which image is in which row of which file."""

import dataclasses
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.image_listing import FileEntry
from keras_flowers.files import write_text_atomically

_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class CacheIndex:
    """Which image is in which row of which file, and the record of every file."""

    file_name: str
    row_count: int
    entries: dict[str, tuple[ImageRecord, int | None]]

    @classmethod
    def empty(cls, entries: dict[str, Any] | None = None) -> "CacheIndex":
        """Returns an index without rows and with a new file name."""
        return cls(f"photos-{secrets.token_hex(8)}.u8", 0, entries or {})

    @classmethod
    def read(cls, directory: Path) -> "CacheIndex":
        """Reads the index; a missing or damaged one counts as empty."""
        try:
            content = json.loads((directory / "index.json").read_text())
            if content["format"] != _FORMAT:
                return cls.empty()
            entries = {}
            for fields, row in content["entries"]:
                record = ImageRecord.from_json(fields)
                entries[record.path] = (record, row)
            index = cls(content["file_name"], content["row_count"], entries)
            size = index.row_count * content["row_bytes"]
            if size and (directory / index.file_name).stat().st_size < size:
                return cls.empty()
        except (OSError, ValueError, KeyError, TypeError):
            return cls.empty()
        return index

    def write(self, directory: Path, row_bytes: int) -> None:
        """Replaces the index of the cache."""
        # Unusable files have no pixels; the file must cover their rows nevertheless.
        if self.row_count:
            os.truncate(directory / self.file_name, self.row_count * row_bytes)
        content = {
            "format": _FORMAT,
            "file_name": self.file_name,
            "row_count": self.row_count,
            "row_bytes": row_bytes,
            "entries": [[r.to_json(), row] for r, row in self.entries.values()],
        }
        write_text_atomically(directory / "index.json", json.dumps(content))

    def row_of(self, record: ImageRecord) -> int:
        """Returns the row of a usable image."""
        row = self.entries[record.path][1]
        if row is None:
            raise ValueError(f"{record.path} has no row: {record.problem}")
        return row

    def missing(
        self, files: Sequence[FileEntry], *, with_rows: bool
    ) -> list[FileEntry]:
        """Returns the files that are new or changed, or lack a row."""
        return [file for file in files if not self.holds(file, with_rows)]

    def covers(self, files: Sequence[FileEntry], *, with_rows: bool) -> bool:
        """Returns whether the index describes exactly these files."""
        same_count = len(files) == len(self.entries)
        return same_count and not self.missing(files, with_rows=with_rows)

    def holds(self, file: FileEntry, with_rows: bool) -> bool:
        """Returns whether the file is as it was, and has a row if it needs one."""
        record, row = self.entries.get(file.path, (None, None))
        if record is None or not _is_unchanged(record, file):
            return False
        if record.problem_kind == "unreadable":
            return False  # Its permissions may have changed since.
        return row is not None or record.problem is not None or not with_rows

    def keep_unchanged(self, files: Sequence[FileEntry]) -> "CacheIndex":
        """Returns the index without the entries of removed and changed files."""
        present = {file.path: file for file in files}
        entries = {
            path: (record, row)
            for path, (record, row) in self.entries.items()
            if path in present and _is_unchanged(record, present[path])
        }
        return dataclasses.replace(self, entries=entries)

    def append(
        self, records: Sequence[ImageRecord], *, with_rows: bool
    ) -> "CacheIndex":
        """Returns the index with new records; their rows follow the last one."""
        entries = dict(self.entries)
        for row, record in enumerate(records, start=self.row_count):
            has_row = with_rows and record.problem is None
            entries[record.path] = (record, row if has_row else None)
        row_count = self.row_count + (len(records) if with_rows else 0)
        return dataclasses.replace(self, entries=entries, row_count=row_count)

    def cached_paths(self) -> list[str]:
        """Returns the images that have a row."""
        return [path for path, (_, row) in self.entries.items() if row is not None]

    def renumber(self) -> "CacheIndex":
        """Returns the index of a new file, with rows from 0 up."""
        rows = {path: row for row, path in enumerate(self.cached_paths())}
        entries = {p: (r, rows.get(p)) for p, (r, _) in self.entries.items()}
        return dataclasses.replace(CacheIndex.empty(entries), row_count=len(rows))


def _is_unchanged(record: ImageRecord, file: FileEntry) -> bool:
    # A program may set the time of modification, and `mv` keeps it: the inode and the
    # time of change show that another file has the name now.
    return (record.size, record.modified_ns, record.changed_ns, record.inode) == (
        file.size,
        file.modified_ns,
        file.changed_ns,
        file.inode,
    )
