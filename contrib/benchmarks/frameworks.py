"""
What a log call costs the application: each framework alone, with LipService, and with its peers.

Every line is one call of `logger.info("user %s did %s", a, b)` (or its like) that ends in a
formatted stream. Interleaved, medians; the ratio is to the same framework alone, in the same run:
above 1 is cheaper than without LipService.
"""

from __future__ import annotations

import io
import json
import logging
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

from measuring import interleaved, print_table

from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler

RATE = 0.1
#: Calls a round, and rounds; a median of rounds is told.
CALLS, ROUNDS = 2000, 25


class _Sink(io.StringIO):
    """A stream that forgets: formatting is paid, memory is not."""

    def write(self, text: str, /) -> int:
        return len(text)


def run() -> dict[str, Any]:
    """Measure all frameworks; nanoseconds and ratios by name."""
    results: dict[str, Any] = {}
    for name, cases in (
        ("logging", _logging_cases()),
        ("structlog", _structlog_cases()),
        ("loguru", _loguru_cases()),
    ):
        nanoseconds = interleaved(cases, calls=CALLS, rounds=ROUNDS)
        alone = nanoseconds["alone"]
        results[name] = {
            case: {"ns": round(ns), "cheaper_by": round(alone / ns, 2)}
            for case, ns in nanoseconds.items()
        }
        print_table(
            f"{name}: one call, ns",
            ("case", "ns", "times cheaper than alone"),
            [(case, f"{ns:,.0f}", f"{alone / ns:.2f}") for case, ns in nanoseconds.items()],
        )
    return results


def _sampler(rate: float) -> AdaptiveSampler:
    policy = SamplingPolicy(sampling_rate=rate)
    return AdaptiveSampler(policy=policy, notices=False, rng=random.Random(1))


def _logging_cases() -> dict[str, Callable[[], object]]:
    from lipservice.integrations.stdlib import (
        SamplingFilter,
        SamplingHandler,
        sampling_logger_class,
    )

    def plain(name: str, *filters: Any, logger_class: type[logging.Logger] = logging.Logger) -> Any:
        logger = logger_class(name, logging.INFO)
        handler = logging.StreamHandler(_Sink())
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for each in filters:
            handler.addFilter(each)
        logger.addHandler(handler)
        logger.manager = logging.Logger.manager  # as a logger that getLogger made
        return logger

    wrapped = plain("wrapped")
    wrapped.handlers = [SamplingHandler(wrapped.handlers[0], sampler=_sampler(RATE))]
    loggers = {
        "alone": plain("alone"),
        "filter, rate 0.1": plain("filter", SamplingFilter(sampler=_sampler(RATE))),
        "SamplingHandler, rate 0.1": wrapped,
        "SamplingLogger, rate 0.1": plain(
            "early", logger_class=sampling_logger_class(_sampler(RATE))
        ),
        "filter, rate 1": plain("filter-1", SamplingFilter(sampler=_sampler(1.0))),
        "SamplingLogger, rate 1": plain(
            "early-1", logger_class=sampling_logger_class(_sampler(1.0))
        ),
        "peer: random filter by hand, rate 0.1": plain(
            "random", lambda _record: random.random() < RATE
        ),
    }
    _add_peers(loggers, plain)
    return {
        name: (lambda info=logger.info: info("user %s did %s", "bob", 17))
        for name, logger in loggers.items()
    }


def _add_peers(loggers: dict[str, Any], plain: Callable[..., Any]) -> None:
    """Packages of PyPI that thin out logging; they limit by time, so most calls are drops."""
    try:
        from log_rate_limit import StreamRateLimitFilter
    except ImportError:
        pass
    else:
        loggers["peer: log-rate-limit, 1 a second"] = plain(
            "peer-1", StreamRateLimitFilter(period_sec=1)
        )
    try:
        from log_throttling import by_calls, throttle
    except ImportError:
        return
    loggers["peer: log-throttling, every 10th"] = _Throttled(plain("peer-2"), throttle, by_calls)


class _Throttled:
    """log-throttling wraps each call of a logger."""

    def __init__(self, logger: logging.Logger, throttle: Any, by_calls: Any) -> None:
        self._logger, self._throttle, self._by_calls = logger, throttle, by_calls

    def info(self, *args: object) -> None:
        self._throttle(self._logger, self._by_calls(10)).info(*args)


def _structlog_cases() -> dict[str, Callable[[], object]]:
    import structlog

    from lipservice.integrations.structlog import SamplingProcessor, sampling_bound_logger

    chain = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    ]
    base = structlog.make_filtering_bound_logger(logging.INFO)

    def made(*first: Any, wrapper: Any = base) -> Any:
        logger = structlog.wrap_logger(
            structlog.WriteLogger(_Sink()), processors=[*first, *chain], wrapper_class=wrapper
        )
        return logger.bind(service="shop")

    loggers = {
        "alone": made(),
        "processor, rate 0.1": made(SamplingProcessor(_sampler(RATE))),
        "bound logger, rate 0.1": made(wrapper=sampling_bound_logger(base, _sampler(RATE))),
        "processor, rate 1": made(SamplingProcessor(_sampler(1.0))),
        "bound logger, rate 1": made(wrapper=sampling_bound_logger(base, _sampler(1.0))),
    }
    return {
        name: (lambda info=logger.info: info("user did something", user="bob", what=17))
        for name, logger in loggers.items()
    }


def _loguru_cases() -> dict[str, Callable[[], object]]:
    import copy

    from loguru import logger as shared

    from lipservice.integrations.loguru import LoguruFilter, SamplingSink

    shared.remove()

    def made(add: Callable[[Any], object]) -> Any:
        logger = copy.deepcopy(shared)
        add(logger)
        return logger

    loggers = {
        "alone": made(lambda log: log.add(_Sink())),
        "filter, rate 0.1": made(lambda log: log.add(_Sink(), filter=LoguruFilter(_sampler(RATE)))),
        "SamplingSink.add, rate 0.1": made(
            lambda log: SamplingSink(_Sink(), _sampler(RATE)).add(log)
        ),
        "SamplingSink as a sink, rate 0.1": made(
            lambda log: log.add(SamplingSink(_Sink(), _sampler(RATE)))
        ),
        "filter, rate 1": made(lambda log: log.add(_Sink(), filter=LoguruFilter(_sampler(1.0)))),
    }
    return {
        name: (lambda info=logger.info: info("user {} did {}", "bob", 17))
        for name, logger in loggers.items()
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    json.dump(run(), sys.stdout, indent=1)
