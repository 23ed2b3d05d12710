"""The decision, rule by rule, and in any order against the plain reference."""

from __future__ import annotations

import math
import random
from collections import Counter
from types import MappingProxyType

import pytest

from lipservice._engine import DecisionEngine
from lipservice.decision import Totals
from lipservice.patterns import MAX_STORED_KEY, OVERFLOW_SIGNATURE
from lipservice.policy import SamplingPolicy
from lipservice.severity import SEVERITIES
from lipservice.signature import compute_signature
from tests.reference.decision import LEAST_RATE, Reference

UNPROTECTED = ("TRACE", "DEBUG", "INFO", "WARNING")
NEVER = SamplingPolicy(sampling_rate=0.0, keep_first=0)


class Clock:
    """Seconds that pass only when told."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


def engine_with(policy=None, *, seed=1, locked=False, clock=None, max_patterns=10_000):
    clock = clock or Clock()
    engine = DecisionEngine(
        max_patterns=max_patterns, rng=random.Random(seed), clock=clock, now=clock
    )
    if locked:
        engine._counts_down = False
    if policy is not None:
        engine.apply_policy(policy)
    return engine


def both_paths(function):
    """Run with the countdown and with the lock, as a free-threaded build has it."""
    return pytest.mark.parametrize("locked", [False, True], ids=["countdown", "locked"])(function)


def log(engine, message, times=1, severity="INFO"):
    """The decisions about *times* records of one message."""
    return [engine.decide_message(message, severity) for _ in range(times)]


def rules_of(decisions):
    return [None if decision is None else decision.rule for decision in decisions]


class TestNoPolicy:
    @both_paths
    def test_everything_is_kept_with_weight_1(self, locked):
        engine = engine_with(locked=locked)

        decisions = log(engine, "nobody told us yet", 1000)

        assert all(each.weight == 1.0 and each.rate == 1.0 for each in decisions)
        assert engine.totals() == Totals(seen=1000, kept=1000)

    @both_paths
    def test_taking_the_policy_away_keeps_everything_again(self, locked):
        engine = engine_with(NEVER, locked=locked)
        assert log(engine, "a", 20) == [None] * 20

        engine.apply_policy(None)

        assert all(log(engine, "a", 20))
        assert engine.get_policy() is None


class TestErrors:
    @both_paths
    @pytest.mark.parametrize("mode", ["active", "shadow"])
    @pytest.mark.parametrize("severity", ["ERROR", "CRITICAL", "FATAL", "error", 40, 45, 50, 1000])
    def test_an_error_is_kept_whatever_the_policy_says(self, severity, mode, locked):
        policy = SamplingPolicy(
            sampling_rate=0.0,
            severity_rates=MappingProxyType({"ERROR": 0.0, "CRITICAL": 0.0}),
            pattern_rates=MappingProxyType({compute_signature("it broke"): 0.0}),
            max_logs_per_minute=0,
            keep_first=0,
            mode=mode,
        )
        engine = engine_with(policy, locked=locked)

        decisions = log(engine, "it broke", 100, severity)

        assert {(each.rule, each.weight) for each in decisions} == {("error", 1.0)}
        assert engine.totals() == Totals(seen=100, kept=100)

    def test_an_error_that_does_not_fit_into_the_table_is_kept(self):
        engine = engine_with(NEVER, max_patterns=1)
        log(engine, "the only pattern")

        assert rules_of(log(engine, "one more", 50, "ERROR")) == ["error"] * 50

    def test_errors_do_not_use_up_the_limit(self):
        engine = engine_with(SamplingPolicy(max_logs_per_minute=10, keep_first=0))
        log(engine, "it broke", 1000, "ERROR")

        assert log(engine, "it works", 1)[0] is not None


class TestFirstRecords:
    @both_paths
    @pytest.mark.parametrize("keep_first", [0, 1, 2, 7, 31, 32, 33, 100])
    def test_the_first_records_of_a_pattern_are_kept(self, keep_first, locked):
        policy = SamplingPolicy(sampling_rate=0.0, keep_first=keep_first)
        engine = engine_with(policy, locked=locked)

        decisions = log(engine, "hello", 150)

        assert rules_of(decisions) == ["first"] * keep_first + [None] * (150 - keep_first)

    def test_each_pattern_and_each_severity_has_its_own(self):
        engine = engine_with(SamplingPolicy(sampling_rate=0.0, keep_first=3))

        for severity in UNPROTECTED:
            for message in ("red", "green", "blue"):
                assert rules_of(log(engine, message, 5, severity)) == ["first"] * 3 + [None] * 2

    def test_records_that_came_before_the_policy_count(self):
        engine = engine_with()
        log(engine, "hello", 8)

        engine.apply_policy(SamplingPolicy(sampling_rate=0.0, keep_first=10))

        assert rules_of(log(engine, "hello", 4)) == ["first", "first", None, None]

    def test_a_policy_that_keeps_more_first_records_starts_with_the_next_record(self):
        engine = engine_with(SamplingPolicy(sampling_rate=0.0, keep_first=2))
        assert rules_of(log(engine, "hello", 3)) == ["first", "first", None]

        engine.apply_policy(SamplingPolicy(sampling_rate=0.0, keep_first=5))

        assert rules_of(log(engine, "hello", 3)) == ["first", "first", None]

    def test_the_limit_does_not_drop_first_records_but_counts_them(self):
        engine = engine_with(SamplingPolicy(max_logs_per_minute=5, keep_first=5))

        first = [log(engine, f"pattern {chr(97 + i)}")[0].rule for i in range(20)]
        assert first == ["first"] * 20

        log(engine, "pattern a", 4)
        assert log(engine, "pattern a", 3) == [None] * 3


class TestProtectedWords:
    POLICY = SamplingPolicy(sampling_rate=0.0, keep_first=0, patterns=("payment", "P&L", "öl"))

    @both_paths
    @pytest.mark.parametrize(
        "message",
        ["payment failed", "PAYMENT of 12 EUR", "the Payment", "(payment)", "no-payment", "a P&L b",
         "p&l", "Öl", "altes ÖL da"],
    )  # fmt: skip
    def test_a_whole_word_in_any_case_protects(self, message, locked):
        engine = engine_with(self.POLICY, locked=locked)

        assert rules_of(log(engine, message, 50)) == ["protected"] * 50

    @both_paths
    @pytest.mark.parametrize("message", ["prepayment", "payments", "payment_id", "P&Ls", "kühlöl"])
    def test_a_part_of_a_word_does_not(self, message, locked):
        engine = engine_with(self.POLICY, locked=locked)

        assert log(engine, message, 50) == [None] * 50

    def test_the_limit_does_not_apply(self):
        policy = SamplingPolicy(max_logs_per_minute=1, keep_first=0, patterns=("payment",))
        engine = engine_with(policy)

        assert rules_of(log(engine, "payment", 50)) == ["protected"] * 50

    def test_words_are_read_in_templates_not_in_values(self):
        """Decided once a pattern: what a variable holds can not protect one record of it."""
        engine = engine_with(SamplingPolicy(sampling_rate=0.0, keep_first=0, patterns=("x1",)))

        assert log(engine, "path x1 read", 5) == [None] * 5

    def test_words_follow_a_change_of_policy_both_ways(self):
        engine = engine_with(NEVER)
        for message in ("payment in", "refund out", "tick"):
            log(engine, message)

        engine.apply_policy(SamplingPolicy(sampling_rate=0.0, keep_first=0, patterns=("payment",)))
        assert rules_of(log(engine, "payment in", 3)) == ["protected"] * 3
        assert log(engine, "refund out", 3) == [None] * 3

        engine.apply_policy(SamplingPolicy(sampling_rate=0.0, keep_first=0, patterns=("refund",)))
        assert log(engine, "payment in", 3) == [None] * 3
        assert rules_of(log(engine, "refund out", 3)) == ["protected"] * 3
        assert log(engine, "tick", 3) == [None] * 3

    @pytest.mark.parametrize("known_before", [False, True])
    def test_a_word_beyond_the_stored_key_protects(self, known_before):
        long = "-".join(["word"] * MAX_STORED_KEY) + " "
        long = long[: MAX_STORED_KEY + 200] + " payment"
        policy = SamplingPolicy(sampling_rate=0.0, keep_first=0, patterns=("payment",))
        engine = engine_with(NEVER)
        if known_before:
            assert log(engine, long, 5) == [None] * 5

        engine.apply_policy(policy)
        assert rules_of(log(engine, long, 5)) == ["protected"] * 5

        engine.apply_policy(NEVER)
        assert log(engine, long, 5) == [None] * 5
        assert engine.totals().seen == (15 if known_before else 10)

    @pytest.mark.parametrize("known_before", [False, True])
    def test_patterns_that_do_not_fit_into_the_table_are_protected_too(self, known_before):
        engine = engine_with(NEVER, max_patterns=1)
        log(engine, "the only pattern")
        if known_before:
            assert log(engine, "payment in", 5) == [None] * 5

        engine.apply_policy(SamplingPolicy(sampling_rate=0.0, keep_first=0, patterns=("payment",)))

        assert rules_of(log(engine, "payment in", 5)) == ["protected"] * 5
        assert log(engine, "refund out", 5) == [None] * 5

        engine.apply_policy(SamplingPolicy(sampling_rate=0.0, keep_first=0, patterns=("refund",)))

        assert log(engine, "payment in", 5) == [None] * 5
        assert rules_of(log(engine, "refund out", 5)) == ["protected"] * 5


class TestRates:
    HELLO = compute_signature("hello")

    @both_paths
    @pytest.mark.parametrize(
        ("policy", "kept"),
        [
            (SamplingPolicy(sampling_rate=1.0), True),
            (SamplingPolicy(sampling_rate=0.0), False),
            (
                SamplingPolicy(sampling_rate=0.0, severity_rates=MappingProxyType({"INFO": 1.0})),
                True,
            ),
            (
                SamplingPolicy(sampling_rate=1.0, severity_rates=MappingProxyType({"INFO": 0.0})),
                False,
            ),
            (
                SamplingPolicy(sampling_rate=0.0, severity_rates=MappingProxyType({"DEBUG": 1.0})),
                False,
            ),
            (
                SamplingPolicy(
                    sampling_rate=0.0,
                    severity_rates=MappingProxyType({"INFO": 0.0}),
                    pattern_rates=MappingProxyType({HELLO: 1.0}),
                ),
                True,
            ),
            (
                SamplingPolicy(
                    sampling_rate=1.0,
                    severity_rates=MappingProxyType({"INFO": 1.0}),
                    pattern_rates=MappingProxyType({HELLO: 0.0}),
                ),
                False,
            ),
        ],
        ids=["rate 1", "rate 0", "severity 1", "severity 0", "other", "pattern 1", "pattern 0"],
    )
    def test_pattern_before_severity_before_default(self, policy, kept, locked):
        engine = engine_with(locked=locked)
        log(engine, "hello", 10)  # the first records
        engine.apply_policy(policy)

        assert [each is not None for each in log(engine, "hello", 50)] == [kept] * 50

    @both_paths
    def test_the_weight_is_one_through_the_rate(self, locked):
        engine = engine_with(SamplingPolicy(sampling_rate=0.3, keep_first=0), locked=locked)

        decisions = [each for each in log(engine, "hello", 2000) if each]

        assert {(each.rule, each.rate, each.weight) for each in decisions} == {
            ("rate", 0.3, 1 / 0.3)
        }

    @pytest.mark.parametrize("rate", [1e-300, 1e-15, LEAST_RATE])
    def test_a_rate_of_next_to_nothing_drops(self, rate):
        engine = engine_with(SamplingPolicy(sampling_rate=rate, keep_first=0))

        assert log(engine, "hello", 100) == [None] * 100

    @pytest.mark.parametrize("rate", [1 - 2**-53, 1 - 1e-9, 0.999999])
    def test_a_rate_of_nearly_1_keeps(self, rate):
        engine = engine_with(SamplingPolicy(sampling_rate=rate, keep_first=0))

        assert sum(each is not None for each in log(engine, "hello", 1000)) >= 998

    def test_a_decision_names_pattern_and_policy(self):
        engine = engine_with(SamplingPolicy(policy_id="winter", keep_first=0))
        (unnumbered,) = log(engine, "hello 1")
        engine.apply_policy(SamplingPolicy(policy_id="winter", version=7, keep_first=0))
        (numbered,) = log(engine, "hello 2")

        assert unnumbered.signature == numbered.signature == compute_signature("hello 3")
        assert (unnumbered.policy, numbered.policy) == ("winter", "7")

    @both_paths
    @pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("mode", ["active", "shadow"])
    def test_a_decision_names_the_policy_of_the_moment(self, rate, mode, locked):
        """Also where the answer was prepared before: sure keeps, drops that shadow lets pass."""
        engine = engine_with(locked=locked)
        for version in (1, 2, 3):
            engine.apply_policy(
                SamplingPolicy(sampling_rate=rate, keep_first=0, version=version, mode=mode)
            )

            decisions = log(engine, "hello", 64)

            assert {each.policy for each in decisions if each} <= {str(version)}

    def test_message_and_format_string_share_a_pattern(self):
        engine = engine_with(NEVER)
        engine.decide_message("user 17 logged in", "INFO")
        engine.decide_format("user %s logged in", "INFO")

        (stats,) = engine.get_pattern_stats().values()
        assert stats.count == 2


class TestLimit:
    def test_there_is_none_where_the_policy_names_none(self):
        engine = engine_with(SamplingPolicy(keep_first=0))

        assert all(log(engine, "hello", 5000))

    def test_a_limit_of_0_keeps_what_is_protected_only(self):
        policy = SamplingPolicy(max_logs_per_minute=0, keep_first=0, patterns=("payment",))
        engine = engine_with(policy)

        assert log(engine, "hello", 100) == [None] * 100
        assert all(log(engine, "payment", 100))
        assert all(log(engine, "hello", 100, "ERROR"))
        assert engine.totals() == Totals(seen=300, kept=200, dropped=0, capped=100)

    def test_what_it_drops_is_counted_apart(self):
        engine = engine_with(SamplingPolicy(max_logs_per_minute=100, keep_first=0))

        kept = sum(each is not None for each in log(engine, "hello", 1000))

        assert kept <= 100
        assert engine.totals() == Totals(seen=1000, kept=kept, dropped=0, capped=1000 - kept)

    def test_after_a_minute_there_is_room_again(self):
        clock = Clock()
        engine = engine_with(SamplingPolicy(max_logs_per_minute=10, keep_first=0), clock=clock)
        log(engine, "hello", 1000)
        assert not any(log(engine, "hello", 100))

        clock.advance(61)

        assert log(engine, "hello", 1)[0].weight == 1.0

    @pytest.mark.parametrize("second", [40, 60])
    def test_a_policy_with_another_limit_knows_what_was_kept(self, second):
        """Else each new version would let a full minute's share pass at once."""
        engine = engine_with(SamplingPolicy(max_logs_per_minute=50, keep_first=0))
        before = sum(each is not None for each in log(engine, "hello", 10_000))

        engine.apply_policy(SamplingPolicy(max_logs_per_minute=second, keep_first=0))
        after = sum(each is not None for each in log(engine, "hello", 10_000))

        assert before + after <= max(50, second)

    def test_a_clock_that_stands_or_steps_back_harms_nothing(self):
        clock = Clock()
        engine = engine_with(SamplingPolicy(max_logs_per_minute=10, keep_first=0), clock=clock)
        log(engine, "hello", 100)

        clock.advance(-500)
        engine.tick()

        assert not any(log(engine, "hello", 100))


class TestShadow:
    POLICY = SamplingPolicy(sampling_rate=0.25, keep_first=2, mode="shadow")

    @both_paths
    def test_nothing_is_dropped_and_each_record_stands_for_itself(self, locked):
        engine = engine_with(self.POLICY, locked=locked)

        decisions = log(engine, "hello", 1000)

        assert all(each.weight == 1.0 and each.rate == 1.0 for each in decisions)
        assert rules_of(decisions) == ["first"] * 2 + ["shadow"] * 998

    @both_paths
    def test_what_would_have_been_dropped_is_counted(self, locked):
        engine = engine_with(self.POLICY, locked=locked)
        log(engine, "hello", 1000)

        totals = engine.totals()

        assert totals.seen == 1000
        assert 150 < totals.kept < 350
        assert totals.shadowed == totals.dropped == 1000 - totals.kept

    @both_paths
    def test_what_the_limit_would_drop_passes_too(self, locked):
        policy = SamplingPolicy(max_logs_per_minute=10, keep_first=0, mode="shadow")
        engine = engine_with(policy, locked=locked)

        assert all(log(engine, "hello", 100))
        totals = engine.totals()
        assert totals.capped == totals.shadowed == 100 - totals.kept >= 90

    @both_paths
    def test_going_in_and_out_of_shadow_keeps_the_books(self, locked):
        engine = engine_with(NEVER, locked=locked)
        shadow = SamplingPolicy(sampling_rate=0.0, keep_first=0, mode="shadow")
        let_pass = 0
        for round_ in range(6):
            engine.apply_policy(shadow if round_ % 2 else NEVER)
            passed = sum(each is not None for each in log(engine, "hello", 100 + round_))
            assert passed == (100 + round_ if round_ % 2 else 0)
            let_pass += passed

        totals = engine.totals()
        assert totals == Totals(seen=615, kept=0, dropped=615, capped=0, shadowed=let_pass)
        assert engine.get_pattern_stats()[compute_signature("hello")].kept == let_pass


class TestSeverities:
    @pytest.mark.parametrize("name", SEVERITIES)
    def test_each_spelling_leads_to_the_same_counts(self, name):
        engine = engine_with()
        for spelling in (name, name.lower(), name.title(), f" {name} "):
            engine.decide_message("hello", spelling)

        (stats,) = engine.get_pattern_stats().values()
        assert stats.severity_distribution == {name: 4}

    def test_an_unknown_name_is_treated_as_info(self):
        engine = engine_with(NEVER)

        assert log(engine, "hello", 3, "PURPLE") == [None] * 3
        (stats,) = engine.get_pattern_stats().values()
        assert stats.severity_distribution == {"INFO": 3}

    def test_thousands_of_spellings_are_not_remembered(self):
        engine = engine_with(NEVER)
        for number in range(5000):
            assert engine.decide_message("hello", f"level {number}") is None

        assert len(engine._messages) <= 256
        assert engine.totals().seen == 5000


class TestShouldSample:
    @both_paths
    def test_it_says_whether_the_record_is_kept(self, locked):
        engine = engine_with(SamplingPolicy(sampling_rate=0.5, keep_first=3), locked=locked)

        answers = [engine.should_sample("hello", "info") for _ in range(5000)]

        assert answers[:3] == [True, True, True]
        assert engine.totals().kept == sum(answers)
        assert engine.totals().seen == 5000

    @both_paths
    def test_it_says_true_in_shadow(self, locked):
        policy = SamplingPolicy(sampling_rate=0.0, keep_first=0, mode="shadow")
        engine = engine_with(policy, locked=locked)

        assert all(engine.should_sample("hello", "INFO") for _ in range(100))


# ---------------------------------------------------------------------- against the reference

MESSAGES = [
    "user 17 logged in", "user 4 logged in", "user root logged in", "payment of 3 EUR received",
    "PAYMENT 9", "prepayment", "took 12 ms", "took 13 s", "", "5", "an Important thing",
    "queue is empty",
]  # fmt: skip
SIGNATURES = [compute_signature(message) for message in MESSAGES]
SECONDS = (0.0, 0.1, 1.0, 5.0, 5.0, 5.0, 7.5, 30.0, 61.0, 700.0)


class Numbers:
    """Random numbers that are drawn twice, by the product and by the reference."""

    def __init__(self, seed):
        self._source = random.Random(seed)
        self._drawn = []

    def random(self):
        self._drawn.append(self._source.random())
        return self._drawn[-1]

    def again(self):
        return self._drawn.pop(0)

    def all_taken(self):
        return not self._drawn


class Run:
    """Records, policies, pauses, ticks and drains in any order; the reference checks each."""

    def __init__(self, seed, *, locked):
        self.chance = random.Random(seed)
        self.clock = Clock(5000.25)
        self.numbers = Numbers(seed)
        self.engine = DecisionEngine(rng=self.numbers, clock=self.clock, now=self.clock)
        self.engine._counts_down = not locked
        self.reference = Reference(None, self.clock, self.numbers.again)
        self.met = Counter()

    def steps(self, count):
        for _ in range(count):
            step = self.chance.choices(
                (self.log, self.tick, self.change_the_policy, self.pass_time, self.drain),
                (8, 4, 1, 1, 1),
            )[0]
            step()
            assert self.engine.totals() == Totals(*self.reference.totals())

    def change_the_policy(self):
        policy = None if self.chance.random() < 0.1 else self.policy()
        self.engine.apply_policy(policy)
        self.reference.apply_policy(policy)

    def policy(self):
        chance = self.chance
        return SamplingPolicy(
            policy_id=chance.choice("ab"),
            version=chance.choice([None, 1, 2]),
            sampling_rate=self.rate(),
            patterns=tuple(chance.sample(["payment", "important", "queue", "users"], 2)),
            max_logs_per_minute=chance.choice([None, None, 0, 1, 5, 40, 1000]),
            severity_rates=MappingProxyType(
                {name: self.rate() for name in chance.sample(SEVERITIES, 3)}
            ),
            pattern_rates=MappingProxyType(
                {signature: self.rate() for signature in chance.sample(SIGNATURES, 3)}
            ),
            anomaly_boost=chance.choice([1.0, 2.0, 5.0, 1000.0]),
            keep_first=chance.choice([0, 1, 3, 10]),
            mode=chance.choice(["active", "active", "shadow"]),
        )

    def rate(self):
        return self.chance.choice([0.0, 1e-13, 0.1, 0.5, 0.9, 1.0, self.chance.random()])

    def pass_time(self):
        self.clock.advance(self.chance.choice(SECONDS))

    def tick(self):
        self.clock.advance(self.chance.choice(SECONDS))
        self.engine.tick()
        self.reference.tick()

    def drain(self):
        drained = {each.signature: each.count for each in self.engine.drain()}
        assert drained == self.reference.drain()

    def log(self):
        message = self.chance.choice(MESSAGES)
        severity = self.chance.choice(SEVERITIES)
        for _ in range(self.chance.choice([1, 2, 12, 40])):
            verdict = self.reference.verdict(message, severity)
            self.note_what_was_met(verdict, message, severity)
            self.log_once(message, severity, verdict)

    def note_what_was_met(self, verdict, message, severity):
        reference = self.reference
        self.met[verdict.rule] += 1
        if verdict.rule == "rate":
            self.met["scaled"] += reference.scale != 1.0
            self.met["service boost"] += reference.boost_until > reference.ticked
            boosted = reference.pattern(message, severity).boosted_until
            self.met["pattern boost"] += boosted is not None
            self.met["full"] += verdict.chance == 0.0
            self.met["nearly full"] += 0.0 < verdict.chance < 1.0

    def check(self, decision, verdict, passes, weight):
        """A decision in full: passing, rule, rate, weight, policy."""
        assert (decision is not None) == passes
        if decision is None:
            return
        policy = self.reference.policy
        shadowed = policy is not None and policy.mode == "shadow" and verdict.rule == "rate"
        assert decision.rule == ("shadow" if shadowed else verdict.rule)
        assert math.isclose(decision.weight, weight, rel_tol=1e-9)
        assert math.isclose(decision.rate * decision.weight, 1.0, rel_tol=1e-9)
        version = policy.version if policy else None
        assert decision.policy == (
            None if policy is None else policy.policy_id if version is None else str(version)
        )


class LockedRun(Run):
    """The locked path draws for each record, as the reference does: equal draw by draw."""

    def __init__(self, seed):
        super().__init__(seed, locked=True)

    def log_once(self, message, severity, verdict):
        decision = self.engine.decide_message(message, severity)
        passes, verdict, weight = self.reference.decide(message, severity)

        assert self.numbers.all_taken()
        self.check(decision, verdict, passes, weight)


class CountdownRun(Run):
    """The countdown draws in advance: equal in rule, probability and what can not be otherwise."""

    def __init__(self, seed):
        super().__init__(seed, locked=False)

    def log_once(self, message, severity, verdict):
        before = self.engine.totals()
        decision = self.engine.decide_message(message, severity)
        after = self.engine.totals()

        outcome = {
            (1, 0, 0): "kept",
            (0, 1, 0): "dropped",
            (0, 0, 1): "capped",
        }[after.kept - before.kept, after.dropped - before.dropped, after.capped - before.capped]
        self.check_that_it_can_be(outcome, verdict)
        passes, _, weight = self.reference.note(message, severity, verdict, outcome)
        self.check(decision, verdict, passes, weight)

    def check_that_it_can_be(self, outcome, verdict):
        if outcome == "kept":
            assert verdict.probability > LEAST_RATE
        elif outcome == "dropped":
            assert verdict.rule == "rate"
            assert verdict.rate < 1.0
        else:
            assert verdict.rule == "rate"
            assert verdict.chance < 1.0


@pytest.mark.parametrize("kind", [LockedRun, CountdownRun])
def test_any_order_of_events_is_decided_and_counted_as_the_reference_does(kind):
    met = Counter()
    for seed in range(25):
        run = kind(seed)
        run.steps(150)
        met += run.met
        stats = run.engine.get_pattern_stats()
        for (severity, signature), pattern in run.reference.patterns.items():
            if pattern.seen:
                assert stats[signature].severity_distribution[severity] == pattern.seen

    # The runs met every rule and state often enough for the comparison to say something.
    for what in ("rate", "error", "protected", "first", "scaled", "service boost",
                 "pattern boost", "full", "nearly full"):  # fmt: skip
        assert met[what] > 100, met


class TestOverflow:
    def test_the_bucket_counts_and_applies_the_rate_of_its_severity(self):
        policy = SamplingPolicy(
            sampling_rate=0.0, severity_rates=MappingProxyType({"DEBUG": 1.0}), keep_first=0
        )
        engine = engine_with(policy, max_patterns=1)
        log(engine, "the only pattern")

        for number in range(100):
            assert engine.decide_message(f"word{'x' * number}", "INFO") is None
            assert engine.decide_message(f"word{'x' * number}", "DEBUG") is not None

        bucket = engine.get_pattern_stats()[OVERFLOW_SIGNATURE]
        assert (bucket.count, bucket.kept) == (200, 100)
        assert bucket.severity_distribution == {"INFO": 100, "DEBUG": 100}
        assert bucket.template == "<overflow>"
