"""What the owner of a data folder should know."""

from collections.abc import Sequence
from dataclasses import dataclass

from keras_flowers.files import printable_path


@dataclass(frozen=True)
class Finding:
    """Something about a data folder that its owner should know.

    Attributes:
        kind: For a file that is left out, "not_an_image", "corrupt", "empty_file",
            "decompression_bomb", "unsupported_format" or "unreadable". For copies,
            "duplicate" (equal bytes within a class), "label_conflict" (equal bytes in
            several classes), "near_duplicate" (the same picture in other bytes) or
            "leakage" (the same picture in several parts of a ready-made split). For
            images that are used, "truncated", "no_end_marker", "broken_metadata" or
            "low_bit_depth". For folders and classes, "empty_class", "missing_class",
            "small_class", "unknown_class", "similar_classes", "unlabeled",
            "circular_link", "clutter", "ignored" or "imbalance". For rows of a label
            file, "missing_file", "missing_label", "duplicate_row" or
            "contradicting_labels". For an archive, "name_encoding".
        paths: The files, folders or classes concerned; files and folders are relative
            to the data folder.
        message: One line for people.
    """

    kind: str
    paths: tuple[str, ...]
    message: str


def list_paths(paths: Sequence[str]) -> str:
    """Returns the first few paths on one line."""
    shown = ", ".join(printable_path(path) for path in paths[:3])
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"
