"""`PrometheusCollector` and `prometheus_text`: the ledger for whoever scrapes this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from lipservice.exceptions import MissingExtraError
from lipservice.metrics.accounts import (
    BySeverity,
    Ended,
    Lost,
    PatternLost,
    PatternRecords,
    Records,
    Snapshot,
    shared_accounts,
)

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError:
    raise MissingExtraError("prometheus-client", "prometheus") from None

if TYPE_CHECKING:
    from lipservice.sampler import AdaptiveSampler


class _Family(NamedTuple):
    """A metric of Prometheus and where its values are."""

    #: Field of `Snapshot`.
    values: str
    name: str
    help: str
    labels: tuple[str, ...]
    kind: type[CounterMetricFamily | GaugeMetricFamily] = CounterMetricFamily


_FAMILIES: Final = (
    _Family("seen", "lipservice_seen_records", "Records that came.", BySeverity._fields),
    _Family(
        "records",
        "lipservice_records",
        "Records by what became of them; those kept include those released.",
        Records._fields,
    ),
    _Family(
        "released",
        "lipservice_released_records",
        "Records dropped at first, and kept since their request failed.",
        Records._fields[1:],
    ),
    _Family(
        "shadowed",
        "lipservice_shadowed_records",
        "Records kept only because of shadow mode.",
        Records._fields[1:],
    ),
    _Family(
        "held",
        "lipservice_held_records",
        "Records that unfinished requests hold.",
        BySeverity._fields,
        GaugeMetricFamily,
    ),
    _Family(
        "ended",
        "lipservice_ended_records",
        "Records of policies that have no counter any more.",
        Ended._fields,
        GaugeMetricFamily,
    ),
    _Family(
        "lost",
        "lipservice_lost_records",
        "Records kept, and lost by an exporter.",
        Lost._fields,
    ),
)
_OF_PATTERNS: Final = (
    _Family(
        "patterns",
        "lipservice_pattern_records",
        "Records by pattern.",
        PatternRecords._fields,
    ),
    _Family(
        "patterns_lost",
        "lipservice_pattern_lost_records",
        "Records of a pattern that were kept, and lost by an exporter.",
        PatternLost._fields,
    ),
)


class PrometheusCollector(Collector):
    """
    The ledger, read at each scrape: `prometheus_client.REGISTRY.register(PrometheusCollector())`.

    Thread- and fork-safe; never raises. It tells this process: each worker of several has a ledger
    of its own.

    Args:
        sampler: Whose ledger, held weakly; None: of all samplers of the process.
        patterns: Whether to tell single patterns too, by signature and severity.

    Raises:
        ConfigurationError: A parameter is wrong; the message names it.
    """

    def __init__(self, sampler: AdaptiveSampler | None = None, patterns: bool = False) -> None:
        self._accounts = shared_accounts(sampler)
        self._patterns = bool(patterns)

    def describe(self) -> Iterable[Metric]:
        """The names, so that a registry can refuse others of the same without a scrape."""
        return self._told(Snapshot())

    def collect(self) -> Iterable[Metric]:
        """All values as of now."""
        return self._told(self._accounts.snapshot(patterns=self._patterns))

    def _told(self, snapshot: Snapshot) -> Iterator[Metric]:
        for family in (*_FAMILIES, *(_OF_PATTERNS if self._patterns else ())):
            yield _metric(family, getattr(snapshot, family.values))


def prometheus_text(sampler: AdaptiveSampler | None = None, patterns: bool = False) -> str:
    """
    The ledger in Prometheus's text format (0.0.4), and nothing else.

    Thread- and fork-safe.

    Args:
        sampler: Whose ledger; None: of all samplers of the process.
        patterns: Whether to tell single patterns too, by signature and severity.

    Raises:
        ConfigurationError: A parameter is wrong; the message names it.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(PrometheusCollector(sampler, patterns))
    return generate_latest(registry).decode("utf-8")


def _metric(family: _Family, values: Mapping[tuple[str, ...], int]) -> Metric:
    metric = family.kind(family.name, family.help, labels=family.labels)
    for key, amount in values.items():
        metric.add_metric(key[-len(family.labels) :], amount)
    return metric
