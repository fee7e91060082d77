"""What the processes of a training tell each other of a run."""

import io
import json
import tarfile
from typing import Any

from keras_flowers.training.preparation import PreparedRun
from keras_flowers.training.run_directory import RunDirectory


def identify(configuration: dict[str, Any], prepared: PreparedRun) -> tuple[str, str]:
    """Returns what `Team.require_same` takes of a run.

    Paths may differ: each host may have its own copy of the images.

    Args:
        configuration: `TrainingConfig.to_json` of the run.
        prepared: The run.
    """
    split = prepared.datasets.split
    parts = (split.train, split.validation, split.test)
    versions = {k: v for k, v in configuration["versions"].items() if k != "python"}
    of_host = ("loader", "versions", "init_from")
    content = {
        **{name: value for name, value in configuration.items() if name not in of_host},
        "seed": configuration["loader"]["config"]["seed"],
        "batch_size": prepared.datasets.batch_size,
        "images": [[record.sha256 for record in part] for part in parts],
        "versions": versions,
    }
    return "images, options and versions of packages", json.dumps(content)


def pack(directory: RunDirectory, *names: str) -> bytes:
    """Returns files and folders of a run directory, for `unpack`; missing ones not."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            if (directory.path / name).exists():
                archive.add(directory.path / name, arcname=name)
    return buffer.getvalue()


def unpack(content: bytes, directory: RunDirectory) -> None:
    """Writes to a run directory what `pack` has returned."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(directory.path, filter="data")
