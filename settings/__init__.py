"""The one list of what a run is made of.

Each setting is described once, as a `Setting` in `data`, `model`, `training`, `search`,
`inference` or `files`. From it follow the options of the command line, the tables of
docs/cli.md, how a configuration is described in the report, and the hyperparameters
in TensorBoard. To add a setting, add an entry there and the code that obeys it.

Nothing here imports Keras or another package of this project, so that the command
line answers `--help` at once.
"""

from keras_flowers_settings.catalog import ALL_SETTINGS, settings_of
from keras_flowers_settings.description import (
    Group,
    Row,
    describe_run,
    hyperparameters,
)
from keras_flowers_settings.setting import Automatic, ModelFacts, Setting

__all__ = [
    "ALL_SETTINGS",
    "Automatic",
    "Group",
    "ModelFacts",
    "Row",
    "Setting",
    "describe_run",
    "hyperparameters",
    "settings_of",
]
