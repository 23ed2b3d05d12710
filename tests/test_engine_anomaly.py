"""A jump or a burst of errors raises the rates for a minute, decided from the process's counts."""

from __future__ import annotations

import random

import pytest

from lipservice import _anomaly
from lipservice._engine import DecisionEngine
from lipservice.policy import SamplingPolicy

POLICY = SamplingPolicy(sampling_rate=0.01, keep_first=0, anomaly_boost=20.0)
BOOSTED = 0.2


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Service:
    """An application that logs a few patterns at a steady pace, a tick every 5 seconds."""

    def __init__(self, policy=POLICY, seed=1):
        self.clock = Clock()
        self.engine = DecisionEngine(rng=random.Random(seed), clock=self.clock, now=self.clock)
        self.engine.apply_policy(policy)

    def ticks(self, count=1, every=5.0, **counts):
        """So many ticks with these counts before each, by name of the pattern; e.g. `errors=3`."""
        for _ in range(count):
            for name, times in counts.items():
                for _ in range(times):
                    self.log(name)
            self.clock.now += every
            self.engine.tick()

    def log(self, name):
        severity = "ERROR" if name == "errors" else "INFO"
        return self.engine.decide_message(f"the pattern {name}", severity)

    def rate(self, name):
        """The rate in force for a pattern."""
        self.log(name)  # known from now on
        return self.engine.explain(f"the pattern {name}").rate


@pytest.fixture
def service():
    """Ten minutes of life."""
    service = Service()
    service.ticks(120, steady=10, other=10, errors=1)
    return service


class TestPattern:
    def test_a_jump_boosts_the_pattern_alone(self, service):
        service.ticks(steady=60, other=10, errors=1)

        assert service.rate("steady") == pytest.approx(BOOSTED)
        assert service.rate("other") == 0.01

    def test_it_ends_a_minute_after_the_last_jump(self, service):
        service.ticks(steady=60, other=10, errors=1)
        service.ticks(11, steady=10, other=10, errors=1)
        assert service.rate("steady") == pytest.approx(BOOSTED)

        service.ticks(steady=10, other=10, errors=1)

        assert service.rate("steady") == 0.01

    def test_it_ends_for_a_pattern_that_falls_silent(self, service):
        service.ticks(steady=60, other=10, errors=1)
        service.ticks(13, other=10, errors=1)

        assert service.engine._boosted == {}

    def test_a_steady_pattern_is_never_boosted(self):
        chance = random.Random(4)
        service = Service()
        for _ in range(1000):
            service.ticks(steady=chance.choice((8, 10, 12)), rare=chance.choice((0, 0, 0, 3)))

        assert service.rate("steady") == service.rate("rare") == 0.01
        assert service.engine._boost_until == float("-inf")

    def test_a_small_number_is_no_jump(self, service):
        service.ticks(tiny=1)
        service.ticks(20)
        service.ticks(tiny=19)

        assert service.rate("tiny") == 0.01

    def test_a_new_pattern_has_no_past_to_jump_from(self, service):
        service.ticks(fresh=60)

        assert service.rate("fresh") == 0.01

    def test_the_boosted_rate_is_at_most_1(self):
        service = Service(SamplingPolicy(sampling_rate=0.3, keep_first=0, anomaly_boost=20.0))
        service.ticks(120, steady=10)
        service.ticks(steady=60)

        assert service.rate("steady") == 1.0
        assert service.log("steady").weight == 1.0


class TestService:
    def test_a_burst_of_errors_boosts_everything(self, service):
        service.ticks(steady=10, other=10, errors=40)

        assert service.rate("steady") == service.rate("other") == pytest.approx(BOOSTED)
        assert service.rate("met just now") == pytest.approx(BOOSTED)

    def test_it_ends_a_minute_after_the_last_burst(self, service):
        service.ticks(steady=10, errors=40)
        service.ticks(11, steady=10, errors=1)
        assert service.rate("steady") == pytest.approx(BOOSTED)

        service.ticks(steady=10, errors=1)

        assert service.rate("steady") == 0.01

    def test_each_further_burst_extends_it(self, service):
        for _ in range(3):
            service.ticks(steady=10, errors=200)
            service.ticks(9, steady=10, errors=1)

        assert service.rate("steady") == pytest.approx(BOOSTED)

    def test_a_burst_in_the_tick_that_ends_a_boost_reaches_every_pattern(self):
        service = Service(SamplingPolicy(sampling_rate=0.5, keep_first=0, anomaly_boost=2.0))
        service.ticks(120, steady=10, other=10, errors=1)
        service.ticks(steady=10, other=10, errors=40)
        assert service.rate("steady") == 1.0

        service.ticks(every=90.0, steady=10, other=10, errors=4000)

        assert service.rate("steady") == service.rate("other") == 1.0

    def test_a_jump_of_the_volume_is_answered_once_in_ten_minutes(self, service):
        """More traffic is not by itself a reason to pay more for long."""
        for letter in "abcdefghij":
            service.log(letter)
        many = dict.fromkeys("abcdefghij", 15)  # new patterns: none of them jumps by itself
        service.ticks(steady=10, other=10, **many)
        assert service.rate("other") == pytest.approx(BOOSTED)

        service.ticks(12, steady=10, other=10)
        assert service.rate("other") == 0.01

        service.ticks(steady=10, other=10, **dict.fromkeys("klmnopqrst", 40))
        assert service.rate("other") == 0.01

    def test_a_young_process_has_no_past_to_jump_from(self):
        service = Service()
        service.ticks(10, steady=1)
        service.ticks(steady=500, errors=500)

        assert service.rate("steady") == 0.01

    @pytest.mark.parametrize("day", [86_400.0, -86_400.0])
    def test_a_time_of_day_that_is_set_starts_nothing(self, day):
        """Ages and pauses are measured by the monotonic clock."""
        service = Service()
        service.ticks(14, steady=30, other=30)
        service.engine._now = lambda: service.clock.now + day

        service.ticks(10, steady=30, other=30)

        assert service.rate("steady") == service.rate("other") == 0.01

    @pytest.mark.parametrize("day", [86_400.0, -86_400.0])
    def test_a_jump_is_seen_whatever_the_time_of_day(self, service, day):
        service.engine._now = lambda: service.clock.now + day

        service.ticks(steady=60, other=10, errors=1)

        assert service.rate("steady") == pytest.approx(BOOSTED)


def test_what_was_boosted_weighs_what_it_was_kept_with(service):
    service.ticks(steady=60, errors=1)
    decisions = [service.log("steady") for _ in range(1000)]

    assert {round(each.weight, 9) for each in decisions if each} == {1 / BOOSTED}


class TestJump:
    @pytest.mark.parametrize(
        ("count", "expected", "jump"),
        [(19, 0.0, False), (20, 0.0, True), (20, 5.0, False), (41, 10.0, True), (40, 10.0, False),
         (400, 100.0, False), (401, 100.0, True), (35, 8.0, True), (0, 0.0, False)],
    )  # fmt: skip
    def test_it_is_large_and_far_above_what_was_due(self, count, expected, jump):
        assert _anomaly.is_jump(count, expected) is jump

    def test_a_rate_is_known_soon_and_forgets_slowly(self):
        volume, rate = 0.0, 3.0
        for seconds in range(1, 3001):
            volume = volume * _anomaly.decay(1.0) + rate
            if seconds >= 60:
                assert _anomaly.rate_per_second(volume, seconds) == pytest.approx(rate, rel=0.01)
