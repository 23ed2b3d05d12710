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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from lipservice import _anomaly
from lipservice._fork import on_fork, reset_if_forked
from lipservice._throttle import MinuteWindow
from lipservice.decision import Decision, Explanation, Totals
from lipservice.exceptions import ConfigurationError
from lipservice.patterns import (
    KEEP_ALL,
    MAX_STORED_KEY,
    OVERFLOW_SIGNATURE,
    OVERFLOW_TEMPLATE,
    Cell,
    PatternStats,
    SeverityTable,
    counts_of,
    memory_of,
    shadowed_of,
)
from lipservice.policy import SamplingPolicy
from lipservice.severity import SEVERITIES, severity_name
from lipservice.signature import (
    compute_signature,
    fold,
    key_of_folded,
    percent_format_to_message,
    signature_of_key,
    template_of_key,
)

if TYPE_CHECKING:
    from lipservice.scope import RequestScope

    Severity = str | int

#: Cells handled per hold of the lock in background work: well under a millisecond.
_BATCH: Final = 64
#: Records of a pattern that are measured before it may be kept without a look.
_MEASURED_FIRST: Final = 8
#: Below this a rate counts as zero: the gap would outlast the process.
_LEAST_RATE: Final = 1e-12
#: Share of the pattern table at which idle patterns have to go, and the share they go down to.
_CROWDED: Final = 0.9
_RELIEVED: Final = 0.8
#: Spellings of severities that are remembered.
_MAX_SPELLINGS: Final = 256
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


def _kept_at(cell: Cell, rate: float, policy: str | None) -> Decision:
    # Not Decision(...): that goes through a Python-level __new__, at twice the price. Not
    # cell.rate: by now another thread may have applied another policy.
    return _new_tuple(Decision, (cell.signature, rate, 1.0 / rate, "rate", policy, None))


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
    """

    def __init__(
        self,
        *,
        max_patterns: int = 10_000,
        policy: SamplingPolicy | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._max_patterns = max_patterns
        self._rng = rng if rng is not None else random.Random()
        self._random = self._rng.random
        self._clock = clock
        self._now = now
        self._counts_down = _straight_lines_are_atomic()
        self._policy: SamplingPolicy | None = None
        self._policy_name: str | None = None
        self._shadow = False
        self._window: MinuteWindow | None = None
        self._full: dict[tuple[str | None, str | None], float] = {}
        #: Loggers at full fidelity and until when; empty but for `boost(logger=...)`.
        self.boosted_loggers: dict[str, float] = {}
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
        for name in SEVERITIES:
            self._learn_spelling(name, name)
        self._size = 0
        self._doubtful = 0
        self._departed = Totals()
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

    def decide_format(self, format_string: str, severity: Severity) -> Decision | None:
        """Decide about a %-style format string whose arguments need not be looked at."""
        try:
            cell = self._formats[severity].get(format_string)
            if cell is None:
                cell = self._find_format(format_string, severity)
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
        self, text: str, severity: Severity, scope: RequestScope, *, is_format: bool
    ) -> Decision | None:
        """
        As `decide_format` or `decide_message`, with the random number of a request.

        Where the request draws there is no countdown: such a record is counted under the lock.
        """
        try:
            tables = self._formats if is_format else self._messages
            cell = tables[severity].get(text)
            if cell is None:
                find = self._find_format if is_format else self._find_message
                cell = find(text, severity)
            rate = cell.rate
            if cell.retired or cell.rule != "rate" or not _LEAST_RATE < rate < 1.0:
                return self._decide_alone(cell, None if is_format else text)
            keep = scope.keeps(cell, rate)
            if keep is None:
                return self._decide_alone(cell, None if is_format else text)
            return self._settle_scoped(cell, None if is_format else text, rate, keep=keep)
        except Exception as error:
            decide = self.decide_format if is_format else self.decide_message
            return self._decide_in_doubt(decide, text, severity, error)

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
        decide: Callable[[str, Severity], Decision | None],
        text: object,
        severity: object,
        error: Exception,
    ) -> Decision | None:
        """Try once more with a severity and a text that the tables know; else keep."""
        try:
            if not isinstance(severity, (str, int)):
                return decide(cast("str", text), severity_name(severity))
            if isinstance(error, KeyError) and severity not in self._messages:
                name = severity_name(severity)
                if len(self._messages) < _MAX_SPELLINGS:
                    self._learn_spelling(severity, name)
                return decide(cast("str", text), name)
            if not isinstance(text, str):
                return decide(str(text), severity)
        except Exception:  # noqa: S110 - whatever the application's objects do, it is not told
            pass
        self._doubtful += 1
        return Decision("", 1.0, 1.0, "doubt", self._policy_name)

    def _decide_alone(self, cell: Cell, message: str | None) -> Decision | None:
        """The end of the hot path, for a cell that was found."""
        if cell.left > 0:
            cell.left -= 1
            return cell.if_dropped
        if cell.left <= KEEP_ALL:
            cell.left -= 1
            return cell.if_kept
        return self._settle(cell, message)

    def _settle_scoped(
        self, cell: Cell, message: str | None, rate: float, *, keep: bool
    ) -> Decision | None:
        """Count one record for which its request has drawn, at *rate*."""
        if _getpid() != self._pid:
            reset_if_forked()
        with self._lock:
            if self._busy:
                return self._settle_reentered(cell)
            self._busy = True
            try:
                if cell.retired or cell.table is not self._tables[cell.table.severity]:
                    return self._settle_alone(self._readmit(cell), message)
                return self._count_scoped(cell, rate, keep=keep)
            finally:
                self._busy = False

    def _count_scoped(self, cell: Cell, rate: float, *, keep: bool) -> Decision | None:
        cell.base += 1
        if not keep:
            return cell.if_dropped
        if self._window is not None:
            chance = self._window.chance()
            if chance < 1.0 and self._random() >= chance:
                cell.capped += 1
                return cell.if_dropped
            rate *= chance
            self._window.take()
        cell.kept += 1
        if cell.if_dropped is not None:
            return self._sure(cell, "shadow")
        unmeasured = cell if cell.sized < 32 or cell.base & 15 == 0 else None
        return Decision(cell.signature, rate, 1.0 / rate, "request", self._policy_name, unmeasured)

    # ------------------------------------------------------------------ texts not met before

    def _find_message(self, message: str, severity: Severity) -> Cell:
        table = self._tables[severity_name(severity)]
        folded = fold(message)
        cell = table.texts.get(folded)
        if cell is None:
            cell = self._admit(table, folded)
            if self._busy:
                return cell  # perhaps not its own cell, see _admit
            if _ZERO in folded:
                table.remember_text(folded, cell)
            else:  # no number in it: likely to come again to the letter
                table.remember_message(message, cell)
        return cell

    def _find_format(self, format_string: str, severity: Severity) -> Cell:
        table = self._tables[severity_name(severity)]
        cell = self._admit(table, fold(percent_format_to_message(format_string)))
        if not self._busy:  # else perhaps not its own cell, see _admit
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
            if cell.left == 0 and cell.steady == steady: cell.kept += 1; cell.base += gap + 1; cell.left = gap; return _kept_at(cell, cell.rate, self._policy_name)  # noqa: E501, E701, E702  # fmt: skip
        if _getpid() != self._pid:
            reset_if_forked()  # the host forked behind Python's back; never lock before this
        with self._lock:
            if self._busy:
                return self._settle_reentered(cell)
            self._busy = True
            try:
                if cell.retired or cell.table is not self._tables[cell.table.severity]:
                    cell = self._readmit(cell)
                decision = self._settle_alone(cell, message)
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
        cell.base += 1
        cell.kept += 1
        return Decision(cell.signature, 1.0, 1.0, "reentered", self._policy_name)

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
        cell.steady = 0.0  # first: from here on nobody else draws a gap
        left, cell.left = cell.left, 0  # one line: no record of another thread falls in between
        cell.base -= left
        if left <= KEEP_ALL:
            cell.kept += KEEP_ALL - left

    def _judge(self, cell: Cell, *, wants_size: bool) -> Decision | None:
        """The rules, for the record just counted; its probability was fixed by `_arm`."""
        rate, rule = cell.rate, cell.rule
        if rule == "rate":
            if rate <= _LEAST_RATE or (not self._counts_down and self._random() >= rate):
                return cell.if_dropped
            if self._window is not None:
                chance = self._window.chance()
                if chance < 1.0 and self._random() >= chance:
                    cell.capped += 1
                    return cell.if_dropped
                rate *= chance
                self._window.take()
        elif rule == "first" and self._window is not None:
            self._window.take()
        cell.kept += 1
        if cell.if_dropped is not None and rule == "rate":
            rate, rule = 1.0, "shadow"
        unmeasured = cell if wants_size and (cell.sized < 32 or cell.base & 15 == 0) else None
        return Decision(cell.signature, rate, 1.0 / rate, rule, self._policy_name, unmeasured)

    def _arm(self, cell: Cell) -> None:
        """Draw the next gap of a cell whose gap is closed. What the hot path reads goes last."""
        cell.rate, cell.rule = self._rate_and_rule(cell)
        if self._shadow != (cell.if_dropped is not None):
            self._toggle_shadow(cell)
        elif self._shadow:
            cell.if_dropped = self._sure(cell, "shadow")  # of the policy in force now
        left = self._draw(cell)
        shadowed = self._shadow and cell.rule == "rate"
        rule = "shadow" if shadowed else cell.rule
        cell.if_kept = self._sure(cell, rule) if left == KEEP_ALL else None
        cell.base += left
        cell.left = left
        if cell.rule == "rate" and not self._shadow and self._window is None and self._counts_down:
            cell.steady = _steady(cell.rate)  # last: from here on others may draw

    def _toggle_shadow(self, cell: Cell) -> None:
        dropped = cell.base - cell.kept
        if self._shadow:
            cell.shadowed -= dropped
            cell.if_dropped = self._sure(cell, "shadow")
        else:
            cell.shadowed += dropped
            cell.if_dropped = None

    def _sure(self, cell: Cell, rule: str) -> Decision:
        return Decision(cell.signature, 1.0, 1.0, rule, self._policy_name)

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
        if not self._counts_down or cell.rule == "first":
            return 0
        if rate >= 1.0:
            guarded = cell.rule == "rate" and self._window is not None
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
        with self._lock:
            before, self._policy = self._policy, policy
            self._policy_name = _name_of(policy)
            self._set_limit(policy)
            self._shadow = policy is not None and policy.mode == "shadow"
        if _protection_of(before) != _protection_of(policy):
            self._in_batches(self._follow_words)
            self._forget_texts()  # those of the overflow buckets were sorted by the old words
        self._in_batches(self._rearm)

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
        """
        Keep everything of one pattern, severity or logger (or all of the service) for a while.

        It ends by itself. Counts and weights stay true: what it keeps, it keeps for certain.

        Args:
            pattern: A signature, or a message of the pattern.
            severity: Only records of this severity.
            logger: Records of this logger and its children; not together with *pattern* and
                *severity*. What it saves from being dropped has the weight 0.
            minutes: How long, above 0, at most 1440.

        Raises:
            ConfigurationError: A parameter is wrong; the message names it.
        """
        if isinstance(minutes, bool) or not 0 < minutes <= 1440:
            raise ConfigurationError(f"minutes lies above 0 and at most at 1440, not {minutes!r}")
        until = self._clock() + 60.0 * minutes
        if logger is not None:
            if pattern is not None or severity is not None:
                raise ConfigurationError("give a logger, or a pattern and severity, not both")
            self.boosted_loggers = {**self.boosted_loggers, logger: until}
            return
        name = None if severity is None else severity_name(severity)
        self._full = {**self._full, (_signature_of(pattern), name): until}
        self._in_batches(self._rearm)

    def is_boosted(self, logger: str) -> bool:
        """Whether `boost(logger=...)` holds for the logger of this name."""
        return any(
            logger == name or not name or logger.startswith(f"{name}.")
            for name in self.boosted_loggers
        )

    def _end_boosts(self) -> None:
        """Forget what is over (in the worker's thread)."""
        self.boosted_loggers = {k: v for k, v in self.boosted_loggers.items() if v > self._ticked}
        if any(until <= self._ticked for until in self._full.values()):
            self._full = {k: v for k, v in self._full.items() if v > self._ticked}
            self._in_batches(self._rearm)

    def explain(self, message: str, severity: str = "INFO") -> Explanation:
        """
        What would happen to a record with this message, and why. Counts nothing.

        Args:
            message: The finished message, or a signature of a pattern that was seen.
            severity: A level name in any case, or a level number.
        """
        table = self._tables[severity_name(severity)]
        cell = table.index.get(message)
        if cell is None:
            key = key_of_folded(fold(str(message)))
            signature = signature_of_key(key)
            cell = table.index.get(signature)
        if cell is None:
            cell = Cell(table, signature, key, self._clock())
            cell.protected = self._protects(signature, key)
        seen, kept = counts_of(cell)
        rate, rule = self._rate_and_rule(cell) if not seen else (cell.rate, cell.rule)
        return Explanation(
            signature=cell.signature,
            template=template_of_key(cell.key),
            severity=table.severity,
            rule=rule,
            rate=rate,
            policy=self._policy_name,
            shadow=self._shadow,
            seen=seen,
            kept=kept + shadowed_of(cell, seen, kept),
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
            rate = cell.rate / self._scale if cell.rule == "rate" else cell.rate
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
        cell.retired = True  # first: a finalizer that logs in the middle of this is sent on too
        self._close_gap(cell)
        fresh = self._drain_cell(cell)
        if fresh is not None:
            self._set_aside(fresh)
        self._departed = _sum_up([cell], self._departed)
        cell.base = cell.kept = cell.capped = cell.shadowed = 0
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
        waiting[gone.signature] = gone if known is None else _joined(known, gone)

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
        return list(_merged([*gone.values(), *fresh]).values())

    def _drain_cell(self, cell: Cell) -> PatternStats | None:
        seen, kept = counts_of(cell)
        kept += shadowed_of(cell, seen, kept)
        count, cell.reported = seen - cell.reported, seen
        kept_now, cell.reported_kept = kept - cell.reported_kept, kept
        if count == 0:
            return None
        if seen != cell.ticked:
            cell.last_seen = self._clock()
        return _stats(cell, count, kept_now, self._wall())

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
                collected.append(_stats(cell, seen, kept, wall))

        self._in_batches(collect)
        return _merged(collected)

    def totals(self) -> Totals:
        """Exact totals since the process started, evicted patterns included."""
        totals = self._totals_in_batches() or self._totals_at_once()
        doubtful = self._doubtful
        return Totals(
            totals.seen + doubtful,
            totals.kept + doubtful,
            totals.dropped,
            totals.capped,
            totals.shadowed,
        )

    def _totals_in_batches(self) -> Totals | None:
        """Without holding the lock for long; None if a pattern has been evicted meanwhile."""
        with self._lock:
            departed, cells = self._departed, self._every_cell()
        totals = departed
        for start in range(0, len(cells), _BATCH):
            with self._lock:
                totals = _sum_up(cells[start : start + _BATCH], totals)
        return totals if self._departed is departed else None

    def _totals_at_once(self) -> Totals:
        with self._lock:
            return _sum_up(self._every_cell(), self._departed)

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


def _protection_of(
    policy: SamplingPolicy | None,
) -> tuple[tuple[str, ...], frozenset[str]] | None:
    return None if policy is None else (policy.patterns, policy.protected)


def _sum_up(cells: Iterable[Cell], start: Totals) -> Totals:
    seen, kept, capped, shadowed = start.seen, start.kept, start.capped, start.shadowed
    for cell in cells:
        cell_seen, cell_kept = counts_of(cell)
        seen += cell_seen
        kept += cell_kept
        capped += cell.capped
        shadowed += shadowed_of(cell, cell_seen, cell_kept)
    return Totals(seen, kept, seen - kept - capped, capped, shadowed)


def _stats(cell: Cell, count: int, kept: int, wall: float) -> PatternStats:
    """*wall* is what makes a time of day out of monotonic seconds."""
    overflow = cell.signature == OVERFLOW_SIGNATURE
    return PatternStats(
        signature=cell.signature,
        template=OVERFLOW_TEMPLATE if overflow else template_of_key(cell.key),
        count=count,
        kept=kept,
        bytes=round(count * cell.mean_size()),
        severity_distribution=MappingProxyType({cell.table.severity: count}),
        first_seen=_utc(cell.first_seen + wall),
        last_seen=_utc(cell.last_seen + wall),
        sampling_rate=cell.rate,
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _merged(entries: Iterable[PatternStats]) -> dict[str, PatternStats]:
    """One entry a signature; the rate shown is the lowest of its severities."""
    merged: dict[str, PatternStats] = {}
    for entry in entries:
        known = merged.get(entry.signature)
        merged[entry.signature] = entry if known is None else _joined(known, entry)
    return merged


def _joined(a: PatternStats, b: PatternStats) -> PatternStats:
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
