"""Decides which folders of a data folder are classes and which are parts of a split.

The rule looks at the names of folders and at the number of images in them:

1. A folder that does nothing but contain one other folder is skipped.
2. Folders named like the parts of a split, such as `train`, `Training_set`, `seg_test`
   or `val2017`, that contain class folders are a ready-made split. Other folders next
   to them are left out.
3. Otherwise, the folders are the classes, and all images in a class folder belong to
   the class, however deep they are. Only if all folders have names that count, such as
   `2023`, `batch_1` or `camera2`, and contain folders with real names, these are the
   classes.
4. A class folder whose folders are all named like parts contains a ready-made split.

Folders of systems and programs, and what this package has written, are never classes.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from keras_flowers_runtime.images import is_clutter as is_clutter

from keras_flowers.errors import InputError
from keras_flowers.files import printable_path

# A folder that contains all files of a set was written by `train`, `tune` or
# `evaluate`, or is a cache by the standard of bford.info/cachedir.
_PROGRAM_FOLDERS = (
    {"config.json", "split.json"},
    {"search.json", "split.json"},
    {"evaluation.json", "predictions.csv"},
    {"cachedir.tag"},
)

SPLIT_NAMES = ("train", "validation", "test")

_PARTS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "validate": "validation",
    "validating": "validation",
    "dev": "validation",
    "eval": "validation",
    "test": "test",
    "testing": "test",
    "tst": "test",
    "holdout": "test",
}
_PART_SUFFIX = re.compile(r"(set|sets|data|dataset|images|imgs|split|folder|\d)+$")
_COUNTER = re.compile(
    r"((19|20)\d\d([-_. ]?\d\d){0,2}|\d+|imgs?|images?|photos?|pictures?|raw|dcim|"
    r"new folder|"
    r"(batch|part|fold|session|camera|cam|day|set|group|run|shoot|folder|dir|album|"
    r"disk|card|img|imgs|images?|photos?|pictures?|new folder)[-_ .]*"
    r"(\d+|[a-z]|\(\d+\)))"
)


def is_program_folder(names: Iterable[str]) -> bool:
    """Returns whether a folder with these entries was written by a program.

    The program is this package, or any that marks its cache with a `CACHEDIR.TAG`.
    """
    present = {name.lower() for name in names}
    return any(marks <= present for marks in _PROGRAM_FOLDERS)


def normalize_name(name: str) -> str:
    """Returns a name in the Unicode form NFC, in which equal names are equal.

    macOS and some archives write `ö` as two characters, most others as one.
    """
    return unicodedata.normalize("NFC", name)


def split_part(name: str) -> str | None:
    """Returns the part of a split that a folder is named like.

    Args:
        name: The name of a folder, such as "Train", "test_set" or "seg_val".

    Returns:
        "train", "validation", "test", or None for any other name.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    words = re.split(r"[^a-z0-9]+", spaced.lower())
    parts = {
        _PARTS[word]
        for given in words
        for word in (given, _PART_SUFFIX.sub("", given))
        if word in _PARTS
    }
    if {"hold", "out"} <= set(words):
        parts.add("test")
    return parts.pop() if len(parts) == 1 else None


@dataclass(frozen=True)
class ClassFolder:
    """A folder whose images belong to one class.

    Attributes:
        path: Relative to `Layout.root`, with `/` as the separator.
        class_name: The name of the class in the Unicode form NFC. Several folders may
            belong to one class.
        part: "train", "validation", "test", or None without a ready-made split.
    """

    path: str
    class_name: str
    part: str | None = None


@dataclass(frozen=True)
class Layout:
    """Where the classes of a data folder are.

    Attributes:
        root: The folder that contains all classes or parts, relative to the data
            folder; "" for the data folder itself.
        class_folders: The folders of classes, sorted by path.
        description: What was recognized as what and why, in one line.
    """

    root: str
    class_folders: tuple[ClassFolder, ...]
    description: str

    def class_folder_of(self, path: str) -> ClassFolder | None:
        """Returns the class folder of a file, or None if it is in no class folder.

        Args:
            path: The file, relative to `root`.
        """
        folders = {folder.path: folder for folder in self.class_folders}
        return _find_ancestor(folders, path)

    def class_folders_of(self, paths: Iterable[str]) -> Iterator[ClassFolder | None]:
        """Yields the result of `class_folder_of` for each path."""
        folders = {folder.path: folder for folder in self.class_folders}
        for path in paths:
            yield _find_ancestor(folders, path)

    @property
    def has_parts(self) -> bool:
        """Whether there is a ready-made split."""
        return any(folder.part for folder in self.class_folders)


def _find_ancestor(folders: dict[str, ClassFolder], path: str) -> ClassFolder | None:
    while "/" in path:
        path = path.rpartition("/")[0]
        if path in folders:
            return folders[path]
    return None


@dataclass
class _Folder:
    """A folder with images in it or below it."""

    path: str
    images: int = 0
    folders: dict[str, "_Folder"] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def class_names(self) -> set[str]:
        return {normalize_name(name) for name in self.folders}


def find_layout(
    images: Iterable[str],
    *,
    name: str = "the data folder",
    class_depth: int | None = None,
    class_names: Collection[str] = (),
) -> Layout:
    """Finds the class folders among the folders of images.

    Args:
        images: The paths of the image files, relative to the data folder and with `/`
            as the separator.
        name: What messages call the data folder.
        class_depth: How many levels below the data folder the class folders are, from
            1; None applies the rule of this module.
        class_names: Class names to look for, such as those that a model knows. The
            classes are the folders on the first level that has one of these names.

    Returns:
        The layout, with one class folder at least.

    Raises:
        InputError: If there are no images, or none in a class folder.
    """
    tree = _build_tree(images)
    if class_depth is not None:
        return _layout_at_depth(tree, class_depth, name)
    if class_names:
        known = {normalize_name(known) for known in class_names}
        base = next((f for f in _breadth_first(tree) if f.class_names() & known), None)
        if base is not None and not _find_parts(_unwrap(tree)):
            return _layout_of_classes(base, skipped=base is not tree, name=name)
    base = _unwrap(tree)
    parts = _find_parts(base)
    if parts:
        return _layout_of_parts(base, parts)
    if not base.folders:
        what = "images directly in it" if base.images else "no image in any folder"
        raise InputError(
            f"{name} must contain one folder of images per class. Received: {what}"
        )
    named = {split_part(folder) for folder in base.folders}
    if len(named) > 1 and None not in named:
        raise InputError(
            f"{name} must contain one folder of images per class. Received: a "
            f"ready-made split without class folders, {_list_names(base.folders)}. If "
            "these are the classes, pass class_depth=1 (--class-depth 1)"
        )
    return _layout_of_classes(base, skipped=base is not tree, name=name)


def _build_tree(images: Iterable[str]) -> _Folder:
    tree = _Folder("")
    known = {"": tree}

    def find(path: str) -> _Folder:
        if path not in known:
            above, _, name = path.rpartition("/")
            known[path] = find(above).folders.setdefault(name, _Folder(path))
        return known[path]

    for image in images:
        find(image.rpartition("/")[0]).images += 1
    return tree


def _breadth_first(tree: _Folder) -> Iterator[_Folder]:
    level = [tree]
    while level:
        yield from level
        level = [child for folder in level for child in folder.folders.values()]


def _unwrap(folder: _Folder) -> _Folder:
    """Returns the first folder below that does more than contain one other folder."""
    while len(folder.folders) == 1:
        (child,) = folder.folders.values()
        # One class alone cannot be learned, so a single folder of several others wraps
        # them even if an image, such as a preview, is next to them.
        if not child.folders or (child.images and len(child.folders) < 2):
            break
        folder = child
    return folder


def _is_counter(name: str) -> bool:
    return _COUNTER.fullmatch(name.lower()) is not None


def _find_parts(base: _Folder) -> dict[str, tuple[str, _Folder]]:
    """Returns the part and the folder of class folders of each folder of a split."""
    named = {
        name: (part, folder)
        for name, folder in base.folders.items()
        if (part := split_part(name)) is not None
    }
    candidates = [(part, _unwrap(folder)) for part, folder in named.values()]
    # The part that everything else is compared with.
    reference = max(
        candidates, key=lambda c: (c[0] == "train", len(c[1].folders)), default=None
    )
    if reference is None or not reference[1].folders:
        return {}
    class_names = reference[1].class_names()
    # Names that differ in case are different classes, but those of a part.
    keys = {_comparison_key(name) for name in class_names}
    parts = {}
    for name, (part, folder) in named.items():
        for inner in _wrapped_folders(folder):
            if not keys.isdisjoint(map(_comparison_key, inner.class_names())):
                parts[name] = part, inner
                break
    if len({part for part, _ in parts.values()}) > 1:
        return parts
    # A lone training part counts only if no folder next to it looks like a class.
    real = {name for name in class_names if not _is_counter(name)}
    others = [folder for name, folder in base.folders.items() if name not in named]
    if (
        reference[0] == "train"
        and not reference[1].images
        and len(class_names) > 1
        and (not others or len(real) > 1)
        and all(_is_flat(f) or len(f.class_names() & real) > 1 for f in others)
    ):
        return parts
    return {}


def _is_flat(folder: _Folder) -> bool:
    """Returns whether all images are in a single folder."""
    *_, innermost = _wrapped_folders(folder)
    return not innermost.folders


def _wrapped_folders(folder: _Folder) -> Iterator[_Folder]:
    """Yields a folder and the folders that it merely wraps."""
    yield folder
    while len(folder.folders) == 1 and not folder.images:
        (folder,) = folder.folders.values()
        yield folder


def _layout_of_parts(base: _Folder, parts: dict[str, tuple[str, _Folder]]) -> Layout:
    class_folders = [
        (child, part)
        for part, inner in parts.values()
        for child in inner.folders.values()
    ]
    used = ", ".join(
        f"{printable_path(name)} ({part})" for name, (part, _) in sorted(parts.items())
    )
    description = f"Ready-made split: {used}, with the classes in them"
    left_out = [name for name in base.folders if name not in parts]
    if left_out:
        description += (
            f"; left out, because they are not parts with class folders: "
            f"{_list_names(left_out)}"
        )
    return _make_layout(base, class_folders, description)


def _layout_of_classes(base: _Folder, *, skipped: bool, name: str) -> Layout:
    children = list(base.folders.values())
    where = printable_path(base.path) if skipped else name
    inner = [split_part(n) for child in children for n in child.folders]
    has_images = any(child.images for child in children)
    if len(set(inner)) > 1 and None not in inner and not has_images:
        class_folders = [
            (part, child.name, split_part(part.name))
            for child in children
            for part in child.folders.values()
        ]
        return Layout(
            base.path,
            _sort(
                ClassFolder(_relative(base, part), normalize_name(class_name), of)
                for part, class_name, of in class_folders
            ),
            f"Classes: the {len(children)} folders in {where}, each with a ready-made "
            "split",
        )
    names = {n for child in children for n in child.class_names()}
    if (
        all(_is_counter(child.name) and not child.images for child in children)
        and len(names) > 1
        and not any(_is_counter(n) for n in names)
    ):
        folders = [(f, None) for child in children for f in child.folders.values()]
        return _make_layout(
            base,
            folders,
            f"Classes: the folders in {_list_names(base.folders)}, whose own names "
            f"only count, in {where}",
        )
    shared = {
        n
        for n in names
        if not _is_counter(n) and sum(n in c.class_names() for c in children) > 1
    }
    if len(shared) > 1 and not has_images:
        depth = base.path.count("/") + 2 if base.path else 1
        raise InputError(
            f"The classes in {where} may be {_list_names(base.folders)} or, in each of "
            f"them, {_list_names(shared)}. Pass class_depth={depth} or "
            f"class_depth={depth + 1} (--class-depth)"
        )
    deep = any(child.folders for child in children)
    description = f"Classes: the {len(children)} folders in {where}"
    if deep:
        description += ", with all folders in them"
    if skipped:
        description += ", which is the only folder with folders of images"
    return _make_layout(base, [(child, None) for child in children], description)


def _layout_at_depth(tree: _Folder, depth: int, name: str) -> Layout:
    level = [tree]
    for _ in range(depth):
        level = [child for folder in level for child in folder.folders.values()]
    if not level:
        raise InputError(
            f"{name} has no folder of images {depth} levels down, where "
            f"`class_depth={depth}` expects the class folders"
        )
    parts = [_part_of_path(folder.path.rpartition("/")[0]) for folder in level]
    if len(set(parts) - {None}) < 2:
        parts = [None] * len(level)
    used = [
        (folder, part)
        for folder, part in zip(level, parts, strict=True)
        if part is not None or not any(parts)
    ]
    description = f"Classes: the folders {depth} levels below {name}, as requested"
    if any(parts):
        description += ", in a ready-made split"
    return _make_layout(tree, used, description)


def _part_of_path(path: str) -> str | None:
    parts = [part for name in path.split("/") if (part := split_part(name))]
    return parts[0] if parts else None


def _make_layout(
    base: _Folder, folders: Sequence[tuple[_Folder, str | None]], description: str
) -> Layout:
    return Layout(
        base.path,
        _sort(
            ClassFolder(_relative(base, folder), normalize_name(folder.name), part)
            for folder, part in folders
        ),
        description,
    )


def _sort(folders: Iterable[ClassFolder]) -> tuple[ClassFolder, ...]:
    return tuple(sorted(folders, key=lambda folder: folder.path))


def _relative(base: _Folder, folder: _Folder) -> str:
    return folder.path[len(base.path) + 1 :] if base.path else folder.path


def _list_names(names: Iterable[str]) -> str:
    ordered = sorted(names)
    shown = ", ".join(f"{printable_path(name)}/" for name in ordered[:4])
    return shown + (f" and {len(ordered) - 4} more" if len(ordered) > 4 else "")


def _comparison_key(name: str) -> str:
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if c.isalnum()) or folded


def similar_names(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns the groups of names that differ only in case, spaces or punctuation.

    Args:
        names: Different names in the Unicode form NFC.
    """
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[_comparison_key(name)].append(name)
    return [tuple(sorted(group)) for group in groups.values() if len(group) > 1]
