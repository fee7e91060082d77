"""All settings, in the order in which `--help` and the tables list them."""

from keras_flowers_settings import (
    data,
    files,
    inference,
    model,
    search,
    serving,
    training,
)
from keras_flowers_settings.setting import Setting

ALL_SETTINGS: tuple[Setting, ...] = (
    *training.RANGE_TEST,
    *search.SEARCH,
    *search.SPACE,
    *data.SETTINGS,
    *model.SETTINGS,
    *training.SETTINGS,
    *inference.SETTINGS,
    *serving.SETTINGS,
    *files.RUN,
    *files.STORAGE,
    *files.TRACKERS,
    *files.OUTPUT,
)


def settings_of(command: str) -> tuple[Setting, ...]:
    """Returns the settings of a command."""
    return tuple(setting for setting in ALL_SETTINGS if command in setting.commands)
