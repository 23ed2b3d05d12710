"""
`logging`: a filter, a handler that wraps a handler, and a logger class that decides early.

All three stamp what they decided on the record, and believe a stamp that is there: a record that
passes several of them is decided and counted once.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from threading import get_ident
from types import FrameType, TracebackType
from typing import Any, ClassVar, Final, TypeAlias

from lipservice._settings import default_sampler_quietly, sampler_for
from lipservice._worker import OWN_THREADS
from lipservice.call_sites import CallSite, site_at
from lipservice.decision import Decision, Dropped
from lipservice.exceptions import ConfigurationError
from lipservice.integrations._deciding import (
    OWN,
    RELEASED,
    decide_watched,
    stamps_of,
    traced,
)
from lipservice.integrations._frozen import frozen
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import WATCHED, RequestScope, current_scope

_ExcInfo: TypeAlias = (
    "bool | BaseException | tuple[None, None, None] |"
    " tuple[type[BaseException], BaseException, TracebackType | None] | None"
)

# Values that cannot change until a held record is formatted.
_SCALARS: Final = frozenset({str, int, float, bytes, bool, type(None)})
# Attributes of a record without extras, and the weight that is set on it.
_RECORD: Final = frozenset({*vars(logging.makeLogRecord({})), "lipservice_weight"})
_USUAL_ATTRIBUTES: Final = len(_RECORD)
# What a held record takes beside its message and what it brings along, about.
_HELD_BYTES: Final = 600
_formatter: Final = logging.Formatter()
# Frames of this file that findCaller would count: from 3.11 on it tells logging's own apart.
_FRAMES = 2 if sys.version_info >= (3, 11) else 1

#: What LipService itself logs with: never sampled, never dropped.
OWN_LOGGERS = frozenset({"lipservice"})


def decide(
    sampler: AdaptiveSampler, record: logging.LogRecord, release: Callable[[logging.LogRecord], Any]
) -> bool:
    """
    Whether to keep *record*; stamps it with `lipservice_signature`, `_rate`, `_weight`, `_rule`
    and `_policy`, or with the weight 0 if it is dropped. Never raises.

    Args:
        sampler: What decides.
        record: The record.
        release: Writes a record that was held, should its request fail.
    """
    # Attributes, not `record.__dict__`: asking for the dict makes CPython build it.
    weight = getattr(record, "lipservice_weight", None)
    if weight is not None:
        return bool(weight != 0.0) or getattr(record, "lipservice_rule", None) == RELEASED
    if record.name in OWN_LOGGERS:
        vars(record).update(OWN)
        return True
    if OWN_THREADS and record.thread in OWN_THREADS and _is_from_our_own_work(record):
        return False  # born in our own HTTP call, say: it must not feed what caused it
    message, arguments = record.msg, record.args
    if type(message) is dict and "event" in message:
        if "lipservice_weight" in message:
            return _believe(message, record)
        message, arguments = _event_of(message)
    scope = current_scope() if WATCHED else None
    decision: Decision | Dropped | None
    if sampler.boosted_loggers:
        decision = decide_watched(
            sampler,
            record.name,
            scope,
            message,
            record.levelno,
            _site_of,
            record,
            is_format=bool(arguments),
        )
    elif scope is not None:
        decision = sampler.decide_scoped(
            message, record.levelno, scope, _site_of, record, is_format=bool(arguments)
        )
    elif arguments:
        decision = sampler.decide_format(message, record.levelno, _site_of, record)
    else:
        decision = sampler.decide_at(message, record.levelno, _site_of, record)
    if type(decision) is Dropped:
        return _is_passed_on(record, decision, release)
    if decision is None:
        record.lipservice_weight = 0.0
        return False
    (
        record.lipservice_signature,
        record.lipservice_rate,
        record.lipservice_weight,
        record.lipservice_rule,
        record.lipservice_policy,
        unmeasured,
    ) = decision
    if unmeasured is not None:
        _measure(sampler, decision, record)
    if scope is not None and (decision.rule == "request" or record.levelno >= logging.ERROR):
        _follow_up(scope, record, decision)
    return True


def _follow_up(scope: RequestScope, record: logging.LogRecord, decision: Decision) -> None:
    """What a record that is kept does to its request, and the request to it."""
    if decision.rule == "request":
        vars(record).update(traced(decision, scope))
    else:  # an error
        scope.keep()  # what led to it goes before it


def _is_passed_on(
    record: logging.LogRecord, dropped: Dropped, release: Callable[[logging.LogRecord], Any]
) -> bool:
    """Whether a record that its request dropped is written: the request has failed. Else hold."""
    if dropped.scope.failed:
        _pass_on(record, dropped)
        return True
    record.lipservice_weight = 0.0
    _hold(record, dropped, release)
    return False


def _pass_on(record: logging.LogRecord, dropped: Dropped) -> None:
    vars(record).update(stamps_of(dropped))
    dropped.scope.pass_on(dropped.row)


def _site_of(record: logging.LogRecord, *, percent: bool = False) -> CallSite | None:
    return site_at(record.pathname, record.lineno, percent=percent)


def _event_of(message: dict[Any, Any]) -> tuple[Any, Any]:
    """Text and arguments of an event of structlog, on its way to a ProcessorFormatter."""
    return message["event"], message.get("positional_args")


def _believe(message: dict[Any, Any], record: logging.LogRecord) -> bool:
    """Take over what structlog's processor has decided."""
    stamps = {key: message[key] for key in OWN if key in message}
    vars(record).update(stamps)
    return bool(stamps["lipservice_weight"] != 0.0) or message.get("lipservice_rule") == RELEASED


def _is_from_our_own_work(record: logging.LogRecord) -> bool:
    """
    Of a record with the number of one of our threads: whether it was born there, below ERROR.

    Another process may have a thread of that number. And an application's finalizer runs in any
    thread: what it logs at ERROR is kept like every error. Our HTTP client logs none.
    """
    return record.levelno < logging.ERROR and record.process in {None, os.getpid()}


def _hold(
    record: logging.LogRecord, dropped: Dropped, release: Callable[[logging.LogRecord], Any]
) -> None:
    """
    Have the request hold *record*, with what it says now.

    The record goes on to handlers that do not sample and may change it, so what is released is made
    anew, of what it says now; it is made then, since most requests do not fail.
    """
    if not dropped.scope.holds:
        dropped.scope.refuse()
        return
    try:
        said, size = _said(record)
        # One of a class of the application's may keep things elsewhere than in its dictionary.
        own = None if type(record) is logging.LogRecord else copy.copy(record)
        if own is not None:
            vars(own).update(said)  # now: it shall not keep alive what was formatted
    except Exception:  # arguments that do not fit (nobody could write it), a container in itself
        dropped.scope.refuse()
        return
    # Not a closure: its cells would be a good part of what a held record costs the collector.
    write = functools.partial(_write, said, own, dropped, release)
    dropped.scope.hold(write, size, dropped.row)


def _write(
    said: dict[str, Any],
    own: logging.LogRecord | None,
    dropped: Dropped,
    release: Callable[[logging.LogRecord], Any],
) -> None:
    held = logging.LogRecord.__new__(logging.LogRecord) if own is None else own
    vars(held).update(said)
    vars(held).update(stamps_of(dropped))
    release(held)


def _said(record: logging.LogRecord) -> tuple[dict[str, Any], int]:
    """The attributes of *record*, with what may change copied or formatted; and their bytes."""
    said = vars(record).copy()
    size = _bytes_of(record.msg, record.args)
    if size is None:
        size = _HELD_BYTES + _say_now(record, said)
    if record.exc_info or record.exc_text or record.stack_info:
        size += _say_trace(record, said)
    if len(said) > _USUAL_ATTRIBUTES:
        for name in said.keys() - _RECORD:
            said[name], added = frozen(said[name])
            size += added
    return said, size


def _bytes_of(message: object, arguments: Any) -> int | None:
    """What a record takes that says *message* with *arguments*; None: what it says may change."""
    if type(message) is not str:
        return None
    size = _HELD_BYTES + len(message)
    if arguments:
        if type(arguments) is not tuple:
            return None
        for argument in arguments:
            kind = type(argument)
            if kind is str or kind is bytes:
                size += len(argument)
            elif kind not in _SCALARS:
                return None
    return size


def _say_now(record: logging.LogRecord, said: dict[str, Any]) -> int:
    """Put what the message is by now into *said*, and tell its bytes."""
    if type(record.msg) is dict:  # of structlog, for its ProcessorFormatter
        said["msg"], size = frozen(record.msg)
        if record.msg.get("exc_info") is True:
            said["msg"]["exc_info"] = current_exception()
        return size
    said["msg"], said["args"] = record.getMessage(), ()
    return len(said["msg"])


def _say_trace(record: logging.LogRecord, said: dict[str, Any]) -> int:
    """Likewise what it says of an exception and of the stack."""
    if record.exc_info:
        if not record.exc_text and isinstance(record.exc_info, tuple):
            said["exc_text"] = _formatter.formatException(record.exc_info)
        said["exc_info"] = None  # its frames would stay alive
    return len(said["exc_text"] or "") + len(record.stack_info or "")


def current_exception() -> tuple[Any, Any, Any] | bool:
    """What `exc_info=True` means now, for structlog; still True if there is none."""
    current = sys.exc_info()
    return True if current[0] is None else current


def _measure(sampler: AdaptiveSampler, decision: Decision, record: logging.LogRecord) -> None:
    try:
        size = len(record.getMessage())
    except Exception:  # wrong arguments: the application's handler will say so
        return
    sampler.measure(decision, size)


def _kept_out(
    logger: logging.Logger | None, record: logging.LogRecord
) -> Iterator[logging.Handler]:
    """
    The handlers of *logger* that a dropped *record* did not get to: those that sample it.

    By whichever sampler: the first one that is asked decides, all others believe its stamp.
    """
    while logger is not None:
        for handler in logger.handlers:
            if record.levelno >= handler.level and (
                isinstance(handler, SamplingHandler)
                or any(
                    isinstance(f, SamplingFilter) and _covers(f, record) for f in handler.filters
                )
            ):
                yield handler
        logger = logger.parent if logger.propagate else None


def _covers(sampling: logging.Filter, record: logging.LogRecord) -> bool:
    """Whether *record* is of the part of the application that the filter *sampling* is for."""
    return not sampling.nlen or bool(logging.Filter.filter(sampling, record))


def _passed_behind(
    asked: logging.Filter, filterer: logging.Filterer, record: logging.LogRecord
) -> logging.LogRecord | None:
    """*record*, if it passes those filters of a logger or handler that stand behind *asked*."""
    behind = logging.Filterer()
    behind.filters = filterer.filters[filterer.filters.index(asked) + 1 :]
    passed = behind.filter(record)
    if isinstance(passed, logging.LogRecord):  # from 3.12 on a filter may replace it
        return passed
    return record if passed else None


def _write_behind(
    asked: logging.Filter, handler: logging.Handler, record: logging.LogRecord
) -> None:
    """As `handler.handle`, without the filters up to *asked*, which *record* has passed before."""
    passed = _passed_behind(asked, handler, record)
    if passed is not None:
        handler.acquire()
        try:
            handler.emit(passed)
        finally:
            handler.release()


class SamplingFilter(logging.Filter):
    """
    Drops what the sampler does not keep. For a handler or a logger (a logger's filter does not
    see the records of its children: prefer the handler).

    In `dictConfig`: `{"()": "lipservice.SamplingFilter", "service_name": "checkout",
    "cost_target": 0.1}`.

    Args:
        name: Sample only this logger and its children; others pass untouched. "" samples all.
        sampler: What decides; default: made from *settings*, else the default sampler.
        settings: As of `configure_adaptive_logging` (docs/reference/settings.md).

    Raises:
        ConfigurationError: A setting is wrong; the message names it.
    """

    def __init__(
        self, name: str = "", *, sampler: AdaptiveSampler | None = None, **settings: Any
    ) -> None:
        if not isinstance(name, str):
            raise ConfigurationError(
                f"name: must be the name of a logger, not {type(name).__name__}; "
                "a sampler is given as sampler=..."
            )
        super().__init__(name)
        self._bound = sampler_for(sampler, settings)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to keep *record*. Never raises, waits or writes."""
        if self.nlen and not super().filter(record):
            return True
        return decide(self._bound or default_sampler_quietly(), record, self._release)

    def _release(self, record: logging.LogRecord) -> None:
        """Write a held record: through its logger if the filter is there, else through handlers."""
        logger = logging.getLogger(record.name)
        if self in logger.filters:
            passed = _passed_behind(self, logger, record)
            if passed is not None:
                logger.callHandlers(passed)
            return
        handlers = list(_kept_out(logger, record))
        asking = [handler for handler in handlers if self in handler.filters]
        for handler in handlers:
            if len(asking) == 1 and handler in asking:
                _write_behind(self, handler, record)
            else:  # one of several that share this filter, say: which of them asked is not known
                handler.handle(record)

    @property
    def sampler(self) -> AdaptiveSampler:
        """What decides."""
        return self._bound or default_sampler_quietly()


class SamplingHandler(logging.Handler):
    """
    Passes on to another handler what the sampler keeps.

    In `dictConfig`: `{"()": "lipservice.SamplingHandler", "target": "cfg://handlers.file",
    "cost_target": 0.1}`, under a name that sorts after the target's (dictConfig's order).

    Args:
        target: The handler that writes; formatter and encoding are its own.
        level: Records below it, or below the target's, are neither counted nor passed on.
        sampler: What decides; default: made from *settings*, else the default sampler.
        settings: As of `configure_adaptive_logging`.

    Raises:
        ConfigurationError: A setting is wrong; the message names it.
    """

    def __init__(
        self,
        target: logging.Handler,
        level: int | str = logging.NOTSET,
        *,
        sampler: AdaptiveSampler | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(target, Mapping):
            raise ConfigurationError(
                "target is not configured yet: dictConfig makes handlers in the order of their"
                " names, so this handler's name has to sort after its target's"
            )
        if not isinstance(target, logging.Handler):
            raise ConfigurationError(f"target is a logging.Handler, not {target!r:.80}")
        super().__init__(level)
        #: The handler that writes.
        self.target = target
        self._bound = sampler_for(sampler, settings)

    @property
    def sampler(self) -> AdaptiveSampler:
        """What decides."""
        return self._bound or default_sampler_quietly()

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """No lock: nothing here needs one, the target has its own."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Decide, then let the target handle the record."""
        passed = self.filter(record)
        if not passed or record.levelno < self.target.level:
            return False
        if isinstance(passed, logging.LogRecord):
            record = passed  # from 3.12 on a filter may replace it
        if decide(self._bound or default_sampler_quietly(), record, self._release):
            self.emit(record)
            return True
        return False

    def _release(self, record: logging.LogRecord) -> None:
        """Write a held record, here and wherever else the same decision has kept it out."""
        handlers = list(_kept_out(logging.getLogger(record.name), record))
        if self not in handlers:  # of a logger that is not logging's own, or behind another handler
            handlers = [self]
        for handler in handlers:
            if handler is self:
                self.emit(record)  # it has passed the filters before
            else:
                handler.handle(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Let the target write, whatever was decided."""
        if record.levelno >= self.target.level:
            self.target.handle(record)

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 - logging's name
        """Set the target's formatter."""
        self.target.setFormatter(fmt)

    def flush(self) -> None:
        """Flush the target."""
        target = getattr(self, "target", None)  # logging may flush a half-made handler
        if target is not None:
            target.flush()

    def close(self) -> None:
        """Close the target."""
        target = getattr(self, "target", None)
        if target is not None:
            target.close()
        super().close()


class SamplingLogger(logging.Logger):
    """
    Decides from the format string, before record, caller look-up and formatting exist.

    `logging.setLoggerClass(SamplingLogger)` before the application makes its loggers; the default
    sampler decides, or that of `sampling_logger_class`. A dropped record reaches no handler.
    """

    #: What decides; None: the default sampler.
    sampler: ClassVar[AdaptiveSampler | None] = None

    def __init__(self, name: str, level: int = logging.NOTSET) -> None:
        super().__init__(name, level)
        self._is_own = name in OWN_LOGGERS

    def _log(
        self,
        level: int,
        msg: Any,  # an object; the engine copes with any
        args: Any,
        exc_info: _ExcInfo = None,
        extra: Mapping[str, object] | None = None,
        stack_info: bool = False,
        stacklevel: int = 1,
    ) -> None:
        if self._is_own:
            extra = {**OWN, **(extra or {})}
        if extra is not None and "lipservice_weight" in extra:  # decided: by structlog, say
            super()._log(level, msg, args, exc_info, extra, stack_info, stacklevel + 1)
            return
        if OWN_THREADS and get_ident() in OWN_THREADS and level < logging.ERROR:
            return  # what our own HTTP call logs must not feed what caused it
        sampler = self.sampler or default_sampler_quietly()
        if type(msg) is dict:  # an event of structlog, perhaps decided already
            place = self._place(stacklevel, stack_info)
            record = make_record(self, level, msg, args, exc_info, extra, place)
            if decide(sampler, record, self.handle):
                self.handle(record)
            return
        scope = current_scope() if WATCHED else None
        decision: Decision | Dropped | None
        if sampler.boosted_loggers:
            decision = decide_watched(
                sampler,
                self.name,
                scope,
                msg,
                level,
                _site_below,
                stacklevel,
                is_format=bool(args),
            )
        elif scope is not None:
            decision = sampler.decide_scoped(
                msg,
                level,
                scope,
                _calling_site,
                stacklevel,
                is_format=bool(args),
            )
        elif args:
            decision = sampler.decide_format(msg, level, _calling_site, stacklevel)
        else:
            decision = sampler.decide_at(msg, level, _calling_site, stacklevel)
        if decision is None:
            return
        if type(decision) is Dropped and not decision.scope.failed:
            if not decision.scope.holds:
                decision.scope.refuse()
                return
            place = self._place(stacklevel, stack_info)
            size = _bytes_of(msg, args)
            if size is None or exc_info or extra or stack_info or not self._makes_usual_records():
                record = make_record(self, level, msg, args, exc_info, extra, place)
                _hold(record, decision, self.handle)
                return
            # A record that is made at its release is the same as one that is made now.
            moment = (time.time_ns(), get_ident(), threading.current_thread().name, _task_name())
            write = functools.partial(_write_call, self, level, msg, args, place, moment, decision)
            decision.scope.hold(write, size, decision.row)
            return
        place = self._place(stacklevel, stack_info)
        record = make_record(self, level, msg, args, exc_info, extra, place)
        if type(decision) is Dropped:
            _pass_on(record, decision)
            self.handle(record)
            return
        (
            record.lipservice_signature,
            record.lipservice_rate,
            record.lipservice_weight,
            record.lipservice_rule,
            record.lipservice_policy,
            unmeasured,
        ) = decision
        if unmeasured is not None:
            _measure(sampler, decision, record)
        if scope is not None and (decision.rule == "request" or level >= logging.ERROR):
            _follow_up(scope, record, decision)
        self.handle(record)

    def _place(self, stacklevel: int, stack_info: bool) -> Place:
        """Where `_log`, which calls this, was called."""
        if logging._srcfile:  # noqa: SLF001 - documented: None, and nobody looks
            with contextlib.suppress(ValueError):
                return self.findCaller(stack_info, stacklevel + _FRAMES)
        return ("(unknown file)", 0, "(unknown function)", None)

    def _makes_usual_records(self) -> bool:
        return (
            logging.getLogRecordFactory() is logging.LogRecord
            and type(self).makeRecord is logging.Logger.makeRecord
        )


#: Of a call: nanoseconds since the epoch, the thread's number and name, the task's name.
_Moment: TypeAlias = "tuple[int, int, str, str | None]"


def _task_name() -> str | None:
    """As `logging` finds it out from 3.12 on."""
    asyncio = sys.modules.get("asyncio") if _HAS_TASK_NAMES else None
    if asyncio is not None:
        with contextlib.suppress(Exception):
            task = asyncio.current_task()
            return None if task is None else str(task.get_name())
    return None


_HAS_TASK_NAMES: Final = sys.version_info >= (3, 12)


def _write_call(
    logger: SamplingLogger,
    level: int,
    msg: str,
    args: Any,
    place: Place,
    moment: _Moment,
    dropped: Dropped,
) -> None:
    record = make_record(logger, level, msg, args, None, None, place)
    nanoseconds, thread, thread_name, task_name = moment
    created = nanoseconds / 1e9
    record.relativeCreated -= (record.created - created) * 1000
    record.created = created
    record.msecs = (nanoseconds % 1_000_000_000) // 1_000_000 + 0.0
    if record.thread is not None:  # else `logging.logThreads` is off
        record.thread, record.threadName = thread, thread_name
    if hasattr(record, "taskName") and getattr(logging, "logAsyncioTasks", True):
        record.taskName = task_name
    vars(record).update(stamps_of(dropped))
    logger.handle(record)


#: File, line, function and stack of a call, as `Logger.findCaller` returns them.
Place: TypeAlias = "tuple[str, int, str, str | None]"


def make_record(
    logger: logging.Logger,
    level: int,
    msg: object,
    args: Any,
    exc_info: _ExcInfo,
    extra: Mapping[str, object] | None,
    place: Place,
) -> logging.LogRecord:
    """The record that `logger._log` would make for a call at *place*."""
    path, line, function, stack = place
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    elif exc_info and not isinstance(exc_info, tuple):
        exc_info = sys.exc_info()
    return logger.makeRecord(
        logger.name,
        level,
        path,
        line,
        msg,
        args,
        exc_info or None,  # type: ignore[arg-type]  # a tuple by now
        function,
        extra,
        stack,
    )


def sampling_logger_class(sampler: AdaptiveSampler) -> type[SamplingLogger]:
    """A `SamplingLogger` bound to *sampler*, for `logging.setLoggerClass`."""
    return type("SamplingLogger", (SamplingLogger,), {"sampler": sampler})


#: Frames from `_calling_site` to what called `logger.info`.
_DEPTH: Final = 5
_LOGGING: Final = logging.addLevelName.__code__.co_filename


def _site_below(stacklevel: int, *, percent: bool = False) -> CallSite | None:
    """As `_calling_site`, called by way of `decide_watched`."""
    return _calling_site(stacklevel, _DEPTH + 2, percent=percent)


def _calling_site(
    stacklevel: int, depth: int = _DEPTH, *, percent: bool = False
) -> CallSite | None:
    """Where `_log`'s caller's caller called; the frames are those of decide_at, _log, info, ..."""
    frame: FrameType | None = sys._getframe(depth)  # noqa: SLF001 - as logging does
    while frame is not None and (stacklevel > 1 or frame.f_code.co_filename == _LOGGING):
        stacklevel -= frame.f_code.co_filename != _LOGGING
        frame = frame.f_back
    if frame is None:
        return None
    return site_at(frame.f_code.co_filename, frame.f_lineno, percent=percent)
