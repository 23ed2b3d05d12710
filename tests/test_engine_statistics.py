"""
Is the countdown as good as a draw for each record, and are the weights true?

Seeds are fixed, so that a test says the same each time. Bounds are stated in standard deviations
of what is tested: 4.5 of them are passed by chance once in 150,000, so that even all checks of
this file together would fail by chance once in several hundred choices of seeds.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from itertools import pairwise
from statistics import NormalDist, fmean, stdev
from types import MappingProxyType

import pytest

from lipservice._engine import DecisionEngine
from lipservice.decision import Dropped
from lipservice.policy import SamplingPolicy
from lipservice.scope import RecorderLimits, RequestScope
from lipservice.signature import compute_signature

DEVIATIONS = 4.5
TAIL = 1 - NormalDist().cdf(DEVIATIONS)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def make_engine(policy, seed, *, locked=False, max_patterns=10_000):
    clock = Clock()
    engine = DecisionEngine(
        max_patterns=max_patterns, rng=random.Random(seed), clock=clock, now=clock
    )
    engine._counts_down = not locked
    engine.apply_policy(policy)
    return engine, clock


def by_message(engine):
    return lambda: engine.decide_message("took 5 ms", "INFO") is not None


def by_format(engine):
    return lambda: engine.decide_format("took %d ms", "INFO") is not None


def by_should_sample(engine):
    return lambda: engine.should_sample("took 5 ms", "INFO")


def by_all(engine):
    ways = [by_message(engine), by_format(engine), by_should_sample(engine)]
    chance = random.Random(0)
    return lambda: chance.choice(ways)()


def answers(rate, times, *, seed=11, way=by_message, locked=False):
    engine, _ = make_engine(SamplingPolicy(sampling_rate=rate, keep_first=0), seed, locked=locked)
    keep = way(engine)
    return [keep() for _ in range(times)]


def gaps_of(kept):
    """How many were dropped before each kept one."""
    gaps, gap = [], 0
    for each in kept:
        if each:
            gaps.append(gap)
            gap = 0
        else:
            gap += 1
    return gaps


def chi_square_bound(degrees):
    """Above it a chi-square value falls with the probability TAIL (Wilson and Hilferty 1931)."""
    variance = 2 / (9 * degrees)
    return degrees * (1 - variance + NormalDist().inv_cdf(1 - TAIL) * variance**0.5) ** 3


class TestIndependentDraws:
    WAYS = pytest.mark.parametrize(
        "way", [by_message, by_format, by_should_sample, by_all], ids=lambda way: way.__name__
    )
    RATES = pytest.mark.parametrize("rate", [0.9, 0.5, 0.1, 0.02])

    @WAYS
    @RATES
    def test_the_share_kept_is_the_rate(self, rate, way):
        times = 60_000

        kept = sum(answers(rate, times, way=way))

        assert abs(kept - rate * times) < DEVIATIONS * math.sqrt(times * rate * (1 - rate))

    @WAYS
    @RATES
    def test_gaps_are_geometric(self, rate, way):
        """Chi-square over classes of at least 20 expected gaps each."""
        gaps = gaps_of(answers(rate, int(4000 / rate), way=way))

        edges = quantiles_of_the_geometric(rate, len(gaps))
        found = Counter(sum(gap >= edge for edge in edges) for gap in gaps)
        chi_square = 0.0
        for index, (low, high) in enumerate(zip([0, *edges], [*edges, math.inf], strict=True)):
            share = (1 - rate) ** low - (0.0 if high == math.inf else (1 - rate) ** high)
            expected = share * len(gaps)
            chi_square += (found[index] - expected) ** 2 / expected
        assert chi_square < chi_square_bound(len(edges))

    @RATES
    def test_no_gap_depends_on_the_one_before(self, rate):
        gaps = gaps_of(answers(rate, int(5000 / rate)))

        assert abs(correlation(gaps[:-1], gaps[1:])) < DEVIATIONS / math.sqrt(len(gaps))

    @pytest.mark.parametrize("rate", [0.5, 0.1])
    def test_no_record_depends_on_those_before(self, rate):
        """Correlations at 40 distances: a round of 32, at which the slow path is taken, in it."""
        kept = [float(each) for each in answers(rate, 40_000, way=by_all)]

        for distance in range(1, 41):
            found = correlation(kept[:-distance], kept[distance:])
            assert abs(found) < DEVIATIONS / math.sqrt(len(kept)), distance

    @pytest.mark.parametrize("rate", [0.5, 0.2])
    def test_runs_are_as_many_as_by_chance(self, rate):
        """The test of Wald and Wolfowitz."""
        kept = answers(rate, 50_000)
        runs = 1 + sum(a != b for a, b in pairwise(kept))

        n1 = sum(kept)
        n2 = len(kept) - n1
        expected = 2 * n1 * n2 / (n1 + n2) + 1
        variance = (expected - 1) * (expected - 2) / (n1 + n2 - 1)
        assert abs(runs - expected) < DEVIATIONS * math.sqrt(variance)

    def test_patterns_do_not_depend_on_each_other(self):
        engine, _ = make_engine(SamplingPolicy(sampling_rate=0.5, keep_first=0), 3)
        a, b = [], []
        for _ in range(20_000):
            a.append(float(engine.decide_message("one", "INFO") is not None))
            b.append(float(engine.decide_message("other", "INFO") is not None))

        assert abs(correlation(a, b)) < DEVIATIONS / math.sqrt(len(a))

    @pytest.mark.parametrize("rate", [0.5, 0.1])
    def test_the_locked_path_draws_as_often(self, rate):
        kept = sum(answers(rate, 40_000, locked=True))

        assert abs(kept - rate * 40_000) < DEVIATIONS * math.sqrt(40_000 * rate * (1 - rate))

    @pytest.mark.parametrize("every", [1, 3, 10, 50])
    def test_arming_anew_at_any_time_changes_nothing(self, every):
        """The geometric gap has no memory; a policy that comes again and again starts it anew."""
        policy = SamplingPolicy(sampling_rate=0.2, keep_first=0)
        engine, _ = make_engine(policy, 5)
        kept = []
        for number in range(12_000):
            if number % every == 0:
                engine.apply_policy(policy)
            kept.append(engine.decide_message("took 5 ms", "INFO") is not None)

        assert abs(sum(kept) - 2400) < DEVIATIONS * math.sqrt(12_000 * 0.2 * 0.8)
        numbers = [float(each) for each in kept]
        assert abs(correlation(numbers[:-1], numbers[1:])) < DEVIATIONS / math.sqrt(len(kept))

    def test_what_is_kept_does_not_depend_on_the_place_after_the_first_records(self):
        """Over many processes each place is kept as often: no first gap too long or too short."""
        kept = Counter()
        runs = 4000
        for seed in range(runs):
            engine, _ = make_engine(SamplingPolicy(sampling_rate=0.25, keep_first=2), seed)
            for place in range(12):
                kept[place] += engine.decide_message("took 5 ms", "INFO") is not None

        assert kept[0] == kept[1] == runs
        for place in range(2, 12):
            assert abs(kept[place] - runs / 4) < DEVIATIONS * math.sqrt(runs * 0.25 * 0.75), place


def quantiles_of_the_geometric(rate, count):
    """Bounds between classes of gaps, each of which expects at least 20 of *count*."""
    edges, low = [], 0
    while True:
        high = low + 1
        while count * ((1 - rate) ** low - (1 - rate) ** high) < 20:
            high += 1
            if high > 100_000:
                return edges
        if count * (1 - rate) ** high < 20:
            return edges
        edges.append(high)
        low = high


def correlation(a, b):
    mean_a, mean_b = fmean(a), fmean(b)
    above = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return above / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


# ---------------------------------------------------------------------- true weights

SLOW, FAST, PAYMENT = "user 7 waits", "cache hit", "payment of 3 EUR"


class World:
    """One process: logs, counts what it logged, sums the weights of what was kept."""

    def __init__(self, seed, policy, **options):
        self.engine, self.clock = make_engine(policy, seed, **options)
        self.chance = random.Random(seed + 1_000_000)
        self.logged = Counter()
        self.weights = Counter()

    def log(self, message, times=1, severity="INFO", over=0.0):
        """Log *times* records evenly within *over* seconds."""
        for _ in range(times):
            self.clock.now += over / times
            decision = self.engine.decide_message(message, severity)
            self.note(message, decision)

    def note(self, message, decision):
        self.logged[message] += 1
        if decision is not None:
            assert math.isclose(decision.rate * decision.weight, 1.0)
            self.weights[message] += decision.weight


def first_and_rate(world):
    world.log(SLOW, 200)
    world.log(FAST, 60)


def rate_below_the_limit(world):
    for _ in range(12):
        world.log(SLOW, 30, over=5.0)
        world.log(FAST, 10)
        world.engine.tick()


def limit_twentyfold_passed(world):
    for _ in range(18):
        world.log(SLOW, 90, over=4.0)
        world.log(FAST, 10, over=1.0)
        world.engine.tick()


def limit_with_a_burst(world):
    for second in range(60):
        world.log(SLOW, 40 if second in {20, 21} else 2, over=1.0)
        if second % 5 == 0:
            world.engine.tick()


def policies_that_change(world):
    for round_ in range(30):
        rate = (0.1, 0.9, 0.02, 0.5, 1.0)[round_ % 5]
        rates = MappingProxyType({compute_signature(FAST): rate / 2 + 0.05})
        world.engine.apply_policy(
            SamplingPolicy(sampling_rate=rate, pattern_rates=rates, keep_first=round_ % 7)
        )
        world.log(SLOW, world.chance.choice([1, 5, 17]))
        world.log(FAST, world.chance.choice([1, 5, 17]))


def boost_in_the_middle(world):
    for tick in range(40):
        world.clock.now += 5.0
        world.log(SLOW, 200 if tick in {20, 21} else 5)
        world.log(FAST, 3)
        world.log("it broke", 60 if tick == 30 else 1, "ERROR")
        world.engine.tick()


def boost_and_limit(world):
    for tick in range(40):
        world.log(SLOW, 300 if tick in {20, 21} else 10, over=5.0)
        world.engine.tick()


def eviction(world):
    for _ in range(8):
        for word in ("alpha", "beta", "gamma", "delta", "epsilon"):
            world.log(f"{word} {SLOW}", 12)
        world.log(SLOW, 10)
        for _ in range(2):
            world.clock.now += 300.0
            world.engine.tick()


def too_many_patterns(world):
    for number in range(40):
        world.log(f"{SLOW} with {'x' * number}", 8)


def in_and_out_of_shadow(world):
    for round_ in range(20):
        mode = "shadow" if round_ % 3 == 0 else "active"
        world.engine.apply_policy(SamplingPolicy(sampling_rate=0.2, keep_first=2, mode=mode))
        world.log(SLOW, 15)


def requests(world):
    for _ in range(60):
        scope = RequestScope(None, world.chance.getrandbits(56), RecorderLimits())
        for message in (SLOW, FAST, SLOW):
            outcome = world.engine.decide_scoped(message, "INFO", scope, is_format=False)
            world.note(message, None if isinstance(outcome, Dropped) else outcome)
        if world.chance.random() < 0.3:
            world.log(SLOW)


def protected_words(world):
    for round_ in range(10):
        words = ("payment",) if round_ % 2 else ()
        world.engine.apply_policy(SamplingPolicy(sampling_rate=0.1, keep_first=3, patterns=words))
        world.log(PAYMENT, 20)
        world.log(SLOW, 20)


SCENARIOS = [
    (first_and_rate, {"sampling_rate": 0.07, "keep_first": 10}, {}),
    (rate_below_the_limit, {"sampling_rate": 0.3, "max_logs_per_minute": 1000}, {}),
    (limit_twentyfold_passed, {"max_logs_per_minute": 60, "keep_first": 5}, {}),
    (limit_with_a_burst, {"sampling_rate": 0.5, "max_logs_per_minute": 80, "keep_first": 3}, {}),
    (policies_that_change, {}, {}),
    (boost_in_the_middle, {"sampling_rate": 0.05, "anomaly_boost": 8.0}, {}),
    (boost_and_limit, {"sampling_rate": 0.2, "max_logs_per_minute": 100}, {}),
    (eviction, {"sampling_rate": 0.25, "keep_first": 3}, {"max_patterns": 5}),
    (too_many_patterns, {"sampling_rate": 0.2, "keep_first": 2}, {"max_patterns": 10}),
    (in_and_out_of_shadow, {}, {}),
    (requests, {"sampling_rate": 0.2, "keep_first": 4}, {}),
    (protected_words, {}, {}),
]


@pytest.mark.parametrize("locked", [False, True], ids=["countdown", "locked"])
@pytest.mark.parametrize(
    ("scenario", "policy", "options"), SCENARIOS, ids=[each[0].__name__ for each in SCENARIOS]
)
def test_the_sum_of_weights_has_the_true_count_as_its_mean(scenario, policy, options, locked):
    """Over many processes, within 4.5 standard errors, for each message and for all together."""
    errors = {}
    for seed in range(50 if locked else 150):
        world = World(seed, SamplingPolicy(**policy), locked=locked, **options)
        scenario(world)
        for message in world.logged:
            errors.setdefault(message, []).append(world.weights[message] - world.logged[message])
        all_together = sum(world.weights.values()) - world.logged.total()
        errors.setdefault("all together", []).append(all_together)
        totals = world.engine.totals()
        assert totals.seen == world.logged.total()
        assert totals.kept + totals.dropped + totals.capped == totals.seen

    varied = 0
    for message, found in errors.items():
        spread = stdev(found) / math.sqrt(len(found))
        varied += spread > 0
        assert abs(fmean(found)) <= DEVIATIONS * spread, (message, fmean(found), spread)
    assert varied > 0  # something was left to chance


# ---------------------------------------------------------------------- the limit

ROUNDS = [
    {"limit": 60, "rate": 1.0, "keep_first": 0, "patterns": 1, "per_second": 40},
    {"limit": 100, "rate": 0.5, "keep_first": 5, "patterns": 10, "per_second": 20},
    {"limit": 7, "rate": 1.0, "keep_first": 0, "patterns": 3, "per_second": 3},
    {"limit": 500, "rate": 0.9, "keep_first": 10, "patterns": 40, "per_second": 60},
]


@pytest.mark.parametrize("round_", ROUNDS, ids=lambda round_: f"limit {round_['limit']}")
@pytest.mark.parametrize("locked", [False, True], ids=["countdown", "locked"])
def test_no_minute_holds_more_than_the_limit(round_, locked):
    """
    Any 60 seconds, at bursty times, through boosts and changes of the limit.

    First records are kept whatever the limit says, and count: a record that a rate keeps never
    finds more than the limit, itself included.
    """
    limit = round_["limit"]
    for seed in range(2):
        policy = SamplingPolicy(
            sampling_rate=round_["rate"],
            keep_first=round_["keep_first"],
            max_logs_per_minute=limit,
        )
        engine, clock = make_engine(policy, seed, locked=locked)
        chance = random.Random(seed)
        kept_at, rules = [], Counter()
        for second in range(150):
            calm = chance.random() < 0.8
            for _ in range(round_["per_second"] if calm else 8 * round_["per_second"]):
                clock.now += chance.expovariate(round_["per_second"])
                message = f"pattern {'i' * chance.randrange(round_['patterns'])}"
                decision = engine.decide_message(message, "INFO")
                if decision is None:
                    continue
                rules[decision.rule] += 1
                kept_at.append(clock.now)
                if decision.rule == "rate":
                    within = sum(clock.now - when <= 60.0 for when in kept_at[-2 * limit - 500 :])
                    assert within <= limit
            if second % 5 == 0:
                engine.tick()
            if second % 50 == 49:
                engine.apply_policy(policy)
        assert rules["rate"] > limit  # it was worth looking
        assert engine.totals().capped > 0
