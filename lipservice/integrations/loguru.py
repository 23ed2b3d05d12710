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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TextIO, cast

from lipservice._settings import default_sampler_quietly
from lipservice._worker import OWN_THREADS
from lipservice.call_sites import CallSite, site_at
from lipservice.decision import Dropped
from lipservice.exceptions import ConfigurationError, MissingExtraError
from lipservice.integrations._deciding import Deciding, decide_watched, stamps_of
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
    write: Callable[[], Any] | None = None,
) -> bool:
    """
    Whether to keep *record*; stamps `extra` with `lipservice_*`, or the record with the weight 0
    if it is dropped. Never raises.

    Args:
        sampler: What decides.
        record: The record.
        write: Writes the record to this sink, should its request fail; None: that cannot be done.
    """
    stamps = record["extra"]
    if "lipservice_weight" in stamps:
        return True
    whole: dict[str, Any] = record  # type: ignore[assignment]  # a plain dict at run time
    if "lipservice_weight" in whole:
        held = whole.get(_HELD)
        if write is not None and held is not None:
            held.add(write)  # for this sink, too
        return False
    if record["name"] in OWN_LOGGERS:
        return True
    if record["thread"].id in OWN_THREADS:
        return False
    scope = current_scope() if WATCHED else None
    if scope is not None or sampler.boosted_loggers:
        return _decide_watched(sampler, record, scope, write)
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
    write: Callable[[], Any] | None,
) -> bool:
    message, level = record["message"], record["level"].no
    outcome = decide_watched(
        sampler,
        record["name"],
        scope,
        message,
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
        whole[_HELD] = held = _Held(outcome, 200 + len(message))
        if write is not None:
            held.add(write)
        return False
    record["extra"].update(stamps_of(outcome, scope))
    if outcome.unmeasured is not None:
        sampler.measure(outcome, len(message))
    if scope is not None and level >= logging.ERROR:
        scope.keep()
    return True


#: Where a record that a request dropped has its `_Held`.
_HELD: Final = "lipservice_held"


class _Held:
    """A record that its request holds for all the sinks that it was kept from: they share it."""

    __slots__ = ("_dropped", "_size", "_writers")

    def __init__(self, dropped: Dropped, size: int) -> None:
        self._dropped = dropped
        self._size = size
        self._writers: list[Callable[[], Any]] = []

    def add(self, write: Callable[[], Any]) -> None:
        """Write it to one more sink, should the request fail."""
        self._writers.append(write)
        if len(self._writers) == 1:
            self._dropped.scope.hold(self._write, self._size, self._dropped.row)

    def _write(self) -> None:
        for write in self._writers:
            with contextlib.suppress(Exception):  # no reason to miss the next sink
                write()

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
        def write() -> None:
            self._pass_on(message)  # formatted already: what would have been written

        return decide(self._bound or default_sampler_quietly(), message.record, write)

    def _pass_on(self, message: Message) -> Any:
        raise NotImplementedError  # a path has no sink of its own: see `add`


class _FunctionSink(SamplingSink):
    def __call__(self, message: Message) -> None:
        if self._keeps(message):
            self._pass_on(message)

    def _pass_on(self, message: Message) -> None:
        self.target(message)  # type: ignore[operator]


class _CoroutineSink(SamplingSink):
    async def __call__(self, message: Message) -> None:
        if self._keeps(message):
            await self.target(message)  # type: ignore[operator]

    def _pass_on(self, message: Message) -> None:
        task = asyncio.get_running_loop().create_task(self.target(message))  # type: ignore[operator]
        _tasks.add(task)  # the loop holds its tasks weakly
        task.add_done_callback(_tasks.discard)


_tasks: Final[set[asyncio.Task[Any]]] = set()


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
