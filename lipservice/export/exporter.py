"""
PostHogOTLPExporter: batches of entries, sent by one background thread, none lost uncounted.

    submit (any thread) -> Lanes -> [worker] encode in slices -> batch -> POST -> judge -> settle

Rules. A caller appends to the lanes and may wake the worker; it never waits, and nothing here
raises into it. An entry is at any time in exactly one place: in the lanes, in a batch in hand, in
the spool, or counted as delivered or as dropped for a reason, so that

    emitted + recovered == delivered + sum(dropped) + queued + spooled.

The worker lets go of the interpreter after each millisecond of its own work, because a
thread that wants it back would otherwise wait for the switch interval (5 ms).
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import socket
import sys
import threading
import time
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

from lipservice._answers import HTTPAnswer, Problem
from lipservice._complaints import Complaints
from lipservice._fork import on_fork
from lipservice._version import __version__
from lipservice._worker import Task, Worker, is_own_thread
from lipservice.exceptions import ConfigurationError
from lipservice.export import capture, losses
from lipservice.export.capture import Entry
from lipservice.export.config import CURRENT_CONTEXT, LogContext, PostHogConfig
from lipservice.export.http import Action, Connection, Verdict, judge
from lipservice.export.lanes import Lanes
from lipservice.export.losses import Loss, Losses
from lipservice.export.otlp import (
    Item,
    RecordEncoder,
    assemble,
    encode_resource,
    partial_success,
    time_of,
    with_original_time,
)
from lipservice.export.redaction import Nothing, Redactor
from lipservice.export.spool import Spool, spool_of
from lipservice.severity import OTEL_NUMBERS, severity_name

Post = Callable[[bytes, Mapping[str, str], float], HTTPAnswer]

_TASK: Final = "export"
_SLICE: Final = 32
#: Seconds of work after which the worker lets other threads run, and how long it sleeps then.
_WORK: Final = 0.001
_BREATH: Final = 0.00002
_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 30.0
_FLUSH_LOOK: Final = 0.005
#: PostHog replaces the time of a record that is 24 hours old; an hour is left for its way.
_TOO_OLD: Final = 23 * 3600.0
#: Part of the shutdown's time that is kept for writing the spool.
_SPOOL_TIME: Final = 0.3

_logger: Final = logging.getLogger("lipservice")


class Done:
    """What `start`, `stop` and `export_log` return: it may be awaited, and need not be."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        """Nothing to wait for."""
        return
        yield  # makes this a generator, which is what `await` runs


_DONE: Final = Done()


@dataclass(slots=True)
class _Batch:
    """Records that go out in one request, and how often that was tried."""

    resource: bytes
    items: list[Item]
    tries: int = 0
    #: The spool's file that they were read from.
    path: Any = None


@dataclass(slots=True)
class _Counts:
    """What became of the entries that the worker took."""

    taken: int = 0
    delivered: int = 0
    recovered: int = 0
    batches: int = 0
    requests: int = 0
    retries: int = 0
    bytes_uncompressed: int = 0
    bytes_on_the_wire: int = 0


class PostHogOTLPExporter:
    """
    Sends log records to PostHog, or to any receiver of OTLP over HTTP, in the background.

    Thread-safe, fork-safe, and safe to call from signal handlers and finalizers. The thread
    starts with the first record. Nothing raises after construction.

    Args:
        config: Where to send to and how.
        clock: Monotonic seconds.
        now: Seconds since the epoch.
        draw: Uniform random numbers in [0, 1), for the jitter of retries.
        post: Sends a body with headers within so many seconds; default: over the network.
        complaints: Where to say what is wrong; default: the logger `lipservice`.
    """

    def __init__(
        self,
        config: PostHogConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
        post: Post | None = None,
        complaints: Complaints | None = None,
    ) -> None:
        if not isinstance(config, PostHogConfig):
            raise ConfigurationError("config: must be a PostHogConfig")
        self._config = config
        self._clock = clock
        self._now = now
        self._draw = draw
        self._connection = Connection(config.url, clock)
        self._post = post or self._connection.post
        self._complaints = complaints or Complaints()
        self._redactor = (
            Redactor(config.redact_keys, config.redact_patterns) if config.redact else Nothing()
        )
        self._closed = False
        self._losses = Losses()
        self._spool: Spool | None = spool_of(config, now)
        self._reset_after_fork()
        self._worker = self._new_worker()
        on_fork(self)
        _exporters[id(self)] = weakref.ref(self, _forgotten(id(self)))
        losses.register(id(self), self._losses)

    def _reset_after_fork(self) -> None:
        """The child sends what it logs itself; what it inherited is the parent's to send."""
        self._losses.reset()
        self._lanes = Lanes(self._config.max_queue_size, self._losses.overflowed)
        self._wake_at = self._config.batch_size - 1
        self._awake = False
        self._counts = _Counts()
        self._pending: deque[_Batch] = deque()
        self._in_flight: _Batch | None = None
        self._encoding = 0
        self._encoder = RecordEncoder(self._config, self._redactor, self._clock)
        self._resource = b""
        # Between the worker and `stop`. Reentrant: a finalizer in the worker may call `stop`.
        self._settling = threading.RLock()
        self._rescued = False
        self._flush_at = self._clock() + self._config.flush_interval
        self._flush_all = False
        self._not_before = 0.0
        self._asked_to_wait = False
        self._failures = 0
        self._refused = ""
        self._bearer = ""
        self._adopted = False
        self._lingering_until: float | None = None
        self._connection.forget()
        if self._spool is not None:
            self._spool.forget()

    def _new_worker(self) -> Worker:
        task = Task(
            name=_TASK,
            run=self._run,
            first=self._first_pause,
            interval=self._config.flush_interval,
        )
        return Worker([task], final=self._final, name="lipservice-export", clock=self._clock)

    # ------------------------------------------------------------------ called by anyone

    @property
    def config(self) -> PostHogConfig:
        """What this exporter was made with."""
        return self._config

    def export_log(
        self,
        message: str,
        severity: str | int = "INFO",
        timestamp: datetime | None = None,
        context: LogContext | None = None,
        **kwargs: Any,
    ) -> Done:
        """
        Send one record; returns at once, raises nothing.

        Args:
            message: The record's body.
            severity: A name in any case, or a level number of `logging`; unknown is INFO.
            timestamp: When it happened; None: now. Without a time zone it is local time.
            context: Whom it belongs to; completed from `LogContext.use` and OpenTelemetry.
            **kwargs: The record's attributes. `exc_info` (an exception, a triple, True) is sent
                as the exception; `logger` is the logger's name.

        Returns:
            Something that may be awaited, and need not be.
        """
        if is_own_thread():
            return _DONE
        logger = kwargs.pop("logger", "") if kwargs else ""
        exception = capture.exception_text(kwargs.pop("exc_info", None)) if kwargs else None
        attributes, size = capture.fields_of(kwargs) if kwargs else ((), 0)
        text = message if type(message) is str else capture.text_of(message)
        size += len(text) + (len(exception[2]) if exception else 0)
        entry = (
            self._now() if timestamp is None else _seconds(timestamp, self._now),
            _numbers.get(severity) or OTEL_NUMBERS[severity_name(severity)],
            "",
            logger if type(logger) is str else capture.text_of(logger),
            text,
            None,
            None,
            attributes,
            "",
            0,
            "",
            capture.current_trace() if "opentelemetry.trace" in sys.modules else None,
            _complete(context),
            exception,
        )
        self.submit(cast("Entry", entry), 1 + size // capture.SLOT_CHARS)
        return _DONE

    def submit(self, entry: Entry, places: int = 1) -> None:
        """
        Queue an entry that an adapter has made.

        Args:
            entry: See `lipservice.export.capture`.
            places: How many places of the queue it takes.
        """
        if self._closed:
            self._losses.late.add[entry[1]]()
            return
        self._worker.ensure_started()
        if self._lanes.put(entry, places) >= self._wake_at and not self._awake:
            self._awake = True
            self._worker.wake(_TASK)

    def miss(self) -> None:
        """Count a record that an adapter could not read."""
        self._losses.missed.add[0]()  # not even its severity is known

    def start(self) -> Done:
        """Start the background thread now, also again after `stop`; not needed otherwise."""
        if self._closed:
            self._worker = self._new_worker()
            self._closed = self._rescued = self._adopted = False
            self._refused = ""
            self._not_before = 0.0
        self._worker.ensure_started()
        return _DONE

    def flush(self, timeout: float | None = None) -> bool:
        """
        Send what is queued and wait for it.

        Args:
            timeout: Seconds to wait, at most; None: `shutdown_timeout`.

        Returns:
            Whether everything that was queued is settled: delivered, dropped or spooled.
        """
        deadline = self._clock() + (self._config.shutdown_timeout if timeout is None else timeout)
        self._flush_all = True
        self._worker.ensure_started()
        self._worker.wake(_TASK)
        while self._is_busy() and self._clock() < deadline and not is_own_thread():
            time.sleep(_FLUSH_LOOK)
        return not self._is_busy()

    def stop(self, timeout: float | None = None) -> Done:
        """
        Send what is queued, spool or count what cannot be, and end the thread.

        Waits `shutdown_timeout` at most, whatever the network does. Records that come later are
        counted as dropped ("stopped").

        Args:
            timeout: Seconds to wait, at most; None: `shutdown_timeout`.

        Returns:
            Something that may be awaited, and need not be.
        """
        if self._closed:
            return _DONE
        self._closed = True
        seconds = self._config.shutdown_timeout if timeout is None else timeout
        if _holds_logging_lock():
            self._linger(seconds)
            return _DONE
        if self._worker.health()["starts"] == 0 and self._is_busy():
            self._worker.ensure_started()
        self._worker.stop(seconds)
        self._rescue()
        return _DONE

    def health(self) -> dict[str, Any]:
        """
        A few plain values: what became of the records, and what is wrong.

        Exact while nothing moves; `emitted + recovered == delivered + sum(dropped.values()) +
        queued + spooled`.
        """
        counts = self._counts
        never_taken = self._losses.never_taken()
        dropped = losses.by_reason(self._losses.counts(never_taken))
        return {
            "emitted": counts.taken + len(self._lanes) + sum(never_taken.values()),
            "delivered": counts.delivered,
            "dropped": dropped,
            "queued": self._in_hand(),
            "spooled": self._spool.records() if self._spool else 0,
            "recovered": counts.recovered,
            "batches": counts.batches,
            "requests": counts.requests,
            "retries": counts.retries,
            "bytes_uncompressed": counts.bytes_uncompressed,
            "bytes_on_the_wire": counts.bytes_on_the_wire,
            "stopped": self._closed,
            "refused": self._refused,
            "worker": self._worker.health(),
        }

    def losses(self) -> dict[Loss, int]:
        """
        Whose records were dropped, and why: exact counts, whose sums are `health()["dropped"]`.

        Of what a full queue drops, and of what comes after `stop`, only the severity is known: it
        is counted in the application's calls, which look at nothing else. About 2,000 losses are
        told apart, the rest is counted under the signature "other". Thread-safe.
        """
        return self._losses.counts()

    def _is_busy(self) -> bool:
        """Whether records wait in memory; as `_in_hand`, but at no cost."""
        if self._lanes.places_used() or self._encoding:
            return True
        with self._settling:
            return bool(self._pending or self._in_flight)

    def _in_hand(self) -> int:
        """
        Records that wait in memory, those of a request under way among them.

        Looked up in the order of their way, each stage of which lets go only of what the next
        has: so a record on the move may be seen twice, but is never overlooked.
        """
        waiting = len(self._lanes) + self._encoding
        with self._settling:
            flying = self._in_flight
            batches = [*self._pending, *([flying] if flying else [])]
        return waiting + sum(len(batch.items) for batch in batches if batch.path is None)

    # ------------------------------------------------------------------ in the worker's thread

    def _first_pause(self) -> float:
        return 0.0 if self._spool is not None else self._config.flush_interval

    def _run(self) -> float:
        """Send what is due; the seconds until more is."""
        self._awake = False
        while not self._told_to_stop():
            self._adopt_once()
            pause = self._not_before - self._clock()
            if pause > 0.0:
                self._spool_excess()
                return self._after_work(pause)
            batch = self._next_batch()
            if batch is None:
                return self._after_work(max(0.0, self._flush_at - self._clock()))
            self._deliver(batch, self._config.timeout)
        return 0.0

    def _after_work(self, pause: float) -> float:
        until = self._lingering_until
        if until is not None and (not self._is_busy() or self._clock() >= until):
            self._end_lingering()
        return pause if until is None else min(pause, 0.05)

    def _told_to_stop(self) -> bool:
        return self._rescued or self._worker.health()["stopped"]

    def _final(self, stop_by: float) -> None:
        """At the end: send all that time allows, then spool or count the rest."""
        until = min(stop_by, self._clock() + self._config.shutdown_timeout)
        if self._spool is not None:
            until -= min(_SPOOL_TIME, self._config.shutdown_timeout / 4)
        self._flush_all = True
        failures = self._failures
        while not self._rescued and not (self._asked_to_wait and self._clock() < self._not_before):
            left = until - self._clock()
            batch = self._next_batch(spooled=False) if left > 0.0 else None
            if batch is None:
                break
            self._deliver(batch, min(left, self._config.timeout))
            if self._failures > failures:
                break  # the receiver is away: the rest need not try
        self._rescue()
        self._connection.close()

    def _next_batch(self, *, spooled: bool = True) -> _Batch | None:
        """The batch to send now, which is then the one in flight."""
        if not self._pending:
            self._fill_pending()
        with self._settling:
            if self._rescued:
                self._rescue_pending()  # `stop` was faster than the encoding of these
                return None
            # In flight before it leaves the queue: `flush` must see it in one place at least.
            if self._pending:
                self._in_flight = self._pending[0]
                return self._pending.popleft()
            if spooled:
                self._in_flight = self._spooled_batch()
            return self._in_flight

    def _fill_pending(self) -> None:
        flush = self._flush_all or self._clock() >= self._flush_at
        if flush or self._lanes.places_used() >= self._config.batch_size:
            self._take_from_lanes()
            if not self._pending:
                self._flush_all = False
                self._flush_at = self._clock() + self._config.flush_interval

    def _take_from_lanes(self) -> None:
        self._encoding = 1  # before they leave the lanes: see `_in_hand`
        while entries := self._lanes.take(self._config.batch_size):
            self._encoding = len(entries)
            self._counts.taken += len(entries)
            if not self._refused:
                self._pending.extend(self._encoded(entries))
                break
            self._lose(losses.of_entries("unauthorized", entries))
        self._encoding = 0

    def _encoded(self, entries: list[Entry]) -> Iterable[_Batch]:
        """Batches of at most `max_batch_bytes` of *entries*, encoded a slice at a time."""
        self._resource = self._resource or encode_resource(resource_of(self._config))
        batches: list[_Batch] = []
        size = self._config.max_batch_bytes
        started = self._clock()
        for start in range(0, len(entries), _SLICE):
            for item in self._encode_slice(entries[start : start + _SLICE]):
                size += len(item[1])
                if size > self._config.max_batch_bytes:
                    batches.append(_Batch(self._resource, []))
                    size = len(self._resource) + len(item[1])
                batches[-1].items.append(item)
            if self._clock() - started > _WORK:
                time.sleep(_BREATH)
                started = self._clock()
        return batches

    def _encode_slice(self, entries: list[Entry]) -> list[Item]:
        try:
            return self._encoder.encode_slice(entries)
        except Exception as error:
            self._complaints.warn("encode", f"export: records cannot be encoded: {error!r}")
            return self._encode_one_by_one(entries)

    def _encode_one_by_one(self, entries: list[Entry]) -> list[Item]:
        items: list[Item] = []
        for entry in entries:
            try:
                items += self._encoder.encode_slice([entry])
            except Exception:  # noqa: PERF203 - it happens to one record in a program's life
                self._lose(losses.of_entries("internal", [entry]))
        return items

    def _deliver(self, batch: _Batch, seconds: float) -> None:
        body = assemble(batch.resource, batch.items)
        answer, sent = self._request(body, seconds)
        verdict = judge(answer, self._now())
        if verdict.action is Action.STOP and self._renew_bearer():
            answer, sent = self._request(body, seconds)
            verdict = judge(answer, self._now())
        with self._settling:
            if self._in_flight is not batch:
                return  # it took so long that `stop` has spooled or counted it
            self._counts.bytes_on_the_wire += sent
            self._settle(batch, verdict, answer, len(body))
            self._in_flight = None

    def _request(self, body: bytes, seconds: float) -> tuple[HTTPAnswer, int]:
        try:
            headers = self._headers()
        except Exception as error:
            text = f"the jwt function raised {type(error).__name__}"
            return HTTPAnswer(problem=Problem("internal", text)), 0
        if self._config.gzip:
            packer = zlib.compressobj(1, zlib.DEFLATED, 31)
            body = packer.compress(body) + packer.flush()
        self._counts.requests += 1
        return self._post(body, headers, seconds), len(body)

    def _headers(self) -> dict[str, str]:
        if not self._bearer:
            jwt = self._config.jwt
            self._bearer = str(jwt()) if callable(jwt) else jwt or self._config.api_key
        return headers_of(self._config, self._bearer)

    def _renew_bearer(self) -> bool:
        """Whether another try with a new token makes sense."""
        if not callable(self._config.jwt):
            return False
        self._bearer = ""
        return True

    # ------------------------------------------------------------------ after an answer

    def _settle(self, batch: _Batch, verdict: Verdict, answer: HTTPAnswer, size: int) -> None:
        if verdict.action is Action.DELIVERED:
            self._delivered(batch, answer, size)
        elif verdict.action is Action.RETRY:
            self._retry(batch, verdict)
        elif verdict.action is Action.SPLIT and len(batch.items) > 1:
            self._split(batch)
        elif verdict.action is Action.STOP:
            self._stop_sending(batch, verdict)
        else:
            self._complaints.warn(
                verdict.reason,
                f"export: {len(batch.items)} record(s) dropped: {verdict.text}",
            )
            self._drop(batch, verdict.reason)

    def _delivered(self, batch: _Batch, answer: HTTPAnswer, size: int) -> None:
        self._recovered_contact()
        rejected, reason = partial_success(answer.body)
        rejected = min(rejected, len(batch.items))
        if rejected:
            self._complaints.warn("partial", f"export: {rejected} record(s) rejected: {reason}")
            self._lose(_rejected(batch.items, rejected))
        self._counts.batches += 1
        self._counts.delivered += len(batch.items) - rejected
        self._counts.bytes_uncompressed += size
        self._remove_spooled(batch)
        if _logger.isEnabledFor(logging.DEBUG):
            _logger.debug("export: %d records delivered, %d bytes", len(batch.items), size)

    def _recovered_contact(self) -> None:
        self._failures = 0
        self._asked_to_wait = False
        self._complaints.resolve("contact", "export: the receiver is back")

    def _retry(self, batch: _Batch, verdict: Verdict) -> None:
        batch.tries += 1
        self._failures += 1
        self._counts.retries += 1
        self._asked_to_wait = verdict.retry_after is not None
        if verdict.retry_after is None:
            most = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(self._failures - 1, 10))
            wait = most * (0.5 + 0.5 * self._draw())
        else:
            wait = verdict.retry_after * (1.0 + 0.1 * self._draw())
        self._not_before = self._clock() + wait
        if batch.path is not None:
            return  # it stays in the spool
        if batch.tries <= self._config.max_retries:
            self._pending.appendleft(batch)
            return
        self._complaints.warn("contact", f"export: the receiver cannot be reached: {verdict.text}")
        self._spool_or_drop(batch, verdict.reason)

    def _split(self, batch: _Batch) -> None:
        middle = len(batch.items) // 2
        halves = [
            _Batch(batch.resource, batch.items[:middle], batch.tries),
            _Batch(batch.resource, batch.items[middle:], batch.tries),
        ]
        if batch.path is not None:
            self._remove_spooled(batch)  # the halves are in memory now: in one place only
        self._pending.extendleft(reversed(halves))

    def _stop_sending(self, batch: _Batch, verdict: Verdict) -> None:
        self._refused = verdict.text
        self._complaints.warn(
            "unauthorized",
            f"export: stopped, the key is refused: {verdict.text}; check api_key and endpoint, "
            "then call start() or restart",
        )
        if batch.path is None:
            self._spool_or_drop(batch, "unauthorized")
        while self._pending:
            self._spool_or_drop(self._pending.popleft(), "unauthorized")
        self._not_before = 0.0

    def _drop(self, batch: _Batch, reason: str) -> None:
        self._lose(losses.of_items(reason, batch.items))
        self._remove_spooled(batch)

    def _lose(self, lost: Mapping[Loss, int]) -> None:
        self._losses.add(lost)
        self._encoder.forget_facts()

    # ------------------------------------------------------------------ the spool

    def _adopt_once(self) -> None:
        if self._spool is not None and not self._adopted:
            self._adopted = True
            self._spool.adopt()
            self._note_spool()

    def _spooled_batch(self) -> _Batch | None:
        if self._spool is None or self._refused:
            return None
        spooled = self._spool.oldest()
        self._note_spool()
        if spooled is None:
            return None
        items = [self._with_time(item) for item in spooled.items]
        return _Batch(spooled.resource, items, path=spooled.path)

    def _with_time(self, item: Item) -> Item:
        at = time_of(item[1])
        if at and self._now() - at > _TOO_OLD:
            return item[0], with_original_time(item[1], at)
        return item

    def _spool_or_drop(self, batch: _Batch, reason: str) -> None:
        spool = self._spool
        if spool is not None and spool.write(batch.resource, batch.items):
            self._note_spool()
            return
        if spool is not None:
            self._complaints.warn("spool", "export: the spool takes nothing: disk or permission")
            reason = "spool_failed"
        self._drop(batch, reason)

    def _spool_excess(self) -> None:
        """While the receiver is away: write to disk what would soon overflow."""
        if self._spool is None:
            return
        while self._lanes.places_used() > self._config.max_queue_size // 2:
            self._take_from_lanes()
            while len(self._pending) > 1 and not self._told_to_stop():
                self._spool_or_drop(self._pending.pop(), "gave_up")
            if self._told_to_stop():
                return

    def _note_spool(self) -> None:
        spool = cast("Spool", self._spool)
        self._counts.recovered += spool.recovered
        spool.recovered = 0
        if spool.losses:
            self._lose(spool.losses)
            spool.losses.clear()

    def _remove_spooled(self, batch: _Batch) -> None:
        if batch.path is not None and self._spool is not None:
            self._spool.done(batch.path)

    # ------------------------------------------------------------------ the end

    def _rescue(self) -> None:
        """Spool or count whatever is still in memory, also from under a request that hangs."""
        with self._settling:
            self._rescued = True
            batch, self._in_flight = self._in_flight, None
            if batch is not None and batch.path is None:
                self._spool_or_drop(batch, "shutdown")
            self._rescue_pending()
            self._rescue_lanes()
        if self._spool is not None:
            self._spool.close()

    def _rescue_pending(self) -> None:
        while self._pending:
            self._spool_or_drop(self._pending.popleft(), "shutdown")

    def _rescue_lanes(self) -> None:
        if self._spool is not None:
            while self._lanes.places_used():
                self._take_from_lanes()
                self._rescue_pending()
        left = self._lanes.take(self._config.max_queue_size)
        if left:
            self._counts.taken += len(left)
            self._lose(losses.of_entries("shutdown", left))

    def _linger(self, seconds: float) -> None:
        """
        End without waiting.

        `logging.config` closes handlers while it holds logging's lock. The worker may need that
        lock for a record of its own, so waiting for the worker here could last the whole time.
        """
        self._lingering_until = self._clock() + seconds
        self._flush_all = True
        if self._worker.health()["starts"] or self._is_busy():
            _lingering.add(self)
            self._worker.ensure_started()
            self._worker.wake(_TASK)

    def _end_lingering(self) -> None:
        self._lingering_until = None
        self._rescue()
        self._connection.close()
        _lingering.discard(self)
        self._worker.stop(0.0)


# ---------------------------------------------------------------------- small things

_numbers: Final[dict[str | int, int]] = dict(OTEL_NUMBERS.items())


def _complete(context: LogContext | None) -> LogContext | None:
    if context is None:
        return capture.frozen_context(capture.current_context())
    return capture.frozen_context(capture.merged(context, CURRENT_CONTEXT.get()))


def _rejected(items: list[Item], rejected: int) -> Mapping[Loss, int]:
    """The receiver does not say which ones it rejected, unless it was all of them."""
    if rejected == len(items):
        return losses.of_items("rejected", items)
    return losses.unknown("rejected", rejected)


def _seconds(timestamp: object, now: Callable[[], float]) -> float:
    try:
        if isinstance(timestamp, datetime):
            return timestamp.timestamp()
        return float(timestamp)  # type: ignore[arg-type]  # seconds since the epoch are as clear
    except (TypeError, ValueError, OverflowError, OSError):
        return now()


def headers_of(config: PostHogConfig, bearer: str) -> dict[str, str]:
    """The headers of each request."""
    headers = {
        "Content-Type": "application/x-protobuf",
        "User-Agent": f"lipservice/{__version__}",
        **config.headers,
        "Authorization": f"Bearer {bearer}",
    }
    if config.gzip:
        headers["Content-Encoding"] = "gzip"
    return headers


def resource_of(config: PostHogConfig) -> dict[str, Any]:
    """The attributes of this process's resource (OpenTelemetry semantic conventions)."""
    service = (
        config.service_name
        or os.environ.get("OTEL_SERVICE_NAME")
        or os.environ.get("LIPSERVICE_SERVICE_NAME")
        or "unknown_service:python"
    )
    given = {key: capture.freeze(value) for key, value in config.resource_attributes.items()}
    return {
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
        **given,
        "service.name": service,
        "service.version": config.service_version or given.get("service.version"),
        "deployment.environment.name": config.environment
        or given.get("deployment.environment.name"),
        "team_id": None if config.team_id is None else str(config.team_id),
    }


def _holds_logging_lock() -> bool:
    """Whether this thread holds the lock of the module `logging`."""
    owned = getattr(getattr(logging, "_lock", None), "_is_owned", None)
    return bool(owned and owned())


# ---------------------------------------------------------------------- the interpreter's exit

#: Exporters that dictConfig closed and that are still sending: nobody else may hold them.
_lingering: Final[set[PostHogOTLPExporter]] = set()
_exporters: Final[dict[int, weakref.ref[PostHogOTLPExporter]]] = {}


def _forgotten(key: int) -> Callable[[object], None]:
    def forget(_dead: object) -> None:
        _exporters.pop(key, None)
        losses.forget(key)

    return forget


def exporters() -> list[PostHogOTLPExporter]:
    """All exporters of this process that somebody holds."""
    return [exporter for ref in list(_exporters.values()) if (exporter := ref()) is not None]


def _at_exit() -> None:
    """
    Rescue what the workers could not send in their time.

    Registered when this module is imported, hence called after the workers' own exit, which is
    registered when they start and gives them two seconds together.
    """
    for exporter in exporters():
        if exporter._is_busy():  # noqa: SLF001 - same module
            exporter._rescue()  # noqa: SLF001


atexit.register(_at_exit)
