"""
`instrument`: the ledger as observable instruments of OpenTelemetry.

The instruments are read by the SDK's readers, in their threads; nothing is counted twice and no
log call does anything for it.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from lipservice._version import __version__
from lipservice.exceptions import ConfigurationError, MissingExtraError
from lipservice.metrics.accounts import Accounts, Snapshot

try:
    from opentelemetry.metrics import (
        CallbackOptions,
        MeterProvider,
        Observation,
        get_meter_provider,
    )
except ImportError:
    raise MissingExtraError("opentelemetry-api", "opentelemetry") from None

if TYPE_CHECKING:
    from lipservice.sampler import AdaptiveSampler

#: What the SDK holds without a word of its user: 2,000 attribute sets an instrument and process,
#: about 20 of them a policy.
_MOST_POLICIES: Final = 64
#: Patterns with a label, as many as a sampler's table has by default.
_MOST_PATTERNS: Final = 10_000

_COUNTERS: Final = {
    "seen": "Records that came.",
    "records": "Records by what became of them; those kept include those released.",
    "released": "Records dropped at first, and kept since their request failed.",
    "shadowed": "Records kept only because of shadow mode.",
    "lost": "Records kept, and lost by an exporter.",
}
_GAUGES: Final = {
    "held": "Records that unfinished requests hold.",
    "ended": "Records of policies that have no counter any more.",
}
_OF_PATTERNS: Final = {
    "patterns": "Records by pattern.",
    "patterns_lost": "Records of a pattern that were kept, and lost by an exporter.",
}
_NAMES: Final = {
    "seen": "lipservice.seen_records",
    "records": "lipservice.records",
    "released": "lipservice.released_records",
    "shadowed": "lipservice.shadowed_records",
    "lost": "lipservice.lost_records",
    "held": "lipservice.held_records",
    "ended": "lipservice.ended_records",
    "patterns": "lipservice.pattern_records",
    "patterns_lost": "lipservice.pattern_lost_records",
}
_UNIT: Final = "{record}"


def instrument(
    meter_provider: MeterProvider | None = None,
    *,
    sampler: AdaptiveSampler | None = None,
    patterns: bool = False,
) -> None:
    """
    Let OpenTelemetry read the ledger: observable instruments on a Meter named `lipservice`.

    Called again for the same provider, it replaces what the call before said. Starts nothing.
    Thread-safe; no callback raises.

    Args:
        meter_provider: Where to register; None: the global one, as it is now.
        sampler: Whose ledger, held weakly; None: of all samplers of the process.
        patterns: Whether to tell single patterns too, by signature and severity.

    Raises:
        ConfigurationError: A parameter is wrong; the message names it.
    """
    provider = get_meter_provider() if meter_provider is None else meter_provider
    if not callable(getattr(provider, "get_meter", None)):
        raise ConfigurationError(f"meter_provider is a MeterProvider, not {provider!r:.80}")
    accounts = Accounts(sampler, most_policies=_MOST_POLICIES, most_patterns=_MOST_PATTERNS)
    with _registering:
        known = _instrumented.get(provider)
        if known is None:
            _instrumented[provider] = _Instrumentation(provider, accounts, patterns=patterns)
        elif known.accounts.are_of(sampler):  # others would tell anew what the ledger has moved
            known.follow(known.accounts, patterns=patterns)
        else:
            known.follow(accounts, patterns=patterns)


class _Instrumentation:
    """The instruments on one provider."""

    def __init__(self, provider: MeterProvider, accounts: Accounts, *, patterns: bool) -> None:
        self._looks = _Looks(accounts, patterns=patterns)
        meter = provider.get_meter("lipservice", __version__)
        for name, description in (*_COUNTERS.items(), *_OF_PATTERNS.items()):
            meter.create_observable_counter(
                _NAMES[name], [self._looks.callback(name)], _UNIT, description
            )
        for name, description in _GAUGES.items():
            meter.create_observable_up_down_counter(
                _NAMES[name], [self._looks.callback(name)], _UNIT, description
            )

    @property
    def accounts(self) -> Accounts:
        """What is told."""
        return self._looks.accounts

    def follow(self, accounts: Accounts, *, patterns: bool) -> None:
        """Tell others from now on."""
        self._looks.follow(accounts, patterns=patterns)


class _Looks:
    """
    One look at the ledger for all instruments of a collection.

    A reader asks one instrument after the other, in one thread: an instrument that has had its
    share of the last look begins the next.
    """

    def __init__(self, accounts: Accounts, *, patterns: bool) -> None:
        self._of_this_thread = threading.local()
        self.follow(accounts, patterns=patterns)

    def follow(self, accounts: Accounts, *, patterns: bool) -> None:
        """Look at others from now on."""
        self._what = accounts, bool(patterns)

    @property
    def accounts(self) -> Accounts:
        """What is looked at."""
        return self._what[0]

    def callback(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """What an instrument calls; *name* is a field of `Snapshot`."""

        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            amounts: Mapping[tuple[str, ...], int] = getattr(self._look(name), name)
            return [Observation(amount, _attributes(key)) for key, amount in amounts.items()]

        return observe

    def _look(self, name: str) -> Snapshot:
        own = self._of_this_thread
        if name in getattr(own, "told", {name}):
            accounts, patterns = self._what
            own.told = set()
            own.snapshot = accounts.snapshot(patterns=patterns)
        own.told.add(name)
        snapshot: Snapshot = own.snapshot
        return snapshot


def _attributes(key: tuple[str, ...]) -> dict[str, str]:
    fields: tuple[str, ...] = key._fields  # type: ignore[attr-defined]  # all are named tuples
    return {f"lipservice.{field}": value for field, value in zip(fields, key, strict=True) if value}


_registering: Final = threading.RLock()
_instrumented: Final[weakref.WeakKeyDictionary[MeterProvider, _Instrumentation]] = (
    weakref.WeakKeyDictionary()
)
