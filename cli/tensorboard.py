"""`keras-flowers tensorboard`: shows runs in TensorBoard."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.options import Command, UserPath


@click.command(cls=Command)
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    type=UserPath(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--host",
    default="localhost",
    show_default=True,
    metavar="NAME",
    help="Name or address under which this machine answers.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="0 for any free one.  [default: 6006, or the next free one]",
)
def tensorboard(runs: tuple[Path, ...], host: str, port: int | None) -> None:
    """Show RUNS in TensorBoard: a folder of runs, or several run directories.

    Goes on until Ctrl-C, and follows runs that train meanwhile.
    """
    for folder in runs:
        if not _holds_events(folder):
            raise click.ClickException(
                f"There is nothing for TensorBoard in {folder}: no event files. train "
                "writes them into tensorboard/ of a run directory."
            )
    with _one_folder(runs) as folder:
        click.echo(f"TensorBoard at {_started(folder, host, port)} (Ctrl-C ends it)")
        threading.Event().wait()


def _holds_events(folder: Path) -> bool:
    return any("tfevents" in name for _, _, names in os.walk(folder) for name in names)


@contextlib.contextmanager
def _one_folder(folders: Sequence[Path]) -> Iterator[Path]:
    """Gives a folder that holds all of them, which is what TensorBoard takes."""
    if len(folders) == 1:
        yield folders[0]
        return
    with tempfile.TemporaryDirectory(prefix="keras-flowers-") as scratch:
        for folder in folders:
            path = folder.absolute()
            link = Path(scratch, path.name)
            number = 2
            while link.is_symlink():
                link = Path(scratch, f"{path.name} ({number})")
                number += 1
            link.symlink_to(path, target_is_directory=True)
        yield Path(scratch)


def _started(folder: Path, host: str, port: int | None) -> str:
    """Starts the server in a thread; returns its address."""
    with runtime.stderr_on_failure_only():
        # Else it is loaded, and talks, when the first page is opened.
        import tensorflow  # noqa: F401
        from tensorboard import program

        server = program.TensorBoard()
        server.configure(logdir=str(folder), host=host, port=port)
        try:
            return str(server.launch())
        except program.TensorBoardServerException as error:
            refused = click.ClickException(error.msg)
    raise refused
