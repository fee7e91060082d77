"""Describes the configuration of a run for people and for TensorBoard."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_flowers_settings.catalog import ALL_SETTINGS
from keras_flowers_settings.recorded import model_facts
from keras_flowers_settings.setting import (
    DATA,
    ENVIRONMENT,
    MODEL,
    TRAINING,
    Automatic,
    ModelFacts,
    Setting,
)
from keras_flowers_settings.values import Scalar, to_scalar, to_text


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of a description.

    Attributes:
        label: The name of the setting for people.
        value: Its value for people.
        is_default: Whether the value is known to be the default.
    """

    label: str
    value: str
    is_default: bool


@dataclasses.dataclass(frozen=True)
class Group:
    """The rows of one part of a run: data, model, training or environment."""

    name: str
    rows: tuple[Row, ...]


def describe_run(config: Mapping[str, Any]) -> tuple[Group, ...]:
    """Describes the content of a `config.json`.

    Args:
        config: The content, with JSON types alone. What it does not say, as that of
            a model that is not an `ImageClassifier`, has no row.

    Returns:
        The groups in the order data, model, training, environment.
    """
    facts = model_facts(config)
    rows = {
        DATA: [Row("data", str(config["loader"]["config"]["data"]), False)],
        MODEL: [Row("model", str(config["model"]["class_name"]), True)],
        TRAINING: [],
        # Nobody chooses a version for a run.
        ENVIRONMENT: [
            Row(name, str(version), True)
            for name, version in config.get("versions", {}).items()
        ],
    }
    for setting in ALL_SETTINGS:
        row = _describe(setting, config, facts)
        if row is not None:
            rows[setting.group].append(row)
    return tuple(Group(name, tuple(rows[name])) for name in rows)


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Scalar]:
    """Returns the hyperparameters in a `config.json`, the same names for every run.

    An automatic default is the value that it has for the model. What the
    configuration does not say is 0, False, `"none"` or empty.
    """
    facts = model_facts(config)
    found: dict[str, Scalar] = {}
    for setting in ALL_SETTINGS:
        if setting.hyperparameter:
            try:
                value = _value(setting, config, facts)
            except (KeyError, TypeError):
                value = None
            found[setting.hyperparameter] = to_scalar(setting.kind, value)
    return found


def _describe(
    setting: Setting, config: Mapping[str, Any], facts: ModelFacts
) -> Row | None:
    try:
        value = _value(setting, config, facts)
    except (KeyError, TypeError):
        return None
    if value is not None:
        text = value if isinstance(value, str) else to_text(setting.kind, value)
        return Row(setting.label, text, setting.is_default(value, facts))
    return Row(setting.label, setting.default_text or "none", True)


def _value(setting: Setting, config: Mapping[str, Any], facts: ModelFacts) -> Any:
    """Returns the recorded value; for an automatic default, what it is here."""
    if setting.recorded is None:
        raise KeyError(setting.name)
    value = setting.recorded(config)
    if value is None and isinstance(setting.default, Automatic):
        return setting.default_for(facts)
    return value
