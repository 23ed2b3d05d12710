"""
What a policy would do to given counts, and what changes from one policy to another.

    replay       counts, policy -> what it would have kept, first records and limit included
    difference   counts, two policies -> what gets rarer, more frequent, protected or lost

Expectations are those of `lipservice.planning`; for what a person reads before approving a
policy. Rule of this module: pure. No clock, no randomness, no logging.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lipservice.planning import Outcome, expected_outcome, relative_error
from lipservice.severity import PROTECTED_SEVERITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lipservice.optimizer import PatternVolume
    from lipservice.policy import SamplingPolicy

#: A rate is another one where it differs by more than this part of the higher one.
NOTICED: Final = 0.05
#: A count is too poor to trust where it is expected to be further off than this part of it.
POOR: Final = 0.25
# A pattern disappears where it is likelier than not that none of its records is kept.
_LIKELY: Final = 0.5


@dataclass(frozen=True, slots=True)
class PatternChange:
    """One pattern under two policies. Immutable."""

    signature: str
    template: str
    #: Records and bytes of the window.
    records: float
    bytes: float
    #: Shares of the records that are kept, 0 to 1 (all severities of the pattern together).
    before: float
    after: float
    #: Expected relative errors of the estimated count (`lipservice.planning.relative_error`).
    error_before: float
    error_after: float
    #: Probability that none of the window's records is kept.
    missed_before: float
    missed_after: float
    #: Bytes of the window that are kept more, or less.
    kept_bytes: float

    @property
    def noticeable(self) -> bool:
        """Whether the rates differ by more than `NOTICED`."""
        return abs(self.after - self.before) > NOTICED * max(self.after, self.before)


@dataclass(frozen=True, slots=True)
class Difference:
    """What changes from one policy to another. Immutable; the largest change comes first."""

    #: Expected outcomes, without the first records of a pattern.
    before: Outcome
    after: Outcome
    rarer: tuple[PatternChange, ...]
    more_frequent: tuple[PatternChange, ...]
    #: Kept in full now, and thinned before; these are among `more_frequent` as well.
    newly_protected: tuple[PatternChange, ...]
    #: Thinned now, and kept in full before.
    no_longer_protected: tuple[PatternChange, ...]
    #: Likely to be seen before, and likely not to be seen at all now.
    disappearing: tuple[PatternChange, ...]
    #: Counted too poorly to trust under the new policy, the largest pattern first.
    poorly_counted: tuple[PatternChange, ...]
    words_added: tuple[str, ...]
    words_removed: tuple[str, ...]
    #: Severities whose rate for patterns without a name is another one: before, after.
    severity_rates: Mapping[str, tuple[float, float]]

    @property
    def kept_bytes(self) -> float:
        """Bytes of the window that are kept more, or less."""
        return self.after.kept_bytes - self.before.kept_bytes

    @property
    def kept_records(self) -> float:
        """Records of the window that are kept more, or less."""
        return self.after.kept_records - self.before.kept_records

    @property
    def kept_share(self) -> float:
        """By how much the share of the bytes that is kept changes, -1 to 1."""
        return self.after.kept_share - self.before.kept_share

    @property
    def summary(self) -> str:
        """In words: `keeps 4 % of the volume less; 3 patterns get rarer; no pattern disappears`."""
        parts = [
            _volume_words(self.kept_share),
            _many(self.rarer, "gets rarer", "get rarer"),
            _many(self.more_frequent, "gets more frequent", "get more frequent"),
            _many(self.newly_protected, "is newly kept whole", "are newly kept whole"),
            _many(self.disappearing, "disappears", "disappear") or "no pattern disappears",
            _many(
                self.poorly_counted,
                "is counted too poorly to trust",
                "are counted too poorly to trust",
            ),
        ]
        return "; ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class PatternReplay:
    """What a policy would have kept of one pattern. Immutable."""

    signature: str
    template: str
    records: float
    kept: float
    #: Expected relative error of the estimated count, as if its records were thinned evenly.
    error: float


@dataclass(frozen=True, slots=True)
class Replay:
    """What a policy would have kept of the counts of a window. Immutable."""

    records: float
    bytes: float
    kept_records: float
    kept_bytes: float
    #: Records kept because they are among the first of their pattern, at most.
    first_records: float
    #: Factor by which `max_logs_per_minute` would have scaled the unprotected rates down, 0 to 1.
    limit_factor: float
    #: Kept and all records of each severity that occurs.
    severities: Mapping[str, tuple[float, float]]
    patterns: tuple[PatternReplay, ...]

    @property
    def kept_share(self) -> float:
        """Share of the bytes that would have been kept, 0 to 1; 1 where there are none."""
        return self.kept_bytes / self.bytes if self.bytes else 1.0


def difference(
    before: SamplingPolicy,
    after: SamplingPolicy,
    patterns: Sequence[PatternVolume],
    *,
    poor: float = POOR,
) -> Difference:
    """
    What *after* would change of what *before* keeps of *patterns*.

    Args:
        before: The policy in force.
        after: The candidate.
        patterns: Counts of a window; the same signature may come once per severity.
        poor: Expected relative error above which a count is too poor to trust.

    Thread-safe: pure. 100,000 patterns take about a second.
    """
    changes = [_change(parts, before, after) for parts in _by_signature(patterns)]
    changes.sort(key=lambda change: (-abs(change.kept_bytes), change.signature))
    noticed = [change for change in changes if change.noticeable]
    poorly = [change for change in changes if change.error_after > poor]
    return Difference(
        before=expected_outcome(patterns, before),
        after=expected_outcome(patterns, after),
        rarer=tuple(c for c in noticed if c.after < c.before),
        more_frequent=tuple(c for c in noticed if c.after > c.before),
        newly_protected=tuple(c for c in noticed if c.after >= 1.0),
        no_longer_protected=tuple(c for c in noticed if c.before >= 1.0),
        disappearing=tuple(c for c in changes if c.missed_before <= _LIKELY < c.missed_after),
        poorly_counted=tuple(sorted(poorly, key=lambda c: (-c.records, c.signature))),
        words_added=_without(after.patterns, before.patterns),
        words_removed=_without(before.patterns, after.patterns),
        severity_rates=_other_severity_rates(before, after),
    )


def replay(
    policy: SamplingPolicy,
    patterns: Sequence[PatternVolume],
    *,
    processes: int = 1,
    window_seconds: float | None = None,
) -> Replay:
    """
    What *policy* would have kept of *patterns*, had it been in force and every process new.

    Args:
        policy: The candidate.
        patterns: Counts of a window; the same signature may come once per severity.
        processes: How many processes logged them; each keeps a pattern's first records.
        window_seconds: Length of the window; None: `max_logs_per_minute` is not reckoned with.
            The records are taken to have come evenly, and the limit as that of all processes.

    Thread-safe: pure.
    """
    first = [
        min(volume.count, share * policy.keep_first * processes)
        for volume, share in _with_shares(patterns)
    ]
    rates = [_rate(policy, volume) for volume in patterns]
    rows = list(zip(patterns, first, rates, strict=True))
    factor = _limit_factor(policy, rows, window_seconds)
    kept = [_kept(policy, volume, early, rate, factor) for volume, early, rate in rows]
    return Replay(
        records=math.fsum(volume.count for volume in patterns),
        bytes=math.fsum(volume.total_bytes for volume in patterns),
        kept_records=math.fsum(kept),
        kept_bytes=math.fsum(k * v.mean_bytes for k, v in zip(kept, patterns, strict=True)),
        first_records=math.fsum(early for v, early, rate in rows if rate < 1.0),
        limit_factor=factor,
        severities=_by_severity(patterns, kept),
        patterns=tuple(_replayed(patterns, kept)),
    )


def _by_signature(patterns: Iterable[PatternVolume]) -> Iterable[list[PatternVolume]]:
    groups: dict[str, list[PatternVolume]] = {}
    for volume in patterns:
        if volume.count:
            groups.setdefault(volume.signature, []).append(volume)
    return groups.values()


def _rate(policy: SamplingPolicy, volume: PatternVolume) -> float:
    if policy.protects(volume.template):
        return 1.0
    return policy.rate_for(volume.signature, volume.severity)


def _change(
    parts: Sequence[PatternVolume], before: SamplingPolicy, after: SamplingPolicy
) -> PatternChange:
    old, new = ([_rate(policy, part) for part in parts] for policy in (before, after))
    records = math.fsum(part.count for part in parts)
    return PatternChange(
        signature=parts[0].signature,
        template=parts[0].template,
        records=records,
        bytes=math.fsum(part.total_bytes for part in parts),
        before=_mean(parts, old),
        after=_mean(parts, new),
        error_before=_error(parts, old),
        error_after=_error(parts, new),
        missed_before=_missed(parts, old),
        missed_after=_missed(parts, new),
        kept_bytes=math.fsum(
            part.total_bytes * (n - o) for part, o, n in zip(parts, old, new, strict=True)
        ),
    )


def _mean(parts: Sequence[PatternVolume], rates: Sequence[float]) -> float:
    if len(set(rates)) == 1:
        return rates[0]  # exactly, so that 1 stays 1
    kept = math.fsum(part.count * rate for part, rate in zip(parts, rates, strict=True))
    return kept / math.fsum(part.count for part in parts)


def _error(parts: Sequence[PatternVolume], rates: Sequence[float]) -> float:
    """Of one part exact; of several the root of the sum of squares, an approximation."""
    errors = [
        part.count * relative_error(part.count, r) for part, r in zip(parts, rates, strict=True)
    ]
    return math.hypot(*errors) / math.fsum(part.count for part in parts)


def _missed(parts: Sequence[PatternVolume], rates: Sequence[float]) -> float:
    chances = [float((1.0 - r) ** part.count) for part, r in zip(parts, rates, strict=True)]
    return math.prod(chances)


def _without(words: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
    known = {word.lower() for word in others}
    return tuple(word for word in words if word.lower() not in known)


def _other_severity_rates(
    before: SamplingPolicy, after: SamplingPolicy
) -> dict[str, tuple[float, float]]:
    names = {**before.severity_rates, **after.severity_rates}
    # An empty signature has no rate of its own, so these are the severities' rates.
    pairs = {name: (before.rate_for("", name), after.rate_for("", name)) for name in names}
    return {name: (old, new) for name, (old, new) in pairs.items() if old != new}


def _volume_words(share: float) -> str:
    percent = 100.0 * abs(share)
    if percent < 0.05:
        return "keeps as much of the volume"
    return f"keeps {percent:.2g} % of the volume {'more' if share > 0 else 'less'}"


def _many(changes: Sequence[PatternChange], one: str, several: str) -> str:
    if not changes:
        return ""
    count = len(changes)
    return f"1 pattern {one}" if count == 1 else f"{count:,} patterns {several}"


def _with_shares(patterns: Sequence[PatternVolume]) -> list[tuple[PatternVolume, float]]:
    """Each volume with its part of its pattern's records, of which the first are a fair mix."""
    totals: dict[str, float] = {}
    for volume in patterns:
        totals[volume.signature] = totals.get(volume.signature, 0.0) + volume.count
    return [(v, v.count / totals[v.signature] if v.count else 0.0) for v in patterns]


def _limit_factor(
    policy: SamplingPolicy,
    rows: Sequence[tuple[PatternVolume, float, float]],
    window_seconds: float | None,
) -> float:
    limit = policy.max_logs_per_minute
    if limit is None or window_seconds is None:
        return 1.0
    wanted = math.fsum(
        early + (volume.count - early) * rate
        for volume, early, rate in rows
        if not _always_kept(policy, volume)
    )
    allowed = limit * window_seconds / 60.0
    return 1.0 if wanted <= allowed else allowed / wanted


def _always_kept(policy: SamplingPolicy, volume: PatternVolume) -> bool:
    return volume.severity in PROTECTED_SEVERITIES or policy.protects(volume.template)


def _kept(
    policy: SamplingPolicy, volume: PatternVolume, early: float, rate: float, factor: float
) -> float:
    if _always_kept(policy, volume):
        return volume.count
    return factor * (early + (volume.count - early) * rate)


def _by_severity(
    patterns: Sequence[PatternVolume], kept: Sequence[float]
) -> dict[str, tuple[float, float]]:
    sums: dict[str, tuple[float, float]] = {}
    for volume, share in zip(patterns, kept, strict=True):
        some, whole = sums.get(volume.severity, (0.0, 0.0))
        sums[volume.severity] = (some + share, whole + volume.count)
    return sums


def _replayed(patterns: Sequence[PatternVolume], kept: Sequence[float]) -> list[PatternReplay]:
    sums: dict[str, list[float]] = {}
    templates: dict[str, str] = {}
    for volume, some in zip(patterns, kept, strict=True):
        templates.setdefault(volume.signature, volume.template)
        total = sums.setdefault(volume.signature, [0.0, 0.0])
        total[0] += volume.count
        total[1] += some
    return [
        PatternReplay(name, templates[name], count, some, _error_of_share(count, some))
        for name, (count, some) in sums.items()
    ]


def _error_of_share(count: float, kept: float) -> float:
    return relative_error(count, min(1.0, kept / count)) if count else 0.0
