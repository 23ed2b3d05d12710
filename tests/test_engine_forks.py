"""Forks: the child counts from zero and never waits for a lock, the parent notices nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


def run_script(script, *args, seconds=100):
    """Run *script* in a fresh interpreter; what it printed. Killed, and failed, when it hangs."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-X", "faulthandler", "-c",
         PRELUDE + textwrap.dedent(script), *args],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=ROOT,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.split()


PRELUDE = """
import ctypes, os, random, signal, sys, threading, time
from collections import Counter
from lipservice._engine import DecisionEngine
from lipservice.policy import SamplingPolicy

def engine_with(**policy):
    return DecisionEngine(policy=SamplingPolicy(**policy), rng=random.Random(1))

def log(engine, times, message="hello", severity="INFO"):
    return sum(engine.decide_message(message, severity) is not None for _ in range(times))

def in_child(action, fork=os.fork):
    '''Run *action* in a forked child; it has 30 seconds.'''
    pid = fork()
    if pid == 0:
        signal.alarm(30)
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, "the child failed or hung"

def are(totals, seen, kept):
    assert (totals.seen, totals.kept) == (seen, kept), totals
    assert totals.seen == totals.kept + totals.dropped + totals.capped
"""


def test_a_child_counts_from_zero_and_the_parent_goes_on():
    script = """
    engine = engine_with(sampling_rate=0.2, keep_first=3)
    kept = log(engine, 1000)

    def child():
        are(engine.totals(), 0, 0)
        assert engine.drain() == []
        mine = [engine.decide_message("hello", "INFO") for _ in range(1000)]
        assert [each.rule for each in mine[:3]] == ["first"] * 3
        are(engine.totals(), 1000, sum(each is not None for each in mine))
        assert sum(each.count for each in engine.drain()) == 1000

    for _ in range(5):
        in_child(child)
        are(engine.totals(), 1000, kept)
    kept += log(engine, 1000)
    are(engine.totals(), 2000, kept)
    assert sum(each.count for each in engine.drain()) == 2000
    print("ok")
    """
    assert run_script(script) == ["ok"]


def test_the_policy_is_inherited_and_the_draws_are_not():
    script = """
    engine = engine_with(sampling_rate=0.5, keep_first=0, policy_id="inherited")
    log(engine, 10)

    def child():
        assert engine.get_policy().policy_id == "inherited"
        print("".join(str(log(engine, 1)) for _ in range(100)), flush=True)

    for _ in range(3):
        in_child(child)
    """
    assert len(set(run_script(script))) == 3


def test_a_child_of_a_limited_service_has_its_own_minute():
    script = """
    engine = engine_with(keep_first=0, max_logs_per_minute=40)
    assert log(engine, 1000) <= 40

    def child():
        kept = log(engine, 1000)
        assert 20 <= kept <= 40, kept
        for number in range(5):
            log(engine, 100, f"another {'x' * number}")
        assert engine.totals().kept <= 40

    in_child(child)
    print("ok")
    """
    assert run_script(script) == ["ok"]


def test_the_lock_may_be_held_at_the_fork():
    """By another thread, which does not exist in the child."""
    script = """
    engine = engine_with(sampling_rate=0.5, keep_first=1)
    log(engine, 100)
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with engine._lock:
            engine._busy = True
            held.set()
            go_on.wait()
            engine._busy = False

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def child():
        log(engine, 100, "met in the child")
        engine.apply_policy(None)
        engine.tick()
        assert engine.totals().seen == 100
        assert sum(each.count for each in engine.drain()) == 100

    in_child(child)
    go_on.set()
    thread.join()
    log(engine, 100)
    assert engine.totals().seen == 200
    print("ok")
    """
    assert run_script(script) == ["ok"]


def test_two_hundred_forks_under_load_hang_and_lose_nothing():
    script = """
    sys.setswitchinterval(1e-5)
    engine = DecisionEngine(max_patterns=50, rng=random.Random(1))
    POLICIES = [SamplingPolicy(sampling_rate=0.3, keep_first=0),
                SamplingPolicy(sampling_rate=0.9, keep_first=2, max_logs_per_minute=10_000)]
    done = False
    kept, drained = Counter(), Counter()
    counted = threading.Lock()

    def work(seed):
        chance = random.Random(seed)
        mine = Counter()
        while not done:
            message = "pattern " + "x" * chance.randrange(80)
            mine[engine.decide_message(message, "INFO") is not None] += 1
        with counted:
            kept.update(mine)

    def background():
        chance = random.Random(0)
        while not done:
            engine.apply_policy(chance.choice(POLICIES))
            engine.tick()
            for each in engine.drain():
                drained["seen"] += each.count

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    threads.append(threading.Thread(target=background))
    for thread in threads:
        thread.start()

    def child():
        assert engine.totals().seen == 0
        for number in range(20):
            log(engine, 5, "child " + "y" * number)
        engine.apply_policy(POLICIES[0])
        assert engine.totals().seen == 100, engine.totals()

    for _ in range(200):
        in_child(child)
    done = True
    for thread in threads:
        thread.join()
    for each in engine.drain():
        drained["seen"] += each.count
    are(engine.totals(), kept.total(), kept[True])
    assert drained["seen"] == kept.total()
    print("ok")
    """
    assert run_script(script) == ["ok"]


def test_a_fork_in_the_middle_of_a_decision_leaves_the_child_whole():
    """From a signal handler or a finalizer: the child returns into the parent's half-done work."""
    script = """
    forked = []

    class Forking(random.Random):
        armed = False

        def random(self):
            if self.armed:
                self.armed = False
                forked.append(os.fork())
            return super().random()

    for severity in ("INFO", "ERROR"):
        for max_patterns in (1, 100):
            rng = Forking(1)
            engine = DecisionEngine(max_patterns=max_patterns, rng=rng)
            engine.apply_policy(SamplingPolicy(sampling_rate=0.5, keep_first=0))
            log(engine, 100, "the first pattern", "INFO")
            log(engine, 100, "the second pattern", "INFO")
            rng.armed = True
            log(engine, 100, "the second pattern", "INFO")
            assert forked
            if forked[0] == 0:
                signal.alarm(30)
                log(engine, 100, "the second pattern", severity)
                totals = engine.totals()
                good = (
                    100 <= totals.seen <= 200
                    and totals.seen == totals.kept + totals.dropped
                    and engine._busy is False
                    and all(len(name) == 16 for table in engine._tables.values()
                            for name in table.index)
                )
                os._exit(0 if good else 1)
            _, status = os.waitpid(forked.pop(), 0)
            assert status == 0
            assert engine.totals().seen == 300
    print("ok")
    """
    assert run_script(script) == ["ok"]


@pytest.mark.skipif(sys.platform != "linux", reason="forks by libc")
@pytest.mark.parametrize("max_patterns", [1, 100])
def test_a_host_that_forks_behind_pythons_back_loses_nothing_for_long(max_patterns):
    """uWSGI without its fork hooks; also with patterns that have no place in the table."""
    script = f"""
    engine = DecisionEngine(max_patterns={max_patterns}, rng=random.Random(1))
    engine.apply_policy(
        SamplingPolicy(sampling_rate=0.5, keep_first=0, patterns=("protected",)))
    MESSAGES = ["the first", "the second", "a protected one"]
    for message in MESSAGES:
        log(engine, 200, message)
    libc = ctypes.PyDLL(None)

    def child():
        for message in ("the second", "a protected one", "the first"):
            kept = log(engine, 300, message)
            if message == "a protected one":
                assert kept == 300, kept
        totals = engine.totals()
        # What the parent had begun to count down is still counted there.
        assert 800 <= totals.seen <= 900, totals
        assert totals.seen == totals.kept + totals.dropped
        names = [name for table in engine._tables.values() for name in table.index]
        assert len(names) <= {max_patterns}
        assert all(len(name) == 16 for name in names), names

    in_child(child, fork=libc.fork)
    assert engine.totals().seen == 600
    print("ok")
    """
    assert run_script(script) == ["ok"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_of_multiprocessing_count_for_themselves(method, tmp_path):
    """The default sampler, as an application has it: configured where each process begins."""
    module = tmp_path / "an_application.py"
    module.write_text(
        textwrap.dedent("""
        import logging, os, sys
        import multiprocessing
        from lipservice import SamplingFilter
        from lipservice.policy import SamplingPolicy
        from lipservice.sampler import AdaptiveSampler

        policy = SamplingPolicy(sampling_rate=0.2, keep_first=2)
        sampler = AdaptiveSampler(policy=policy, notices=False)
        sampling = SamplingFilter(sampler=sampler)
        records = []

        class Keeping(logging.Handler):
            def emit(self, record):
                records.append(record)

        handler = Keeping()
        handler.addFilter(sampling)
        logger = logging.getLogger("app")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)

        def work(count):
            before = len(records)
            for number in range(count):
                logger.info("job %d of many", number)
            totals = sampler.totals()
            assert totals.seen == count, totals
            assert totals.kept == len(records) - before
            return os.getpid(), totals.kept, round(sum(r.lipservice_weight for r in records))

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            logger.info("the parent says %d", 1)
            with context.Pool(2, maxtasksperchild=1) as pool:
                answers = pool.map(work, [500, 600, 700, 800], chunksize=1)
            assert sampler.totals().seen == 1
            assert len({pid for pid, _, _ in answers}) == 4
            sampler.shutdown()
            print("ok")
        """)
    )
    done = subprocess.run(
        [sys.executable, str(module), method],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "ok\n"
