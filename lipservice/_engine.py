"""
The decision: pattern -> count -> keep or drop. Synchronous, in the caller's thread, no I/O.

The way of a record through this module, top to bottom: `decide_message` or `decide_format` (the
hot path: find the cell, count down), `_find_*` (a text that was not met before), `_settle` (the
slow path under the lock: first records, the end of a gap), `_judge` (the rules), `_arm` (draw the
next gap). `apply_policy`, `tick` and `drain` are for the background thread.

How a gap decides: with rate *p*, the number of records dropped between two kept ones is geometric,
`floor(ln U / ln(1 - p))`. Counting down such a number decides exactly as an independent draw for
each record would, for the price of one subtraction.

Threads: the hot path takes no lock; see the invariants in `lipservice.patterns`. Everything else
runs under one re-entrant lock, held for microseconds. Code that the interpreter runs *inside* our
critical section on the same thread (a signal handler, a finaliser that logs) finds `_busy` set and
takes `_settle_reentered`, which only adds.
"""

from __future__ import annotations

import functools
import math
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from lipservice import _anomaly
from lipservice._fork import on_fork, reset_if_forked
from lipservice._ledger import (
    LedgerSums,
    Sums,
    entry_of,
    fitting,
    joined,
    merged,
    stats_of,
    template_of,
    utc,
)
from lipservice._throttle import MinuteWindow
from lipservice.call_sites import has_waiting
from lipservice.decision import Decision, Dropped, Explanation, LedgerEntry, Totals
from lipservice.exceptions import ConfigurationError
from lipservice.fitting import REPLACED_AFTER
from lipservice.patterns import (
    EARLIER,
    KEEP_ALL,
    MAX_STORED_KEY,
    OVERFLOW_SIGNATURE,
    OVERFLOW_TEMPLATE,
    RETIRED,
    Cell,
    PatternStats,
    Row,
    SeverityTable,
    Terms,
    counts_of,
    memory_of,
    rows_of,
    running_of,
    shadowed_of,
)
from lipservice.policy import Boost, SamplingPolicy
from lipservice.scope import WATCHED
from lipservice.severity import SEVERITIES, is_severity, severity_name
from lipservice.signature import (
    compute_signature,
    fold,
    key_of_folded,
    percent_format_to_message,
    signature_of_key,
    template_of_key,
)

if TYPE_CHECKING:
    from lipservice.call_sites import CallSite
    from lipservice.scope import RequestScope

    Severity = str | int

_Boosts: TypeAlias = tuple[tuple[Boost, float], ...]
_Answer = TypeVar("_Answer")
_Where = TypeVar("_Where")
FindSite: TypeAlias = "Callable[[_Where], CallSite | None]"
#: As `FindSite`, and takes `percent=True` where the text is a format string.
FindEitherSite: TypeAlias = "Callable[..., CallSite | None]"

#: Cells handled per hold of the lock in background work: well under a millisecond.
_BATCH: Final = 64
#: Cells after which others get the lock, about 3 ms, and for how many seconds they may come.
_PAUSE_EVERY: Final = 8 * _BATCH
_PAUSE: Final = 0.0001
#: Records of a pattern that are measured before it may be kept without a look.
_MEASURED_FIRST: Final = 8
#: Below this a rate counts as zero: the gap would outlast the process.
_LEAST_RATE: Final = 1e-12
#: Share of the pattern table at which idle patterns have to go, and the share they go down to.
_CROWDED: Final = 0.9
_RELIEVED: Final = 0.8
#: Seconds that a boost may last.
_LONGEST_BOOST: Final = 24 * 3600.0
#: Boosts of the process itself at one time.
_MAX_BOOSTS: Final = 1000
#: What else the frameworks call severities; other spellings are learnt from their first record.
_SPELLINGS: Final = ("warn", "msg", "exception", "fatal", *range(5, 55, 5))
#: Spellings of severities that are remembered.
_MAX_SPELLINGS: Final = 256
#: Closed rows that cells share.
_MAX_CLOSED: Final = 4096
#: The limit's share that scaled rates aim at; the window guards the rest.
_AIM: Final = 0.9

_HEX_DIGITS: Final = frozenset("0123456789abcdef")
_ZERO: Final = ord("0")  # looked for as a number: CPython is slow to look for bytes in bytes
_getpid: Final = os.getpid
_log: Final = math.log
_new_tuple: Final = tuple.__new__


def _straight_lines_are_atomic() -> bool:
    """Whether `cell.left -= 1` cannot be interrupted: CPython with its GIL, versions we proved."""
    if sys.implementation.name != "cpython" or not (3, 10) <= sys.version_info[:2] <= (3, 13):
        return False
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())


@functools.lru_cache(maxsize=1024)  # so that the cells of one rate share one number
def _steady(rate: float) -> float:
    """Factor from ln(U) to a gap; 0 where no gap is drawn."""
    return 1.0 / math.log1p(-rate) if _LEAST_RATE < rate < 1.0 else 0.0


def _kept_at(cell: Cell, rate: float, terms: Terms) -> Decision:
    # Not Decision(...): that goes through a Python-level __new__, at twice the price. Not
    # cell.rate: by now another thread may have applied another policy.
    return _new_tuple(Decision, (cell.signature, rate, 1.0 / rate, "rate", terms[0], None))


def _requested_at(cell: Cell, rate: float, row: Row) -> Decision:
    unmeasured = cell if cell.sized < 32 or cell.base & 15 == 0 else None
    fields = (cell.signature, rate, 1.0 / rate, "request", row.terms[0], unmeasured)
    return _new_tuple(Decision, fields)


class DecisionEngine:
    """
    Decides about records and counts them. Safe to use from any thread and after a fork.

    Args:
        max_patterns: Patterns (per severity they appear at) that get a count of their own; the
            rest shares one overflow bucket a severity.
        policy: The policy to start with; None keeps everything.
        rng: Source of random numbers.
        clock: Monotonic seconds.
        now: Seconds since the epoch.
        heals: Whether call sites tell the format strings of finished messages.
    """

    def __init__(
        self,
        *,
        max_patterns: int = 10_000,
        policy: SamplingPolicy | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        heals: bool = True,
    ) -> None:
        self._max_patterns = max_patterns
        self._heals = heals
        self._rng = rng if rng is not None else random.Random()
        self._random = self._rng.random
        self._clock = clock
        self._now = now
        self._counts_down = _straight_lines_are_atomic()
        self._policy: SamplingPolicy | None = None
        # Terms of what no rule has been asked about; equal terms are one object, see _terms_of.
        self._in_force = Terms(None, "rate")
        self._terms: dict[Terms, Terms] = {}
        self._by_rule: dict[str, Terms] = {}
        self._closed: dict[tuple[Terms, int, int], tuple[Row, ...]] = {}
        self._recent: tuple[str | None, ...] = (None, EARLIER)
        self._window: MinuteWindow | None = None
        # Each with its end, in monotonic seconds.
        self._own_boosts: _Boosts = ()
        self._policy_boosts: _Boosts = ()
        self._full: frozenset[tuple[str | None, str | None]] = frozenset()
        #: Loggers at full fidelity; their records are decided by `decide_boosted`.
        self.boosted_loggers: frozenset[str] = frozenset()
        self._start_afresh()
        if policy is not None:
            self.apply_policy(policy)
        on_fork(self)

    def _start_afresh(self) -> None:
        """Everything that a process counts on its own, from zero."""
        self._pid = _getpid()
        self._lock = threading.RLock()
        self._busy = False
        now = self._latest = self._clock()
        self._tables = {name: SeverityTable(name, now) for name in SEVERITIES}
        # What the hot path reads: spelling of a severity -> text -> cell.
        self._messages: dict[object, dict[str, Cell]] = {}
        self._formats: dict[object, dict[str, Cell]] = {}
        for spelling in (*SEVERITIES, *map(str.lower, SEVERITIES), *_SPELLINGS):
            self._learn_spelling(spelling, severity_name(spelling))
        self._size = 0
        self._doubtful = 0
        self._reentered: list[Cell] = []
        self._departures = 0
        self._departed: dict[tuple[str, Terms], Row] = {}
        self._undrained: dict[str, PatternStats] = {}
        self._scale = 1.0
        self._boosted: dict[Cell, float] = {}
        self._boost_until = -math.inf
        self._cool_until = -math.inf
        self._started = self._ticked = self._clock()
        self._total_volume = 0.0
        self._error_volume = 0.0
        for table in self._tables.values():
            for cell in (table.overflow, table.overflow_protected):
                self._arm(cell)

    def _learn_spelling(self, spelling: object, severity: str) -> None:
        table = self._tables[severity]
        self._messages[spelling] = table.messages
        self._formats[spelling] = table.formats

    # ------------------------------------------------------------------ the hot path

    def decide_message(self, message: str, severity: Severity) -> Decision | None:
        """
        Decide about a finished message; None: drop it.

        Args:
            message: The message as people would read it.
            severity: A level name in any case, or a level number of `logging`.
        """
        try:
            cell = self._messages[severity].get(message)
            if cell is None:
                cell = self._find_message(message, severity)
            # `left` is read again for each use: between two lines another thread may run.
            if cell.left > 0:
                cell.left -= 1
                return cell.if_dropped
            if cell.left <= KEEP_ALL:
                cell.left -= 1
                return cell.if_kept
            return self._settle(cell, message)
        except Exception as error:
            return self._decide_in_doubt(self.decide_message, message, severity, error)

    def decide_at(
        self,
        message: str,
        severity: Severity,
        find_site: FindSite[_Where],
        where: _Where,
    ) -> Decision | None:
        """
        As `decide_message`, for a message whose call site is known.

        Where the source of the call site tells which format string made the message, that decides
        (`lipservice.call_sites`). A message that is known to the letter needs no look at it.

        Args:
            message: The message as people would read it.
            severity: As of `decide_message`.
            find_site: Finds the call site; called two frames below this method's caller.
            where: What *find_site* needs.
        """
        try:
            cell = self._messages[severity].get(message)
            if cell is None:
                cell = self._find_at(message, severity, find_site, where)
            if cell.left > 0:
                cell.left -= 1
                return cell.if_dropped
            if cell.left <= KEEP_ALL:
                cell.left -= 1
                return cell.if_kept
            return self._settle(cell, message)
        except Exception as error:
            return self._decide_in_doubt(self.decide_message, message, severity, error)

    def decide_format(
        self,
        format_string: str,
        severity: Severity,
        find_site: FindEitherSite | None = None,
        where: Any = None,
    ) -> Decision | None:
        """
        Decide about a %-style format string whose arguments need not be looked at.

        Args:
            format_string: What the record has beside its arguments.
            severity: As of `decide_message`.
            find_site: Finds the call site, which tells whether a variable was put into the format
                string; called as by `decide_at`, and only for a format string that is new.
            where: What *find_site* needs.
        """
        try:
            cell = self._formats[severity].get(format_string)
            if cell is None:
                cell = self._find_format_at(format_string, severity, find_site, where)
            if cell.left > 0:
                cell.left -= 1
                return cell.if_dropped
            if cell.left <= KEEP_ALL:
                cell.left -= 1
                return cell.if_kept
            return self._settle(cell, None)
        except Exception as error:
            return self._decide_in_doubt(self.decide_format, format_string, severity, error)

    def decide_scoped(
        self,
        text: str,
        severity: Severity,
        scope: RequestScope,
        find_site: FindEitherSite | None = None,
        where: Any = None,
        *,
        is_format: bool,
    ) -> Decision | Dropped:
        """
        As `decide_format` or `decide_at`, with the random number of a request.

        Where the request draws there is no countdown: such a record is counted under the lock.
        """
        try:
            cell = (self._formats if is_format else self._messages)[severity].get(text)
            if cell is None and is_format:
                cell = self._find_format_at(text, severity, find_site, where)
            elif cell is None:
                cell = self._find_at(text, severity, find_site, where)
            if cell.left <= KEEP_ALL:
                cell.left -= 1
                return cell.if_kept  # type: ignore[return-value]  # is set while all are kept
            row = cell.requested
            if row is not None and scope.decides(cell):
                rate = cell.rate
                # One line each, as in _settle: who holds the lock has taken `requested` away first.
                if scope.keeps(rate):
                    if cell.requested is row and cell.rate == rate: cell.base += 1; cell.kept += 1; row.seen += 1; row.kept += 1; return _requested_at(cell, rate, row)  # noqa: E501, E701, E702  # fmt: skip
                elif cell.requested is row and cell.rate == rate: cell.base += 1; row.seen += 1; return _new_tuple(Dropped, (cell.signature, rate, row.terms[0], row, scope))  # noqa: E501, E701, E702  # fmt: skip
            return self._settle_scoped(cell, None if is_format else text, scope)
        except Exception as error:
            return self._decide_in_doubt(
                lambda text, severity: self.decide_scoped(
                    text, severity, scope, is_format=is_format
                ),
                text,
                severity,
                error,
            )

    def decide_boosted(
        self,
        text: str,
        severity: Severity,
        find_site: FindEitherSite | None = None,
        where: Any = None,
        *,
        is_format: bool,
    ) -> Decision:
        """
        Keep a record because of the logger that it comes from (`boost(logger=...)`).

        For certain, and known before any draw: its weight is 1.
        """
        try:
            cell = (self._formats if is_format else self._messages)[severity].get(text)
            if cell is None and is_format:
                cell = self._find_format_at(text, severity, find_site, where)
            elif cell is None:
                cell = self._find_at(text, severity, find_site, where)
            return self._settle_boosted(cell)
        except Exception as error:
            return self._decide_in_doubt(
                lambda text, severity: self.decide_boosted(text, severity, is_format=is_format),
                text,
                severity,
                error,
            )

    def should_sample(self, message: str, severity: str) -> bool:
        """
        Whether to keep a record with this message; counts it.

        Args:
            message: The finished message.
            severity: A level name in any case ("INFO", "warn"), or a level number.

        Never raises; in doubt the answer is True. Safe from any thread.
        """
        try:
            cell = self._messages[severity].get(message)
            if cell is None:
                cell = self._find_message(message, severity)
            if cell.left > 0:
                cell.left -= 1
                return cell.if_dropped is not None
            if cell.left <= KEEP_ALL:
                cell.left -= 1
                return True
            steady = cell.steady
            if steady and cell.base & 31:
                gap = int(_log(1.0 - self._random()) * steady)
                # The line of _settle without its Decision: see there why it is one line.
                if cell.left == 0 and cell.steady == steady: cell.kept += 1; cell.base += gap + 1; cell.left = gap; return True  # noqa: E501, E701, E702  # fmt: skip
            return self._settle(cell, message) is not None
        except Exception as error:
            decide = self.decide_message
            return self._decide_in_doubt(decide, message, severity, error) is not None

    def _decide_in_doubt(
        self,
        decide: Callable[[str, Severity], _Answer],
        text: object,
        severity: object,
        error: Exception,
    ) -> _Answer | Decision:
        """Try once more with a severity and a text that the tables know; else keep."""
        try:
            if not isinstance(severity, (str, int)):
                return decide(cast("str", text), severity_name(severity))
            if isinstance(error, KeyError) and severity not in self._tables:  # no canonical name
                name = severity_name(severity)
                if len(self._messages) < _MAX_SPELLINGS:
                    self._learn_spelling(severity, name)
                return decide(cast("str", text), name)
            if not isinstance(text, str):
                return decide(str(text), severity)
        except Exception:  # noqa: S110 - whatever the application's objects do, it is not told
            pass
        self._doubtful += 1
        return Decision("", 1.0, 1.0, "doubt", self._in_force.policy)

    def _settle_scoped(
        self, cell: Cell, message: str | None, scope: RequestScope
    ) -> Decision | Dropped:
        """Count one record for which its request draws."""
        if _getpid() != self._pid:
            reset_if_forked()
        with self._lock:
            if self._busy:
                return self._settle_reentered(cell)
            self._busy = True
            try:
                cell = self._current(cell)
                # Else it is kept for certain: no record of a request is left to a countdown.
                if cell.terms.rule == "rate" and (cell.rate < 1.0 or self._window is not None):
                    return self._count_scoped(cell, scope)
                return cast("Decision", self._settle_alone(cell, message))
            finally:
                self._busy = False

    def _count_scoped(self, cell: Cell, scope: RequestScope) -> Decision | Dropped:
        rate, rule = cell.rate, "request"
        row = self._open_row(cell, rule)
        window = self._window
        if window is None and cell.if_dropped is None and self._counts_down:
            cell.requested = row  # from here on others may count in it, in one line
        if window is not None:
            rate *= scope.chance(window)
        if scope.decides(cell):
            keep, unlimited = scope.keeps(rate), scope.keeps(cell.rate)
        else:
            draw, rule = self._random(), "rate"
            keep, unlimited = draw < rate, draw < cell.rate
            row = self._open_row(cell, rule)
        if window is not None and (window.is_full() if keep else unlimited):
            keep, row = False, self._open_row(cell, "limit")
        cell.base += 1
        row.seen += 1
        if not keep:
            return cell.if_dropped or Dropped(cell.signature, rate, cell.terms.policy, row, scope)
        if window is not None:
            window.take()
        cell.kept += 1
        row.kept += 1
        if cell.if_dropped is not None:
            return cell.if_dropped
        unmeasured = cell if cell.sized < 32 or cell.base & 15 == 0 else None
        return Decision(cell.signature, rate, 1.0 / rate, rule, cell.terms.policy, unmeasured)

    def _settle_boosted(self, cell: Cell) -> Decision:
        if _getpid() != self._pid:
            reset_if_forked()
        with self._lock:
            if self._busy:
                return self._settle_reentered(cell)
            self._busy = True
            try:
                cell = self._current(cell)
                rule = self._rate_and_rule(cell)[1]  # first records come to an end here too
                rule = "boosted" if rule == "rate" else rule
                row = self._open_row(cell, rule)
                cell.base += 1
                cell.kept += 1
                row.seen += 1
                row.kept += 1
                return Decision(cell.signature, 1.0, 1.0, rule, cell.terms.policy)
            finally:
                self._busy = False

    # ------------------------------------------------------------------ the ledger's rows

    def _current(self, cell: Cell) -> Cell:
        """The cell itself, or the one that has taken its place."""
        if cell.retired or cell.table is not self._tables[cell.table.severity]:
            return self._readmit(cell)
        return cell

    def _open_row(self, cell: Cell, rule: str) -> Row:
        """The row in which records of *cell* that *rule* decides one by one are counted now."""
        terms = self._terms_of(rule, cell.terms)
        for row in cell.rows:
            if row.is_open and row.terms == terms:
                return row
        row = Row(terms, is_open=True)
        cell.rows = (*cell.rows, row)
        return row

    def _terms_of(self, rule: str, like: Terms) -> Terms:
        """Equal terms are one object: there are few of them, and many cells."""
        terms = Terms(like.policy, rule, like.shadow)
        return self._terms.setdefault(terms, terms)

    def _close_row(self, cell: Cell, terms: Terms) -> None:
        """Put what was counted since the last row into one. The gap is closed, nobody counts."""
        # One line, whose only call is its last step: what is booked apart later is in all three.
        base, kept, reentered = cell.base, cell.kept, self._reentered.count(cell)
        seen, kept = running_of(cell, base - reentered, kept - reentered)
        if seen > 0:
            cell.rows = self._with_closed(cell.rows, terms, seen, kept)
        if cell.rows and not all(row.terms.policy in self._recent for row in cell.rows):
            cell.rows = self._with_old_ones_together(cell.rows)

    def _with_closed(
        self, rows: tuple[Row, ...], terms: Terms, seen: int, kept: int
    ) -> tuple[Row, ...]:
        for row in rows:
            if row.terms == terms and not row.is_open:  # a closed row never changes
                rows = tuple(each for each in rows if each is not row)
                seen, kept = seen + row.seen, kept + row.kept
                break
        if len(self._closed) >= _MAX_CLOSED:
            self._closed.clear()
        only = self._closed.setdefault((terms, seen, kept), (Row(terms, seen, kept),))
        return (*rows, *only) if rows else only

    def _with_old_ones_together(self, rows: tuple[Row, ...]) -> tuple[Row, ...]:
        """One row a rule for the policies of long ago."""
        recent = tuple(row for row in rows if row.terms.policy in self._recent)
        together: dict[Terms, Row] = {}
        for row in rows:
            if row not in recent:
                terms = self._long_ago(row.terms)
                together.setdefault(terms, Row(terms, is_open=True)).sum_up([row])
        return (*together.values(), *recent)

    def _long_ago(self, terms: Terms) -> Terms:
        old = Terms(EARLIER, terms.rule, terms.shadow)
        return self._terms.setdefault(old, old)

    def _book_reentered(self) -> None:
        """Count apart what came in the middle of our own critical section."""
        came = self._reentered[:]
        del self._reentered[: len(came)]  # what comes meanwhile has time
        for cell, times in Counter(came).items():
            self._book(cell, times)

    def _book(self, cell: Cell, times: int) -> None:
        row = self._open_row(cell, "reentered")
        row.seen += times
        row.kept += times

    # ------------------------------------------------------------------ texts not met before

    def _find_message(self, message: str, severity: Severity, *, remember: bool = True) -> Cell:
        table = self._tables[severity_name(severity)]
        folded = fold(message)
        cell = table.texts.get(folded)
        if cell is None:
            cell = self._admit(table, folded)
            if self._busy or not remember:
                return cell  # perhaps not its own cell, see _admit
            if _ZERO in folded:
                table.remember_text(folded, cell)
            else:  # no number in it: likely to come again to the letter
                table.remember_message(message, cell)
        return cell

    def _find_at(
        self, message: str, severity: Severity, find_site: FindSite[Any] | None, where: Any
    ) -> Cell:
        """The cell of a message by its call site; else by the message alone."""
        site = find_site(where) if self._heals and find_site is not None else None
        if site is None:
            return self._find_message(message, severity)
        text = site.format_for(message)
        if text is None:
            # While sites wait, nothing is remembered to the letter that may soon have a format.
            return self._find_message(message, severity, remember=not has_waiting())
        cell = self._formats[severity].get(text)
        return self._find_format(text, severity) if cell is None else cell

    def _find_format_at(
        self, format_string: str, severity: Severity, find_site: FindEitherSite | None, where: Any
    ) -> Cell:
        """The cell of a format string; of that in the source, if a variable was put into it."""
        site = None
        if find_site is not None and self._heals:
            site = find_site(where, percent=True)
        if site is None:
            return self._find_format(format_string, severity)
        text = site.format_for(format_string)
        if text is None:
            return self._find_format(format_string, severity, remember=not site.awaits_source)
        cell = self._formats[severity].get(text)
        return self._find_format(text, severity) if cell is None else cell

    def _find_format(
        self, format_string: str, severity: Severity, *, remember: bool = True
    ) -> Cell:
        table = self._tables[severity_name(severity)]
        cell = self._admit(table, fold(percent_format_to_message(format_string)))
        if remember and not self._busy:  # else perhaps not its own cell, see _admit
            table.remember_format(format_string, cell)
        return cell

    def _admit(self, table: SeverityTable, folded: bytes) -> Cell:
        """The cell of a folded message: a known one, a new one, or the overflow bucket."""
        key = key_of_folded(folded)
        signature = signature_of_key(key)
        if _getpid() != self._pid:
            reset_if_forked()
            table = self._tables[table.severity]
        with self._lock:
            if self._busy:  # inside our own critical section: a bucket that keeps everything
                return table.overflow_protected
            self._busy = True
            try:
                cell = table.index.get(signature) or self._new_cell(table, signature, key)
            finally:
                self._busy = False
        self._after_slow_path()  # where everything is dropped there may be no other occasion
        return cell

    def _new_cell(self, table: SeverityTable, signature: str, key: bytes) -> Cell:
        protected = self._protects(signature, key)
        if self._size >= self._max_patterns:
            return table.overflow_protected if protected else table.overflow
        cell = Cell(table, signature, key[:MAX_STORED_KEY], self._second())
        cell.protected = protected
        self._arm(cell)
        table.index[signature] = cell
        self._size += 1
        return cell

    def _second(self) -> float:
        """Monotonic seconds, to the second: cells that come together share one number."""
        now = self._clock()
        if not 0.0 <= now - self._latest < 1.0:
            self._latest = now
        return self._latest

    def _protects(self, signature: str, key: bytes) -> bool:
        policy = self._policy
        if policy is None:
            return False
        if signature in policy.protected:
            return True
        return bool(policy.patterns) and policy.protects(template_of_key(key))

    # ------------------------------------------------------------------ the slow path

    def _settle(self, cell: Cell, message: str | None) -> Decision | None:
        """Count and judge one record of a cell whose countdown has ended."""
        steady = cell.steady
        if steady and cell.base & 31:  # the other path now and then, for what it does besides
            gap = int(_log(1.0 - self._random()) * steady)
            # One line without a call, so that neither a thread, nor a signal handler, nor a trace
            # function can come in between. Who holds the lock has set `steady` to 0 before.
            if cell.left == 0 and cell.steady == steady: cell.kept += 1; cell.base += gap + 1; cell.left = gap; return _kept_at(cell, cell.rate, cell.terms)  # noqa: E501, E701, E702  # fmt: skip
        if _getpid() != self._pid:
            reset_if_forked()  # the host forked behind Python's back; never lock before this
        with self._lock:
            if self._busy:
                return self._settle_reentered(cell)
            self._busy = True
            try:
                decision = self._settle_alone(self._current(cell), message)
            finally:
                self._busy = False
        self._after_slow_path()
        return decision

    def _after_slow_path(self) -> None:
        """Called in the application's threads, outside the lock; must be cheap."""

    def _settle_reentered(self, cell: Cell) -> Decision:
        """Inside our own critical section: only add, and keep. Weight 1 is true: p was 1."""
        table = self._tables[cell.table.severity]
        if cell.retired or cell.table is not table:
            cell = table.overflow_protected  # it stays; a cell on its way out would lose the count
        cell.base += 1; cell.kept += 1; self._reentered.append(cell)  # noqa: E702  # see _close_row  # fmt: skip
        return Decision(cell.signature, 1.0, 1.0, "reentered", cell.terms.policy)

    def _readmit(self, cell: Cell) -> Cell:
        """A record came for a cell that was evicted, or inherited, while the caller held it."""
        table = self._tables[cell.table.severity]
        table.forget_texts()  # one of them still leads to the old cell
        if cell.signature == OVERFLOW_SIGNATURE:
            return table.overflow_protected if cell.protected else table.overflow
        current = table.index.get(cell.signature)
        return current or self._new_cell(table, cell.signature, cell.key)

    def _settle_alone(self, cell: Cell, message: str | None) -> Decision | None:
        if cell.left > 0:  # armed anew since the caller looked
            cell.left -= 1
            return cell.if_dropped
        if cell.left <= KEEP_ALL:
            cell.left -= 1
            return cell.if_kept
        if message is not None:
            cell.sized += 1
            cell.sized_bytes += len(message)
        self._close_gap(cell)
        cell.base += 1
        decision = self._judge(cell, wants_size=message is None)
        self._arm(cell)
        return decision

    def _close_gap(self, cell: Cell) -> None:
        """Stop the running countdown; afterwards `left` is 0 and `base` is what was seen."""
        # First: from here on nobody else draws a gap, or counts for a request.
        cell.steady = 0.0; cell.requested = None  # noqa: E702  # fmt: skip
        left, cell.left = cell.left, 0  # one line: no record of another thread falls in between
        cell.base -= left
        if left <= KEEP_ALL:
            cell.kept += KEEP_ALL - left

    def _judge(self, cell: Cell, *, wants_size: bool) -> Decision | None:
        """The rules, for the record just counted; its probability was fixed by `_arm`."""
        rate, rule = cell.rate, cell.terms.rule
        if rule == "rate":
            if rate <= _LEAST_RATE or (not self._counts_down and self._random() >= rate):
                return cell.if_dropped
            if self._window is not None:
                chance = self._window.chance()
                if chance < 1.0 and self._random() >= chance:
                    self._open_row(cell, "limit").seen += 1
                    return cell.if_dropped
                rate *= chance
                self._window.take()
        elif rule == "first" and self._window is not None:
            self._window.take()
        cell.kept += 1
        if cell.if_dropped is not None and rule == "rate":
            rate, rule = 1.0, "shadow"
        unmeasured = cell if wants_size and (cell.sized < 32 or cell.base & 15 == 0) else None
        return Decision(cell.signature, rate, 1.0 / rate, rule, cell.terms.policy, unmeasured)

    def _arm(self, cell: Cell) -> None:
        """Draw the next gap of a cell whose gap is closed. What the hot path reads goes last."""
        cell.rate, rule = self._rate_and_rule(cell)
        terms = self._by_rule.get(rule) or self._by_rule.setdefault(
            rule, self._terms_of(rule, self._in_force)
        )
        if terms is not cell.terms:
            self._close_row(cell, cell.terms)
            cell.terms = terms
        cell.if_dropped = self._sure(cell, "shadow") if terms.shadow else None
        left = self._draw(cell)
        shadowed = terms.shadow and rule == "rate"
        cell.if_kept = (
            self._sure(cell, "shadow" if shadowed else rule) if left == KEEP_ALL else None
        )
        cell.base += left
        cell.left = left
        if rule == "rate" and not terms.shadow and self._window is None and self._counts_down:
            cell.steady = _steady(cell.rate)  # last: from here on others may draw

    def _sure(self, cell: Cell, rule: str) -> Decision:
        return Decision(cell.signature, 1.0, 1.0, rule, cell.terms.policy)

    def _rate_and_rule(self, cell: Cell) -> tuple[float, str]:
        policy = self._policy
        if cell.table.protected:
            return 1.0, "error"
        if policy is None:
            return 1.0, "rate"
        if cell.protected:
            return 1.0, "protected"
        if cell.base < policy.keep_first:
            return 1.0, "first"
        if self._full and self._has_full_fidelity(cell):
            return 1.0, "boosted"
        rate = policy.rate_for(cell.signature, cell.table.severity)
        if self._boost_until > self._ticked or cell in self._boosted:
            rate = min(1.0, rate * policy.anomaly_boost)
        return rate * self._scale, "rate"

    def _has_full_fidelity(self, cell: Cell) -> bool:
        return any(
            pattern in {None, cell.signature} and severity in {None, cell.table.severity}
            for pattern, severity in self._full
        )

    def _draw(self, cell: Cell) -> int:
        """The countdown for `cell.rate`: a gap, or KEEP_ALL, or 0 to look at the next record."""
        rate = cell.rate
        if not self._counts_down or cell.terms.rule == "first":
            return 0
        if rate >= 1.0:
            guarded = cell.terms.rule == "rate" and self._window is not None
            return 0 if guarded or cell.base < _MEASURED_FIRST else KEEP_ALL
        if rate <= _LEAST_RATE:
            return -KEEP_ALL
        return int(_log(1.0 - self._random()) * _steady(rate))

    def measure(self, decision: Decision, size: int) -> None:
        """Tell the size in bytes of a kept record whose decision asks for it."""
        cell = decision.unmeasured
        if cell is not None:
            with self._lock:
                cell.sized += 1
                cell.sized_bytes += size

    # ------------------------------------------------------------------ policies

    def get_policy(self) -> SamplingPolicy | None:
        """The policy in force; None while everything is kept for want of one."""
        return self._policy

    def apply_policy(self, policy: SamplingPolicy | None) -> None:
        """
        Replace the policy. Counts, first records and the limit's window live on.

        Args:
            policy: The new policy; None keeps everything.
        """
        terms = Terms(_name_of(policy), "rate", policy is not None and policy.mode == "shadow")
        with self._lock:
            before = self._policy
            self._remember_policy(terms.policy)
            self._set_limit(policy)
            # One line: a record in the middle of this is decided by all of the one or the other.
            self._policy, self._in_force, self._by_rule = policy, terms, {}
            self._policy_boosts = self._boosts_of(policy)
        self._follow_boosts()
        if _protection_of(before) != _protection_of(policy):
            self._in_batches(self._follow_words)
            self._forget_texts()  # those of the overflow buckets were sorted by the old words
        self._in_batches(self._rearm)

    def _remember_policy(self, name: str | None) -> None:
        """The ledger tells the last policies apart."""
        if name in self._recent:
            return
        self._recent = (EARLIER, *[each for each in self._recent if each != EARLIER][-2:], name)
        self._terms = {
            terms: one for terms, one in list(self._terms.items()) if terms.policy in self._recent
        }
        self._closed.clear()
        departed, self._departed = self._departed, {}
        for (severity, terms), row in departed.items():
            if terms.policy not in self._recent:
                terms = self._long_ago(terms)  # noqa: PLW2901
            self._depart(severity, terms, [row])

    def _depart(self, severity: str, terms: Terms, rows: Iterable[Row]) -> None:
        """Sum up rows of patterns that have left the table."""
        key = (severity, terms)
        self._departed.setdefault(key, Row(terms, is_open=True)).sum_up(rows)

    def _set_limit(self, policy: SamplingPolicy | None) -> None:
        limit = policy.max_logs_per_minute if policy else None
        if limit is None:
            self._window = None
            self._scale = 1.0
        elif self._window is None:
            self._window = MinuteWindow(limit, self._clock)
        else:
            self._window.limit = limit  # what was kept in the last minute still counts

    def _follow_words(self, cell: Cell) -> None:
        if cell.signature == OVERFLOW_SIGNATURE:
            return
        if len(cell.key) >= MAX_STORED_KEY:
            self._retire(cell)  # a word may stand in the part that was not stored: read it anew
        else:
            cell.protected = self._protects(cell.signature, cell.key)

    def _rearm(self, cell: Cell) -> None:
        self._close_gap(cell)
        self._arm(cell)

    def _in_batches(self, do: Callable[[Cell], None]) -> None:
        """Run *do* for every cell, letting go of the lock in between."""
        with self._lock:
            cells = self._every_cell()
        for start in range(0, len(cells), _BATCH):
            _let_others_in(start)
            with self._lock:
                if self._busy:  # only a signal handler that changes policies gets here
                    return
                self._busy = True
                try:
                    for cell in cells[start : start + _BATCH]:
                        if not cell.retired:
                            do(cell)
                finally:
                    self._busy = False

    def boost(
        self,
        pattern: str | None = None,
        *,
        severity: str | None = None,
        logger: str | None = None,
        minutes: float = 10.0,
    ) -> None:
        """As `AdaptiveSampler.boost`; a later tick ends it."""
        _check_boost(pattern, severity, logger, minutes)
        boost = Boost(
            signature=self._signature_named(pattern),
            severity=None if severity is None else severity_name(severity),
            logger=logger,
            until=self._now() + 60.0 * minutes,
        )
        with self._lock:
            now = self._clock()
            self._own_boosts = _with(self._own_boosts, (boost, now + 60.0 * minutes), now)
        if self._follow_boosts():
            self._in_batches(self._rearm)

    def _signature_named(self, pattern: str | None) -> str | None:
        """A signature itself, or that of the pattern that `explain` would explain."""
        signature = _signature_of(pattern)
        if pattern is None or signature == pattern:
            return signature
        cell = self._cell_of(pattern, list(self._tables.values()))
        return signature if cell is None else cell.signature

    def _cell_of(self, message: str, tables: list[SeverityTable]) -> Cell | None:
        """
        The pattern that records with this message belong to, among those that were seen.

        That of its signature, unless this one has been idle and another one fits, whose format
        string is known: then it stems from the time before its call site was looked at.
        """
        key = key_of_folded(fold(message))
        signature = signature_of_key(key)
        own = [table.index[signature] for table in tables if signature in table.index]
        cells = [cell for table in tables for cell in list(table.index.values())]
        other = fitting([cell for cell in cells if cell.signature != signature], key)
        newest = max(own, key=lambda cell: cell.last_seen, default=None)
        if newest is None or other is None:
            return newest or other
        return other if other.last_seen > newest.last_seen + REPLACED_AFTER else newest

    def boosts(self) -> tuple[Boost, ...]:
        """What is at full fidelity now, by `boost` and by the policy server."""
        now = self._clock()
        return tuple(b for b, end in (*self._own_boosts, *self._policy_boosts) if end > now)

    def is_boosted(self, logger: str) -> bool:
        """Whether a boost holds for the logger of this name."""
        return any(
            name in {"", "root", logger} or logger.startswith(f"{name}.")
            for name in self.boosted_loggers
        )

    def _boosts_of(self, policy: SamplingPolicy | None) -> _Boosts:
        """Those of a policy, with their ends by the monotonic clock: the other may be set."""
        if policy is None:
            return ()
        wall, now = self._now(), self._clock()
        return tuple(
            (boost, now + min(boost.until - wall, _LONGEST_BOOST)) for boost in policy.boosts
        )

    def _follow_boosts(self) -> bool:
        """Let the decisions follow the boosts that are on now; whether cells have to be armed."""
        boosts = self.boosts()
        loggers = frozenset(b.logger for b in boosts if b.logger is not None)
        if loggers != self.boosted_loggers:
            self.boosted_loggers = loggers
            if loggers:
                WATCHED.add("boosted loggers")
        before = self._full
        self._full = frozenset((b.signature, b.severity) for b in boosts if b.logger is None)
        return self._full != before

    def _end_boosts(self, *, all_of_them: bool = False) -> None:
        """Forget what is over (in the worker's thread)."""
        now = math.inf if all_of_them else self._clock()
        with self._lock:
            self._own_boosts = tuple(each for each in self._own_boosts if each[1] > now)
            self._policy_boosts = tuple(each for each in self._policy_boosts if each[1] > now)
        if self._follow_boosts():
            self._in_batches(self._rearm)

    def explain(self, message: str, severity: str = "INFO") -> Explanation:
        """
        What would happen to a record with this message, and why. Counts nothing.

        Args:
            message: The finished message, or a signature of a pattern that was seen. Where no
                pattern has the message's signature, the most literal one that was seen and whose
                template it fits is explained: an argument that is a word is a constant of the
                message, and a variable of the format string.
            severity: A level name in any case, or a level number.
        """
        text = str(message)
        table = self._tables[severity_name(severity)]
        cell = table.index.get(text) or self._cell_of(text, [table])
        if cell is None:
            key = key_of_folded(fold(text))
            cell = Cell(table, signature_of_key(key), key, self._clock())
            cell.protected = self._protects(cell.signature, key)
        with self._lock:  # its counts are one look, as the ledger's are
            self._book_reentered_now()
            rate, rule = cell.rate, cell.terms.rule
            entries = [
                entry_of(cell.signature, template_of(cell), table.severity, row)
                for row in rows_of(cell)
            ]
        seen = sum(entry.seen for entry in entries)
        if not seen:
            rate, rule = self._rate_and_rule(cell)
        age = self._clock() - cell.first_seen
        return Explanation(
            signature=cell.signature,
            template=template_of(cell),
            severity=table.severity,
            rule=rule,
            rate=rate,
            policy=self._in_force.policy,
            shadow=self._in_force.shadow,
            seen=seen,
            kept=sum(entry.kept for entry in entries),
            last_seen=utc(round(cell.last_seen + self._wall())) if seen else None,
            per_minute=60.0 * _anomaly.rate_per_second(cell.volume, age) if seen else 0.0,
            ledger=tuple(entries),
        )

    # ------------------------------------------------------------------ background work

    def tick(self) -> None:
        """Look at what was counted since the last tick: anomalies, the limit, idle patterns."""
        now = self._clock()
        elapsed = now - self._ticked
        if elapsed <= 0:
            return
        # Cells may have been armed under each of these: before this tick, in it, and after it.
        boosted = {self._boost_until > self._ticked, self._boost_until > now}
        self._ticked = now
        tally = _Tally(now, elapsed, now - self._started)
        self._in_batches(lambda cell: self._tick_cell(cell, tally))
        with self._lock:
            self._book_reentered_now()
        self._watch_service(tally)
        self._end_boosts()
        changed = self._scale_to_limit(tally)
        boosted.add(self._boost_until > now)
        if changed or len(boosted) > 1:
            self._in_batches(self._rearm)
        if self._size > _CROWDED * self._max_patterns:
            self._evict()

    def _tick_cell(self, cell: Cell, tally: _Tally) -> None:
        seen = counts_of(cell)[0]
        count, cell.ticked = seen - cell.ticked, seen
        expected = tally.elapsed * _anomaly.rate_per_second(
            cell.volume, tally.now - cell.first_seen
        )
        cell.volume = cell.volume * tally.decay + count
        if not count and cell not in self._boosted:
            return
        if count:
            cell.last_seen = tally.now
        if cell.table.protected:
            tally.errors += count
            return
        tally.others += count
        boosted = cell in self._boosted
        if self._is_anomalous(cell, count, expected, tally):
            self._boosted[cell] = self._ticked + _anomaly.BOOST_SECONDS
        elif boosted and self._boosted[cell] <= self._ticked:
            del self._boosted[cell]
        if not cell.protected:
            rate = cell.rate / self._scale if cell.terms.rule == "rate" else cell.rate
            tally.kept_per_second += rate * count / tally.elapsed
        if boosted != (cell in self._boosted) or cell.left <= KEEP_ALL:
            # A cell that keeps everything is looked at once a tick, to measure a record.
            self._rearm_to_look(cell)

    def _is_anomalous(self, cell: Cell, count: int, expected: float, tally: _Tally) -> bool:
        if tally.age < _anomaly.LEARNING_SECONDS:
            return False
        known_for = tally.now - cell.first_seen
        return known_for >= _anomaly.LEARNING_SECONDS and _anomaly.is_jump(count, expected)

    def _rearm_to_look(self, cell: Cell) -> None:
        self._close_gap(cell)
        self._arm(cell)
        if cell.left <= KEEP_ALL:
            self._close_gap(cell)  # leaves 0: the next record takes the slow path, then arms again

    def _watch_service(self, tally: _Tally) -> None:
        """Boost everything for a while when errors burst or the whole volume jumps."""
        expected_errors = tally.elapsed * _anomaly.rate_per_second(self._error_volume, tally.age)
        expected = tally.elapsed * _anomaly.rate_per_second(self._total_volume, tally.age)
        self._error_volume = self._error_volume * tally.decay + tally.errors
        self._total_volume = self._total_volume * tally.decay + tally.others
        if tally.age >= _anomaly.LEARNING_SECONDS:
            if _anomaly.is_jump(tally.errors, expected_errors):
                self._boost_until = self._ticked + _anomaly.BOOST_SECONDS
            elif self._ticked >= self._cool_until and _anomaly.is_jump(tally.others, expected):
                self._boost_until = self._ticked + _anomaly.BOOST_SECONDS
                self._cool_until = self._ticked + _anomaly.COOL_DOWN_SECONDS

    def _scale_to_limit(self, tally: _Tally) -> bool:
        """Scale rates down so that the limit is met by true weights, not by the guard."""
        policy = self._policy
        if policy is None or policy.max_logs_per_minute is None:
            return False
        unscaled = tally.kept_per_second * 60.0
        aim = _AIM * policy.max_logs_per_minute
        scale = min(1.0, aim / unscaled) if unscaled > 0 else 1.0
        if 0.9 <= scale / max(self._scale, 1e-9) <= 1.1:
            return False
        self._scale = max(scale, 1e-6)
        return True

    def _evict(self) -> None:
        """Make room: the patterns that have been idle longest leave with their counts told."""
        idle = sorted(
            (cell for table in self._tables.values() for cell in list(table.index.values())),
            key=lambda cell: (cell.last_seen, cell.volume),
        )
        leaving = set(idle[: max(0, self._size - int(_RELIEVED * self._max_patterns))])
        newest = self._clock() - 2 * _anomaly.BOOST_SECONDS
        self._in_batches(
            lambda cell: self._retire(cell) if cell in leaving and cell.last_seen < newest else None
        )
        self._forget_texts()

    def _forget_texts(self) -> None:
        for table in list(self._tables.values()):
            with self._lock:
                table.forget_texts()

    def _retire(self, cell: Cell) -> None:
        """Take a cell out; a caller that still holds it finds `left` 0 and is sent on."""
        # First: a finalizer that logs in the middle of this is sent on.
        terms, cell.terms = cell.terms, RETIRED
        self._close_gap(cell)
        self._close_row(cell, terms)
        times = self._reentered.count(cell)  # no more of them can come
        for _ in range(times):
            self._reentered.remove(cell)
        if times:
            self._book(cell, times)
        fresh = self._drain_cell(cell)
        if fresh is not None:
            self._set_aside(fresh)
        self._departures += 1
        for row in cell.rows:
            self._depart(cell.table.severity, row.terms, [row])
        cell.rows = ()
        cell.base = cell.kept = 0
        cell.reported = cell.reported_kept = cell.ticked = 0
        if cell.table.index.pop(cell.signature, None) is not None:
            self._size -= 1
        self._boosted.pop(cell, None)

    def _set_aside(self, gone: PatternStats) -> None:
        """Keep the counts of an evicted pattern for the next drain, should there ever be one."""
        waiting = self._undrained
        if gone.signature not in waiting and len(waiting) >= self._max_patterns:
            gone = replace(gone, signature=OVERFLOW_SIGNATURE, template=OVERFLOW_TEMPLATE)
        known = waiting.get(gone.signature)
        waiting[gone.signature] = gone if known is None else joined(known, gone)

    def volumes(self) -> list[tuple[Cell, float]]:
        """Cells with their decayed counts, for planning; a list of its own."""
        with self._lock:
            cells = self._every_cell()
        return [(cell, cell.volume) for cell in cells if cell.volume > 0.0]

    # ------------------------------------------------------------------ counts

    def drain(self) -> list[PatternStats]:
        """Counts since the last drain, one entry a pattern; each record is told exactly once."""
        fresh: list[PatternStats] = []

        def collect(cell: Cell) -> None:
            stats = self._drain_cell(cell)
            if stats is not None:
                fresh.append(stats)

        self._in_batches(collect)
        with self._lock:
            gone, self._undrained = self._undrained, {}
        return list(merged([*gone.values(), *fresh]).values())

    def _drain_cell(self, cell: Cell) -> PatternStats | None:
        seen, kept = counts_of(cell)
        kept += shadowed_of(cell, seen, kept)
        count, cell.reported = seen - cell.reported, seen
        kept_now, cell.reported_kept = kept - cell.reported_kept, kept
        if count == 0:
            return None
        if seen != cell.ticked:
            cell.last_seen = self._clock()
        return stats_of(cell, count, kept_now, self._wall())

    def _wall(self) -> float:
        """The time of day less the monotonic clock, as of now: the former may be set."""
        return self._now() - self._clock()

    def get_pattern_stats(self) -> dict[str, PatternStats]:
        """Counts of every pattern in the table since the process started, by signature."""
        collected: list[PatternStats] = []
        wall = self._wall()

        def collect(cell: Cell) -> None:
            seen, kept = counts_of(cell)
            if seen:
                if seen != cell.ticked:
                    cell.last_seen = self._clock()
                kept += shadowed_of(cell, seen, kept)
                collected.append(stats_of(cell, seen, kept, wall))

        self._in_batches(collect)
        return merged(collected)

    def totals(self) -> Totals:
        """Exact totals since the process started, evicted patterns included."""
        sums = self._summed_in_batches() or self._summed_at_once()
        return sums.totals(self._doubtful)

    def _summed_in_batches(self) -> Sums | None:
        """Without holding the lock for long; None if a pattern has been evicted meanwhile."""
        with self._lock:
            departures, cells = self._departures, self._every_cell()
            sums = Sums()
            sums.add_rows(list(self._departed.values()))
        for start in range(0, len(cells), _BATCH):
            _let_others_in(start)
            with self._lock:
                sums.add_cells(cells[start : start + _BATCH])
        return sums if self._departures == departures else None

    def _summed_at_once(self) -> Sums:
        with self._lock:
            sums = Sums()
            sums.add_rows(list(self._departed.values()))
            sums.add_cells(self._every_cell())
            return sums

    def ledger(self, *, patterns: bool = True) -> list[LedgerEntry]:
        """
        What became of every record since the process started, by policy and rule: exact.

        The last three policies are told apart; what came under those before is summed up as
        "earlier". Thread-safe; takes about 5 us a pattern, without holding up records.

        Args:
            patterns: An entry for each pattern and severity; False: one for all patterns of a
                severity.
        """
        for _ in range(3):
            entries = self._entries_in_batches(LedgerSums(patterns=patterns))
            if entries is not None:
                break  # else a pattern was evicted meanwhile: once more
        else:
            entries = self._entries_at_once(LedgerSums(patterns=patterns))
        entries.add_doubtful(self._in_force.policy, self._doubtful)
        return entries.entries()

    def _entries_in_batches(self, sums: LedgerSums) -> LedgerSums | None:
        """Without holding the lock for long; None if a pattern has been evicted meanwhile."""
        with self._lock:
            self._book_reentered_now()
            departures = self._departures
            sums.add_departed(self._departed)
        self._in_batches(sums.add_cell)
        return sums if self._departures == departures else None

    def _entries_at_once(self, sums: LedgerSums) -> LedgerSums:
        with self._lock:
            sums.add_departed(self._departed)
            for cell in self._every_cell():
                sums.add_cell(cell)
            return sums

    def _book_reentered_now(self) -> None:
        """Under the lock, from outside of the critical section."""
        if self._reentered and not self._busy:
            self._busy = True
            try:
                self._book_reentered()
            finally:
                self._busy = False

    def _every_cell(self) -> list[Cell]:
        return [cell for table in self._tables.values() for cell in table.every_cell()]

    def memory(self) -> dict[str, int]:
        """Entries and bytes of the pattern table and of the caches of texts that lead to it."""
        sizes = [memory_of(table) for table in list(self._tables.values())]
        names = ("patterns", "pattern_bytes", "cached_texts", "cached_text_bytes")
        return {name: sum(size[i] for size in sizes) for i, name in enumerate(names)}

    # ------------------------------------------------------------------ forks

    def _reset_after_fork(self) -> None:
        """In a forked child: the inherited counts are the parent's, the lock may be held."""
        self._rng.seed()
        self._window = None
        self._set_limit(self._policy)
        self._start_afresh()


def _let_others_in(start: int) -> None:
    """
    Now and then between two batches: a thread that waits for the lock gets it.

    Without this it would not. Whoever lets go of a lock and takes it again at once still has the
    GIL, and the thread that was woken finds the lock taken: log calls waited for all the batches
    together. Not at each batch, as every pause is a turn of the GIL for each thread that computes.
    """
    if start and start % _PAUSE_EVERY == 0:
        time.sleep(_PAUSE)


@dataclass(slots=True)
class _Tally:
    """What one tick adds up."""

    now: float
    elapsed: float
    age: float
    errors: int = 0
    others: int = 0
    kept_per_second: float = 0.0

    @property
    def decay(self) -> float:
        return _anomaly.decay(self.elapsed)


def _name_of(policy: SamplingPolicy | None) -> str | None:
    if policy is None:
        return None
    return policy.policy_id if policy.version is None else str(policy.version)


def _signature_of(pattern: str | None) -> str | None:
    if pattern is None or (len(pattern) == 16 and set(pattern) <= _HEX_DIGITS):
        return pattern
    return compute_signature(pattern)


def _check_boost(pattern: object, severity: object, logger: object, minutes: object) -> None:
    for name, value in (("pattern", pattern), ("severity", severity), ("logger", logger)):
        if value is not None and not isinstance(value, str):
            raise ConfigurationError(f"{name} is a text, not {value!r:.80}")
    if isinstance(severity, str) and not is_severity(severity):
        raise ConfigurationError(
            f"severity is one of {', '.join(SEVERITIES)}, not {severity!r:.80}"
        )  # taken for INFO, as a record's is, it would keep whatever is most
    number = isinstance(minutes, (int, float)) and not isinstance(minutes, bool)
    if not number or not 0 < minutes <= 1440:  # type: ignore[operator]
        raise ConfigurationError(f"minutes lies above 0 and at most at 1440, not {minutes!r}")
    if logger is not None and not (pattern is None and severity is None):
        raise ConfigurationError("give a logger, or a pattern and severity, not both")


def _with(boosts: _Boosts, new: tuple[Boost, float], now: float) -> _Boosts:
    """
    *boosts* with one more, without those that are over.

    Of the same selectors the one that ends last stays; of too many, those that end last.
    """
    last = {_selectors(each[0]): each for each in sorted(boosts, key=_end)}
    last[_selectors(new[0])] = max(new, last.get(_selectors(new[0]), new), key=_end)
    running = sorted((each for each in last.values() if each[1] > now), key=_end)
    return tuple(running[-_MAX_BOOSTS:])


def _selectors(boost: Boost) -> tuple[str | None, ...]:
    return boost.signature, boost.severity, boost.logger


def _end(each: tuple[Boost, float]) -> float:
    return each[1]


def _protection_of(
    policy: SamplingPolicy | None,
) -> tuple[tuple[str, ...], frozenset[str]] | None:
    return None if policy is None else (policy.patterns, policy.protected)
