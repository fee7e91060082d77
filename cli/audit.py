"""`keras-flowers audit`: looks at every file of a data folder."""

from typing import Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.findings import show_findings
from keras_flowers_cli.options import Command, given, json_option, source_options
from keras_flowers_cli.output import Output, ProgressBars, TextTable


@click.command(cls=Command)
@click.argument("data")
@source_options
@json_option
def audit(data: str, as_json: bool, **source: Any) -> None:
    """Look at every file of DATA and report what training would meet.

    Files that cannot be read, duplicates within and across classes, near-duplicates,
    empty folders, clutter and imbalance. Nothing is changed.
    """
    runtime.start_keras()
    from keras_flowers.data.audit import scan
    from keras_flowers.data.dataset_loader import ImageDatasetLoader

    output = Output(as_json)
    with ProgressBars() as progress:
        root = ImageDatasetLoader(data, **given(source)).find(progress)
        result = scan(root, progress=progress)
    output.say(f"{len(result.images)} photos in {root}")
    classes = TextTable("class", "photos")
    for name, count in result.counts.items():
        classes.add_row(name, str(count))
    output.show(classes)
    show_findings(output, result.findings, limit=None)
    output.result(result.to_json())
