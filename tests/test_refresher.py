"""When it asks and reports, and that no record is lost or doubled: goals G1, G5, G7, G9, G11."""

from __future__ import annotations

import functools
import heapq
import json
import logging
import os
import random
import textwrap
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice import _refresher
from lipservice._answers import Problem
from lipservice._complaints import Complaints
from lipservice._policy_store import PolicyCache, PolicyFile
from lipservice._refresher import Backoff, Refresher, policy_file_task
from lipservice._worker import Worker, is_own_thread
from lipservice.client import LipServiceClient, PolicyAnswer, ReportAnswer
from lipservice.policy import SamplingPolicy
from tests.support.counting import CountingEngine
from tests.support.policy_server import (
    ENDLESS_BEHAVIOURS,
    G1_BEHAVIOURS,
    POLICY,
    PolicyServer,
    wait_for,
)
from tests.support.programs import ManualClock, run_program

LONG = (20.0, 20.0)
SHORT = (0.05, 0.05)
FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


class Rig:
    """A refresher with its engine and clock, over a real server."""

    def __init__(self, server, *, behaviour="ok", timeout=None, cache=None, seed=1, **options):
        self.server = server
        self.clock = ManualClock()
        self.engine = CountingEngine()
        self.said = []
        usual = SHORT if behaviour in ENDLESS_BEHAVIOURS else LONG
        self.client = LipServiceClient(server.url, "key", "checkout", timeout=timeout or usual)
        self.refresher = Refresher(
            self.client,
            self.engine,
            cache=cache,
            complaints=Complaints(lambda _, text: self.said.append(text), clock=self.clock),
            clock=self.clock,
            rng=random.Random(seed),
            **options,
        )

    def poll(self):
        """Poll once and let the pause pass; the pause."""
        pause = self.refresher.poll()
        self.clock.now += pause
        return pause

    def report(self):
        pause = self.refresher.report()
        self.clock.now += pause
        return pause

    @property
    def health(self):
        return self.refresher.health()

    def accounts(self):
        """Whether every drained record is reported, pending or lost."""
        health = self.health
        places = ("records_reported", "records_pending", "records_lost")
        return health["records_drained"] == sum(health[place] for place in places)


@pytest.fixture
def server():
    with PolicyServer() as running:
        yield running


@pytest.fixture
def rig(server):
    return Rig(server)


class TestOutage:
    """G1: twenty behaviours in three phases, and nothing happens."""

    @pytest.mark.parametrize("behaviour", G1_BEHAVIOURS)
    def test_at_the_start(self, server, behaviour):
        server.behave(behaviour)
        rig = Rig(server, behaviour=behaviour)

        pauses = [rig.poll() for _ in range(4)]
        nothing = rig.engine.policy
        server.behave("ok")
        rig.poll()

        assert nothing is None
        assert max(pauses) <= 330.0
        assert rig.engine.policy == SamplingPolicy.from_dict(POLICY)

    @pytest.mark.parametrize("behaviour", G1_BEHAVIOURS)
    def test_in_the_middle(self, server, behaviour):
        rig = Rig(server, behaviour=behaviour)
        rig.poll()
        rig.engine.count("a" * 16, 5)
        rig.report()
        server.behave(behaviour)
        rig.engine.count("a" * 16, 7)

        pauses = [rig.poll() for _ in range(4)]
        reports = [rig.report() for _ in range(4)]
        kept = rig.engine.policy
        accounts = rig.accounts()
        server.behave("ok")
        server.policy = {**POLICY, "version": 2}
        rig.poll()
        rig.report()

        assert kept == SamplingPolicy.from_dict(POLICY)
        assert rig.engine.policy.version == 2
        assert max(pauses) <= 330.0
        assert max(reports) <= 660.0
        assert accounts
        if behaviour in {"400", "413"}:  # refused for good: told, not tried for ever
            assert rig.health["records_lost"] == 7
        else:
            assert server.counted == {"a" * 16: 12}
        assert server.conflicts == []

    @pytest.mark.parametrize("behaviour", G1_BEHAVIOURS)
    def test_at_the_exit(self, server, behaviour):
        rig = Rig(server, behaviour=behaviour)
        rig.poll()
        rig.engine.count("a" * 16, 5)
        server.behave(behaviour)

        rig.refresher.finish(rig.clock() + 2.0)

        assert rig.accounts()
        assert rig.health["records_lost"] == 5
        assert rig.health["records_pending"] == 0

    @pytest.mark.parametrize("interval", [0.5, 1.0, 60.0, 300.0, 900.0])
    def test_however_long_it_lasts_the_next_attempt_is_near(self, server, interval):
        """So polling resumes at most 1.1 intervals after the server is back."""
        server.behave("401")
        rig = Rig(server, policy_interval=interval, report_interval=interval)
        pauses = [rig.poll() for _ in range(100)]

        assert max(pauses) <= 1.1 * interval
        assert min(pauses) > 0.0

    def test_a_long_interval_is_cut_to_a_quarter_of_an_hour(self, server):
        server.behave("503")
        rig = Rig(server, policy_interval=86_400.0)

        assert max(rig.poll() for _ in range(50)) <= 900.0

    def test_the_time_that_a_request_took_is_part_of_the_interval(self, server):
        rig = Rig(server)

        class Slow:
            """A client whose every request takes 9 seconds."""

            service_name, instance_id, seconds = "s", "i", 10.0

            def fetch_policy(self, etag, *, seconds):
                rig.clock.now += 9.0
                return DOWN.answer

        slow = Refresher(Slow(), rig.engine, policy_interval=10.0, clock=rig.clock)
        started = rig.clock()

        assert all(slow.poll() + 9.0 <= 11.0 for _ in range(50))
        assert rig.clock() == started + 450.0

    def test_a_request_never_outlasts_the_interval(self, server):
        """Else a hang would hold the next poll up, as it does in other SDKs."""
        server.behave("hang")
        rig = Rig(server, timeout=(3000.0, 3000.0), policy_interval=0.1, report_interval=0.1)
        rig.engine.count("a" * 16)
        rig.poll()
        rig.report()

        assert rig.health["poll_failures"] == rig.health["report_failures"] == 1

    def test_it_is_told_once_and_so_is_the_recovery(self, server, rig):
        server.behave("503")
        for _ in range(3):
            rig.poll()
        server.behave("ok")
        for _ in range(3):
            rig.poll()

        assert rig.said == [
            "the policy is not refreshed, there is no policy yet: HTTP 503 (unavailable)",
            "the policy is refreshed again (2 more times since)",
        ]

    def test_health_tells(self, server, rig):
        server.behave("503")
        rig.poll()
        bad = rig.health
        server.behave("ok")
        rig.poll()

        assert (bad["polls"], bad["poll_failures_in_a_row"]) == (1, 1)
        assert bad["poll_problem"] == "HTTP 503 (unavailable)"
        assert bad["policy_confirmed_seconds_ago"] is None
        assert rig.health["poll_problem"] is None
        assert rig.health["policy_confirmed_seconds_ago"] > 0


class TestPolicy:
    def test_the_etag_saves_the_second_answer(self, server, rig):
        rig.poll()
        rig.poll()

        assert "if-none-match" in server.requests[1].headers
        assert len(rig.engine.policies) == 1

    def test_the_same_policy_again_is_not_applied_again(self, server, rig):
        rig.poll()
        server.etag = '"another"'
        rig.poll()

        assert len(rig.engine.policies) == 1

    @pytest.mark.parametrize(
        "wrong", [{"sampling_rate": 2}, {"sampling_rate": "x"}, {"mode": "off"}, {"patterns": 7}]
    )
    def test_a_wrong_one_is_refused_and_the_last_good_one_stays(self, server, rig, wrong):
        rig.poll()
        server.policy = {**POLICY, **wrong}
        rig.poll()
        refused = rig.health["poll_problem"]
        server.policy = dict(POLICY)
        rig.poll()

        assert "the server's policy is refused: " in refused
        assert (
            server.requests[2].headers["if-none-match"]
            == server.requests[1].headers["if-none-match"]
        )
        assert len(rig.engine.policies) == 1

    def test_an_engine_that_raises_does_not_stop_the_polls(self, server, rig, monkeypatch):
        with monkeypatch.context() as patched:
            patched.setattr(CountingEngine, "apply_policy", lambda *_: 1 / 0)
            rig.poll()
        problem = rig.health["poll_problem"]
        rig.poll()

        assert problem == "the server's policy cannot be applied: ZeroDivisionError"
        assert rig.engine.policy is not None

    def test_a_policy_that_was_rolled_back_is_applied(self, server, rig):
        for version in (1, 2, 1):
            server.policy = {**POLICY, "version": version}
            rig.poll()

        assert [policy.version for policy in rig.engine.policies] == [1, 2, 1]


class TestCache:
    @pytest.fixture
    def cache(self, tmp_path):
        return PolicyCache(tmp_path, ("server", "checkout", "key"))

    def test_the_last_good_policy_serves_while_the_server_is_down(self, server, cache):
        Rig(server, cache=cache).poll()
        server.behave("refused")
        rig = Rig(server, cache=cache)
        restored = rig.refresher.restore()
        rig.poll()

        assert rig.engine.policy == restored == SamplingPolicy.from_dict(POLICY)

    def test_its_etag_is_sent_with_the_first_poll(self, server, cache):
        Rig(server, cache=cache).poll()
        rig = Rig(server, cache=cache)
        rig.refresher.restore()
        rig.poll()

        assert "if-none-match" in server.requests[1].headers
        assert len(rig.engine.policies) == 1

    def test_a_wrong_policy_is_not_stored(self, server, cache):
        server.policy = {**POLICY, "sampling_rate": 2}
        Rig(server, cache=cache).poll()

        assert cache.load() == (None, None)

    def test_a_damaged_one_is_told_and_not_used(self, server, cache):
        Rig(server, cache=cache).poll()
        cache.path.write_bytes(b"garbage")
        rig = Rig(server, cache=cache)

        assert rig.refresher.restore() is None
        assert rig.engine.policy is None
        assert len(rig.said) == 1

    def test_one_that_cannot_be_written_is_told_and_the_policy_used(self, server):
        rig = Rig(server, cache=PolicyCache("/dev/full", ("a", "b", "c")))
        rig.poll()

        assert rig.engine.policy is not None
        assert "cannot be cached" in rig.said[0]

    def test_without_a_cache_there_is_nothing_to_restore(self, rig):
        assert rig.refresher.restore() is None


class TestReports:
    def test_counts_are_delivered_with_their_interval(self, server, rig):
        rig.engine.count("a" * 16, 3)
        rig.clock.now += 42.0
        rig.report()

        (report,) = server.reports.values()
        assert report["interval"] == 42.0
        assert report["instance_id"] == rig.client.instance_id
        assert report["patterns"][0]["count"] == 3
        assert rig.health["records_reported"] == 3

    def test_nothing_counted_nothing_sent(self, server, rig):
        rig.report()

        assert server.requests == []

    def test_many_patterns_make_several_reports(self, server, rig):
        for number in range(2500):
            rig.engine.count(f"{number:016x}", number + 1)
        rig.report()

        assert [len(report["patterns"]) for report in server.reports.values()] == [1000, 1000, 500]
        assert sum(server.counted.values()) == sum(range(1, 2501))

    @pytest.mark.parametrize("way", ["count+reset", "count+hang", "count+503", "count+truncated"])
    def test_a_report_that_was_counted_unheard_is_repeated_as_it_was(self, server, way):
        """Same id, same bytes: the server can tell that it is the same."""
        rig = Rig(server, behaviour=way.partition("+")[2])
        rig.engine.count("a" * 16, 3)
        server.script(way)
        rig.report()
        rig.engine.count("a" * 16, 4)
        rig.report()
        rig.report()

        first, repeated, _next = server.requests
        assert first.raw == repeated.raw
        assert server.counted == {"a" * 16: 7}
        assert server.conflicts == []

    def test_while_one_pends_nothing_more_is_drained(self, server, rig):
        server.behave("503")
        for _ in range(10):
            rig.engine.count("a" * 16, 1)
            rig.report()

        assert rig.engine.drains == 1
        assert (rig.health["reports_pending"], rig.engine.waiting()) == (1, 9)

    def test_a_report_too_large_for_the_server_is_halved_until_it_fits(self, server, rig):
        server.most_patterns = 100
        for number in range(1000):
            rig.engine.count(f"{number:016x}", 2)
        rig.report()

        assert sum(server.counted.values()) == 2000
        assert rig.health["records_lost"] == 0
        assert rig.accounts()

    def test_of_a_report_with_a_refused_pattern_only_that_is_lost(self, server, rig):
        server.poison = {f"{617:016x}"}
        for number in range(1000):
            rig.engine.count(f"{number:016x}", number + 1)
        rig.report()

        assert rig.health["records_lost"] == 618
        assert rig.accounts()
        assert len(server.counted) == 999
        assert any("a report of 618 records is lost" in text for text in rig.said)

    @pytest.mark.parametrize("behaviour", ["400", "413", "422"])
    def test_a_server_that_refuses_everything_is_not_asked_for_ever(self, server, rig, behaviour):
        server.behave(behaviour)
        for number in range(3000):
            rig.engine.count(f"{number:016x}", 1)
        rig.report()

        assert len(server.requests) < 100
        assert (rig.health["records_lost"], rig.health["reports_pending"]) == (3000, 0)
        assert rig.accounts()

    def test_a_report_that_may_be_counted_is_not_repeated_after_the_server_forgot_ids(
        self, server, rig
    ):
        server.behave("500")
        rig.engine.count("a" * 16, 3)
        rig.report()
        rig.clock.now += 47.5 * 3600
        server.behave("ok")
        rig.report()

        assert (server.reports, rig.health["records_lost"]) == ({}, 3)

    def test_one_that_cannot_have_been_counted_is_sent_after_any_time(self, server, rig):
        server.behave("refused")
        rig.engine.count("a" * 16, 3)
        rig.report()
        rig.clock.now += 100 * 3600
        server.behave("ok")
        rig.report()

        assert server.counted == {"a" * 16: 3}

    def test_an_exception_between_drain_and_report_loses_nothing(self, server, rig, monkeypatch):
        rig.engine.count("a" * 16, 3)
        with monkeypatch.context() as patched:
            patched.setattr(_refresher, "new_report_id", lambda: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                rig.report()
        rig.report()

        assert server.counted == {"a" * 16: 3}

    @settings(max_examples=40, deadline=None)
    @given(
        behaviours=st.lists(
            st.sampled_from(
                ["ok", "count+reset", "count+503", "count+truncated", "count+html", "reset", "503",
                 "429", "401", "close", "null", "301"]
            ),
            max_size=30,
        ),
        seed=st.integers(0, 2**32),
    )  # fmt: skip
    def test_no_count_is_lost_or_doubled_whatever_happens(self, behaviours, seed):
        """In every order of faults: emitted = counted by the server, at each step accounted."""
        rng = random.Random(seed)
        with PolicyServer() as server:
            rig = Rig(server, seed=seed)
            emitted: dict[str, int] = {}
            server.script(*behaviours)
            while server._script or rig.engine.waiting() or rig.health["reports_pending"]:
                for _ in range(rng.randrange(4) if server._script else 0):
                    signature = f"{rng.randrange(1500):016x}"
                    emitted[signature] = emitted.get(signature, 0) + 1
                    rig.engine.count(signature)
                if rng.random() < 0.1 and server._script:
                    for number in range(1200):
                        signature = f"{number:016x}"
                        emitted[signature] = emitted.get(signature, 0) + 1
                        rig.engine.count(signature)
                rig.report()
                assert rig.accounts()
                if not rig.engine.waiting() and not rig.health["reports_pending"]:
                    server._script.clear()

        assert server.counted == emitted
        assert server.conflicts == []
        assert rig.health["records_lost"] == 0


class TestFinishing:
    def test_delivers_what_pends_and_what_was_counted_since(self, server, rig):
        rig.engine.count("a" * 16, 3)
        server.script("503")
        rig.report()
        rig.engine.count("a" * 16, 4)
        rig.refresher.finish(rig.clock() + 2.0)

        assert server.counted == {"a" * 16: 7}

    def test_without_time_nothing_is_tried_and_all_is_counted_as_lost(self, server, rig):
        rig.engine.count("a" * 16, 3)
        rig.refresher.finish(rig.clock())

        assert (server.requests, rig.health["records_lost"]) == ([], 3)

    def test_a_hanging_server_gets_only_the_time_that_is_left(self, server):
        """The client's own time-out is 40 s; pytest's would end this."""
        server.behave("hang")
        rig = Rig(server)
        rig.engine.count("a" * 16, 3)
        rig.refresher.finish(rig.clock() + 0.1)

        assert rig.health["records_lost"] == 3


class TestPauses:
    def test_a_process_without_a_policy_asks_within_seconds(self, server):
        firsts = [Rig(server, seed=seed).refresher.first_poll() for seed in range(200)]

        assert 0.0 <= min(firsts) <= max(firsts) <= 5.0

    def test_a_process_with_a_cached_policy_takes_its_place_in_the_interval(self, server, tmp_path):
        cache = PolicyCache(tmp_path, ("server", "checkout", "key"))
        Rig(server, cache=cache).poll()
        firsts = []
        for seed in range(200):
            rig = Rig(server, cache=cache, seed=seed)
            rig.refresher.restore()
            firsts.append(rig.refresher.first_poll())

        assert min(firsts) < 15.0
        assert 285.0 < max(firsts) <= 300.0

    def test_then_each_pause_is_the_interval_give_or_take_a_tenth(self, rig):
        rig.poll()  # takes its place
        pauses = [rig.poll() for _ in range(200)]

        assert min(pauses) >= 270.0
        assert max(pauses) <= 330.0
        assert max(pauses) - min(pauses) > 50.0

    def test_so_is_each_reports(self, rig):
        pauses = [rig.report() for _ in range(50)]

        assert 540.0 <= min(pauses) < max(pauses) <= 660.0

    @pytest.mark.parametrize("behaviour", ["429", "503"])
    def test_what_the_server_asks_for_is_waited(self, server, rig, behaviour):
        server.behave(behaviour)
        server.retry_after = "600"
        pauses = [rig.poll() for _ in range(20)]

        assert min(pauses) >= 600.0
        assert max(pauses) <= 900.0
        assert len(set(pauses)) > 10

    def test_so_is_a_date(self, server, rig):
        server.behave("503")
        server.date = "Mon, 23 Nov 2026 12:00:00 GMT"
        server.retry_after = "Mon, 23 Nov 2026 12:10:00 GMT"

        assert 600.0 <= rig.poll() <= 900.0

    @pytest.mark.parametrize("asked", ["999999", "9" * 100, "Fri, 01 Jan 2100 00:00:00 GMT"])
    def test_but_not_for_ever(self, server, rig, asked):
        server.behave("503")
        server.retry_after = asked

        assert rig.poll() == 900.0

    def test_the_back_off_is_decorrelated_and_bounded(self):
        backoff = Backoff(5.0, 330.0, random.Random(7))
        pauses = [backoff.pause() for _ in range(2000)]

        assert 5.0 <= pauses[0] <= 15.0
        assert min(pauses) >= 5.0
        assert 320.0 < max(pauses) <= 330.0
        assert len(set(pauses)) == 2000  # no two come back together at the cap

    def test_a_success_starts_it_over(self):
        backoff = Backoff(5.0, 330.0, random.Random(7))
        for _ in range(20):
            backoff.pause()
        backoff.reset()

        assert backoff.pause() <= 15.0


class Always:
    """A server that always answers alike."""

    service_name, instance_id, seconds = "checkout", "i", 10.0

    def __init__(self, answer):
        self.answer = answer

    def fetch_policy(self, etag, *, seconds):
        return self.answer

    def report(self, report, *, seconds):
        return ReportAnswer("acknowledged")


UP = Always(PolicyAnswer({"policy_id": "p", "sampling_rate": 0.5}))
DOWN = Always(PolicyAnswer(problem=Problem("timeout", "too late")))


@functools.cache
def fleet_load(instances, seconds, down_until=0.0):
    """
    Polls and reports in each second of a fleet that was restarted within one second.

    The real schedule, with no network and no waiting; the server fails until *down_until*.
    """
    rng = random.Random(5)
    clock = ManualClock()
    events = []
    for number in range(instances):
        clock.now = rng.random()
        refresher = Refresher(
            UP, CountingEngine(), clock=clock, rng=random.Random(number),
            complaints=Complaints(lambda *_: None),
        )  # fmt: skip
        for kind, task in enumerate(refresher.tasks()):
            events.append((clock.now + task.first(), number, kind, refresher, task.run))
    heapq.heapify(events)
    load = [[0] * seconds, [0] * seconds]
    while events[0][0] < seconds:
        due, number, kind, refresher, run = events[0]
        clock.now = due
        refresher._client = DOWN if due < down_until else UP
        load[kind][int(due)] += 1
        heapq.heapreplace(events, (due + run(), number, kind, refresher, run))
    return load


class TestFleet:
    """G5: ten thousand instances that were restarted within one second."""

    def test_comes_back_evenly(self):
        polls, reports = fleet_load(10_000, 1200)
        load = [a + b for a, b in zip(polls, reports, strict=True)][300:]
        mean = sum(load) / len(load)

        assert mean == pytest.approx(10_000 / 300 + 10_000 / 600, rel=0.05)
        # Chance alone makes 50 independent requests a second peak at about 1.45 times their mean.
        assert max(load) <= 1.5 * mean
        # What is not chance: any ten seconds.
        tens = [sum(load[place : place + 10]) / 10 for place in range(0, len(load), 10)]
        assert max(tens) <= 1.2 * mean
        assert min(tens) >= 0.8 * mean

    def test_first_polls_are_spread_over_seconds(self):
        polls, _ = fleet_load(10_000, 1200)

        assert max(polls[:300]) <= 2500

    def test_after_an_outage_it_does_not_come_back_at_once(self):
        """Twenty minutes; then every instance has polled within 1.1 intervals."""
        polls, _ = fleet_load(3_000, 1600, down_until=1200.0)
        after = polls[1200:1530]

        assert sum(after) >= 3_000
        assert max(after) <= 3 * 3_000 / 300

    def test_during_an_outage_it_asks_hardly_more_than_at_other_times(self):
        polls, _ = fleet_load(3_000, 1600, down_until=1200.0)
        steady = polls[600:1200]

        assert sum(steady) / len(steady) <= 1.5 * 3_000 / 300


class TestClock:
    @pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
    def test_a_jump_of_the_wall_clock_changes_nothing(self, server, tmp_path, monkeypatch, jump):
        """G11: no poll is missed, none comes in a burst."""
        wall = time.time
        offset = 0.0
        monkeypatch.setattr(time, "time", lambda: wall() + offset)

        def run(jumps):
            nonlocal offset
            offset = 0.0
            rig = Rig(server, cache=PolicyCache(tmp_path / str(jumps), ("a", "b", "c")))
            pauses = []
            for number in range(10):
                server.policy = {**POLICY, "version": number}
                offset = jump if jumps and number % 2 else 0.0
                pauses.append(rig.poll())
            return pauses

        assert run(jumps=True) == run(jumps=False)


class TestFeedback:
    """G7: what is logged in the worker never reaches what is sampled."""

    def test_records_of_the_worker_are_marked_and_none_else_comes(self, server):
        theirs, others = [], []

        class Handler(logging.Handler):
            def emit(self, record):
                (theirs if is_own_thread() else others).append(record.getMessage())

        root, handler = logging.getLogger(), Handler()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        engine = CountingEngine()
        client = LipServiceClient(server.url, "key", timeout=LONG)
        refresher = Refresher(client, engine, policy_interval=0.02, report_interval=0.02)
        worker = Worker(refresher.tasks(), final=refresher.finish)
        try:
            worker.ensure_started()
            engine.count("a" * 16)
            assert wait_for(lambda: refresher.health()["polls"] >= 20)
            assert worker.stop(20)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)

        assert any("connection" in text.lower() for text in theirs)  # urllib3's, at DEBUG
        assert others == []

    def test_an_outage_causes_no_request_in_the_callers_thread(self, server):
        """The incident of posthog-python#421: each call asked the server while it was down."""
        server.behave("503")
        engine = CountingEngine()
        refresher = Refresher(LipServiceClient(server.url, timeout=LONG), engine)
        worker = Worker(refresher.tasks())
        for _ in range(10_000):
            worker.ensure_started()
            engine.count("a" * 16)
        worker.stop(20)

        assert len(server.requests) <= 2


class TestThreadDeath:
    """G9: whatever is raised in the thread, it is at work again within one interval."""

    @pytest.mark.parametrize("error", [SystemExit, MemoryError, RecursionError, OSError])
    def test_a_client_that_raises(self, server, monkeypatch, error):
        refresher = Refresher(
            LipServiceClient(server.url, timeout=LONG), CountingEngine(), policy_interval=0.05
        )
        worker = Worker(refresher.tasks())

        def raise_it(*_, **__):
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(LipServiceClient, "fetch_policy", raise_it)
            worker.ensure_started()
            assert wait_for(lambda: worker.health()["crashes"] >= 3)
        assert wait_for(lambda: refresher.health()["policy_confirmed_seconds_ago"] is not None)
        health = worker.health()
        worker.stop(20)

        assert (health["running"], health["last_crash"]) == (True, f"policy: {error.__name__}")

    def test_a_logger_that_raises(self, server):
        """The exception in the `except` that ended configcat's polls for good."""

        class Raising(logging.Filter):
            def filter(self, record):
                raise RuntimeError

        logger, broken = logging.getLogger("lipservice"), Raising()
        logger.addFilter(broken)
        server.behave("503")
        refresher = Refresher(
            LipServiceClient(server.url, timeout=LONG), CountingEngine(), policy_interval=0.05
        )
        worker = Worker(refresher.tasks())
        try:
            worker.ensure_started()
            assert wait_for(lambda: refresher.health()["polls"] >= 3)
            server.behave("ok")
            assert wait_for(lambda: refresher.health()["poll_failures_in_a_row"] == 0)
        finally:
            worker.stop(20)
            logger.removeFilter(broken)

        assert worker.health()["crashes"] == 0


class TestPolicyFileTask:
    def test_applies_edits_and_tells_of_bad_ones_once(self, tmp_path):
        path = tmp_path / "policy.json"
        path.write_text(json.dumps(POLICY))
        file, engine, said = PolicyFile(path), CountingEngine(), []
        file.load()
        task = policy_file_task(file, engine, Complaints(lambda _, text: said.append(text)))

        def edit(text, seconds):
            path.write_text(text)
            os.utime(path, (seconds, seconds))
            return [task.run() for _ in range(4)]

        edit(json.dumps({**POLICY, "version": 2}), 1000)
        edit("{", 2000)
        pauses = edit(json.dumps({**POLICY, "version": 3}), 3000)

        assert [policy.version for policy in engine.policies] == [2, 3]
        assert [text.partition(":")[0].split()[0] for text in said] == ["policy_file", "the"]
        assert pauses == [5.0] * 4


# ---------------------------------------------------------------------- processes

CHILD = """
import os, sys, time
from lipservice._refresher import Refresher
from lipservice._worker import Worker
from lipservice.client import LipServiceClient
from tests.support.counting import CountingEngine

class Sampler:
    '''What the real one is made of.'''
    def __init__(self, url, interval=0.5):
        self.engine = CountingEngine()
        self.client = LipServiceClient(url, "key", "checkout", timeout=(5.0, 5.0))
        self.refresher = Refresher(
            self.client, self.engine, policy_interval=interval, report_interval=interval
        )
        self.worker = Worker(self.refresher.tasks(), final=self.refresher.finish)

    def log(self, signature, times=1):
        self.worker.ensure_started()
        self.engine.count(signature, times)

def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True
"""


def run_with_sampler(tmp_path, script, *arguments):
    """Run *script* after `CHILD`, as a file, for multiprocessing needs one."""
    program = tmp_path / "program.py"
    program.write_text(CHILD + textwrap.dedent(script))
    return run_program(program, *arguments)


@FORKS
class TestForking:
    """G3: the child polls and reports by itself; nothing of the parent's is sent twice."""

    def test_a_child_of_os_fork(self, server, tmp_path):
        run_with_sampler(
            tmp_path,
            """
            sampler = Sampler(sys.argv[1])
            sampler.log("parent", 3)
            assert wait_for(lambda: sampler.engine.policy is not None)
            sampler.log("parent", 4)
            child = os.fork()
            if child == 0:
                polls = lambda: sampler.refresher.health()["polls"]
                sampler.log("child", 5)
                done = wait_for(
                    lambda: polls() >= 2 and sampler.refresher.health()["records_reported"] == 5
                )
                os._exit(0 if done else 1)
            assert os.waitpid(child, 0)[1] == 0
            before = sampler.refresher.health()["polls"]
            assert wait_for(lambda: sampler.refresher.health()["polls"] > before)
            """,
            server.url,
        )

        assert server.counted == {"parent": 7, "child": 5}
        assert len({report["instance_id"] for report in server.reports.values()}) == 2

    def test_a_child_does_not_deliver_what_its_parent_has_pending(self, server, tmp_path):
        """dd-trace-py PR#18645: everything sent twice."""
        server.behave("503", "report")
        run_with_sampler(
            tmp_path,
            """
            sampler = Sampler(sys.argv[1], interval=0.1)
            sampler.log("parent", 3)
            assert wait_for(lambda: sampler.refresher.health()["reports_pending"] == 1)
            children = []
            for _ in range(20):
                child = os.fork()
                if child == 0:
                    sampler.log("child", 1)
                    failed = lambda: sampler.refresher.health()["report_failures"] >= 2
                    ok = wait_for(failed) and sampler.refresher.health()["records_pending"] == 1
                    os._exit(0 if ok else 1)
                children.append(child)
            assert all(os.waitpid(child, 0)[1] == 0 for child in children)
            """,
            server.url,
        )

        sent = {
            json.dumps(request.json["patterns"][0]["signature"]): set()
            for request in server.of_kind("report")
        }
        for request in server.of_kind("report"):
            key = json.dumps(request.json["patterns"][0]["signature"])
            sent[key].add(request.json["instance_id"])
        assert len(sent['"parent"']) == 1
        assert len(sent['"child"']) == 20

    @pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
    def test_children_of_multiprocessing_lose_nothing(self, server, tmp_path, method):
        """Though they end long before their first report is due."""
        run_with_sampler(
            tmp_path,
            """
            import multiprocessing

            sampler = Sampler(sys.argv[2], interval=300.0)

            def child(number):
                sampler.log("child", number)

            if __name__ == "__main__":
                context = multiprocessing.get_context(sys.argv[1])
                sampler.log("parent", 1)
                children = [context.Process(target=child, args=(n,)) for n in (10, 100, 1000)]
                for process in children:
                    process.start()
                for process in children:
                    process.join()
                assert [process.exitcode for process in children] == [0, 0, 0]
            """,
            method,
            server.url,
        )

        assert server.counted == {"parent": 1, "child": 1110}

    def test_parallel_children_draw_different_pauses(self, server, tmp_path):
        out = run_with_sampler(
            tmp_path,
            """
            sampler = Sampler(sys.argv[1], interval=300.0)
            for _ in range(8):
                child = os.fork()
                if child == 0:
                    print(sampler.refresher.first_report(), flush=True)
                    os._exit(0)
                os.waitpid(child, 0)
            """,
            server.url,
        )

        assert len(set(out.split())) == 8


class TestExit:
    """G6: bounded in every state of the server, and complete when it is well."""

    def test_what_was_counted_is_reported_at_the_exit(self, server, tmp_path):
        run_with_sampler(
            tmp_path,
            """
            sampler = Sampler(sys.argv[1], interval=300.0)
            sampler.log("a", 5)
            """,
            server.url,
        )

        assert server.counted == {"a": 5}

    @pytest.mark.parametrize("behaviour", ["refused", "hang", "drip", "503"])
    def test_a_bad_server_does_not_keep_the_process(self, server, tmp_path, behaviour):
        """Its time-outs are 1,000 s; contrib/benchmarks/reliability.py measures the time."""
        server.behave(behaviour)
        out = run_with_sampler(
            tmp_path,
            """
            sampler = Sampler(sys.argv[1], interval=300.0)
            sampler.client._seconds = sampler.client._transport._read = 1000.0
            sampler.log("a", 5)
            time.sleep(0.2)
            print("done")
            """,
            server.url,
        )

        assert out == "done\n"


def test_it_needs_no_thread_to_be_collected(server):
    """Nothing but its owner holds a refresher."""
    import gc
    import weakref

    rig = Rig(server)
    gone = weakref.ref(rig.refresher)
    del rig
    gc.collect()

    assert gone() is None


def test_the_policy_that_is_compared_is_the_one_applied(server):
    """A policy that differs in nothing but its number is a new one."""
    rig = Rig(server)
    rig.poll()
    server.policy = {**POLICY, "version": 2}
    rig.poll()

    first, second = rig.engine.policies
    assert second == replace(first, version=2)
