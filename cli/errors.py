"""What an error means to the user: the exit code and the message."""

import re

import click
from keras_flowers_settings import settings_of

EXIT_DONE = 0
EXIT_DEFECT = 1
EXIT_BAD_INPUT = 2
EXIT_UNPROVEN = 3
EXIT_INTERRUPTED = 130

_OUT_OF_MEMORY = "out of memory; a smaller --image-size or --batch-size needs less"


def explain(error: BaseException) -> str | None:
    """Returns what to tell the user, or `None` for a defect of the program."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "keras-flowers"
        return f"{error.format_message()}\nSee '{command} --help'."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{place}"
    # By name: the modules that define these import Keras and its backends.
    names = {cls.__name__ for cls in type(error).__mro__}
    if names & {"InputError", "ProcessLostError"}:
        return str(error)
    if (
        names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}
        or "RESOURCE_EXHAUSTED" in str(error)  # of JAX, in an error of any kind
    ):
        return _OUT_OF_MEMORY
    return None


def name_options(message: str, command: str) -> str:
    """Returns the message of an error with options instead of arguments of Python.

    Args:
        message: A message of the library, such as "`cache_directory` must be ...".
        command: The command that failed.
    """
    flags = {
        argument.rpartition(".")[2]: setting.flag
        for setting in settings_of(command)
        for argument in setting.arguments
    }
    flags |= {setting.name: setting.flag for setting in settings_of(command)}
    message = re.sub(r"`\w+=\.\.\.` in Python, ", "", message)
    # A message of the library may name both.
    message = re.sub(r"`\w+(?:=[^`]+)?` \((--[^)]+)\)", r"\1", message)
    message = re.sub(
        r"Received: (\w+)=",
        lambda match: "Received: " if match[1] in flags else match[0],
        message,
    )
    return re.sub(
        r"`(\w+)(?:=([^`]+))?`",
        lambda match: (
            " ".join(filter(None, (flags[match[1]], match[2])))
            if match[1] in flags
            else match[0]
        ),
        message,
    )


def first_line(error: BaseException) -> str:
    """Returns the first line of the message, or the name of an error without one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
