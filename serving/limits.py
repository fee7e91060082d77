"""Limits that keep the memory of a server bounded, whatever clients send."""

import contextlib
import dataclasses
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may use.

    Attributes:
        files: Images in one request.
        explained: Images in one request that asks for heat maps.
        request_bytes: Bytes of the body of one request.
        pending_bytes: Bytes of all bodies that are in memory at the same time.
        pixels: Pixels of one image.
        images: Images of all requests that are decoded but not classified yet.
        explanations: Heat maps that are computed or wait for it.
        connections: Open connections.
        idle_seconds: How long a client may send nothing within a request.
        grace_seconds: When the minimum rate of an upload begins to count.
        min_rate: Bytes per second that an upload must reach on average.
    """

    files: int = 64
    explained: int = 8
    request_bytes: int = 50_000_000
    pending_bytes: int = 250_000_000
    pixels: int = 50_000_000
    images: int = 256
    explanations: int = 16
    connections: int = 512
    idle_seconds: float = 10.0
    grace_seconds: float = 20.0
    min_rate: int = 10_000


class BusyError(Exception):
    """Raised when all requests together would use more than the limit."""


class Budget:
    """Counts what requests use of something that is limited.

    Args:
        limit: The most that may be in use at the same time.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.used = 0

    @contextlib.contextmanager
    def share(self) -> Iterator["Share"]:
        """Gives a share that is returned at the end of the `with` block."""
        share = Share(self)
        try:
            yield share
        finally:
            self.used -= share.used

    def take(self, amount: int) -> None:
        """Uses some more.

        Raises:
            BusyError: If that is above the limit.
        """
        if self.used + amount > self._limit:
            raise BusyError
        self.used += amount


class Share:
    """What one request uses of a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.used = 0

    def take(self, amount: int) -> None:
        """Uses some more; raises `BusyError` as `Budget.take` does."""
        self._budget.take(amount)
        self.used += amount
