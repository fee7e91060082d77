"""Runs the commands on the JAX backend, in one process: `jax_commands.py FOLDER`."""

import json
import sys
from pathlib import Path

from helpers import draw_images
from keras_flowers_cli.main import run

from keras_flowers import ImageDatasetLoader

SMALL = ("--image-size", "8", "--hidden-units", "8", "--batch-size", "8")


def do(*arguments):
    """Runs a command that must succeed."""
    assert run([str(argument) for argument in arguments]) == 0, arguments


def main(folder):
    """Does everything that a user does with a folder of images."""
    photos = draw_images(folder / "photos", {"daisy": 10, "roses": 8, "tulips": 6})
    run_dir, model = folder / "run", folder / "run" / "model.keras"
    do("audit", photos)
    # With TensorFlow installed, Keras imports it to serialize a model.
    batches = ImageDatasetLoader(photos, (8, 8)).load().train
    assert sum(len(labels) for _, labels in batches) > 0
    assert "tensorflow" not in sys.modules, "loading does not need it"
    do("train", photos, *SMALL, "--epochs", 1, "--run-dir", run_dir)
    do("train", "--resume", run_dir, "--epochs", 2)
    history = json.loads((run_dir / "history.json").read_text())
    assert history["epoch"] == [1, 2]
    assert (run_dir / "report.html").is_file()
    assert any((run_dir / "tensorboard" / "train").iterdir())
    do("evaluate", model, photos)
    assert (run_dir / "evaluation" / "evaluation.json").is_file()
    do("predict", model, photos / "roses" / "000.png")
    search = folder / "search"
    sizes = ("--image-size", 8, "--batch-size", 8, "--units", 8, "--max-epochs", 1)
    do("tune", photos, *sizes, "--layers", 1, "--trials", 2, "--run-dir", search)
    assert (search / "model.keras").is_file()
    do("doctor")


if __name__ == "__main__":
    # The processes of a search import this file.
    main(Path(sys.argv[1]))
