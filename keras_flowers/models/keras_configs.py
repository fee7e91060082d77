"""What the configurations that Keras serializes mean, apart from how Keras names it."""

import inspect
import json
import re
from typing import Any

import keras

NO_DEFAULT = inspect.Parameter.empty


def as_json(value: Any) -> Any:
    """Returns a configuration as it comes back from a file: with lists for tuples."""
    return json.loads(json.dumps(value))


def is_automatic_name(name: Any, class_name: str) -> bool:
    """Whether Keras has named an object by its class, such as `dense` or `dense_3`.

    The number counts the objects of the class in a process.

    Args:
        name: The name; `False` is returned for what is not a text.
        class_name: The class, such as `Dense`.
    """
    snake = re.sub(r"\W+", "", class_name)
    snake = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", snake)
    snake = re.sub("([a-z])([A-Z])", r"\1_\2", snake).lower()
    return isinstance(name, str) and bool(
        re.fullmatch(rf"{re.escape(snake)}(_\d+)?", name)
    )


def default_of(cls: type, method: str, name: str) -> Any:
    """Returns the default of an argument, as JSON has it.

    Args:
        cls: The class. What its method does not name, that of a base class may.
        method: Name of the method.
        name: Name of the argument.

    Returns:
        The default, or `NO_DEFAULT`.
    """
    for base in cls.__mro__:
        function = base.__dict__.get(method)
        if not inspect.isfunction(function):
            continue
        parameter = inspect.signature(function).parameters.get(name)
        if parameter is not None:
            default = parameter.default
            return list(default) if isinstance(default, tuple) else default
    return NO_DEFAULT


def find_class(serialized: dict[str, Any]) -> type | None:
    """Returns the class of a serialized object, `None` where it is not known.

    Imports nothing: a class is known if it is registered or one of Keras's public ones.
    """
    registered = keras.saving.get_registered_object(serialized.get("registered_name"))
    if registered is not None:
        return registered if inspect.isclass(registered) else None
    package, _, module = (serialized.get("module") or "").partition(".")
    place = getattr(keras, module, None) if package == "keras" else None
    found = getattr(place, serialized["class_name"], None)
    return found if inspect.isclass(found) else None
