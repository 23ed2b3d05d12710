"""
Counts for people, out of the engine's cells and rows: totals, the ledger, pattern statistics; and
which pattern a message belongs to. Nothing here decides or changes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Final

from lipservice.decision import LedgerEntry, Totals
from lipservice.fitting import most_literal
from lipservice.patterns import (
    HOLDING,
    OVERFLOW_SIGNATURE,
    OVERFLOW_TEMPLATE,
    Cell,
    PatternStats,
    Row,
    Terms,
    counts_of,
    rows_of,
    running_of,
)
from lipservice.signature import template_of_key


class Sums:
    """Adds up cells and rows to `Totals`."""

    __slots__ = ("capped", "held", "kept", "released", "seen", "shadowed")

    def __init__(self) -> None:
        self.seen = self.kept = self.capped = self.shadowed = self.held = self.released = 0

    def add_cells(self, cells: Iterable[Cell]) -> None:
        """Under the engine's lock, as everything here that looks at cells."""
        for cell in cells:
            seen, kept = counts_of(cell)
            self.seen += seen
            self.kept += kept
            if cell.terms.shadow:
                running_seen, running_kept = running_of(cell, seen, kept)
                self.shadowed += running_seen - running_kept
            for row in cell.rows:
                self._add_what_counts_besides(row)

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Rows of patterns that have left the table."""
        for row in rows:
            self.seen += row.seen
            self.kept += row.kept
            self._add_what_counts_besides(row)

    def _add_what_counts_besides(self, row: Row) -> None:
        self.held += row.held
        self.released += row.released
        if row.terms.rule == "limit":
            self.capped += row.gone()
        if row.terms.shadow:
            self.shadowed += row.gone()

    def totals(self, doubtful: int) -> Totals:
        """The sums, with so many records in doubt."""
        kept = self.kept + self.released
        return Totals(
            seen=self.seen + doubtful,
            kept=kept + doubtful,
            dropped=self.seen - kept - self.capped - self.held,
            capped=self.capped,
            shadowed=self.shadowed,
            held=self.held,
            released=self.released,
        )


class LedgerSums:
    """
    Adds up rows to entries of the ledger.

    Args:
        patterns: Whether patterns are told apart.
    """

    __slots__ = ("_patterns", "_sums", "_templates")

    def __init__(self, *, patterns: bool) -> None:
        self._patterns = patterns
        #: Signature, severity, policy and rule -> seen, kept, dropped, held, released, shadowed.
        self._sums: dict[tuple[str, str, str | None, str], list[int]] = {}
        self._templates = {"": "", _EVICTED: "<evicted>"}

    def add_cell(self, cell: Cell) -> None:
        """All that a pattern at one severity has counted."""
        if self._patterns:
            self._templates[cell.signature] = template_of(cell)
        for row in rows_of(cell):
            self._add(cell.signature, cell.table.severity, row)

    def add_departed(self, rows: Mapping[tuple[str, Terms], Row]) -> None:
        """What patterns had counted that have left the table, by severity and terms."""
        for (severity, _), row in list(rows.items()):
            self._add(_EVICTED, severity, row)

    def add_doubtful(self, policy: str | None, records: int) -> None:
        """Records that could not be decided, and were kept."""
        if records:
            self._add("", "UNKNOWN", Row(Terms(policy, "doubt"), records, records))

    def entries(self) -> list[LedgerEntry]:
        """The sums."""
        return [
            LedgerEntry(signature, self._templates[signature], severity, policy, rule, *counts)
            for (signature, severity, policy, rule), counts in self._sums.items()
        ]

    def _add(self, signature: str, severity: str, row: Row) -> None:
        rule, counts = _counted(row)
        key = (signature if self._patterns else "", severity, row.terms.policy, rule)
        known = self._sums.get(key)
        if known is not None:
            counts = [a + b for a, b in zip(known, counts, strict=True)]
        self._sums[key] = counts


def template_of(cell: Cell) -> str:
    """The template as people see it."""
    overflow = cell.signature == OVERFLOW_SIGNATURE
    return OVERFLOW_TEMPLATE if overflow else template_of_key(cell.key)


def fitting(cells: Iterable[Cell], key: bytes) -> Cell | None:
    """Of the cells whose keys fit *key*, with anything for their variables, the most literal."""
    found = most_literal(((cell, cell.key) for cell in cells), key)
    return found[0] if found else None


def entry_of(signature: str, template: str, severity: str, row: Row) -> LedgerEntry:
    """One row as an entry of the ledger."""
    rule, counts = _counted(row)
    return LedgerEntry(signature, template, severity, row.terms.policy, rule, *counts)


def _counted(row: Row) -> tuple[str, list[int]]:
    """The rule as it is told; then seen, kept, dropped, held, released, shadowed."""
    if row.is_open:
        with HOLDING.lock:  # a record that is released is not held any more
            held, released = row.held, row.released
    else:
        held = released = 0
    seen, rule, shadowed = row.seen, row.terms.rule, 0
    dropped = seen - row.kept - held - released
    if row.terms.shadow and rule in _DROPPING:
        rule, shadowed, dropped = "shadow", dropped, 0
    return rule, [seen, seen - held - dropped, dropped, held, released, shadowed]


#: Rules that drop; in shadow mode they are all one.
_DROPPING: Final = frozenset({"rate", "request", "limit"})
_EVICTED: Final = "evicted"


def stats_of(cell: Cell, count: int, kept: int, wall: float) -> PatternStats:
    """
    So many records of a pattern, of which so many were kept.

    *wall* is what makes a time of day out of monotonic seconds.
    """
    return PatternStats(
        signature=cell.signature,
        template=template_of(cell),
        count=count,
        kept=kept,
        bytes=round(count * cell.mean_size()),
        severity_distribution=MappingProxyType({cell.table.severity: count}),
        first_seen=utc(cell.first_seen + wall),
        last_seen=utc(cell.last_seen + wall),
        sampling_rate=cell.rate,
    )


def utc(seconds: float) -> datetime:
    """Seconds since the epoch as an aware time."""
    return datetime.fromtimestamp(seconds, timezone.utc)


def merged(entries: Iterable[PatternStats]) -> dict[str, PatternStats]:
    """One entry a signature; the rate shown is the lowest of its severities."""
    by_signature: dict[str, PatternStats] = {}
    for entry in entries:
        known = by_signature.get(entry.signature)
        by_signature[entry.signature] = entry if known is None else joined(known, entry)
    return by_signature


def joined(a: PatternStats, b: PatternStats) -> PatternStats:
    """Two entries of one signature as one."""
    severities = dict(a.severity_distribution)
    for severity, count in b.severity_distribution.items():
        severities[severity] = severities.get(severity, 0) + count
    return PatternStats(
        signature=a.signature,
        template=a.template,
        count=a.count + b.count,
        kept=a.kept + b.kept,
        bytes=a.bytes + b.bytes,
        severity_distribution=MappingProxyType(severities),
        first_seen=min(a.first_seen, b.first_seen),
        last_seen=max(a.last_seen, b.last_seen),
        sampling_rate=min(a.sampling_rate, b.sampling_rate),
    )
