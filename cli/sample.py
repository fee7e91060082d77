"""`keras-flowers sample`: writes the sample data set as plain folders."""

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.options import Command, UserPath
from keras_flowers_cli.output import Output, ProgressBars


@click.command(cls=Command)
@click.argument("directory", type=UserPath(file_okay=False))
@click.option(
    "--photos-per-class",
    "images_per_class",
    type=click.IntRange(1, 100_000),
    default=80,
    show_default=True,
)
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=42, show_default=True
)
def sample(directory: str, images_per_class: int, seed: int) -> None:
    """Draw the sample images into DIRECTORY, one folder per class."""
    runtime.start_keras()
    from keras_flowers.data.sample import SAMPLE_CLASS_NAMES, write_sample

    with ProgressBars() as progress:
        folder = write_sample(
            directory,
            images_per_class=images_per_class,
            seed=seed,
            progress=lambda done, total: progress("sample", done, total),
        )
    count = images_per_class * len(SAMPLE_CLASS_NAMES)
    Output().say(f"{count} photos in {len(SAMPLE_CLASS_NAMES)} classes: {folder}")
