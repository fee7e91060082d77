"""From the options of `train --resume` to the configuration of the run."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli.backbones import resolve_backbone
from keras_flowers_cli.train_config import MORE_EPOCHS, read_config
from keras_flowers_settings import Setting, settings_of
from keras_flowers_settings.files import STORAGE
from keras_flowers_settings.recorded import learning_rate, precision_is_mixed
from keras_flowers_settings.training import EPOCHS, FINE_TUNE_EPOCHS
from keras_flowers_settings.values import to_text

if TYPE_CHECKING:
    from keras_flowers.training.config import TrainingConfig

_Given = Mapping[str, Any]


def resume_config(run: Path, data: str | None, given: _Given) -> "TrainingConfig":
    """Returns the configuration of a run, which decides what is not given.

    Args:
        run: The folder of the run.
        data: Where its data is now, or `None` for where it was.
        given: The options that were given. Where things are cached may differ from the
            original run, and a finished run may get more epochs.

    Raises:
        click.UsageError: If another option contradicts the run.
    """
    config_file = run / "config.json"
    names = {setting.name for setting in STORAGE}
    changed = {name: value for name, value in given.items() if name in names}
    config = read_config(config_file, changed)
    saved = json.loads(config_file.read_text())
    kept = {name: value for name, value in given.items() if name not in names}
    if is_finished(run):
        further = {name for name in kept if _trains_further(name, given, saved)}
        changed |= {name: kept.pop(name) for name in further}
        config = read_config(config_file, changed)
    if data is not None:
        arguments = {**config.loader.get_config(), "data": data}
        loader = type(config.loader).from_config(arguments)
        config = dataclasses.replace(config, loader=loader)
    contradictions = "; ".join(_find_contradictions(run, saved, config, kept))
    if contradictions:
        raise click.UsageError(f"--resume {run}: the run has {contradictions}.")
    return config


def _trains_further(name: str, given: _Given, saved: _Given) -> bool:
    """Tells whether an option adds epochs to a finished run, or a second stage."""
    tuning = saved.get("fine_tuning")
    if name == EPOCHS.name:
        return bool(given[name] > saved["epochs"])
    if name == FINE_TUNE_EPOCHS.name and tuning is not None:
        return bool(given[name] > tuning["epochs"])
    return tuning is None and name in {setting.name for setting in MORE_EPOCHS}


def is_finished(run: Path) -> bool:
    """Tells whether a run has trained all its epochs."""
    return (run / "model.keras").is_file() and not (run / "checkpoint").exists()


def _find_contradictions(
    run: Path, saved: _Given, config: "TrainingConfig", given: _Given
) -> Iterator[str]:
    """Yields what the run has in place of each given option that differs."""
    for setting in settings_of("train"):
        if setting.name not in given or setting.recorded is None:
            continue
        compare = _COMPARISONS.get(setting.name)
        if compare is not None:
            if not compare(run, saved, given):
                yield f"another {setting.flag} than {given[setting.name]}"
            continue
        # As the loader has normalized it.
        value = getattr(config.loader, setting.name, None)
        if value is None:
            value = _read(setting, saved)
        if not _is_equal(value, given[setting.name]):
            was = "none" if value is None else to_text(setting.kind, value)
            yield f"{setting.flag} {was}"


def _read(setting: Setting, saved: _Given) -> Any:
    """Returns what a run records of a setting, or None for nothing."""
    try:
        return None if setting.recorded is None else setting.recorded(saved)
    except (KeyError, TypeError):
        return None


def _is_equal(recorded: Any, given: Any) -> bool:
    if isinstance(recorded, list):
        recorded = tuple(recorded)
    if isinstance(recorded, float) and isinstance(given, float):
        # A learning rate went through float32.
        return math.isclose(recorded, given, rel_tol=1e-6)
    if isinstance(given, Path):
        return recorded is not None and given.resolve() == Path(recorded).resolve()
    return bool(recorded == given)


def _has_same_split(run: Path, _: _Given, given: _Given) -> bool:
    from keras_flowers.data.split_manifest import read_manifest

    manifests = (given["split_manifest"], run / "split.json")
    first, second = (read_manifest(path).images for path in manifests)
    return first == second


def _has_same_exclusions(_: Path, saved: _Given, given: _Given) -> bool:
    from keras_flowers.data.exclusions import check_kinds, read_exclusions

    kinds = check_kinds(given.get("exclude_kinds"))
    paths = read_exclusions(given.get("exclude", ()), kinds)
    return list(paths) == (saved["loader"]["config"].get("exclude") or [])


def _has_same_learning_rate(_: Path, saved: _Given, given: _Given) -> bool:
    # The run records what a search has found.
    rate = given["learning_rate"]
    return rate == "auto" or _is_equal(learning_rate(saved), rate)


def _has_same_backbone(_: Path, saved: _Given, given: _Given) -> bool:
    import keras
    from keras_flowers_cli.devices import mixed_precision_policy

    from keras_flowers.data.dataset_loader import ImageDatasetLoader
    from keras_flowers.training.config_difference import difference

    recorded = saved["model"]["config"].get("backbone")
    if recorded is None:
        return False
    recorded_loader = saved["loader"]["config"]
    arguments = {"image_size": tuple(recorded_loader["image_size"]), **given}
    policy = mixed_precision_policy() if precision_is_mixed(saved) else None
    anywhere = ImageDatasetLoader(".", seed=recorded_loader["seed"])
    backbone = resolve_backbone(anywhere, arguments, policy)[1]
    wanted = keras.saving.serialize_keras_object(backbone)
    if "pretrained_weights" not in given:
        weights = recorded["config"]["pretrained_weights"]
        wanted["config"]["pretrained_weights"] = weights
    return difference({"model": recorded}, {"model": wanted}) is None


def _has_same_weights(_: Path, saved: _Given, given: _Given) -> bool:
    backbone = saved["model"]["config"].get("backbone")
    if backbone is None:
        return False
    recorded = backbone["config"]["pretrained_weights"] or "none"
    paths = (
        Path(text).expanduser().resolve()
        for text in (recorded, given["pretrained_weights"])
    )
    return len(set(paths)) == 1


# Settings whose value is in files, or has several names.
_COMPARISONS: Mapping[str, Callable[[Path, _Given, _Given], bool]] = {
    "split_manifest": _has_same_split,
    "exclude": _has_same_exclusions,
    "exclude_kinds": _has_same_exclusions,
    "learning_rate": _has_same_learning_rate,
    "backbone": _has_same_backbone,
    "pretrained_weights": _has_same_weights,
}
