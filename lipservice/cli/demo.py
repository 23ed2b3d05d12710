"""
`lipservice demo`: a real web application under load, sampled live, without a server or a file.

What is shown comes from two sides that know nothing of each other: the sampler's own counts, and
a ledger that counts every record before the sampler sees it, and every record that comes through.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from threading import Lock
from typing import Final, TextIO

from lipservice.cli.demo_load import LoopbackServer, Visitors
from lipservice.cli.demo_shop import BackgroundJobs, Shop
from lipservice.cli.simulate import (
    DEFAULT_COST_TARGET,
    add_report_arguments,
    check_outputs,
    read_share,
    show_report,
)
from lipservice.exceptions import ConfigurationError
from lipservice.families import merge_families
from lipservice.integrations.stdlib import SamplingFilter
from lipservice.patterns import PatternStats
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.severity import PROTECTED_SEVERITIES, severity_name
from lipservice.signature import compute_format_signature, compute_signature
from lipservice.simulation import wording
from lipservice.simulation.console import Console, fit, safe
from lipservice.simulation.report import (
    MONTH,
    FirstRecords,
    InputSummary,
    Money,
    Report,
    Slice,
    Tally,
    build_rows,
    live_outcome,
    uniform_outcome_of,
)

_VISITORS: Final = 4
_REFRESH: Final = 0.25
_LIVE_ROWS: Final = 12
#: Patterns whose estimated counts are compared with the true ones.
_COMPARED: Final = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the subcommand."""
    parser.add_argument(
        "--seconds", type=_seconds, default=10.0, metavar="S", help="how long (default: 10)"
    )
    parser.add_argument(
        "--cost-target", type=read_share, default=DEFAULT_COST_TARGET, metavar="SHARE",
        help=f"share of the bytes to keep, 0.1 or 10%% (default: {DEFAULT_COST_TARGET})",
    )  # fmt: skip
    add_report_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    if not arguments.cost_target > 0:
        raise ConfigurationError("--cost-target is above 0 here: the sampler keeps something")
    check_outputs(arguments, [])
    sampler = AdaptiveSampler(
        service_name=arguments.service_name or "shop",
        cost_target=arguments.cost_target,
        notices=False,
    )
    ledger = Ledger()
    view = _view(arguments)
    try:
        with _logging_into(ledger, sampler), _shop_under_load(arguments.seconds):
            first_policy = _watch(sampler, arguments.seconds, view)
    finally:
        view.close()
        sampler.shutdown()
    show_report(_report(sampler, ledger, first_policy, arguments), arguments)
    return 0


# --- the ledger -----------------------------------------------------------------------------


class Ledger(logging.Handler):
    """
    Counts what is logged and, as a handler, what comes through the sampler.

    `note` is the first filter of the handler, the sampler's filter is the second.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started = time.time()
        #: Records written, by format string (with arguments) or signature (without).
        self.written: Counter[tuple[str, bool]] = Counter()
        self.errors = 0
        self.kept = 0
        self.kept_errors = 0
        # By signature: the kept records' weights, and the variance of their sum.
        self._weights: defaultdict[str, float] = defaultdict(float)
        self._variances: defaultdict[str, float] = defaultdict(float)
        #: Bytes of the messages in each second: seen, kept, errors.
        self.seconds: dict[int, list[int]] = {}
        self._noting = Lock()
        # Where kept records would go; the formatting is real.
        self._sink = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - see close()

    def note(self, record: logging.LogRecord) -> bool:
        """Count a record that is written."""
        size = len(record.getMessage())
        error = _severity_of(record) in PROTECTED_SEVERITIES
        with self._noting:
            if record.args:
                self.written[str(record.msg), True] += 1
            else:
                self.written[compute_signature(str(record.msg)), False] += 1
            self.errors += error
            second = self._second(record)
            second[0] += size
            second[2] += size if error else 0
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Count and write a record that is kept."""
        self._sink.write(self.format(record) + "\n")
        size = len(record.getMessage())
        with self._noting:
            self.kept += 1
            self.kept_errors += _severity_of(record) in PROTECTED_SEVERITIES
            stamps = vars(record)
            signature, weight = stamps["lipservice_signature"], stamps["lipservice_weight"]
            self._weights[signature] += weight
            self._variances[signature] += weight * (weight - 1.0)
            self._second(record)[1] += size

    def close(self) -> None:
        """Close the sink."""
        self._sink.close()
        super().close()

    def estimate(self, signature: str) -> tuple[float, float]:
        """
        The true count as the kept records tell it, and its standard deviation.

        Horvitz and Thompson 1952: the sum of the weights 1/r; its variance is estimated by the
        sum of (1 - r) / r^2 over what was kept.
        """
        return self._weights[signature], math.sqrt(self._variances[signature])

    def by_signature(self) -> Counter[str]:
        """Records written, by signature."""
        found: Counter[str] = Counter()
        for (text, is_format), count in self.written.items():
            found[compute_format_signature(text) if is_format else text] += count
        return found

    def _second(self, record: logging.LogRecord) -> list[int]:
        return self.seconds.setdefault(int(record.created - self.started), [0, 0, 0])


def _severity_of(record: logging.LogRecord) -> str:
    return severity_name(record.levelno)


@contextmanager
def _logging_into(ledger: Ledger, sampler: AdaptiveSampler) -> Iterator[None]:
    """Let the shop's loggers write to the ledger through the sampler, as `dictConfig` would."""
    logger = logging.getLogger("shop")
    before = logger.level, logger.propagate
    ledger.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    ledger.addFilter(ledger.note)
    ledger.addFilter(SamplingFilter(sampler=sampler))
    logger.addHandler(ledger)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(ledger)
        logger.level, logger.propagate = before
        ledger.close()


@contextmanager
def _shop_under_load(seconds: float) -> Iterator[None]:
    rng = random.Random(1)
    shop = Shop(rng)
    server = LoopbackServer(shop)
    visitors = Visitors(server.port, _VISITORS, rng)
    with ExitStack() as stack:
        stack.callback(shop.close)
        server.start()
        stack.callback(server.stop)
        jobs = BackgroundJobs(shop, rare_after=seconds / 2)
        jobs.start()
        stack.callback(jobs.stop)
        visitors.start()
        stack.callback(visitors.stop)
        yield


# --- live -----------------------------------------------------------------------------------


class _FirstPolicy:
    """What had been seen and kept when the sampler's first policy came into force."""

    def __init__(self, seconds: float, seen: float, kept: float) -> None:
        self.seconds = seconds
        self._seen = seen
        self._kept = kept

    def share_since(self, tallies: list[Tally]) -> float:
        """The share of the bytes that was kept from then on."""
        seen = sum(each.bytes for each in tallies) - self._seen
        kept = sum(each.kept_bytes for each in tallies) - self._kept
        return min(max(kept / seen, 0.0), 1.0) if seen > 0 else 1.0


def _watch(sampler: AdaptiveSampler, seconds: float, view: _View) -> _FirstPolicy | None:
    """Show what goes on until the time is over."""
    first: _FirstPolicy | None = None
    started = time.monotonic()
    while (passed := time.monotonic() - started) < seconds:
        time.sleep(min(_REFRESH, max(seconds - passed, 0.0)))
        policy = sampler.get_policy()
        tallies = [_tally(each) for each in sampler.get_pattern_stats().values()]
        if first is None and policy is not None:
            seen = sum(each.bytes for each in tallies)
            kept = sum(each.kept_bytes for each in tallies)
            first = _FirstPolicy(time.monotonic() - started, seen, kept)
        view.show(min(time.monotonic() - started, seconds), tallies, policy)
    return first


class _View:
    """Shows nothing: the base of the two that do."""

    def show(self, passed: float, tallies: list[Tally], policy: SamplingPolicy | None) -> None:
        """Show the state after so many seconds."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class _LineView(_View):
    """A line each second, for pipes and log files."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 1.0

    def show(self, passed: float, tallies: list[Tally], policy: SamplingPolicy | None) -> None:
        if passed < self._next:
            return
        self._next = float(int(passed)) + 1.0
        self._console.line(f"{passed:5.1f} s  {_state_words(tallies, policy)}")
        self._console.raw("")


class _TableView(_View):
    """A table that is drawn over and over, for a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._drawn = 0
        console.raw("\x1b[?25l")

    def show(self, passed: float, tallies: list[Tally], policy: SamplingPolicy | None) -> None:
        lines = _live_lines(self._console, passed, tallies, policy)
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._console.raw(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
        self._drawn = len(lines)

    def close(self) -> None:
        up = f"\x1b[{self._drawn}A\x1b[J" if self._drawn else ""
        self._console.raw(f"{up}\x1b[?25h")


def _view(arguments: argparse.Namespace) -> _View:
    stream: TextIO = sys.stderr if arguments.json else sys.stdout
    console = Console(stream)
    if console.terminal:
        return _TableView(console)
    return _View() if arguments.json else _LineView(console)


def _state_words(tallies: list[Tally], policy: SamplingPolicy | None) -> str:
    seen = sum(each.count for each in tallies)
    kept = sum(each.kept_records for each in tallies)
    share = sum(each.kept_bytes for each in tallies) / max(sum(each.bytes for each in tallies), 1)
    state = f"policy {policy.version}" if policy else "no policy yet, everything is kept"
    return (
        f"{seen:>9,} records seen, {kept:>8,.0f} kept, {wording.percent(share):>6} of the bytes "
        f"so far ({state})"
    )


def _live_lines(
    console: Console, passed: float, tallies: list[Tally], policy: SamplingPolicy | None
) -> list[str]:
    width = max(console.width - 48, 12)
    head = f"  {'PATTERN':<{width}} {'LEVEL':<8} {'SEEN':>9} {'KEPT':>9} {'RATE NOW':>9}"
    lines = [
        console.style(
            fit(f"{passed:5.1f} s  {_state_words(tallies, policy)}", console.width), "bold"
        ),
        console.style(fit(head, console.width), "dim"),
    ]
    tallies = sorted(tallies, key=lambda each: (-each.count, each.template))
    for each in tallies[:_LIVE_ROWS]:
        protected = each.severity in PROTECTED_SEVERITIES
        rate = "always" if protected else wording.percent(each.rate)
        lines.append(
            f"  {fit(safe(each.template), width)} {each.severity:<8} {each.count:>9,} "
            f"{each.kept_records:>9,.0f} {rate:>9}"
        )
    return lines


# --- the report -----------------------------------------------------------------------------


def _tally(stats: PatternStats) -> Tally:
    """A pattern's counts; the shop logs each of its patterns at one severity."""
    severity = max(stats.severity_distribution, key=lambda name: stats.severity_distribution[name])
    return Tally(
        signature=stats.signature,
        template=stats.template,
        severity=severity,
        count=stats.count,
        bytes=stats.bytes,
        rate=stats.sampling_rate,
        kept_records=stats.kept,
        kept_bytes=stats.bytes * stats.kept / stats.count if stats.count else 0.0,
    )


def _report(
    sampler: AdaptiveSampler,
    ledger: Ledger,
    first_policy: _FirstPolicy | None,
    arguments: argparse.Namespace,
) -> Report:
    tallies = [_tally(each) for each in sampler.get_pattern_stats().values() if each.count]
    policy = sampler.get_policy() or SamplingPolicy()
    families = merge_families(each.template for each in tallies)
    errors = _errors_of_counts(tallies, ledger)
    outcome = live_outcome(tallies, families, errors)
    seconds = arguments.seconds
    share = outcome.kept_share if first_policy is None else first_policy.share_since(tallies)
    dollars = arguments.price_per_gb / 1e9 * MONTH / seconds
    return Report(
        title=f"{arguments.service_name or 'shop'} · {seconds:g} s under load",
        service_name=arguments.service_name or "shop",
        created_at=datetime.now(timezone.utc),
        cost_target=arguments.cost_target,
        policy=policy,
        input=_input_summary(tallies, ledger, seconds),
        rows=build_rows(tallies, policy, families),
        signatures=len(tallies),
        outcome=outcome,
        uniform=uniform_outcome_of(tallies, families, outcome.kept_share),
        first_records=FirstRecords(policy.keep_first, 0, 0.0),
        slices=_slices(ledger, seconds),
        slice_width=1,
        money=Money(
            arguments.price_per_gb, "month", "",
            outcome.bytes * dollars, outcome.bytes * share * dollars,
        ),
        proofs=tuple(_proofs(tallies, ledger, first_policy)),
        live_share=share,
    )  # fmt: skip


def _input_summary(tallies: list[Tally], ledger: Ledger, seconds: float) -> InputSummary:
    return InputSummary(
        names=("the demo's own web application",),
        records=sum(each.count for each in tallies),
        lines=sum(each.count for each in tallies),
        bytes=sum(each.bytes for each in tallies),
        first=ledger.started,
        last=ledger.started + seconds,
        timed=sum(each.count for each in tallies),
        unlevelled=0,
        formats={},
        troubles=(),
    )


def _slices(ledger: Ledger, seconds: float) -> tuple[Slice, ...]:
    number = max(int(seconds), 1)
    slices = [[0, 0, 0] for _ in range(number)]
    for at, figures in ledger.seconds.items():
        # The last answers come after the end; they go to the last second.
        here = slices[min(at, number - 1)]
        here[:] = [total + more for total, more in zip(here, figures, strict=True)]
    start = int(ledger.started)
    return tuple(Slice(start + at, *map(float, figures)) for at, figures in enumerate(slices))


def _errors_of_counts(tallies: list[Tally], ledger: Ledger) -> dict[str, float]:
    """Relative error of the count that the weights of the kept records add up to."""
    written = ledger.by_signature()
    return {
        each.signature: abs(ledger.estimate(each.signature)[0] / written[each.signature] - 1.0)
        for each in tallies
        if written[each.signature]
    }


def _proofs(
    tallies: list[Tally], ledger: Ledger, first_policy: _FirstPolicy | None
) -> Iterator[str]:
    counted = sum(each.count for each in tallies)
    yield (
        f"Counts are exact: the shop wrote {ledger.written.total():,} records, "
        f"the sampler counted {counted:,}."
    )
    yield f"Every error was kept: {ledger.kept_errors:,} of {ledger.errors:,}."
    if first_policy is not None:
        yield (
            f"Until its first policy, after {first_policy.seconds:.1f} s, the sampler kept "
            f"everything; from then on {wording.percent(first_policy.share_since(tallies))} of "
            "the bytes."
        )
    rare = min(tallies, key=lambda each: (each.count, each.template), default=None)
    if rare is not None:
        yield (
            f'The rarest pattern is there: "{rare.template}", '
            f"{rare.kept_records:,.0f} of {rare.count:,}."
        )
    yield from _estimates(tallies, ledger)


def _estimates(tallies: list[Tally], ledger: Ledger) -> Iterator[str]:
    """What the kept records say of the true counts, and how far off chance may take them."""
    written = ledger.by_signature()
    thinned = [each for each in tallies if each.kept_records < each.count]
    for each in sorted(thinned, key=lambda each: -each.count)[:_COMPARED]:
        estimate, deviation = ledger.estimate(each.signature)
        yield (
            f'"{each.template}": {each.kept_records:,.0f} kept, whose weights say '
            f"{estimate:,.0f} ± {deviation:,.0f}; {written[each.signature]:,} were written."
        )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"expected seconds from 1 to 3600, not {text!r}")
    return value
