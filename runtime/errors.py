"""The exceptions for input that cannot be used."""


class InputError(ValueError):
    """Raised when an argument, a file or a folder cannot be used.

    The message names the argument or the path, says what is allowed and what was
    received, in one or two lines, so that a command line can show it as it is.
    Any other exception that this package raises is a bug.
    """


class FileAccessError(InputError):
    """Raised when the operating system refuses to read or write a file or folder."""


def first_line(error: BaseException) -> str:
    """Returns the first line of the message, or the name of an error without one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
