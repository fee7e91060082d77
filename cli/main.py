"""The entry point: commands, errors and exit codes."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

import click
from keras_flowers_cli.audit import audit
from keras_flowers_cli.backbones import backbones
from keras_flowers_cli.doctor import doctor
from keras_flowers_cli.errors import (
    EXIT_BAD_INPUT,
    EXIT_DEFECT,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    explained,
    first_line,
)
from keras_flowers_cli.evaluate import evaluate
from keras_flowers_cli.export import export
from keras_flowers_cli.predict import predict
from keras_flowers_cli.sample import sample
from keras_flowers_cli.tensorboard import tensorboard
from keras_flowers_cli.train import train
from keras_flowers_cli.tune import tune


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(metadata.version("keras-flowers"), prog_name="keras-flowers")
def commands() -> None:
    """Train an image classifier on your own folder of images, in Keras.

    DATA is a folder that holds one folder of images per class, a .tar, .tgz or .zip
    archive of one, a URL of such an archive, or the name flower_photos or sample.

    Every command answers bad input with exit code 2, and shows the traceback of an
    error with --debug.
    """


for _command in (
    train,
    tune,
    predict,
    evaluate,
    export,
    tensorboard,
    audit,
    backbones,
    sample,
    doctor,
):
    commands.add_command(_command)


def main() -> None:
    """Runs the command line and exits with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command.

    Returns:
        0, or 1 for a defect, 2 for bad input, 3 for an export whose answers differ,
        130 after Ctrl-C.
    """
    # Anywhere on the line, also where the error is in the line itself.
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        result = commands.main(
            arguments, prog_name="keras-flowers", standalone_mode=False
        )
        return result if isinstance(result, int) else EXIT_DONE
    except (BrokenPipeError, SystemExit):
        # The reader of a pipe such as `| head` went away. Click and Rich make a
        # SystemExit of it, and nothing else here raises one.
        _drop_output()
        return EXIT_DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, click.Abort) as error:
        # Click makes an Abort of Ctrl-C and of the end of a file alike.
        if isinstance(error.__cause__, EOFError):
            return _reported(error.__cause__, debug)
        _say("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        return _reported(error, debug)


def _reported(error: BaseException, debug: bool) -> int:
    """Says what went wrong; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    message = explained(error)
    if message is not None:
        _say(f"error: {message}")
        return EXIT_BAD_INPUT
    hint = "" if debug else " (--debug shows where)"
    _say(f"unexpected {type(error).__name__}: {first_line(error)}{hint}")
    return EXIT_DEFECT


def _say(message: str) -> None:
    # A path in it may hold bytes that are no text.
    click.echo(message.encode("utf-8", "backslashreplace").decode(), err=True)


def _drop_output() -> None:
    """Keeps Python from complaining of a broken pipe when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
