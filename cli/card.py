"""`keras-flowers card`: writes the model card of a run."""

from pathlib import Path

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.options import UserPath, check_writable, setting_options
from keras_flowers_cli.output import Output, ProgressBars


@click.command()
@click.argument(
    "source", metavar="RUN|MODEL", type=UserPath(exists=True, path_type=Path)
)
@setting_options("card")
def card(source: Path, card_file: Path | None) -> None:
    """Write the model card of a run, or of a .keras file.

    One Markdown file: data, classes and counts, scores of the validation images with
    intervals, limits, and how to call the model. export writes one for each format.
    """
    folder = source if source.is_dir() else source.parent
    path = card_file or folder / "MODEL_CARD.md"
    check_writable(path.parent, "--output")
    runtime.start_keras()
    from keras_flowers.export import write_card

    path.parent.mkdir(parents=True, exist_ok=True)
    with ProgressBars() as progress:
        write_card(source, path, progress=progress)
    Output().say(f"written to {path}")
