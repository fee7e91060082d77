"""Says which extra of the package provides a library that is not installed."""

import importlib.util

from keras_flowers.errors import InputError

# What `audit_with_backbone` needs beyond the package itself.
AUDIT_LIBRARIES = ("cleanlab", "cleanvision")


def require_audit_libraries() -> None:
    """Makes sure that the libraries of the extra `audit` are installed.

    Raises:
        InputError: If one is missing; the message says how to install it.
    """
    for name in AUDIT_LIBRARIES:
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"An audit with a backbone needs the package {name}, which is not "
                'installed: pip install "keras-flowers[audit]"'
            )
