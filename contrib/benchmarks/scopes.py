"""
What a request costs: its scope, and a log call within it, beside the same call outside of one.

A web request is modelled as `with lipservice.request():` around ten calls of
`logger.info("user %s did %s", a, b)` into a formatted stream; every tenth of the requests that
"fail" has a `keep_request()` at its end. Told are nanoseconds of processor time a log call, and
the ratio to the same form without requests in the same run.
"""

from __future__ import annotations

import io
import logging
import random
from collections.abc import Callable
from typing import Any

from measuring import interleaved, print_table

import lipservice
from lipservice.integrations.stdlib import SamplingFilter, sampling_logger_class
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import RecorderLimits

RECORDS = 10
CALLS, ROUNDS = 200, 41


class _Sink(io.StringIO):
    def write(self, text: str, /) -> int:
        return len(text)


def run() -> dict[str, Any]:
    """Measure; nanoseconds a log call and ratios by case."""
    results: dict[str, Any] = {}
    for rate in (1.0, 0.1, 0.01):
        cases = {**_cases("filter", rate), **_cases("early", rate)}
        nanoseconds = interleaved(cases, calls=CALLS, rounds=ROUNDS)
        rows = []
        for name, ns in nanoseconds.items():
            outside = nanoseconds[f"{name.split(',')[0]}, no request"]
            results[f"rate {rate}: {name}"] = {
                "ns": round(ns / RECORDS),
                "ratio": round(ns / outside, 3),
            }
            rows.append((name, f"{ns / RECORDS:,.0f}", f"{ns / outside:.2f}"))
        print_table(f"rate {rate}: one log call", ("case", "ns", "of no request"), rows)
    empty = interleaved(
        {"nothing": lambda: None, "request": _empty_request}, calls=2000, rounds=ROUNDS
    )
    results["an empty request"] = {"ns": round(empty["request"] - empty["nothing"])}
    print(f"\nopening and leaving an empty request: {results['an empty request']['ns']:,} ns")
    return results


def _empty_request() -> None:
    with lipservice.request("GET /"):
        pass


def _cases(form: str, rate: float) -> dict[str, Callable[[], object]]:
    nothing = RecorderLimits(max_records=0)
    return {
        f"{form}, no request": _outside(_logger(form, rate)),
        f"{form}, in a request": _within(_logger(form, rate)),
        f"{form}, in a request that holds nothing": _within(_logger(form, rate), limits=nothing),
        f"{form}, in requests of which a tenth fails": _within(_logger(form, rate), fails=10),
    }


def _logger(form: str, rate: float) -> logging.Logger:
    sampler = AdaptiveSampler(
        policy=SamplingPolicy(sampling_rate=rate), notices=False, rng=random.Random(1)
    )
    cls = sampling_logger_class(sampler) if form == "early" else logging.Logger
    logger = cls("requests", logging.INFO)
    handler = logging.StreamHandler(_Sink())
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    if form == "filter":
        handler.addFilter(SamplingFilter(sampler=sampler))
    logger.addHandler(handler)
    logger.manager = logging.Logger.manager
    return logger


def _outside(logger: logging.Logger) -> Callable[[], object]:
    def call() -> None:
        for _ in range(RECORDS):
            logger.info("user %s did %s", "bob", 17)

    return call


def _within(
    logger: logging.Logger, *, limits: RecorderLimits | None = None, fails: int = 0
) -> Callable[[], object]:
    numbers = iter(range(10**12))

    def call() -> None:
        with lipservice.request("GET /", limits=limits):
            for _ in range(RECORDS):
                logger.info("user %s did %s", "bob", 17)
            if fails and next(numbers) % fails == 0:
                lipservice.keep_request()

    return call


if __name__ == "__main__":
    run()
