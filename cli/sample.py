"""`keras-flowers sample`: writes the sample data set as plain folders."""

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.options import UserPath, setting_options
from keras_flowers_cli.output import Output, ProgressBars


@click.command()
@click.argument("directory", type=UserPath(file_okay=False))
@setting_options("sample")
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
    Output().say(f"{count} images in {len(SAMPLE_CLASS_NAMES)} classes: {folder}")
