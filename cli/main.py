"""The entry point: commands, errors and exit codes."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

import click
from keras_flowers_cli.audit import audit
from keras_flowers_cli.doctor import doctor
from keras_flowers_cli.evaluate import evaluate
from keras_flowers_cli.predict import predict
from keras_flowers_cli.sample import sample
from keras_flowers_cli.train import train

EXIT_ERROR = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(metadata.version("keras-flowers"), prog_name="keras-flowers")
def commands() -> None:
    """Train an image classifier on your own folder of photos, in Keras.

    DATA is a folder that holds one folder of photos per class, a .tar, .tgz or .zip
    archive of one, a URL of such an archive, or the name flower_photos or sample.

    Every command answers bad input with exit code 2, and shows the traceback of an
    error with --debug.
    """


for _command in (train, predict, evaluate, audit, sample, doctor):
    commands.add_command(_command)


def main() -> None:
    """Runs the command line and exits with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command.

    Returns:
        0, or 1 for a defect, 2 for bad input, 130 after Ctrl-C.
    """
    # Anywhere on the line, also where the error is in the line itself.
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        result = commands.main(
            arguments, prog_name="keras-flowers", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except BrokenPipeError:
        # The reader of a pipe such as `| head` went away; keep Python from
        # complaining again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, click.Abort):
        _say("interrupted")
        return EXIT_INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_BAD_INPUT
    except Exception as error:
        if debug:
            traceback.print_exc()
        message = _explained(error)
        if message is not None:
            _say(f"error: {message}")
            return EXIT_BAD_INPUT
        hint = "" if debug else " (--debug shows where)"
        _say(f"unexpected {type(error).__name__}: {_first_line(error)}{hint}")
        return EXIT_ERROR


def _explained(error: Exception) -> str | None:
    """Returns what to tell the user, or `None` for a defect of the program."""
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "keras-flowers"
        return f"{error.format_message()}\nSee '{command} --help'."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{place}"
    if isinstance(error, MemoryError):
        return "out of memory; a smaller --image-size or --batch-size needs less"
    # By name: the modules that define these import Keras and TensorFlow.
    if any(cls.__name__ == "InputError" for cls in type(error).__mro__):
        return str(error)
    if type(error).__name__ == "ResourceExhaustedError":
        return "out of memory; a smaller --image-size or --batch-size needs less"
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _say(message: str) -> None:
    click.echo(message, err=True)
