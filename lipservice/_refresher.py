"""
When to ask for the policy and when to report, and what is still to be delivered.

Rules. No thread, no lock and no sleep in here: `lipservice._worker` calls the tasks, in its
thread only; clock and randomness are given. The last good policy stays, whatever happens. Every
record that was drained is at any time in exactly one of three places: reported, pending or lost,
and `health()` shows the three.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from lipservice._answers import Problem
from lipservice._complaints import Complaints
from lipservice._fork import on_fork
from lipservice._worker import Task
from lipservice.client import (
    PatternCounts,
    PolicyAnswer,
    Report,
    ReportAnswer,
    new_report_id,
    split_patterns,
)
from lipservice.exceptions import PolicyError
from lipservice.policy import SamplingPolicy

if TYPE_CHECKING:
    from lipservice._policy_store import PolicyCache, PolicyFile

#: Most seconds between two attempts after a failure.
LONGEST_BACKOFF: Final = 900.0
#: An interval is drawn anew each time, between 1 - JITTER and 1 + JITTER times what was set.
JITTER: Final = 0.1

_SOON: Final = 5.0  # seconds over which the first polls of processes without a policy are spread
_FIRST_POLL_RETRY: Final = 5.0
_FIRST_REPORT_RETRY: Final = 30.0
_MOST_SPLITS: Final = 40  # of one drain's reports that the server refuses
# A server remembers report ids for 48 h; a report that it may have counted is not sent later.
_SAFE_TO_REPEAT: Final = 47 * 3600.0


class PolicyServer(Protocol):
    """What the refresher needs of `lipservice.client.LipServiceClient`."""

    @property
    def service_name(self) -> str | None:
        """What is sampled."""

    @property
    def instance_id(self) -> str:
        """Names this process."""

    @property
    def seconds(self) -> float:
        """Most seconds that a request takes."""

    def fetch_policy(self, etag: str | None, *, seconds: float | None) -> PolicyAnswer:
        """Ask for the active policy."""

    def report(self, report: Report, *, seconds: float | None) -> ReportAnswer:
        """Upload one report."""


class Engine(Protocol):
    """What the refresher needs of the sampler."""

    def apply_policy(self, policy: SamplingPolicy) -> None:
        """Use *policy* from now on."""

    def drain(self) -> Sequence[PatternCounts]:
        """Hand over the counts since the last drain, each record once."""


class Backoff:
    """
    Pauses between failing attempts: decorrelated jitter.

    Each is drawn between once and three times the last one, at least *base*, at most *cap*. At the
    cap the draw goes from a third of it to the whole, so that instances which failed together do
    not come back together. After Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture
    Blog, 2015, whose lower end stays at *base*: that would ask a failing server three times as
    often as a sound one.

    Args:
        base: Least seconds.
        cap: Most seconds.
        rng: Randomness.
    """

    def __init__(self, base: float, cap: float, rng: random.Random) -> None:
        self._base = min(base, cap)
        self._cap = cap
        self._rng = rng
        self._last = self._base

    def reset(self) -> None:
        """Start over after a success."""
        self._last = self._base

    def pause(self, retry_after: float | None = None) -> float:
        """Seconds to wait, more than what the server asked for, but not beyond 15 minutes."""
        most = min(self._cap, self._last * 3.0)
        self._last = self._rng.uniform(max(self._base, most / 3.0), most)
        asked = min(retry_after or 0.0, LONGEST_BACKOFF) * self._rng.uniform(1.0, 1.5)
        return max(self._last, min(asked, LONGEST_BACKOFF))


@dataclass(slots=True)
class _Pending:
    """A report that is not acknowledged yet."""

    report: Report
    #: When the server may first have counted it without our hearing of it.
    uncertain_since: float | None = None


@dataclass(slots=True)
class _Delivery:
    """One process's reports; a forked child begins with a new one."""

    drained_at: float
    #: Drained but not yet made into reports: kept here so that an exception loses none.
    drained: Sequence[PatternCounts] = ()
    interval: float = 0.0
    pending: deque[_Pending] = field(default_factory=deque)
    splits_left: int = _MOST_SPLITS
    records_drained: int = 0
    reports_sent: int = 0
    records_reported: int = 0
    reports_lost: int = 0
    records_lost: int = 0
    failures: int = 0
    problem: str | None = None


@dataclass(slots=True)
class _Polling:
    """One process's polls; a forked child begins with a new one, but keeps the policy."""

    polls: int = 0
    failures: int = 0
    failures_in_a_row: int = 0
    succeeded_at: float | None = None
    problem: str | None = None


class Refresher:
    """
    Keeps one engine's policy fresh and delivers its counts. Used by one thread at a time.

    Args:
        client: The policy server.
        engine: The sampler.
        policy_interval: Seconds between polls, above 0.
        report_interval: Seconds between reports, above 0.
        cache: Where the last good policy is kept.
        complaints: Where troubles are told.
        clock: Monotonic seconds.
        rng: Randomness; default: its own generator, reseeded in a forked child.
    """

    def __init__(
        self,
        client: PolicyServer,
        engine: Engine,
        *,
        policy_interval: float = 300.0,
        report_interval: float = 600.0,
        cache: PolicyCache | None = None,
        complaints: Complaints | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._engine = engine
        self._policy_interval = policy_interval
        self._report_interval = report_interval
        self._cache = cache
        self._complaints = complaints or Complaints(clock=clock)
        self._clock = clock
        self._rng = rng or random.Random()
        self._policy: SamplingPolicy | None = None
        self._etag: str | None = None
        self._begin()
        on_fork(self)

    def _begin(self) -> None:
        self._phase_is_set = self._policy is not None
        self._polling = _Polling()
        self._delivery = _Delivery(drained_at=self._clock())
        self._poll_backoff = _backoff(_FIRST_POLL_RETRY, self._policy_interval, self._rng)
        self._report_backoff = _backoff(_FIRST_REPORT_RETRY, self._report_interval, self._rng)

    def _reset_after_fork(self) -> None:
        # What the parent had drained is the parent's to deliver; and two children must not draw
        # the same pauses.
        self._rng = random.Random()
        self._begin()

    def tasks(self) -> tuple[Task, Task]:
        """The two things to be done again and again, "policy" and "report"."""
        return (
            Task("policy", self.poll, self.first_poll, self._policy_interval),
            Task("report", self.report, self.first_report, self._report_interval),
        )

    def health(self) -> dict[str, Any]:
        """Plain values: the policy's version, attempts, problems, and where the counts are."""
        polling, delivery = self._polling, self._delivery
        since = polling.succeeded_at
        return {
            "policy_version": self._policy.version if self._policy else None,
            "policy_confirmed_seconds_ago": None if since is None else self._clock() - since,
            "polls": polling.polls,
            "poll_failures": polling.failures,
            "poll_failures_in_a_row": polling.failures_in_a_row,
            "poll_problem": polling.problem,
            "reports_sent": delivery.reports_sent,
            "reports_pending": len(delivery.pending),
            "reports_lost": delivery.reports_lost,
            "report_failures": delivery.failures,
            "report_problem": delivery.problem,
            "records_drained": delivery.records_drained,
            "records_reported": delivery.records_reported,
            "records_pending": sum(item.report.records for item in list(delivery.pending)),
            "records_lost": delivery.records_lost,
        }

    # ------------------------------------------------------------------ the policy

    def restore(self) -> SamplingPolicy | None:
        """Apply the cached policy, if there is a good one; for the constructor's thread."""
        if self._cache is None:
            return None
        cached, reason = self._cache.load()
        if reason is not None:
            self._complaints.warn("cache", reason)
        if cached is None:
            return None
        self._engine.apply_policy(cached.policy)
        self._policy, self._etag = cached.policy, cached.etag
        self._phase_is_set = True
        return cached.policy

    def first_poll(self) -> float:
        """
        Seconds until the first poll.

        A process with a policy draws from the whole interval, so that a fleet that was restarted
        at once asks evenly. One without keeps everything, which costs money: it asks within 5
        seconds, and draws from the whole interval after that.
        """
        spread = self._policy_interval
        if self._policy is None:
            spread = min(_SOON, self._policy_interval * JITTER)
        return self._rng.uniform(0.0, spread)

    def poll(self) -> float:
        """Ask for the policy once and use what came; seconds until the next time."""
        polling, started = self._polling, self._clock()
        polling.polls += 1
        answer = self._client.fetch_policy(
            self._etag, seconds=min(self._client.seconds, self._policy_interval)
        )
        problem = self._use(answer)
        if problem is None:
            pause = self._poll_succeeded()
        else:
            pause = self._poll_failed(problem, answer.retry_after)
        # From the start, so that a server that hangs does not stretch the interval.
        return max(0.0, started + pause - self._clock())

    def _use(self, answer: PolicyAnswer) -> str | None:
        if answer.problem is not None:
            return answer.problem.text
        if answer.not_modified:
            return None
        try:
            policy = SamplingPolicy.from_dict(answer.document)
        except PolicyError as error:
            return f"the server's policy is refused: {error}"
        if policy != self._policy:
            try:
                self._engine.apply_policy(policy)
            except Exception as error:
                return f"the server's policy cannot be applied: {type(error).__name__}"
            self._store(policy, answer.etag)
        self._policy, self._etag = policy, answer.etag
        return None

    def _store(self, policy: SamplingPolicy, etag: str | None) -> None:
        reason = self._cache.save(policy, etag) if self._cache is not None else None
        if reason is not None:
            self._complaints.warn("cache", reason)

    def _poll_succeeded(self) -> float:
        polling = self._polling
        polling.failures_in_a_row, polling.problem = 0, None
        polling.succeeded_at = self._clock()
        self._poll_backoff.reset()
        self._complaints.resolve("policy", "the policy is refreshed again")
        if self._phase_is_set:
            return _around(self._policy_interval, self._rng)
        self._phase_is_set = True
        return self._rng.uniform(0.0, self._policy_interval)

    def _poll_failed(self, problem: str, retry_after: float | None) -> float:
        polling = self._polling
        polling.failures += 1
        polling.failures_in_a_row += 1
        polling.problem = problem
        kept = "the last policy stays" if self._policy else "there is no policy yet"
        self._complaints.warn("policy", f"the policy is not refreshed, {kept}: {problem}")
        return self._poll_backoff.pause(retry_after)

    # ------------------------------------------------------------------ the reports

    def first_report(self) -> float:
        """Seconds until the first report: drawn from the whole interval, to spread a fleet."""
        return self._rng.uniform(0.0, self._report_interval)

    def report(self) -> float:
        """Deliver what is pending, or else what was counted; seconds until the next time."""
        started = self._clock()
        if not self._delivery.pending:
            self._collect()
        failed = self._deliver(lambda: min(self._client.seconds, self._report_interval))
        if failed is None:
            self._report_backoff.reset()
            self._complaints.resolve("report", "reports are accepted again")
            pause = _around(self._report_interval, self._rng)
        else:
            pause = self._report_backoff.pause(failed.retry_after)
        return max(0.0, started + pause - self._clock())

    def finish(self, deadline: float) -> None:
        """
        Deliver what is there before the process ends; what cannot be delivered is counted as lost.

        Args:
            deadline: `clock` time at which to give up.
        """

        def left() -> float:
            return min(self._client.seconds, deadline - self._clock())

        failed = self._deliver(left)
        self._collect()
        if failed is None:
            self._deliver(left)
        while self._delivery.pending:
            self._lose(self._delivery.pending.popleft())

    def _collect(self) -> None:
        """Turn the engine's counts into pending reports."""
        delivery = self._delivery
        if not delivery.drained:
            self._drain()
        parts = list(split_patterns(delivery.drained))
        delivery.pending.extend(
            [_Pending(self._report_of(part, delivery.interval)) for part in parts]
        )
        delivery.drained = ()

    def _drain(self) -> None:
        delivery, now = self._delivery, self._clock()
        delivery.drained = self._engine.drain()
        delivery.records_drained += sum(pattern.count for pattern in delivery.drained)
        delivery.interval = max(0.0, now - delivery.drained_at)
        delivery.drained_at = now
        delivery.splits_left = _MOST_SPLITS

    def _report_of(self, patterns: tuple[PatternCounts, ...], interval: float) -> Report:
        return Report(
            report_id=new_report_id(),
            service_name=self._client.service_name,
            instance_id=self._client.instance_id,
            interval=round(interval, 3),
            patterns=patterns,
            health={
                "records_lost": self._delivery.records_lost,
                "reports_lost": self._delivery.reports_lost,
                "report_failures": self._delivery.failures,
                "poll_failures": self._polling.failures,
            },
        )

    def _deliver(self, seconds_left: Callable[[], float]) -> ReportAnswer | None:
        """Send the pending reports in order; the answer that stopped it, or None when all went."""
        delivery = self._delivery
        while delivery.pending:
            pending = delivery.pending[0]
            seconds = seconds_left()
            if seconds <= 0:
                return _OUT_OF_TIME
            answer = _TOO_LATE
            if not self._is_too_late(pending):
                answer = self._client.report(pending.report, seconds=seconds)
            if answer.outcome == "retry":
                self._report_failed(answer)
                self._remember_uncertainty(pending, answer)
                return answer
            # Only now: an exception in the middle leaves the report pending.
            delivery.pending.popleft()
            self._settle(pending, answer)
        delivery.problem = None
        return None

    def _settle(self, pending: _Pending, answer: ReportAnswer) -> None:
        delivery = self._delivery
        if answer.outcome == "acknowledged":
            delivery.reports_sent += 1
            delivery.records_reported += pending.report.records
        elif answer is not _TOO_LATE and self._may_split(pending):
            self._split(pending)
        else:
            self._report_failed(answer)
            self._lose(pending)

    def _may_split(self, pending: _Pending) -> bool:
        return len(pending.report.patterns) > 1 and self._delivery.splits_left > 0

    def _split(self, pending: _Pending) -> None:
        """Halve a refused report: a part of it, or a smaller one, may be accepted."""
        self._delivery.splits_left -= 1
        report = pending.report
        half = len(report.patterns) // 2
        for patterns in (report.patterns[half:], report.patterns[:half]):
            self._delivery.pending.appendleft(_Pending(self._report_of(patterns, report.interval)))

    def _lose(self, pending: _Pending) -> None:
        delivery = self._delivery
        delivery.reports_lost += 1
        delivery.records_lost += pending.report.records
        self._complaints.warn(
            "lost", f"a report of {pending.report.records:,} records is lost: {delivery.problem}"
        )

    def _is_too_late(self, pending: _Pending) -> bool:
        since = pending.uncertain_since
        return since is not None and self._clock() - since > _SAFE_TO_REPEAT

    def _remember_uncertainty(self, pending: _Pending, answer: ReportAnswer) -> None:
        if answer.uncertain and pending.uncertain_since is None:
            pending.uncertain_since = self._clock()

    def _report_failed(self, answer: ReportAnswer) -> None:
        delivery = self._delivery
        delivery.failures += 1
        delivery.problem = answer.problem.text if answer.problem else answer.outcome
        self._complaints.warn("report", f"reports are not accepted: {delivery.problem}")


def policy_file_task(
    file: PolicyFile, engine: Engine, complaints: Complaints, *, interval: float = 5.0
) -> Task:
    """
    The task "policy_file": apply the user's policy file whenever it has changed.

    Args:
        file: What to watch; `load()` it for the first policy.
        engine: Gets the new policies.
        complaints: Is told of a bad edit, once; the policy before it stays.
        interval: Seconds between two looks.
    """

    def look() -> float:
        policy, complaint = file.reload()
        if policy is not None:
            engine.apply_policy(policy)
            complaints.resolve("policy_file", "the policy file is used again")
        if complaint is not None:
            complaints.warn("policy_file", complaint)
        return interval

    return Task("policy_file", look, lambda: interval, interval)


_OUT_OF_TIME: Final = ReportAnswer("retry", problem=Problem("timeout", "no time left"))
_TOO_LATE: Final = ReportAnswer(
    "refused", problem=Problem("timeout", "it cannot be repeated safely after 47 hours")
)


def _backoff(base: float, interval: float, rng: random.Random) -> Backoff:
    """At most 15 minutes, and never so long that a server which is back waits for an interval."""
    cap = min(LONGEST_BACKOFF, interval * (1.0 + JITTER))
    return Backoff(min(base, interval * JITTER), cap, rng)


def _around(interval: float, rng: random.Random) -> float:
    return interval * rng.uniform(1.0 - JITTER, 1.0 + JITTER)
