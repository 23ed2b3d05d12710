"""
The exact ledger as OpenTelemetry metrics and as Prometheus text.

    accounts.py       pure: the ledger's entries to counters that never fall
    opentelemetry.py  `instrument`: observable instruments on a Meter
    prometheus.py     `PrometheusCollector`, `prometheus_text`

Rule: nothing of it is imported before it is used. It starts no thread: the ledger is read when a
reader or a scrape asks, in its thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lipservice._lazy import attribute_of

if TYPE_CHECKING:
    from lipservice.metrics.opentelemetry import instrument as instrument
    from lipservice.metrics.prometheus import PrometheusCollector as PrometheusCollector
    from lipservice.metrics.prometheus import prometheus_text as prometheus_text

_HOMES = {
    "PrometheusCollector": "lipservice.metrics.prometheus",
    "instrument": "lipservice.metrics.opentelemetry",
    "prometheus_text": "lipservice.metrics.prometheus",
}

__all__ = [*_HOMES]  # noqa: PLE0604 - the table above is the one list


def __getattr__(name: str) -> object:
    return attribute_of(__name__, _HOMES, name)
