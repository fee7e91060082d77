"""A small convolutional network that learns from a folder of images alone."""

from typing import Any

import keras

from keras_flowers.argument_checks import check_image_size

# Filters of the convolutions, in order.
FILTERS = (32, 64, 128, 256, 256)


def small_convnet(image_size: tuple[int, int]) -> keras.Model:
    """Returns an untrained network that turns images into features.

    Five 3x3 convolutions, each with batch normalization and ReLU, with maximum
    pooling between them and the mean over all positions at the end. The plain stack
    is that of VGG (Simonyan and Zisserman, 2014), the normalization is from Ioffe and
    Szegedy (2015), the mean from Lin, Chen and Yan (2013). It has 980,000
    parameters and no pretrained weights; an image of 128x128 pixels takes 70 million
    multiplications.

    Args:
        image_size: `(height, width)` in pixels. Any size works. Each side is
            reduced by a factor of 32, so use at least 32.

    Input shape:
        `(batch, height, width, 3)`, values 0..255.

    Output shape:
        `(batch, 256)`, values from 0 up.

    Raises:
        InputError: If `image_size` is not a pair of positive integers.
    """
    inputs = keras.Input((*check_image_size(image_size), 3), name="images")
    outputs = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for index, filters in enumerate(FILTERS):
        if index > 0:
            # "same", or the sides of a very small image would reach zero.
            outputs = keras.layers.MaxPooling2D(padding="same", name=f"pool_{index}")(
                outputs
            )
        outputs = _convolution(outputs, index, filters)
    outputs = keras.layers.GlobalAveragePooling2D(name="features")(outputs)
    return keras.Model(inputs, outputs, name="small_convnet")


def _convolution(inputs: Any, index: int, filters: int) -> Any:
    """Applies convolution, batch normalization and ReLU; the first one has stride 2."""
    outputs = keras.layers.Conv2D(
        filters,
        kernel_size=3,
        strides=2 if index == 0 else 1,
        padding="same",
        use_bias=False,  # batch normalization has one
        kernel_initializer="he_normal",
        name=f"convolution_{index + 1}",
    )(inputs)
    outputs = keras.layers.BatchNormalization(
        # Keras's 0.99 follows the last hundred batches, two epochs of a small folder.
        momentum=0.9,
        epsilon=1e-5,
        name=f"normalization_{index + 1}",
    )(outputs)
    return keras.layers.ReLU(name=f"relu_{index + 1}")(outputs)
