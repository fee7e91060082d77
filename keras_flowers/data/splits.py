"""Decides which images train, validate and test, and writes that to a manifest.

A split is stratified: the same fraction of each class validates. It depends only on the
content of the images and the seed, not on the order or names of files or on the
machine, and a new image moves few others. Copies of an image, and images that show
nearly the same picture, stay on one side.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    ValidationError,
    model_validator,
)

from keras_flowers.argument_checks import check_choice, check_integer
from keras_flowers.data.audit import Audit
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.layout import normalize_name
from keras_flowers.data.split_assignment import SPLIT_NAMES as SPLIT_NAMES
from keras_flowers.data.split_assignment import (
    SplitAssignment,
    link_groups,
    order_groups,
)
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path, write_text_atomically
from keras_flowers.notebook import html_table

NO_GROUPS: Mapping[str, str] = MappingProxyType({})
SMALL_CLASSES_MODES = ("leave-out", "train-only")


@dataclass(frozen=True)
class Split:
    """Which images train, validate and test.

    Attributes:
        class_names: The position of a name is its label.
        seed: The seed of the split.
        validation_split: The requested fraction of each class.
        test_split: The requested fraction of each class.
        train: The training images, sorted by path.
        validation: The validation images, sorted by path; may be empty.
        test: The test images, sorted by path; may be empty.
        not_in_manifest: The images that the manifest of the split does not list. They
            are in none of the three parts.
        small_classes: The classes that are too small to split. They are left out or
            only in `train`.
    """

    class_names: tuple[str, ...]
    seed: int
    validation_split: float
    test_split: float
    train: tuple[ImageRecord, ...]
    validation: tuple[ImageRecord, ...]
    test: tuple[ImageRecord, ...]
    not_in_manifest: tuple[ImageRecord, ...] = ()
    small_classes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Returns the sizes, not the images."""
        sizes = ", ".join(f"{len(getattr(self, name))} {name}" for name in SPLIT_NAMES)
        left = len(self.not_in_manifest)
        more = f", {left} not in the manifest" if left else ""
        return f"Split({len(self.class_names)} classes: {sizes}{more})"

    def _repr_html_(self) -> str:
        counts = [
            Counter(record.class_name for record in getattr(self, name))
            for name in SPLIT_NAMES
        ]
        rows = [[name, *(count[name] for count in counts)] for name in self.class_names]
        total = ["all classes", *(count.total() for count in counts)]
        return html_table(repr(self), ["class", *SPLIT_NAMES], [total, *rows])


def split_audit(
    audit: Audit,
    *,
    validation_split: float = 0.2,
    test_split: float = 0.0,
    seed: int = 42,
    keep_near_duplicates_together: bool = True,
    small_classes: str | None = None,
    groups: Mapping[str, str] = NO_GROUPS,
) -> Split:
    """Splits the images of each class by the same fractions.

    Of a class of `n` images, `round(validation_split * n)` validate and
    `round(test_split * n)` test, but at least one unless the fraction is 0. Because
    copies stay together, a class may miss these numbers by less than the size of its
    largest group of copies, or by more if groups contain several classes.

    Args:
        audit: The images.
        validation_split: Fraction of each class, 0 to less than 1; 0 for none.
        test_split: Fraction of each class, 0 to less than 1; 0 for none.
        seed: Any integer.
        keep_near_duplicates_together: Whether images that show nearly the same
            picture stay on one side. Images with equal bytes always do.
        small_classes: What to do with classes that have too few different images for
            all parts: "leave-out" or "train-only"; None refuses them.
        groups: The names of groups by path, such as those of patients. The images of a
            group stay on one side.

    Returns:
        The split. Every image of the audit is in exactly one part of it, except those
        of small classes that are left out.

    Raises:
        InputError: If a fraction is out of range, no fraction is left for training,
            the seed is not an integer, or a class has too few different images for all
            parts and `small_classes` is None.
    """
    if small_classes is not None:
        check_choice("small_classes", small_classes, SMALL_CLASSES_MODES)
    fractions = check_fractions(validation_split, test_split)
    seed = check_integer("seed", seed)
    sizes = audit.counts
    targets = {
        part: {name: max(1, round(fraction * n)) for name, n in sizes.items()}
        for part, fraction in fractions.items()
        if fraction > 0
    }
    linked = (
        audit.near_duplicate_groups
        if keep_near_duplicates_together
        else audit.duplicate_groups
    )
    assignment = SplitAssignment(
        order_groups(audit.images, link_groups(audit, linked, groups), seed), targets
    )
    assignment.fill()
    small = assignment.complete(sizes)
    if small and small_classes is None:
        raise InputError(_describe_small_classes(assignment, small, sizes))
    if small and small_classes == "leave-out":
        rest = split_audit(
            _leave_out_classes(audit, small),
            validation_split=validation_split,
            test_split=test_split,
            seed=seed,
            keep_near_duplicates_together=keep_near_duplicates_together,
            small_classes=small_classes,
            groups=groups,
        )
        return replace(rest, small_classes=tuple(sorted({*small, *rest.small_classes})))
    parts = assignment.parts()
    return Split(
        small_classes=tuple(small),
        class_names=audit.class_names,
        seed=seed,
        validation_split=fractions["validation"],
        test_split=fractions["test"],
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
    )


def split_ready_made(
    audit: Audit,
    *,
    validation_split: float = 0.2,
    test_split: float = 0.0,
    seed: int = 42,
    keep_near_duplicates_together: bool = True,
    small_classes: str | None = None,
    groups: Mapping[str, str] = NO_GROUPS,
) -> Split:
    """Splits the images as the folders of a ready-made split say.

    Parts without a folder are taken from the training part by `split_audit`.

    Args:
        audit: The images, with `record.part` for each of them.
        validation_split: Fraction of each class to take from the training part if there
            is no validation part.
        test_split: The same without a test part.
        seed: Any integer.
        keep_near_duplicates_together: See `split_audit`.
        small_classes: See `split_audit`.
        groups: See `split_audit`. They cannot move images of given parts.

    Returns:
        The split.

    Raises:
        InputError: If there is no training part, or as for `split_audit`.
    """
    parts: dict[str, list[ImageRecord]] = {part: [] for part in SPLIT_NAMES}
    for record in audit.images:
        if record.part is not None:
            parts[record.part].append(record)
    if not parts["train"]:
        present = " and ".join(part for part in SPLIT_NAMES if parts[part]) or "none"
        raise InputError(
            f"The ready-made split of `{printable_path(audit.root)}` must have a "
            f"training part. Received: {present}. To split at random, pass "
            "`split='random'` (--split random)"
        )
    taken = split_audit(
        select_images(audit, lambda record: record.part == "train"),
        validation_split=0.0 if parts["validation"] else validation_split,
        test_split=0.0 if parts["test"] else test_split,
        seed=seed,
        keep_near_duplicates_together=keep_near_duplicates_together,
        small_classes=small_classes,
        groups=groups,
    )

    def given(part: str) -> tuple[ImageRecord, ...]:
        return tuple(r for r in parts[part] if r.class_name in taken.class_names)

    return replace(
        taken,
        validation=given("validation") or taken.validation,
        test=given("test") or taken.test,
    )


def check_fractions(validation_split: Any, test_split: Any) -> dict[str, float]:
    """Returns the fractions as floats by the name of the part.

    Raises:
        InputError: If one is out of range, or nothing is left for training.
    """
    fractions = {}
    for part, value in (("validation", validation_split), ("test", test_split)):
        name = f"{part}_split"
        try:
            number = math.nan if isinstance(value, bool | str) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 <= number < 1:
            raise InputError(
                f"`{name}` must be a number from 0 to less than 1. "
                f"Received: {name}={value!r}"
            )
        fractions[part] = number
    if sum(fractions.values()) >= 1:
        raise InputError(
            "`validation_split` and `test_split` must leave images for training: "
            "together less than 1. Received: "
            f"validation_split={validation_split!r}, test_split={test_split!r}"
        )
    return fractions


def _describe_small_classes(
    assignment: SplitAssignment, small: Sequence[str], sizes: Mapping[str, int]
) -> str:
    parts = " and ".join(assignment.part_names)
    advice = "leave out or only train on with `small_classes` (--small-classes)"
    hint = ""
    if any(assignment.count_groups(name) < sizes[name] for name in small):
        hint = (
            ", in groups of copies or similar images that stay together "
            "(`keep_near_duplicates_together=False` or --split-near-duplicates "
            "separates similar ones)"
        )
    if len(small) > 1:
        shown = ", ".join(f"{printable_path(n)} ({sizes[n]} images)" for n in small[:5])
        more = f" and {len(small) - 5} more" if len(small) > 5 else ""
        return (
            f"{len(small)} classes are too small to split into {parts}, which you can "
            f"{advice}. Received: {shown}{more}{hint}"
        )
    (name,) = small
    return (
        f"class {printable_path(name)} is too small to split into {parts}, which you "
        f"can {advice}. Received: {sizes[name]} images{hint}"
    )


def _leave_out_classes(audit: Audit, names: Sequence[str]) -> Audit:
    """Returns the audit without the images of some classes.

    Raises:
        InputError: If fewer than two classes are left.
    """
    class_names = tuple(name for name in audit.class_names if name not in names)
    if len(class_names) < 2:
        raise InputError(
            f"`{printable_path(audit.root)}` must contain at least two classes that "
            f"are large enough to split. Received: {len(class_names)}"
        )
    return select_images(audit, lambda record: record.class_name in class_names)


def select_images(audit: Audit, is_kept: Callable[[ImageRecord], bool]) -> Audit:
    """Returns the audit with some of its images and their classes and groups."""
    images = tuple(record for record in audit.images if is_kept(record))
    paths = {record.path for record in images}
    present = {record.class_name for record in images}

    def keep(groups: Iterable[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
        inside = (tuple(path for path in group if path in paths) for group in groups)
        return tuple(group for group in inside if len(group) > 1)

    return replace(
        audit,
        images=images,
        class_names=tuple(name for name in audit.class_names if name in present),
        duplicate_groups=keep(audit.duplicate_groups),
        near_duplicate_groups=keep(audit.near_duplicate_groups),
    )


def _check_relative_path(path: str) -> str:
    parts = path.split("/")
    if PurePosixPath(path).is_absolute() or not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError("not a path in the data folder")
    return path


class ManifestEntry(BaseModel):
    """One image of a manifest.

    Attributes:
        path: Relative to the data folder, with `/` as the separator.
        sha256: Hexadecimal SHA-256 of its content.
        split: "train", "validation" or "test".
    """

    model_config = ConfigDict(frozen=True, strict=True)

    # InstanceOf, because pydantic refuses text with bytes that are not valid UTF-8.
    path: Annotated[InstanceOf[str], AfterValidator(_check_relative_path)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    split: Literal["train", "validation", "test"]


class SplitManifest(BaseModel):
    """A split as a file that reproduces it on another machine.

    Attributes:
        format: Identifies the file format.
        version: Version of the file format.
        class_names: The position of a name is its label.
        seed: See `Split`.
        validation_split: See `Split`.
        test_split: See `Split`.
        images: One entry per image, sorted by path.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    format: Literal["keras_flowers.split"] = "keras_flowers.split"
    version: Literal[1] = 1
    seed: int
    validation_split: float
    test_split: float
    class_names: Annotated[list[InstanceOf[str]], Field(min_length=2)]
    images: Annotated[
        list[ManifestEntry],
        Field(min_length=1, alias="photos"),
        AfterValidator(lambda entries: sorted(entries, key=lambda entry: entry.path)),
    ]

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        check_fractions(self.validation_split, self.test_split)
        if not all(self.class_names) or len(set(self.class_names)) < len(
            self.class_names
        ):
            raise ValueError("`class_names` must be different names")
        paths = set()
        for entry in self.images:
            if "/" not in entry.path:
                raise ValueError(f"{printable_path(entry.path)} is in no class folder")
            if entry.path in paths:
                raise ValueError(f"{printable_path(entry.path)} appears twice")
            paths.add(entry.path)
        if not any(entry.split == "train" for entry in self.images):
            raise ValueError("no image for training")
        return self


def write_manifest(split: Split, path: str | os.PathLike[str]) -> None:
    """Writes a split as JSON: the path, SHA-256 and part of every image.

    Args:
        split: The split.
        path: The file, which appears or is replaced atomically.

    Raises:
        InputError: If the file cannot be written.
    """
    images = [
        {"path": record.path, "sha256": record.sha256, "split": part}
        for part in SPLIT_NAMES
        for record in getattr(split, part)
    ]
    manifest = SplitManifest.model_validate(
        {
            "seed": split.seed,
            "validation_split": split.validation_split,
            "test_split": split.test_split,
            "class_names": list(split.class_names),
            "photos": images,
        }
    )
    content = manifest.model_dump(by_alias=True)
    write_text_atomically(path, json.dumps(content, indent=1) + "\n")


def read_manifest(path: str | os.PathLike[str]) -> SplitManifest:
    """Reads and validates a manifest.

    Args:
        path: A file from `write_manifest`.

    Returns:
        The manifest.

    Raises:
        InputError: If the file cannot be read or is not a manifest of this version,
            with the first error in it.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return SplitManifest.model_validate(content)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except ValidationError as error:
        reason = _describe_first_error(error, content)
    except (ValueError, RecursionError):
        reason = "a file that is not JSON"
    raise InputError(
        f"`{printable_path(path)}` must be a split manifest. Received: {reason}"
    )


def _describe_first_error(error: ValidationError, content: Any) -> str:
    """Returns where in the manifest the first error is, and what it is."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    match first["loc"]:
        case ("photos", int(row), *_) if isinstance(content["photos"][row], dict):
            place += f" ({printable_path(str(content['photos'][row].get('path')))})"
    message = first["msg"].removeprefix("Value error, ")
    value = "" if first["type"] == "missing" else repr(first["input"])
    shown = f", got {value}" if place and 0 < len(value) < 100 else ""
    return f"{place}{': ' if place else ''}{message}{shown}"


def apply_manifest(audit: Audit, manifest: SplitManifest) -> Split:
    """Splits the images of a folder exactly as a manifest says.

    Args:
        audit: The images of the folder.
        manifest: The result of `read_manifest`.

    Returns:
        The split, with the labels of the manifest. Images that the manifest does not
        list are in `not_in_manifest` and in no part.

    Raises:
        InputError: If an image of the manifest is missing, cannot be read or has
            different content.
    """
    present = {normalize_name(record.path): record for record in audit.images}
    class_names = tuple(normalize_name(name) for name in manifest.class_names)
    parts: dict[str, list[ImageRecord]] = {part: [] for part in SPLIT_NAMES}
    missing, changed = [], []
    for entry in manifest.images:
        record = present.pop(normalize_name(entry.path), None)
        if record is None:
            missing.append(entry.path)
        elif record.class_name not in class_names:
            raise InputError(
                f"The split manifest must list the classes of "
                f"`{printable_path(audit.root)}`. Received: no class "
                f"{printable_path(record.class_name)}, that of "
                f"{printable_path(entry.path)}"
            )
        elif record.sha256 != entry.sha256:
            changed.append(entry.path)
        else:
            parts[entry.split].append(record)
    _refuse_other_images(audit.root, "missing or unreadable", missing)
    _refuse_other_images(audit.root, "with different content", changed)
    return Split(
        class_names=class_names,
        seed=manifest.seed,
        validation_split=manifest.validation_split,
        test_split=manifest.test_split,
        train=tuple(parts["train"]),
        validation=tuple(parts["validation"]),
        test=tuple(parts["test"]),
        not_in_manifest=tuple(present.values()),
    )


def _refuse_other_images(root: Path, what: str, paths: Sequence[str]) -> None:
    if not paths:
        return
    shown = ", ".join(printable_path(path) for path in paths[:3])
    raise InputError(
        f"`{printable_path(root)}` must contain the images of the split manifest. "
        f"Received: {len(paths)} {what}: {shown}{' ...' if len(paths) > 3 else ''}"
    )
