"""`keras-flowers tensorboard`: shows runs in TensorBoard."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.options import UserPath, setting_options


@click.command()
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    type=UserPath(exists=True, file_okay=False, path_type=Path),
)
@setting_options("tensorboard")
def tensorboard(runs: tuple[Path, ...], host: str, port: int | None) -> None:
    """Show RUNS in TensorBoard: a folder of runs, or several run directories.

    Runs until Ctrl-C, and follows runs that are still training.
    """
    for folder in runs:
        if not _holds_events(folder):
            raise click.ClickException(
                f"There is nothing for TensorBoard in {folder}: no event files. train "
                "writes them into tensorboard/ of a run directory."
            )
    with _one_folder(runs) as folder:
        click.echo(
            f"TensorBoard at {_start_server(folder, host, port)} (Ctrl-C stops it)"
        )
        threading.Event().wait()


def _holds_events(folder: Path) -> bool:
    return any("tfevents" in name for _, _, names in os.walk(folder) for name in names)


@contextlib.contextmanager
def _one_folder(folders: Sequence[Path]) -> Iterator[Path]:
    """Gives a folder that holds all of them, which is what TensorBoard takes.

    TensorBoard names runs by their paths below that folder, so a run directory must be
    in it to be shown with its name.
    """
    if len(folders) == 1 and not _is_run(folders[0]):
        yield folders[0]
        return
    with tempfile.TemporaryDirectory(prefix="keras-flowers-") as scratch:
        for folder in folders:
            path = folder.absolute()
            name = path.parent.name if path.name == "tensorboard" else path.name
            link = Path(scratch, name or "run")
            number = 2
            while link.is_symlink():
                link = Path(scratch, f"{name} ({number})")
                number += 1
            link.symlink_to(path, target_is_directory=True)
        yield Path(scratch)


def _is_run(folder: Path) -> bool:
    """Tells one run, or what it wrote for TensorBoard, from a folder of runs."""
    places = (folder, folder / "train", folder / "tensorboard")
    return places[-1].is_dir() or any(
        True for place in places for _ in place.glob("*tfevents*")
    )


def _start_server(folder: Path, host: str, port: int | None) -> str:
    """Starts the server in a thread; returns its address."""
    with runtime.stderr_on_failure_only():
        # Otherwise it is loaded, and writes its log, when the first page is opened.
        import tensorflow  # noqa: F401
        from tensorboard import program

        server = program.TensorBoard()
        server.configure(logdir=str(folder), host=host, port=port)
        try:
            return str(server.launch())
        except program.TensorBoardServerException as error:
            refusal = click.ClickException(error.msg)
    raise refusal
