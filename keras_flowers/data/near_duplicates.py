"""Finds images that show the same picture although their files differ."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

_HASH_SIZE = 16  # 16 x 16 comparisons of neighbouring pixels
_HASH_BITS = _HASH_SIZE * _HASH_SIZE
_REDUCED_SIDE = 64

# Measured on 2,020 images of flowers. Unrelated images differ in 126 bits with a
# deviation of 12. Saving an image again as JPEG of quality 20 changes 4 bits (99 of
# 100 images: at most 17), halving it 4 (14), cutting 1 % off each side 12 (22).
_MOST_DIFFERING_BITS = 23
# An image of a small object before an even ground has few bits set, and they are the
# same in every other such image: what counts is the share of the bits set in either.
_MOST_DIFFERING_SHARE = 0.25
_FEWEST_SET_BITS = 16
# Two hashes that differ in 23 bits at most agree in at least one of 24 bands; in nine
# of them, mostly.
_BANDS = _MOST_DIFFERING_BITS + 1
# Where thousands of images agree in one band, each is compared with this many that
# follow it in the order of the hashes; the other bands find the rest.
_MOST_NEIGHBOURS = 256

_Words = npt.NDArray[np.uint64]
_Indices = npt.NDArray[np.intp]


def perceptual_hash(image: Image.Image) -> str:
    """Returns a short description of an image that survives small changes of it.

    This is the difference hash of Krawetz ("Kind of Like That", hackerfactor.com,
    2013) with 16 x 16 bits: each says whether the image, reduced to 17 x 16 gray
    pixels, gets brighter from one pixel to the next on its right.

    Args:
        image: An RGB or grayscale image of any size.

    Returns:
        64 hexadecimal digits, row by row from the top left.
    """
    # The mean of whole blocks of pixels first: ten times faster than reducing all of
    # it with antialiasing.
    factor = max(1, min(image.size) // _REDUCED_SIDE)
    gray = image.convert("L").reduce(factor)
    gray = gray.resize((_HASH_SIZE + 1, _HASH_SIZE), Image.Resampling.BILINEAR)
    levels = np.asarray(gray)
    return np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes().hex()


def near_duplicate_pairs(hashes: Sequence[str]) -> list[tuple[int, int]]:
    """Finds the pairs of images whose perceptual hashes nearly agree.

    Two images are near-duplicates when at most 23 of the 256 bits differ, and at most
    a quarter of the bits that are set in either. An image without structure, such as
    one of a single colour, is nobody's near-duplicate. Not every pair is compared: only
    those that agree in one of 24 bands of bits.

    Args:
        hashes: What `perceptual_hash` returned for each image.

    Returns:
        Pairs `(i, j)` with `i < j`, sorted: enough of them to connect all that are
        near-duplicates of each other. Images with equal hashes are connected through
        the first of them.
    """
    first: dict[str, int] = {}
    pairs: set[tuple[int, int]] = set()
    for index, text in enumerate(hashes):
        if text not in first:
            first[text] = index
        elif int(text, 16).bit_count() >= _FEWEST_SET_BITS:
            pairs.add((first[text], index))
    # Sorted, so that within a band the most similar hashes stand near each other.
    distinct = sorted(first)
    packed = np.frombuffer(bytes.fromhex("".join(distinct)), dtype=np.uint8)
    packed = packed.reshape(len(distinct), _HASH_BITS // 8)
    words = packed.view(np.uint64)
    for left, right in _candidates(packed):
        for one, other in _confirmed(words, left, right):
            indices = (first[distinct[one]], first[distinct[other]])
            pairs.add((min(indices), max(indices)))
    return sorted(pairs)


def _candidates(packed: npt.NDArray[np.uint8]) -> Iterator[tuple[_Indices, _Indices]]:
    """Yields rows that agree in a band, as two arrays that belong together."""
    bits = np.unpackbits(packed, axis=1)
    # Folded, two hashes differ in no more bits than before, and mostly in as many as
    # are needed to rule them out, at a quarter of the cost.
    folded = np.bitwise_xor.reduce(packed.view(np.uint64), axis=1)
    for band in range(_BANDS):
        # Bits from all over the image: neighbouring ones say much the same.
        columns = bits[:, band::_BANDS].astype(np.int64)
        keys = columns @ (1 << np.arange(columns.shape[1]))
        order = np.argsort(keys, kind="stable")
        keys, word = keys[order], folded[order]
        last = np.searchsorted(keys, keys, side="right") - 1
        start = np.arange(len(keys))
        for distance in range(1, _MOST_NEIGHBOURS + 1):
            start = start[start + distance <= last[start]]
            if not len(start):
                break
            differing = np.bitwise_count(word[start] ^ word[start + distance])
            near = start[differing <= _MOST_DIFFERING_BITS]
            yield order[near], order[near + distance]


def _confirmed(
    words: _Words, left: _Indices, right: _Indices
) -> Iterator[tuple[int, int]]:
    """Yields those of the candidates that are near-duplicates."""
    first, second = words[left], words[right]
    differing = np.bitwise_count(first ^ second).sum(axis=1)
    near = np.flatnonzero(differing <= _MOST_DIFFERING_BITS)
    union = np.bitwise_count(first[near] | second[near]).sum(axis=1)
    alike = differing[near] <= _MOST_DIFFERING_SHARE * union
    near = near[alike & (union >= _FEWEST_SET_BITS)]
    yield from zip(left[near].tolist(), right[near].tolist(), strict=True)
