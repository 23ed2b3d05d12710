"""
Numbers for Prometheus. With several workers, the one-command mode gives them a directory
(PROMETHEUS_MULTIPROC_DIR) through which any of them answers for all.

Labels have few values (route, status, outcome): never a service, an instance or a signature.
"""

from __future__ import annotations

import os
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

#: The content type of Prometheus's text format.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """The numbers of one app. Safe to share between threads."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        kwargs: Any = {"registry": self._registry}
        self._requests = Counter(
            "lipservice_requests", "Requests answered.", ["route", "status"], **kwargs
        )
        self._seconds = Histogram(
            "lipservice_request_seconds",
            "Time to answer, policy requests left out.",
            ["route"],
            buckets=_BUCKETS,
            **kwargs,
        )
        self.patterns = Counter("lipservice_patterns", "Patterns taken in.", **kwargs)
        self.records = Counter("lipservice_records", "Records counted by instances.", **kwargs)
        self.repeats = Counter("lipservice_repeated_reports", "Reports sent again.", **kwargs)
        self.generations = Counter(
            "lipservice_generations", "Policies made.", ["provider", "outcome"], **kwargs
        )
        self.away = Gauge(
            "lipservice_database_away",
            "1 while the database does not answer.",
            multiprocess_mode="max",
            **kwargs,
        )
        self._children: dict[tuple[str, int], Counter] = {}

    def answered(self, route: str, status: int, seconds: float | None = None) -> None:
        """Count one answer; *seconds* is left out where it is not worth measuring."""
        child = self._children.get((route, status))
        if child is None:
            child = self._children[route, status] = self._requests.labels(route, str(status))
        child.inc()
        if seconds is not None:
            self._seconds.labels(route).observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        return generate_latest(self._registry)
