"""
What policies make of the counts of the last days: expectations, differences, replays. Pure.

The counts are those that a generation works from, the mathematics those of `lipservice.planning`:
what a page promises before a policy is saved is what the same functions plan.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final

from lipservice.optimizer import PatternVolume
from lipservice.planning import Outcome, relative_error
from lipservice.policy import SamplingPolicy
from lipservice.severity import PROTECTED_SEVERITIES, SEVERITIES
from lipservice_server.db import Row
from lipservice_server.policy_cache import lay_over
from lipservice_server.policy_engine import PatternRow
from lipservice_server.policy_engine.difference import PatternChange, difference

#: A pattern is well counted where its estimate is expected within this part of the true count.
WELL: Final = 0.1
#: Patterns of a comparison that a page shows.
_SHOWN: Final = 50


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts of a service's last days."""

    rows: tuple[PatternRow, ...]
    volumes: tuple[PatternVolume, ...]
    #: Days over which they were counted.
    days: float

    @property
    def bytes(self) -> float:
        """All bytes."""
        return sum(volume.total_bytes for volume in self.volumes)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two policies on the same counts; of the patterns only those that a page shows."""

    #: In one sentence.
    summary: str
    before: Outcome
    after: Outcome
    #: Patterns whose rate is noticeably another one, the largest change in kept bytes first.
    changes: tuple[PatternChange, ...]
    changed: int
    #: Patterns that the later policy counts too poorly to trust, the largest first.
    poor: tuple[PatternChange, ...]
    poorly: int
    #: The gravest severity of each pattern above.
    severities: Mapping[str, str]
    #: Patterns whose count is within `WELL`, under each policy.
    well_before: int
    well: int
    patterns: int


def read_counts(rows: Iterable[Row], days: float) -> Counts:
    """The rows of `store.patterns.for_generation`, for the planning's functions."""
    read = tuple(_row(row) for row in rows)
    return Counts(read, tuple(volume for row in read for volume in _volumes(row)), days)


def read_policy(document: Mapping[str, Any], service: Row, pins: list[Row]) -> SamplingPolicy:
    """A version as it is served: with the service's pins, words and mode laid over."""
    return SamplingPolicy.from_dict(lay_over(document, service, pins))


def compare(counts: Counts, before: SamplingPolicy, after: SamplingPolicy) -> Comparison:
    """What *after* would change of what *before* keeps."""
    found = difference(before, after, counts.volumes)
    changes = (*found.rarer, *found.more_frequent)
    shown = tuple(
        heapq.nsmallest(_SHOWN, changes, key=lambda each: (-abs(each.kept_bytes), each.signature))
    )
    poor = found.poorly_counted[:_SHOWN]
    well, patterns = well_counted(counts, after)
    return Comparison(
        summary=found.summary,
        before=found.before,
        after=found.after,
        changes=shown,
        changed=len(changes),
        poor=poor,
        poorly=len(found.poorly_counted),
        severities=_gravest(counts.volumes, {each.signature for each in (*shown, *poor)}),
        well_before=well_counted(counts, before)[0],
        well=well,
        patterns=patterns,
    )


def well_counted(counts: Counts, policy: SamplingPolicy) -> tuple[int, int]:
    """How many patterns *policy* counts within `WELL`, and how many there are."""
    totals: dict[str, float] = {}
    squares: dict[str, float] = {}
    has_words = bool(policy.patterns)
    for volume in counts.volumes:
        name, count = volume.signature, volume.count
        kept_whole = has_words and policy.protects(volume.template)
        rate = 1.0 if kept_whole else policy.rate_for(name, volume.severity)
        # The errors of one signature's severities add up like variances.
        squares[name] = squares.get(name, 0.0) + (count * relative_error(count, rate)) ** 2
        totals[name] = totals.get(name, 0.0) + count
    well = sum(square <= (WELL * totals[name]) ** 2 for name, square in squares.items())
    return well, len(totals)


def _row(row: Row) -> PatternRow:
    errors = min(row["errors"], row["count"])
    severities = {row["severity"]: row["count"] - errors, "ERROR": errors} if errors else {}
    return PatternRow(
        signature=row["signature"],
        count=row["count"],
        template=row["template"],
        severity=row["severity"],
        mean_bytes=row["bytes"] / row["count"] if row["bytes"] else None,
        first_seen=datetime.fromtimestamp(row["first_seen"], timezone.utc),
        severity_distribution={} if row["severity"] in PROTECTED_SEVERITIES else severities,
    )


def _volumes(row: PatternRow) -> list[PatternVolume]:
    parts = row.severity_distribution or {row.severity: row.count}
    return [
        PatternVolume(
            signature=row.signature,
            template=row.template,
            severity=severity,
            count=count,
            mean_bytes=row.mean_bytes or 200.0,
        )
        for severity, count in parts.items()
        if count
    ]


def _gravest(volumes: Sequence[PatternVolume], wanted: AbstractSet[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for volume in volumes:
        if volume.signature in wanted:
            known = found.get(volume.signature, volume.severity)
            found[volume.signature] = max(known, volume.severity, key=SEVERITIES.index)
    return found
