"""Finds images that show the same picture in different files."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

_HASH_SIZE = 16  # 16 x 16 comparisons of adjacent pixels
_HASH_BITS = _HASH_SIZE * _HASH_SIZE
_REDUCED_SIDE = 64

# Measured on 2,020 images of flowers. Unrelated images differ in 126 bits, with a
# standard deviation of 12. On average, saving an image as JPEG with quality 20 changes
# 4 bits (99th percentile: 17), halving its size 4 (14), cropping 1 % off each side 12
# (22).
_MAX_DIFFERING_BITS = 23
# Images of a small object on a plain background have few set bits, which are the same
# in all of them: the fraction of the bits set in either image decides.
_MAX_DIFFERING_FRACTION = 0.25
_MIN_SET_BITS = 16
# Different objects in front of the same background may differ in 13 bits. Such an image
# has many others around it that differ a little more; the copies of an image have none.
_SURELY_EQUAL_BITS = 8
_CROWD_BITS = 2 * _MAX_DIFFERING_BITS
_CROWD_FACTOR = 3
_CROWD_SAMPLE = 2048
# Two hashes that differ in at most 23 bits agree in at least one of 24 bands, and
# typically in nine of them.
_BANDS = _MAX_DIFFERING_BITS + 1
# If thousands of images agree in a band, each is compared only with this many that
# follow it in the order of the hashes. The other bands find the rest.
_MAX_NEIGHBOURS = 256

_Words = npt.NDArray[np.uint64]
_Indices = npt.NDArray[np.intp]


def perceptual_hash(image: Image.Image) -> str:
    """Returns a hash of an image that small changes of the image hardly change.

    This is the difference hash (Krawetz, "Kind of Like That", hackerfactor.com, 2013)
    with 16 x 16 bits. The image is reduced to 17 x 16 gray pixels; a bit is set if the
    next pixel on the right is brighter.

    Args:
        image: An RGB or grayscale image of any size.

    Returns:
        64 hexadecimal digits, row by row from the top left.
    """
    # Averaging whole blocks of pixels first is ten times faster than antialiasing the
    # whole image.
    factor = max(1, min(image.size) // _REDUCED_SIDE)
    gray = image.convert("L").reduce(factor)
    gray = gray.resize((_HASH_SIZE + 1, _HASH_SIZE), Image.Resampling.BILINEAR)
    levels = np.asarray(gray)
    return np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes().hex()


def near_duplicate_pairs(hashes: Sequence[str]) -> list[tuple[int, int]]:
    """Finds the pairs of images with almost equal perceptual hashes.

    Two images are near-duplicates if they differ in at most 23 of the 256 bits, and in
    at most a quarter of the bits that are set in either. An image without structure,
    such as one of a single color, has no near-duplicates. Only pairs that agree in one
    of 24 bands of bits are compared.

    Where many images differ only in 24 to 46 bits from an image, all of them have the
    same background: of these, only images that differ in at most 8 bits are
    near-duplicates.

    Args:
        hashes: The result of `perceptual_hash` for each image.

    Returns:
        Sorted pairs `(i, j)` with `i < j`, enough to connect all near-duplicates of
        each other. Images with equal hashes are connected through the first of them.
    """
    first: dict[str, int] = {}
    pairs: set[tuple[int, int]] = set()
    for index, text in enumerate(hashes):
        if text not in first:
            first[text] = index
        elif int(text, 16).bit_count() >= _MIN_SET_BITS:
            pairs.add((first[text], index))
    # Sorted, so that similar hashes are close to each other within a band.
    distinct = sorted(first)
    packed = np.frombuffer(bytes.fromhex("".join(distinct)), dtype=np.uint8)
    packed = packed.reshape(len(distinct), _HASH_BITS // 8)
    words = packed.view(np.uint64)
    confirmed = [_confirm(words, *found) for found in _find_candidates(packed)]
    for one, other in _leave_out_crowds(words, confirmed):
        indices = (first[distinct[one]], first[distinct[other]])
        pairs.add((min(indices), max(indices)))
    return sorted(pairs)


def _find_candidates(
    packed: npt.NDArray[np.uint8],
) -> Iterator[tuple[_Indices, _Indices]]:
    """Yields pairs of rows that agree in a band, as two arrays of equal length."""
    bits = np.unpackbits(packed, axis=1)
    # Folding never adds differing bits, and usually leaves enough of them to rule a
    # pair out at a quarter of the cost.
    folded = np.bitwise_xor.reduce(packed.view(np.uint64), axis=1)
    for band in range(_BANDS):
        # Bits from all over the image, because adjacent ones are correlated.
        columns = bits[:, band::_BANDS].astype(np.int64)
        keys = columns @ (1 << np.arange(columns.shape[1]))
        order = np.argsort(keys, kind="stable")
        keys, word = keys[order], folded[order]
        last = np.searchsorted(keys, keys, side="right") - 1
        start = np.arange(len(keys))
        for distance in range(1, _MAX_NEIGHBOURS + 1):
            start = start[start + distance <= last[start]]
            if not len(start):
                break
            differing = np.bitwise_count(word[start] ^ word[start + distance])
            near = start[differing <= _MAX_DIFFERING_BITS]
            yield order[near], order[near + distance]


def _confirm(words: _Words, left: _Indices, right: _Indices) -> _Indices:
    """Returns the candidates that are near-duplicates, `(pairs, 2)`."""
    first, second = words[left], words[right]
    differing = np.bitwise_count(first ^ second).sum(axis=1)
    near = np.flatnonzero(differing <= _MAX_DIFFERING_BITS)
    union = np.bitwise_count(first[near] | second[near]).sum(axis=1)
    alike = differing[near] <= _MAX_DIFFERING_FRACTION * union
    near = near[alike & (union >= _MIN_SET_BITS)]
    return np.stack([left[near], right[near]], axis=1)


def _leave_out_crowds(
    words: _Words, confirmed: Sequence[_Indices]
) -> Iterator[tuple[int, int]]:
    """Yields the pairs that are not only alike as many others are."""
    if not confirmed:
        return
    pairs = np.unique(np.concatenate(confirmed), axis=0)
    differing = np.bitwise_count(words[pairs[:, 0]] ^ words[pairs[:, 1]]).sum(axis=1)
    is_sure = differing <= _SURELY_EQUAL_BITS
    doubtful = np.unique(pairs[~is_sure])
    sample = words[:: -(-len(words) // _CROWD_SAMPLE)]
    crowded = [index for index in doubtful if _is_in_crowd(words[index], sample)]
    is_kept = is_sure | ~np.isin(pairs, crowded).any(axis=1)
    yield from map(tuple, pairs[is_kept].tolist())


def _is_in_crowd(word: _Words, sample: _Words) -> bool:
    differing = np.bitwise_count(word ^ sample).sum(axis=1)
    near = int(np.count_nonzero(differing <= _MAX_DIFFERING_BITS))
    around = int(np.count_nonzero(differing <= _CROWD_BITS)) - near
    return around > _CROWD_FACTOR * max(near, 1)
