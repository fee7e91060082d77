from collections.abc import Callable
from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_drawing import blobs, encoded
from PIL import Image, ImageEnhance

from keras_flowers.data.near_duplicates import near_duplicate_pairs, perceptual_hash


def _hex(bits: np.ndarray) -> str:
    return np.packbits(bits).tobytes().hex()


def _random_bits(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, 256, dtype=np.uint8)


def _flipped(bits: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    flipped = bits.copy()
    flipped[np.random.default_rng(seed).choice(256, count, replace=False)] ^= 1
    return flipped


def test_each_bit_says_where_the_image_gets_brighter_to_the_right() -> None:
    ramp = np.tile(np.arange(0, 255, 3, dtype=np.uint8), (64, 1))
    assert perceptual_hash(Image.fromarray(ramp)) == "f" * 64
    assert perceptual_hash(Image.fromarray(ramp[:, ::-1])) == "0" * 64
    left_half = np.hstack([ramp, ramp[:, ::-1]])
    # The middle column lies on both slopes.
    assert perceptual_hash(Image.fromarray(left_half)) == "ff00" * 16


@pytest.mark.parametrize(
    "change",
    [
        lambda image: Image.open(BytesIO(encoded(image, quality=30))),
        lambda image: image.resize((160, 120), Image.Resampling.LANCZOS),
        lambda image: image.convert("L"),
        lambda image: ImageEnhance.Brightness(image).enhance(0.8),
        lambda image: image.crop((3, 2, 317, 238)),
    ],
    ids=["jpeg", "half", "gray", "darker", "cropped"],
)
def test_a_changed_image_is_a_near_duplicate(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    images = [blobs(seed, (320, 240)) for seed in range(6)]
    hashes = [perceptual_hash(image) for image in images]
    hashes.append(perceptual_hash(change(images[2])))
    assert near_duplicate_pairs(hashes) == [(2, 6)]


def test_different_objects_on_one_background_are_no_near_duplicates() -> None:
    background, single = _random_bits(1), _random_bits(2)
    objects = [_flipped(background, 13, seed) for seed in range(60)]
    distances = [np.count_nonzero(objects[0] != one) for one in objects[1:]]
    assert min(distances) <= 23 < max(distances)
    changed = [single, *(_flipped(single, 9, seed) for seed in range(5))]
    images = [*objects, _flipped(objects[7], 5), *changed]
    pairs = near_duplicate_pairs([_hex(bits) for bits in images])
    assert [pair for pair in pairs if pair[0] <= 60] == [(7, 60)]
    # Without a crowd around them, changed copies stay together.
    assert {index for pair in pairs[1:] for index in pair} == set(range(61, 67))


def test_no_images_have_no_pairs() -> None:
    assert near_duplicate_pairs([]) == []
    assert near_duplicate_pairs([_hex(_random_bits(0))]) == []


@pytest.mark.parametrize(("differing", "found"), [(0, True), (23, True), (24, False)])
def test_the_limit_is_23_bits(differing: int, found: bool) -> None:
    bits = np.ones(256, np.uint8)
    pairs = near_duplicate_pairs([_hex(bits), _hex(_flipped(bits, differing))])
    assert pairs == ([(0, 1)] if found else [])


def test_images_without_structure_are_no_near_duplicates() -> None:
    flat = np.zeros(256, np.uint8)
    nearly_flat = _flipped(flat, 15)
    assert near_duplicate_pairs([_hex(flat)] * 3) == []
    assert near_duplicate_pairs([_hex(nearly_flat)] * 2) == []
    assert near_duplicate_pairs([_hex(_flipped(flat, 16))] * 2) == [(0, 1)]


def test_small_objects_on_an_even_ground_must_agree_in_what_is_set() -> None:
    one, other = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    one[:20] = 1
    other[8:28] = 1  # 16 bits differ, of 28 that are set in either
    assert near_duplicate_pairs([_hex(one), _hex(other)]) == []
    other[:] = one
    other[20:24] = 1  # 4 of 24
    assert near_duplicate_pairs([_hex(one), _hex(other)]) == [(0, 1)]


def test_equal_hashes_are_joined_through_the_first() -> None:
    text = _hex(_random_bits(1))
    other = _hex(_random_bits(2))
    assert near_duplicate_pairs([text, other, text, text]) == [(0, 2), (0, 3)]


def _is_in_crowd(bits: np.ndarray, others: list[np.ndarray]) -> bool:
    differing = [np.count_nonzero(bits != other) for other in others]
    near = sum(count <= 23 for count in differing)
    return sum(23 < count <= 46 for count in differing) > 3 * near


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 30), st.integers(0, 1000)),
        max_size=25,
    )
)
def test_the_same_pairs_as_when_all_are_compared(
    images: list[tuple[int, int, int]],
) -> None:
    all_bits = [_flipped(_random_bits(kind), n, seed) for kind, n, seed in images]
    first_of: dict[str, int] = {}
    expected = set()
    for j, bits in enumerate(all_bits):
        i = first_of.setdefault(_hex(bits), j)
        if i != j:
            expected.add((i, j))
    for i, j in combinations(first_of.values(), 2):
        differing = np.count_nonzero(all_bits[i] != all_bits[j])
        union = np.count_nonzero(all_bits[i] | all_bits[j])
        if differing <= 23 and differing <= 0.25 * union:
            distinct = [all_bits[index] for index in first_of.values()]
            crowded = differing > 8 and any(
                _is_in_crowd(all_bits[index], distinct) for index in (i, j)
            )
            if not crowded:
                expected.add((i, j))
    found = near_duplicate_pairs([_hex(bits) for bits in all_bits])
    assert found == sorted(expected)
