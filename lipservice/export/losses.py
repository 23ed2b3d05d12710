"""
What an exporter lost, and whose it was: by signature, severity, policy, rule and reason. Exact.

A loss in the worker's hands is rare, so there the records are read again: the OTLP bytes of a batch
hold their signature, policy and rule. What a full queue drops, and what comes after `stop`, is
lost in the application's calls, where only its severity is counted (`Tallies`): one C call each.
"""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from lipservice._fork import on_fork, reset_if_forked
from lipservice.export.capture import Entry
from lipservice.export.lanes import UNKNOWN_SEVERITY, Tallies, severity_of_number
from lipservice.export.otlp import Item, whose

#: The signature of losses beyond the bound.
OTHER: Final = "other"
#: What a sampler stamps: 16 hex digits, or `patterns.OVERFLOW_SIGNATURE`.
_SIGNATURE: Final = re.compile("[0-9a-f]{16}|overflow")
#: Losses told apart; the rest is counted under "other", by severity and reason.
_MOST: Final = 2000


class Loss(NamedTuple):
    """Whose records were lost and why."""

    #: 16 hex digits, or "overflow"; "" where it is not known (a full queue, a record that carried
    #: none), "other" beyond what is told apart.
    signature: str
    #: Canonical name, or "UNKNOWN".
    severity: str
    #: Version (or id) of the policy that kept the record; None: none, or not known.
    policy: str | None
    #: The rule that kept it; "" where it is not known.
    rule: str
    #: As in `health()["dropped"]`.
    reason: str


class Losses:
    """
    The losses of one exporter. Thread-safe.

    `sum` of its counts by reason is what `health()["dropped"]` says: there is no other account.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """From zero, in a forked child too."""
        #: Dropped by a full queue, in the application's calls.
        self.overflowed = Tallies()
        #: Came after `stop`.
        self.late = Tallies()
        #: Could not be read by an adapter.
        self.missed = Tallies()
        self._lock = threading.RLock()
        self._counts: dict[Loss, int] = {}

    def add(self, losses: Mapping[Loss, int]) -> None:
        """Count what was lost in the worker's hands."""
        with self._lock:
            for loss, records in losses.items():
                known = loss in self._counts or len(self._counts) < _MOST
                key = loss if known else Loss(OTHER, loss.severity, None, "", loss.reason)
                self._counts[key] = self._counts.get(key, 0) + records

    def never_taken(self) -> dict[Loss, int]:
        """What was lost in the application's calls, by severity."""
        tallies = {"overflow": self.overflowed, "stopped": self.late, "internal": self.missed}
        return {
            Loss("", severity, None, "", reason): records
            for reason, tally in tallies.items()
            for severity, records in tally.by_severity().items()
            if records
        }

    def counts(self, never_taken: Mapping[Loss, int] | None = None) -> dict[Loss, int]:
        """
        Everything, exact.

        Args:
            never_taken: As of `never_taken()` a moment ago; default: as of now.
        """
        counts = Counter(self.never_taken() if never_taken is None else never_taken)
        with self._lock:
            counts.update(self._counts)
        return dict(counts)

    def is_empty(self) -> bool:
        """Whether nothing was lost."""
        return not self.counts()


def by_reason(counts: Mapping[Loss, int]) -> dict[str, int]:
    """Sums of *counts* by reason."""
    sums: dict[str, int] = {}
    for loss, records in counts.items():
        sums[loss.reason] = sums.get(loss.reason, 0) + records
    return sums


def of_items(reason: str, items: Iterable[Item]) -> Counter[Loss]:
    """Encoded records, each under its own signature."""
    return Counter(_loss(reason, *whose(item)) for _, item in items)


def of_entries(reason: str, entries: Iterable[Entry]) -> Counter[Loss]:
    """Records that were not encoded, perhaps because they cannot be."""
    return Counter(_loss(reason, *_whose_entry(entry)) for entry in entries)


def unknown(reason: str, records: int) -> Counter[Loss]:
    """Records of which nothing is known."""
    return Counter({Loss("", UNKNOWN_SEVERITY, None, "", reason): records} if records > 0 else {})


def _loss(reason: str, number: int, signature: str, policy: str | None, rule: str) -> Loss:
    # Anybody may give a record an attribute of this name; metrics tell no value of anybody.
    known = signature if _SIGNATURE.fullmatch(signature) else ""
    return Loss(known, severity_of_number(number), policy, rule, reason)


def _whose_entry(entry: Entry) -> tuple[int, str, str | None, str]:
    try:
        attributes = entry[7]
        fields = dict(zip(attributes[::2], attributes[1::2], strict=False))
        policy = fields.get("lipservice_policy")
        return (
            int(entry[1]),
            str(fields.get("lipservice_signature") or ""),
            None if policy is None else str(policy),
            str(fields.get("lipservice_rule") or ""),
        )
    except Exception:  # whatever kept it from being encoded
        return 0, "", None, ""


# ---------------------------------------------------------------------- all of the process


class _Process:
    """The losses of all exporters of this process, of those that are gone too."""

    def __init__(self) -> None:
        self._reset_after_fork()
        self.living: dict[int, Losses] = {}
        on_fork(self)

    def _reset_after_fork(self) -> None:  # the living reset themselves
        self.lock = threading.RLock()
        self.ended: deque[Losses] = deque()
        self.gone: Counter[Loss] = Counter()

    def forget(self, key: int) -> None:
        """An exporter was collected: called by the garbage collector, hence without a lock."""
        losses = self.living.get(key)
        if losses is not None:
            self.ended.append(losses)  # first: whoever reads now finds it twice, not nowhere
            self.living.pop(key, None)

    def counts(self) -> dict[Loss, int]:
        """Everything that was lost in this process, exact; never falls."""
        reset_if_forked()
        with self.lock:
            living = list(self.living.values())
            while self.ended:
                losses = self.ended.popleft()
                living = [each for each in living if each is not losses]
                self.gone.update(losses.counts())
            sums = Counter(self.gone)
            for losses in living:
                sums.update(losses.counts())
            return dict(sums)


_process: Final = _Process()


def register(key: int, losses: Losses) -> None:
    """Count *losses* among those of the process, as those of the exporter *key*."""
    _process.living[key] = losses


def forget(key: int) -> None:
    """The exporter *key* is gone; what it lost stays lost."""
    _process.forget(key)


def process_losses() -> dict[Loss, int]:
    """
    What all exporters of this process have lost, those that are gone among them.

    Exact; no count ever falls; from zero in a forked child. Thread-safe.
    """
    return _process.counts()
