"""Memory is bounded whatever is logged, and what has to go is counted first."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import Counter

import pytest

from lipservice import patterns, signature
from lipservice._engine import DecisionEngine
from lipservice.decision import Totals
from lipservice.patterns import OVERFLOW_SIGNATURE
from lipservice.policy import SamplingPolicy
from lipservice.signature import compute_signature, compute_template, fold, key_of_folded

LETTERS = "ghijklmnop"  # no hex digits: a word of them is never taken for a number


def word(number):
    """A word of its own for each number."""
    return "".join(LETTERS[int(digit)] for digit in str(number))


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def engine_of(max_patterns, policy=None):
    clock = Clock()
    engine = DecisionEngine(
        max_patterns=max_patterns, policy=policy, rng=random.Random(1), clock=clock, now=clock
    )
    return engine, clock


def grown_by(action):
    """Bytes that Python holds after *action* more than before."""
    gc.collect()
    tracemalloc.start()
    try:
        action()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


KINDS = {
    "words": lambda n: f"user {word(n)} logged in",
    "numbers": lambda n: f"user {word(n)} waited {n} ms",
    "long words": lambda n: f"user {word(n) * 100} logged in",
    "huge": lambda n: f"user {word(n)} sent {'x y ' * 2500}",
}


class TestManyDistinctMessages:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("way", ["decide_message", "decide_format"])
    def test_the_table_and_its_caches_stay_within_their_bounds(self, kind, way):
        engine, clock = engine_of(500)
        decide = getattr(engine, way)
        for number in range(12_000):
            decide(KINDS[kind](number), "INFO")
            if number % 1000 == 0:
                clock.now += 5.0
                engine.tick()

        table = engine._tables["INFO"]
        assert len(table.index) == engine._size <= 500
        caches = (table.messages, table.formats, table.texts)
        assert all(len(cache) <= patterns._MAX_TEXTS for cache in caches)
        longest = patterns._MAX_TEXT_LENGTH
        assert all(len(text) <= longest for cache in caches for text in cache)
        assert all(len(cell.key) <= patterns.MAX_STORED_KEY for cell in table.every_cell())
        assert engine.totals().seen == 12_000

    def test_memory_ends_where_the_caches_are_full(self):
        """Ten million would take a minute a million: what 24,000 do shows it."""
        engine, clock = engine_of(500)
        sizes = []
        tracemalloc.start()
        try:
            for number in range(100_000, 124_000):
                engine.decide_message(KINDS["words"](number), "INFO")
                engine.decide_message(KINDS["numbers"](number), "DEBUG")
                if number % 500 == 0:
                    clock.now += 30.0
                    engine.tick()
                    sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()

        # Two caches of texts and the memo of chunks, full, are 2.4 MB.
        assert max(sizes) < 3_000_000

    def test_a_pattern_takes_at_most_400_bytes_beyond_its_text(self):
        engine, _ = engine_of(10_000)
        texts = [f"the {word(number)} of the house is {word(number)}" for number in range(4000)]
        signature._items.__self__.clear()  # the memo of chunks is not the table's: filled before
        for text in texts:
            key_of_folded(fold(text))

        grown = grown_by(lambda: [engine.decide_message(text, "INFO") for text in texts])

        own_text = sum(len(compute_template(text)) + 1 for text in texts)
        assert (grown - own_text) / len(texts) <= 400


class TestOverflow:
    def test_the_overflow_bucket_counts_what_has_no_count_of_its_own(self):
        engine, _ = engine_of(100)
        for number in range(1000):
            engine.decide_message(KINDS["words"](number), "INFO")

        stats = engine.get_pattern_stats()
        assert len(stats) == 101
        assert stats[OVERFLOW_SIGNATURE].count == 900
        assert sum(each.count for each in stats.values()) == 1000

    def test_it_has_the_rate_of_its_severity_and_first_records_of_its_own(self):
        policy = SamplingPolicy(sampling_rate=0.1, keep_first=10)
        engine, _ = engine_of(1, policy)
        engine.decide_message("the only pattern", "INFO")

        kept = [
            engine.decide_message(KINDS["words"](number), "INFO") is not None
            for number in range(3000)
        ]

        assert kept[:10] == [True] * 10
        assert 200 < sum(kept[10:]) < 400


class TestEviction:
    """A pattern that was idle for two minutes goes when the table is nearly full."""

    @pytest.fixture
    def full(self):
        engine, clock = engine_of(100, SamplingPolicy(sampling_rate=0.5, keep_first=2))
        for number in range(100):
            for _ in range(number % 7 + 1):
                engine.decide_message(KINDS["words"](number), "INFO")
        return engine, clock

    def idle(self, engine, clock, *, busy=()):
        for _ in range(2):
            clock.now += 300.0
            for number in busy:
                engine.decide_message(KINDS["words"](number), "INFO")
            engine.tick()

    def test_idle_patterns_make_room_for_new_ones(self, full):
        engine, clock = full
        self.idle(engine, clock)

        engine.decide_message("a new one", "INFO")

        assert engine._size <= 81
        assert compute_signature("a new one") in engine.get_pattern_stats()

    def test_busy_patterns_stay(self, full):
        engine, clock = full
        busy = range(0, 100, 3)
        self.idle(engine, clock, busy=busy)

        stats = engine.get_pattern_stats()
        assert all(compute_signature(KINDS["words"](number)) in stats for number in busy)

    def test_a_table_with_room_evicts_nobody(self):
        engine, clock = engine_of(100)
        for number in range(80):
            engine.decide_message(KINDS["words"](number), "INFO")
        self.idle(engine, clock)

        assert engine._size == 80

    def test_totals_and_drains_keep_what_the_evicted_counted(self, full):
        engine, clock = full
        before = engine.totals()
        self.idle(engine, clock)

        assert engine._size < 100
        assert engine.totals() == before
        drained = engine.drain()
        assert sum(each.count for each in drained) == before.seen
        assert sum(each.kept for each in drained) == before.kept
        assert len(drained) == 100
        assert engine.drain() == []

    def test_what_was_drained_before_is_not_told_again(self, full):
        engine, clock = full
        engine.drain()
        engine.decide_message(KINDS["words"](0), "INFO")
        self.idle(engine, clock)

        (last,) = engine.drain()
        assert (last.signature, last.count) == (compute_signature(KINDS["words"](0)), 1)

    def test_an_evicted_pattern_that_comes_again_is_a_new_one(self, full):
        engine, clock = full
        self.idle(engine, clock)
        for _ in range(2):  # what is known by its text is forgotten too
            assert engine.decide_message(KINDS["words"](0), "INFO").rule == "first"

    def test_counts_that_nobody_drains_do_not_pile_up(self):
        """Without a server nobody asks for them."""
        engine, clock = engine_of(50, SamplingPolicy(sampling_rate=0.5, keep_first=0))
        kept = Counter()
        calls = 0
        for round_ in range(100):
            for number in range(40):
                answer = engine.decide_message(KINDS["words"](1000 * round_ + number), "INFO")
                kept[answer is not None] += 1
                calls += 1
            self.idle(engine, clock)

        assert engine._departures > 50
        assert len(engine._undrained) <= 51
        drained = engine.drain()
        assert sum(each.count for each in drained) == calls
        assert sum(each.kept for each in drained) == kept[True]
        assert engine.totals() == Totals(calls, kept[True], kept[False])
