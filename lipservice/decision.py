"""What the engine answers: the decision about one record, the ledger, and the totals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple, final

if TYPE_CHECKING:
    from lipservice.patterns import Cell, Row
    from lipservice.scope import RequestScope


class Decision(NamedTuple):
    """
    Why and with which weight a record is kept. Immutable.

    A named tuple, because one is made for each record that a rate keeps.
    """

    #: 16 hex digits that name the pattern; "" if it could not be computed.
    signature: str
    #: Probability with which this record was kept, above 0, at most 1.
    rate: float
    #: 1/rate: how many records this one stands for.
    weight: float
    #: "error", "protected", "first", "boosted", "rate", "request" (a rate, decided by the request's
    #: random number), "shadow", "reentered" or "doubt"; on released records "released".
    rule: str
    #: Version (or id) of the policy that was in force; None if there was none.
    policy: str | None = None
    #: The cell that would like to know the record's size, or None.
    unmeasured: Cell | None = None


@final
class Dropped(NamedTuple):
    """A record of a request that was dropped; it may be held and released later."""

    #: 16 hex digits that name the pattern.
    signature: str
    #: Probability with which it would have been kept, 0 to 1.
    rate: float
    #: Version (or id) of the policy that was in force; None if there was none.
    policy: str | None
    #: Where the ledger counts what becomes of it.
    row: Row
    #: The request that may hold it.
    scope: RequestScope


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """
    What became of the records of one pattern, severity, policy and rule: exact.

    `seen == kept + dropped + held`, always.
    """

    #: 16 hex digits, "overflow" (patterns beyond the table), "evicted" (patterns that have left
    #: it), or "" (all patterns together, or a record in doubt).
    signature: str
    #: The pattern's template; "" where there is none.
    template: str
    #: Canonical name; "UNKNOWN" for a record in doubt.
    severity: str
    #: Version (or id) of the policy that decided, None for none, "earlier" for those of long ago.
    policy: str | None
    #: What decided: as `Decision.rule`, and "limit" for what `max_logs_per_minute` dropped.
    rule: str
    #: Records that came.
    seen: int
    #: Records that were handed on, released ones included.
    kept: int
    #: Records that are gone.
    dropped: int
    #: Records that an unfinished request holds.
    held: int = 0
    #: Of those kept: dropped at first, and released because their request failed.
    released: int = 0
    #: Of those kept: would have been dropped, were it not for shadow mode.
    shadowed: int = 0


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a record now, and what happened to its pattern so far."""

    #: 16 hex digits that name the pattern, or "overflow".
    signature: str
    template: str
    severity: str
    #: The rule that decides, as in `Decision.rule`.
    rule: str
    #: The probability of being kept, 0 to 1, before `max_logs_per_minute`.
    rate: float
    #: Version (or id) of the policy in force; None if there is none.
    policy: str | None
    #: Whether nothing is dropped because of shadow mode.
    shadow: bool
    #: Records of the pattern at this severity in this process.
    seen: int
    kept: int
    #: When the last one came, to the resolution of the background work (aware, UTC); None: never.
    last_seen: datetime | None = None
    #: Records a minute lately (an average that halves what is seven minutes old).
    per_minute: float = 0.0
    #: What became of them, by policy and rule, the latest policy last.
    ledger: tuple[LedgerEntry, ...] = ()

    def __str__(self) -> str:
        why = _REASONS.get(self.rule, self.rule).format(rate=f"{self.rate:.4g}")
        lines = [
            f"{self.severity} {self.template}",
            f"signature {self.signature}, policy {self.policy or 'none'}",
            why + ("; shadow mode: nothing is dropped" if self.shadow else ""),
            *(_told(entry) for entry in self.ledger),
            f"seen {self.seen:,} times in this process, kept {self.kept:,}{self._lately()}",
        ]
        return "\n".join(lines)

    def _lately(self) -> str:
        if self.last_seen is None:
            return ""
        return (
            f"; lately about {_few_digits(self.per_minute)} a minute,"
            f" the last at {self.last_seen:%Y-%m-%d %H:%M:%S} UTC"
        )


def _few_digits(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.2g}"


def _told(entry: LedgerEntry) -> str:
    parts = [f"kept {entry.kept:,}"]
    for name in ("dropped", "held", "released", "shadowed"):
        number = getattr(entry, name)
        if number:
            parts.append(f"{_WORDS.get(name, name)} {number:,}")
    return f"by policy {entry.policy or 'none'}, rule {entry.rule}: {', '.join(parts)}"


_WORDS: Final = {
    "held": "holding",
    "released": "of these released",
    "shadowed": "of these only for shadow mode",
}

_REASONS: Final = {
    "error": "always kept: ERROR and above are",
    "protected": "always kept: it holds one of the policy's words, or was protected by hand",
    "first": "kept: among the first records of its pattern",
    "boosted": "kept: full fidelity is on for it",
    "rate": "kept with probability {rate}",
}


@dataclass(frozen=True, slots=True)
class Totals:
    """
    What happened to all records of a process.

    `seen == kept + dropped + capped + held`, where in shadow mode `shadowed` of the dropped and
    capped were let pass all the same.
    """

    seen: int = 0
    #: Handed on, released ones included.
    kept: int = 0
    #: Dropped by a rate.
    dropped: int = 0
    #: Dropped by `max_logs_per_minute`.
    capped: int = 0
    #: Would have been dropped, were it not for shadow mode.
    shadowed: int = 0
    #: Held by requests that have not ended.
    held: int = 0
    #: Of those kept: dropped at first, and released because their request failed.
    released: int = 0
