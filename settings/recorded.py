"""Reads settings from the `config.json` of a run.

A reader raises KeyError or TypeError where the configuration says nothing of a
setting, as that of another model than an `ImageClassifier` says nothing of its layers.
"""

from collections.abc import Mapping
from typing import Any

from keras_flowers_settings.setting import ModelFacts, Reader

Config = Mapping[str, Any]

_CLASSIFIER = "keras_flowers>ImageClassifier"
# Instead of widths of hidden layers.
LINEAR = "linear head"


def of_run(name: str) -> Reader:
    """Returns the reader of an entry at the top."""
    return lambda config: config[name]


def of_loader(name: str) -> Reader:
    """Returns the reader of an argument of `ImageDatasetLoader`."""
    return lambda config: config["loader"]["config"][name]


def of_classifier(name: str) -> Reader:
    """Returns the reader of an argument of `ImageClassifier`."""
    return lambda config: _classifier(config)[name]


def of_fine_tuning(name: str) -> Reader:
    """Returns the reader of a field of `FineTuning`."""
    return lambda config: config["fine_tuning"][name]


def fine_tuning_epochs(config: Config) -> int | None:
    """Returns the epochs of fine-tuning, `None` without it."""
    tuning = config["fine_tuning"]
    return int(tuning["epochs"]) if tuning else None


def init_from(config: Config) -> str | None:
    """Returns the file of the model that a run started from, or `None`."""
    value = config["init_from"]
    return str(value["file"]) if value else None


def near_duplicates_are_split(config: Config) -> bool:
    """Tells whether images that look alike may be in different splits."""
    return not config["loader"]["config"]["keep_near_duplicates_together"]


def excluded_paths(config: Config) -> str | None:
    """Returns how many paths are excluded, `None` without any."""
    paths = config["loader"]["config"]["exclude"]
    return None if paths is None else f"{len(paths)} paths"


def augmentation(config: Config) -> bool | str:
    """Returns whether images are augmented, the strength, or the class of a layer."""
    value: Any = _classifier(config)["augmentation"]
    if isinstance(value, Mapping):
        return str(value["class_name"])
    if value is None:
        return _or_none(weights, config) in (None, "none")
    return False if value == "none" else value


def hidden_units(config: Config) -> list[int] | str:
    """Returns the widths of the hidden layers, or that there is a linear head."""
    widths: list[int] | None = _classifier(config)["hidden_units"]
    return LINEAR if widths is None else widths


def backbone(config: Config) -> str | None:
    """Returns the name of the backbone's network, `None` without a backbone."""
    value = _classifier(config)["backbone"]
    return None if value is None else str(value["config"]["network"]["config"]["name"])


def weights(config: Config) -> str:
    """Returns where the backbone's weights come from."""
    found = _classifier(config)["backbone"]["config"]["pretrained_weights"]
    return "none" if found is None else str(found)


def class_weights(config: Config) -> str | None:
    """Returns how classes are weighted; `given` for weights of each class."""
    value = config["class_weights"]
    return "given" if isinstance(value, Mapping) else value


def optimizer(config: Config) -> str:
    """Returns the name of the optimizer's class."""
    return str(_optimizer(config)["class_name"])


def learning_rate(config: Config) -> float:
    """Returns the learning rate; the highest one of a schedule."""
    value = _optimizer(config)["config"]["learning_rate"]
    if isinstance(value, Mapping):
        schedule = value["config"]
        return float(schedule.get("warmup_target") or schedule["initial_learning_rate"])
    return float(value)


def schedule(config: Config) -> str:
    """Returns `constant`, `cosine` or the class of another schedule."""
    value = _optimizer(config)["config"]["learning_rate"]
    if not isinstance(value, Mapping):
        return "constant"
    name = str(value["class_name"])
    if name != "CosineDecay":
        return name
    return "constant" if value["config"].get("alpha") == 1 else "cosine"


def warm_up(config: Config) -> float:
    """Returns the fraction of the steps in which the learning rate rises."""
    value = _optimizer(config)["config"]["learning_rate"]
    if not isinstance(value, Mapping):
        return 0.0
    rising = int(value["config"].get("warmup_steps") or 0)
    steps = rising + int(value["config"]["decay_steps"])
    # The simplest fraction that gives these steps.
    fractions = (round(rising / steps, digits) for digits in range(1, 9))
    return next((f for f in fractions if round(f * steps) == rising), rising / steps)


def label_smoothing(config: Config) -> float:
    """Returns the label smoothing of the first stage."""
    return float(config["model"]["compile_config"].get("label_smoothing", 0.0))


def weight_decay(config: Config) -> float:
    """Returns the weight decay of the first stage, 0 without one."""
    return float(_optimizer(config)["config"].get("weight_decay") or 0.0)


def xla(config: Config) -> bool | None:
    """Returns whether XLA compiles the training step, `None` for where it pays."""
    value: Any = config["model"]["compile_config"]["jit_compile"]
    return None if value == "auto" else value


def precision_is_mixed(config: Config) -> bool:
    """Tells whether the model computes in 16 bits."""
    policy = _classifier(config)["dtype"]
    name = policy["config"]["name"] if isinstance(policy, Mapping) else policy
    return str(name).startswith("mixed_")


def model_facts(config: Config) -> ModelFacts:
    """Returns what automatic defaults depend on."""
    return ModelFacts(
        has_backbone=_or_none(backbone, config) is not None,
        is_pretrained=_or_none(weights, config) not in (None, "none"),
        optimizer=str(_or_none(optimizer, config)).lower(),
        is_cosine=_or_none(schedule, config) == "cosine",
        has_linear_head=_or_none(hidden_units, config) == LINEAR,
        is_multi_label=bool(_or_none(_is_multi_label, config)),
    )


def _is_multi_label(config: Config) -> bool:
    return bool(_classifier(config).get("multi_label"))


def _or_none(reader: Reader, config: Config) -> Any:
    try:
        return reader(config)
    except (KeyError, TypeError):
        return None


def _classifier(config: Config) -> Mapping[str, Any]:
    model = config["model"]
    if model["registered_name"] != _CLASSIFIER:
        raise KeyError(_CLASSIFIER)
    return dict(model["config"])


def _optimizer(config: Config) -> Mapping[str, Any]:
    found = config["model"]["compile_config"]["optimizer"]
    # Mixed precision wraps the optimizer in another.
    return dict(found["config"].get("inner_optimizer") or found)
