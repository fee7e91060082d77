"""What is known about one setting."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from keras_flowers_settings.kinds import Kind
from keras_flowers_settings.values import to_text

# Groups of a run, in the order in which people think of them.
DATA = "data"
MODEL = "model"
TRAINING = "training"
ENVIRONMENT = "environment"

# What a run's config.json says; it raises KeyError or TypeError where it says nothing.
Reader = Callable[[Mapping[str, Any]], Any]


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """What automatic defaults depend on.

    Attributes:
        has_backbone: Whether the model has a backbone.
        is_pretrained: Whether the backbone has pretrained weights.
        optimizer: Name of the optimizer, in lower case.
        has_linear_head: Whether the head is one layer on standardized features.
        is_multi_label: Whether an image may have several labels, or none.
        is_cosine: Whether the learning rate falls along a cosine.
    """

    has_backbone: bool = False
    is_pretrained: bool = False
    optimizer: str = "adam"
    is_cosine: bool = False
    has_linear_head: bool = False
    is_multi_label: bool = False

    @property
    def is_from_scratch(self) -> bool:
        """Whether there is a backbone without pretrained weights."""
        return self.has_backbone and not self.is_pretrained


def _unknown(_: ModelFacts) -> None:
    return None


@dataclasses.dataclass(frozen=True)
class Automatic:
    """A default that depends on other settings.

    Attributes:
        sentence: The default, for people.
        value: Returns the default for a model; `None` where it takes more than
            `ModelFacts` to know it.
    """

    sentence: str
    value: Callable[[ModelFacts], Any] = _unknown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of a command, described once.

    Attributes:
        name: Name of the argument in Python.
        kind: The kind of its values.
        meaning: What it does, one sentence without a full stop. Code is in backticks.
        commands: The commands that have the option.
        group: `DATA`, `MODEL`, `TRAINING` or `ENVIRONMENT`, for what a configuration
            records; else empty.
        default: The default, `None` for none, or an `Automatic`.
        option: The option of the command line where it is not the name with hyphens.
        aliases: Earlier names of the option, which still work.
        arguments: Where the library takes it, as `Class.argument` or
            `function.argument`. A test compares its default with this one.
        recorded: Reads it from the `config.json` of a run.
        hyperparameter: Its name among the hyperparameters in TensorBoard; empty for
            what is not one.
    """

    name: str
    kind: Kind
    meaning: str
    commands: tuple[str, ...]
    group: str = ""
    default: Any = None
    option: str = ""
    aliases: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    recorded: Reader | None = None
    hyperparameter: str = ""

    @property
    def flag(self) -> str:
        """The option of the command line."""
        return self.option or "--" + self.name.replace("_", "-")

    @property
    def label(self) -> str:
        """What a report calls it."""
        return self.flag.removeprefix("--").replace("-", " ")

    @property
    def default_text(self) -> str:
        """The default for people; empty where nothing is the default."""
        if isinstance(self.default, Automatic):
            return self.default.sentence
        if self.default is None or self.default is False:
            return ""
        return to_text(self.kind, self.default)

    def default_for(self, facts: ModelFacts) -> Any:
        """Returns the default for a model; `None` where that is not known."""
        if isinstance(self.default, Automatic):
            return self.default.value(facts)
        return self.default

    def is_default(self, value: Any, facts: ModelFacts) -> bool:
        """Tells whether a value is known to be the default for a model."""
        default = self.default_for(facts)
        if isinstance(value, float) and isinstance(default, float):
            # A learning rate went through float32.
            return math.isclose(value, default, rel_tol=1e-6)
        if isinstance(value, list):
            value = tuple(value)
        return bool(value == default)
