"""The registry of the package's Keras-serializable classes."""

from collections.abc import Callable
from typing import Any, TypeVar

import keras

PACKAGE = "keras_flowers"

_Class = TypeVar("_Class", bound=type)
_registered: dict[str, type] = {}


def register(name: str) -> Callable[[_Class], _Class]:
    """Registers a class with Keras under `keras_flowers>name`.

    Every saved file that holds an object of the class contains the name. Keep it when
    you rename the class.

    Args:
        name: The name within the package `keras_flowers`.

    Returns:
        A decorator that registers a class and returns it unchanged.

    Raises:
        ValueError: If another class was registered under the name before.
    """

    def decorate(cls: _Class) -> _Class:
        registered_name = f"{PACKAGE}>{name}"
        if registered_name in _registered:
            raise ValueError(
                f"A registered name must be used once. Received: "
                f"name={name!r} for {cls!r}, which already names "
                f"{_registered[registered_name]!r}"
            )
        keras.saving.register_keras_serializable(package=PACKAGE, name=name)(cls)
        _registered[registered_name] = cls
        return cls

    return decorate


def custom_objects() -> dict[str, type]:
    """Returns every registered class by its registered name.

    The result fits the argument `custom_objects` of `keras.models.load_model`.
    Importing `keras_flowers` registers the same classes, so you need the argument
    only if something has cleared Keras's registry.
    """
    return dict(_registered)


def custom_object_scope() -> Any:
    """Returns a `keras.saving.CustomObjectScope` that holds `custom_objects()`.

    Use it as `with keras_flowers.custom_object_scope(): ...`; within it Keras
    finds the classes of the package even if its global registry was cleared.
    """
    return keras.saving.CustomObjectScope(custom_objects())
