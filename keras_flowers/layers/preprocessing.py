"""Layers that turn raw images into the input of a network."""

from typing import Any

import keras
from keras import ops

from keras_flowers.argument_checks import RESIZE_MODES, check_choice, check_image_size
from keras_flowers.errors import InputError
from keras_flowers.layers.data_format import require_channels_last
from keras_flowers.registration import register

TF, TORCH, CAFFE = MODES = ("tf", "torch", "caffe")


@register("ResizeAndRescale")
class ResizeAndRescale(keras.layers.Layer):
    """Resizes images to one size and scales their values.

    The resize is bilinear with antialiasing. It is the triangle filter of Pillow's
    `Image.resize(..., Resampling.BILINEAR)`, so images resized on disk and images
    resized by the model agree. It is implemented as two matrix products, which run on
    every backend, with XLA and in TFLite. Images that have the size already are only
    scaled.

    Safe inside a `tf.data` pipeline on the TensorFlow backend.

    Args:
        image_size: Pair of integers, `(height, width)` of the output in pixels.
        scale: Float, the factor applied to every value. The default maps 0..255
            to 0..1.
        offset: Float, added after scaling.
        resize: `"stretch"` ignores the aspect ratio; `"crop"` keeps it and cuts off
            what is too much on both sides; `"pad"` keeps it and adds black borders.

    Input shape:
        `(height, width, channels)` or `(batch, height, width, channels)`, of any
        integer or float dtype; values usually 0..255.

    Output shape:
        The same rank, with `image_size` as height and width, in the
        layer's compute dtype; values 0..1 for input in 0..255 and the defaults.

    Raises:
        InputError: If `image_size` is not a pair of positive integers, or `resize` is
            none of the above.
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        scale: float = 1 / 255,
        offset: float = 0.0,
        resize: str = "stretch",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_channels_last(self)
        self.image_size = check_image_size(image_size)
        self.resize = check_choice("resize", resize, RESIZE_MODES)
        self.scale = scale
        self.offset = offset

    def call(self, inputs: Any) -> Any:
        """Returns `inputs` at `image_size`, scaled."""
        images = ops.cast(inputs, "float32")
        if tuple(images.shape[-3:-1]) != self.image_size:
            shape = ops.shape(images)
            rows, columns = _resize_weights(shape[-3:-1], self.image_size, self.resize)
            if rows is not None:
                images = ops.einsum("oh,...hwc->...owc", rows, images)
            if columns is not None:
                images = ops.einsum("ow,...hwc->...hoc", columns, images)
        return ops.cast(images * self.scale + self.offset, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the shape of the output for the shape of an input."""
        return (*input_shape[:-3], *self.image_size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "scale": self.scale,
            "offset": self.offset,
            "resize": self.resize,
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
        require_channels_last(self)
        self.supports_masking = True
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


def _resize_weights(
    sizes: tuple[Any, Any], image_size: tuple[int, int], resize: str
) -> tuple[Any, Any]:
    """Returns the weights of rows and columns, None for an axis that stays."""
    if resize == "crop":
        lengths = [ops.cast(size, "float32") for size in sizes]
        scale = ops.minimum(
            *(n / out for n, out in zip(lengths, image_size, strict=True))
        )
        height, width = (
            _triangle_weights(
                size, out, start=(n - out * scale) / 2, length=out * scale
            )
            for size, n, out in zip(sizes, lengths, image_size, strict=True)
        )
        return height, width
    if resize == "pad":
        height, width = (
            _triangle_weights(size, out, inner=inner)
            for size, out, inner in zip(
                sizes, image_size, _fit_inside(sizes, image_size), strict=True
            )
        )
        return height, width
    height, width = (
        None if isinstance(size, int) and size == out else _triangle_weights(size, out)
        for size, out in zip(sizes, image_size, strict=True)
    )
    return height, width


def _fit_inside(sizes: tuple[Any, Any], image_size: tuple[int, int]) -> tuple[Any, Any]:
    """Returns the largest size of the same aspect ratio, as `load_image` rounds it."""
    height, width = (ops.cast(size, "int32") for size in sizes)
    out_height, out_width = image_size
    is_wide = out_width * height <= out_height * width
    rows = (2 * height * out_width + width) // (2 * width)
    columns = (2 * width * out_height + height) // (2 * height)
    return (
        ops.where(is_wide, ops.maximum(rows, 1), out_height),
        ops.where(is_wide, out_width, ops.maximum(columns, 1)),
    )


def _triangle_weights(
    in_size: Any,
    out_size: int,
    *,
    start: Any = 0.0,
    length: Any = None,
    inner: Any = None,
) -> Any:
    """Returns the weights `(out_size, in_size)` of an antialiased bilinear resize.

    Each output pixel is the mean of the input under a triangle around its center, one
    input pixel wide when enlarging and one output pixel wide when reducing.

    Args:
        in_size: Input pixels.
        out_size: Output pixels.
        start: Where the part to resize starts, in input pixels.
        length: Length of the part to resize; None for the whole input.
        inner: Output pixels in the middle that receive the input; the others are 0.
            None for all.
    """
    length = ops.cast(in_size, "float32") if length is None else length
    positions = ops.arange(out_size, dtype="float32")
    used = ops.ones((out_size,), "float32")
    if inner is None:
        step = length / out_size
    else:
        step = length / ops.cast(inner, "float32")
        positions -= ops.cast((out_size - inner) // 2, "float32")
        used = ops.cast(
            ops.logical_and(positions >= 0, positions < ops.cast(inner, "float32")),
            "float32",
        )
    support = ops.maximum(step, 1.0)
    centers = start + (positions + 0.5) * step
    pixels = ops.arange(in_size, dtype="float32") + 0.5
    distance = ops.abs(pixels[None, :] - centers[:, None]) / support
    weights = ops.maximum(1.0 - distance, 0.0)
    total = ops.sum(weights, axis=1, keepdims=True)
    return used[:, None] * weights / ops.where(total > 0, total, 1.0)
