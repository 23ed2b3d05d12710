"""
Turns a report's patterns into what the store adds up. Pure.

Patterns that are named twice are summed, and all are sorted by signature: the store's statements
need both (see `store.bulk`). Times that lie ahead of the server's clock are cut back to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from lipservice.severity import PROTECTED_SEVERITIES, SEVERITIES, severity_name

#: Size of a record, in bytes, where a report does not carry bytes.
MEAN_BYTES: Final = 200
_ORDER: Final = {name: place for place, name in enumerate(SEVERITIES)}

#: signature, template, severity, first_seen, last_seen, count, kept, bytes, kept_bytes, errors,
#: rate
PatternRow = tuple[str, str, str, int, int, int, int, int, int, int, float]


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over one report."""

    records: int
    kept: int
    bytes: int
    kept_bytes: int
    errors: int


@dataclass(frozen=True, slots=True)
class Intake:
    """One report, ready to be added to the counts."""

    #: Sorted by signature, each signature once.
    rows: list[PatternRow]
    totals: Totals


def take_in(patterns: Iterable[dict[str, Any]], *, now: float) -> Intake:
    """Sum and sort the *patterns* of one report, which `api.schemas` has validated."""
    second = int(now)
    rows: dict[str, PatternRow] = {}
    records = kept = size = kept_size = errors = 0
    for pattern in patterns:
        row = _row(pattern, second)
        records += row[5]
        kept += row[6]
        size += row[7]
        kept_size += row[8]
        errors += row[9]
        signature = row[0]
        rows[signature] = _sum(rows[signature], row) if signature in rows else row
    totals = Totals(records, kept, size, kept_size, errors)
    return Intake([rows[signature] for signature in sorted(rows)], totals)


def _row(pattern: dict[str, Any], now: int) -> PatternRow:
    get = pattern.get
    count: int = pattern["count"]
    rate: float = pattern["sampling_rate"]
    kept = get("kept")
    if kept is None:
        kept = round(count * rate)
    size = get("bytes")
    if size is None:
        size = count * MEAN_BYTES
    last = int(pattern["last_seen"].timestamp())
    last = min(last, now)
    first_seen = get("first_seen")
    first = last if first_seen is None else min(int(first_seen.timestamp()), last)
    severities = get("severity_distribution")
    severity, errors = _severities(severities, count) if severities else ("INFO", 0)
    kept_size = size if kept >= count else size * kept // count
    return (
        pattern["signature"], get("template", ""), severity, first, last,
        count, kept, size, kept_size, errors, rate,
    )  # fmt: skip


def _severities(distribution: dict[str, int], count: int) -> tuple[str, int]:
    """The severity that most records have, and how many are protected by theirs."""
    if len(distribution) == 1:
        (name,) = distribution
        severity = severity_name(name)
        return severity, count if severity in PROTECTED_SEVERITIES else 0
    counts: dict[str, int] = {}
    for name, number in distribution.items():
        canonical = severity_name(name)
        counts[canonical] = counts.get(canonical, 0) + number
    most = max(counts, key=lambda name: (counts[name], _ORDER[name]))
    protected = sum(counts.get(name, 0) for name in PROTECTED_SEVERITIES)
    return most, min(protected, count)


def _sum(first: PatternRow, second: PatternRow) -> PatternRow:
    larger = first if first[5] >= second[5] else second
    return (
        first[0], first[1] or second[1], larger[2], min(first[3], second[3]),
        max(first[4], second[4]), first[5] + second[5], first[6] + second[6],
        first[7] + second[7], first[8] + second[8], first[9] + second[9], second[10],
    )  # fmt: skip
