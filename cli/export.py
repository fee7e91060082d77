"""`keras-flowers export`: writes a model for another runtime and verifies it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.errors import EXIT_DONE, EXIT_UNPROVEN
from keras_flowers_cli.options import UserPath, setting_options
from keras_flowers_cli.output import Output, ProgressBars, TextTable, echo_error

if TYPE_CHECKING:
    from keras_flowers.export.proof import Proof


@click.command()
@click.argument(
    "source", metavar="RUN|MODEL", type=UserPath(exists=True, path_type=Path)
)
@setting_options("export")
def export(
    source: Path,
    format: str,  # noqa: A002  the name of the option
    quantize: str | None,
    directory: Path | None,
    tta: int,
    as_json: bool,
) -> int:
    """Write the model of a run, or a .keras file, for another runtime.

    The folder contains the model, labels.txt, model.json, a model card (README.md) and
    proof.json. Images of the validation split, or drawn images, are classified by Keras
    and by the exported model. If the predictions differ, nothing is written and the
    exit code is 3.
    """
    folder = directory or _default_directory(source, format, quantize)
    runtime.start_keras()
    from keras_flowers.errors import InputError
    from keras_flowers.export import ProofError, export_model

    output = Output(as_json)
    failure: Exception | None = None
    with (
        output.stdout_for_people(),
        # Converters and runtimes log a lot that is useless here.
        runtime.stderr_on_failure_only() as stderr,
        ProgressBars(stderr) as progress,
    ):
        try:
            proof = export_model(
                source, folder, format, quantize, tta=tta, progress=progress
            )
        except (InputError, ProofError) as error:
            failure = error
    if isinstance(failure, ProofError):
        echo_error(f"error: {failure}")
        return EXIT_UNPROVEN
    if failure is not None:
        raise failure
    _show(output, proof)
    output.say(f"written to {folder}")
    output.say(f"Next: keras-flowers predict {shlex.quote(str(folder))} PHOTO")
    output.result({"directory": str(folder), **proof.to_json()})
    return EXIT_DONE


def _default_directory(source: Path, model_format: str, quantize: str | None) -> Path:
    name = "-".join(filter(None, (model_format, quantize)))
    if source.is_dir():
        return source / name
    if source.name == "model.keras":
        return source.with_name(name)
    return source.with_name(f"{source.stem}-{name}")


def _show(output: Output, proof: "Proof") -> None:
    output.say(
        f"{proof.images} images ({proof.image_source}) through both models: "
        f"probabilities differ by at most {proof.largest_difference:.2g}, "
        f"{proof.equal_answers:.1%} of the predictions are the same"
    )
    similarity = proof.similarity
    if similarity is not None:
        output.say(
            "similarities to the training images differ by at most "
            f"{similarity.largest_difference:.2g}: {similarity.equal_answers:.1%} of "
            "the images are known or unknown in both models"
        )
    before, after = proof.keras_accuracy, proof.exported_accuracy
    if before is None or after is None or proof.precision == "float32":
        return
    output.say(f"accuracy {before.value:.4f} before, {after.value:.4f} after")
    if proof.lost_classes:
        table = TextTable(
            "class", "recall before", "after", title="classes found less often"
        )
        for name in proof.lost_classes:
            recalls = (proof.keras_recall[name], proof.exported_recall[name])
            table.add_row(name, *(f"{recall.value:.3f}" for recall in recalls))
        output.show(table)
