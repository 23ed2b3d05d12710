"""Records that are born while a record is being decided, on the same thread: exact, no hang."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path

import pytest

from lipservice import _engine, _ledger, _throttle, patterns
from lipservice._engine import DecisionEngine
from lipservice.decision import Dropped
from lipservice.policy import SamplingPolicy
from lipservice.scope import RecorderLimits, RequestScope
from lipservice.signature import compute_signature

ROOT = Path(__file__).parents[1]
POLICIES = [
    None,
    SamplingPolicy(sampling_rate=0.3, keep_first=0),
    SamplingPolicy(sampling_rate=0.0, keep_first=1, patterns=("noisy",)),
    SamplingPolicy(sampling_rate=0.7, keep_first=2, max_logs_per_minute=300),
    SamplingPolicy(sampling_rate=0.2, keep_first=0, mode="shadow"),
    *(SamplingPolicy(sampling_rate=0.4, keep_first=1, version=version) for version in range(6)),
]
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
MESSAGES = [f"{a} of {b}" for a in WORDS for b in WORDS] + [f"{a} took 7 ms" for a in WORDS]
BY_SIGNATURE = {compute_signature(message): message for message in MESSAGES}


def run_script(script, *args, seconds=100):
    """Run *script* in a fresh interpreter; what it printed. Killed, and failed, when it hangs."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(script), *args],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


class Interrupting:
    """
    Clock, wall clock and random numbers of an engine; any of its lines may be interrupted.

    By a trace function, which may come in at more places than a signal handler or a finalizer.
    """

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.source = random.Random(seed + 1)
        self.now = 1000.0
        self.engine = None
        self.depth = 0
        self.kept = Counter()
        self.released = 0
        self.scope = RequestScope(None, 0, RecorderLimits())
        self.interrupted = Counter()

    def clock(self):
        return self.now

    def random(self):
        return self.source.random()

    def log(self, message=None, severity=None):
        message = message or self.chance.choice(MESSAGES)
        severity = severity or self.chance.choice(["DEBUG", "INFO", "INFO", "ERROR"])
        decide = self.chance.choice(
            (self.engine.decide_message, self.engine.decide_format, self.in_request, self.boosted)
        )
        self.kept[decide(message, severity) is not None] += 1

    def in_request(self, message, severity):
        """In a request that is now and then a new one, and now and then fails."""
        if self.chance.random() < 0.05:
            self.scope.close()
            self.scope = RequestScope(None, self.chance.getrandbits(56), RecorderLimits(20))
        if self.chance.random() < 0.02:
            self.scope.keep()
        outcome = self.engine.decide_scoped(message, severity, self.scope, is_format=False)
        if not isinstance(outcome, Dropped):
            return outcome
        if outcome.scope.failed:
            outcome.scope.pass_on(outcome.row)
            self.released += 1
        else:
            outcome.scope.hold(self.release, 1, outcome.row)
        return None

    def release(self):
        self.released += 1

    def boosted(self, message, severity):
        return self.engine.decide_boosted(message, severity, is_format=False)

    def trace(self, frame, event, _argument):
        if frame.f_code.co_filename not in TRACED:
            return None
        if event == "line" and self.depth == 0 and self.chance.random() < 0.05:
            self.depth += 1
            self.interrupted[frame.f_code.co_name] += 1
            self.log_in(frame.f_locals.get("cell"))
            self.depth -= 1
        return self.trace

    def log_in(self, cell):
        """Log a record, most often of the very pattern that the engine is working on."""
        if cell is None or cell.signature not in BY_SIGNATURE or self.chance.random() < 0.3:
            self.log()
        else:
            self.log(BY_SIGNATURE[cell.signature], cell.table.severity)


TRACED = {_engine.__file__, _ledger.__file__, patterns.__file__, _throttle.__file__}
CRITICAL = {
    "_arm", "_close_gap", "_settle_alone", "_judge", "_new_cell", "_retire", "_drain_cell",
    "_close_row", "_with_closed", "_with_old_ones_together", "_count_scoped", "_open_row",
    "_follow_words", "_tick_cell", "_book", "_settle_boosted", "running_of", "counts_of",
}  # fmt: skip


def check_ledger(engine):
    """The ledger has no entry below 0 and adds up to the totals."""
    entries, totals = engine.ledger(), engine.totals()
    sums = Counter()
    for entry in entries:
        assert entry.seen == entry.kept + entry.dropped + entry.held
        assert min(entry.seen, entry.kept, entry.dropped, entry.held, entry.released) >= 0
        sums.update({name: getattr(entry, name) for name in ("seen", "kept", "held", "released")})
        sums["dropped"] += entry.dropped + entry.shadowed
    assert sums["seen"] == totals.seen
    assert sums["kept"] == totals.kept + totals.shadowed
    assert sums["dropped"] == totals.dropped + totals.capped
    assert (sums["held"], sums["released"]) == (totals.held, totals.released)


@pytest.mark.parametrize("locked", [False, True], ids=["countdown", "locked"])
def test_whatever_the_engine_is_doing_a_record_in_between_counts_once(locked):
    interrupted = Counter()
    for seed in range(8):
        world = Interrupting(seed)
        engine = DecisionEngine(max_patterns=40, rng=world, clock=world.clock, now=world.clock)
        engine._counts_down = not locked
        world.engine = engine
        drained = Counter()

        def drain(engine=engine, drained=drained):
            for each in engine.drain():
                drained["seen"] += each.count
                drained["kept"] += each.kept

        before = sys.gettrace()
        sys.settrace(world.trace)
        try:
            for _ in range(1000):
                step = world.chance.random()
                if step < 0.9:
                    world.log()
                elif step < 0.94:
                    world.now += world.chance.choice([1.0, 30.0, 300.0])
                    engine.tick()
                elif step < 0.97:
                    engine.apply_policy(world.chance.choice(POLICIES))
                elif step < 0.994:
                    drain()
                else:
                    engine.ledger()  # with records in between it is of no one moment
                    world.depth += 1
                    check_ledger(engine)
                    world.depth -= 1
                assert engine._busy is False
        finally:
            sys.settrace(before)
        drain()

        totals = engine.totals()
        assert totals.seen == world.kept.total()
        assert totals.kept + totals.shadowed == world.kept[True] + world.released
        assert totals.released == world.released
        check_ledger(engine)
        assert drained == {"seen": world.kept.total(), "kept": world.kept[True]}
        interrupted += world.interrupted

    assert interrupted.total() > 2000
    assert set(interrupted) > CRITICAL


class TestNewPatternInTheMiddle:
    """A pattern that is first met inside the engine's own work is as new as any other."""

    def test_its_first_record_is_kept_and_it_gets_a_count_of_its_own(self):
        policy = SamplingPolicy(sampling_rate=0.0, keep_first=2)
        decisions = []

        def clock():
            if armed:
                armed.clear()
                decisions.append(engine.decide_message("met in the middle", "INFO"))
            return 0.0

        armed = []
        engine = DecisionEngine(policy=policy, clock=clock)
        for number in range(20):  # the overflow bucket's first records are over
            engine._tables["INFO"].overflow.base += 1
            engine._tables["INFO"].overflow.kept += number < 2
        engine.apply_policy(policy)

        armed.append(True)
        engine.decide_message("the outer one", "INFO")

        assert [each is not None for each in decisions] == [True]
        assert engine.decide_message("met in the middle", "INFO").rule == "first"
        assert len(engine.get_pattern_stats()) == 3  # two patterns and the bucket


class TestRecursion:
    def test_a_recursion_that_logs_until_the_end_leaves_the_engine_whole(self):
        engine = DecisionEngine(
            policy=SamplingPolicy(sampling_rate=0.5, keep_first=0), rng=random.Random(1)
        )
        answered = Counter()

        def descend(depth):
            message = f"at depth {'i' * (depth % 50)}"
            answered[engine.decide_message(message, "INFO") is not None] += 1
            descend(depth + 1)

        for _ in range(5):
            with pytest.raises(RecursionError):
                descend(0)
        after = [engine.decide_message("all is well", "INFO") for _ in range(1000)]

        assert engine._busy is False
        assert _free_for_others(engine)
        assert 400 < sum(each is not None for each in after) < 600
        totals = engine.totals()
        assert totals.seen == totals.kept + totals.dropped + totals.capped
        # At most the last record of a descent is counted without having been answered.
        assert answered.total() + 1000 <= totals.seen <= answered.total() + 1000 + 2 * 5

    def test_an_interrupt_in_the_middle_leaves_the_engine_whole(self):
        """KeyboardInterrupt out of any call that the engine makes."""
        chance = random.Random(3)

        class Rude(random.Random):
            def random(self):
                if chance.random() < 0.2:
                    raise KeyboardInterrupt
                return super().random()

        engine = DecisionEngine(policy=SamplingPolicy(sampling_rate=0.5, keep_first=0), rng=Rude(1))
        answered = Counter()
        for number in range(2000):
            try:
                kept = engine.decide_message(f"message {'x' * (number % 7)}", "INFO") is not None
                answered[kept] += 1
            except KeyboardInterrupt:
                answered["interrupted"] += 1

        assert answered["interrupted"] > 100
        assert engine._busy is False
        assert _free_for_others(engine)
        totals = engine.totals()
        assert totals.seen == totals.kept + totals.dropped
        assert answered[True] + answered[False] <= totals.seen <= answered.total()


def _free_for_others(engine):
    free = []

    def take():
        free.append(engine._lock.acquire(blocking=False))
        engine._lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return free == [True]


PRELUDE = """
import gc, random, signal, sys, threading, time
from collections import Counter
from lipservice._engine import DecisionEngine
from lipservice.decision import Dropped
from lipservice.policy import SamplingPolicy
from lipservice.scope import RecorderLimits, RequestScope
sys.setswitchinterval(1e-5)
wall = [1000.0]
engine = DecisionEngine(max_patterns=60, rng=random.Random(1), clock=lambda: wall[0],
                        now=lambda: wall[0])
POLICIES = [None, SamplingPolicy(sampling_rate=0.3, keep_first=0),
            SamplingPolicy(sampling_rate=0.05, keep_first=0, patterns=("beta",)),
            SamplingPolicy(sampling_rate=0.9, keep_first=2, max_logs_per_minute=1000),
            SamplingPolicy(sampling_rate=0.5, keep_first=0, mode="shadow")]
WORDS = "alpha beta gamma delta epsilon zeta eta theta iota kappa".split()
MESSAGES = [a + " of " + b for a in WORDS for b in WORDS]
drained = Counter()

def drain():
    for each in engine.drain():
        drained["seen"] += each.count
        drained["kept"] += each.kept

def check(kept):
    drain()
    totals = engine.totals()
    assert totals.seen == totals.kept + totals.dropped + totals.capped, totals
    assert totals.seen == sum(kept.values()), (totals, kept)
    assert totals.kept + totals.shadowed == kept[True], (totals, kept)
    assert drained == {"seen": sum(kept.values()), "kept": kept[True]}, (drained, kept)
    assert engine._doubtful == 0
    print(sum(kept.values()))

def background(chance):
    engine.apply_policy(chance.choice(POLICIES))
    wall[0] += chance.choice([1.0, 5.0, 300.0])
    engine.tick()
    drain()
"""


def test_finalizers_that_log_run_anywhere_in_the_engine():
    """sentry-python#803: the collector runs while a lock is held, and a `__del__` logs."""
    script = """
    kept = Counter()
    chance = random.Random(7)

    class Chatty:
        def __init__(self):
            self.me = self
        def __del__(self):
            kept[engine.decide_message(chance.choice(MESSAGES), "INFO") is not None] += 1

    gc.set_threshold(1)
    for number in range(10_000):
        Chatty()
        message = chance.choice(MESSAGES)
        kept[engine.decide_message(message, "INFO") is not None] += 1
        if number % 100 == 0:
            background(chance)
    gc.set_threshold(1000)
    gc.collect()
    check(kept)
    """
    assert int(run_script(PRELUDE + textwrap.dedent(script))) == 20_000


@pytest.mark.skipif(sys.platform == "win32", reason="no interval timers")
def test_a_signal_handler_that_logs_interrupts_the_engine_anywhere():
    script = """
    kept, in_handler = Counter(), Counter()
    chance = random.Random(7)
    other = random.Random(8)

    def handler(signum, frame):
        message = other.choice(MESSAGES)
        in_handler[engine.decide_message(message, "INFO") is not None] += 1

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
    until = time.monotonic() + 4.0
    while time.monotonic() < until or in_handler.total() < 2000:
        for _ in range(200):
            message = chance.choice(MESSAGES)
            answer = engine.decide_message(message, "INFO") is not None
            kept[answer] += 1
        background(chance)
    signal.setitimer(signal.ITIMER_REAL, 0)
    check(kept + in_handler)
    """
    assert int(run_script(PRELUDE + textwrap.dedent(script))) > 10_000
