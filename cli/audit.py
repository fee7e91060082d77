"""`keras-flowers audit`: looks at every file of a data folder."""

from dataclasses import replace
from typing import Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.findings import show_findings
from keras_flowers_cli.options import (
    arguments_for,
    given_options,
    setting_options,
)
from keras_flowers_cli.output import Output, ProgressBars, TextTable


@click.command()
@click.argument("data")
@setting_options("audit")
def audit(data: str, as_json: bool, **options: Any) -> None:
    """Look at every file of DATA and report what training would meet.

    Files that cannot be read, duplicates within and across classes, near-duplicates,
    empty folders, clutter and imbalance. Nothing is changed.
    """
    arguments = arguments_for("ImageDatasetLoader", "audit", given_options(options))
    runtime.start_keras()
    from keras_flowers.data.audit import Finding, audit_images
    from keras_flowers.data.dataset_loader import ImageDatasetLoader
    from keras_flowers.data.inspection import inspect_files

    output = Output(as_json)
    with ProgressBars() as progress:
        findings: list[Finding] = []
        loader = ImageDatasetLoader(data, **arguments)
        listing = loader.list_images(progress, findings.append)
        records = inspect_files(
            listing.root,
            listing.files,
            progress=progress,
            options=loader.image_options,
        )
        result = audit_images(listing, records)
    result = replace(result, findings=(*findings, *result.findings))
    output.say(f"{len(result.images)} images in {result.root}")
    output.say(listing.layout.description)
    classes = TextTable("class", "images")
    for name, count in result.counts.items():
        classes.add_row(name, str(count))
    output.show(classes)
    show_findings(output, result.findings, limit=None)
    output.result(result.to_json())
