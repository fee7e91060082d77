"""Layers that turn raw images into the input of a network."""

from typing import Any

import keras
from keras import ops

from keras_flowers.argument_checks import check_image_size
from keras_flowers.errors import InputError
from keras_flowers.registration import register

TF, TORCH, CAFFE = MODES = ("tf", "torch", "caffe")


@register("ResizeAndRescale")
class ResizeAndRescale(keras.layers.Layer):
    """Resizes images to one size and scales their values.

    The resize is bilinear with antialiasing and does not keep the aspect ratio. It is
    the triangle filter of Pillow's `Image.resize(..., Resampling.BILINEAR)`, so images
    resized on disk and images resized by the model agree. It is implemented as two
    matrix products, which run on every backend, with XLA and in TFLite. Images that
    have the size already are only scaled.

    Safe inside a `tf.data` pipeline on the TensorFlow backend.

    Args:
        image_size: Pair of integers, `(height, width)` of the output in pixels.
        scale: Float, the factor applied to every value. The default maps 0..255
            to 0..1.
        offset: Float, added after scaling.

    Input shape:
        `(height, width, channels)` or `(batch, height, width, channels)`, of any
        integer or float dtype; values usually 0..255.

    Output shape:
        The same rank, with `image_size` as height and width, in the
        layer's compute dtype; values 0..1 for input in 0..255 and the defaults.

    Raises:
        InputError: If `image_size` is not a pair of positive integers.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        scale: float = 1 / 255,
        offset: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_size = check_image_size(image_size)
        self.scale = scale
        self.offset = offset

    def call(self, inputs: Any) -> Any:
        """Returns `inputs` at `image_size`, scaled."""
        images = ops.cast(inputs, "float32")
        for axis, size in zip((-3, -2), self.image_size, strict=True):
            if images.shape[axis] != size:
                images = _resize_axis(images, axis, size)
        return ops.cast(images * self.scale + self.offset, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the shape of the output for the shape of an input."""
        return (*input_shape[:-3], *self.image_size, input_shape[-1])

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Returns shape and dtype of the output without computing it."""
        return keras.KerasTensor(
            self.compute_output_shape(inputs.shape), dtype=self.compute_dtype
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "scale": self.scale,
            "offset": self.offset,
        }


@register("ImageNetPreprocessing")
class ImageNetPreprocessing(keras.layers.Layer):
    """Maps pixel values to the range that a network of `keras.applications` expects.

    The networks differ in it. The three modes are those of
    `keras.applications.imagenet_utils.preprocess_input`.

    Args:
        mode: `"tf"` scales to -1..1; `"torch"` scales to 0..1, subtracts the means
            of ImageNet's channels and divides by their standard deviations;
            `"caffe"` converts RGB to BGR and subtracts the means.

    Input shape:
        `(batch, height, width, 3)`, RGB, values 0..255.

    Output shape:
        The same, in the layer's compute dtype.

    Raises:
        InputError: If `mode` is not one of the three.
    """

    def __init__(self, mode: str = TF, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if mode not in MODES:
            raise InputError(f"`mode` must be one of {MODES}. Received: mode={mode!r}")
        self.mode = mode

    def call(self, inputs: Any) -> Any:
        """Returns the images with the values that the network expects."""
        return keras.applications.imagenet_utils.preprocess_input(
            ops.cast(inputs, self.compute_dtype),
            data_format="channels_last",
            mode=self.mode,
        )

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the shape of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "mode": self.mode}


def _resize_axis(images: Any, axis: int, size: int) -> Any:
    """Resizes one axis of channels-last float images by a matrix product."""
    weights = _triangle_weights(ops.shape(images)[axis], size)
    if axis == -3:
        return ops.einsum("oh,...hwc->...owc", weights, images)
    return ops.einsum("ow,...hwc->...hoc", weights, images)


def _triangle_weights(in_size: Any, out_size: int) -> Any:
    """Returns the weights `(out_size, in_size)` of an antialiased bilinear resize.

    Each output pixel is the mean of the input under a triangle around its centre,
    one input pixel wide when enlarging and one output pixel wide when reducing.
    """
    step = ops.cast(in_size, "float32") / out_size
    support = ops.maximum(step, 1.0)
    centres = (ops.arange(out_size, dtype="float32") + 0.5) * step
    pixels = ops.arange(in_size, dtype="float32") + 0.5
    distance = ops.abs(pixels[None, :] - centres[:, None]) / support
    weights = ops.maximum(1.0 - distance, 0.0)
    return weights / ops.sum(weights, axis=1, keepdims=True)
