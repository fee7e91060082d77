"""What a GPU does with this package, in less than four minutes.

    KERAS_BACKEND=jax python benchmarks/accelerator.py [--small] [--output FILE]

Compares, on the device that JAX uses:

- augmentation with that of Keras's layers
- the training step of the lesson's model with its bare parts
- small_convnet and MobileNetV2 in float32 and mixed_bfloat16
- the images per second that the loader provides with those that the device trains on
- the forward pass of these models

It prints the ratios and writes all figures to a JSON file. `--small` does the same with
tiny images, a tiny network instead of MobileNetV2, and few repetitions: it shows that
everything works, also without a GPU.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np
from bare_parts import bare_parts
from common import seconds

import keras_flowers

CLASSES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")


class RepeatedBatch(keras.utils.PyDataset):
    """One batch, again and again, which takes no time to load."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, steps: int) -> None:
        super().__init__()
        self._batch, self._steps = (images, labels), steps

    def __len__(self) -> int:
        """Returns the number of batches."""
        return self._steps

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the batch."""
        return self._batch


class Benchmark:
    """Measures on images of one size.

    Args:
        side: Pixels, the height and the width of an image.
        batch: Images in a batch.
        repeats: How often something is timed.
    """

    def __init__(self, side: int, batch: int, repeats: int) -> None:
        self.side, self.batch, self.repeats = side, batch, repeats
        generator = np.random.default_rng(0)
        shape = (batch, side, side, 3)
        self.images = generator.integers(0, 256, shape, dtype=np.uint8)
        self.labels = generator.integers(0, len(CLASSES), batch).astype(np.int32)

    def augmentation(self) -> dict[str, float]:
        """Returns the seconds of a batch, with Keras's layers and with ours."""
        layers = keras.layers
        plain = [
            layers.Rescaling(1 / 255),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.1),
            layers.RandomZoom(0.1),
            layers.RandomContrast(0.1, value_range=(0, 1)),
        ]
        ours = [
            keras_flowers.ResizeAndRescale((self.side, self.side)),
            keras_flowers.ImageAugmentation(value_range=(0, 1)),
        ]
        images = jax.device_put(self.images)
        return {
            "keras_layers": self._time_layers(plain, images),
            "image_augmentation": self._time_layers(ours, images),
        }

    def step(self, model: keras.Model) -> float:
        """Returns the seconds of a training step."""
        data = RepeatedBatch(self.images, self.labels, self.repeats)
        model.fit(data, verbose=0, shuffle=False)  # compiles
        begin = time.perf_counter()
        model.fit(data, verbose=0, shuffle=False)
        return (time.perf_counter() - begin) / self.repeats

    def forward(self, model: keras.Model) -> float:
        """Returns the seconds of a forward pass of a batch."""
        return seconds(lambda: model.predict_on_batch(self.images), self.repeats)

    def loading(self) -> float:
        """Returns the images per second of the loader, from the image cache."""
        with tempfile.TemporaryDirectory() as folder:
            count = max(1, 4 * self.batch // len(CLASSES))
            images = keras_flowers.write_sample(
                Path(folder, "images"), images_per_class=count
            )
            datasets = keras_flowers.ImageDatasetLoader(
                images,
                (self.side, self.side),
                self.batch,
                validation_split=0.0,
                cache_directory=folder,
            ).load()
            best = 0.0
            for _ in range(3):
                begin = time.perf_counter()
                loaded = sum(len(labels) for _, labels in datasets.train)
                best = max(best, loaded / (time.perf_counter() - begin))
            return best

    def classifier(self, dtype: str = "float32", **options: Any) -> keras.Model:
        """Returns a compiled classifier."""
        model = keras_flowers.ImageClassifier(
            CLASSES, (self.side, self.side), seed=0, dtype=dtype, **options
        )
        model.compile(jit_compile=True)
        return model

    def _time_layers(self, layers: list[Any], images: Any) -> float:
        for layer in layers:
            layer.build(images.shape)
        variables = [v for layer in layers for v in layer.variables]

        def apply(values: list[Any], batch: Any) -> Any:
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                for layer in layers:
                    batch = layer(batch, training=True)
            return batch

        run: Callable[..., Any] = jax.jit(apply)
        values = [v.value for v in variables]
        try:
            run(values, images)
        except Exception:
            run = apply  # as Keras does with layers that XLA cannot compile
        return seconds(lambda: jax.block_until_ready(run(values, images)), self.repeats)


def build_backbone(side: int, small: bool) -> keras.Model:
    """Returns MobileNetV2, or a network that compiles in a moment."""
    shape = (side, side, 3)
    if small:
        layers = [keras.layers.Conv2D(4, 3, 2), keras.layers.GlobalAveragePooling2D()]
        return keras.Sequential([keras.Input(shape), *layers], name="tiny")
    return keras.applications.MobileNetV2(shape, include_top=False, weights=None)


def measure(small: bool) -> dict[str, Any]:
    """Returns all figures."""
    side, batch, repeats = (32, 2, 1) if small else (256, 32, 30)
    benchmark = Benchmark(side, batch, repeats)
    augmentation = benchmark.augmentation()
    parts = bare_parts(batch, side, 256, repeats)
    lesson = benchmark.classifier()
    lesson_step = benchmark.step(lesson)
    figures: dict[str, Any] = {
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "jax": jax.__version__,
        "keras": keras.__version__,
        "image_side": side,
        "batch_size": batch,
        "seconds": {"augmentation": augmentation, "bare_parts": parts},
        "images_per_second": {
            "loading": benchmark.loading(),
            "lesson_step": batch / lesson_step,
            "lesson_forward": batch / benchmark.forward(lesson),
        },
    }
    speeds = figures["images_per_second"]
    network = build_backbone(side, small)
    figures["backbone"] = network.name
    models = {"small_convnet": "small_convnet", "backbone": network}
    for name, backbone in models.items():
        for dtype in ("float32", "mixed_bfloat16"):
            model = benchmark.classifier(dtype, backbone=backbone, augmentation=True)
            speeds[f"{name}_{dtype}_step"] = batch / benchmark.step(model)
            speeds[f"{name}_{dtype}_forward"] = batch / benchmark.forward(model)
    parts_and_warp = sum(parts.values()) + augmentation["image_augmentation"]
    figures["ratios"] = {
        "augmentation: Keras's layers / ours (goal 10)": augmentation["keras_layers"]
        / augmentation["image_augmentation"],
        "lesson: step / bare parts and augmentation": lesson_step / parts_and_warp,
        **{
            f"loading / {name}": speeds["loading"] / speed
            for name, speed in speeds.items()
            if name.endswith("_step")
        },
        **{
            f"{name}: mixed_bfloat16 / float32, {part}": speeds[
                f"{name}_mixed_bfloat16_{part}"
            ]
            / speeds[f"{name}_float32_{part}"]
            for name in models
            for part in ("step", "forward")
        },
    }
    return figures


def main(arguments: list[str] | None = None) -> None:
    """Prints the ratios and writes the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output", type=Path, default=Path("accelerator.json"))
    given = parser.parse_args(arguments)
    begin = time.perf_counter()
    figures = measure(given.small)
    figures["total_seconds"] = time.perf_counter() - begin
    print(", ".join(figures["devices"]))
    for name, value in figures["images_per_second"].items():
        print(f"{name:36}{value:12.1f} images/s")
    for name, value in figures["ratios"].items():
        print(f"{name:48}{value:8.2f}")
    given.output.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
