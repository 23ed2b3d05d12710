"""What the engine answers: the decision about one record, and the totals over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from lipservice.patterns import Cell


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

    def __str__(self) -> str:
        why = _REASONS.get(self.rule, self.rule).format(rate=f"{self.rate:.4g}")
        lines = [
            f"{self.severity} {self.template}",
            f"signature {self.signature}, policy {self.policy or 'none'}",
            why + ("; shadow mode: nothing is dropped" if self.shadow else ""),
            f"seen {self.seen:,} times in this process, kept {self.kept:,}",
        ]
        return "\n".join(lines)


_REASONS: Final = {
    "error": "always kept: ERROR and above are",
    "protected": "always kept: the template holds one of the policy's words",
    "first": "kept: among the first records of its pattern",
    "boosted": "kept: full fidelity is on for it",
    "rate": "kept with probability {rate}",
}


@dataclass(frozen=True, slots=True)
class Totals:
    """
    What happened to all records of a process.

    `seen == kept + dropped + capped`, where in shadow mode `shadowed` of the dropped and capped
    were let pass all the same.
    """

    seen: int = 0
    kept: int = 0
    #: Dropped by a rate.
    dropped: int = 0
    #: Dropped by `max_logs_per_minute`.
    capped: int = 0
    #: Would have been dropped, were it not for shadow mode.
    shadowed: int = 0
