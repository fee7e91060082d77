"""`keras-flowers audit`: looks at every file of a data folder."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.backbones import resolve_backbone
from keras_flowers_cli.findings import show_findings
from keras_flowers_cli.options import (
    arguments_for,
    check_backbone_options,
    check_writable,
    given_options,
    setting_options,
)
from keras_flowers_cli.output import Output, ProgressBars, TextTable

if TYPE_CHECKING:
    from keras_flowers.data.audit import Audit
    from keras_flowers.data.dataset_loader import ImageDatasetLoader

_SHOWN_PER_KIND = 20
_NEEDING_BACKBONE = {
    "feature_views": "--feature-views",
    "inference_precision": "--inference-precision",
    "disk_budget": "--disk-budget",
}


@click.command()
@click.argument("data")
@setting_options("audit")
def audit(
    data: str,
    html_file: Path | None,
    relabel_file: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Look at every file of DATA and report what training would meet.

    Files that cannot be read, duplicates within and across classes, near-duplicates,
    empty folders, clutter and imbalance. Nothing is changed.

    With --backbone, also labels that are probably wrong, images that look alike, images
    like no other, and dark, bright, blurred, nearly empty and odd-sized images.

    --json lists all findings. Saved to a file, it can be passed to --exclude of train,
    tune and evaluate.
    """
    given = given_options(options)
    _check_backbone(given, relabel_file)
    for file, option in ((html_file, "--html"), (relabel_file, "--relabel")):
        if file is not None:
            check_writable(file.parent, option)
    runtime.start_keras()
    from keras_flowers.data.dataset_loader import ImageDatasetLoader
    from keras_flowers.evaluation.audit_report import write_audit_report
    from keras_flowers.evaluation.label_issues import write_relabel_table

    output = Output(as_json)
    loader = ImageDatasetLoader(
        data, **arguments_for("ImageDatasetLoader", "audit", given)
    )
    result = _audit(loader, given)
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
    if relabel_file is not None:
        relabel_file.parent.mkdir(parents=True, exist_ok=True)
        write_relabel_table(relabel_file, result)
        output.say(f"written to {relabel_file}")
    output.result(result.to_json())


def _check_backbone(given: dict[str, Any], relabel_file: Path | None) -> None:
    """Refuses options that need a backbone, and a backbone without the libraries."""
    check_backbone_options(given)
    if "backbone" not in given:
        needing = [flag for name, flag in _NEEDING_BACKBONE.items() if name in given]
        if relabel_file is not None:
            needing.append("--relabel")
        if needing:
            raise click.UsageError(f"{needing[0]} needs a --backbone.")
        return
    for package in ("cleanlab", "cleanvision"):
        if importlib.util.find_spec(package) is None:
            raise click.ClickException(
                f"--backbone needs the package {package}, which is not installed: "
                'pip install "keras-flowers[audit]"'
            )


def _audit(loader: "ImageDatasetLoader", given: dict[str, Any]) -> "Audit":
    loader, backbone = resolve_backbone(loader, given)
    with ProgressBars() as progress:
        if backbone is None:
            return loader.audit(progress)
        from keras_flowers.training.backbone_audit import audit_with_backbone

        arguments = arguments_for("audit_with_backbone", "audit", given)
        arguments["backbone"] = backbone
        return audit_with_backbone(loader, **arguments, progress=progress)
