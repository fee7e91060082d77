"""Decides which images train, validate and test.

A split is stratified: the same fraction of each class validates. It depends only on the
content of the images and the seed, not on the order or names of files or on the
machine, and a new image moves few others. Copies of an image, and images that show
nearly the same picture, stay on one side.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from keras_flowers.argument_checks import check_choice, check_integer
from keras_flowers.data.audit import Audit, count_classes, keep_classes
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.split_assignment import SPLIT_NAMES as SPLIT_NAMES
from keras_flowers.data.split_assignment import (
    SplitAssignment,
    link_groups,
    order_groups,
)
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path
from keras_flowers.notebook import html_table

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
        multi_label: Whether an image may have several classes, or none.
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
    multi_label: bool = False

    def __repr__(self) -> str:
        """Returns the sizes, not the images."""
        sizes = ", ".join(f"{len(getattr(self, name))} {name}" for name in SPLIT_NAMES)
        left = len(self.not_in_manifest)
        more = f", {left} not in the manifest" if left else ""
        return f"Split({len(self.class_names)} classes: {sizes}{more})"

    def _repr_html_(self) -> str:
        parts = [getattr(self, name) for name in SPLIT_NAMES]
        counts = [count_classes(images) for images in parts]
        rows = [[name, *(count[name] for count in counts)] for name in self.class_names]
        what = "all images" if self.multi_label else "all classes"
        total = [what, *map(len, parts)]
        return html_table(repr(self), ["class", *SPLIT_NAMES], [total, *rows])


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


@dataclass(frozen=True)
class SplitOptions:
    """How to split images.

    Attributes:
        validation_split: Fraction of each class, 0 to less than 1; 0 for none.
        test_split: Fraction of each class, 0 to less than 1; 0 for none.
        seed: Any integer.
        keep_near_duplicates_together: Whether images that show nearly the same
            picture stay on one side. Images with equal bytes always do.
        small_classes: What to do with classes that have too few different images for
            all parts: "leave-out" or "train-only"; None refuses them.
        groups: The names of groups by path, such as those of patients. The images of a
            group stay on one side.

    Raises:
        InputError: If an attribute is not as described above, or no fraction is left
            for training.
    """

    validation_split: float = 0.2
    test_split: float = 0.0
    seed: int = 42
    keep_near_duplicates_together: bool = True
    small_classes: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Checks the attributes."""
        fractions = check_fractions(self.validation_split, self.test_split)
        object.__setattr__(self, "validation_split", fractions["validation"])
        object.__setattr__(self, "test_split", fractions["test"])
        object.__setattr__(self, "seed", check_integer("seed", self.seed))
        if self.small_classes is not None:
            check_choice("small_classes", self.small_classes, SMALL_CLASSES_MODES)


DEFAULT_SPLIT_OPTIONS = SplitOptions()


def split_audit(audit: Audit, options: SplitOptions = DEFAULT_SPLIT_OPTIONS) -> Split:
    """Splits the images of each class by the same fractions.

    Of a class of `n` images, `round(validation_split * n)` validate and
    `round(test_split * n)` test, but at least one unless the fraction is 0. Because
    copies stay together, a class may miss these numbers by less than the size of its
    largest group of copies, or by more if groups contain several classes.

    Images that may have several classes are split by `SplitAssignment.fill_by_rarity`.

    Args:
        audit: The images.
        options: How to split them.

    Returns:
        The split. Every image of the audit is in exactly one part of it, except those
        of small classes that are left out.

    Raises:
        InputError: If a class has too few different images for all parts and
            `options.small_classes` is None.
    """
    sizes = audit.counts
    fractions = {"validation": options.validation_split, "test": options.test_split}
    targets = {
        part: {name: max(1, round(fraction * n)) for name, n in sizes.items()}
        for part, fraction in fractions.items()
        if fraction > 0
    }
    linked = (
        audit.near_duplicate_groups
        if options.keep_near_duplicates_together
        else audit.duplicate_groups
    )
    groups = link_groups(audit, linked, options.groups)
    assignment = SplitAssignment(
        order_groups(audit.images, groups, options.seed), targets
    )
    if audit.multi_label:
        assignment.fill_by_rarity(sizes)
    else:
        assignment.fill()
    small = assignment.complete(sizes)
    if small and options.small_classes is None:
        raise InputError(_describe_small_classes(assignment, small, sizes))
    if small and options.small_classes == "leave-out":
        rest = split_audit(_leave_out_classes(audit, small), options)
        return replace(rest, small_classes=tuple(sorted({*small, *rest.small_classes})))
    parts = assignment.parts()
    return Split(
        small_classes=tuple(small),
        class_names=audit.class_names,
        seed=options.seed,
        validation_split=options.validation_split,
        test_split=options.test_split,
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
        multi_label=audit.multi_label,
    )


def split_ready_made(
    audit: Audit, options: SplitOptions = DEFAULT_SPLIT_OPTIONS
) -> Split:
    """Splits the images as the folders of a ready-made split say.

    Parts without a folder are taken from the training part by `split_audit`. Groups
    cannot move images of given parts.

    Args:
        audit: The images, with `record.part` for each of them.
        options: How to split the training part; the fractions count only for parts
            that are missing.

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
        _replace_images(audit, tuple(parts["train"])),
        replace(
            options,
            validation_split=0.0 if parts["validation"] else options.validation_split,
            test_split=0.0 if parts["test"] else options.test_split,
        ),
    )

    def given(part: str) -> tuple[ImageRecord, ...]:
        return keep_classes(parts[part], taken.class_names)

    return replace(
        taken,
        validation=given("validation") or taken.validation,
        test=given("test") or taken.test,
    )


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
    return select_classes(audit, class_names)


def select_classes(audit: Audit, names: Collection[str]) -> Audit:
    """Returns the audit with the images of some classes; see `keep_classes`."""
    return _replace_images(audit, keep_classes(audit.images, names))


def _replace_images(audit: Audit, images: tuple[ImageRecord, ...]) -> Audit:
    """Returns the audit with some of its images and their classes and groups."""
    paths = {record.path for record in images}
    present = count_classes(images)

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
