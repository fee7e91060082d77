"""Augmentation alone against the Keras layers it replaces.

    python benchmarks/augmentation.py

A batch of 32 images of 256x256: rescaling, flip, rotation, zoom and contrast, and then
the strength `strong` with crops and colours, each compiled as the layers allow. The
Keras layers turn XLA off for the model they are in.
"""

import os

from common import FAST, machine, seconds

os.environ.update(FAST, TF_CPP_MIN_LOG_LEVEL="2")

import keras
import numpy as np
import tensorflow as tf
from plain_script import augmentation

import keras_flowers
from keras_flowers.layers.augmentation import AUGMENTATION_STRENGTHS


# What Keras has for a random resized crop and colours, with the ranges of `strong`.
def strong_augmentation() -> list[keras.layers.Layer]:
    """Returns Keras's layers that do about what the strength `strong` does."""
    return [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomRotation(0.03),
        keras.layers.RandomZoom((-0.4, 0), (-0.4, 0)),
        keras.layers.RandomTranslation(0.2, 0.2),
        keras.layers.RandomColorJitter(
            value_range=(0, 1),
            brightness_factor=0.15,
            contrast_factor=0.3,
            saturation_factor=(0.3, 0.7),
        ),
    ]


def main() -> None:
    """Prints the times and the ratios."""
    generator = np.random.default_rng(0)
    images = tf.constant(generator.integers(0, 256, (32, 256, 256, 3), dtype=np.uint8))

    def time_layers(layers: list, jit_compile: bool) -> float:
        @tf.function(jit_compile=jit_compile)
        def apply(batch: tf.Tensor) -> tf.Tensor:
            for layer in layers:
                batch = layer(batch, training=True)
            return batch

        return seconds(lambda: apply(images).numpy, 30)

    print(machine())
    strong = AUGMENTATION_STRENGTHS["strong"]
    for name, plain_layers, options in (
        ("as in the lesson", augmentation(), {}),
        ("strong", strong_augmentation(), strong),
    ):
        our_layers = [
            keras_flowers.ResizeAndRescale((256, 256)),
            keras_flowers.ImageAugmentation(value_range=(0, 1), **options),
        ]
        plain = time_layers([keras.layers.Rescaling(1 / 255), *plain_layers], False)
        ours = time_layers(our_layers, jit_compile=True)
        print(name)
        print(f"  Keras's layers       {plain * 1000:8.1f} ms per batch")
        print(f"  ImageAugmentation    {ours * 1000:8.1f} ms per batch")
        print(f"  ratio                {plain / ours:8.2f}")
        blockers = [layer.name for layer in our_layers if not layer.supports_jit]
        print(f"  layers that keep XLA off: {blockers or 'none'}")


if __name__ == "__main__":
    main()
