"""Writes a split to a manifest, and splits images as a manifest says."""

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
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

from keras_flowers.data.audit import Audit
from keras_flowers.data.image_files import ImageRecord
from keras_flowers.data.layout import normalize_name
from keras_flowers.data.splits import SPLIT_NAMES, Split, check_fractions
from keras_flowers.errors import InputError
from keras_flowers.files import printable_path, write_text_atomically


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
        labels: The classes of an image that may have several, or that is in no folder;
            None for the class of its folder. For the record: a label file decides the
            labels of a run.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    # InstanceOf, because pydantic refuses text with bytes that are not valid UTF-8.
    path: Annotated[InstanceOf[str], AfterValidator(_check_relative_path)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    split: Literal["train", "validation", "test"]
    labels: list[InstanceOf[str]] | None = None


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
            if "/" not in entry.path and entry.labels is None:
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
        {
            "path": record.path,
            "sha256": record.sha256,
            "split": part,
            "labels": (
                list(record.class_names)
                if record.labels is not None or "/" not in record.path
                else None
            ),
        }
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
    content = manifest.model_dump(by_alias=True, exclude_none=True)
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
        list are in `not_in_manifest` and in no part. Entries of excluded images are
        left out.

    Raises:
        InputError: If an image of the manifest is missing, cannot be read or has
            different content.
    """
    present = {normalize_name(record.path): record for record in audit.images}
    class_names = tuple(normalize_name(name) for name in manifest.class_names)
    excluded = {normalize_name(path) for path in audit.excluded}
    parts: dict[str, list[ImageRecord]] = {part: [] for part in SPLIT_NAMES}
    missing, changed = [], []
    for entry in manifest.images:
        path = normalize_name(entry.path)
        record = present.pop(path, None)
        if path in excluded:
            continue
        if record is None:
            missing.append(entry.path)
        elif unlisted := set(record.class_names).difference(class_names):
            raise InputError(
                f"The split manifest must list the classes of "
                f"`{printable_path(audit.root)}`. Received: no class "
                f"{printable_path(min(unlisted))}, that of "
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
        multi_label=audit.multi_label,
    )


def _refuse_other_images(root: Path, what: str, paths: Sequence[str]) -> None:
    if not paths:
        return
    shown = ", ".join(printable_path(path) for path in paths[:3])
    raise InputError(
        f"`{printable_path(root)}` must contain the images of the split manifest. "
        f"Received: {len(paths)} {what}: {shown}{' ...' if len(paths) > 3 else ''}"
    )
