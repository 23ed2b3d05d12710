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
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal

from lipservice._fork import on_fork
from lipservice.exceptions import ConfigurationError

if TYPE_CHECKING:
    from lipservice.patterns import Cell

#: Randomness and thresholds have 56 bits, as OpenTelemetry's consistent probability sampling.
_BITS: Final = 56
_RANGE: Final = 1 << _BITS
_MASK: Final = _RANGE - 1

#: Records of one pattern that one random number may decide; the rest of them draw for themselves.
COHERENT_RECORDS: Final = 100

#: Bytes that all rings of the process may hold.
_MAX_HELD_BYTES: Final = 64 * 1024 * 1024

Release = Callable[[], None]


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


class _Recorders:
    """The counters of all rings of this process."""

    def __init__(self) -> None:
        self._reset_after_fork()
        on_fork(self)

    def _reset_after_fork(self) -> None:
        self.lock = threading.RLock()  # re-entrant: a signal handler may log in the middle
        self.totals = RecorderTotals()
        self.bytes = 0

    def count(
        self, *, held: int = 0, released: int = 0, let_go: int = 0, evicted: int = 0, size: int = 0
    ) -> None:
        with self.lock:
            totals = self.totals
            totals.held += held
            totals.released += released
            totals.let_go += let_go
            totals.evicted += evicted
            self.bytes += size

    def snapshot(self) -> RecorderTotals:
        with self.lock:
            return replace(self.totals)


#: Scopes that are open; empty where requests are not used, so that asking costs nothing.
OPEN_SCOPES: Final[set[int]] = set()

_current: ContextVar[RequestScope | None] = ContextVar("lipservice_request", default=None)
_recorders: Final = _Recorders()


def current_scope() -> RequestScope | None:
    """The request that the caller is in, or None."""
    return _current.get() if OPEN_SCOPES else None


def recorder_totals() -> RecorderTotals:
    """A snapshot of what the flight recorders of this process did."""
    return _recorders.snapshot()


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
        randomness: 56 random bits that decide for all its records.
        limits: Bounds of its ring.
        clock: Monotonic seconds.
    """

    # No lock: every step is one atomic operation on the deque, so that neither a fork nor a
    # signal handler that logs can find one held.
    __slots__ = (
        "_bytes", "_clock", "_drawn", "_limits", "_pid", "_ring", "failed", "name", "randomness"
    )  # fmt: skip

    def __init__(
        self,
        name: str | None,
        randomness: int,
        limits: RecorderLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.randomness = randomness
        #: Whether everything is kept from now on.
        self.failed = False
        self._limits = limits
        self._clock = clock
        self._pid = os.getpid()
        self._ring: deque[tuple[Release, int, float]] = deque()
        self._bytes = 0
        self._drawn: dict[Cell, int] = {}

    def keeps(self, cell: Cell, rate: float) -> bool | None:
        """
        Whether a record of *cell* is kept at *rate*; None: draw for it alone.

        One random number R of the request is compared with the rate's rejection threshold,
        T = (1 - rate) * 2**56, as in OpenTelemetry's TraceState probability sampling: kept if
        R >= T. Rates nest: what is kept at 1 % is kept at 10 %. A request with very many records
        of one pattern would decide about all of them with one number; from the 101st on they draw
        for themselves, at the same rate.
        """
        drawn = self._drawn.get(cell, 0)
        if drawn >= COHERENT_RECORDS:
            return None
        self._drawn[cell] = drawn + 1
        return self.randomness >= _threshold(rate)

    def hold(self, release: Release, size: int) -> None:
        """Keep *release* (it writes the record) until the request ends."""
        limits = self._limits
        full = _recorders.bytes > _MAX_HELD_BYTES
        if full or size > limits.max_bytes or limits.max_records == 0:
            _recorders.count(evicted=1)
            return
        now = self._clock()
        self._ring.append((release, size, now))
        self._bytes += size
        _recorders.count(held=1, size=size)
        while self._is_over(now):
            self._pop(evicted=1)
        if self.failed:  # another task of the request has failed in the meantime
            self.keep()

    def keep(self) -> None:
        """Release what is held, in order, and keep all later records of the request."""
        self.failed = True
        if self._pid != os.getpid():
            self._ring.clear()  # inherited: the parent releases it
        oldest = self._clock() - self._limits.max_age
        while self._ring:
            late = self._ring[0][2] < oldest
            release = self._pop(evicted=late, released=not late)
            if release is not None and not late:
                _quietly(release)

    def close(self) -> None:
        """Let go of what is held."""
        if self._pid != os.getpid():
            self._ring.clear()
        while self._ring:
            self._pop(let_go=1)
        self._drawn.clear()

    def _is_over(self, now: float) -> bool:
        limits, ring = self._limits, self._ring
        if len(ring) > limits.max_records or self._bytes > limits.max_bytes:
            return True
        return bool(ring) and now - ring[0][2] > limits.max_age

    def _pop(self, **what: int) -> Release | None:
        try:
            release, size, _ = self._ring.popleft()
        except IndexError:  # another thread was faster
            return None
        self._bytes -= size
        _recorders.count(held=-1, size=-size, **what)
        return release


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
            trace agree. Default: that of OpenTelemetry's current span, if the application has
            imported OpenTelemetry; else random.
        limits: Bounds of its flight recorder; default: `RecorderLimits()`.
        root: Begin a request of its own even within another one, which goes on afterwards. For
            adapters, which know where a unit of work begins: should one before it never have
            ended (its server lost interest), nothing of that one gets into this one.

    Raises:
        ConfigurationError: *trace_id* is none.
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
        self._limits = limits or _DEFAULT_LIMITS
        self._token: Token[RequestScope | None] | None = None
        #: The request, once it has begun.
        self.scope: RequestScope | None = None

    def __enter__(self) -> RequestScope:
        outer = _current.get()
        if outer is not None and not self._root:
            self.scope = outer
            return outer
        randomness = self._randomness
        if randomness is None:
            randomness = _current_randomness()
        self.scope = scope = RequestScope(self._name, randomness, self._limits)
        OPEN_SCOPES.add(id(scope))
        self._token = _current.set(scope)
        return scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        scope = self.scope
        if scope is not None and isinstance(error, Exception):
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
            _current.set(None)
        OPEN_SCOPES.discard(id(scope))
        scope.close()


_DEFAULT_LIMITS: Final = RecorderLimits()


def threshold_text(rate: float) -> str:
    """OpenTelemetry's `sampling.threshold` for a rate: hex digits without trailing zeros."""
    return f"{_threshold(rate):014x}".rstrip("0") or "0"


def randomness_text(randomness: int) -> str:
    """OpenTelemetry's `sampling.randomness`: 14 hex digits."""
    return f"{randomness:014x}"


def _threshold(rate: float) -> int:
    return min(_MASK, max(0, round((1.0 - rate) * _RANGE)))


def _randomness_of(trace_id: object) -> int:
    text = trace_id if isinstance(trace_id, str) else ""
    try:
        number = int(text, 16)
    except ValueError:
        number = 0
    if len(text) != 32 or number == 0:
        raise ConfigurationError(f"trace_id is 32 hex digits, not all 0, not {trace_id!r:.80}")
    return number & _MASK


def _current_randomness() -> int:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        try:
            trace_id = trace.get_current_span().get_span_context().trace_id
        except Exception:
            trace_id = 0
        if trace_id:
            return int(trace_id) & _MASK
    return secrets.randbits(_BITS)


def _quietly(release: Release) -> None:
    with contextlib.suppress(Exception):  # a handler that fails says so by logging's own means
        release()
