"""Whether two configurations describe the same run.

What cannot change the result of a run does not count: where files are kept, which
module a class is in, how Keras numbers the objects of a process, and settings that a
later version has added and that have their defaults.
"""

import re
from collections.abc import Mapping
from typing import Any

from keras_flowers.data.dataset_loader import STORAGE_ARGUMENTS
from keras_flowers.models.keras_configs import (
    NO_DEFAULT,
    as_json,
    default_of,
    find_class,
    is_automatic_name,
)

# What may differ between the parts of an interrupted run: where things are kept, and
# what the manifest of the run decides.
_FREE_LOADER_ARGUMENTS = ("data", "split_manifest", *STORAGE_ARGUMENTS)
_IGNORED = re.compile(
    rf"format|versions|init_from\.file|loader\.config\.({'|'.join(_FREE_LOADER_ARGUMENTS)})"
    # Some layers draw a seed where none is given. The state of their random numbers
    # is in the checkpoint.
    r"|model\..*layers\[\d+\]\.config\.seed"
)
# Settings of a run that a later version has added, with their defaults.
LATER_SETTINGS = {"feature_views": 1, "inference_precision": "float32"}
# What its identity says of an object, and shapes that follow from its other settings.
_KNOWN_BY_IDENTITY = ("module", "class_name", "registered_name", "build_config")


def difference(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """Returns in one line where two configurations of a run differ.

    Args:
        saved: What `TrainingConfig.to_json` returned when the run was started.
        wanted: What it returns now.

    Returns:
        The first difference that can change the result, or `None`.
    """
    there, here = (
        _normalize(as_json(LATER_SETTINGS | dict(config))) for config in (saved, wanted)
    )
    # A run of version 0.1 is resumed as it was started, whatever the default is now.
    for name in ("keep", "calibrate"):
        there.setdefault(name, here.get(name))
    there.setdefault("init_from", None)
    pretrained = there.pop("pretrained", None), here.pop("pretrained", None)
    return _first_difference(there, here) or fingerprint_difference(*pretrained)


def fingerprint_difference(saved: Any, found: Any) -> str | None:
    """Returns in one line where the fingerprints of two pretrained backbones differ.

    Args:
        saved: The entry `"pretrained"` of a configuration.
        found: What `fingerprint_pretrained` returns now.

    Returns:
        The difference, or `None` where there is none, and where it cannot be known: a
        hash of version 0.1, or another version of the description of architectures.
    """
    if isinstance(saved, str) and found is not None:
        return None
    if not isinstance(saved, dict) or not isinstance(found, dict):
        return _unequal("pretrained", saved, found)
    versions = (str(p.get("architecture")).partition(":")[0] for p in (saved, found))
    names = ["architecture", "weights"] if len(set(versions)) == 1 else ["weights"]
    differences = (
        _unequal(f"pretrained.{n}", saved.get(n), found.get(n)) for n in names
    )
    return next(filter(None, differences), None)


def _first_difference(there: Any, here: Any, name: str = "") -> str | None:
    if _IGNORED.fullmatch(name):
        return None
    if isinstance(there, dict) and isinstance(here, dict):
        return _first_difference_of_settings(there, here, name)
    if _is_list_of_parts(there) and _is_list_of_parts(here):
        if len(there) != len(here):
            return f"{name} had {len(there)} entries and now has {len(here)}"
        differences = (
            _first_difference(*pair, f"{name}[{index}]")
            for index, pair in enumerate(zip(there, here, strict=True))
        )
        return next(filter(None, differences), None)
    return _unequal(name, there, here)


def _first_difference_of_settings(
    there: dict[str, Any], here: dict[str, Any], name: str
) -> str | None:
    keys = dict.fromkeys((*there, *here))
    if _is_object(there) and _is_object(here):
        found = _unequal(f"{name}.class_name", _identity(there), _identity(here))
        if found is not None:
            return found
        keys = {key: None for key in keys if key not in _KNOWN_BY_IDENTITY}
        there, here = _fill_defaults(there, here)
    differences = (
        _first_difference(
            there.get(key), here.get(key), f"{name}.{key}" if name else key
        )
        for key in keys
    )
    return next(filter(None, differences), None)


def _is_object(value: dict[str, Any]) -> bool:
    """Whether Keras has serialized an object."""
    return {"class_name", "config"} <= value.keys()


def _identity(serialized: dict[str, Any]) -> str:
    # The registered name stays where a class is moved or renamed.
    return str(serialized.get("registered_name") or serialized["class_name"])


def _fill_defaults(
    there: dict[str, Any], here: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Completes the settings of an object in two configurations.

    A setting that one of them lacks is one that the other version of Keras does not
    have: there, the object behaved as it does by default.
    """
    cls = find_class(here)
    if cls is None:
        return there, here
    for key, method in (("config", "__init__"), ("compile_config", "compile")):
        first, second = there.get(key), here.get(key)
        if not isinstance(first, dict) or not isinstance(second, dict):
            continue
        missing = first.keys() ^ second.keys()
        defaults = {name: default_of(cls, method, name) for name in missing}
        known = {n: value for n, value in defaults.items() if value is not NO_DEFAULT}
        there, here = {**there, key: known | first}, {**here, key: known | second}
    return there, here


def _is_list_of_parts(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(v, dict | list) for v in value)


def _unequal(name: str, there: Any, here: Any) -> str | None:
    return None if there == here else f"{name} was {there} and is now {here}"


def _normalize(value: Any) -> Any:
    """Returns a configuration without the names that Keras numbers by process.

    Layers of a model are known by their position. Any other object may have a name that
    is known outside, such as that of a metric: it stays unless Keras has made it up.
    """
    if isinstance(value, list):
        return [_normalize(item) for item in value]
    if not isinstance(value, dict):
        return value
    value = {key: _normalize(item) for key, item in value.items()}
    if _is_list_of_parts(value.get("layers")):
        value = _name_layers_by_position(value)
    if _is_object(value) and isinstance(value["config"], dict):
        config = value["config"]
        if is_automatic_name(config.get("name"), value["class_name"]):
            value["config"] = {**config, "name": "(automatic)"}
    return value


def _name_layers_by_position(model: dict[str, Any]) -> dict[str, Any]:
    """Replaces the names of the layers of a model, and the references to them."""
    # Layers of a sequential model have no such entry: nothing refers to them.
    names = [layer.get("name") for layer in model["layers"]]
    positions = {name: position for position, name in enumerate(names)}

    def refer(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: refer_to_output(item) if key == "keras_history" else refer(item)
                for key, item in value.items()
            }
        return [refer(item) for item in value] if isinstance(value, list) else value

    def refer_to_output(output: Any) -> Any:
        """Handles `[layer, call, output]`, and lists of it."""
        if not isinstance(output, list) or not output:
            return output
        if isinstance(output[0], list):
            return [refer_to_output(item) for item in output]
        return [positions.get(output[0], output[0]), *output[1:]]

    layers = [
        {
            **{key: item for key, item in layer.items() if key != "name"},
            "config": {k: v for k, v in layer["config"].items() if k != "name"},
            "inbound_nodes": refer(layer.get("inbound_nodes")),
        }
        for layer in model["layers"]
    ]
    ends: dict[str, Any] = {
        key: refer_to_output(model[key])
        for key in ("input_layers", "output_layers")
        if key in model
    }
    return {**model, "layers": layers, **ends}
