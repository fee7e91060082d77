"""The order of the axes of images."""

from typing import Any

import keras

from keras_flowers.errors import InputError


def require_channels_last(component: Any) -> None:
    """Refuses Keras's setting that channels come first.

    Raises:
        InputError: If it is set.
    """
    if keras.config.image_data_format() != "channels_last":
        raise InputError(
            f"{type(component).__name__} takes images (height, width, channels): call "
            "`keras.config.set_image_data_format('channels_last')`. "
            f"Received: {keras.config.image_data_format()!r}"
        )
