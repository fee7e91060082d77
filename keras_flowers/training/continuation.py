"""Whether a configuration trains a finished run further."""

from collections.abc import Mapping
from typing import Any

from keras_flowers.training.config_difference import difference


def is_extension(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tells whether a configuration is that of a finished run with more epochs.

    Nothing else may differ but a learning rate schedule, which spans all epochs.

    Args:
        saved: The configuration of the finished run, as in `config.json`.
        wanted: The configuration with more epochs.
    """
    before, after = saved.get("fine_tuning"), wanted.get("fine_tuning")
    if after is None and before is not None:
        return False
    if before is None and after is not None:
        return saved["epochs"] == wanted["epochs"] and not difference(
            saved, {**wanted, "fine_tuning": None}
        )
    if before is None or after is None:
        shortened = {**wanted, "epochs": saved["epochs"]}
        is_longer = wanted["epochs"] > saved["epochs"]
    else:
        shortened = {**wanted, "fine_tuning": {**after, "epochs": before["epochs"]}}
        is_longer = after["epochs"] > before["epochs"]
    return is_longer and not difference(
        _remove_schedule(saved), _remove_schedule(shortened)
    )


def _remove_schedule(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a configuration without its learning rate if that is a schedule."""
    compiled = (config.get("model") or {}).get("compile_config") or {}
    optimizer = compiled.get("optimizer")
    if not isinstance(optimizer, Mapping):
        return config
    inner = optimizer["config"].get("inner_optimizer")
    settings = optimizer["config"] if inner is None else inner["config"]
    if not isinstance(settings.get("learning_rate"), Mapping):
        return config
    settings = {**settings, "learning_rate": None}
    if inner is not None:
        settings = {
            **optimizer["config"],
            "inner_optimizer": {**inner, "config": settings},
        }
    compiled = {**compiled, "optimizer": {**optimizer, "config": settings}}
    return {**config, "model": {**config["model"], "compile_config": compiled}}
