"""
From the ledger to counters that never fall. No framework is known here.

The ledger moves counts: those of a policy become "earlier" after three more, those of a pattern
become "evicted" when it leaves the table. As counters these moves would be falls, and rises that
never happened. So what is exported is booked: each record once, under the label it has when it is
first seen, for good. A label that has left the ledger is exported no more, and what it had is told
as "ended". For each group (outcome, rule, severity), whatever the ledger moves,

    sum of the exported + ended == the ledger's sum.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from lipservice._complaints import Complaints
from lipservice._fork import on_fork, reset_if_forked
from lipservice.exceptions import ConfigurationError
from lipservice.patterns import EARLIER
from lipservice.sampler import AdaptiveSampler, samplers

if TYPE_CHECKING:
    from lipservice.decision import LedgerEntry
    from lipservice.export.losses import Loss

#: The signature under which the ledger sums up what has left the table.
EVICTED: Final = "evicted"
#: The label of policies and patterns beyond a bound on labels.
OTHER: Final = "other"
#: The label for "no policy".
NONE: Final = "none"
#: Characters of a label; as many as a policy's id from a server may have.
_LONGEST_LABEL: Final = 200
#: Labels that have ended and whose amounts are remembered, should they come back.
_MOST_ENDED: Final = 50_000

_Group = TypeVar("_Group", bound=Hashable)
#: group -> part -> amount.
_Amounts = Mapping[_Group, Mapping[str, int]]


class Records(NamedTuple):
    """Whose records and what became of them."""

    outcome: str
    rule: str
    severity: str
    policy: str
    service: str


class BySeverity(NamedTuple):
    """Whose records."""

    severity: str
    service: str


class Ended(NamedTuple):
    """As `Records`, of all policies that have no counter any more."""

    outcome: str
    rule: str
    severity: str
    service: str


class PatternRecords(NamedTuple):
    """What became of the records of a pattern."""

    signature: str
    severity: str
    outcome: str


class Lost(NamedTuple):
    """What exporters lost."""

    reason: str
    severity: str


class PatternLost(NamedTuple):
    """What exporters lost of a pattern."""

    signature: str
    severity: str
    reason: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All values at one look."""

    #: Everything that came; never falls.
    seen: Mapping[BySeverity, int] = field(default_factory=dict)
    #: Outcomes "kept" (with those released) and "dropped"; never fall.
    records: Mapping[Records, int] = field(default_factory=dict)
    #: Of those kept: dropped at first, released because their request failed; never fall.
    released: Mapping[Records, int] = field(default_factory=dict)
    #: Of those kept: only because of shadow mode; never fall.
    shadowed: Mapping[Records, int] = field(default_factory=dict)
    held: Mapping[BySeverity, int] = field(default_factory=dict)
    ended: Mapping[Ended, int] = field(default_factory=dict)
    #: Empty unless asked for; never fall.
    patterns: Mapping[PatternRecords, int] = field(default_factory=dict)
    #: Never fall.
    lost: Mapping[Lost, int] = field(default_factory=dict)
    #: Empty unless asked for; never fall.
    patterns_lost: Mapping[PatternLost, int] = field(default_factory=dict)


class _Book(Generic[_Group]):
    """
    What was booked of one sampler.

    Args:
        rest: The part that the ledger moves others' amounts to.
    """

    def __init__(self, rest: str) -> None:
        self._rest = rest
        self._sums: dict[_Group, int] = {}
        self.parts: dict[_Group, dict[str, int]] = {}

    def book(self, amounts: _Amounts[_Group], ended: Counter[tuple[_Group, str]]) -> None:
        """
        Book what has been added since the last time.

        Args:
            amounts: The ledger's.
            ended: Where to put what was booked for parts that are not in the ledger any more.
        """
        for group in dict.fromkeys((*amounts, *self.parts)):  # in the ledger's order
            now = amounts.get(group, {})
            parts = self.parts.setdefault(group, {})
            for part in [part for part in parts if part not in now and part != self._rest]:
                ended[group, part] += parts.pop(part)
            self._book_group(group, now, parts)

    def _book_group(self, group: _Group, now: Mapping[str, int], parts: dict[str, int]) -> None:
        booked = self._sums.get(group, 0)
        # Never more than has come: so whatever the ledger moves, the sum stays the ledger's.
        left = max(0, sum(now.values()) - booked)
        self._sums[group] = booked + left
        for part, amount in now.items():
            if part != self._rest:
                known = parts.get(part, 0)
                grown = min(left, max(0, amount - known))
                parts[part] = known + grown
                left -= grown
        if left or self._rest in now:  # what came to the rest, or was moved between two looks
            parts[self._rest] = parts.get(self._rest, 0) + left

    def close(self, ended: Counter[tuple[_Group, str]]) -> None:
        """The sampler is gone."""
        for group, parts in self.parts.items():
            for part, amount in parts.items():
                ended[group, part] += amount


#: The outcome of everything, whatever policy and rule.
_SEEN: Final = "seen"
#: (outcome, rule, severity, service) and, as the part, the policy.
_ByPolicy = tuple[str, str, str, str]
#: (severity, outcome) and, as the part, the signature.
_BySignature = tuple[str, str]


class _Books:
    """Those of one sampler."""

    def __init__(self) -> None:
        self.by_policy: _Book[_ByPolicy] = _Book(EARLIER)
        self.by_signature: _Book[_BySignature] = _Book(EVICTED)


class _Labels:
    """
    At most so many labels in the life of a process; what comes later is "other".

    OpenTelemetry's SDK remembers each attribute set that it ever saw, and puts those beyond its
    bound (2,000 by default) into one without attributes.
    """

    def __init__(self, most: int | None) -> None:
        self._given: set[str] = {EARLIER, EVICTED, NONE, OTHER, ""}
        self._free = most

    def of(self, part: str) -> str:
        """The label of *part*, the same every time."""
        if self._free is None or part in self._given:
            return part
        if self._free <= 0:
            return OTHER
        self._free -= 1
        self._given.add(part)
        return part


class Accounts:
    """
    Counters of one sampler, or of all samplers of the process. Thread- and fork-safe.

    A sampler is held weakly. In a forked child everything begins at zero, as the ledger does.

    Args:
        sampler: Whose; None: of all samplers that are there when it is asked.
        most_policies: Policies with a label of their own; None: no bound.
        most_patterns: Patterns with a label of their own; None: no bound.

    Raises:
        ConfigurationError: *sampler* is none.
    """

    def __init__(
        self,
        sampler: AdaptiveSampler | None = None,
        *,
        most_policies: int | None = None,
        most_patterns: int | None = None,
    ) -> None:
        if sampler is not None and not isinstance(sampler, AdaptiveSampler):
            raise ConfigurationError(f"sampler is an AdaptiveSampler, not {sampler!r:.80}")
        self._only = None if sampler is None else weakref.ref(sampler)
        self._most = most_policies, most_patterns
        self._complaints = Complaints()
        self._reset_after_fork()
        on_fork(self)

    def _reset_after_fork(self) -> None:
        self._lock = threading.RLock()
        self._books: dict[weakref.ref[AdaptiveSampler], _Books] = {}
        self._ended_policies: Counter[tuple[_ByPolicy, str]] = Counter()
        self._ended_patterns: Counter[tuple[_BySignature, str]] = Counter()
        self._forgotten: Counter[_ByPolicy] = Counter()
        self._policies, self._patterns = map(_Labels, self._most)
        self._last = Snapshot()

    def are_of(self, sampler: AdaptiveSampler | None) -> bool:
        """Whether these are the accounts of *sampler* (None: of all)."""
        return sampler is (None if self._only is None else self._only())

    def snapshot(self, *, patterns: bool) -> Snapshot:
        """
        All values as of now; the last ones if they cannot be had. Never raises.

        Args:
            patterns: Whether those of single patterns are wanted; takes about 10 us a pattern.
        """
        try:
            reset_if_forked()
            with self._lock:
                self._last = self._look(patterns=patterns)
        except Exception as error:
            self._complaints.warn("metrics", f"metrics are as of the last look: {error!r}")
        return self._last

    def _look(self, *, patterns: bool) -> Snapshot:
        held: Counter[BySeverity] = Counter()
        self._close_books()
        for sampler in self._samplers():
            books = self._books.setdefault(weakref.ref(sampler), _Books())
            entries = sampler.ledger(patterns=patterns)
            service = _service_of(sampler)
            books.by_policy.book(_by_policy(entries, service), self._ended_policies)
            if patterns:
                books.by_signature.book(_by_signature(entries), self._ended_patterns)
            for entry in entries:
                held[BySeverity(entry.severity, service)] += entry.held
        records = _added_up(
            (books.by_policy for books in self._books.values()),
            self._ended_policies,
            self._policies,
        )
        losses = _process_losses()
        snapshot = Snapshot(
            seen=_seen(records),
            records=_of(records, "kept", "dropped"),
            released=_of(records, "released"),
            shadowed=_of(records, "shadowed"),
            held=held,
            ended=self._ended(),
            patterns=self._pattern_records() if patterns else {},
            lost=_lost(losses),
            patterns_lost=_patterns_lost(losses) if patterns else {},
        )
        self._forget_some()
        return snapshot

    def _samplers(self) -> list[AdaptiveSampler]:
        if self._only is None:
            return samplers()
        sampler = self._only()
        return [] if sampler is None else [sampler]

    def _close_books(self) -> None:
        for ref in [ref for ref in self._books if ref() is None]:
            books = self._books.pop(ref)
            books.by_policy.close(self._ended_policies)
            books.by_signature.close(self._ended_patterns)

    def _pattern_records(self) -> dict[PatternRecords, int]:
        books = (books.by_signature for books in self._books.values())
        added = _added_up(books, self._ended_patterns, self._patterns)
        return {
            PatternRecords(signature, severity, outcome): amount
            for ((severity, outcome), signature), amount in added.items()
        }

    def _ended(self) -> dict[Ended, int]:
        """What is in no counter that is exported."""
        told = {
            (group, self._policies.of(part))
            for books in self._books.values()
            for group, parts in books.by_policy.parts.items()
            for part in parts
        }
        ended = Counter(self._forgotten)
        for (group, part), amount in self._ended_policies.items():
            if (group, self._policies.of(part)) not in told:
                ended[group] += amount
        return {
            Ended(*group): amount
            for group, amount in ended.items()
            if group[0] in {"kept", "dropped"}
        }

    def _forget_some(self) -> None:
        """Bound what is remembered; a label of long ago that comes back begins at zero."""
        while len(self._ended_policies) > _MOST_ENDED:
            key = next(iter(self._ended_policies))
            self._forgotten[key[0]] += self._ended_policies.pop(key)
        while len(self._ended_patterns) > _MOST_ENDED:
            self._ended_patterns.pop(next(iter(self._ended_patterns)))


def _by_policy(entries: Iterable[LedgerEntry], service: str) -> dict[_ByPolicy, dict[str, int]]:
    amounts: dict[_ByPolicy, dict[str, int]] = {}
    for entry in entries:
        parts = amounts.setdefault((_SEEN, "", entry.severity, service), {})
        parts[""] = parts.get("", 0) + entry.seen
        # The ledger keeps no policy with what is in doubt, it tells the one in force.
        unknown = entry.policy is None or entry.rule == "doubt"
        policy = NONE if unknown else _label(entry.policy)
        for outcome in ("kept", "dropped", "released", "shadowed"):
            amount = getattr(entry, outcome)
            if amount:
                parts = amounts.setdefault((outcome, entry.rule, entry.severity, service), {})
                parts[policy] = parts.get(policy, 0) + amount
    return amounts


def _by_signature(entries: Iterable[LedgerEntry]) -> dict[_BySignature, dict[str, int]]:
    amounts: dict[_BySignature, dict[str, int]] = {}
    for entry in entries:
        for outcome, amount in (("kept", entry.kept), ("dropped", entry.dropped)):
            if amount:
                parts = amounts.setdefault((entry.severity, outcome), {})
                parts[entry.signature] = parts.get(entry.signature, 0) + amount
    return amounts


def _added_up(
    books: Iterable[_Book[_Group]], ended: Mapping[tuple[_Group, str], int], labels: _Labels
) -> dict[tuple[_Group, str], int]:
    """What is in the books by label, with what the same labels had before."""
    sums: dict[tuple[_Group, str], int] = {}
    for book in books:
        for group, parts in book.parts.items():
            for part, amount in parts.items():
                key = (group, labels.of(part))
                sums[key] = sums.get(key, 0) + amount
    for (group, part), amount in ended.items():
        key = (group, labels.of(part))
        if key in sums:
            sums[key] += amount
    return sums


def _of(records: Mapping[tuple[_ByPolicy, str], int], *outcomes: str) -> dict[Records, int]:
    return {
        Records(outcome, rule, severity, policy, service): amount
        for ((outcome, rule, severity, service), policy), amount in records.items()
        if outcome in outcomes
    }


def _seen(records: Mapping[tuple[_ByPolicy, str], int]) -> dict[BySeverity, int]:
    return {
        BySeverity(severity, service): amount
        for ((outcome, _, severity, service), _), amount in records.items()
        if outcome == _SEEN
    }


def _service_of(sampler: AdaptiveSampler) -> str:
    return _label(getattr(sampler, "service_name", None) or "")


def _label(name: object) -> str:
    """
    A name from settings or a policy as a label.

    A lone surrogate in it would make the whole text of a scrape, or of an export, unwritable.
    """
    return str(name)[:_LONGEST_LABEL].encode("utf-8", "replace").decode("utf-8")


# ---------------------------------------------------------------------- losses


def _process_losses() -> Mapping[Loss, int]:
    """Without an exporter nothing of the export is loaded."""
    module = sys.modules.get("lipservice.export.losses")
    find: Callable[[], Mapping[Loss, int]] | None = getattr(module, "process_losses", None)
    return find() if find is not None else {}


def _lost(losses: Mapping[Loss, int]) -> Counter[Lost]:
    sums: Counter[Lost] = Counter()
    for loss, records in losses.items():
        sums[Lost(loss.reason, loss.severity)] += records
    return sums


def _patterns_lost(losses: Mapping[Loss, int]) -> Counter[PatternLost]:
    sums: Counter[PatternLost] = Counter()
    for loss, records in losses.items():
        sums[PatternLost(loss.signature, loss.severity, loss.reason)] += records
    return sums


# ---------------------------------------------------------------------- shared ones

_of_all: Final[list[Accounts]] = []
_of_one: Final[weakref.WeakKeyDictionary[AdaptiveSampler, Accounts]] = weakref.WeakKeyDictionary()


def shared_accounts(sampler: AdaptiveSampler | None) -> Accounts:
    """
    The accounts of *sampler* (None: of all), without a bound on labels; the same every time.

    Raises:
        ConfigurationError: *sampler* is none.
    """
    with contextlib.suppress(TypeError):  # not hashable, hence no sampler: refused below
        accounts = _of_one.get(sampler) if sampler is not None else next(iter(_of_all), None)
        if accounts is not None:
            return accounts
    made = Accounts(sampler)
    if sampler is None:
        _of_all.append(made)
        return _of_all[0]
    return _of_one.setdefault(sampler, made)
