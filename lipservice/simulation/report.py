"""
The report: what was seen, what a policy keeps of it, what that saves.

One immutable value that the three writers (text, html, jsonout) show. All figures of what is kept
are expectations of the steady state; a process's first records of each pattern are told apart.
`lipservice demo` makes the same report from what a live sampler has counted.

A row, and what the headline calls a pattern, is a family: sibling templates, which share a budget,
are shown as one (`lipservice.families`). Measured on eleven LogHub samples this is within 3 % of
what holds for the true log statements, where single signatures are up to 70 % off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from lipservice.optimizer import PatternVolume
from lipservice.patterns import OVERFLOW_SIGNATURE
from lipservice.planning import Outcome, rate_reason, relative_error
from lipservice.policy import SamplingPolicy
from lipservice.severity import PROTECTED_SEVERITIES, SEVERITIES
from lipservice.simulation.counting import Pattern, PatternCounter
from lipservice.simulation.reading import Reading

#: Dollars for 10^9 bytes: what AWS asks for CloudWatch Logs ingestion (standard class, us-east-1).
DEFAULT_PRICE: Final = 0.50
PRICE_REASON: Final = "the ingestion price of AWS CloudWatch Logs (standard class, us-east-1)"
#: Seconds of a month, as clouds bill it: 730 hours.
MONTH: Final = 730 * 3600.0
#: From shorter logs nothing is extrapolated.
_LEAST_SPAN: Final = 60.0
#: Share of the records that must have a time for that.
_LEAST_TIMED: Final = 0.5
_GB: Final = 1e9

Protection = Literal["", "severity", "word"]


@dataclass(frozen=True, slots=True)
class PatternRow:
    """One pattern (or family of patterns) at one severity: seen, and kept."""

    #: The signatures of its members, the largest volume first.
    signatures: tuple[str, ...]
    template: str
    severity: str
    count: int
    bytes: int
    kept_records: float
    kept_bytes: float
    #: Why no rate applies: "severity" (ERROR and above), "word" (the policy's), "" (one applies).
    protection: Protection
    #: Why the rate is what it is, in words.
    reason: str

    @property
    def rate(self) -> float:
        """Share of the records that is kept, 0 to 1; of a family the mean."""
        return min(1.0, self.kept_records / self.count) if self.count else 1.0

    @property
    def overflow(self) -> bool:
        """Whether this stands for all patterns that did not fit into the table."""
        return self.signatures == (OVERFLOW_SIGNATURE,)


@dataclass(frozen=True, slots=True)
class Slice:
    """The volume of one slice of time."""

    #: Seconds since 1970.
    start: float
    seen_bytes: float
    kept_bytes: float
    #: Bytes of ERROR and above, which are all kept.
    error_bytes: float


@dataclass(frozen=True, slots=True)
class InputSummary:
    """What was read."""

    names: tuple[str, ...]
    records: int
    lines: int
    bytes: int
    #: Seconds since 1970, or None where no line has a time.
    first: float | None
    last: float | None
    #: Records that have a time.
    timed: int
    #: Records whose log does not say how severe they are; they count as INFO.
    unlevelled: int
    #: Lines of each format, most frequent first.
    formats: Mapping[str, int]
    troubles: tuple[str, ...]

    @property
    def span(self) -> float | None:
        """Seconds from the first record to the last."""
        return None if self.first is None or self.last is None else self.last - self.first

    @property
    def per_minute(self) -> float | None:
        """Records a minute; None for a log without times, or one shorter than a second."""
        span = self.span
        return None if not span else self.timed / (span / 60.0)


@dataclass(frozen=True, slots=True)
class Money:
    """What the volume costs, seen and kept."""

    price_per_gb: float
    #: "month": extrapolated from the log's time span; "input": for what was read only.
    basis: Literal["month", "input"]
    #: Why it is not extrapolated; "" where it is.
    why_not: str
    seen: float
    kept: float

    @property
    def saved(self) -> float:
        """What is no longer paid."""
        return self.seen - self.kept


@dataclass(frozen=True, slots=True)
class FirstRecords:
    """What every new process keeps on top of the rates."""

    keep_first: int
    #: Of the records that were read, how many are the first of a pattern that is sampled.
    records: int
    bytes: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a writer shows. Immutable."""

    title: str
    service_name: str | None
    created_at: datetime
    #: The share of the bytes that was asked for; None where an existing policy is looked at.
    cost_target: float | None
    policy: SamplingPolicy
    input: InputSummary
    #: Largest volume first.
    rows: tuple[PatternRow, ...]
    #: Signatures that the rows bring together.
    signatures: int
    #: Its patterns are families, as the rows are.
    outcome: Outcome
    #: Every record kept with one probability, for the same volume.
    uniform: Outcome
    first_records: FirstRecords
    slices: tuple[Slice, ...]
    #: Seconds of a slice.
    slice_width: int
    money: Money
    #: What else is to be said, in sentences.
    notes: tuple[str, ...] = ()
    #: What was compared with counts of another side, in sentences (`lipservice demo`).
    proofs: tuple[str, ...] = ()
    #: What is kept was counted, not expected: the share of the bytes from the first policy on,
    #: before which everything is kept. None: expected.
    live_share: float | None = None

    @property
    def error_rows(self) -> list[PatternRow]:
        """The patterns at ERROR and above."""
        return [row for row in self.rows if row.severity in PROTECTED_SEVERITIES]

    @property
    def errors(self) -> int:
        """Records at ERROR and above."""
        return sum(row.count for row in self.error_rows)

    @property
    def protected_bytes(self) -> int:
        """Bytes that are kept whatever the rates."""
        return sum(row.bytes for row in self.rows if row.protection)

    @property
    def target_missed(self) -> bool:
        """Whether more is kept than was asked for."""
        target = self.cost_target
        return target is not None and self.outcome.kept_share > target * 1.001 + 1e-9

    def severities(self) -> dict[str, tuple[int, int]]:
        """Records and bytes of each severity that occurs, most severe first."""
        found: dict[str, tuple[int, int]] = {}
        for severity in reversed(SEVERITIES):
            rows = [row for row in self.rows if row.severity == severity]
            if rows:
                found[severity] = (sum(r.count for r in rows), sum(r.bytes for r in rows))
        return found


@dataclass(frozen=True, slots=True)
class Tally:
    """One signature at one severity: what was seen, and what is kept of it."""

    signature: str
    template: str
    severity: str
    count: int
    bytes: int
    rate: float
    kept_records: float
    kept_bytes: float

    def volume(self) -> PatternVolume:
        """What the planner is told."""
        return PatternVolume(
            signature=self.signature,
            template="" if self.signature == OVERFLOW_SIGNATURE else self.template,
            severity=self.severity,
            count=self.count,
            mean_bytes=self.bytes / self.count if self.count else 0.0,
        )


def volumes_of(patterns: Sequence[Pattern]) -> list[PatternVolume]:
    """What the planner is told about *patterns*."""
    return [_tally(pattern, 1.0).volume() for pattern in patterns]


def build_report(
    counter: PatternCounter,
    reading: Reading,
    policy: SamplingPolicy,
    *,
    families: Mapping[str, str],
    title: str,
    created_at: datetime,
    cost_target: float | None,
    price_per_gb: float,
    service_name: str | None = None,
) -> Report:
    """
    What *policy* would keep of what was counted.

    Args:
        counter: the patterns.
        reading: what was read to count them.
        policy: the policy to look at.
        families: what `merge_families` answers for the templates.
        title: what the report is about, for people.
        created_at: when it is made.
        cost_target: the share that was asked for, if one was.
        price_per_gb: dollars for 10^9 bytes.
        service_name: for people.
    """
    patterns = counter.patterns()
    tallies = [_tally(pattern, _rate_of(pattern, policy)) for pattern in patterns]
    rows = build_rows(tallies, policy, families)
    outcome = build_outcome(tallies, families)
    read = _input_summary(reading, counter)
    return Report(
        title=title,
        service_name=service_name,
        created_at=created_at,
        cost_target=cost_target,
        policy=policy,
        input=read,
        rows=rows,
        signatures=len({tally.signature for tally in tallies}),
        outcome=outcome,
        uniform=uniform_outcome_of(tallies, families, outcome.kept_share),
        first_records=_first_records(tallies, policy.keep_first),
        slices=_slices(counter, policy),
        slice_width=counter.timeline.width,
        money=price(outcome.bytes, outcome.kept_bytes, price_per_gb, read),
        notes=_notes(rows, policy),
    )


def protection_under(policy: SamplingPolicy, template: str, severity: str) -> Protection:
    """Why *policy* keeps every record of a pattern whatever its rate, or ""."""
    if severity in PROTECTED_SEVERITIES:
        return "severity"
    return "word" if policy.protects(template) else ""


def build_rows(
    tallies: Sequence[Tally], policy: SamplingPolicy, families: Mapping[str, str]
) -> tuple[PatternRow, ...]:
    """Bring siblings together; the largest volume first."""
    groups: dict[tuple[str, str, Protection], list[Tally]] = {}
    for tally in tallies:
        if tally.count:
            protection = protection_under(policy, tally.template, tally.severity)
            family = families.get(tally.template, tally.template)
            groups.setdefault((family, tally.severity, protection), []).append(tally)
    rows = [_row(*key, members, policy) for key, members in groups.items()]
    return tuple(sorted(rows, key=lambda row: (-row.bytes, row.template, row.severity)))


def build_outcome(tallies: Sequence[Tally], families: Mapping[str, str]) -> Outcome:
    """What is expected to be kept; patterns are families here."""
    return _outcome(tallies, [tally.rate for tally in tallies], families)


def live_outcome(
    tallies: Sequence[Tally], families: Mapping[str, str], errors: Mapping[str, float]
) -> Outcome:
    """
    What a sampler really kept.

    Args:
        tallies: its counts.
        families: as for `build_rows`.
        errors: relative error of each signature's estimated count.
    """
    kept: dict[str, float] = {}
    for tally in tallies:
        family = families.get(tally.template, tally.template)
        kept[family] = kept.get(family, 0.0) + tally.kept_records
    return Outcome(
        patterns=len(kept),
        records=sum(tally.count for tally in tallies),
        bytes=sum(tally.bytes for tally in tallies),
        kept_records=math.fsum(tally.kept_records for tally in tallies),
        kept_bytes=math.fsum(tally.kept_bytes for tally in tallies),
        visible_patterns=sum(records > 0 for records in kept.values()),
        mean_error=math.fsum(errors.values()) / len(errors) if errors else 0.0,
    )


def uniform_outcome_of(
    tallies: Sequence[Tally], families: Mapping[str, str], rate: float
) -> Outcome:
    """The same if every record were kept with the probability *rate*."""
    same = min(1.0, rate)
    thinned = [
        replace(tally, kept_records=tally.count * same, kept_bytes=tally.bytes * same)
        for tally in tallies
    ]
    return _outcome(thinned, [same] * len(tallies), families)


def _outcome(
    tallies: Sequence[Tally], rates: Sequence[float], families: Mapping[str, str]
) -> Outcome:
    counts: dict[str, float] = {}
    missed: dict[str, float] = {}
    squares: dict[str, float] = {}
    for (family, rate), count in _experiments(tallies, rates, families).items():
        counts[family] = counts.get(family, 0.0) + count
        missed[family] = missed.get(family, 1.0) * (1.0 - rate) ** count
        deviation = count * relative_error(count, rate)
        squares[family] = squares.get(family, 0.0) + deviation * deviation
    errors = [math.sqrt(squares[family]) / count for family, count in counts.items()]
    return Outcome(
        patterns=len(counts),
        records=sum(tally.count for tally in tallies),
        bytes=sum(tally.bytes for tally in tallies),
        kept_records=math.fsum(tally.kept_records for tally in tallies),
        kept_bytes=math.fsum(tally.kept_bytes for tally in tallies),
        visible_patterns=len(missed) - math.fsum(missed.values()),
        mean_error=math.fsum(errors) / len(errors) if errors else 0.0,
    )


def _experiments(
    tallies: Sequence[Tally], rates: Sequence[float], families: Mapping[str, str]
) -> dict[tuple[str, float], int]:
    """Records of a family that have one rate: together one binomial experiment."""
    counts: dict[tuple[str, float], int] = {}
    for tally, rate in zip(tallies, rates, strict=True):
        if tally.count and tally.signature != OVERFLOW_SIGNATURE:
            key = (families.get(tally.template, tally.template), rate)
            counts[key] = counts.get(key, 0) + tally.count
    return counts


def _rate_of(pattern: Pattern, policy: SamplingPolicy) -> float:
    if policy.protects(pattern.template):
        return 1.0
    return policy.rate_for(pattern.signature, pattern.severity)


def _tally(pattern: Pattern, rate: float) -> Tally:
    return Tally(
        signature=pattern.signature,
        template=pattern.template,
        severity=pattern.severity,
        count=pattern.count,
        bytes=pattern.bytes,
        rate=rate,
        kept_records=pattern.count * rate,
        kept_bytes=pattern.bytes * rate,
    )


def _row(
    family: str,
    severity: str,
    protection: Protection,
    members: list[Tally],
    policy: SamplingPolicy,
) -> PatternRow:
    members.sort(key=lambda member: (-member.bytes, member.signature))
    count = sum(member.count for member in members)
    return PatternRow(
        signatures=tuple(member.signature for member in members),
        template=members[0].template if len(members) == 1 else family,
        severity=severity,
        count=count,
        bytes=sum(member.bytes for member in members),
        kept_records=math.fsum(member.kept_records for member in members),
        kept_bytes=math.fsum(member.kept_bytes for member in members),
        protection=protection,
        reason=rate_reason(replace(members[0].volume(), count=count), policy),
    )


def _input_summary(reading: Reading, counter: PatternCounter) -> InputSummary:
    timeline = counter.timeline
    return InputSummary(
        names=tuple(reading.names),
        records=sum(pattern.count for pattern in counter.patterns()),
        lines=reading.lines,
        bytes=reading.bytes,
        first=timeline.first if timeline.timed else None,
        last=timeline.last if timeline.timed else None,
        timed=timeline.timed,
        unlevelled=counter.unlevelled,
        formats=dict(reading.formats.most_common()),
        troubles=tuple(reading.troubles),
    )


def _first_records(tallies: Sequence[Tally], keep_first: int) -> FirstRecords:
    """The first records of every pattern that is not kept in full anyway."""
    records, size = 0, 0.0
    for tally in tallies:
        if tally.rate < 1.0 and tally.signature != OVERFLOW_SIGNATURE:
            first = min(tally.count, keep_first)
            records += first
            size += tally.bytes * first / tally.count
    return FirstRecords(keep_first, records, size)


def price(seen: float, kept: float, price_per_gb: float, read: InputSummary) -> Money:
    """Dollars for the bytes, for a month where the log's times allow it."""
    why_not = _why_no_month(read)
    span = read.span
    factor = 1.0 if why_not or not span else MONTH / span
    dollars = price_per_gb / _GB * factor
    return Money(
        price_per_gb, "input" if why_not else "month", why_not, seen * dollars, kept * dollars
    )


def _why_no_month(read: InputSummary) -> str:
    span = read.span
    if span is None:
        return "no record has a time"
    if read.timed < _LEAST_TIMED * read.records:
        return "most records have no time"
    return f"it spans only {math.ceil(span):,} s" if span < _LEAST_SPAN else ""


def _slices(counter: PatternCounter, policy: SamplingPolicy) -> tuple[Slice, ...]:
    timeline = counter.timeline
    if not timeline.timed:
        return ()
    low = int(timeline.first) // timeline.width
    number = int(timeline.last) // timeline.width - low + 1
    seen, kept, errors = ([0.0] * number for _ in range(3))
    for by_slice, severity, rate in _histograms(counter, policy):
        for at, amount in by_slice.items():
            seen[at - low] += amount
            kept[at - low] += amount * rate
            if severity in PROTECTED_SEVERITIES:
                errors[at - low] += amount
    return tuple(
        Slice(float((low + at) * timeline.width), *figures)
        for at, figures in enumerate(zip(seen, kept, errors, strict=True))
    )


def _histograms(
    counter: PatternCounter, policy: SamplingPolicy
) -> list[tuple[Mapping[int, int], str, float]]:
    """Each histogram with its severity and the mean rate of the patterns that share it."""
    shares: dict[int, tuple[Mapping[int, int], str, float, float]] = {}
    for pattern in counter.patterns():
        rate = _rate_of(pattern, policy)
        _, _, size, kept = shares.get(id(pattern.by_slice), ({}, "", 0.0, 0.0))
        shares[id(pattern.by_slice)] = (
            pattern.by_slice,
            pattern.severity,
            size + pattern.bytes,
            kept + pattern.bytes * rate,
        )
    return [
        (by, severity, kept / size if size else 1.0) for by, severity, size, kept in shares.values()
    ]


def _notes(rows: Sequence[PatternRow], policy: SamplingPolicy) -> tuple[str, ...]:
    notes = []
    overflow = sum(row.count for row in rows if row.overflow)
    if overflow:
        notes.append(
            f"{overflow:,} records came after the table of patterns was full; they are counted "
            "together, at the rate of their severity."
        )
    if policy.max_logs_per_minute is not None:
        notes.append(
            f"The policy also keeps at most {policy.max_logs_per_minute:,} unprotected records a "
            "minute in each process; that bound is not simulated."
        )
    if policy.mode == "shadow":
        notes.append("The policy is in shadow mode: until it is active, it drops nothing.")
    return tuple(notes)
