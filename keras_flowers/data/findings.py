"""What the owner of a data folder should know.

To add a kind of finding, add it to `KINDS` and the code that finds it. The command
line, the pages, the JSON files, `exclude` and the table in the documentation take it
from there, with whatever `details` its findings have.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from keras_flowers.errors import InputError
from keras_flowers.files import printable_path


@dataclass(frozen=True)
class FindingKind:
    """A kind of finding.

    Attributes:
        name: Its name in files and in Python.
        meaning: What it is, a phrase without a full stop. Code is in backticks.
        action: What is done with the files concerned, unless a finding says otherwise.
        exclude: Which of the paths `exclude` leaves out, unless a finding says
            otherwise: all of them, the copies, which are all but the first, or none.
    """

    name: str
    meaning: str
    action: str
    exclude: Literal["all", "copies", "none"] = "none"

    @property
    def title(self) -> str:
        """The name for people."""
        return self.name.replace("_", " ")


_SAME_SPLIT = "used, in the same split"

# The worst first: wrong labels and wrong scores, then lost images, then the rest.
KINDS: Mapping[str, FindingKind] = {
    kind.name: kind
    for kind in (
        FindingKind(
            "label_conflict", "identical bytes, in several classes", _SAME_SPLIT, "all"
        ),
        FindingKind(
            "label_issue",
            "a label that is probably wrong (needs `--backbone`); `score` is how well "
            "it fits",
            "used",
            "all",
        ),
        FindingKind(
            "contradicting_labels",
            "images to which a label file gives several classes or parts",
            "left out",
            "all",
        ),
        FindingKind(
            "leakage",
            "the same picture in several parts of a ready-made split; `--exclude` "
            "leaves out the copies for training",
            "used",
            "copies",
        ),
        FindingKind("corrupt", "truncated or damaged", "left out", "all"),
        FindingKind(
            "unreadable", "no permission to read the file or folder", "left out", "all"
        ),
        FindingKind(
            "decompression_bomb",
            "far more pixels or bytes than any photo",
            "left out",
            "all",
        ),
        FindingKind(
            "unsupported_format",
            "an image in an unsupported format, such as JPEG XL",
            "left out",
            "all",
        ),
        FindingKind("empty_file", "zero bytes", "left out", "all"),
        FindingKind("missing_file", "rows of a label file without a file", "left out"),
        FindingKind(
            "missing_label", "rows of a label file without a label", "left out", "all"
        ),
        FindingKind(
            "separator",
            "labels of a label file that look like several labels, with another "
            "`--label-separator`",
            "used as they are",
        ),
        FindingKind(
            "unlisted", "images that no row of the label file names", "left out"
        ),
        FindingKind(
            "missing_class",
            "a class without images in a part of a ready-made split; left out if it "
            "has none for training",
            "used",
        ),
        FindingKind(
            "unknown_class",
            "a class that the evaluated model does not know",
            "left out",
        ),
        FindingKind(
            "small_class",
            "a class that is too small to split, with `--small-classes`",
            "left out or only trained on, as you choose",
        ),
        FindingKind(
            "empty_class", "a class folder without a usable image", "not a class"
        ),
        FindingKind(
            "unlabeled", "a folder of images outside the class folders", "left out"
        ),
        FindingKind(
            "similar_classes",
            "class names that differ only in case, punctuation or Unicode form",
            "used",
        ),
        FindingKind(
            "truncated",
            "a file that ends early, with `--truncated keep`",
            "used",
            "all",
        ),
        FindingKind(
            "low_bit_depth",
            "a nearly black 16-bit image that does not state its depth",
            "used",
            "all",
        ),
        FindingKind(
            "near_duplicate",
            "nearly the same picture in different bytes",
            _SAME_SPLIT,
            "copies",
        ),
        FindingKind(
            "duplicate", "identical bytes, within a class", _SAME_SPLIT, "copies"
        ),
        FindingKind(
            "look_alike",
            "images with nearly the same features, such as mirrored copies (needs "
            "`--backbone`); `score` is how similar they are",
            "used",
            "copies",
        ),
        FindingKind(
            "outlier",
            "an image like no other (needs `--backbone`); `score` is how similar it is "
            "to its neighbors",
            "used",
            "all",
        ),
        *(
            FindingKind(name, f"{meaning} (needs `--backbone`)", "used", "all")
            for name, meaning in (
                ("dark", "a very dark image"),
                ("bright", "a very bright image"),
                ("blurred", "a blurred image"),
                ("low_information", "an image with hardly any detail"),
                ("odd_shape", "an image with an odd aspect ratio"),
                ("odd_size", "an image that is far larger or smaller than the others"),
            )
        ),
        FindingKind(
            "imbalance",
            "the largest class has more than three times as many images as the "
            "smallest",
            "used",
        ),
        FindingKind(
            "rare_class",
            "a label that fewer than 20 images of a multi-label file have: its scores "
            "and its threshold are uncertain",
            "used",
        ),
        FindingKind(
            "no_label", "images without any label in a multi-label file", "used"
        ),
        FindingKind("not_an_image", "the file is not an image", "left out", "all"),
        FindingKind(
            "duplicate_row", "an image in several rows of a label file", "used once"
        ),
        FindingKind(
            "no_end_marker",
            "a file without its end, with all of its pixels",
            "used",
            "all",
        ),
        FindingKind(
            "broken_metadata",
            "damaged metadata next to intact pixels",
            "used",
            "all",
        ),
        FindingKind(
            "name_encoding",
            "names in an archive that does not state their encoding",
            "used",
        ),
        FindingKind(
            "circular_link",
            "a link to a folder that contains it or is listed already",
            "ignored",
        ),
        FindingKind("ignored", "images next to the class folders, devices", "ignored"),
        FindingKind(
            "clutter",
            "files of systems and programs: `.DS_Store`, `__MACOSX`, `#recycle`, "
            "`Thumbs.db`, run directories",
            "ignored",
        ),
        FindingKind("excluded", "images that `--exclude` lists", "left out"),
        FindingKind(
            "not_found", "entries of `--exclude` that match no file", "ignored"
        ),
    )
}


@dataclass(frozen=True)
class Finding:
    """Something about a data folder that its owner should know.

    Attributes:
        kind: One of `KINDS`, such as "corrupt" or "near_duplicate".
        paths: The files, folders or classes concerned; files and folders are relative
            to the data folder.
        message: One line for people.
        action: What was done with the files concerned, such as "left out" or "used".
            By default, that of the kind.
        exclude: The paths that `exclude` leaves out for this kind. By default, those
            that the kind says.
        details: What else there is to say, by name: text or numbers, such as the label
            that another class fits better.

    Raises:
        InputError: If the kind is not known.
    """

    kind: str
    paths: tuple[str, ...]
    message: str
    action: str = ""
    exclude: tuple[str, ...] | None = None
    details: Mapping[str, str | int | float | list[str]] = field(
        default_factory=dict, hash=False
    )

    def __post_init__(self) -> None:
        """Sets the defaults of the kind."""
        kind = find_kind(self.kind)
        if not self.action:
            object.__setattr__(self, "action", kind.action)
        if self.exclude is None:
            first = {"all": 0, "copies": 1, "none": len(self.paths)}[kind.exclude]
            object.__setattr__(self, "exclude", self.paths[first:])

    def to_json(self) -> dict[str, Any]:
        """Returns the attributes for `json.dump`; the details are entries, too."""
        return {
            "kind": self.kind,
            "paths": list(self.paths),
            "message": self.message,
            "action": self.action,
            "exclude": list(self.exclude or ()),
            **self.details,
        }


class AuditError(InputError):
    """Raised when audited data cannot be used.

    Attributes:
        findings: What the audit has found.
    """

    def __init__(self, message: str, findings: Iterable[Finding]) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


@contextmanager
def adding_findings(findings: Iterable[Finding]) -> Iterator[None]:
    """Adds findings to the errors that it lets through, for what shows them."""
    try:
        yield
    except InputError as error:
        raise AuditError(str(error), findings) from error


def find_kind(name: str) -> FindingKind:
    """Returns the kind of a name.

    Raises:
        InputError: If there is none.
    """
    if name not in KINDS:
        raise InputError(
            f"A kind of finding must be one of {', '.join(KINDS)}. Received: {name!r}"
        )
    return KINDS[name]


def group_findings(
    findings: Iterable[Finding],
) -> list[tuple[FindingKind, list[Finding]]]:
    """Returns the findings of each kind, the worst kind first."""
    found = list(findings)
    groups = [
        (kind, [finding for finding in found if finding.kind == name])
        for name, kind in KINDS.items()
    ]
    return [(kind, group) for kind, group in groups if group]


def summarize_findings(findings: Iterable[Finding]) -> str:
    """Returns the number of findings of each kind in one line, the worst first."""
    groups = group_findings(findings)
    if not groups:
        return "No findings"
    count = sum(len(group) for _, group in groups)
    kinds = ", ".join(f"{kind.title} ({len(group)})" for kind, group in groups)
    return f"{count} finding{'' if count == 1 else 's'}: {kinds}"


def list_paths(paths: Sequence[str]) -> str:
    """Returns the first few paths on one line."""
    shown = ", ".join(printable_path(path) for path in paths[:3])
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"
