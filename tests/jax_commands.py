"""Runs the commands on the JAX backend, in one process: `jax_commands.py FOLDER`."""

import json
import math
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
    rates = folder / "rates.png"
    do("lr-find", photos, *SMALL, "--steps", 20, "--plot", rates)
    assert rates.stat().st_size
    search = ("--learning-rate", "auto")
    do("train", photos, *SMALL, *search, "--epochs", 1, "--run-dir", run_dir)
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
    check_accelerator_benchmark(folder / "accelerator.json")


def check_accelerator_benchmark(output):
    """Runs the benchmark for machines with a GPU at its smallest size."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    import accelerator

    accelerator.main(["--small", "--output", str(output)])
    found = json.loads(output.read_text())
    assert found["devices"] and found["total_seconds"] > 0
    assert set(found["seconds"]["augmentation"]) == {
        "keras_layers",
        "image_augmentation",
    }
    assert len(found["seconds"]["bare_parts"]) == 3
    models = ["lesson"] + [
        f"{name}_{dtype}"
        for name in ("small_convnet", "backbone")
        for dtype in ("float32", "mixed_bfloat16")
    ]
    parts = ("step", "forward")
    assert set(found["images_per_second"]) == {
        "loading",
        *(f"{model}_{part}" for model in models for part in parts),
    }
    assert set(found["ratios"]) == {
        "augmentation: Keras's layers / ours (goal 10)",
        "lesson: step / bare parts and augmentation",
        *(f"loading / {model}_step" for model in models),
        *(
            f"{name}: mixed_bfloat16 / float32, {part}"
            for name in ("small_convnet", "backbone")
            for part in parts
        ),
    }
    figures = [
        *found["seconds"]["augmentation"].values(),
        *found["seconds"]["bare_parts"].values(),
        *found["images_per_second"].values(),
        *found["ratios"].values(),
    ]
    assert all(figure > 0 and math.isfinite(figure) for figure in figures)


if __name__ == "__main__":
    # The processes of a search import this file.
    main(Path(sys.argv[1]))
