"""
What a scrape of the ledger costs at 10,000 patterns, and for how long it can hold up a log call.

    python contrib/benchmarks/ledger.py

scrape   processor time of each form, as a ratio to `sampler.totals()`
lock     how long a scrape holds the engine's lock at a time (64 patterns), and all at once: what it
         falls back to when a pattern is evicted in the middle
log      the longest log call of a thread while others scrape without a pause, beside the same
         while others only compute: what is left is the interpreter's own switching
"""

from __future__ import annotations

import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from measuring import interleaved, print_table  # noqa: E402 - the path is set above

from lipservice.metrics import prometheus_text  # noqa: E402
from lipservice.metrics.accounts import Accounts  # noqa: E402
from lipservice.policy import SamplingPolicy  # noqa: E402
from lipservice.sampler import AdaptiveSampler  # noqa: E402

PATTERNS = 10_000
SECONDS = 3.0
BATCH = 64


def run() -> dict[str, Any]:
    """Measure everything and return the figures by name."""
    sampler = _filled()
    return {"scrape_ms": _scrapes(sampler), "lock_ms": _lock(sampler), "log_us": _calls(sampler)}


def table(results: dict[str, Any]) -> str:
    """Print what `run` returned."""
    scrape = results["scrape_ms"]
    base = scrape["totals()"]
    print_table(
        f"A look at {PATTERNS:,} patterns",
        ("", "ms", "x totals()"),
        [(name, f"{ms:.2f}", f"{ms / base:.1f}") for name, ms in scrape.items()],
    )
    for title, rows in (
        ("The engine's lock, ms", results["lock_ms"]),
        ("A log call, us", results["log_us"]),
    ):
        header = next(iter(rows.values())).keys()
        print_table(
            title,
            ("", *header),
            [(name, *(f"{value:.3g}" for value in row.values())) for name, row in rows.items()],
        )
    return ""


def _filled() -> AdaptiveSampler:
    sampler = AdaptiveSampler(
        max_pattern_cache_size=PATTERNS,
        policy=SamplingPolicy(policy_id="1", sampling_rate=0.1, keep_first=3),
        notices=False,
        rng=random.Random(1),
    )
    letters = "abcdefghij"
    for number in range(PATTERNS):
        word = "".join(letters[int(digit)] for digit in f"{number:04d}")
        for n in range(10):
            sampler.should_sample(f"job {word} took {n} ms", "INFO")
    sampler.apply_policy(SamplingPolicy(policy_id="2", sampling_rate=0.2, keep_first=3))
    return sampler


def _scrapes(sampler: AdaptiveSampler) -> dict[str, float]:
    accounts = Accounts(sampler)
    with_patterns = Accounts(sampler)
    cases = {
        "totals()": sampler.totals,
        "ledger(patterns=False)": lambda: sampler.ledger(patterns=False),
        "ledger()": sampler.ledger,
        "metrics": lambda: accounts.snapshot(patterns=False),
        "metrics, patterns": lambda: with_patterns.snapshot(patterns=True),
        "prometheus_text()": lambda: prometheus_text(sampler),
        "prometheus_text(patterns=True)": lambda: prometheus_text(sampler, patterns=True),
    }
    return {name: ns / 1e6 for name, ns in interleaved(cases, calls=1, rounds=15).items()}


def _lock(sampler: AdaptiveSampler) -> dict[str, dict[str, float]]:
    """The engine's lock, replaced by one that notes how long it was held."""
    rows = {}
    for name, look in (
        ("metrics", lambda: sampler.ledger(patterns=False)),
        ("metrics, patterns", sampler.ledger),
        ("totals()", sampler.totals),
    ):
        lock = _Timed(sampler._lock)
        sampler._lock = lock
        for _ in range(20):
            look()
        sampler._lock = lock.lock
        held = sorted(lock.held)
        rows[name] = {
            "median": held[len(held) // 2],
            "99 %": held[int(len(held) * 0.99)],
            "longest": held[-1],
        }
    departures = iter(range(10**9))
    kind = type(sampler)
    kind._departures = property(lambda _self: next(departures), lambda _self, _value: None)
    try:
        del sampler.__dict__["_departures"]
        lock = _Timed(sampler._lock)
        sampler._lock = lock
        for _ in range(5):
            sampler.ledger(patterns=False)
        sampler._lock = lock.lock
    finally:
        del kind._departures
        sampler._departures = 0
    longest = sorted(lock.held)[-5:]
    rows["metrics, while evicting"] = {"median": 0.0, "99 %": 0.0, "longest": longest[2]}
    return rows


class _Timed:
    """A lock and for how many milliseconds of processor time each hold lasted."""

    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.held: list[float] = []

    def __enter__(self) -> None:
        self.lock.acquire()
        self.since = time.thread_time_ns()

    def __exit__(self, *_exc: object) -> None:
        self.held.append((time.thread_time_ns() - self.since) / 1e6)
        self.lock.release()


def _calls(sampler: AdaptiveSampler) -> dict[str, dict[str, float]]:
    return {
        "alone": _log_beside(sampler, None),
        "beside a thread that computes": _log_beside(sampler, lambda: sum(range(20_000))),
        "beside a scrape": _log_beside(sampler, lambda: prometheus_text(sampler)),
        "beside a scrape of patterns": _log_beside(
            sampler, lambda: prometheus_text(sampler, patterns=True)
        ),
    }


def _log_beside(sampler: AdaptiveSampler, work: Any) -> dict[str, float]:
    done = threading.Event()

    def busy() -> None:
        while not done.is_set():
            work()

    thread = threading.Thread(target=busy if work else done.wait)
    thread.start()
    taken = []
    until = time.perf_counter() + SECONDS
    number = 0
    while time.perf_counter() < until:
        number += 1
        message = f"job {'abcdefghij'[number % 10]}aaa took {number} ms"
        start = time.perf_counter_ns()
        sampler.should_sample(message, "INFO")
        taken.append((time.perf_counter_ns() - start) / 1e3)
        if number % 100 == 0:
            time.sleep(0.0005)
    done.set()
    thread.join()
    taken.sort()
    return {
        "median": taken[len(taken) // 2],
        "99.9 %": taken[int(len(taken) * 0.999)],
        "longest": taken[-1],
    }


if __name__ == "__main__":
    table(run())
