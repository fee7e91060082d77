"""Flip, rotation, zoom, crop and colors in one resampling of the image."""

import math
from typing import Any

import keras
from keras import ops

from keras_flowers.errors import InputError
from keras_flowers.layers.data_format import require_channels_last
from keras_flowers.registration import register
from keras_flowers.xla import call_with_xla

FLIPS = ("horizontal", "vertical", "horizontal_and_vertical", None)
FILL_MODES = ("reflect", "nearest", "wrap", "constant")

# Arguments of `ImageAugmentation`. `light` suits networks with pretrained weights;
# `strong` suits those that train for many epochs from random weights.
AUGMENTATION_STRENGTHS: dict[str, dict[str, Any]] = {
    "light": {
        "rotation": 0.0,
        "zoom": 0.0,
        "contrast": 0.15,
        "crop_scale": (0.6, 1.0),
        "crop_aspect": (0.8, 1.25),
        "brightness": 0.1,
        "saturation": 0.2,
    },
    "strong": {
        "rotation": 0.03,
        "zoom": 0.0,
        "contrast": 0.3,
        "crop_scale": (0.35, 1.0),
        "crop_aspect": (0.75, 1.33),
        "brightness": 0.15,
        "saturation": 0.4,
    },
}

Range = float | tuple[float, float]

# Of the gray of an RGB image (ITU-R BT.601).
_LUMA = (0.299, 0.587, 0.114)


@register("ImageAugmentation")
class ImageAugmentation(keras.layers.Layer):
    """Randomly flips, rotates, zooms, crops and changes the colors of each image.

    The first parameters have the same meaning as in Keras's `RandomFlip`,
    `RandomRotation`, `RandomZoom` and `RandomContrast`, applied in this order, but the
    image is sampled once: flip, rotation, zoom and crop are composed into one affine
    warp with bilinear interpolation, and the contrast is applied to the sampled values.
    That keeps the image sharper than three resamplings, and XLA compiles it into one
    pass over the images.

    Differences from the four layers: `contrast=0.1` lowers as well as raises the
    contrast; contrast is taken around each channel's mean before the warp; results
    are clipped to `value_range`; integer images are accepted.

    The layer augments only with `training=True`. Every other call, including
    `predict`, `evaluate` and exported models, only casts the images.

    Safe inside a `tf.data` pipeline on the TensorFlow backend (for a repeatable
    order of random numbers, with `num_parallel_calls=None`).

    Args:
        flip: `"horizontal"`, `"vertical"`, `"horizontal_and_vertical"` or `None`.
            Each axis is flipped with probability one half.
        rotation: Float, or pair of floats, as a fraction of a full turn: `0.1`
            rotates by -36 to +36 degrees, `(0, 0.25)` by 0 to 90.
        zoom: Float, or pair of floats, greater than -1: `0.1` magnifies or shrinks
            by up to 10 percent, both axes alike. Positive values zoom out.
        contrast: Float, or pair of floats, not below -1: `0.1` multiplies the
            contrast by 0.9 to 1.1.
        fill_mode: How to fill pixels beyond the border: `"reflect"` (`d c b a | a b c d
            | d c b a`), `"nearest"`, `"wrap"` or `"constant"`.
        fill_value: Float, in the range of the values, for `fill_mode="constant"`.
        value_range: Pair of floats, the lowest and the highest value of the
            images. Pass `(0, 1)` after a rescaling.
        seed: Integer or `None`. With an integer every new layer gives the same
            sequence, which differs between backends, and on TensorFlow with and
            without XLA. The position in the sequence is saved with the model.
        crop_scale: Pair of floats above 0 and up to 1. The image is cropped to that
            fraction of its area, at a random place, and enlarged to its size, in the
            same warp. `(1, 1)` keeps all of it.
        crop_aspect: Pair of floats above 0: by how much the crop is wider than the
            image for its height. `(0.8, 1.25)` squeezes or stretches the content by up
            to a quarter.
        brightness: Float, or pair of floats, not below -1: `0.1` adds -10 to +10
            percent of the value range.
        saturation: Float, or pair of floats, not below -1: `0.2` multiplies the
            distance of each color from gray by 0.8 to 1.2.

    Attributes:
        jit_compile: Whether to compile the warp alone with XLA, on TensorFlow, where it
            is part of a graph that is not compiled. `False` for a new layer;
            `ImageClassifier.compile` decides it for its layers.

    Input shape:
        `(height, width, channels)` or `(batch, height, width, channels)`, of any
        integer or float dtype, values in `value_range`.

    Output shape:
        As the input, in the layer's compute dtype, values in `value_range`.

    Raises:
        InputError: If an argument is not as described above, or Keras is set to
            channels first.
    """

    def __init__(
        self,
        flip: str | None = "horizontal",
        rotation: Range = 0.1,
        zoom: Range = 0.1,
        contrast: Range = 0.1,
        fill_mode: str = "reflect",
        fill_value: float = 0.0,
        value_range: tuple[float, float] = (0, 255),
        seed: int | None = None,
        crop_scale: tuple[float, float] = (1.0, 1.0),
        crop_aspect: tuple[float, float] = (1.0, 1.0),
        brightness: Range = 0.0,
        saturation: Range = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_channels_last(self)
        self.supports_masking = True
        _check_choice("flip", flip, FLIPS)
        _check_choice("fill_mode", fill_mode, FILL_MODES)
        self._rotation_range = _as_range("rotation", rotation, lowest=-math.inf)
        self._zoom_range = _as_range("zoom", zoom, lowest=-1.0, is_open=True)
        self._contrast_range = _as_range("contrast", contrast, lowest=-1.0)
        self._crop_scale_range = _as_crop_range("crop_scale", crop_scale, 1.0)
        low, high = _as_crop_range("crop_aspect", crop_aspect, math.inf)
        self._log_aspect_range = (math.log(low), math.log(high))
        self._brightness_range = _as_range("brightness", brightness, lowest=-1.0)
        self._saturation_range = _as_range("saturation", saturation, lowest=-1.0)
        self._crops = self._crop_scale_range != (
            1.0,
            1.0,
        ) or self._log_aspect_range != (0.0, 0.0)
        self._changes_color = any((*self._brightness_range, *self._saturation_range))
        self.flip = flip
        self.rotation = rotation
        self.zoom = zoom
        self.contrast = contrast
        self.fill_mode = fill_mode
        self.fill_value = fill_value
        self.value_range = _check_value_range(value_range)
        self.seed = seed
        self.crop_scale = crop_scale
        self.crop_aspect = crop_aspect
        self.brightness = brightness
        self.saturation = saturation
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.jit_compile = False

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Returns the images, augmented if `training` is true."""
        if not training:
            return ops.cast(inputs, self.compute_dtype)
        batched = len(inputs.shape) == 4
        images = inputs if batched else ops.expand_dims(inputs, 0)
        outputs = self._augment(images)
        return outputs if batched else ops.squeeze(outputs, 0)

    def _augment(self, images: Any) -> Any:
        # One draw for everything: the sequence then advances once per call. What is off
        # draws nothing, so that the other options decide the same sequence.
        count = 5 + 4 * self._crops + 2 * self._changes_color
        draws = keras.random.uniform(
            (ops.shape(images)[0], count), seed=self.seed_generator
        )
        if self.jit_compile:
            return call_with_xla(self._transform, images, draws)
        return self._transform(images, draws)

    def _transform(self, images: Any, draws: Any) -> Any:
        height, width = ops.shape(images)[1:3]
        transforms = affine_transforms(
            flip_x=_coin(draws[:, 0], self.flip, "horizontal"),
            flip_y=_coin(draws[:, 1], self.flip, "vertical"),
            angle=2 * math.pi * _within(draws[:, 2], self._rotation_range),
            zoom=1 + _within(draws[:, 3], self._zoom_range),
            size=(height, width),
        )
        if self._crops:
            transforms = crop_transforms(
                transforms,
                scale=_within(draws[:, 5], self._crop_scale_range),
                aspect=ops.exp(_within(draws[:, 6], self._log_aspect_range)),
                position=(draws[:, 7], draws[:, 8]),
                size=(height, width),
            )
        contrast = (1 + _within(draws[:, 4], self._contrast_range))[:, None, None, None]
        mean = ops.mean(ops.cast(images, "float32"), axis=(1, 2), keepdims=True)
        centre = mean
        if self._changes_color:
            low, high = self.value_range
            shift = (high - low) * _within(draws[:, -2], self._brightness_range)
            centre = mean + shift[:, None, None, None]
            saturation = 1 + _within(draws[:, -1], self._saturation_range)
            images, mean, centre = (
                _saturate(values, saturation) for values in (images, mean, centre)
            )
        warped = warp(images, transforms, self.fill_mode, self.fill_value)
        outputs = (warped - mean) * contrast + centre
        outputs = ops.clip(outputs, *self.value_range)
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[Any, ...]:
        """Returns the shape of the input."""
        return input_shape

    def save_own_variables(self, store: Any) -> None:
        """Saves the state of the random numbers, which Keras does not save."""
        super().save_own_variables(store)
        store["seed_state"] = self.seed_generator.state.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Loads the state that `save_own_variables` saved."""
        self.seed_generator.state.assign(store["seed_state"])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "flip": self.flip,
            "rotation": self.rotation,
            "zoom": self.zoom,
            "contrast": self.contrast,
            "fill_mode": self.fill_mode,
            "fill_value": self.fill_value,
            "value_range": self.value_range,
            "seed": self.seed,
            "crop_scale": self.crop_scale,
            "crop_aspect": self.crop_aspect,
            "brightness": self.brightness,
            "saturation": self.saturation,
        }


def affine_transforms(
    *, flip_x: Any, flip_y: Any, angle: Any, zoom: Any, size: tuple[Any, Any]
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Composes flip, rotation and zoom around the centre of the image.

    Args:
        flip_x: Float tensor `(batch,)`, -1 to mirror left and right, otherwise
            1.
        flip_y: The same for top and bottom.
        angle: Float tensor `(batch,)`, in radians.
        zoom: Float tensor `(batch,)`, above 0; more than 1 zooms out.
        size: Height and width in pixels.

    Returns:
        Six float tensors `(batch,)`, `xx, xy, x0, yx, yy, y0`: the output pixel in
        row `i` and column `j` is sampled at column `xx * j + xy * i + x0` and row
        `yx * j + yy * i + y0` of the input.
    """
    centre_y, centre_x = ((ops.cast(n, "float32") - 1) / 2 for n in size)
    cosine, sine = ops.cos(angle) * zoom, ops.sin(angle) * zoom
    xx, xy = flip_x * cosine, -flip_x * sine
    yx, yy = flip_y * sine, flip_y * cosine
    x0 = centre_x - xx * centre_x - xy * centre_y
    y0 = centre_y - yx * centre_x - yy * centre_y
    return xx, xy, x0, yx, yy, y0


def crop_transforms(
    transforms: tuple[Any, ...],
    *,
    scale: Any,
    aspect: Any,
    position: tuple[Any, Any],
    size: tuple[Any, Any],
) -> tuple[Any, Any, Any, Any, Any, Any]:
    """Composes affine transforms with a crop that is enlarged to the whole image.

    Args:
        transforms: What `affine_transforms` returns.
        scale: Float tensor `(batch,)`, area of the crop as a fraction of the image,
            above 0.
        aspect: Float tensor `(batch,)`, by how much the crop is wider than the image
            for its height. A side that would be longer than that of the image is cut.
        position: Two float tensors `(batch,)` from 0 to 1: where the crop is between
            left and right, and between top and bottom.
        size: Height and width in pixels.

    Returns:
        As `affine_transforms`.
    """
    xx, xy, x0, yx, yy, y0 = transforms
    height, width = (ops.cast(n, "float32") for n in size)
    centre_y, centre_x = (height - 1) / 2, (width - 1) / 2
    part_x = ops.minimum(ops.sqrt(scale * aspect), 1.0)
    part_y = ops.minimum(ops.sqrt(scale / aspect), 1.0)
    # The centre of the image goes where the centre of the crop is.
    x0 = x0 + (1 - part_x) * (xx * centre_x + (position[0] - 0.5) * width)
    x0 = x0 + (1 - part_y) * xy * centre_y
    y0 = y0 + (1 - part_y) * (yy * centre_y + (position[1] - 0.5) * height)
    y0 = y0 + (1 - part_x) * yx * centre_x
    return xx * part_x, xy * part_y, x0, yx * part_x, yy * part_y, y0


def warp(images: Any, transforms: Any, fill_mode: str, fill_value: float) -> Any:
    """Samples images bilinearly along affine transforms.

    Args:
        images: Tensor `(batch, height, width, channels)` of any dtype.
        transforms: What `affine_transforms` returns.
        fill_mode: One of `FILL_MODES`.
        fill_value: Float, for `"constant"`.

    Returns:
        A float32 tensor of the same shape.
    """
    batch, height, width, channels = ops.shape(images)
    xx, xy, x0, yx, yy, y0 = (t[:, None, None] for t in transforms)
    rows = ops.arange(height, dtype="float32")[None, :, None]
    columns = ops.arange(width, dtype="float32")[None, None, :]
    x = xx * columns + xy * rows + x0
    y = yx * columns + yy * rows + y0
    left, top = ops.floor(x), ops.floor(y)
    weight_x, weight_y = (x - left)[..., None], (y - top)[..., None]
    left, top = ops.cast(left, "int32"), ops.cast(top, "int32")

    pixels = ops.reshape(images, (-1, channels))
    first = (ops.arange(batch, dtype="int32") * (height * width))[:, None, None]

    def sample(row: Any, column: Any) -> Any:
        index = first + _fold(row, height, fill_mode) * width
        index = index + _fold(column, width, fill_mode)
        values = ops.cast(ops.take(pixels, index, axis=0), "float32")
        if fill_mode != "constant":
            return values
        is_inside = _is_inside(row, height) & _is_inside(column, width)
        return ops.where(is_inside[..., None], values, fill_value)

    def between(row: Any) -> Any:
        return sample(row, left) * (1 - weight_x) + sample(row, left + 1) * weight_x

    return between(top) * (1 - weight_y) + between(top + 1) * weight_y


def _fold(index: Any, size: Any, fill_mode: str) -> Any:
    """Brings indices beyond the border back into `0..size - 1`."""
    if fill_mode == "reflect":
        index = ops.mod(index, 2 * size)
        return ops.minimum(index, 2 * size - 1 - index)
    if fill_mode == "wrap":
        return ops.mod(index, size)
    return ops.clip(index, 0, size - 1)


def _is_inside(index: Any, size: Any) -> Any:
    return (index >= 0) & (index < size)


def _saturate(images: Any, saturation: Any) -> Any:
    """Returns images whose colors are that many times as far from gray.

    As a product with one matrix per image, because that is fast without XLA as well.
    """
    batch, height, width, channels = ops.shape(images)
    weights = _LUMA if channels == 3 else (1 / channels,) * channels
    gray = ops.tile(ops.reshape(ops.convert_to_tensor(weights), (-1, 1)), (1, channels))
    saturation = saturation[:, None, None]
    matrices = saturation * ops.eye(channels) + (1 - saturation) * gray
    pixels = ops.reshape(ops.cast(images, "float32"), (batch, height * width, channels))
    return ops.reshape(ops.matmul(pixels, matrices), (batch, height, width, channels))


def _coin(draw: Any, flip: str | None, axis: str) -> Any:
    """Turns draws from 0..1 into -1 or 1 if `flip` names `axis`, otherwise into 1."""
    if flip is None or axis not in flip:
        return ops.ones_like(draw)
    return ops.where(draw < 0.5, -1.0, 1.0)


def _within(draw: Any, bounds: tuple[float, float]) -> Any:
    return bounds[0] + draw * (bounds[1] - bounds[0])


def _as_range(
    name: str, value: Any, *, lowest: float, is_open: bool = False
) -> tuple[float, float]:
    """Returns `value` as (low, high); a single number means (-value, value)."""
    try:
        low, high = value if isinstance(value, list | tuple) else (-value, value)
        low, high = float(low), float(high)
    except (TypeError, ValueError):
        low = high = math.nan
    above = low > lowest if is_open else low >= lowest
    if not (above and low <= high < math.inf):
        bound = "" if lowest == -math.inf else f" {'above' if is_open else 'from'} -1"
        raise InputError(
            f"`{name}` must be a non-negative number or a pair (low, high){bound}. "
            f"Received: {name}={value!r}"
        )
    return low, high


def _as_crop_range(name: str, value: Any, highest: float) -> tuple[float, float]:
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (0 < low <= high <= highest and high < math.inf):
        limit = "" if highest == math.inf else f" and up to {highest:g}"
        raise InputError(
            f"`{name}` must be a pair (low, high) of numbers above 0{limit}. "
            f"Received: {name}={value!r}"
        )
    return low, high


def check_strength(name: str, value: Any) -> str:
    """Returns the name of a strength.

    Args:
        name: The name of the argument, for the message.
        value: What was given: a name in `AUGMENTATION_STRENGTHS`, or `"none"`.

    Raises:
        InputError: If it is another one.
    """
    _check_choice(name, value, ("none", *AUGMENTATION_STRENGTHS))
    return str(value)


def _check_choice(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise InputError(
            f"`{name}` must be one of {allowed}. Received: {name}={value!r}"
        )


def _check_value_range(value_range: Any) -> tuple[float, float]:
    try:
        low, high = value_range
        is_range = low < high
    except (TypeError, ValueError):
        is_range = False
    if not is_range:
        raise InputError(
            "`value_range` must be a pair (low, high) with low < high. "
            f"Received: value_range={value_range!r}"
        )
    return low, high
