"""
Turns a report's patterns into what the store adds up. Pure.

Patterns that are named twice are summed, and all are sorted by signature: the store's statements
need both (see `store.bulk`). Times that lie ahead of the server's clock are cut back to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

from lipservice.severity import PROTECTED_SEVERITIES, SEVERITIES, severity_name
from lipservice_server.errors import InvalidError

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
    #: How many keys the patterns' objects had in all, to compare with the body's text.
    keys: int


def take_in(patterns: Sequence[dict[str, Any]], *, now: float) -> Intake:
    """
    Sum and sort the *patterns* of one report, which `api.schemas` has validated.

    One loop without calls where it can be: a server spends most of its time here.

    Raises:
        InvalidError: More records of a pattern were kept than counted.
    """
    second = int(now)
    rows: dict[str, PatternRow] = {}
    records = kept_records = total_size = kept_total = errors = keys = 0
    for pattern in patterns:
        keys += len(pattern)
        whole = pattern if len(pattern) == _WHOLE else _completed(pattern)
        signature, template, count, kept, size, severities, first_seen, last_seen, rate = _all_of(
            whole
        )
        if kept > count:
            raise InvalidError(f"patterns: {signature}: more were kept than counted")
        last = int(last_seen.timestamp())
        last = min(last, second)
        first = int(first_seen.timestamp())
        first = min(first, last)
        keys += len(severities)
        severity, protected = _severities(severities, count)
        kept_size = size if kept >= count else size * kept // count
        records += count
        kept_records += kept
        total_size += size
        kept_total += kept_size
        errors += protected
        row = (
            signature, template, severity, first, last, count, kept, size, kept_size, protected,
            rate,
        )  # fmt: skip
        rows[signature] = _sum(rows[signature], row) if signature in rows else row
    totals = Totals(records, kept_records, total_size, kept_total, errors)
    return Intake([rows[signature] for signature in sorted(rows)], totals, keys)


_FIELDS: Final = (
    "signature", "template", "count", "kept", "bytes", "severity_distribution", "first_seen",
    "last_seen", "sampling_rate",
)  # fmt: skip
_WHOLE: Final = len(_FIELDS)
_all_of: Final = itemgetter(*_FIELDS)
_NO_SEVERITIES: Final[dict[str, int]] = {}


def _completed(pattern: dict[str, Any]) -> dict[str, Any]:
    """*pattern* with what it does not say worked out."""
    count: int = pattern["count"]
    worked_out = {
        "template": "",
        "kept": round(count * pattern["sampling_rate"]),
        "bytes": count * MEAN_BYTES,
        "severity_distribution": _NO_SEVERITIES,
        "first_seen": pattern["last_seen"],
    }
    return worked_out | pattern


def _severities(distribution: dict[str, int], count: int) -> tuple[str, int]:
    """The severity that most records have, and how many are protected by theirs."""
    if not distribution:
        return "INFO", 0
    if len(distribution) == 1:
        (name,) = distribution
        severity = _canonical(name)
        return severity, count if severity in PROTECTED_SEVERITIES else 0
    counts: dict[str, int] = {}
    for name, number in distribution.items():
        canonical = _canonical(name)
        counts[canonical] = counts.get(canonical, 0) + number
    most = max(counts, key=lambda name: (counts[name], _ORDER[name]))
    protected = sum(counts.get(name, 0) for name in PROTECTED_SEVERITIES)
    return most, min(protected, count)


_canonical: Final = lru_cache(maxsize=1_000)(severity_name)


def _sum(first: PatternRow, second: PatternRow) -> PatternRow:
    larger = first if first[5] >= second[5] else second
    return (
        first[0], first[1] or second[1], larger[2], min(first[3], second[3]),
        max(first[4], second[4]), first[5] + second[5], first[6] + second[6],
        first[7] + second[7], first[8] + second[8], first[9] + second[9], second[10],
    )  # fmt: skip
