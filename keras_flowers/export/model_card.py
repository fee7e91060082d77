"""Writes the model card: what a model is, how good it is, how to call it."""

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from keras_flowers_runtime.exported import load_description

from keras_flowers.export.conversion import FILES
from keras_flowers.export.proof import MAX_IMAGES, Proof, score_images
from keras_flowers.export.sources import RunImages, Source, find_source, spread
from keras_flowers.files import printable_path, write_text_atomically
from keras_flowers.progress import Progress
from keras_flowers.version import __version__

_TEMPLATE = "model_card.md.jinja"
# How images become the size of the model: in words, with Pillow, and with sharp.
_RESIZING = {
    "stretch": (
        "stretch to the size and ignore the aspect ratio",
        "image = image.resize({size}, Image.Resampling.BILINEAR)",
        "fill",
    ),
    "crop": (
        "keep the aspect ratio and cut off what is too much on both sides",
        "image = ImageOps.fit(image, {size}, Image.Resampling.BILINEAR)",
        "cover",
    ),
    "pad": (
        "keep the aspect ratio and add black borders",
        "image = ImageOps.pad(image, {size}, Image.Resampling.BILINEAR)",
        "contain",
    ),
}
# Of a thousand classes a table is no help; proof.json has them all.
_MOST_CLASSES = 100


def write_model_card(
    folder: Path, source: Source, images: RunImages, proof: Proof
) -> None:
    """Writes `README.md` into the folder of an exported model.

    Args:
        folder: The folder, with its `model.json`.
        source: The model and its run.
        images: The images of the run.
        proof: The comparison with the original.
    """
    text = _render(
        load_description(folder),
        source,
        images,
        proof=proof,
        accuracy=proof.exported_accuracy,
        recalls=proof.exported_recall,
    )
    write_text_atomically(folder / "README.md", text)


def write_card(
    model: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> None:
    """Writes the model card of a run: what it is, how good it is, how to call it.

    The scores are those of the validation images of the run, if they still exist.

    Args:
        model: A `.keras` file, or the directory of a run. Only of a run, or of the
            `model.keras` in it, are data and scores known.
        path: The Markdown file to write or to replace, atomically. Its folder must
            exist.
        progress: Called as `progress("prove", done, total)` with images, and with the
            steps of finding the images of the run.

    Raises:
        InputError: If there is no model, or the file cannot be written.

    Example:
    ```python
    import keras_flowers.export

    keras_flowers.export.write_card("runs/flowers", "MODEL_CARD.md")
    ```
    """
    source = find_source(model)
    images = source.find_images(progress)
    accuracy, recalls = score_images(
        source.model, spread(images.validation, MAX_IMAGES), progress
    )
    file = source.file
    assert file is not None  # that of a path
    description = {
        "format": "keras",
        "precision": source.model.compute_dtype,
        "any_size": True,
        "similarity": None,
        "files": {file.name: {"size": file.stat().st_size}},
    }
    text = _render(
        description,
        source,
        images,
        proof=None,
        accuracy=accuracy,
        recalls=recalls,
    )
    write_text_atomically(path, text)


def _render(
    description: Mapping[str, Any], source: Source, images: RunImages, **values: Any
) -> str:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown; names go through `cell`
    )
    environment.filters["cell"] = _cell
    template = environment.from_string(
        resources.files("keras_flowers.export").joinpath(_TEMPLATE).read_text("utf-8")
    )
    model = source.model
    height, width = model.image_size
    how_to_resize, pillow_resize, sharp_fit = _RESIZING[model.resize]
    return template.render(
        description=description,
        model=model,
        file=FILES.get(description["format"]) or next(iter(description["files"])),
        height=height,
        width=width,
        how_to_resize=how_to_resize,
        pillow_resize=pillow_resize.format(size=(width, height)),
        sharp_fit=sharp_fit,
        network=_describe_network(source),
        data=source.data,
        counts=images.counts,
        classes=model.class_names[:_MOST_CLASSES],
        left_out=max(0, len(model.class_names) - _MOST_CLASSES),
        megabytes=sum(one["size"] for one in description["files"].values()) / 1e6,
        version=__version__,
        **values,
    )


def _cell(value: Any) -> str:
    """Returns a text that is one cell of a Markdown table, and no markup."""
    text = printable_path(str(value))
    for character in "\\`*_{}[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text


def _describe_network(source: Source) -> str:
    model = source.model
    hidden = ", ".join(map(str, model.hidden_units or ())) or "none"
    backbone = model.backbone
    if backbone is None:
        return f"a dense network with hidden layers of {hidden} units"
    kind = "pretrained " if backbone.is_pretrained else ""
    if model.has_linear_head:
        return f"the {kind}backbone {backbone.network.name} and a linear head"
    return (
        f"the {kind}backbone {backbone.network.name} and a head with hidden layers: "
        f"{hidden}"
    )
