"""What the server counts, for Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of one server.

    Args:
        pending_bytes: Returns how many bytes of requests are in memory.
    """

    def __init__(self, pending_bytes: Callable[[], float]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self.requests = Counter(
            "keras_flowers_requests",
            "Answered requests by path and status.",
            ["path", "status"],
            registry=self._registry,
        )
        self.images = Counter(
            "keras_flowers_images",
            "Images by outcome: classified, unknown or refused.",
            ["outcome"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "keras_flowers_classify_seconds",
            "Time from a complete upload to its answer.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch_size = Histogram(
            "keras_flowers_batch_size",
            "Images classified together.",
            buckets=_SIZES,
            registry=self._registry,
        )
        self.batch_seconds = Histogram(
            "keras_flowers_batch_seconds",
            "Time of one batch in the model.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        Gauge(
            "keras_flowers_pending_bytes",
            "Bytes of requests in memory.",
            registry=self._registry,
        ).set_function(pending_bytes)

    def report_batch(self, size: int, seconds: float) -> None:
        """Counts a batch."""
        self.batch_size.observe(size)
        self.batch_seconds.observe(seconds)

    def exposition(self) -> bytes:
        """Returns the metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
