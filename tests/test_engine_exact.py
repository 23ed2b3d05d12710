"""No record is lost or counted twice, whatever threads do at the same time."""

from __future__ import annotations

import dis
import random
import sys
import threading
import time
import types
from collections import Counter
from types import MappingProxyType

import pytest

from lipservice import _engine, _ledger, patterns
from lipservice._engine import DecisionEngine
from lipservice.decision import Dropped, Totals
from lipservice.patterns import Cell
from lipservice.policy import SamplingPolicy
from lipservice.scope import RecorderLimits, RequestScope
from lipservice.severity import SEVERITIES
from lipservice.signature import compute_signature


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def tiny_switch_interval():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# ---------------------------------------------------------------------- straight lines

# Opcodes of CPython 3.10 to 3.13 after which, or in which, it does not look whether another
# thread, a signal handler or the garbage collector wants to run, as long as the objects are plain:
# slots, ints, floats, module globals. Of the jumps only those that are not taken.
STRAIGHT = {
    "LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_LOAD_FAST", "STORE_FAST", "STORE_FAST_LOAD_FAST",
    "STORE_FAST_STORE_FAST", "LOAD_CONST", "LOAD_GLOBAL", "LOAD_ATTR", "STORE_ATTR", "COPY",
    "DUP_TOP", "SWAP", "ROT_TWO", "ROT_THREE", "BINARY_OP", "BINARY_ADD", "BINARY_SUBTRACT",
    "INPLACE_ADD", "INPLACE_SUBTRACT", "COMPARE_OP", "IS_OP", "NOP", "CACHE", "EXTENDED_ARG",
    "POP_JUMP_IF_FALSE", "POP_JUMP_FORWARD_IF_FALSE",
}  # fmt: skip


def straight_run_to(code, index):
    """The instructions of the longest straight line that ends with instruction *index*."""
    instructions = list(dis.get_instructions(code))
    start = index
    while instructions[start - 1].opname in STRAIGHT and not instructions[start].is_jump_target:
        start -= 1
    return instructions[start : index + 1]


def stores_of_left(function):
    """The straight lines that end with a change of `left`."""
    code = function.__code__
    return [
        straight_run_to(code, index)
        for index, each in enumerate(dis.get_instructions(code))
        if (each.opname, each.argval) == ("STORE_ATTR", "left")
    ]


def reads(run, name):
    return [each.argval for each in run if each.opname == "LOAD_ATTR"].count(name)


def writes(run):
    return [each.argval for each in run if each.opname == "STORE_ATTR"]


PATHS = [
    DecisionEngine.decide_message,
    DecisionEngine.decide_format,
    DecisionEngine.should_sample,
    DecisionEngine._settle_alone,
]


class TestStraightLines:
    """
    What makes the countdown exact without a lock.

    CPython with its GIL changes threads, and runs signal handlers and finalizers, only where it
    looks at its "eval breaker": at calls, at the start of a function, at jumps that are taken.
    """

    @pytest.mark.parametrize("function", PATHS, ids=lambda function: function.__name__)
    def test_a_countdown_is_looked_at_and_changed_in_one_line(self, function):
        runs = [run for run in stores_of_left(function) if "kept" not in writes(run)]

        assert len(runs) == 2  # one for drops, one for keeps
        for run in runs:
            assert reads(run, "left") == 2  # by the `if` and by the `-=`

    @pytest.mark.parametrize("function", PATHS, ids=lambda function: function.__name__)
    def test_the_answer_is_read_before_anything_can_change_it(self, function):
        instructions = list(dis.get_instructions(function.__code__))
        answers = [
            index
            for index, each in enumerate(instructions)
            if each.opname == "LOAD_ATTR" and each.argval in {"if_dropped", "if_kept"}
        ]

        assert answers
        for index in answers:
            assert "left" in writes(straight_run_to(function.__code__, index))

    @pytest.mark.parametrize(
        "function",
        [DecisionEngine._settle, DecisionEngine.should_sample],
        ids=lambda function: function.__name__,
    )
    def test_a_gap_is_closed_and_the_next_one_opened_in_one_line(self, function):
        (run,) = [run for run in stores_of_left(function) if "kept" in writes(run)]

        assert writes(run) == ["kept", "base", "left"]
        assert reads(run, "left") == 1
        assert reads(run, "steady") == 1

    def test_a_record_of_a_request_is_counted_in_one_line(self):
        """In its cell and in its row, if both are still what its request has drawn for."""
        code = DecisionEngine.decide_scoped.__code__
        instructions = list(dis.get_instructions(code))
        runs = [
            straight_run_to(code, index)
            for index, each in enumerate(instructions)
            if each.opname == "STORE_ATTR"
            and instructions[index + 1].opname != "STORE_ATTR"
            and "seen" in writes(straight_run_to(code, index))
        ]
        longest = {tuple(writes(run)) for run in runs}

        assert ("base", "kept", "seen", "kept") in longest
        assert ("base", "seen") in longest
        for run in runs:
            assert reads(run, "requested") == 1
            assert reads(run, "rate") == 1

    def test_the_row_of_requests_is_read_in_one_line_with_the_cell(self):
        code = patterns.rows_of.__code__
        names = ("left", "base", "kept", "seen")
        last = next(
            index
            for index, each in enumerate(dis.get_instructions(code))
            if (each.opname, each.argval) == ("LOAD_ATTR", "seen")
        )
        run = straight_run_to(code, last + 2)

        assert [reads(run, name) for name in names] == [1, 1, 2, 1]

    def test_the_rate_of_a_kept_record_is_read_in_the_line_that_keeps_it(self):
        code = DecisionEngine._settle.__code__
        instructions = list(dis.get_instructions(code))
        (index,) = [
            index
            for index, each in enumerate(instructions)
            if (each.opname, each.argval) == ("LOAD_ATTR", "rate")
        ]

        assert "left" in writes(straight_run_to(code, index))

    def test_a_closing_gap_is_read_and_stopped_in_one_line(self):
        (run,) = stores_of_left(DecisionEngine._close_gap)

        assert reads(run, "left") == 1

    def test_counts_are_read_in_one_line(self):
        code = patterns.counts_of.__code__
        names = ("left", "base", "kept")
        last = max(
            index
            for index, each in enumerate(dis.get_instructions(code))
            if each.opname == "LOAD_ATTR" and each.argval in names
        )
        run = straight_run_to(code, last)

        assert [reads(run, name) for name in names] == [1, 1, 1]

    def test_the_fields_are_slots_so_that_no_code_runs_to_read_them(self):
        for name in (
            "left",
            "base",
            "kept",
            "steady",
            "rate",
            "if_dropped",
            "if_kept",
            "requested",
        ):
            assert isinstance(vars(Cell)[name], types.MemberDescriptorType)
        for name in ("seen", "kept", "terms"):
            assert isinstance(vars(patterns.Row)[name], types.MemberDescriptorType)
        assert not hasattr(Cell, "__getattr__")
        assert Cell.__getattribute__ is object.__getattribute__
        assert Cell.__setattr__ is object.__setattr__

    def test_a_python_that_was_not_proved_takes_the_lock(self, monkeypatch):
        assert _engine._straight_lines_are_atomic()

        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
        assert not _engine._straight_lines_are_atomic()
        monkeypatch.undo()

        monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
        assert not _engine._straight_lines_are_atomic()
        monkeypatch.undo()

        implementation = types.SimpleNamespace(name="pypy")
        monkeypatch.setattr(sys, "implementation", implementation)
        assert not _engine._straight_lines_are_atomic()


class TestAnotherThreadInBetween:
    """A trace function comes in where another thread could: at the start of a called function."""

    def test_a_kept_record_weighs_what_its_own_rate_says(self):
        engine = DecisionEngine(rng=random.Random(5))
        policies = [SamplingPolicy(sampling_rate=rate, keep_first=0) for rate in (0.5, 0.0)]

        def tracer(frame, event, _argument):
            if event == "call" and frame.f_code is _engine._kept_at.__code__:
                engine.apply_policy(policies[1])

        decisions = []
        before = sys.gettrace()
        for _ in range(200):
            engine.apply_policy(policies[0])
            sys.settrace(tracer)
            try:
                decisions.append(engine.decide_message("hello", "INFO"))
            finally:
                sys.settrace(before)

        kept = [each for each in decisions if each]
        assert len(kept) > 50
        assert {(each.rule, each.rate, each.weight) for each in kept} == {("rate", 0.5, 2.0)}
        assert engine.totals() == Totals(200, len(kept), 200 - len(kept))

    def test_a_tracer_that_logs_at_every_line_loses_no_count(self):
        """As a debugger's or a profiler's might: lines of the hot path come apart then."""
        engine = DecisionEngine(
            policy=SamplingPolicy(sampling_rate=0.3, keep_first=2), rng=random.Random(5)
        )
        calls = Counter()
        inside = False

        def tracer(frame, event, _argument):
            nonlocal inside
            if frame.f_code.co_filename != _engine.__file__ or inside:
                return None
            if event == "line":
                inside = True
                calls[engine.decide_message("hello", "INFO") is not None] += 1
                inside = False
            return tracer

        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            for _ in range(300):
                kept = engine.decide_message("hello", "INFO") is not None
                calls[kept] += 1
        finally:
            sys.settrace(before)

        assert calls.total() > 1500
        assert engine.totals() == Totals(calls.total(), calls[True], calls[False])


# ---------------------------------------------------------------------- threads

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
MESSAGES = [f"{a} meets {b}" for a in WORDS for b in WORDS] + [f"{a} took 17 ms" for a in WORDS]
POLICIES = [
    None,
    SamplingPolicy(sampling_rate=0.02, keep_first=0),
    SamplingPolicy(sampling_rate=0.5, keep_first=3),
    SamplingPolicy(sampling_rate=0.0, keep_first=1, patterns=("alpha",)),
    SamplingPolicy(sampling_rate=1.0, keep_first=0),
    SamplingPolicy(sampling_rate=0.3, keep_first=0, mode="shadow"),
    SamplingPolicy(sampling_rate=1.0, keep_first=0, mode="shadow", max_logs_per_minute=50),
    SamplingPolicy(sampling_rate=0.9, keep_first=2, max_logs_per_minute=200),
    SamplingPolicy(
        sampling_rate=0.1,
        keep_first=0,
        severity_rates=MappingProxyType({"INFO": 0.9, "DEBUG": 0.0}),
        pattern_rates=MappingProxyType({compute_signature(MESSAGES[3]): 0.25}),
    ),
]


def kept_or_none(outcome):
    """A request's decision, as the other ways in put it."""
    return None if isinstance(outcome, Dropped) else outcome


class Crowd:
    """Threads that log as fast as they can, each counting what it was told."""

    def __init__(self, engine, *, threads=8, messages=MESSAGES):
        self.engine = engine
        self.messages = messages
        self.done = False
        self.kept = Counter()
        self.by_pattern = Counter()
        self.errors = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self._log, args=(n,)) for n in range(threads)]

    def _log(self, number):
        chance = random.Random(number)
        decide = (
            self.engine.decide_message,
            self.engine.decide_format,
            lambda message, severity: self.engine.should_sample(message, severity) or None,
            self._in_requests(chance),
        )[number % 4]
        kept, by_pattern = Counter(), Counter()
        try:
            while not self.done:
                message, severity = chance.choice(self.messages), chance.choice(SEVERITIES)
                kept[decide(message, severity) is not None] += 1
                by_pattern[message, severity] += 1
        except BaseException as error:
            self.errors.append(error)
        with self.lock:
            self.kept += kept
            self.by_pattern += by_pattern

    def _in_requests(self, chance):
        """Decides by the random number of a request, a new request now and then."""
        scopes = []

        def decide(message, severity):
            if not scopes or chance.random() < 0.02:
                scopes[:] = [RequestScope(None, chance.getrandbits(56), RecorderLimits())]
            return kept_or_none(
                self.engine.decide_scoped(message, severity, scopes[0], is_format=False)
            )

        return decide

    def run(self, meanwhile, times):
        """Let them log while *meanwhile* is called so many times; how often they logged."""
        for thread in self.threads:
            thread.start()
        try:
            for _ in range(times):
                meanwhile()
        finally:
            self.done = True
            for thread in self.threads:
                thread.join()
        assert self.errors == []
        return self.kept.total()


class Background:
    """What the worker thread does, much more often, and what a user may ask at any time."""

    def __init__(self, engine, clock, policies=POLICIES):
        self.engine = engine
        self.clock = clock
        self.policies = policies
        self.chance = random.Random(99)
        self.drained = Counter()
        self.seen = 0
        self.met = Counter()

    def __call__(self):
        step = self.chance.choice((self.change, self.tick, self.drain, self.look, self.stats))
        step()
        self.met[step.__name__] += 1

    def change(self):
        self.engine.apply_policy(self.chance.choice(self.policies))

    def tick(self):
        # Two minutes without a record make a pattern idle; with a full table it has to go.
        self.clock.now += self.chance.choice((1.0, 5.0, 300.0))
        self.engine.tick()

    def drain(self):
        for each in self.engine.drain():
            assert each.count > 0
            assert 0 <= each.kept <= each.count
            assert sum(each.severity_distribution.values()) == each.count
            self.drained["seen"] += each.count
            self.drained["kept"] += each.kept

    def look(self):
        totals = self.engine.totals()
        assert totals.seen == totals.kept + totals.dropped + totals.capped
        assert min(totals.kept, totals.dropped, totals.capped, totals.shadowed) >= 0
        assert totals.seen >= self.seen  # never goes back
        self.seen = totals.seen

    def stats(self):
        for each in self.engine.get_pattern_stats().values():
            assert 0 <= each.kept <= each.count


@pytest.mark.usefixtures("tiny_switch_interval")
class TestThreads:
    @pytest.mark.parametrize("locked", [False, True], ids=["countdown", "locked"])
    def test_totals_and_drains_are_exact_while_everything_happens_at_once(self, locked):
        clock = Clock()
        engine = DecisionEngine(max_patterns=150, rng=random.Random(3), clock=clock, now=clock)
        engine._counts_down = not locked
        background = Background(engine, clock)
        crowd = Crowd(engine)

        calls = crowd.run(background, 150)
        background.drain()

        totals = engine.totals()
        assert totals.seen == totals.kept + totals.dropped + totals.capped == calls
        assert totals.kept + totals.shadowed == crowd.kept[True]
        assert background.drained == {"seen": calls, "kept": crowd.kept[True]}
        assert engine.drain() == []
        assert min(background.met.values()) > 10
        assert engine._departures > 0  # patterns were evicted

    def test_one_pattern_that_all_threads_log(self):
        """The worst case for a count: everybody at the same countdown, gaps of every length."""
        clock = Clock()
        engine = DecisionEngine(rng=random.Random(3), clock=clock, now=clock)
        policies = [SamplingPolicy(sampling_rate=r, keep_first=0) for r in (0.9, 0.5, 0.05, 0.001)]
        background = Background(engine, clock, policies)
        engine.apply_policy(policies[0])
        crowd = Crowd(engine, messages=["the same for all"])

        calls = crowd.run(background, 300)
        background.drain()

        assert background.drained["seen"] == calls
        assert background.drained["kept"] == crowd.kept[True]
        assert engine.totals().kept == crowd.kept[True]

    def test_each_pattern_has_its_own_exact_count(self):
        engine = DecisionEngine(rng=random.Random(3))
        engine.apply_policy(SamplingPolicy(sampling_rate=0.2, keep_first=1))
        crowd = Crowd(engine)

        crowd.run(lambda: time.sleep(0.5), 1)

        counted = Counter()
        for (message, severity), count in crowd.by_pattern.items():
            counted[compute_signature(message), severity] += count
        stats = engine.get_pattern_stats()
        assert {
            (signature, severity): count
            for signature, each in stats.items()
            for severity, count in each.severity_distribution.items()
        } == counted

    def test_the_lock_free_path_keeps_its_rate_under_threads(self):
        """A race may cost a draw but never tilts it: within 5 standard deviations."""
        engine = DecisionEngine(rng=random.Random(3))
        engine.apply_policy(SamplingPolicy(sampling_rate=0.1, keep_first=0))
        crowd = Crowd(engine, messages=["the same for all"])

        crowd.run(lambda: time.sleep(2.0), 1)

        # Of the severities a third is ERROR and above.
        by_severity = engine.get_pattern_stats()[compute_signature("the same for all")]
        errors = sum(by_severity.severity_distribution[name] for name in ("ERROR", "CRITICAL"))
        drawn = by_severity.count - errors
        kept = by_severity.kept - errors
        assert abs(kept - 0.1 * drawn) < 5 * (drawn * 0.1 * 0.9) ** 0.5


class TestRequests:
    def test_a_pattern_that_is_evicted_while_its_request_draws_loses_no_count(self):
        """Between look-up and lock another thread may do anything: it is done there."""
        clock = Clock()
        engine = DecisionEngine(max_patterns=1, rng=random.Random(3), clock=clock, now=clock)
        engine._counts_down = False  # so that all of them take the lock
        engine.apply_policy(SamplingPolicy(sampling_rate=0.5, keep_first=0))
        settle = engine._settle_scoped

        def settle_late(*arguments):
            for _ in range(2):  # the first one sees the last record, the second one none
                clock.now += 300.0
                engine.tick()
            return settle(*arguments)

        engine._settle_scoped = settle_late
        answers = Counter()
        for number in range(200):
            scope = RequestScope(None, random.Random(number).getrandbits(56), RecorderLimits())
            kept = kept_or_none(engine.decide_scoped("hello", "INFO", scope, is_format=False))
            answers[kept is not None] += 1

        assert engine._departures > 100
        assert engine.totals() == Totals(200, answers[True], answers[False])

    def test_what_a_request_kept_is_told_even_if_it_is_drained_in_the_middle(self):
        """A drain that saw the record but not yet that it was kept would lose the keep."""
        engine = DecisionEngine(rng=random.Random(3))
        engine.apply_policy(SamplingPolicy(sampling_rate=0.5, keep_first=0))
        drained = Counter()

        def drain():
            for each in engine.drain():
                drained["seen"] += each.count
                drained["kept"] += each.kept

        def tracer(frame, event, _argument):
            if frame.f_code.co_name != "_count_scoped":
                return None
            if event == "line":
                drain()
            return tracer

        kept = 0
        before = sys.gettrace()
        for number in range(200):
            scope = RequestScope(None, random.Random(number).getrandbits(56), RecorderLimits())
            sys.settrace(tracer)
            try:
                answer = kept_or_none(engine.decide_scoped("hello", "INFO", scope, is_format=False))
            finally:
                sys.settrace(before)
            kept += answer is not None
        drain()

        assert drained == {"seen": 200, "kept": kept}


class WatchedLock:
    """An engine's lock that knows what was looked at in each hold of it."""

    def __init__(self, lock):
        self.lock = lock
        self.looked_at = 0
        self.most = 0
        self.depth = 0

    def __enter__(self):
        self.lock.__enter__()
        self.depth += 1
        if self.depth == 1:
            self.looked_at = 0

    def __exit__(self, *error):
        self.depth -= 1
        self.most = max(self.most, self.looked_at)
        self.lock.__exit__(*error)

    def note(self):
        if self.depth:
            self.looked_at += 1


class TestLockIsHeldBriefly:
    """A record that has to wait for the lock waits for a batch of patterns, never for all."""

    @pytest.fixture
    def engine(self, monkeypatch):
        clock = Clock()
        engine = DecisionEngine(max_patterns=2000, rng=random.Random(1), clock=clock, now=clock)
        engine.apply_policy(SamplingPolicy(sampling_rate=0.5, keep_first=1))
        for number in range(2000):
            word = "".join("ghijklmnop"[int(digit)] for digit in str(number))
            engine.decide_message(f"the word {word}", "INFO")
        engine._lock = WatchedLock(engine._lock)

        def watching(function):
            def watched(*arguments):
                engine._lock.note()
                return function(*arguments)

            return watched

        for module, name in (
            (_engine, "counts_of"), (_engine, "shadowed_of"),
            (_ledger, "counts_of"), (_ledger, "rows_of"),
        ):  # fmt: skip
            monkeypatch.setattr(module, name, watching(getattr(module, name)))
        for name in ("_arm", "_close_gap"):
            monkeypatch.setattr(DecisionEngine, name, watching(getattr(DecisionEngine, name)))
        clock.now += 5.0
        return engine

    @pytest.mark.parametrize(
        "action",
        [
            DecisionEngine.totals,
            DecisionEngine.ledger,
            DecisionEngine.drain,
            DecisionEngine.get_pattern_stats,
            DecisionEngine.tick,
            lambda engine: engine.apply_policy(SamplingPolicy(sampling_rate=0.1)),
            lambda engine: engine.apply_policy(SamplingPolicy(patterns=("word",))),
            lambda engine: engine.boost(minutes=1.0),
        ],
        ids=["totals", "ledger", "drain", "stats", "tick", "policy", "words", "boost"],
    )
    def test_no_hold_looks_at_more_than_a_batch(self, engine, action):
        action(engine)

        assert 0 < engine._lock.most <= 4 * _engine._BATCH

    def test_totals_stay_exact_when_a_pattern_goes_in_the_middle(self, engine, monkeypatch):
        calls = []
        real = _engine.Sums.add_cells

        def evicting(sums, cells):
            calls.append(len(cells))
            if len(calls) == 5:
                with engine._lock:
                    engine._retire(next(iter(engine._tables["INFO"].index.values())))
            return real(sums, cells)

        monkeypatch.setattr(_engine.Sums, "add_cells", evicting)

        assert engine.totals() == Totals(2000, 2000)


class TestLockedFromTheStart:
    def test_an_engine_without_a_gil_never_leaves_the_locked_path(self, monkeypatch):
        monkeypatch.setattr(_engine, "_straight_lines_are_atomic", lambda: False)
        engine = DecisionEngine(policy=SamplingPolicy(sampling_rate=0.3), rng=random.Random(3))
        kept = sum(engine.decide_message("hello", "INFO") is not None for _ in range(5000))

        for table in engine._tables.values():
            for cell in table.every_cell():
                assert (cell.left, cell.steady) == (0, 0.0)
        assert engine.totals() == Totals(5000, kept, 5000 - kept)
