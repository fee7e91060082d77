"""`keras-flowers audit`: looks at every file of a data folder."""

from pathlib import Path
from typing import Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.findings import show_findings
from keras_flowers_cli.options import (
    arguments_for,
    check_writable,
    given_options,
    setting_options,
)
from keras_flowers_cli.output import Output, ProgressBars, TextTable

_SHOWN_PER_KIND = 20


@click.command()
@click.argument("data")
@setting_options("audit")
def audit(data: str, html_file: Path | None, as_json: bool, **options: Any) -> None:
    """Look at every file of DATA and report what training would meet.

    Files that cannot be read, duplicates within and across classes, near-duplicates,
    empty folders, clutter and imbalance. Nothing is changed.

    --json lists all findings. Saved to a file, it can be passed to --exclude of train,
    tune and evaluate.
    """
    if html_file is not None:
        check_writable(html_file.parent, "--html")
    arguments = arguments_for("ImageDatasetLoader", "audit", given_options(options))
    runtime.start_keras()
    from keras_flowers.data.dataset_loader import ImageDatasetLoader
    from keras_flowers.evaluation.audit_report import write_audit_report

    output = Output(as_json)
    loader = ImageDatasetLoader(data, **arguments)
    with ProgressBars() as progress:
        result = loader.audit(progress)
    output.say(str(result.root))
    if result.layout is not None:
        output.say(result.layout.description)
    classes = TextTable("class", "images")
    for name, count in result.counts.items():
        classes.add_row(name, str(count))
    output.show(classes)
    show_findings(output, result.findings, limit=_SHOWN_PER_KIND)
    output.say(result.summary)
    if html_file is not None:
        html_file.parent.mkdir(parents=True, exist_ok=True)
        write_audit_report(html_file, result, loader.image_options)
        output.say(f"written to {html_file}")
    output.result(result.to_json())
