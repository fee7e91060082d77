"""Leaves images out that the user has listed, or that an audit has found."""

import json
import os
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from keras_flowers.data.findings import KINDS, Finding, list_paths
from keras_flowers.data.image_listing import ImageListing
from keras_flowers.data.layout import normalize_name
from keras_flowers.errors import InputError
from keras_flowers.files import explain_os_error, printable_path

EXCLUDABLE_KINDS = tuple(n for n, kind in KINDS.items() if kind.exclude != "none")


def check_exclude(
    exclude: str | os.PathLike[str] | Sequence[str] | None,
) -> str | tuple[str, ...] | None:
    """Returns what to exclude as text, or as a tuple of paths.

    Raises:
        InputError: If it is neither a file nor a list of paths.
    """
    if exclude is None or isinstance(exclude, str):
        return exclude
    if isinstance(exclude, os.PathLike):
        return os.fspath(exclude)
    if isinstance(exclude, Sequence) and all(isinstance(p, str) for p in exclude):
        return tuple(exclude)
    raise InputError(
        "`exclude` must be a file, or a list of paths as text. "
        f"Received: exclude={exclude!r}"
    )


def check_kinds(kinds: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """Returns the kinds of findings to exclude.

    Args:
        kinds: Their names, or one text with commas between them.

    Raises:
        InputError: If there is no such kind, or its findings are not about images.
    """
    if kinds is None:
        return None
    names = kinds.split(",") if isinstance(kinds, str) else list(kinds)
    names = [name.strip() for name in names]
    wrong = [name for name in names if name not in EXCLUDABLE_KINDS]
    if wrong or not names:
        raise InputError(
            "`exclude_kinds` must be kinds of findings about images: "
            f"{', '.join(EXCLUDABLE_KINDS)}. Received: {', '.join(wrong) or 'none'}"
        )
    return tuple(names)


def read_exclusions(
    exclude: str | os.PathLike[str] | Sequence[str], kinds: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Returns the paths to leave out.

    Args:
        exclude: The paths, or a file: a text with one path per line, or the JSON file
            of an audit.
        kinds: The kinds of findings of an audit whose paths to return.

    Returns:
        The paths as they are written in the file, each once.

    Raises:
        InputError: If the file cannot be read or is of neither form, or `kinds` are
            missing for an audit, or given for anything else.
    """
    if not isinstance(exclude, str | os.PathLike):
        _refuse_kinds(kinds, "a list of paths")
        return tuple(dict.fromkeys(exclude))
    file = Path(exclude).expanduser()
    name = printable_path(file)
    try:
        # Bytes that are no text are kept: they may be part of a name.
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise explain_os_error(
            error, file, "`exclude` must be a list of paths or an audit", action="read"
        ) from error
    if text.lstrip().startswith("{"):
        return _read_audit(name, text, kinds)
    if "\0" in text:
        raise InputError(
            f"`{name}` must be a text with one path per line, or the JSON file of an "
            "audit. Received: a binary file"
        )
    _refuse_kinds(kinds, f"`{name}`, a text file")
    lines = (line.rstrip("\r") for line in text.split("\n"))
    return tuple(dict.fromkeys(line for line in lines if line.strip()))


def _refuse_kinds(kinds: Sequence[str] | None, received: str) -> None:
    if kinds is not None:
        raise InputError(
            "`exclude_kinds` needs the JSON file of an audit as `exclude`. "
            f"Received: {received}"
        )


def _read_audit(name: str, text: str, kinds: Sequence[str] | None) -> tuple[str, ...]:
    try:
        findings = [
            (str(found["kind"]), [str(path) for path in found["exclude"]])
            for found in json.loads(text)["findings"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"`{name}` must be a text with one path per line, or the JSON file that "
            f"`keras-flowers audit --json` prints. Received: a file without such "
            "findings"
        ) from error
    if kinds is None:
        present = dict.fromkeys(kind for kind, paths in findings if paths)
        raise InputError(
            f"`exclude_kinds` must choose the findings of `{name}` to exclude: "
            f"{', '.join(present) or 'it has none about images'}. Received: nothing"
        )
    return tuple(
        dict.fromkeys(
            path for kind, paths in findings if kind in kinds for path in paths
        )
    )


def exclude_files(listing: ImageListing, paths: Iterable[str]) -> ImageListing:
    """Returns a listing without some of its files.

    Args:
        listing: The files of a data folder.
        paths: Files or folders, absolute or relative to the data folder or to the root
            of the listing. Unicode forms do not matter.

    Returns:
        The listing, in which `excluded` has the files and `findings` says how many
        they are and which paths match no file.
    """
    paths = list(paths)
    if not paths:
        return listing
    finder = _FileFinder(listing)
    excluded: set[str] = set()
    unmatched = []
    for path in paths:
        found = finder.find(path)
        excluded.update(found)
        if not found:
            unmatched.append(path)
    kept = [
        (file, folder)
        for file, folder in zip(listing.files, listing.classes, strict=True)
        if file.path not in excluded
    ]
    findings = list(listing.findings)
    left_out = tuple(file.path for file in listing.files if file.path in excluded)
    if left_out:
        message = f"left out as requested: {list_paths(left_out)}"
        findings.append(Finding("excluded", left_out, message))
    if unmatched:
        message = f"no such file to exclude: {list_paths(unmatched)}"
        findings.append(Finding("not_found", tuple(unmatched), message))
    rest = replace(
        listing,
        files=tuple(file for file, _ in kept),
        classes=tuple(folder for _, folder in kept),
        excluded=left_out,
    )
    present = set(rest.class_names)
    for class_name in listing.class_names:
        if class_name not in present:
            message = f"{printable_path(class_name)}: all of its images are excluded"
            findings.append(Finding("empty_class", (class_name,), message))
    return replace(rest, findings=tuple(findings))


class _FileFinder:
    """Finds the files of a listing that a user's path means."""

    def __init__(self, listing: ImageListing) -> None:
        self._root = listing.root
        above = listing.layout.root
        # Paths may start at the data folder that the user knows.
        self._prefix = f"{normalize_name(above)}/" if above else ""
        self._files: dict[str, str] = {}
        self._folders: dict[str, list[str]] = {}
        for file in listing.files:
            name = normalize_name(file.path)
            self._files[name] = file.path
            while "/" in name:
                name = name.rpartition("/")[0]
                self._folders.setdefault(name, []).append(file.path)

    def find(self, path: str) -> list[str]:
        """Returns the file, or all files of the folder; empty if there is none."""
        for name in (path, path.strip(), path.replace("\\", "/").strip()):
            if posixpath.isabs(name):
                name = self._relative(name)
            name = normalize_name(posixpath.normpath(name))
            for candidate in (name, name.removeprefix(self._prefix)):
                if candidate in self._files:
                    return [self._files[candidate]]
                if candidate in self._folders:
                    return self._folders[candidate]
        return []

    def _relative(self, path: str) -> str:
        for root in (self._root.absolute(), self._root.resolve()):
            if Path(path).is_relative_to(root):
                return Path(path).relative_to(root).as_posix()
        return path
