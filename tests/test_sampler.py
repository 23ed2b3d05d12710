"""The engine with its background work: policy sources, notices, reports, life and end."""

from __future__ import annotations

import gc
import inspect
import json
import logging
import os
import random
import subprocess
import sys
import textwrap
import threading
import weakref
from collections import Counter
from pathlib import Path

import pytest

from lipservice._notices import Notices
from lipservice._worker import OWN_THREADS
from lipservice.client import LipServiceClient
from lipservice.decision import Totals
from lipservice.exceptions import ConfigurationError
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.signature import compute_signature
from tests.support.policy_server import POLICY, PolicyServer, wait_for

ROOT = Path(__file__).parents[1]
DROPPING = SamplingPolicy(sampling_rate=0.0, keep_first=0, policy_id="dropping")


@pytest.fixture
def make():
    """Makes samplers that are shut down after the test."""
    made = []

    def make_sampler(*args, **options):
        made.append(AdaptiveSampler(*args, **{"rng": random.Random(1), **options}))
        return made[-1]

    yield make_sampler
    for sampler in made:
        assert sampler.shutdown(10.0)


@pytest.fixture
def server():
    with PolicyServer() as server:
        yield server


@pytest.fixture
def told(caplog):
    """What the logger `lipservice` says, as level and text."""
    caplog.set_level(logging.INFO, "lipservice")
    return lambda: [
        f"{record.levelname} {record.getMessage()}"
        for record in caplog.records
        if record.name == "lipservice"
    ]


def log(sampler, times, message="it goes round and round", severity="INFO"):
    return sum(sampler.should_sample(message, severity) for _ in range(times))


def own_threads():
    return [thread for thread in threading.enumerate() if thread.name == "lipservice"]


class TestParameters:
    def test_the_documented_ones_keep_their_places_names_and_defaults(self):
        parameters = inspect.signature(AdaptiveSampler).parameters
        documented = list(parameters.values())[:4]

        assert [each.name for each in documented] == [
            "client",
            "policy_refresh_interval",
            "pattern_report_interval",
            "max_pattern_cache_size",
        ]
        assert [each.default for each in documented] == [None, 300, 600, 10000]
        rest = list(parameters.values())[4:]
        assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in rest)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            (name, value)
            for name in ("policy_refresh_interval", "pattern_report_interval")
            for value in (0, -1, float("nan"), float("inf"), "300", None, True)
        ]
        + [("max_pattern_cache_size", value) for value in (0, -1, 1.5, "10", None, True)]
        + [("cost_target", value) for value in (0, -0.1, 1.1, float("nan"), "0.1", True)]
        + [("policy", value) for value in ({"sampling_rate": 0.1}, 0.1, "policy.json")]
        + [("policy_file", "/there/is/no/such.json"), ("policy_cache", "/tmp")],
    )
    def test_a_wrong_one_is_refused_by_name(self, name, value):
        with pytest.raises(ConfigurationError, match=name):
            AdaptiveSampler(**{name: value})

    @pytest.mark.parametrize(
        "given",
        [
            {"policy": DROPPING, "cost_target": 0.1},
            {"policy": DROPPING, "policy_file": "policy.json"},
            {"policy_file": "policy.json", "cost_target": 0.1},
            {"client": "server", "policy": DROPPING},
            {"client": "server", "policy_file": "policy.json"},
        ],
        ids=lambda given: " and ".join(given),
    )
    def test_two_sources_of_one_policy_are_refused(self, given, tmp_path):
        (tmp_path / "policy.json").write_text("{}")
        given = {**given}
        if "client" in given:
            given["client"] = LipServiceClient("http://127.0.0.1:9", "key")
        if "policy_file" in given:
            given["policy_file"] = tmp_path / "policy.json"

        with pytest.raises(ConfigurationError, match="not several"):
            AdaptiveSampler(**given)

    def test_a_policy_file_that_is_no_policy_is_refused_with_the_reason(self, tmp_path):
        file = tmp_path / "policy.json"
        for text, reason in (("no json", "no JSON"), ('{"sampling_rate": 7}', "sampling_rate")):
            file.write_text(text)
            with pytest.raises(ConfigurationError, match=reason):
                AdaptiveSampler(policy_file=file)

    def test_the_size_of_the_table_is_kept_to(self, make):
        sampler = make(max_pattern_cache_size=5)
        for letter in "abcdefghijkl":
            sampler.should_sample(f"pattern {letter}", "INFO")

        assert len(sampler.get_pattern_stats()) == 6  # with the overflow bucket


class TestThread:
    def test_nothing_starts_before_a_record_needs_it(self, make):
        sampler = make(policy=DROPPING)
        assert own_threads() == []

        log(sampler, 1)

        assert len(own_threads()) == 1

    def test_without_any_source_of_a_policy_there_is_none(self, make):
        sampler = make()

        assert log(sampler, 1000) == 1000
        assert own_threads() == []

    def test_many_threads_start_one(self, make):
        sampler = make(policy=DROPPING)
        threads = [threading.Thread(target=log, args=(sampler, 50)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(own_threads()) == 1
        assert sampler.health()["worker"]["starts"] == 1

    def test_an_abandoned_sampler_is_collected_and_its_thread_ends(self):
        sampler = AdaptiveSampler(policy=DROPPING)
        log(sampler, 10)
        (thread,) = own_threads()
        gone = weakref.ref(sampler)

        del sampler
        gc.collect()

        assert wait_for(lambda: gone() is None)
        thread.join(20)
        assert not thread.is_alive()

    def test_after_a_shutdown_decisions_go_on(self, make):
        sampler = make(policy=SamplingPolicy(sampling_rate=0.0, keep_first=2))
        log(sampler, 10)

        assert sampler.shutdown()
        assert sampler.shutdown(0.0)  # once more is harmless

        assert log(sampler, 100) == 0
        assert log(sampler, 5, severity="ERROR") == 5
        assert own_threads() == []
        assert sampler.totals() == Totals(115, 7, 108)

    def test_a_forked_child_starts_its_own(self):
        script = """
        import os, threading
        from lipservice.policy import SamplingPolicy
        from lipservice.sampler import AdaptiveSampler
        sampler = AdaptiveSampler(policy=SamplingPolicy(sampling_rate=0.5), notices=False)
        sampler.should_sample("hello", "INFO")
        assert threading.active_count() == 2
        pid = os.fork()
        if pid == 0:
            assert threading.active_count() == 1
            sampler.should_sample("hello", "INFO")
            assert threading.active_count() == 2
            assert sampler.health()["seen"] == 1
            os._exit(0 if sampler.shutdown(5.0) else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert sampler.health()["worker"]["running"]
        assert sampler.shutdown(5.0)
        """
        _run(script)


def _run(script, seconds=60):
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


class TestLocalMode:
    def test_it_keeps_everything_until_it_has_a_policy(self, make):
        sampler = make()

        assert log(sampler, 500) == 500
        assert sampler.get_policy() is None

    def test_a_cost_target_becomes_a_policy_of_its_own(self, make):
        sampler = make(cost_target=0.1)
        log(sampler, 5000, "cache hit for user 7")
        log(sampler, 500, "order 12 was placed")
        log(sampler, 20, "it broke", "ERROR")

        assert wait_for(lambda: sampler.get_policy() is not None)

        policy = sampler.get_policy()
        rates = {
            message: policy.rate_for(compute_signature(message), "INFO")
            for message in ("cache hit for user 7", "order 12 was placed")
        }
        assert rates["cache hit for user 7"] < rates["order 12 was placed"] <= 1.0
        assert policy.rate_for(compute_signature("it broke"), "ERROR") == 1.0
        expected = (
            5000 * 20 * rates["cache hit for user 7"] + 500 * 19 * rates["order 12 was placed"]
        )
        assert expected < 0.2 * (5000 * 20 + 500 * 19)
        kept = log(sampler, 5000, "cache hit for user 7")
        assert kept == pytest.approx(5000 * rates["cache hit for user 7"], rel=0.5)

    def test_too_few_records_make_no_policy(self, make):
        sampler = make(cost_target=0.1)
        log(sampler, 50)
        sampler._worker.wake("plan")
        assert wait_for(lambda: sampler._ticked > sampler._started)

        assert sampler.get_policy() is None

    def test_what_the_policies_are_like_is_said_by_a_policy(self, make):
        like = SamplingPolicy(
            patterns=("payment",),
            keep_first=3,
            max_logs_per_minute=77,
            mode="shadow",
            anomaly_boost=9.0,
        )
        sampler = make(cost_target=0.1, like=like)
        log(sampler, 500)
        assert wait_for(lambda: sampler.get_policy() is not None)

        policy = sampler.get_policy()
        assert policy.patterns == ("payment",)
        assert (policy.keep_first, policy.max_logs_per_minute) == (3, 77)
        assert (policy.mode, policy.anomaly_boost) == ("shadow", 9.0)

    def test_a_fixed_policy_is_in_force_at_once(self, make):
        sampler = make(policy=DROPPING)

        assert log(sampler, 100) == 0
        assert sampler.get_policy() is DROPPING

    def test_a_policy_can_be_applied_by_hand(self, make):
        sampler = make()
        sampler.apply_policy(DROPPING)

        assert log(sampler, 100) == 0


class TestPolicyFile:
    def test_it_is_read_at_once_and_again_when_it_changes(self, make, tmp_path):
        file = tmp_path / "policy.json"
        file.write_text(json.dumps({"policy_id": "one", "sampling_rate": 0.0, "keep_first": 0}))
        sampler = make(policy_file=file)
        assert log(sampler, 50) == 0

        file.write_text(json.dumps({"policy_id": "two", "sampling_rate": 1.0, "keep_first": 0}))
        sampler._worker.wake("policy_file")

        assert wait_for(lambda: sampler.get_policy().policy_id == "two")
        assert log(sampler, 50) == 50

    def test_a_bad_edit_leaves_the_policy_and_is_told_once(self, make, tmp_path, told):
        file = tmp_path / "policy.json"
        file.write_text(json.dumps({"policy_id": "one", "sampling_rate": 0.5}))
        sampler = make(policy_file=file)
        log(sampler, 1)

        file.write_text('{"sampling_rate": 70}')
        for _ in range(10):
            sampler._worker.wake("policy_file")

        assert wait_for(lambda: any("policy_file" in line for line in told()))
        assert sampler.get_policy().policy_id == "one"
        assert sum("policy_file" in line for line in told()) == 1


class TestServer:
    def test_the_policy_comes_from_there_and_the_counts_go_there(self, make, server):
        server.policy = {**POLICY, "patterns": [], "sampling_rate": 0.5, "severity_rates": {}}
        client = LipServiceClient(server.url, "key", service_name="shop")
        sampler = make(client, 300, 600)
        log(sampler, 1)
        sampler._worker.wake("policy")
        assert wait_for(lambda: sampler.get_policy() is not None)
        assert sampler.get_policy().policy_id == POLICY["policy_id"]

        log(sampler, 999)
        log(sampler, 10, "it broke", "ERROR")
        assert sampler.shutdown(10.0)

        assert server.counted == {
            compute_signature("it goes round and round"): 1000,
            compute_signature("it broke"): 10,
        }
        (report,) = server.reports.values()
        kept = {each["signature"]: each["kept"] for each in report["patterns"]}
        assert sum(kept.values()) == sampler.totals().kept

    def test_while_it_has_no_policy_everything_is_kept(self, make, server):
        server.behave("503")
        sampler = make(LipServiceClient(server.url, "key"))
        sampler._worker.wake("policy")

        assert log(sampler, 300) == 300
        assert wait_for(lambda: server.requests)
        assert log(sampler, 300) == 300

    def test_with_a_cost_target_it_plans_until_the_servers_first_policy(self, make, server):
        server.behave("503")
        sampler = make(LipServiceClient(server.url, "key"), cost_target=0.2)
        log(sampler, 500)
        assert wait_for(lambda: sampler.get_policy() is not None)
        assert sampler.get_policy().policy_id == "local"

        server.behave("ok")
        assert wait_for(lambda: _poll_until(sampler, POLICY["policy_id"]), 60.0)

        sampler._worker.wake("plan")
        log(sampler, 500)
        assert sampler.get_policy().policy_id == POLICY["policy_id"]


def _poll_until(sampler, policy_id):
    sampler._worker.wake("policy")
    return sampler.get_policy().policy_id == policy_id


class TestNotices:
    def test_policy_first_drop_and_summary_are_one_record_each(self, make, told):
        sampler = make(policy=DROPPING, service_name="shop")
        log(sampler, 100)
        assert wait_for(lambda: len(told()) >= 2)
        log(sampler, 100)
        sampler.shutdown()

        lines = told()
        assert len(lines) == 3
        assert all(line.startswith("INFO") for line in lines)
        assert "policy dropping" in lines[0]
        assert "first records of shop are dropped" in lines[1]
        assert "kept 0 of 200 records of shop" in lines[2]

    def test_they_can_be_switched_off(self, make, told):
        sampler = make(policy=DROPPING, notices=False)
        log(sampler, 100)
        sampler.shutdown()

        assert told() == []

    def test_each_change_of_the_policy_is_told(self, told):
        notices = Notices(None, lambda: 0.0)
        for version in (1, 2, 3):
            policy = SamplingPolicy(policy_id="p", version=version, sampling_rate=0.25)
            notices.look(policy, Totals())
            notices.look(policy, Totals())
        notices.look(None, Totals())

        lines = told()
        assert [line.split(" (")[0] for line in lines[:3]] == [
            f"INFO sampling by policy {version}" for version in (1, 2, 3)
        ]
        assert len(lines) == 4
        assert "everything is kept" in lines[3]

    def test_in_shadow_no_drop_is_announced(self, told):
        notices = Notices(None, lambda: 0.0)
        shadow = SamplingPolicy(sampling_rate=0.1, mode="shadow")
        notices.look(shadow, Totals(seen=100, kept=10, dropped=80, capped=10, shadowed=90))
        assert [line for line in told() if "dropped:" in line] == []

        notices.look(shadow, Totals(seen=101, kept=10, dropped=81, capped=10, shadowed=90))
        assert len([line for line in told() if "are dropped:" in line]) == 1

    def test_a_summary_tells_the_interval_and_only_if_there_was_something(self, told):
        now = [0.0]
        notices = Notices("shop", lambda: now[0])
        policy = SamplingPolicy(policy_id="p")
        notices.summarise(policy, Totals())
        now[0] = 60.0
        notices.summarise(policy, Totals(seen=5000, kept=600, dropped=4000, capped=400))
        now[0] = 90.0
        notices.summarise(policy, Totals(seen=5000, kept=600, dropped=4000, capped=400))
        notices.summarise(policy, Totals(seen=5010, kept=601, dropped=4009, capped=400, shadowed=9))

        assert told() == [
            "INFO kept 600 of 5,000 records of shop in 60 s by policy p; the limit dropped 400",
            "INFO kept 1 of 10 records of shop in 0 s by policy p; shadow mode let 9 others pass",
        ]

    def test_a_logger_that_raises_harms_nothing(self, make, caplog):
        class Raising(logging.Handler):
            def handle(self, record):
                raise RuntimeError("no more logs")

        logger = logging.getLogger("lipservice")
        logger.addHandler(Raising())
        logger.setLevel(logging.DEBUG)
        sampler = make(policy=DROPPING)

        log(sampler, 100)
        assert wait_for(lambda: sampler._notices._dropped)

        assert sampler.health()["worker"]["crashes"] == 0
        assert sampler.shutdown()


class TestHealth:
    def test_it_is_plain_values(self, make, server):
        sampler = make(LipServiceClient(server.url, "key"), cost_target=0.5)
        log(sampler, 10)

        health = json.loads(json.dumps(sampler.health()))

        assert health["seen"] == health["kept"] == 10
        assert health["patterns"] == 1
        assert health["policy_id"] is None
        assert health["worker"]["running"] is True
        assert health["server"] is not None

    def test_it_holds_no_key(self, make, server):
        sampler = make(LipServiceClient(server.url, "a-secret-key"))

        assert "a-secret-key" not in json.dumps(sampler.health())

    def test_it_tells_of_doubts(self, make, swallowed):
        class BadText:
            def __str__(self):
                raise ValueError

        sampler = make(policy=DROPPING)
        assert sampler.should_sample(BadText(), "INFO") is True

        assert sampler.health()["in_doubt"] == 1
        swallowed.clear()


def test_the_worker_marks_its_thread_while_it_works(make):
    """So that integrations know what was born there."""
    sampler = make(policy=DROPPING)
    idents = []
    tick = sampler.tick
    sampler.tick = lambda: idents.append(set(OWN_THREADS)) or tick()
    log(sampler, 1)
    (thread,) = own_threads()

    assert wait_for(lambda: idents)
    assert thread.ident in idents[0]


def test_counts_stay_exact_while_the_thread_works(make, tmp_path):
    """A short interval for everything the thread does, and eight threads that log."""
    sampler = make(
        cost_target=0.2, policy_refresh_interval=0.02, pattern_report_interval=0.05, notices=False
    )
    kept = Counter()
    lock = threading.Lock()
    done = threading.Event()

    def work(seed):
        chance = random.Random(seed)
        mine = Counter()
        while not done.is_set():
            message = f"{chance.choice(['red', 'green', 'blue'])} took {chance.random()} s"
            mine[sampler.should_sample(message, chance.choice(["INFO", "ERROR"]))] += 1
        with lock:
            kept.update(mine)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    planned = wait_for(lambda: ((sampler.get_policy() or DROPPING).version or 0) >= 5, 60.0)
    done.set()
    for thread in threads:
        thread.join()

    assert planned
    totals = sampler.totals()
    assert totals == Totals(kept.total(), kept[True], kept[False])
