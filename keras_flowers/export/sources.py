"""What is exported, and the images that prove it: those of its run, or drawn ones."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_flowers.data.dataset_loader import ImageDatasetLoader
from keras_flowers.data.layout import normalize_name
from keras_flowers.data.split_manifest import read_manifest
from keras_flowers.errors import InputError, first_line
from keras_flowers.files import printable_path
from keras_flowers.models.image_classifier import ImageClassifier
from keras_flowers.models.saved_classifier import load_classifier
from keras_flowers.progress import Progress


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """An image whose labels are known.

    Attributes:
        path: The file.
        name: Its path below the data folder, with `/` between its parts.
        class_names: Its class, or all of its labels.
    """

    path: Path
    name: str
    class_names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class RunImages:
    """The images of the run that trained a model.

    Attributes:
        train: Those that it was trained on.
        validation: Those that it was not trained on.
        counts: Number of training images of each class.
        reason_missing: Why there are none, in one line, or `None`.
    """

    train: tuple[LabelledImage, ...] = ()
    validation: tuple[LabelledImage, ...] = ()
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    reason_missing: str | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A model and the run that it comes from.

    Attributes:
        model: The model.
        file: Its file, or `None` for a model in memory.
        run: The run directory, or `None` where it is not known.
        config: The configuration of the run; empty without one.
    """

    model: ImageClassifier
    file: Path | None = None
    run: Path | None = None
    config: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def data(self) -> str | None:
        """The data that the run was trained on, as it was named, without folders."""
        data = self.config.get("loader", {}).get("config", {}).get("data")
        return Path(data).name if isinstance(data, str) else None

    def find_images(self, progress: Progress | None = None) -> RunImages:
        """Returns the images of the run that still exist.

        Args:
            progress: Called while an archive is downloaded or unpacked.
        """
        if self.run is None:
            return RunImages(reason_missing="the model was not exported from a run")
        try:
            manifest = read_manifest(self.run / "split.json")
            loader = keras.saving.deserialize_keras_object(self.config["loader"])
            if not isinstance(loader, ImageDatasetLoader):
                raise InputError("config.json names no data")
            listing = loader.list_images(progress)
        except (InputError, KeyError, TypeError, ValueError) as error:
            return RunImages(reason_missing=first_line(error))
        # Names may be normalized differently on the disk of another machine.
        present = {
            normalize_name(path): (path, names)
            for path, names in listing.labels_by_path().items()
        }
        parts: dict[str, list[LabelledImage]] = {}
        counts = dict.fromkeys(manifest.class_names, 0)
        for entry in manifest.images:
            found = present.get(normalize_name(entry.path))
            # Images that are gone still count as training images.
            folder = entry.path.partition("/")[0]
            names = found[1] if found else entry.labels or (folder,)
            for name in names if entry.split == "train" else ():
                if name in counts:
                    counts[name] += 1
            if found:
                path = listing.root / found[0]
                image = LabelledImage(path, entry.path, tuple(names))
                parts.setdefault(entry.split, []).append(image)
        train = tuple(parts.get("train", ()))
        validation = tuple(parts.get("validation", ()))
        missing = f"no image of the run is in {printable_path(listing.root)} any more"
        return RunImages(
            train, validation, counts, None if train or validation else missing
        )


def find_source(model: ImageClassifier | str | os.PathLike[str]) -> Source:
    """Finds a model.

    Args:
        model: The model, a `.keras` file that holds one, or the directory of a run.

    Raises:
        InputError: If there is none.
    """
    if isinstance(model, ImageClassifier):
        return Source(model)
    if not isinstance(model, str | os.PathLike):
        raise InputError(
            "`model` must be an ImageClassifier, a .keras file or a run directory. "
            f"Received: {type(model).__name__}"
        )
    path = Path(model).expanduser()
    file = path / "model.keras" if path.is_dir() else path
    shown = printable_path(path)
    if not file.is_file():
        raise InputError(
            f"`{shown}` must be a .keras file or the directory of a run with a "
            f"model.keras. Received: {'a folder' if path.is_dir() else 'no file'}"
            f"{' without one' if path.is_dir() else ''}"
        )
    loaded = load_classifier(file)
    run = file.parent if file.name == "model.keras" else None
    config = None if run is None else _read_config(run / "config.json")
    return Source(loaded, file, None if config is None else run, config or {})


def _read_config(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def spread(images: Sequence[LabelledImage], count: int) -> list[LabelledImage]:
    """Returns at most `count` of the images, evenly spread over all of them."""
    count = min(count, len(images))
    return [images[index * len(images) // count] for index in range(count)]
