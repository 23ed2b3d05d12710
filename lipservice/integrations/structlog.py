"""
structlog: a processor for a chain that exists, and a bound logger class that decides early.

Nothing here configures structlog; `lipservice.configure_adaptive_logging` may, if it is asked to.
"""

from __future__ import annotations

import functools
import logging
import types
from collections.abc import Callable, Mapping, MutableMapping
from threading import get_ident
from typing import Any, Final

from lipservice._settings import default_sampler_quietly, sampler_for
from lipservice._worker import OWN_THREADS
from lipservice.decision import Decision
from lipservice.exceptions import MissingExtraError
from lipservice.integrations.stdlib import OWN_LOGGERS
from lipservice.sampler import AdaptiveSampler

try:
    import structlog
except ImportError as missing:
    raise MissingExtraError("structlog", "structlog") from missing

_METHODS: Final = (
    "debug", "info", "msg", "warning", "warn", "error", "critical", "fatal", "exception"
)  # fmt: skip


class SamplingProcessor:
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
        self._bound = sampler_for(sampler, settings)

    @property
    def sampler(self) -> AdaptiveSampler:
        """What decides."""
        return self._bound or default_sampler_quietly()

    def __call__(
        self, logger: Any, name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """
        The event, stamped, if it is kept.

        Raises:
            structlog.DropEvent: It is dropped.
        """
        if "lipservice_weight" in event_dict:
            return event_dict
        if OWN_THREADS and get_ident() in OWN_THREADS:
            if getattr(logger, "name", None) in OWN_LOGGERS:
                return event_dict
            raise structlog.DropEvent
        event = event_dict.get("event")
        sampler = self._bound or default_sampler_quietly()
        # `positional_args`: an event "%s ..." before PositionalArgumentsFormatter.
        if "positional_args" in event_dict:
            decision = sampler.decide_format(event, name)  # type: ignore[arg-type]
        else:
            decision = sampler.decide_message(event, name)  # type: ignore[arg-type]
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
    for name in _METHODS:
        _replace(methods, base, name, name, bound, _dropped)
        _replace(methods, base, f"a{name}", name, bound, _dropped_async)
    for name, dropped in (("log", _dropped), ("alog", _dropped_async)):
        if hasattr(base, name):
            methods[name] = _unseen(_with_level(getattr(base, name), bound, dropped))
    return type(f"Sampling{base.__name__}", (base,), methods)


def _replace(
    methods: dict[str, Callable[..., Any]],
    base: type[Any],
    name: str,
    severity: str,
    bound: AdaptiveSampler | None,
    dropped: Callable[[], Any],
) -> None:
    method = getattr(base, name, None)
    # structlog's do-nothing methods, for levels that are off, stay what they are.
    if method is not None and method.__name__ not in {"_nop", "_anop"}:
        level = logging.getLevelName(severity.upper()) if hasattr(base, "isEnabledFor") else None
        methods[name] = _unseen(_deciding(method, severity, level, bound, dropped))


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
        decide = sampler.decide_format if args else sampler.decide_message
        decision = decide(event, severity)
        if decision is None:
            return dropped()
        return method(self, event, *args, **_stamped(sampler, kw, event, decision))

    return call


def _with_level(
    method: Callable[..., Any], bound: AdaptiveSampler | None, dropped: Callable[[], Any]
) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, level: Any, event: Any = None, *args: Any, **kw: Any) -> Any:
        if _is_off(self, level) or (OWN_THREADS and get_ident() in OWN_THREADS):
            return method(self, level, event, *args, **kw)
        sampler = bound or default_sampler_quietly()
        decide = sampler.decide_format if args else sampler.decide_message
        decision = decide(event, level)
        if decision is None:
            return dropped()
        return method(self, level, event, *args, **_stamped(sampler, kw, event, decision))

    return call


def _is_off(logger: Any, level: Any) -> bool:
    """Whether a filtering bound logger would drop this level itself: then it is not counted."""
    asks = getattr(logger, "isEnabledFor", None) or getattr(logger, "is_enabled_for", None)
    return asks is not None and not asks(level)


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
