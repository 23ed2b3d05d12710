"""
Requests: records that belong together are kept together, and a failed one keeps its whole story.

Within `with lipservice.request():` each record is still decided by its pattern's rate, but with one
random number for the whole request (see `RequestScope.keeps`), and what is dropped is held in a
small ring. When the request fails, the ring is released to the handlers it was meant for, in order
and before the error; otherwise it is let go.

The mathematics: a record's weight is fixed by its own draw. A record that was dropped and is
released later has the weight 0, as has one that is kept only because its request has failed
already. So the sum of weights does not depend on the outcome of any request, and stays unbiased.

A scope travels by `contextvars`: asyncio tasks and threads that copy the context share it.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import Context, ContextVar, Token, copy_context
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from lipservice._fork import on_fork, reset_if_forked
from lipservice.exceptions import ConfigurationError
from lipservice.patterns import HOLDING

if TYPE_CHECKING:
    from lipservice._throttle import MinuteWindow
    from lipservice.patterns import Cell, Row

#: Randomness and thresholds have 56 bits, as OpenTelemetry's consistent probability sampling.
_BITS: Final = 56
_RANGE: Final = 1 << _BITS
_MASK: Final = _RANGE - 1

#: Below this a rate keeps nothing.
LEAST_RATE: Final = 1e-12

#: Records of one pattern that one random number may decide; the rest of them draw for themselves.
COHERENT_RECORDS: Final = 100

#: Bytes that all rings of the process may hold.
_MAX_HELD_BYTES: Final = 64 * 1024 * 1024

#: Requests of one trace id that it decides in a process; the rest of them draw their own number.
COHERENT_REQUESTS: Final = 100
_MAX_TRACES: Final = 4096
_MAX_THRESHOLDS: Final = 4096

Release = Callable[[], object]


@dataclass(frozen=True, slots=True)
class RecorderLimits:
    """Bounds of one request's ring; what passes them goes, the oldest first, and is counted."""

    #: Records, at least 0; 0 holds nothing.
    max_records: int = 500
    #: Bytes (estimated), at least 0.
    max_bytes: int = 1024 * 1024
    #: Seconds that a record is held, above 0.
    max_age: float = 120.0

    def __post_init__(self) -> None:
        for name in ("max_records", "max_bytes", "max_age"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise ConfigurationError(f"{name} is a number of at least 0, not {value!r}")


@dataclass(slots=True)
class RecorderTotals:
    """What the flight recorders of this process did."""

    #: Records that are held at this moment.
    held: int = 0
    #: Records that were released because their request failed or was marked.
    released: int = 0
    #: Records that were let go with their request.
    let_go: int = 0
    #: Records that were let go early: a bound was reached.
    evicted: int = 0


class _Random:
    """
    Where requests get their numbers: a generator of our own, seeded anew in a forked child.

    Not the shared one of `random`: an application that seeds it would have all of its processes
    choose the same requests.
    """

    def __init__(self) -> None:
        self.source = random.Random()
        on_fork(self)

    def _reset_after_fork(self) -> None:
        self.source.seed()


_random: Final = _Random()


class _Recorders:
    """The counters of all rings of this process, under `HOLDING`."""

    def __init__(self) -> None:
        self._reset_after_fork()
        on_fork(self)

    def _reset_after_fork(self) -> None:
        self.pid = os.getpid()
        self.totals = RecorderTotals()
        self.bytes = 0


#: A record in a ring: how to write it, its size, since when it is held, in which context to write
#: it, and where it is counted. A plain tuple: one is made for each record that a request drops.
_Held: TypeAlias = "tuple[Release, int, float, Context, Row | None]"

#: What records have to look for, since this process has had it: "requests", "boosted loggers".
#: While it is empty, the ordinary way of a record costs one look at it.
WATCHED: Final[set[str]] = set()

_current: ContextVar[RequestScope | None] = ContextVar("lipservice_request", default=None)
_recorders: Final = _Recorders()


def current_scope() -> RequestScope | None:
    """The request that the caller is in, or None."""
    scope = _current.get()
    # What a left-over task logs belongs to no request, nor what a forked process does before it
    # begins one: those of its parent are the parent's, and one of a pool would never leave.
    if scope is None or scope.closed or scope._pid != _recorders.pid:  # noqa: SLF001 - this module
        return None
    return scope


def recorder_totals() -> RecorderTotals:
    """A snapshot of what the flight recorders of this process did."""
    with HOLDING.lock:
        return replace(_recorders.totals)


def keep_request() -> None:
    """Release what the current request holds and keep the rest of it; without one, nothing."""
    scope = current_scope()
    if scope is not None:
        scope.keep()


class RequestScope:
    """
    One request, job or other unit of work. Thread-safe.

    Args:
        name: What it is called in health and on records ("GET /cart"); may be set later.
        randomness: 56 random bits that decide for all its records; None: those of the trace that
            OpenTelemetry has when they are first asked for, else random ones.
        limits: Bounds of its ring.
        clock: Monotonic seconds.
    """

    __slots__ = (
        "_chances", "_clock", "_drawn", "_limits", "_number", "_pid", "closed",
        "failed", "name", "ring",
    )  # fmt: skip

    def __init__(
        self,
        name: str | None,
        randomness: int | None,
        limits: RecorderLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._number = randomness
        self._pid = _recorders.pid
        #: Whether everything is kept from now on.
        self.failed = False
        #: Whether it has ended.
        self.closed = False
        #: What it holds; None until it has held something.
        self.ring: Ring | None = None
        self._limits = limits
        self._clock = clock
        self._drawn: dict[Cell, int] | None = None
        self._chances: dict[MinuteWindow, float] | None = None

    # ------------------------------------------------------------------ the draw

    @property
    def randomness(self) -> int:
        """The number; drawn when it is asked for the first time: a span may have begun by then."""
        number = self._number
        if number is None:
            number = _current_randomness()
            with HOLDING.lock:
                if self._number is None:  # no other thread was faster
                    self._number = number
                number = self._number
        return number

    def decides(self, cell: Cell) -> bool:
        """
        Whether the request's number decides about this record of *cell*; counts it.

        A request with very many records of one pattern would decide about all of them with one
        number. From the 101st on they draw for themselves, at the same rate.
        """
        drawn = self._drawn
        if drawn is None:
            drawn = self._drawn = {}
        before = drawn.get(cell, 0)
        drawn[cell] = before + 1
        return before < COHERENT_RECORDS

    def keeps(self, rate: float) -> bool:
        """
        Whether the request's number keeps a record of this rate.

        One random number R of the request is compared with the rate's rejection threshold,
        T = (1 - rate) * 2**56, as in OpenTelemetry's TraceState probability sampling: kept if
        R >= T. Rates nest: what is kept at 1 % is kept at 10 %.
        """
        number = self._number
        if number is None:
            number = self.randomness
        return rate >= LEAST_RATE and number >= _threshold(rate)

    def chance(self, window: MinuteWindow) -> float:
        """
        By how much the limit scales the rates of this request, 0 to 1.

        As it was at the request's first look: later the room depends on what the request's own
        number has kept, and a rate that depends on the number would bias the weights.
        """
        chances = self._chances
        if chances is None:
            chances = self._chances = {}
        chance = chances.get(window)
        if chance is None:
            chance = chances[window] = window.chance()
        return chance

    # ------------------------------------------------------------------ the flight recorder

    @property
    def holds(self) -> bool:
        """Whether its limits let it hold anything."""
        return self._limits.max_records > 0 and self._limits.max_bytes > 0

    def hold(self, release: Release, size: int, row: Row | None = None) -> None:
        """
        Hold a record that was dropped until the request ends.

        Args:
            release: Writes the record. It is called in a copy of the caller's context, so that
                what asks for a trace id or another context variable finds that of the log call.
            size: Bytes that it takes, about.
            row: The row of the ledger that counts what becomes of it.
        """
        (self.ring or self._new_ring()).put(release, size, row)
        if self.failed:  # another task of the request has failed in the meantime
            self.keep()

    def _new_ring(self) -> Ring:
        with HOLDING.lock:
            if self.ring is None:  # no other thread was faster
                self.ring = Ring(self._limits, self._clock)
                if self.closed:
                    self.ring.close()
            return self.ring

    def refuse(self) -> None:
        """Count a record that was dropped and cannot be held."""
        with HOLDING.lock:
            _recorders.totals.evicted += 1

    def pass_on(self, row: Row | None = None) -> None:
        """Count a record that was dropped but is written, since the request has failed before."""
        with HOLDING.lock:
            _recorders.totals.released += 1
            if row is not None:
                row.count(released=1)

    def keep(self) -> None:
        """Release what is held, in order, and keep all later records of the request."""
        self.failed = True
        ring = self.ring
        while ring is not None and (held := ring.next_to_release()) is not None:
            release, _, _, context, _ = held
            context.run(_quietly, release)

    def close(self) -> None:
        """Let go of what is held; the request has ended."""
        self.closed = True
        if self.ring is not None:
            self.ring.close()
        self._drawn = None


class Ring:
    """
    The dropped records of one request, the oldest first, within bounds. Thread-safe.

    Its lock is the one of all rings, re-entrant and made anew in a forked child; a child has
    nothing of what its parent holds.
    """

    __slots__ = ("_clock", "_closed", "_limits", "_records", "tally")

    def __init__(self, limits: RecorderLimits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._closed = False
        self._start_afresh()

    def __del__(self) -> None:
        if not self._closed:  # its request was never left: its server lost interest, say
            with contextlib.suppress(Exception):  # the interpreter may be ending
                self.tally.let_go()

    def _start_afresh(self) -> None:
        self._records: deque[_Held] = deque()
        #: What of it is counted.
        self.tally = _Tally()

    def put(self, release: Release, size: int, row: Row | None) -> None:
        """Hold a record, at the price of the oldest ones where a bound is reached."""
        if self.tally.pid != _recorders.pid:
            self._start_afresh()
        now, limits = self._clock(), self._limits
        held = (release, size, now, copy_context(), row)
        gone: list[_Held] = []  # outlives the lock: the end of what it holds may run code
        with HOLDING.lock:
            if self._closed or not self._fits(size):
                _recorders.totals.evicted += 1
                return
            tally, records = self.tally, self._records
            tally.add(size, row)
            records.append(held)
            if (
                len(records) > limits.max_records
                or tally.bytes > limits.max_bytes
                or (records and records[0][2] < now - limits.max_age)
            ):
                self._evict(now, gone)

    def next_to_release(self) -> _Held | None:
        """The oldest record that is not too old; None: there is none left."""
        if self.tally.pid != os.getpid():
            self._start_afresh()  # what was inherited, the parent releases
        gone: list[_Held | None] = []  # as in `put`
        with HOLDING.lock:
            oldest = self._clock() - self._limits.max_age
            while self._is_older(oldest):
                gone.append(self._take(evicted=1))
            return self._take(released=1)

    def close(self) -> None:
        """Let go of all, and hold nothing any more."""
        self._closed = True
        self._records = deque()  # first: what comes in the middle of this finds nothing
        self.tally.let_go()

    # Any of these may be interrupted by a signal handler that ends the request: then there is
    # nothing left to look at or to take, and the tally has been settled.

    def _fits(self, size: int) -> bool:
        limits = self._limits
        if size > limits.max_bytes or limits.max_records == 0:
            return False
        return _recorders.bytes + size <= _MAX_HELD_BYTES

    def _evict(self, now: float, gone: list[_Held]) -> None:
        limits = self._limits
        while (
            len(self._records) > limits.max_records
            or self.tally.bytes > limits.max_bytes
            or self._is_older(now - limits.max_age)
        ):
            held = self._take(evicted=1)
            if held is None:
                return
            gone.append(held)

    def _is_older(self, than: float) -> bool:
        try:
            return self._records[0][2] < than
        except IndexError:
            return False

    def _take(self, *, evicted: int = 0, released: int = 0) -> _Held | None:
        try:
            held = self._records.popleft()
        except IndexError:
            return None
        if self.tally.remove(held[1], held[4], released):
            _recorders.totals.evicted += evicted
        return held


class _Tally:
    """What a ring holds, as counted. Its methods want `HOLDING`."""

    __slots__ = ("bytes", "pid", "rows")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.bytes = 0
        self.rows: dict[Row | None, int] = {}

    def add(self, size: int, row: Row | None) -> None:
        rows = self.rows
        rows[row] = rows.get(row, 0) + 1
        self.bytes += size
        _recorders.bytes += size
        _recorders.totals.held += 1
        if row is not None:
            row.count(1)

    def remove(self, size: int, row: Row | None, released: int) -> bool:
        """Whether it was in the tally still."""
        held = self.rows.get(row, 0)
        if not held:
            return False
        self.rows[row] = held - 1
        self.bytes -= size
        _recorders.bytes -= size
        _recorders.totals.held -= 1
        _recorders.totals.released += released
        if row is not None:
            row.count(held=-1, released=released)
        return True

    def let_go(self) -> None:
        """All of it; once."""
        if self.pid != os.getpid():
            return
        with HOLDING.lock:
            size, self.bytes = self.bytes, 0
            rows, self.rows = self.rows, {}
            _recorders.bytes -= size
            for row, records in rows.items():
                _recorders.totals.held -= records
                _recorders.totals.let_go += records
                if row is not None:
                    row.count(held=-records)


class request:  # noqa: N801 - used as a function: `with lipservice.request():`
    """
    `with lipservice.request("GET /cart"):` one unit of work; its records are kept or dropped
    together, and all of them are kept if it logs an ERROR, raises, or is marked by
    `keep_request()`.

    Within another request it joins that one, unless it is a *root*. Usable with `with` and
    `async with`, once each.

    Args:
        name: What it is called.
        trace_id: W3C trace id (32 hex digits); its last 56 bits decide, so that all services of a
            trace agree. Default: that of OpenTelemetry's current span (when the first record is
            decided by it), if the application has imported OpenTelemetry; else random.
        limits: Bounds of its flight recorder; default: `RecorderLimits()`.
        root: Begin a request of its own even within another one, which goes on afterwards. For
            adapters, which know where a unit of work begins: should one before it never have
            ended (its server lost interest), nothing of that one gets into this one.

    Raises:
        ConfigurationError: *trace_id* is none, or *limits* is no `RecorderLimits`.
    """

    __slots__ = ("_limits", "_name", "_randomness", "_root", "_token", "scope")

    def __init__(
        self,
        name: str | None = None,
        *,
        trace_id: str | None = None,
        limits: RecorderLimits | None = None,
        root: bool = False,
    ) -> None:
        self._name = name
        self._root = root
        self._randomness = None if trace_id is None else _randomness_of(trace_id)
        self._limits = _DEFAULT_LIMITS if limits is None else checked(limits)
        self._token: Token[RequestScope | None] | None = None
        #: The request, once it has begun.
        self.scope: RequestScope | None = None

    def __enter__(self) -> RequestScope:
        reset_if_forked()  # a server that forks behind Python's back is noticed here at last
        outer = current_scope()
        if outer is not None and not self._root:
            self.scope = outer
            return outer
        self.scope = scope = RequestScope(self._name, self._randomness, self._limits)
        if not WATCHED:
            WATCHED.add("requests")
        self._token = _current.set(scope)
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        scope = self.scope
        if error is not None and scope is not None and _is_failure(error):
            scope.keep()
        if scope is not None and self._token is not None:
            self._leave(scope, self._token)
        return False

    async def __aenter__(self) -> RequestScope:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        return self.__exit__(kind, error, traceback)

    def _leave(self, scope: RequestScope, token: Token[RequestScope | None]) -> None:
        self._token = None
        try:
            _current.reset(token)
        except ValueError:  # left in another context than it was entered in (a generator's, say)
            if _current.get() is scope:  # and not another request, which is that context's own
                _current.set(None)
        scope.close()


def _is_failure(error: BaseException) -> bool:
    """What else is not an `Exception` stops a unit of work: cancelling it, closing a generator."""
    if isinstance(error, SystemExit):
        return not (error.code is None or (isinstance(error.code, int) and error.code == 0))
    return isinstance(error, Exception)


_DEFAULT_LIMITS: Final = RecorderLimits()


def checked(limits: RecorderLimits | None) -> RecorderLimits:
    """*limits*, or the default ones; a ConfigurationError if they are something else."""
    if limits is None:
        return _DEFAULT_LIMITS
    if not isinstance(limits, RecorderLimits):
        raise ConfigurationError(f"limits is a RecorderLimits, not {limits!r:.80}")
    return limits


@contextlib.contextmanager
def deferring() -> Iterator[list[Release]]:
    """
    What `defer` is asked for while the block runs is put into this list instead of done.

    For an adapter that has to run the application's processors on a record in order to hold it.
    """
    effects: list[Release] = []
    token = _deferred.set(effects)
    try:
        yield effects
    finally:
        _deferred.reset(token)


def defer(effect: Release) -> bool:
    """
    Have *effect* (a processor's export of a record, say) wait for the record's release.

    Returns:
        False: the record is not being held, so do it now.
    """
    effects = _deferred.get()
    if effects is None:
        return False
    effects.append(effect)
    return True


_deferred: Final[ContextVar[list[Release] | None]] = ContextVar("lipservice_deferred", default=None)


def threshold_text(rate: float) -> str:
    """OpenTelemetry's `sampling.threshold` for a rate: hex digits without trailing zeros."""
    return f"{_threshold(rate):014x}".rstrip("0") or "0"


def randomness_text(randomness: int) -> str:
    """OpenTelemetry's `sampling.randomness`: 14 hex digits."""
    return f"{randomness:014x}"


def _threshold(rate: float) -> int:
    threshold = _thresholds.get(rate)
    if threshold is None:
        if len(_thresholds) >= _MAX_THRESHOLDS:
            _thresholds.clear()
        threshold = _thresholds[rate] = min(_MASK, max(0, round((1.0 - rate) * _RANGE)))
    return threshold


_thresholds: Final[dict[float, int]] = {}


def _randomness_of(trace_id: object) -> int:
    text = trace_id if isinstance(trace_id, str) else ""
    try:
        number = int(text, 16)
    except ValueError:
        number = 0
    if len(text) != 32 or number == 0:
        raise ConfigurationError(f"trace_id is 32 hex digits, not all 0, not {trace_id!r:.80}")
    return _spread(number & _MASK)


def _spread(randomness: int) -> int:
    """
    A trace's number, unless it has decided about many requests already.

    One id over a million requests (a scheduler's, say) would keep all of them or none.
    """
    uses = _uses.get(randomness, 0) + 1
    if uses == 1 and len(_uses) >= _MAX_TRACES:
        _uses.clear()
    _uses[randomness] = uses
    return randomness if uses <= COHERENT_REQUESTS else _random.source.getrandbits(_BITS)


_uses: Final[dict[int, int]] = {}


def _current_randomness() -> int:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        try:
            trace_id = trace.get_current_span().get_span_context().trace_id
        except Exception:
            trace_id = 0
        if trace_id:
            return _spread(int(trace_id) & _MASK)
    return _random.source.getrandbits(_BITS)


def _quietly(release: Release) -> None:
    with contextlib.suppress(Exception):  # a handler that fails says so by logging's own means
        release()
