"""The processes of a training compute features in shares, and exchange them.

Each process computes the features of its share of the batches and writes them to its
cache. On a shared disk that is one cache, and nothing is left to exchange. What another
process still lacks is sent through the connections of the team.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from keras_flowers.data.feature_cache import FeatureCache
from keras_flowers.training.processes import Team

# Rows in a message. They are in memory a few times at once.
_ROWS_AT_ONCE = 1024


def compute_in_shares(
    team: Team,
    caches: Sequence[FeatureCache],
    wanted: Sequence[set[str]],
    batches: Sequence[Sequence[str]],
    compute: Callable[[list[set[str]]], None],
) -> None:
    """Makes sure that the cache of every process has all features.

    All processes of the team call it together, with the same images.

    Args:
        team: The processes.
        caches: The cache of each view.
        wanted: The checksums of the images that are needed in each view.
        batches: The checksums of all images, in the batches that are computed at once.
        compute: Computes and caches the features of some images in each view.

    Raises:
        ProcessLostError: If another process fails or is gone.
    """
    names = [sorted(of_view) for of_view in wanted]
    lacking = [
        _gather_lacking(team, cache, of_view)
        for cache, of_view in zip(caches, names, strict=True)
    ]
    nowhere = [
        {of_view[n] for n in np.flatnonzero(of_all.all(axis=0))}
        for of_view, of_all in zip(names, lacking, strict=True)
    ]
    share = take_share(batches, nowhere, team.number, team.count)
    if any(share):
        compute(share)
    team.gather(b"")  # until all have written their share
    for cache, of_view, before in zip(caches, names, lacking, strict=True):
        if before.any():
            _exchange(team, cache, of_view)


def take_share(
    batches: Iterable[Sequence[str]],
    missing: Sequence[set[str]],
    number: int,
    count: int,
) -> list[set[str]]:
    """Returns which images a process computes in each view.

    The processes take turns with the batches that hold missing images. A batch stays
    whole, so that its features are those that one process alone would compute.

    Args:
        batches: The checksums of all images, in batches.
        missing: The checksums that are missing in each view.
        number: Number of the process, from 0.
        count: Number of processes.
    """
    left = [set(of_view) for of_view in missing]
    share: list[set[str]] = [set() for _ in missing]
    turn = 0
    for batch in batches:
        found = [of_view.intersection(batch) for of_view in left]
        if not any(found):
            continue
        for of_view, in_batch, mine in zip(left, found, share, strict=True):
            of_view -= in_batch
            if turn % count == number:
                mine |= in_batch
        turn += 1
    return share


def _gather_lacking(
    team: Team, cache: FeatureCache, names: Sequence[str]
) -> np.ndarray:
    """Returns which process lacks the features of which image.

    Returns:
        bool `(processes, images)`.
    """
    missing = cache.missing(names)
    bits = np.array([name in missing for name in names], bool)
    parts = team.gather(np.packbits(bits).tobytes())
    return np.stack(
        [
            np.unpackbits(np.frombuffer(part, np.uint8), count=len(names)).astype(bool)
            for part in parts
        ]
    )


def _exchange(team: Team, cache: FeatureCache, names: Sequence[str]) -> None:
    """Sends to each process the features that it lacks and another one has."""
    lacking = _gather_lacking(team, cache, names)
    needed = np.flatnonzero(lacking.any(axis=0))
    senders = (~lacking).argmax(axis=0)  # the first process that has it
    for start in range(0, len(needed), _ROWS_AT_ONCE):
        block = needed[start : start + _ROWS_AT_ONCE]
        of_sender = [block[senders[block] == n] for n in range(team.count)]
        sent = cache.read([names[n] for n in of_sender[team.number]])
        received: dict[str, np.ndarray] = {}
        for rows, part in zip(of_sender, team.gather(sent.tobytes()), strict=True):
            features = np.frombuffer(part, np.float32).reshape(-1, cache.size)
            received |= {
                names[n]: row
                for n, row in zip(rows, features, strict=True)
                if lacking[team.number, n]
            }
        if received:
            cache.add_missing(received)
