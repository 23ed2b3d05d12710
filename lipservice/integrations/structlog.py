"""
structlog: a processor for a chain that exists, and a bound logger class that decides early.

Nothing here configures structlog; `lipservice.configure_adaptive_logging` may, if it is asked to.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
import traceback
import types
from collections.abc import Callable, Mapping, MutableMapping
from threading import get_ident
from types import FrameType
from typing import Any, Final

from lipservice._settings import default_sampler_quietly, sampler_for
from lipservice._worker import OWN_THREADS
from lipservice.call_sites import CallSite, site_at
from lipservice.decision import Decision, Dropped
from lipservice.exceptions import ConfigurationError, MissingExtraError
from lipservice.integrations._deciding import Deciding, decide_watched, stamps_of
from lipservice.integrations._frozen import frozen
from lipservice.integrations.stdlib import (
    OWN_LOGGERS,
    Place,
    current_exception,
    make_record,
)
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import WATCHED, RequestScope, current_scope, deferring

try:
    import structlog
except ImportError as missing:
    raise MissingExtraError("structlog", "structlog") from missing

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "msg": logging.INFO,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}


class SamplingProcessor(Deciding):
    """
    Drops what the sampler does not keep; for anywhere in `processors`.

    The earlier it stands, the more a dropped event saves; after `merge_contextvars` and before
    everything costly is a good place. Kept events get the keys `lipservice_signature`,
    `lipservice_rate`, `lipservice_weight`, `lipservice_rule` and `lipservice_policy`. An event
    that has been decided already (by a bound logger of `sampling_bound_logger`) passes.

    Args:
        sampler: What decides; default: made from *settings*, else the default sampler.
        settings: As of `configure_adaptive_logging` (docs/reference/settings.md).

    Raises:
        ConfigurationError: A setting is wrong; the message names it.
    """

    def __init__(self, sampler: AdaptiveSampler | None = None, **settings: Any) -> None:
        super().__init__(sampler, settings)

    def __call__(
        self, logger: Any, name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """
        The event, stamped, if it is kept.

        Raises:
            structlog.DropEvent: It is dropped.
        """
        # `_record`: in a ProcessorFormatter, where nothing can be dropped any more.
        if "lipservice_weight" in event_dict or "_record" in event_dict:
            return event_dict
        if OWN_THREADS and get_ident() in OWN_THREADS and _LEVELS.get(name, 0) < logging.ERROR:
            if getattr(logger, "name", None) in OWN_LOGGERS:
                return event_dict
            raise structlog.DropEvent
        event = event_dict.get("event")
        sampler = self._bound or default_sampler_quietly()
        scope = current_scope() if WATCHED else None
        if scope is not None or sampler.boosted_loggers:
            return _process_watched(sampler, scope, logger, name, event_dict)
        # `positional_args`: an event "%s ..." before PositionalArgumentsFormatter.
        if "positional_args" in event_dict:
            decision = sampler.decide_format(event, name, _site_above, None)  # type: ignore[arg-type]
        else:
            decision = sampler.decide_at(event, name, _site_above, None)  # type: ignore[arg-type]
        if decision is None:
            raise structlog.DropEvent
        signature, rate, weight, rule, policy, unmeasured = decision
        event_dict["lipservice_signature"] = signature
        event_dict["lipservice_rate"] = rate
        event_dict["lipservice_weight"] = weight
        event_dict["lipservice_rule"] = rule
        event_dict["lipservice_policy"] = policy
        if unmeasured is not None:
            sampler.measure(decision, _size(event_dict))
        return event_dict


def _process_watched(
    sampler: AdaptiveSampler,
    scope: RequestScope | None,
    logger: Any,
    name: str,
    event_dict: MutableMapping[str, Any],
) -> MutableMapping[str, Any]:
    """As the processor, for an event of a request; it cannot be held, the chain is not ours."""
    outcome = decide_watched(
        sampler,
        getattr(logger, "name", None),
        scope,
        event_dict.get("event"),  # type: ignore[arg-type]  # copes with any object
        name,
        is_format="positional_args" in event_dict,
        find_site=_site_above,
        where=None,
    )
    if outcome is None or (type(outcome) is Dropped and not outcome.scope.failed):
        raise structlog.DropEvent
    event_dict.update(stamps_of(outcome, scope))
    _follow_up(sampler, scope, outcome, event_dict)
    return event_dict


def _follow_up(
    sampler: AdaptiveSampler,
    scope: RequestScope | None,
    outcome: Decision | Dropped,
    event_dict: Mapping[str, Any],
) -> None:
    """What is to be done for an event that is kept."""
    if type(outcome) is Dropped:
        outcome.scope.pass_on(outcome.row)
        return
    if outcome.unmeasured is not None:
        sampler.measure(outcome, _size(event_dict))
    if scope is not None and outcome.rule == "error":
        scope.keep()


def sampling_bound_logger(
    wrapper_class: type[Any] | None = None, sampler: AdaptiveSampler | None = None, **settings: Any
) -> type[Any]:
    """
    A `wrapper_class` that decides in the method call, before any processor runs.

    Args:
        wrapper_class: The bound logger class to build on; default: structlog's filtering bound
            logger at level NOTSET. Levels that it filters stay filtered.
        sampler: What decides; default: made from *settings*, else the default sampler, looked up
            at each call.
        settings: As of `configure_adaptive_logging`.

    Returns:
        A subclass for `structlog.configure(wrapper_class=...)`.

    Raises:
        ConfigurationError: A setting is wrong; the message names it.
    """
    base = wrapper_class or structlog.make_filtering_bound_logger(0)
    bound = sampler_for(sampler, settings) if sampler is not None or settings else None
    methods: dict[str, Callable[..., Any]] = {}
    for name in _LEVELS:
        _replace(methods, base, name, name, bound)
        _replace(methods, base, f"a{name}", name, bound)
    for name in ("log", "alog"):
        if hasattr(base, name):
            method = getattr(base, name)
            methods[name] = _unseen(_with_level(method, bound, _dropping(method)))
    if not methods:
        raise ConfigurationError(f"wrapper_class has no logging methods of its own: {base!r:.80}")
    methods["__reduce_ex__"] = _pickling(base, settings)
    return type(f"Sampling{base.__name__}", (base,), methods)


def _pickling(base: Any, settings: dict[str, Any]) -> Callable[..., Any]:
    """
    Such a class has no name that pickle could find: it is made again, from its settings.

    As for the other adapters, a sampler that was given stays where it is, and the default one of
    the process that unpickles decides there.
    """

    def reduce(self: Any, protocol: Any) -> Any:
        usual = base.__reduce_ex__(self, protocol)
        if "__reduce_ex__" not in vars(type(self)):
            return usual  # a class derived from ours, which has a name
        return (_remade, (base, settings), *usual[2:])

    return reduce


def _remade(base: type[Any], settings: dict[str, Any]) -> Any:
    cls: Any = sampling_bound_logger(base, **settings)
    return cls.__new__(cls)


def _dropping(method: Callable[..., Any]) -> Callable[[], Any]:
    return _dropped_async if inspect.iscoroutinefunction(method) else _dropped


def _replace(
    methods: dict[str, Callable[..., Any]],
    base: type[Any],
    name: str,
    severity: str,
    bound: AdaptiveSampler | None,
) -> None:
    method = getattr(base, name, None)
    # structlog's do-nothing methods, for levels that are off, stay what they are.
    if method is not None and method.__name__ not in {"_nop", "_anop"}:
        level = _LEVELS[severity] if hasattr(base, "isEnabledFor") else None
        methods[name] = _unseen(_deciding(method, severity, level, bound, _dropping(method)))


def _deciding(
    method: Callable[..., Any],
    severity: str,
    level: int | None,
    bound: AdaptiveSampler | None,
    dropped: Callable[[], Any],
) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, event: Any = None, *args: Any, **kw: Any) -> Any:
        if (kw and "lipservice_weight" in kw) or (OWN_THREADS and get_ident() in OWN_THREADS):
            return method(self, event, *args, **kw)
        if level is not None and not self.isEnabledFor(level):
            return dropped()  # by logging's level, so not ours to count
        sampler = bound or default_sampler_quietly()
        scope = current_scope() if WATCHED else None
        if scope is not None or sampler.boosted_loggers:
            stamped = watched(sampler, scope, self, severity, event, args, kw)
            return dropped() if stamped is None else method(self, event, *args, **stamped)
        if args:
            decision = sampler.decide_format(event, severity, _site_of_call, _DIRECT)
        else:
            decision = sampler.decide_at(event, severity, _site_of_call, _DIRECT)
        if decision is None:
            return dropped()
        return method(self, event, *args, **_stamped(sampler, kw, event, decision))

    watched = _watched
    return call


def _with_level(
    method: Callable[..., Any], bound: AdaptiveSampler | None, dropped: Callable[[], Any]
) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, level: Any, event: Any = None, *args: Any, **kw: Any) -> Any:
        own = OWN_THREADS and get_ident() in OWN_THREADS
        if own or (kw and "lipservice_weight" in kw) or _is_off(self, level):
            return method(self, level, event, *args, **kw)
        sampler = bound or default_sampler_quietly()
        scope = current_scope() if WATCHED else None
        if scope is not None or sampler.boosted_loggers:
            stamped = watched(sampler, scope, self, level, event, args, kw)
            return dropped() if stamped is None else method(self, level, event, *args, **stamped)
        if args:
            decision = sampler.decide_format(event, level, _site_of_call, _DIRECT)
        else:
            decision = sampler.decide_at(event, level, _site_of_call, _DIRECT)
        if decision is None:
            return dropped()
        return method(self, level, event, *args, **_stamped(sampler, kw, event, decision))

    watched = _watched
    return call


def _name_of(logger: Any) -> str | None:
    """Name of the logger underneath (`_logger` is structlog's documented attribute), if any."""
    name = getattr(getattr(_synchronous(logger), "_logger", None), "name", None)
    return name if isinstance(name, str) else None


def _synchronous(logger: Any) -> Any:
    """What an `AsyncBoundLogger` wraps (`sync_bl` is documented, too), or *logger* itself."""
    return getattr(logger, "sync_bl", logger)


def _decide_and_hold(
    sampler: AdaptiveSampler,
    scope: RequestScope | None,
    logger: Any,
    severity: Any,
    event: Any,
    args: tuple[Any, ...],
    kw: dict[str, Any],
) -> dict[str, Any] | None:
    """What to log an event of a request with; None: it is dropped, perhaps held."""
    outcome = decide_watched(
        sampler,
        _name_of(logger),
        scope,
        event,
        severity,
        is_format=bool(args),
        find_site=_site_of_call,
        where=_WATCHED,
    )
    if outcome is None:
        return None
    kw = {**kw, **stamps_of(outcome, scope)}
    if type(outcome) is Dropped and not outcome.scope.failed:
        name = severity if isinstance(severity, str) else _METHODS.get(severity)
        if not outcome.scope.holds:
            outcome.scope.refuse()
        elif name is not None:  # a level of the application's own has no method to write it with
            _hold(logger, name, event, args, kw, outcome)
        return None
    _follow_up(sampler, scope, outcome, {"event": event, **kw})
    return kw


def _hold_event(
    logger: Any,
    name: str,
    event: Any,
    args: tuple[Any, ...],
    kw: dict[str, Any],
    dropped: Dropped,
) -> None:
    """
    Run the processors now, so that time, context and values are those of the call, and hold what
    they made for the logger underneath. `_process_event` is there for subclasses to call.
    """
    try:
        logger = _synchronous(logger)
        under = logger._logger  # noqa: SLF001 - documented
        if isinstance(under, logging.Logger) and not under.isEnabledFor(_LEVELS[name]):
            return  # it would not have been written either
        if kw.get("exc_info") is True:
            kw = {**kw, "exc_info": current_exception()}
        if isinstance(logger, structlog.stdlib.BoundLogger):
            kw = {**kw, "positional_args": args} if args else kw
        elif args:
            one = args[0] if len(args) == 1 and isinstance(args[0], Mapping) else None
            event = event % (one or args)
        name = _called(logger, name)
        with deferring() as effects:
            made = logger._process_event(name, event, kw)  # noqa: SLF001
        (final, options), size = frozen(made)
        frame = sys._getframe(_HELD_BELOW)  # noqa: SLF001 - as structlog does
        effects.append(_writer(under, name, final, options, frame, dropped))
    except structlog.DropEvent:
        return
    except Exception:  # arguments that do not fit (nobody could write it), a container in itself
        dropped.scope.refuse()
        return
    dropped.scope.hold(lambda: [effect() for effect in effects], 200 + size, dropped.row)


def _called(logger: Any, name: str) -> str:
    """What *logger*'s method *name* calls itself to processors: `warn` is `warning`, say."""
    called = getattr(getattr(type(logger), name, None), "__name__", name)
    return called if called in _LEVELS else name


def _writer(
    under: Any,
    name: str,
    final: tuple[Any, ...],
    options: dict[str, Any],
    frame: FrameType,
    dropped: Dropped,
) -> Callable[[], Any]:
    """What hands an event that was processed to the logger underneath."""
    if not isinstance(under, logging.Logger):
        return functools.partial(getattr(under, name), *final, **options)
    # Its record is made now: time, thread and place are those of the call.
    record = make_record(
        under,
        _LEVELS[name],
        final[0] if final else options.get("msg", ""),
        final[1:],
        options.get("exc_info"),
        options.get("extra"),
        _place_of(
            frame,
            level=options.get("stacklevel", 1),
            stack=bool(options.get("stack_info")),
        ),
    )
    vars(record).update(stamps_of(dropped))
    return functools.partial(under.handle, record)


#: The method that writes an event of a level.
_METHODS: Final = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "critical",
}

#: Frames from `_hold_event` to what called `logger.info`.
_HELD_BELOW: Final = 3


def _place_of(frame: FrameType, *, level: int, stack: bool) -> Place:
    for _ in range(level - 1):
        frame = frame.f_back or frame
    shown = None
    if stack:
        shown = "Stack (most recent call last):\n" + "".join(traceback.format_stack(frame)).rstrip()
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, shown


#: Frames from `_site_of_call` to what called `logger.info`, on the two ways there.
_DIRECT: Final = 4
_WATCHED: Final = 6


def _site_of_call(depth: int, *, percent: bool = False) -> CallSite | None:
    frame = sys._getframe(depth)  # noqa: SLF001 - as logging does
    return site_at(frame.f_code.co_filename, frame.f_lineno, percent=percent)


def _site_above(_nothing: None, *, percent: bool = False) -> CallSite | None:
    """Where the event of a processor was logged: the first frame above structlog's own."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - as structlog does
    while frame is not None and frame.f_globals.get("__name__", "").startswith(_LIBRARIES):
        frame = frame.f_back
    if frame is None:
        return None
    return site_at(frame.f_code.co_filename, frame.f_lineno, percent=percent)


_LIBRARIES: Final = ("structlog.", "lipservice.")


def _is_off(logger: Any, level: Any) -> bool:
    """Whether a filtering bound logger would drop this level itself: then it is not counted."""
    asks = getattr(logger, "isEnabledFor", None) or getattr(logger, "is_enabled_for", None)
    if asks is not None:
        return not asks(level)
    # Before 25.1 a filtering bound logger cannot be asked; but it has methods that do nothing.
    method = getattr(logger, str(logging.getLevelName(level)).lower(), None)
    return getattr(method, "__name__", None) == "_nop"


def _unseen(function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Keep *function*'s frame out of structlog's search for the caller.

    structlog skips frames of modules whose name begins with "structlog"; without this the call
    site of every event would be this file.
    """
    unseen = types.FunctionType(
        function.__code__,
        {**globals(), "__name__": "structlog.lipservice"},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    return functools.update_wrapper(unseen, function)


_hold: Final = _unseen(_hold_event)
_watched: Final = _unseen(_decide_and_hold)  # last: it finds here only what stands above


def _dropped() -> None:
    return None


async def _dropped_async() -> None:
    return None


def _stamped(
    sampler: AdaptiveSampler, kw: dict[str, Any], event: object, decision: Decision
) -> dict[str, Any]:
    kw["lipservice_signature"] = decision.signature
    kw["lipservice_rate"] = decision.rate
    kw["lipservice_weight"] = decision.weight
    kw["lipservice_rule"] = decision.rule
    kw["lipservice_policy"] = decision.policy
    if decision.unmeasured is not None:
        sampler.measure(decision, _size({"event": event, **kw}))
    return kw


def _size(event_dict: Mapping[str, Any]) -> int:
    """About what the event takes as JSON: keys, values, quotes and commas."""
    try:
        return sum(len(str(key)) + len(str(value)) + 6 for key, value in event_dict.items())
    except Exception:  # a value that cannot be shown: the renderer will say so
        return 0
