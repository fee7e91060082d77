"""`keras-flowers backbones`, and the backbone that other commands are given."""

from typing import TYPE_CHECKING, Any

import click
from keras_flowers_cli import runtime
from keras_flowers_cli.errors import EXIT_DONE
from keras_flowers_cli.options import setting_options
from keras_flowers_cli.output import Output, TextTable

if TYPE_CHECKING:
    from keras_flowers.data.dataset_loader import ImageDatasetLoader
    from keras_flowers.models.backbone import Backbone

_MEGABYTE = 1e6
_BYTES_PER_WEIGHT = 4


@click.command()
@setting_options("backbones")
def backbones(as_json: bool) -> int:
    """List the networks that --backbone knows, with their sizes.

    "side" is the default height and width of the images in pixels, and "min" the
    minimum; "MB" is the size of the weights in memory and on disk; "top-1" is the
    published accuracy on ImageNet, in percent; "flowers" is the validation accuracy
    that `train` reached on the flower_photos data set, where it was measured. Keras
    downloads ImageNet weights for all of them except small_convnet.
    """
    runtime.start_keras()
    from keras_flowers.models.backbone_presets import (
        FLOWERS_ACCURACY,
        IMAGENET_TOP1,
        backbone_names,
        named_network,
    )

    output = Output(as_json)
    rows = TextTable(
        "name",
        "side",
        "min",
        "features",
        "parameters",
        "MB",
        "top-1",
        "flowers",
    )
    networks = [named_network(name) for name in backbone_names()]
    for network in networks:
        rows.add_row(
            network.name,
            str(network.side),
            str(network.smallest_side),
            str(network.feature_size),
            f"{network.parameters:,}",
            f"{network.parameters * _BYTES_PER_WEIGHT / _MEGABYTE:.1f}",
            _percent_text(IMAGENET_TOP1.get(network.name)),
            _percent_text(FLOWERS_ACCURACY.get(network.name)),
        )
    output.show(rows)
    output.result(
        [
            {
                "name": network.name,
                "image_size": [network.side, network.side],
                "smallest_side": network.smallest_side,
                "features": network.feature_size,
                "parameters": network.parameters,
                "imagenet_weights": network.has_imagenet_weights,
                "imagenet_top1": IMAGENET_TOP1.get(network.name),
                "flowers_accuracy": FLOWERS_ACCURACY.get(network.name),
            }
            for network in networks
        ]
    )
    return EXIT_DONE


def _percent_text(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def resolve_backbone(
    loader: "ImageDatasetLoader", given: dict[str, Any], policy: str | None = None
) -> tuple["ImageDatasetLoader", "Backbone | None"]:
    """Returns the loader with the image size of the backbone, and the backbone.

    Args:
        loader: The loader.
        given: The options that were given to a command.
        policy: The dtype policy, or `None` for the global one.
    """
    if "backbone" not in given:
        return loader, None
    from keras_flowers.models.backbone import Backbone

    weights = given.get("pretrained_weights", "auto")
    backbone = Backbone(
        given["backbone"],
        None if weights == "none" else weights,
        image_size=given.get("image_size"),
        seed=loader.seed,
        dtype=policy,
    )
    config = {**loader.get_config(), "image_size": backbone.image_size}
    return type(loader).from_config(config), backbone
