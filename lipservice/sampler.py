"""
`AdaptiveSampler`: the engine of `lipservice._engine` with its background work.

The engine decides and counts, in the application's threads. Here is what feeds it, in one worker
thread that starts with the first record that has use for it: the tick (anomalies, limit, idle
patterns), the policy's source (a server, a file, or the optimizer in this process), the reports
and the notices.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import random
import time
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from lipservice._complaints import Complaints
from lipservice._engine import DecisionEngine
from lipservice._notices import Notices
from lipservice._policy_store import PolicyCache, PolicyFile
from lipservice._refresher import Refresher, policy_file_task
from lipservice._worker import EXIT_SECONDS, Task, Worker
from lipservice.call_sites import analyse_waiting, has_waiting
from lipservice.exceptions import ConfigurationError
from lipservice.patterns import PatternStats
from lipservice.policy import Boost, SamplingPolicy

if TYPE_CHECKING:
    from lipservice.client import LipServiceClient

#: Seconds between two ticks, soon after the start and later.
_FIRST_TICKS: Final = 1.0
_TICK: Final = 5.0
_YOUNG: Final = 30.0

_CALL_SITES: Final = "call sites"
#: Call sites that are analysed before the thread lets others run, and for how long it does.
_SITES_AT_ONCE: Final = 4
_BREATH: Final = 0.01

_KEEP_ALL: Final = SamplingPolicy()

#: The samplers of this process that somebody holds.
# Changed and copied by single C-level operations only: a WeakSet cannot be read while another
# thread adds to it.
_samplers: Final[dict[int, weakref.ref[AdaptiveSampler]]] = {}

# What it does, for whoever turns this logger to DEBUG; only ever written by the worker's thread,
# whose records no integration samples.
_logger: Final = logging.getLogger("lipservice")


class AdaptiveSampler(DecisionEngine):
    """
    Decides which log records to keep. Never raises or waits once it is made; thread- and fork-safe.

    Where the rates come from, in this order: the server behind *client*; *policy_file*; *policy*;
    the optimizer in this process, if there is a *cost_target*. Until there is a policy everything
    is kept. A *client* together with a *cost_target* means: optimize here until the server's
    first policy has come.

    Args:
        client: The policy server; None works without one.
        policy_refresh_interval: Seconds between policy refreshes (and, without a server, the most
            between two plans for *cost_target*), above 0.
        pattern_report_interval: Seconds between pattern reports and between the summaries that
            the logger `lipservice` writes, above 0.
        max_pattern_cache_size: Patterns with counts of their own, at least 1; the rest shares one
            overflow bucket a severity.
        service_name: What is sampled, for notices.
        cost_target: Share of the bytes to keep, above 0, at most 1.
        policy: A fixed policy.
        policy_file: Path of a policy (JSON), read again when it changes.
        policy_cache: Folder where the last good policy of the server is kept.
        like: What policies made for *cost_target* say besides rates (words, keep_first, limit,
            mode, boost).
        notices: Whether the logger `lipservice` tells the first drop, policy changes, boosts and
            summaries at INFO.
        call_sites: Whether the source of a call site tells the template of a message that was
            formatted by the application (an f-string, say).
        rng: Randomness, for tests.
        clock: Monotonic seconds, for tests.
        now: Seconds since the epoch, for tests.

    Raises:
        ConfigurationError: A parameter is wrong; the message names it.
    """

    def __init__(
        self,
        client: LipServiceClient | None = None,
        policy_refresh_interval: float = 300,
        pattern_report_interval: float = 600,
        max_pattern_cache_size: int = 10_000,
        *,
        service_name: str | None = None,
        cost_target: float | None = None,
        policy: SamplingPolicy | None = None,
        policy_file: str | os.PathLike[str] | None = None,
        policy_cache: str | os.PathLike[str] | None = None,
        like: SamplingPolicy = _KEEP_ALL,
        notices: bool = True,
        call_sites: bool = True,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        _check_positive(policy_refresh_interval, "policy_refresh_interval")
        _check_positive(pattern_report_interval, "pattern_report_interval")
        _check_size(max_pattern_cache_size)
        _check_share(cost_target)
        _check_path(policy_file, "policy_file")
        _check_path(policy_cache, "policy_cache")
        _check_sources(client, cost_target, policy, policy_file, policy_cache)
        # Before the engine follows its first policy, which may hold boosts.
        self._notices = Notices(service_name, clock) if notices else None
        self._is_shut_down = False
        super().__init__(
            max_patterns=max_pattern_cache_size,
            policy=policy,
            rng=rng,
            clock=clock,
            now=now,
            heals=bool(call_sites),
        )
        #: What is sampled, as notices and metrics call it; None: it has no name.
        self.service_name = service_name
        self._complaints = Complaints(clock=clock)
        self._refresher: Refresher | None = None
        self._policy_is_planned = cost_target is not None
        self._report_interval = float(pattern_report_interval)
        tasks = [Task("tick", self._tick, lambda: _FIRST_TICKS, _TICK)]
        if call_sites:
            tasks.append(Task(_CALL_SITES, self._analyse_call_sites, lambda: 0.0, _TICK))
        if notices:
            tasks.append(Task("summary", self._summarise, self._interval, self._report_interval))
        if cost_target is not None:
            tasks.append(self._plan_task(cost_target, like, float(policy_refresh_interval)))
        if policy_file is not None:
            file = PolicyFile(policy_file)
            self.apply_policy(file.load())
            tasks.append(policy_file_task(file, self, self._complaints))
        if client is not None:
            self._refresher = Refresher(
                client,
                _FromServer(self),
                policy_interval=float(policy_refresh_interval),
                report_interval=self._report_interval,
                cache=_cache_for(client, policy_cache),
                complaints=self._complaints,
                clock=clock,
            )
            self._refresher.restore()
            tasks.extend(self._refresher.tasks())
        self._has_source = client is not None or cost_target is not None or policy_file is not None
        self._worker = Worker(tasks, final=self._finish, clock=clock)
        self._asked_for_sites = False
        _samplers[id(self)] = weakref.ref(self, functools.partial(_forget, id(self)))

    def get_policy(self) -> SamplingPolicy | None:
        """The policy in force; None while everything is kept for want of one."""
        return self._policy

    def get_pattern_stats(self) -> dict[str, PatternStats]:
        """
        Counts of every pattern in the table since the process started, by signature.

        What was evicted is in `totals()` only. Thread-safe.
        """
        return super().get_pattern_stats()

    def health(self) -> dict[str, Any]:
        """Plain values for people and monitors: counts, table, worker, policy source."""
        totals = self.totals()
        policy = self._policy
        return {
            "seen": totals.seen,
            "kept": totals.kept,
            "dropped": totals.dropped,
            "capped": totals.capped,
            "shadowed": totals.shadowed,
            "held": totals.held,
            "released": totals.released,
            "in_doubt": self._doubtful,
            "patterns": self._size,
            "max_patterns": self._max_patterns,
            "policy_id": policy.policy_id if policy else None,
            "boosted": self._boost_until > self._ticked or bool(self._boosted),
            "limit_scale": self._scale,
            "worker": self._worker.health(),
            "server": self._refresher.health() if self._refresher else None,
        }

    def boost(
        self,
        pattern: str | None = None,
        *,
        severity: str | None = None,
        logger: str | None = None,
        minutes: float = 10.0,
    ) -> None:
        """
        Keep everything of one pattern, severity or logger (or all of the service) for a while.

        It ends by itself. Counts and weights stay true: what it keeps, it keeps for certain, with
        the weight 1. The logger `lipservice` tells its begin and its end. After `shutdown`, when
        nobody would end it, it does not begin.

        Args:
            pattern: A signature, or a message of the pattern.
            severity: Only records of this severity.
            logger: Records of this logger and its children; not together with *pattern* and
                *severity*.
            minutes: How long, above 0, at most 1440.

        Raises:
            ConfigurationError: A parameter is wrong; the message names it.
        """
        super().boost(pattern, severity=severity, logger=logger, minutes=minutes)
        self._worker.ensure_started()  # it ends the boost

    def shutdown(self, timeout: float = EXIT_SECONDS) -> bool:
        """
        Deliver what was counted and end the background work; decisions go on, without boosts.

        Args:
            timeout: Most seconds to wait, at least 0.

        Returns:
            Whether the background work has ended in time.
        """
        self._is_shut_down = True  # first: the last look tells that boosts are over
        ended = self._worker.stop(timeout)
        self._end_boosts(all_of_them=True)  # nobody would end them any more
        return ended

    def boosts(self) -> tuple[Boost, ...]:
        """What is at full fidelity now, by `boost` and by the policy server."""
        return () if self._is_shut_down else super().boosts()

    # ------------------------------------------------------------------ in the caller's thread

    def _follow_boosts(self) -> bool:
        if self._notices is not None:
            self._notices.heard(self.boosts())
        return super()._follow_boosts()

    def _after_slow_path(self) -> None:
        if self._has_source or self._policy is not None:
            self._worker.ensure_started()
            if self._heals and not self._asked_for_sites and has_waiting():
                self._asked_for_sites = True
                self._worker.wake(_CALL_SITES)

    # ------------------------------------------------------------------ in the worker's thread

    def _interval(self) -> float:
        return self._report_interval

    def _tick(self) -> float:
        self.tick()
        self._look()
        return _FIRST_TICKS if self._clock() - self._started < _YOUNG else _TICK

    def _look(self) -> None:
        if self._notices is not None:
            self._notices.look(self._policy, self.totals(), self.boosts())

    def _analyse_call_sites(self) -> float:
        self._asked_for_sites = False
        return _BREATH if analyse_waiting(_SITES_AT_ONCE) else _TICK

    def _summarise(self) -> float:
        if self._notices is not None:
            self._notices.summarise(self._policy, self.totals())
        return self._report_interval

    def _plan_task(self, cost_target: float, like: SamplingPolicy, interval: float) -> Task:
        from lipservice._planner import LocalPlanner  # noqa: PLC0415 - only local mode plans

        planner = LocalPlanner(cost_target, like, interval, self._now)

        def plan() -> float:
            if not self._policy_is_planned:
                return interval
            self.tick()  # the volumes are as of the last tick
            policy = planner.plan(self.volumes())
            if policy is None:
                return _FIRST_TICKS
            self.apply_policy(policy)
            _debug("planned in this process: %s", policy.reasoning)
            return planner.next_pause()

        return Task("plan", plan, planner.next_pause, interval)

    def _finish(self, deadline: float) -> None:
        self.tick()
        self._look()
        self._summarise()
        if self._refresher is not None:
            self._refresher.finish(deadline)

    def _reset_after_fork(self) -> None:
        super()._reset_after_fork()
        if self._notices is not None:
            self._notices.begin()


def samplers() -> list[AdaptiveSampler]:
    """All samplers of this process."""
    return [sampler for ref in list(_samplers.values()) if (sampler := ref()) is not None]


def _forget(key: int, dead: object) -> None:
    if _samplers.get(key) is dead:
        _samplers.pop(key, None)


class _FromServer:
    """What the refresher sees of a sampler: from its first policy on, the server decides."""

    def __init__(self, sampler: AdaptiveSampler) -> None:
        self._sampler = sampler

    def apply_policy(self, policy: SamplingPolicy) -> None:
        self._sampler._policy_is_planned = False  # noqa: SLF001 - the other half of the sampler
        self._sampler.apply_policy(policy)
        _debug("the server's policy %s is in force", policy.policy_id)

    def drain(self) -> list[PatternStats]:
        drained = self._sampler.drain()
        records = sum(stats.count for stats in drained)
        _debug("to report: %d records of %d patterns", records, len(drained))
        return drained


def _debug(text: str, *args: object) -> None:
    with contextlib.suppress(Exception):  # the application's logging is broken: nobody to tell
        _logger.debug(text, *args)


def _cache_for(
    client: LipServiceClient, folder: str | os.PathLike[str] | None
) -> PolicyCache | None:
    return None if folder is None else PolicyCache(folder, client.identity())


def _check_positive(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e9:
        raise ConfigurationError(f"{name} is a number of seconds above 0, not {value!r}")


def _check_size(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(
            f"max_pattern_cache_size is a whole number of at least 1, not {value!r}"
        )


def _check_share(value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise ConfigurationError(
            f"cost_target is the share of bytes to keep, above 0 and at most 1, not {value!r}"
        )


def _check_path(value: object, name: str) -> None:
    if value is not None and not isinstance(value, (str, os.PathLike)):
        raise ConfigurationError(f"{name} is a path, not {value!r:.80}")


def _check_sources(
    client: object, cost_target: object, policy: object, policy_file: object, cache: object
) -> None:
    if policy is not None and not isinstance(policy, SamplingPolicy):
        raise ConfigurationError("policy is a SamplingPolicy; SamplingPolicy.from_dict makes one")
    if sum(source is not None for source in (policy, policy_file, cost_target)) > 1:
        raise ConfigurationError("give one of policy, policy_file and cost_target, not several")
    if client is not None and (policy is not None or policy_file is not None):
        raise ConfigurationError("give a policy server, or policy, or policy_file, not several")
    if cache is not None and client is None:
        raise ConfigurationError("policy_cache keeps a server's policy: it needs a policy server")
