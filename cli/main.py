"""The entry point: commands, errors and exit codes."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

import click
from keras_flowers_cli.audit import audit
from keras_flowers_cli.backbones import backbones
from keras_flowers_cli.card import card
from keras_flowers_cli.compare import compare
from keras_flowers_cli.completion import completion
from keras_flowers_cli.doctor import doctor
from keras_flowers_cli.errors import (
    EXIT_BAD_INPUT,
    EXIT_DEFECT,
    EXIT_DONE,
    EXIT_INTERRUPTED,
    explain,
    first_line,
    name_options,
)
from keras_flowers_cli.evaluate import evaluate
from keras_flowers_cli.export import export
from keras_flowers_cli.findings import show_findings
from keras_flowers_cli.lr_find import lr_find
from keras_flowers_cli.new import new
from keras_flowers_cli.options import spell_out_strengths
from keras_flowers_cli.output import Output, echo_error, escape_unencodable_output
from keras_flowers_cli.predict import predict
from keras_flowers_cli.runtime import end_failed_process
from keras_flowers_cli.sample import sample
from keras_flowers_cli.serve import serve
from keras_flowers_cli.tensorboard import tensorboard
from keras_flowers_cli.train import train
from keras_flowers_cli.tune import tune

# In the order in which people need them.
_TASKS = {
    "Data": (audit, sample),
    "Training": (train, lr_find, tune, backbones),
    "Results": (predict, evaluate, export, card, serve, compare, tensorboard),
    "Setup": (new, doctor, completion),
}
# No first sentence is longer, so none is cut.
_LONGEST_HELP = 120


class TaskGroup(click.Group):
    """A group whose help lists the commands by task."""

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Writes one section for each task."""
        del ctx
        for task, members in _TASKS.items():
            with formatter.section(task):
                formatter.write_dl(
                    [
                        (command.name or "", command.get_short_help_str(_LONGEST_HELP))
                        for command in members
                    ]
                )


@click.group(
    cls=TaskGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(metadata.version("keras-flowers"), prog_name="keras-flowers")
def commands() -> None:
    """Train an image classifier on your own folder of images, in Keras.

    \b
    keras-flowers train photos --run-dir runs/first
    keras-flowers predict runs/first/model.keras new.jpg

    DATA is a folder that holds one folder of images per class, a .tar, .tgz or .zip
    archive of one, a URL of such an archive, or the name flower_photos or sample.

    Every command exits with code 2 on bad input, and shows the traceback of an error
    with --debug.
    """  # noqa: D301  click reads the backspace


for _members in _TASKS.values():
    for _command in _members:
        commands.add_command(_command)


def main() -> None:
    """Runs the command line and exits with its code."""
    code = run(sys.argv[1:])
    end_failed_process(code)
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Runs one command.

    Returns:
        0, or 1 for a defect, 2 for bad input, 3 for an export whose answers differ,
        130 after Ctrl-C.
    """
    # It may be anywhere on the line, even where the line itself is wrong.
    debug = "--debug" in arguments
    escape_unencodable_output()
    arguments = spell_out_strengths(
        [argument for argument in arguments if argument != "--debug"]
    )
    try:
        result = commands.main(
            arguments, prog_name="keras-flowers", standalone_mode=False
        )
        return result if isinstance(result, int) else EXIT_DONE
    except (BrokenPipeError, SystemExit):
        # The reader of a pipe such as `| head` is gone. Click and Rich turn that into
        # SystemExit, which nothing else here raises.
        _drop_output()
        return EXIT_DONE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return EXIT_BAD_INPUT
    except (KeyboardInterrupt, click.Abort) as error:
        # Click turns both Ctrl-C and the end of a file into Abort.
        if isinstance(error.__cause__, EOFError):
            return _report_error(error.__cause__, arguments, debug)
        if sys.stderr.isatty():
            click.echo(err=True)  # the terminal shows ^C on the current line
        echo_error("interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        return _report_error(error, arguments, debug)


def _report_error(error: BaseException, arguments: Sequence[str], debug: bool) -> int:
    """Says what went wrong; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    message = explain(error)
    if message is not None:
        _show_findings(error, as_json="--json" in arguments)
        command = next((word for word in arguments if word in commands.commands), "")
        echo_error(f"error: {name_options(message, command)}")
        return EXIT_BAD_INPUT
    hint = "" if debug else " (--debug shows where)"
    echo_error(f"unexpected {type(error).__name__}: {first_line(error)}{hint}")
    return EXIT_DEFECT


def _show_findings(error: BaseException, *, as_json: bool) -> None:
    """Prints what an audit had found before an error about the data."""
    findings = getattr(error, "findings", ())
    if findings:
        show_findings(Output(as_json), findings)


def _drop_output() -> None:
    """Keeps Python from complaining of a broken pipe when it flushes at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
