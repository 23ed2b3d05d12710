"""The ledger: every record is accounted for, by policy and rule, whatever happens."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import threading
from collections import Counter
from types import SimpleNamespace

import pytest

import lipservice
from lipservice.integrations.stdlib import SamplingFilter, SamplingHandler, sampling_logger_class
from lipservice.policy import Boost, SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import RecorderLimits, current_scope

_RANGE = 1 << 56
CERTAIN = {"error", "protected", "first", "boosted", "shadow", "reentered"}


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(clock):
    made = []

    def make(policy=None, **more):
        made.append(
            AdaptiveSampler(
                policy=policy, notices=False, rng=random.Random(5), clock=clock, now=clock, **more
            )
        )
        return made[-1]

    yield make
    for sampler in made:
        sampler.shutdown()


def rows(sampler, **wanted):
    """(policy, rule) -> (seen, kept, dropped, held, released) of the entries that are wanted."""
    found = {}
    for entry in sampler.ledger():
        if all(getattr(entry, name) == value for name, value in wanted.items()):
            assert (entry.policy, entry.rule) not in found
            found[entry.policy, entry.rule] = (
                entry.seen, entry.kept, entry.dropped, entry.held, entry.released
            )  # fmt: skip
    return found


def log(sampler, times, message="hello", severity="INFO"):
    return sum(sampler.should_sample(message, severity) for _ in range(times))


class TestRules:
    def test_each_rule_has_its_entry(self, make):
        sampler = make(
            SamplingPolicy(sampling_rate=0.25, keep_first=10, patterns=("payment",), version=7)
        )
        log(sampler, 3, severity="ERROR")
        log(sampler, 4, "payment taken")
        kept = log(sampler, 110)

        assert rows(sampler, severity="ERROR") == {("7", "error"): (3, 3, 0, 0, 0)}
        assert rows(sampler, template="payment taken") == {("7", "protected"): (4, 4, 0, 0, 0)}
        assert rows(sampler, template="hello", severity="INFO") == {
            ("7", "first"): (10, 10, 0, 0, 0),
            ("7", "rate"): (100, kept - 10, 110 - kept, 0, 0),
        }

    def test_each_policy_has_its_entry_and_those_of_long_ago_are_one(self, make):
        sampler = make()
        log(sampler, 5)
        for version in range(1, 7):
            sampler.apply_policy(SamplingPolicy(sampling_rate=0.0, keep_first=0, version=version))
            log(sampler, version)

        assert rows(sampler) == {
            ("earlier", "rate"): (5 + 1 + 2 + 3, 5, 1 + 2 + 3, 0, 0),
            ("4", "rate"): (4, 0, 4, 0, 0),
            ("5", "rate"): (5, 0, 5, 0, 0),
            ("6", "rate"): (6, 0, 6, 0, 0),
        }

    def test_what_the_limit_drops_is_told_apart(self, make):
        sampler = make(SamplingPolicy(sampling_rate=1.0, keep_first=0, max_logs_per_minute=10))
        kept = log(sampler, 200)

        totals = sampler.totals()
        assert rows(sampler)["local", "limit"] == (totals.capped, 0, totals.capped, 0, 0)
        assert rows(sampler)["local", "rate"] == (kept, kept, 0, 0, 0)

    def test_shadow_mode_keeps_all_and_says_what_it_would_have_dropped(self, make):
        sampler = make(SamplingPolicy(sampling_rate=0.1, keep_first=0, mode="shadow"))
        log(sampler, 100)

        (entry,) = sampler.ledger()
        assert (entry.rule, entry.seen, entry.kept, entry.dropped) == ("shadow", 100, 100, 0)
        assert entry.shadowed == sampler.totals().shadowed > 50

    def test_a_boost_has_its_entry_while_it_lasts(self, make, clock):
        sampler = make(SamplingPolicy(sampling_rate=0.0, keep_first=0))
        log(sampler, 3)
        sampler.boost("hello", minutes=5)
        log(sampler, 4)
        clock.now += 301
        sampler.tick()
        log(sampler, 5)

        assert rows(sampler) == {
            ("local", "rate"): (8, 0, 8, 0, 0),
            ("local", "boosted"): (4, 4, 0, 0, 0),
        }

    def test_patterns_may_be_taken_together(self, make):
        sampler = make(SamplingPolicy(sampling_rate=0.0, keep_first=1))
        for word in ("one", "two", "three"):
            log(sampler, 5, f"{word} thing")

        entries = sampler.ledger(patterns=False)
        assert {(e.signature, e.template, e.rule, e.seen) for e in entries} == {
            ("", "", "first", 3),
            ("", "", "rate", 12),
        }

    def test_patterns_that_have_left_the_table_stay_in_the_sums(self, make, clock):
        sampler = make(SamplingPolicy(sampling_rate=0.0, keep_first=1), max_pattern_cache_size=10)
        for number in range(10):
            log(sampler, 3, "thing " + "x" * number)
        for _ in range(3):
            clock.now += 300.0
            sampler.tick()

        found = rows(sampler, signature="evicted")
        assert found["local", "first"][0] > 0
        assert sum(entry.seen for entry in sampler.ledger()) == 30

    def test_a_record_in_doubt_is_in_it(self, make, swallowed):
        sampler = make(SamplingPolicy(sampling_rate=0.0, keep_first=0))

        class Odd:
            def __str__(self):
                raise ValueError("no text")

        sampler.decide_message(Odd(), "INFO")
        swallowed.clear()

        (entry,) = sampler.ledger()
        assert (entry.rule, entry.severity, entry.seen, entry.kept) == ("doubt", "UNKNOWN", 1, 1)


class TestRequests:
    @pytest.fixture
    def logger(self, make):
        self.sampler = make(SamplingPolicy(sampling_rate=0.0, keep_first=0, version=1))
        handler = logging.NullHandler()
        handler.addFilter(SamplingFilter(sampler=self.sampler))
        handler.handle = lambda record: handler.filter(record)  # NullHandler skips filters
        logger = logging.Logger("ledger")
        logger.addHandler(handler)
        return logger

    def test_held_then_let_go(self, logger):
        with lipservice.request():
            logger.info("step")
            assert rows(self.sampler) == {("1", "request"): (1, 0, 0, 1, 0)}
            assert self.sampler.totals().held == 1
        assert rows(self.sampler) == {("1", "request"): (1, 0, 1, 0, 0)}

    def test_held_then_released_and_passed_on(self, logger):
        with lipservice.request():
            logger.info("step")
            lipservice.keep_request()
            logger.info("step")
        assert rows(self.sampler) == {("1", "request"): (2, 2, 0, 0, 2)}
        totals = self.sampler.totals()
        assert (totals.kept, totals.dropped, totals.released) == (2, 0, 2)

    def test_released_under_another_policy_it_counts_where_it_was_dropped(self, logger):
        with lipservice.request():
            logger.info("step")
            for version in range(2, 8):
                self.sampler.apply_policy(
                    SamplingPolicy(sampling_rate=0.0, keep_first=0, version=version)
                )
            lipservice.keep_request()
        assert rows(self.sampler) == {("earlier", "request"): (1, 1, 0, 0, 1)}

    def test_released_after_its_pattern_has_left_the_table(self, make, clock):
        sampler = make(SamplingPolicy(sampling_rate=0.0, keep_first=0), max_pattern_cache_size=1)
        with lipservice.request() as scope:
            dropped = sampler.decide_scoped("step", "INFO", scope, is_format=False)
            scope.hold(lambda: None, 10, dropped.row)
            for _ in range(3):
                clock.now += 300.0
                sampler.tick()
            assert rows(sampler) == {("local", "request"): (1, 0, 0, 1, 0)}
            assert rows(sampler, signature="evicted")
        assert rows(sampler) == {("local", "request"): (1, 0, 1, 0, 0)}


class Writing(logging.Handler):
    """Tells a world what it got, and then fails now and then, as a full disk makes it."""

    def __init__(self, world):
        super().__init__()
        self.world = world

    def emit(self, record):
        self.world.written.append(record)
        if "fragile" in str(record.msg):
            self.handleError(record)

    def handleError(self, record):
        pass


class World:
    """An application whose records are counted by what its handler gets, stamp by stamp."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.clock = Clock()
        self.sampler = AdaptiveSampler(
            policy=self.policy(0),
            notices=False,
            rng=random.Random(seed),
            clock=self.clock,
            now=self.clock,
            max_pattern_cache_size=self.chance.choice([3, 100]),
        )
        self.written = []
        self.calls = Counter()
        self.errors = []
        self.lock = threading.Lock()
        self.loggers = [self.logger(form) for form in ("filter", "handler", "early")]

    def policy(self, version):
        chance = self.chance
        return SamplingPolicy(
            sampling_rate=chance.choice([0.0, 0.2, 0.5, 0.9, 1.0]),
            keep_first=chance.choice([0, 2]),
            patterns=chance.choice([(), ("payment",)]),
            max_logs_per_minute=chance.choice([None, None, 20]),
            mode=chance.choice(["active", "active", "active", "shadow"]),
            boosts=chance.choice([(), (Boost(logger="boosted", until=self.clock() + 60.0),)]),
            version=version,
        )

    def logger(self, form):
        cls = sampling_logger_class(self.sampler) if form == "early" else logging.Logger
        logger = cls(self.chance.choice(["shop", "boosted.part"]), logging.DEBUG)
        handler = Writing(self)
        if form == "filter":
            handler.addFilter(SamplingFilter(sampler=self.sampler))
            logger.manager = logging.Logger.manager
        if form == "handler":
            handler = SamplingHandler(handler, sampler=self.sampler)
        logger.addHandler(handler)
        if form == "filter":  # the filter finds the handlers of a held record by the logger's name
            self.registered = logger
        return logger

    def work(self, seed):
        chance = random.Random(seed)
        calls = Counter()
        try:
            for _ in range(chance.randrange(1, 4)):
                with contextlib.suppress(LookupError), self.unit(chance):
                    for _ in range(chance.randrange(20)):
                        calls[self.log(chance)] += 1
                    if chance.random() < 0.2:
                        raise LookupError
        except BaseException as error:
            self.errors.append(error)
        with self.lock:
            self.calls += calls

    def unit(self, chance):
        limits = RecorderLimits(max_records=chance.choice([0, 3, 100]))
        kind = chance.random()
        if kind < 0.6:
            return lipservice.request("unit", limits=limits)
        if kind < 0.7:  # never left: its server lost interest
            lipservice.request("unit", limits=limits, root=True).__enter__()
        return contextlib.nullcontext()

    def log(self, chance):
        logger = chance.choice(self.loggers)
        level = chance.choices([10, 20, 30, 40], [4, 10, 3, 1])[0]
        text, arguments = chance.choice(
            [
                ("user %s logged in", ("eve",)),
                ("user 17 logged in", ()),
                ("payment of %d taken", (5,)),
                ("two %s and %s", ("one only",)),  # cannot be formatted
                ("fragile step", ()),
                (f"word {chance.choice('abcdefgh')}", ()),
            ]
        )
        logger.log(level, text, *arguments)
        if chance.random() < 0.02:
            lipservice.keep_request()
        return logging.getLevelName(level)

    def meanwhile(self):
        for version in range(1, self.chance.randrange(2, 6)):
            self.clock.now += self.chance.choice([1.0, 30.0, 300.0])
            self.sampler.tick()
            self.sampler.apply_policy(self.policy(version))

    def run(self):
        # Held records of the filter go to the handlers of the logger of that name.
        registry = logging.Logger.manager.loggerDict
        before = registry.get(self.registered.name)
        registry[self.registered.name] = self.registered
        try:
            seeds = [self.chance.random() for _ in range(3)]
            threads = [threading.Thread(target=self.work, args=(seed,)) for seed in seeds]
            for thread in threads:
                thread.start()
            self.meanwhile()
            for thread in threads:
                thread.join()
        finally:
            if before is None:
                del registry[self.registered.name]
            else:
                registry[self.registered.name] = before
        assert self.errors == []

    def check(self):
        entries = self.sampler.ledger()
        assert all(entry.seen == entry.kept + entry.dropped + entry.held for entry in entries)
        sums = Counter()
        kept = Counter()
        for entry in entries:
            assert min(entry.seen, entry.kept, entry.dropped, entry.held, entry.released) >= 0
            sums["seen", entry.severity] += entry.seen
            sums["released"] += entry.released
            kept[entry.severity, entry.rule] += entry.kept - entry.released
        assert {k[1]: n for k, n in sums.items() if k[0] == "seen" and n} == dict(self.calls)
        stamps = Counter((r.levelname, r.lipservice_rule) for r in self.written)
        released = sum(n for (_, rule), n in stamps.items() if rule == "released")
        assert released == sums["released"]
        assert +kept == Counter({k: n for k, n in stamps.items() if k[1] != "released"})
        totals = self.sampler.totals()
        assert totals.kept + totals.shadowed == len(self.written)
        assert totals.seen == totals.kept + totals.dropped + totals.capped + totals.held


def agrees(record):
    """Whether a kept record's weight and threshold are those of the rule that kept it."""
    rule, rate, weight = record.lipservice_rule, record.lipservice_rate, record.lipservice_weight
    if rule == "released":
        return weight == 0.0
    if rule in CERTAIN:
        return rate == weight == 1.0
    if rule == "rate":
        return weight == 1.0 / rate and 0.0 < rate <= 1.0
    assert rule == "request"
    threshold = int(vars(record)["sampling.threshold"].ljust(14, "0"), 16)
    randomness = int(vars(record)["sampling.randomness"], 16)
    return randomness >= threshold and weight == pytest.approx(1.0 / (1.0 - threshold / _RANGE))


@pytest.mark.parametrize("part", range(10))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking while threads live
def test_seen_is_kept_and_dropped_and_held_in_1000_random_runs(part):
    """With threads, policy changes, evictions, handlers that fail, requests never left, forks."""
    rules = Counter()
    for seed in range(100 * part, 100 * part + 100):
        world = World(seed)
        world.run()
        world.check()
        assert all(map(agrees, world.written))
        rules.update(record.lipservice_rule for record in world.written)
        if seed % 10 == 0:
            assert in_a_child(world) == []
        world.sampler.shutdown()

    assert {"error", "first", "protected", "boosted", "rate", "request", "released"} <= set(rules)
    assert current_scope() is None


def in_a_child(world):
    """What is wrong in a forked child, which counts from zero."""
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            world.written.clear()
            world.calls.clear()
            world.work(1)
            world.check()
            problems = []
        except BaseException as error:
            problems = [repr(error)]
        os.write(writes, json.dumps(problems).encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    return json.loads(told)


def test_the_process_s_explanation_and_ledger_are_those_of_its_samplers(make):
    first = make(SamplingPolicy(sampling_rate=0.0, keep_first=0, version=901))
    second = make(SamplingPolicy(sampling_rate=0.0, keep_first=0, version=902))
    log(first, 3, "of two samplers")
    log(second, 5, "of two samplers")

    explanation = lipservice.explain("of two samplers")
    assert (explanation.policy, explanation.seen) == ("902", 5)
    mine = [e for e in lipservice.ledger(patterns=False) if e.policy in {"901", "902"}]
    assert sorted(entry.seen for entry in mine) == [3, 5]


@pytest.mark.parametrize("look", ["ledger", "totals", "get_pattern_stats", "drain", "tick"])
def test_in_the_middle_of_a_look_others_get_the_lock(make, clock, monkeypatch, look):
    """
    Whoever lets go of a lock and takes it again at once still has the GIL: nobody else gets it.

    `contrib/benchmarks/ledger.py` measures what it is about: a record that waited for all batches.
    """
    sampler = make(SamplingPolicy(sampling_rate=0.1))
    for n in range(2000):
        sampler.should_sample(f"job {_in_letters(n)} done", "INFO")
    clock.now += 10
    events = []
    sampler._lock = NotingLock(sampler._lock, events)
    monkeypatch.setattr("lipservice._engine.time", SimpleNamespace(sleep=lambda _s: events.append("pause")))  # fmt: skip
    getattr(sampler, look)()

    assert events.count("hold") > 2000 / 64
    assert events.count("pause") >= 3
    assert max(map(len, "".join("h" if each == "hold" else " " for each in events).split())) <= 12


class NotingLock:
    """A lock that notes when it is taken."""

    def __init__(self, lock, events):
        self.lock = lock
        self.events = events

    def __enter__(self):
        self.lock.acquire()
        self.events.append("hold")

    def __exit__(self, *_exc):
        self.lock.release()


def _in_letters(n):
    return "".join("abcdefghij"[int(digit)] for digit in f"{n:04d}")
