"""
loguru: a filter for a sink of the application's own, and a sink that wraps another one.

loguru formats a record before it calls a sink, but asks the filter before: `filter=` saves more.
`SamplingSink.add` attaches a sink in that way.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from lipservice._settings import default_sampler_quietly
from lipservice._worker import OWN_THREADS
from lipservice.call_sites import CallSite, site_at
from lipservice.decision import Dropped
from lipservice.exceptions import ConfigurationError, MissingExtraError
from lipservice.integrations._deciding import Deciding, decide_watched, stamps_of
from lipservice.integrations._frozen import frozen
from lipservice.integrations.stdlib import OWN_LOGGERS
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import WATCHED, RequestScope, current_scope

try:
    import loguru  # noqa: F401 - only to know that it is there
except ImportError as missing:
    raise MissingExtraError("loguru", "loguru") from missing

if TYPE_CHECKING:
    from loguru import Logger, Message, Record


def decide(
    sampler: AdaptiveSampler,
    record: Record,
    message: Message | None = None,
    write: Callable[[Message], Any] | None = None,
) -> bool:
    """
    Whether to keep *record*; stamps `extra` with `lipservice_*`, or the record with the weight 0
    if it is dropped. Never raises.

    Args:
        sampler: What decides.
        record: The record.
        message: The record as this sink would write it, and
        write: what writes it, should its request fail; None: that cannot be done.
    """
    stamps = record["extra"]
    if "lipservice_weight" in stamps:
        return True
    whole: dict[str, Any] = record  # type: ignore[assignment]  # a plain dict at run time
    if "lipservice_weight" in whole:
        held = whole.get(_HELD)
        if message is not None and write is not None and held is not None:
            held.add(message, write)  # for this sink, too
        return False
    if record["name"] in OWN_LOGGERS:
        return True
    if record["thread"].id in OWN_THREADS:
        return False
    scope = current_scope() if WATCHED else None
    if scope is not None or sampler.boosted_loggers:
        return _decide_watched(sampler, record, scope, message, write)
    decision = sampler.decide_at(record["message"], record["level"].no, _site_of, record)
    if decision is None:
        whole["lipservice_weight"] = 0.0  # not in `extra`, where other sinks would print it
        return False
    signature, rate, weight, rule, policy, unmeasured = decision
    stamps["lipservice_signature"] = signature
    stamps["lipservice_rate"] = rate
    stamps["lipservice_weight"] = weight
    stamps["lipservice_rule"] = rule
    stamps["lipservice_policy"] = policy
    if unmeasured is not None:
        sampler.measure(decision, len(record["message"]))
    return True


def _decide_watched(
    sampler: AdaptiveSampler,
    record: Record,
    scope: RequestScope | None,
    message: Message | None,
    write: Callable[[Message], Any] | None,
) -> bool:
    text, level = record["message"], record["level"].no
    outcome = decide_watched(
        sampler,
        record["name"],
        scope,
        text,
        level,
        is_format=False,
        find_site=_site_of,
        where=record,
    )
    whole: dict[str, Any] = record  # type: ignore[assignment]  # a plain dict at run time
    if outcome is None:
        whole["lipservice_weight"] = 0.0
        return False
    if type(outcome) is Dropped:
        if outcome.scope.failed:
            record["extra"].update(stamps_of(outcome))
            outcome.scope.pass_on(outcome.row)
            return True
        whole["lipservice_weight"] = 0.0
        if not outcome.scope.holds:
            outcome.scope.refuse()
            return False
        whole[_HELD] = held = _Held(outcome)
        if message is not None and write is not None:
            held.add(message, write)
        return False
    record["extra"].update(stamps_of(outcome, scope))
    if outcome.unmeasured is not None:
        sampler.measure(outcome, len(text))
    if scope is not None and level >= logging.ERROR:
        scope.keep()
    return True


#: Where a record that a request dropped has its `_Held`.
_HELD: Final = "lipservice_held"
# What it takes besides its text and what was bound, about.
_HELD_BYTES: Final = 600


class _Held:
    """A record that its request holds for all the sinks that it was kept from: they share it."""

    __slots__ = ("_dropped", "_is_released", "_record", "_waiting")

    def __init__(self, dropped: Dropped) -> None:
        self._dropped = dropped
        self._record: Record | None = None
        self._waiting: deque[Callable[[], Any]] = deque()
        self._is_released = False

    def add(self, message: Message, write: Callable[[Message], Any]) -> None:
        """Write *message* to one more sink, should the request fail."""
        record, size = self._record, 0
        if record is None:
            try:
                extra, size = frozen({**message.record["extra"], **stamps_of(self._dropped)})
            except Exception:  # a container in itself, say
                self._dropped.scope.refuse()
                return
            record = self._record = cast("Record", {**message.record, "extra": extra})
        held = type(message)(message)  # formatted already: what would have been written
        held.record = record
        self._waiting.append(partial(write, held))
        if size:
            self._dropped.scope.hold(
                self._release, _HELD_BYTES + size + len(message), self._dropped.row
            )
        elif self._is_released:  # meanwhile
            self._release()

    def _release(self) -> None:
        self._is_released = True
        while self._waiting:
            with contextlib.suppress(Exception):  # no reason to miss the next sink
                self._waiting.popleft()()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_nothing, ())  # a sink with `enqueue=True` pickles the record, and what is in it


def _nothing() -> None:
    return None


def _site_of(record: Record) -> CallSite | None:
    # loguru fills in braces itself: its own format string is nowhere but in the source.
    return site_at(record["file"].path, record["line"], braces=True)


class LoguruFilter(Deciding):
    """
    `logger.add("app.log", rotation="1 day", filter=LoguruFilter(cost_target=0.1))`.

    Args:
        sampler: What decides; default: made from *settings*, else the default sampler.
        also: Another filter (a callable on the record) that is asked first.
        settings: As of `configure_adaptive_logging` (docs/reference/settings.md).

    Raises:
        ConfigurationError: A setting is wrong; the message names it.
    """

    def __init__(
        self,
        sampler: AdaptiveSampler | None = None,
        *,
        also: Callable[[Record], bool] | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(sampler, settings)
        self._also = also

    def __call__(self, record: Record) -> bool:
        """Whether to keep *record*."""
        if self._also is not None and not self._also(record):
            return False
        return decide(self._bound or default_sampler_quietly(), record)


class SamplingSink(Deciding):
    """
    A loguru sink that passes on what the sampler keeps:
    `logger.add(SamplingSink(sys.stderr), serialize=True)`.

    loguru has formatted a record before any sink sees it; `SamplingSink(...).add(logger, ...)`
    attaches the target with a filter instead, which is cheaper.

    Args:
        target: A stream with `write`, a function, a coroutine function, a `logging.Handler`, or
            (for `add` only) a path.
        sampler: What decides; default: made from *settings*, else the default sampler.
        settings: As of `configure_adaptive_logging`.

    Raises:
        ConfigurationError: The target or a setting is wrong.
    """

    def __new__(cls, target: Any = None, *args: Any, **settings: Any) -> SamplingSink:  # noqa: ARG004, PYI034
        """loguru looks at the sink's shape, so each kind of target has its own class."""
        return super().__new__(_kind_of(target) if cls is SamplingSink else cls)

    def __init__(
        self,
        target: str | os.PathLike[str] | TextIO | logging.Handler | Callable[[Message], Any],
        sampler: AdaptiveSampler | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(sampler, settings)
        #: Where kept records go.
        self.target = target

    def add(self, logger: Logger, **options: Any) -> int:
        """
        `logger.add(target, filter=..., **options)`: loguru formats only what is kept.

        Args:
            logger: loguru's logger.
            options: As of `logger.add`; a callable `filter` is asked first.

        Returns:
            The handler's identifier, for `logger.remove`.
        """
        also = options.pop("filter", None)
        if also is not None and not callable(also):
            raise ConfigurationError("filter is a callable here; give loguru's other forms as one")
        return logger.add(self.target, filter=LoguruFilter(self.sampler, also=also), **options)

    def _keeps(self, message: Message) -> bool:
        sampler = self._bound or default_sampler_quietly()
        return decide(sampler, message.record, message, self._pass_on)

    def _pass_on(self, message: Message) -> Any:
        raise NotImplementedError  # a path has no sink of its own: see `add`


class _FunctionSink(SamplingSink):
    def __call__(self, message: Message) -> None:
        if self._keeps(message):
            self._pass_on(message)

    def _pass_on(self, message: Message) -> None:
        self.target(message)  # type: ignore[operator]


class _CoroutineSink(SamplingSink):
    @property
    def __call__(self) -> _AtOnce:
        return _AtOnce(self.written)

    def begin(self, message: Message) -> Coroutine[Any, Any, None]:
        """Decide, and return what writes."""
        sampler = self._bound or default_sampler_quietly()
        keeps = decide(sampler, message.record, message, partial(self._start_in, _running_loop()))
        return self.written(message if keeps else None)

    async def written(self, message: Message | None) -> None:
        """Write *message*, after what was released before it."""
        loop = asyncio.get_running_loop()
        released = [
            task for task, sink in _tasks.items() if sink is self and task.get_loop() is loop
        ]
        if released:
            await asyncio.wait(released)
        if message is not None:
            await self.target(message)  # type: ignore[operator]

    def _start_in(self, loop: asyncio.AbstractEventLoop | None, message: Message) -> None:
        """Have a released message written, in the loop that it was logged in."""
        running = _running_loop()
        if loop is None or loop is running:
            self._start(message)
        else:
            loop.call_soon_threadsafe(self._start, message)

    def _start(self, message: Message) -> None:
        task = asyncio.get_running_loop().create_task(self.target(message))  # type: ignore[operator]
        _tasks[task] = self  # the loop holds its tasks weakly
        task.add_done_callback(_tasks.pop)


class _AtOnce(partial[Coroutine[Any, Any, None]]):
    """
    A coroutine function (`inspect` looks into a `partial`) that decides when it is called.

    loguru has a task await what it returns: later, when the request may be over.
    """

    def __call__(self, message: Message) -> Coroutine[Any, Any, None]:
        sink: _CoroutineSink = cast("Any", self.func).__self__
        return sink.begin(message)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


#: Released messages that are being written, and by which sink.
_tasks: Final[dict[asyncio.Task[Any], _CoroutineSink]] = {}


class _StreamSink(SamplingSink):
    def write(self, message: Message) -> None:
        if self._keeps(message):
            self._pass_on(message)

    def _pass_on(self, message: Message) -> None:
        self.target.write(message)  # type: ignore[union-attr]
        flush = getattr(self.target, "flush", None)
        if flush is not None:
            flush()

    def isatty(self) -> bool:
        """loguru colours a terminal."""
        isatty = getattr(self.target, "isatty", None)
        return isatty is not None and bool(isatty())

    def stop(self) -> None:
        stop = getattr(self.target, "stop", None)
        if stop is not None:
            stop()

    async def complete(self) -> None:
        complete = getattr(self.target, "complete", None)
        if inspect.iscoroutinefunction(complete):
            await complete()


class _HandlerSink(SamplingSink):
    """Makes of the formatted message the record that loguru would make for a handler."""

    def write(self, message: Message) -> None:
        if self._keeps(message):
            self._pass_on(message)

    def _pass_on(self, message: Message) -> None:
        cast("logging.Handler", self.target).handle(_log_record(message))

    def stop(self) -> None:
        cast("logging.Handler", self.target).close()


def _kind_of(target: object) -> type[SamplingSink]:
    if isinstance(target, (str, os.PathLike)):
        return SamplingSink  # for add() only: loguru refuses it as a sink, having no shape
    if isinstance(target, logging.Handler):
        return _HandlerSink
    if callable(getattr(target, "write", None)):
        return _StreamSink
    if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(
        getattr(target, "__call__", None)  # noqa: B004
    ):
        return _CoroutineSink
    if callable(target):
        return _FunctionSink
    raise ConfigurationError(
        "target is a stream, a function, a coroutine function, a logging.Handler or a path,"
        f" not {target!r:.80}"
    )


def _log_record(message: Message) -> logging.LogRecord:
    raw = message.record
    exception = raw["exception"]
    exc_info = (exception.type, exception.value, exception.traceback) if exception else None
    record = logging.getLogger().makeRecord(
        raw["name"] or "",
        raw["level"].no,
        raw["file"].path,
        raw["line"],
        str(message) if exception else str(message).removesuffix("\n"),
        (),
        exc_info,  # type: ignore[arg-type]  # loguru's types are wider
        raw["function"],
        {"extra": raw["extra"]},
    )
    if exception:
        record.exc_text = "\n"  # it stands in the message already: no formatter shall add it
    record.levelname = raw["level"].name
    return record
