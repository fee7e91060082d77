"""Draws the offline sample data set: image-like pictures of five kinds of flowers.

An image is composed from back to front: a backdrop, smaller flowers of the same kind
out of focus, the main flower, grass or leaves in front of it, and the effects of a
camera (light, color cast, blur, grain). Backdrops, foreground and camera have the same
distribution for all classes, and the palettes of the classes overlap, so that a model
has to learn the shapes. Only Pillow and NumPy are used.
"""

import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from keras_flowers.argument_checks import check_image_size, check_integer
from keras_flowers.errors import InputError
from keras_flowers.files import explain_os_error, printable_path

Color = tuple[int, int, int]
Points = npt.NDArray[np.floating]
Point = tuple[float, float]

SAMPLE_VERSION = "1"
"""Names the pictures in caches. Increase it when the same arguments draw others."""

_MAX_IMAGES_PER_CLASS = 100_000
_BATCH = 256  # images handed to the threads at once
_MIN_SIDE, _MAX_SIDE = 32, 2048
_SUPERSAMPLING = 2  # the foreground is drawn larger and reduced: smooth edges
_GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))

# ---------------------------------------------------------------------------
# Writing the data set
# ---------------------------------------------------------------------------


def write_sample(
    directory: str | os.PathLike[str],
    *,
    images_per_class: int = 80,
    image_size: tuple[int, int] = (240, 320),
    seed: int = 42,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draws the sample data set and writes it as class folders of images.

    Image `i` of a class is `directory/<class>/<class>_<i>.jpg`, with `i` from 0001.
    It depends only on `seed`, `image_size`, the class and `i`: a larger
    `images_per_class` adds images and changes none. With the same versions of NumPy and
    Pillow, the same arguments always give the same bytes.

    `directory` appears when the last image is written. If anything fails before that,
    nothing is left behind.

    Args:
        directory: The folder for the class folders: a new or an empty one.
        images_per_class: The number of images of each class, 1 to 100,000.
        image_size: The average `(height, width)` in pixels, each 32 to 2048. Image
            sizes vary by about 15 %, and about a quarter have the other orientation.
        seed: A non-negative integer.
        progress: Called as `progress(done, total)` in the calling thread after each
            image.

    Returns:
        The path of `directory`, which holds one folder for each name in
        `SAMPLE_CLASS_NAMES`, with 8-bit RGB JPEG files in it.

    Raises:
        InputError: If an argument is out of range, `directory` exists and is not an
            empty folder, or it cannot be written.
    """
    images_per_class = check_integer(
        "images_per_class", images_per_class, lowest=1, highest=_MAX_IMAGES_PER_CLASS
    )
    image_size = _check_size(image_size)
    seed = check_integer("seed", seed, lowest=0)
    target = Path(directory)
    try:
        with _stage_folder(target) as staging:
            for class_name in SAMPLE_CLASS_NAMES:
                (staging / class_name).mkdir()
            _write_images(staging, images_per_class, image_size, seed, progress)
    except OSError as error:
        raise explain_os_error(error, target) from error
    return target


def _check_size(image_size: object) -> tuple[int, int]:
    height, width = (
        check_integer("image_size", side, lowest=_MIN_SIDE, highest=_MAX_SIDE)
        for side in check_image_size(image_size)
    )
    return height, width


@contextmanager
def _stage_folder(target: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `target` when the block succeeds."""
    final = target.resolve()
    if final.exists() and not (final.is_dir() and _is_empty(final)):
        raise InputError(
            "`directory` must be a new or an empty folder. "
            f"Received: {printable_path(target)}"
        )
    if final == Path.cwd():
        # Replacing it would leave the caller's shell in a deleted folder.
        raise InputError(
            "`directory` must not be the current folder; name a new one inside it. "
            f"Received: {printable_path(target)}"
        )
    new_parents = [parent for parent in final.parents if not parent.exists()]
    staging = final.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        staging.mkdir(parents=True)
        yield staging
        if final.exists():
            final.rmdir()  # Windows does not rename onto a folder
        staging.replace(final)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        _remove_if_empty(new_parents)
        raise


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def _remove_if_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _write_images(
    folder: Path,
    images_per_class: int,
    image_size: tuple[int, int],
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    def write(image: tuple[str, int]) -> None:
        _write_image(folder, *image, image_size, seed)

    images = product(SAMPLE_CLASS_NAMES, range(1, images_per_class + 1))
    total = len(SAMPLE_CLASS_NAMES) * images_per_class
    done = 0
    executor = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        while batch := list(islice(images, _BATCH)):
            for _ in executor.map(write, batch):
                done += 1
                if progress is not None:
                    progress(done, total)
    finally:
        executor.shutdown(cancel_futures=True)


def _write_image(
    folder: Path, class_name: str, number: int, image_size: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng([seed, SAMPLE_CLASS_NAMES.index(class_name), number])
    image = _draw_image(class_name, image_size, rng)
    image.save(
        folder / class_name / f"{class_name}_{number:04d}.jpg",
        quality=int(rng.integers(80, 93)),
    )


# ---------------------------------------------------------------------------
# Composing an image
# ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scene:
    """The canvas, its size and the random numbers of a drawing function."""

    draw: ImageDraw.ImageDraw  # opaque
    glaze: ImageDraw.ImageDraw  # blends fills that have a fourth channel, but slower
    width: int
    height: int
    rng: np.random.Generator

    @property
    def short_side(self) -> int:
        return min(self.width, self.height)


@dataclass(frozen=True)
class _Pose:
    """Where a flower stands, in pixels, and how it is turned, in radians.

    A flower is modelled in units of its radius, x to the right, y up, z towards the
    camera. It is tipped backwards by `tilt`, then rotated in the picture by `turn`.
    """

    x: float
    y: float
    radius: float
    tilt: float
    turn: float

    def project(self, points: Points) -> Points:
        """Maps model points [..., 3] to picture points [..., 2]."""
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        sin, cos = math.sin(self.tilt), math.cos(self.tilt)
        y, z = y * cos + z * sin, z * cos - y * sin
        scale = self.radius / (1.0 - 0.18 * z)  # a mild perspective
        sin, cos = math.sin(self.turn), math.cos(self.turn)
        return np.stack(
            [
                self.x + scale * (x * cos - y * sin),
                self.y - scale * (x * sin + y * cos),
            ],
            axis=-1,
        )


def _draw_image(
    class_name: str, image_size: tuple[int, int], rng: np.random.Generator
) -> Image.Image:
    flower = _FLOWERS[class_name]
    color = _pick(rng, flower.palette)
    width, height = _choose_size(image_size, rng)
    image = _draw_backdrop(width, height, rng)
    behind = _create_scene(image, rng)
    for _ in range(rng.choice(5, p=[0.52, 0.22, 0.14, 0.08, 0.04])):
        mixed_bed = rng.random() < 0.2
        companion_color = _pick(rng, flower.palette) if mixed_bed else color
        flower.draw(behind, _choose_companion_pose(behind), companion_color)
    image = image.filter(ImageFilter.BoxBlur(rng.uniform(0.0, 2.8)))
    large = (width * _SUPERSAMPLING, height * _SUPERSAMPLING)
    image = image.resize(large, Image.Resampling.NEAREST)
    scene = _create_scene(image, rng)
    flower.draw(scene, _choose_main_pose(scene), color)
    _draw_foreground(scene)
    return _expose(image.reduce(_SUPERSAMPLING), rng)


def _create_scene(image: Image.Image, rng: np.random.Generator) -> _Scene:
    opaque, blending = ImageDraw.Draw(image), ImageDraw.Draw(image, "RGBA")
    return _Scene(opaque, blending, image.width, image.height, rng)


def _choose_size(
    image_size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    height, width = image_size
    if rng.random() < 0.25:
        height, width = width, height
    scale = rng.uniform(0.88, 1.12)
    return (
        max(_MIN_SIDE, round(width * scale * rng.uniform(0.97, 1.03))),
        max(_MIN_SIDE, round(height * scale * rng.uniform(0.97, 1.03))),
    )


def _choose_main_pose(scene: _Scene) -> _Pose:
    rng = scene.rng
    return _Pose(
        x=scene.width * rng.normal(0.5, 0.04),
        y=scene.height * rng.normal(0.47, 0.035),
        radius=scene.short_side * rng.uniform(0.36, 0.46),
        tilt=rng.uniform(0.0, 0.75),
        turn=rng.normal(0.0, 0.25),
    )


def _choose_companion_pose(scene: _Scene) -> _Pose:
    rng = scene.rng
    return _Pose(
        x=scene.width * rng.uniform(0.05, 0.95),
        y=scene.height * rng.uniform(0.12, 0.85),
        radius=scene.short_side * rng.uniform(0.1, 0.22),
        tilt=rng.uniform(0.0, 1.0),
        turn=rng.normal(0.0, 0.3),
    )


def _expose(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Adds a camera's focus, uneven light, exposure, color cast and grain.

    All of it in 8 bits by Pillow: a third of the time that float arrays take.
    """
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.BoxBlur(rng.uniform(0.2, 0.9)))
    light = _draw_uneven_light(rng).resize(picture.size, Image.Resampling.BILINEAR)
    picture = ImageChops.multiply(picture, Image.merge("RGB", [light] * 3))
    exposure, contrast = rng.uniform(1.0, 1.4), rng.uniform(0.85, 1.15)
    levels = np.arange(256.0)
    curves = [
        (levels * exposure * cast - 120.0) * contrast + 120.0
        for cast in rng.normal(1.0, 0.035, 3)
    ]
    picture = picture.point(_round_to_levels(np.concatenate(curves)))
    grain = Image.frombytes(
        "L", picture.size, rng.bytes(picture.width * picture.height)
    )
    grain = grain.point(
        _round_to_levels(128.0 + rng.uniform(1.0, 7.0) * _NORMAL_QUANTILES)
    )
    return ImageChops.add(picture, Image.merge("RGB", [grain] * 3), offset=-128)


def _draw_uneven_light(rng: np.random.Generator) -> Image.Image:
    """Draws a small map of the light on the scene: a slope and a vignette."""
    x = np.linspace(-1.0, 1.0, 16)
    slope_x, slope_y = rng.uniform(-0.16, 0.16, 2)
    slope = 0.84 + slope_x * x + slope_y * x[:, None]
    vignette = 1.0 - rng.uniform(0.0, 0.16) * (x**2 + x[:, None] ** 2)
    return Image.fromarray(np.clip(slope * vignette * 255, 0, 255).astype(np.uint8))


def _round_to_levels(values: Points) -> list[int]:
    levels: list[int] = np.clip(np.rint(values), 0, 255).astype(int).tolist()
    return levels


# Turns a uniformly random byte into a normally distributed number.
_NORMAL_QUANTILES = np.array(
    [NormalDist().inv_cdf((level + 0.5) / 256) for level in range(256)]
)

# ---------------------------------------------------------------------------
# Colors
# ---------------------------------------------------------------------------

_WHITE: Color = (246, 244, 238)
_CREAM: Color = (250, 236, 190)
_LEMON: Color = (252, 230, 84)
_YELLOW: Color = (250, 202, 28)
_ORANGE: Color = (244, 142, 28)
_PEACH: Color = (248, 176, 134)
_RUST: Color = (176, 74, 28)
_RED: Color = (204, 26, 40)
_PALE_PINK: Color = (248, 190, 210)
_PINK: Color = (238, 120, 164)
_MAGENTA: Color = (196, 42, 130)
_VIOLET: Color = (152, 96, 192)
_BROWN: Color = (92, 58, 28)
_GREEN: Color = (84, 134, 52)

_PETAL_COLORS = (_WHITE, _LEMON, _YELLOW, _ORANGE, _RED, _PINK, _MAGENTA, _VIOLET)


def _mix(first: Color, second: Color, share: float) -> Color:
    """Mixes `first` with a share 0..1 of `second`."""
    return (
        round(first[0] + (second[0] - first[0]) * share),
        round(first[1] + (second[1] - first[1]) * share),
        round(first[2] + (second[2] - first[2]) * share),
    )


def _shade(color: Color, factor: float) -> Color:
    """Darkens towards black (factor below 1) or lightens towards white (above 1)."""
    if factor <= 1.0:
        return _mix((0, 0, 0), color, factor)
    return _mix(color, (255, 255, 255), min(1.0, factor - 1.0))


def _vary(rng: np.random.Generator, color: Color, amount: float = 12.0) -> Color:
    red, green, blue = (
        min(255, max(0, round(value + change)))
        for value, change in zip(color, rng.normal(0.0, amount, 3), strict=True)
    )
    return red, green, blue


def _vary_each(
    rng: np.random.Generator, color: Color, count: int, amount: float
) -> Points:
    """Returns `count` slightly different colors, shape [count, 3]."""
    return rng.normal(color, amount, (count, 3))


def _shades(colors: Points, brightness: float | Points) -> list[Color]:
    """Applies `_shade` to many colors at once."""
    factor = np.reshape(brightness, (-1, 1))
    darker = colors * np.minimum(factor, 1.0)
    lighter = (255.0 - colors) * np.maximum(factor - 1.0, 0.0)
    levels = np.clip(np.rint(darker + lighter), 0, 255).astype(int)
    return [(red, green, blue) for red, green, blue in levels.tolist()]


def _pick(rng: np.random.Generator, weighted: dict[Color, float]) -> Color:
    """Chooses one of the colors by weight and varies it slightly."""
    colors = list(weighted)
    weights = np.array(list(weighted.values()))
    return _vary(rng, colors[rng.choice(len(colors), p=weights / weights.sum())])


def _choose(rng: np.random.Generator, colors: Sequence[Color]) -> Color:
    return colors[int(rng.integers(len(colors)))]


def _choose_leaf_green(rng: np.random.Generator) -> Color:
    return _vary(rng, _shade(_GREEN, rng.uniform(0.6, 1.15)), 10.0)


# ---------------------------------------------------------------------------
# Shapes
# ---------------------------------------------------------------------------


def _trace_outline(base: float, tip: float, points: int = 9) -> Points:
    """Returns a petal or leaf along x from 0 to 1, half width 1: [2 * points, 2].

    The half width follows t**base * (1 - t)**tip: small exponents make a round end,
    1 makes a pointed one, more a hollow one.
    """
    t = 0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, points))
    half = t**base * (1.0 - t) ** tip
    half /= half.max()
    return np.stack([np.r_[t, t[::-1]], np.r_[half, -half[::-1]]], axis=-1)


def _place_in_ring(
    outline: Points,
    angles: Points,
    lengths: Points | float,
    widths: Points | float,
    start: float = 0.0,
    lift: Points | float = 0.0,
) -> Points:
    """Places petals around the middle of a flower, shape [petals, points, 3].

    Petal k points to `angles[k]`, begins at the radius `start`, has the given length
    and full width, and bends towards the camera by `lift` times its radius squared.
    """
    count = len(angles)
    length = np.broadcast_to(np.asarray(lengths), count)[:, None]
    width = np.broadcast_to(np.asarray(widths), count)[:, None]
    along = start + outline[None, :, 0] * length
    across = outline[None, :, 1] * width / 2.0
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    rise = np.broadcast_to(np.asarray(lift), count)[:, None] * along**2
    return np.stack(
        [along * cos - across * sin, along * sin + across * cos, rise], axis=-1
    )


def _draw_petals(
    scene: _Scene,
    petals: Points,
    colors: Points,
    tones: Sequence[tuple[float, float]],
    focus: float = 0.5,
) -> None:
    """Fills petals [petals, points, 2] in picture coordinates, one after the other.

    `colors` is one color for each petal, [petals, 3]. `tones` are pairs (size,
    brightness): a petal is filled once for each, shrunk to that size towards the
    place `focus` between its base (0) and its tip (1).
    """
    middle = petals.shape[1] // 2
    anchors = petals[:, :1] * (1.0 - focus) + petals[:, middle : middle + 1] * focus
    layers = [
        (anchors + size * (petals - anchors)).reshape(len(petals), -1).tolist()
        for size, _ in tones
    ]
    fills = [_shades(colors, brightness) for _, brightness in tones]
    polygon = scene.draw.polygon
    for index in range(len(petals)):
        for layer, fill in zip(layers, fills, strict=True):
            polygon(layer[index], fill=fill[index])


def _draw_veins(scene: _Scene, petal: Points, color: Color) -> None:
    """Draws fine lines from the base of a petal [points, 2] towards its tip."""
    base, tip = petal[0], petal[len(petal) // 2]
    width = max(1, round(scene.short_side / 240))
    for index in range(2, len(petal) - 2, 3):
        side = 0.75 * petal[index] + 0.25 * tip
        bend = base + 0.5 * (0.6 * petal[index] + 0.4 * tip - base)
        line = [*base.tolist(), *bend.tolist(), *side.tolist()]
        scene.draw.line(line, fill=color, width=width)


def _draw_disc(scene: _Scene, pose: _Pose, radius: float, color: Color) -> None:
    """Draws a flat disc in the middle of a flower, darker at its rim."""
    angles = np.linspace(0.0, 2.0 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles), np.zeros(24)], axis=-1)
    for size, brightness in ((1.0, 0.62), (0.9, 0.85), (0.6, 1.0)):
        points = pose.project(circle * (radius * size) + (0.0, 0.0, 0.06))
        scene.draw.polygon(points.ravel().tolist(), fill=_shade(color, brightness))


def _draw_florets(
    scene: _Scene, pose: _Pose, radius: float, colors: Sequence[Color], count: int
) -> None:
    """Draws dots in the spirals of a disc (Vogel's model, 1979), middle to rim.

    `colors` run from the middle to the rim.
    """
    index = np.arange(1, count + 1)
    distance = radius * np.sqrt(index / count)
    angle = index * _GOLDEN_ANGLE
    height = np.full(count, 0.08)
    spots = pose.project(
        np.stack([distance * np.cos(angle), distance * np.sin(angle), height], -1)
    )
    half = max(0.8, 0.62 * radius * pose.radius / math.sqrt(count))
    bands = np.array(colors, dtype=float)[(index - 1) * len(colors) // count]
    fills = _shades(bands, scene.rng.uniform(0.8, 1.2, count))
    boxes = np.concatenate([spots - half, spots + half], axis=-1)
    for box, fill in zip(boxes.tolist(), fills, strict=True):
        scene.draw.ellipse(box, fill=fill)


def _draw_stem(
    scene: _Scene, top: Point, thickness: float, color: Color
) -> list[float]:
    """Draws a bent stem from `top` to the lower edge; returns x of four joints."""
    x, y = top
    foot_x = x + scene.rng.normal(0.0, 0.08) * scene.width
    bend = scene.rng.normal(0.0, 0.03) * scene.width
    foot_y = max(float(scene.height), y + 1.0) + 4.0
    share = np.linspace(0.0, 1.0, 4)
    xs = x + (foot_x - x) * share**1.5 + bend * np.sin(np.pi * share)
    ys = y + (foot_y - y) * share
    for size, brightness in ((1.0, 0.7), (0.55, 1.0)):
        half = thickness * size / 2.0
        side = np.r_[xs - half, (xs + half)[::-1]]
        polygon = np.stack([side, np.r_[ys, ys[::-1]]], axis=-1)
        scene.draw.polygon(polygon.ravel().tolist(), fill=_shade(color, brightness))
    return [float(value) for value in xs]


# Pointing up, as long as wide.
_LEAF = _place_in_ring(_trace_outline(0.7, 0.9), np.array([np.pi / 2]), 1.0, 1.0)
_LANCE_LEAF = _place_in_ring(_trace_outline(0.7, 1.2), np.array([np.pi / 2]), 1.0, 1.0)


def _draw_leaf(
    scene: _Scene, pose: _Pose, color: Color, slimness: float, shape: Points = _LEAF
) -> None:
    """Draws a leaf from (x, y), `radius` long, pointing up and turned by `turn`."""
    points = pose.project(shape * (slimness, 1.0, 1.0))
    colors = np.array([color], dtype=float)
    _draw_petals(scene, points, colors, ((1.0, 0.72), (0.82, 1.0)))
    rib = [*points[0, 0].tolist(), *points[0, points.shape[1] // 2].tolist()]
    scene.draw.line(
        rib, fill=_shade(color, 1.25), width=max(1, round(pose.radius / 60))
    )


def _draw_blades(
    scene: _Scene, count: int, feet: tuple[float, float], heights: tuple[float, float]
) -> None:
    """Draws blades of grass; feet and heights are fractions of the height."""
    rng = scene.rng
    foot_x = rng.uniform(-0.05, 1.05, count) * scene.width
    foot_y = rng.uniform(*feet, count) * scene.height
    height = rng.uniform(*heights, count) * scene.height
    lean = rng.normal(0.0, 0.3, count) * height
    half = rng.uniform(0.004, 0.011, count) * scene.short_side
    xs = [foot_x - half, foot_x + lean * 0.3 - half * 0.7, foot_x + lean]
    xs += [foot_x + lean * 0.3 + half * 0.7, foot_x + half]
    ys = [foot_y, foot_y - height * 0.6, foot_y - height, foot_y - height * 0.6, foot_y]
    blades = np.stack([np.stack(xs, -1), np.stack(ys, -1)], -1).reshape(count, -1)
    greens = [_choose_leaf_green(rng) for _ in range(5)]
    for index, blade in enumerate(blades.tolist()):
        scene.draw.polygon(blade, fill=greens[index % 5])


# ---------------------------------------------------------------------------
# Flowers: each is drawn within about one radius around its pose
# ---------------------------------------------------------------------------


def _draw_daisy(scene: _Scene, pose: _Pose, color: Color) -> None:
    """Draws many thin petals with round tips around a small yellow disc."""
    rng = scene.rng
    _maybe_draw_stem(scene, pose)
    disc = rng.uniform(0.18, 0.28)
    count = int(rng.integers(13, 27))
    outline = _trace_outline(0.75, rng.uniform(0.18, 0.45))
    for layer in range(int(rng.integers(1, 3))):
        angles = np.arange(count) * (2 * np.pi / count) + rng.normal(0, 0.07, count)
        lengths = (1.0 - 0.12 * layer - disc * 0.6) * rng.uniform(0.86, 1.05, count)
        width = rng.uniform(3.6, 5.4) / count
        petals = _place_in_ring(
            outline,
            angles + layer * np.pi / count,
            lengths,
            width,
            start=disc * 0.6,
            lift=rng.uniform(-0.25, 0.3) + rng.normal(0.0, 0.06, count),
        )
        kept = np.flatnonzero(rng.random(count) > 0.04)
        colors = _vary_each(rng, color, len(kept), 5.0)
        _draw_petals(
            scene,
            pose.project(petals[kept]),
            colors,
            ((1.0, 0.8), (0.86, 0.95), (0.5, 1.03)),
            focus=0.7,
        )
    yellow = _vary(rng, _mix(_YELLOW, _ORANGE, rng.uniform(0.0, 0.6)))
    _draw_disc(scene, pose, disc, yellow)
    _draw_florets(scene, pose, disc * 0.95, (_shade(yellow, 0.85), yellow), 45)


def _draw_dandelion(scene: _Scene, pose: _Pose, color: Color) -> None:
    """Draws a dense pompom of rays, or the white ball of seeds it turns into."""
    if scene.rng.random() < 0.3:
        _draw_dandelion_clock(scene, pose)
    else:
        _draw_dandelion_pompom(scene, pose, color)


def _draw_dandelion_pompom(scene: _Scene, pose: _Pose, color: Color) -> None:
    rng = scene.rng
    _maybe_draw_stem(scene, pose)
    outline = _trace_outline(0.9, 0.12, points=4)
    rings = ((1.0, 46), (0.9, 46), (0.76, 40), (0.6, 34), (0.44, 26), (0.27, 16))
    for depth, (radius, count) in enumerate(rings):
        angles = rng.uniform(0.0, 2 * np.pi) + np.arange(count) * (2 * np.pi / count)
        petals = _place_in_ring(
            outline,
            angles + rng.normal(0.0, 0.08, count),
            radius * rng.uniform(0.88, 1.03, count),
            rng.uniform(0.09, 0.12),
        )
        petals[..., 2] += 0.1 * depth  # the inner rings are higher
        tone = 0.8 + 0.05 * depth
        colors = _vary_each(rng, _shade(color, tone), count, 8.0)
        _draw_petals(
            scene, pose.project(petals), colors, ((1.0, 0.7), (0.86, 1.0)), 1.0
        )
    _draw_florets(scene, pose, 0.16, (_mix(color, _ORANGE, 0.5), color), 14)


def _draw_dandelion_clock(scene: _Scene, pose: _Pose) -> None:
    rng, draw = scene.rng, scene.glaze
    _draw_stem(scene, (pose.x, pose.y), pose.radius * 0.09, _choose_leaf_green(rng))
    half = pose.radius * 0.93
    x, y = pose.x, pose.y
    for size in (1.0, 0.85, 0.65):
        reach = half * size
        draw.ellipse((x - reach, y - reach, x + reach, y + reach), (240, 240, 235, 30))
    count = int(rng.integers(75, 110))
    # Evenly over the half of a sphere that faces the camera.
    index = np.arange(count) + 0.5
    z = 1.0 - index / count
    angle = index * _GOLDEN_ANGLE
    flat = np.sqrt(1.0 - z * z)
    tips = np.stack([flat * np.cos(angle), flat * np.sin(angle)], -1) * 0.86
    tips += rng.normal(0.0, 0.02, tips.shape)
    spread = rng.uniform(0.0, 2 * np.pi, (count, 1)) + np.arange(6) * (np.pi / 3)
    hairs = np.stack([np.cos(spread), np.sin(spread)], -1) * 0.15 + tips[:, None]
    place, scale = np.array([x, y]), pose.radius
    ends, hair_ends = place + scale * tips, place + scale * hairs
    white = _vary(rng, (244, 242, 236), 5.0)
    thick = max(1, round(pose.radius / 70))
    for end, hair_end in zip(ends.tolist(), hair_ends.tolist(), strict=True):
        draw.line((x, y, *end), fill=(*_shade(white, 0.85), 110), width=thick)
        for tip in hair_end:
            draw.line((*end, *tip), fill=(*white, 190), width=thick)
    _draw_disc(scene, replace(pose, tilt=0.0), 0.13, _vary(rng, _BROWN))


def _draw_rose(scene: _Scene, pose: _Pose, color: Color) -> None:
    """Draws round petals in a spiral, each partly covered by the next inside."""
    rng = scene.rng
    pose = replace(pose, tilt=pose.tilt * 0.8)
    _maybe_draw_stem(scene, pose)
    for angle in rng.uniform(0.0, 2 * np.pi, rng.integers(0, 4)):
        leaf_pose = replace(pose, radius=pose.radius * 1.25, tilt=0.0, turn=angle)
        _draw_leaf(scene, leaf_pose, _choose_leaf_green(rng), 0.45)
    count = int(rng.integers(16, 25))
    share = np.arange(count) / count
    reach = 1.0 - 0.86 * share**0.85
    angles = rng.uniform(0.0, 2 * np.pi) + np.arange(count) * (
        _GOLDEN_ANGLE + rng.normal(0.0, 0.05)
    )
    petals = _place_in_ring(
        _trace_outline(0.55, rng.uniform(0.16, 0.28), points=13),
        angles,
        reach * rng.uniform(0.92, 1.05, count),
        reach * rng.uniform(1.15, 1.45, count),
        lift=0.15,
    )
    petals[..., 2] += 0.35 * share[:, None]
    tones = ((1.0, 0.72), (0.98, 1.1), (0.9, 1.0), (0.76, 0.88), (0.58, 0.74))
    colors = _vary_each(rng, color, count, 5.0) * (1.0 - 0.22 * share[:, None])
    _draw_petals(scene, pose.project(petals), colors, tones, focus=0.0)


def _draw_sunflower(scene: _Scene, pose: _Pose, color: Color) -> None:
    """Draws a large dark disc of florets with short pointed petals around it."""
    rng = scene.rng
    _maybe_draw_stem(scene, pose)
    disc = rng.uniform(0.46, 0.6)
    count = int(rng.integers(18, 31))
    outline = _trace_outline(0.55, rng.uniform(0.75, 1.1))
    for layer in range(2):
        angles = np.arange(count) * (2 * np.pi / count) + rng.normal(0, 0.06, count)
        petals = _place_in_ring(
            outline,
            angles + layer * np.pi / count,
            (1.06 - 0.1 * layer - disc * 0.8) * rng.uniform(0.85, 1.06, count),
            rng.uniform(4.6, 6.2) / count,
            start=disc * 0.8,
            lift=rng.uniform(-0.1, 0.25),
        )
        tone = 0.8 + 0.2 * layer
        colors = _vary_each(rng, _shade(color, tone), count, 7.0)
        _draw_petals(
            scene,
            pose.project(petals),
            colors,
            ((1.0, 0.74), (0.84, 0.95), (0.5, 1.04)),
            focus=0.6,
        )
    dark = _vary(rng, _shade(_BROWN, rng.uniform(0.5, 1.0)), 6.0)
    middle = _mix(dark, _GREEN if rng.random() < 0.4 else _BROWN, rng.uniform(0.2, 0.6))
    rim = _mix(dark, color, rng.uniform(0.1, 0.35))
    _draw_disc(scene, pose, disc, dark)
    _draw_florets(scene, pose, disc * 0.96, (middle, dark, dark, rim), 110)


def _draw_tulip(scene: _Scene, pose: _Pose, color: Color) -> None:
    """Draws a cup from the side: three pointed petals, a stem, long leaves."""
    rng = scene.rng
    pose = replace(pose, tilt=0.0, turn=pose.turn * 0.6)
    green = _choose_leaf_green(rng)
    foot = pose.project(np.array([0.0, -0.8, 0.0]))
    xs = _draw_stem(scene, (float(foot[0]), float(foot[1])), pose.radius * 0.15, green)
    for side in (-1.0, 1.0):
        if rng.random() < 0.85:
            length = (scene.height * 1.04 - foot[1]) + pose.radius * rng.uniform(0, 1.0)
            leaf_pose = _Pose(
                xs[-1], scene.height * 1.04, length, 0.0, side * rng.uniform(0.12, 0.5)
            )
            _draw_leaf(scene, leaf_pose, _vary(rng, green, 8.0), 0.2, _LANCE_LEAF)
    opening = rng.uniform(0.04, 0.24)
    edge = _choose(rng, _PETAL_COLORS) if rng.random() < 0.2 else color
    outline = _trace_outline(0.45, rng.uniform(0.55, 0.9))
    # (lean, length, width, brightness) from the back to the front
    petals = (
        (1.1 * opening, 1.62, 0.85, 0.66),
        (-1.1 * opening, 1.66, 0.85, 0.7),
        (0.0, 1.6, 0.95, 0.76),
        (-opening - 0.16, 1.72, 0.86, 0.92),
        (opening + 0.16, 1.72, 0.86, 0.88),
        (rng.normal(0.0, 0.04), 1.55, 1.02, 1.0),
    )
    for lean, length, width, brightness in petals:
        petal = _place_in_ring(
            outline,
            np.array([np.pi / 2 + lean]),
            length * rng.uniform(0.95, 1.04),
            width * rng.uniform(0.94, 1.06),
        )
        petal[..., 1] -= 0.85
        points = pose.project(petal)
        rim = np.array([edge], dtype=float) * brightness
        inner = np.array([color], dtype=float) * brightness
        _draw_petals(scene, points, rim, ((1.0, 0.8), (0.97, 1.04)), 0.3)
        tones = ((0.88, 1.0), (0.66, 0.97), (0.4, 0.92))
        _draw_petals(scene, points, inner, tones, 0.12)
        _draw_veins(scene, points[0], _shade(color, 0.86 * brightness))


def _maybe_draw_stem(scene: _Scene, pose: _Pose) -> None:
    if scene.rng.random() < 0.65:
        thickness = pose.radius * scene.rng.uniform(0.07, 0.14)
        _draw_stem(scene, (pose.x, pose.y), thickness, _choose_leaf_green(scene.rng))


@dataclass(frozen=True)
class _Flower:
    """How to draw a kind of flower, and its colors by weight."""

    draw: Callable[[_Scene, _Pose, Color], None]
    palette: dict[Color, float]


_FLOWERS = {
    "daisy": _Flower(
        _draw_daisy,
        {
            _WHITE: 0.52,
            _CREAM: 0.08,
            _LEMON: 0.1,
            _YELLOW: 0.1,
            _PALE_PINK: 0.1,
            _PINK: 0.12,
            _VIOLET: 0.08,
        },
    ),
    "dandelion": _Flower(
        _draw_dandelion,
        {_YELLOW: 0.55, _LEMON: 0.22, _ORANGE: 0.15, _PALE_PINK: 0.08},
    ),
    "roses": _Flower(
        _draw_rose,
        {
            _RED: 0.32,
            _PINK: 0.22,
            _PALE_PINK: 0.1,
            _WHITE: 0.1,
            _YELLOW: 0.14,
            _PEACH: 0.08,
            _ORANGE: 0.08,
        },
    ),
    "sunflowers": _Flower(
        _draw_sunflower,
        {_YELLOW: 0.55, _LEMON: 0.15, _ORANGE: 0.2, _RUST: 0.1},
    ),
    "tulips": _Flower(
        _draw_tulip,
        {
            _RED: 0.2,
            _YELLOW: 0.24,
            _PINK: 0.16,
            _MAGENTA: 0.1,
            _VIOLET: 0.06,
            _ORANGE: 0.12,
            _WHITE: 0.12,
        },
    ),
}

SAMPLE_CLASS_NAMES: tuple[str, ...] = tuple(_FLOWERS)

# ---------------------------------------------------------------------------
# Backdrops and foreground, the same for all classes
# ---------------------------------------------------------------------------


def _draw_backdrop(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    draw_backdrop = _BACKDROPS[rng.integers(len(_BACKDROPS))]
    return draw_backdrop(width, height, rng)


def _draw_mottle(
    width: int,
    height: int,
    rng: np.random.Generator,
    cells: int,
    colors: tuple[Color, Color],
) -> Image.Image:
    """Draws smooth noise between two colors, with `cells` spots across."""
    rows = max(2, round(cells * height / width))
    return _stretch(rng.random((rows, cells)), colors, width, height)


def _stretch(
    shares: Points, colors: tuple[Color, Color], width: int, height: int
) -> Image.Image:
    """Enlarges a map of shares 0..1 between two colors smoothly."""
    first, second = np.array(colors, dtype=float)
    pixels = first + shares[..., None] * (second - first)
    picture = Image.fromarray(np.rint(pixels).astype(np.uint8))
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def _draw_sky_and_field(
    width: int, height: int, rng: np.random.Generator
) -> Image.Image:
    blue = _vary(rng, (112, 164, 224), 22.0)
    haze = _shade(blue, rng.uniform(1.3, 1.8))
    gradient = np.linspace(0.0, 1.0, 16)[:, None]
    picture = _stretch(gradient, (blue, haze), width, height)
    if rng.random() < 0.8:
        green = _choose_leaf_green(rng)
        horizon = round(height * rng.uniform(0.45, 0.95))
        tones = (_shade(green, 0.7), _shade(green, 1.15))
        field = _draw_mottle(width, height, rng, 14, tones)
        picture.paste(field.crop((0, horizon, width, height)), (0, horizon))
    return picture


def _draw_grass(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    green = _choose_leaf_green(rng)
    picture = _draw_mottle(
        width, height, rng, 9, (_shade(green, 0.35), _shade(green, 0.9))
    )
    _draw_blades(_create_scene(picture, rng), 90, (0.3, 1.3), (0.15, 0.6))
    return picture


def _draw_soil(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    brown = _vary(rng, _mix(_BROWN, (150, 120, 92), rng.uniform(0.0, 0.9)), 10.0)
    tones = (_shade(brown, 0.55), _shade(brown, 1.2))
    coarse = _draw_mottle(width, height, rng, 8, tones)
    picture = Image.blend(coarse, _draw_mottle(width, height, rng, 70, tones), 0.5)
    draw = _create_scene(picture, rng).draw
    for x, y, size in rng.uniform((0, 0, 1), (width, height, 5), (35, 3)).tolist():
        stone = _shade(brown, 0.6 + 0.2 * size)
        draw.ellipse((x - size, y - size * 0.7, x + size, y + size * 0.7), fill=stone)
    return picture


def _draw_bokeh(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    green = _shade(_choose_leaf_green(rng), rng.uniform(0.3, 0.9))
    picture = _draw_mottle(
        width, height, rng, 5, (_shade(green, 0.5), _shade(green, 1.2))
    )
    draw = _create_scene(picture, rng).glaze
    accent = _choose(rng, _PETAL_COLORS)
    for x, y, size in rng.uniform((0, 0, 5), (width, height, 26), (26, 3)).tolist():
        color = _mix(_shade(green, 1.3), accent, rng.uniform(0.0, 0.8))
        alpha = int(rng.integers(40, 130))
        draw.ellipse((x - size, y - size, x + size, y + size), fill=(*color, alpha))
    return picture


def _draw_foliage(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    green = _shade(_choose_leaf_green(rng), 0.5)
    picture = _draw_mottle(width, height, rng, 8, (_shade(green, 0.5), green))
    scene = _create_scene(picture, rng)
    for _ in range(16):
        pose = _Pose(
            x=rng.uniform(0.0, 1.0) * width,
            y=rng.uniform(0.0, 1.2) * height,
            radius=rng.uniform(0.2, 0.5) * scene.short_side,
            tilt=0.0,
            turn=rng.normal(0.0, 1.0),
        )
        _draw_leaf(scene, pose, _choose_leaf_green(rng), rng.uniform(0.25, 0.5))
    return picture


def _draw_wall(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    color = _vary(rng, (126, 122, 118), 26.0)
    tones = (_shade(color, rng.uniform(0.5, 0.8)), _shade(color, 1.25))
    return _draw_mottle(width, height, rng, int(rng.integers(2, 6)), tones)


# Most flowers grow in front of something green, so these are repeated.
_BACKDROPS = (
    *(
        _draw_grass,
        _draw_grass,
        _draw_grass,
        _draw_bokeh,
        _draw_bokeh,
        _draw_foliage,
        _draw_foliage,
    ),
    *(_draw_sky_and_field, _draw_soil, _draw_wall),
)


def _draw_foreground(scene: _Scene) -> None:
    """Draws grass or a leaf in front of the flower, in two of three images."""
    rng = scene.rng
    kind = rng.random()
    if kind < 0.4:
        _draw_blades(scene, int(rng.integers(3, 16)), (1.0, 1.1), (0.25, 0.75))
    elif kind < 0.65:
        side = rng.choice((-1.0, 1.0))
        pose = _Pose(
            x=scene.width * (0.5 - side * rng.uniform(0.35, 0.6)),
            y=scene.height * rng.uniform(0.7, 1.1),
            radius=scene.short_side * rng.uniform(0.4, 0.75),
            tilt=0.0,
            turn=-side * rng.uniform(0.2, 1.1),
        )
        _draw_leaf(scene, pose, _choose_leaf_green(rng), rng.uniform(0.2, 0.42))
