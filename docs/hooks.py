"""Shows mkdocstrings the packages as they are installed.

The folder callbacks/ is installed as `keras_flowers.callbacks`. mkdocstrings reads
sources without importing them and finds a subpackage only below its package, so the
build reads a copy that is laid out as setup.cfg maps it. That needs neither TensorFlow
nor an installation of this package.
"""

import configparser
import shutil
import tempfile
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority

_layout = tempfile.TemporaryDirectory(prefix="keras_flowers-docs-")


@event_priority(100)  # before mkdocstrings reads its configuration
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Copies the sources and names the copy to mkdocstrings."""
    root = Path(config.config_file_path).parent
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg")
    for line in setup["options"]["package_dir"].split("\n"):
        package, _, folder = (part.strip() for part in line.partition("="))
        if package:
            target = Path(_layout.name, *package.split("."))
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(root / folder, target)
    python = config.plugins["mkdocstrings"].config.handlers["python"]
    python["paths"] = [_layout.name]
    return config
