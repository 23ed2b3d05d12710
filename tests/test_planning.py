"""Planning: policies that keep to their target, and what they are expected to keep."""

import gzip
import json
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice.exceptions import ConfigurationError
from lipservice.optimizer import PatternVolume
from lipservice.patterns import OVERFLOW_SIGNATURE, OVERFLOW_TEMPLATE
from lipservice.planning import (
    MAX_PATTERN_RATES,
    expected_outcome,
    plan_policy,
    rate_reason,
    relative_error,
    uniform_outcome,
)
from lipservice.policy import SamplingPolicy

seeded = settings(max_examples=100, deadline=None, derandomize=True)
SEVERITIES = ["TRACE", "DEBUG", "INFO", "WARNING"]


def volume(name, count, severity="INFO", size=100.0, template=None, **more):
    template = f"statement {name}" if template is None else template
    return PatternVolume(str(name), template, severity, count, size, **more)


def plan(patterns, target=0.1, **more):
    return plan_policy(patterns, target, policy_id="test", **more)


def rate(policy, pattern):
    return policy.rate_for(pattern.signature, pattern.severity)


def service(number, seed=1, *, errors=True, draw=lambda rng: int(rng.lognormvariate(4, 2)) + 1):
    """Patterns as a service might have them: many sizes, few errors."""
    rng = random.Random(seed)
    patterns = []
    for i in range(number):
        severity = rng.choice(["DEBUG", "INFO", "INFO", "WARNING", "ERROR" if errors else "INFO"])
        count = rng.randint(1, 3) if severity == "ERROR" else draw(rng)
        name = f"{rng.getrandbits(64):016x}"
        patterns.append(volume(name, count, severity, rng.uniform(40.0, 400.0), f"s{i}"))
    return patterns


@st.composite
def services(draw):
    """A few patterns of any severity and size, some at several severities, some in overflow."""
    names = st.sampled_from([*"abcdefgh", OVERFLOW_SIGNATURE])
    cells = draw(
        st.lists(
            st.tuples(names, st.sampled_from([*SEVERITIES, "ERROR"])),
            min_size=1,
            max_size=14,
            unique=True,
        )
    )
    counts = st.one_of(st.integers(1, 20), st.integers(1, 10**6), st.floats(0.1, 100.0))
    return [
        volume(name, draw(counts), severity, draw(st.floats(1.0, 1000.0)))
        for name, severity in cells
    ]


class TestTarget:
    @seeded
    @given(services(), st.floats(0.0, 1.0), st.sampled_from([0, 1, 3, 100]))
    def test_is_kept_to_but_for_a_tenth_beside_what_is_always_kept(self, patterns, target, limit):
        policy = plan(patterns, target, max_pattern_rates=limit)
        outcome = expected_outcome(patterns, policy)
        paid = math.fsum(p.total_bytes for p in patterns if p.always_kept)
        budget = target * outcome.bytes
        allowed = max(budget, paid + 0.1 * budget)

        assert outcome.kept_bytes <= allowed * (1.0 + 1e-9)
        assert outcome.kept_bytes >= min(allowed, outcome.bytes) * (1.0 - 1e-3) - 1e-9

    @pytest.mark.parametrize("target", [0.001, 0.03, 0.1, 0.5])
    def test_is_used_up_to_a_thousandth(self, target):
        patterns = service(3000, errors=False)

        kept = expected_outcome(patterns, plan(patterns, target)).kept_share

        assert 0.999 * target <= kept <= target

    def test_everything_is_kept_if_the_target_says_so(self):
        patterns = service(50)

        policy = plan(patterns, 1.0)

        assert expected_outcome(patterns, policy).kept_share == 1.0
        assert not policy.pattern_rates

    def test_a_storm_of_errors_leaves_a_tenth_of_the_target_to_the_rest(self):
        storm = volume("broken", 9000, "ERROR")
        calm = [volume(name, 500) for name in "ab"]

        policy = plan([storm, *calm], 0.1)

        outcome = expected_outcome(calm, policy)
        assert outcome.kept_bytes == pytest.approx(0.1 * 0.1 * 1_000_000, rel=1e-3)
        assert "cannot be met" in policy.reasoning

    @pytest.mark.parametrize("target", [-0.01, 1.01, math.nan])
    def test_is_a_share(self, target):
        with pytest.raises(ConfigurationError, match="cost_target"):
            plan([], target)


class TestSeverityRates:
    def test_is_the_share_of_the_severity_that_is_kept(self):
        """So a pattern that nobody has seen yet leaves the kept share as it is."""
        patterns = service(400)
        policy = plan(patterns, 0.1)

        for severity in ("DEBUG", "INFO", "WARNING"):
            own = [pattern for pattern in patterns if pattern.severity == severity]
            share = expected_outcome(own, policy).kept_share
            assert policy.severity_rates[severity] >= share * 0.998

    def test_never_falls_with_severity(self):
        """A new warning is not thinned more than a new info, even if warnings are mostly noise."""
        patterns = [volume("noise", 100_000, "WARNING"), *(volume(i, 5) for i in range(100))]

        rates = plan(patterns, 0.1).severity_rates

        assert rates["WARNING"] >= rates["INFO"] > 0.5
        assert rates["ERROR"] == rates["CRITICAL"] == 1.0

    def test_a_severity_without_records_has_the_average_but_a_warning_is_news(self):
        rates = plan([volume("a", 1000)], 0.25).severity_rates

        assert rates["DEBUG"] == rates["TRACE"] == 0.25
        assert rates["WARNING"] == 1.0

    def test_nothing_known_gives_the_target_to_all(self):
        policy = plan([], 0.2)

        assert dict(policy.severity_rates) == {
            "TRACE": 0.2,
            "DEBUG": 0.2,
            "INFO": 0.2,
            "WARNING": 1.0,
            "CRITICAL": 1.0,
            "ERROR": 1.0,
        }
        assert policy.sampling_rate == 0.2
        assert "Nothing has been counted" in policy.reasoning


class TestPatternRates:
    def test_only_those_that_differ_are_named(self):
        policy = plan([volume(i, 100, template=f"t{i}") for i in range(20)], 0.1)

        assert not policy.pattern_rates
        assert policy.severity_rates["INFO"] == 0.1

    def test_are_rounded_to_four_digits_down(self):
        policy = plan(service(500), 0.05)

        for value in policy.pattern_rates.values():
            assert float(f"{value:.4g}") == value

    def test_exact_shares_stay_what_they_are(self):
        """Rounding down must not make 0.2999 of a sum that came out a bit below 0.3."""
        patterns = [volume(i, 7 * i, size=33.3, template=f"t{i}") for i in range(1, 4)]
        patterns = [replace(pattern, importance=pattern.count) for pattern in patterns]
        alike = dict.fromkeys((p.template for p in patterns), "one")

        for thousandths in range(1, 1000):
            policy = plan(patterns, thousandths / 1000, families=alike, keep_visible=0.0)
            assert policy.severity_rates["INFO"] == thousandths / 1000

    @pytest.mark.parametrize("limit", [100, 2, 0])
    @pytest.mark.parametrize("target", [0.05, 0.0101])
    def test_never_below_a_floor_that_was_asked_for(self, limit, target):
        floors = {"a": 0.123456789, "b": 1.0 / 3.0, "c": 0.5678987}
        patterns = [volume(name, 1000, floor=floor) for name, floor in floors.items()]
        patterns.append(volume("large", 100_000))

        policy = plan(patterns, target, max_pattern_rates=limit)

        for pattern in patterns:
            assert rate(policy, pattern) >= pattern.floor

    def test_a_pattern_without_records_is_left_to_its_severity(self):
        policy = plan([volume("silent", 0), volume("a", 100), volume("b", 1)], 0.1)

        assert "silent" not in policy.pattern_rates

    def test_errors_are_never_named(self):
        policy = plan([volume("broken", 3, "ERROR"), volume("a", 100), volume("b", 1)], 0.5)

        assert "broken" not in policy.pattern_rates
        assert policy.rate_for("broken", "ERROR") == 1.0

    def test_every_pattern_stays_visible_where_that_can_be_paid(self):
        """Importance alone would leave the unimportant ones a fifth of a record."""
        dull = [volume(f"dull{i}", 1000, template=f"heartbeat {i} x") for i in range(5)]
        keen = [volume(f"keen{i}", 1000, "WARNING", template=f"failed {i} x") for i in range(50)]
        families = {p.template: p.template for p in (*dull, *keen)}
        at = {"target": 0.0021, "families": families}

        with_floors = plan([*dull, *keen], **at)
        without = plan([*dull, *keen], keep_visible=0.0, **at)

        assert rate(without, dull[0]) * 1000 < 0.5
        assert rate(with_floors, dull[0]) * 1000 == pytest.approx(1.0, rel=1e-3)
        assert expected_outcome([*dull, *keen], with_floors).kept_share <= 0.0021 * (1 + 1e-9)

    def test_floors_cost_at_most_half_of_the_budget(self):
        """So importance still tells where not every pattern can be kept visible."""
        keen = volume("keen", 1000, "WARNING", template="payment failed")
        patterns = [keen, *(volume(i, 1000, template=f"t{i}") for i in range(99))]

        policy = plan(patterns, 5e-4)

        assert rate(policy, keen) > 2.0 * rate(policy, patterns[1]) > 0.0


class TestImportance:
    def test_is_built_in_where_nothing_else_is_said(self):
        patterns = [
            volume("a", 1000, template="payment failed"),
            volume("b", 1000, template="x y z"),
        ]

        policy = plan(patterns, 0.1)

        assert rate(policy, patterns[0]) == pytest.approx(
            math.sqrt(3.0) * rate(policy, patterns[1]), rel=1e-3
        )

    def test_can_be_given_by_signature_within_its_bounds(self):
        patterns = [volume(name, 10_000, template=f"x {name} z") for name in "abc"]

        policy = plan(patterns, 0.1, importance={"a": 1e9, "b": 0.0, "c": 1.0})

        assert rate(policy, patterns[0]) == pytest.approx(
            10.0 * rate(policy, patterns[1]), rel=1e-3
        )

    def test_a_patterns_own_factor_multiplies_it(self):
        patterns = [volume("a", 10_000, importance=4.0), volume("b", 10_000)]

        policy = plan(patterns, 0.1)

        assert rate(policy, patterns[0]) == pytest.approx(2.0 * rate(policy, patterns[1]), rel=1e-3)


class TestFamilies:
    names = ("alice", "bob", "carol", "dave", "erin", "frank")

    def test_siblings_share_the_rate_of_their_sum(self):
        siblings = [
            volume(n, 100 + i, template=f"user {n} came in") for i, n in enumerate(self.names)
        ]
        other = volume("other", sum(p.count for p in siblings))

        policy = plan([*siblings, other], 0.1)

        assert {rate(policy, p) for p in siblings} == {rate(policy, other)}

    def test_a_sibling_of_other_importance_has_a_rate_of_its_own(self):
        calm = [volume(n, 10_000, template=f"state is now {n}") for n in self.names]
        alarming = volume("failed", 10, template="state is now failed")

        policy = plan([*calm, alarming], 0.01)

        assert rate(policy, alarming) == 1.0
        assert len({rate(policy, p) for p in calm}) == 1

    def test_can_be_handed_in(self):
        patterns = [volume(name, 100 * i, template=name) for i, name in enumerate("abc", 1)]

        policy = plan(patterns, 0.1, families=dict.fromkeys("abc", "one"))

        assert len({rate(policy, pattern) for pattern in patterns}) == 1

    def test_a_pattern_without_template_is_its_own(self):
        patterns = [volume("a", 10, template=""), volume("b", 10_000, template="")]

        policy = plan(patterns, 0.01)

        assert rate(policy, patterns[0]) == 1.0


class TestByHand:
    def test_pinned_rates_win_and_are_paid_for(self):
        patterns = [volume("a", 1000), volume("b", 1000), volume("c", 1000)]

        policy = plan(patterns, 0.4, pinned={"a": 0.9, "gone": 0.5})

        assert policy.pattern_rates["a"] == 0.9
        assert policy.pattern_rates["gone"] == 0.5
        assert rate(policy, patterns[1]) == pytest.approx(0.15)

    def test_a_pinned_rate_is_a_share(self):
        with pytest.raises(ConfigurationError, match="pinned rate of 'a'"):
            plan([], pinned={"a": 1.5})

    def test_protected_patterns_are_named_and_paid_for(self):
        patterns = [volume("a", 100, protected=True), volume("b", 900)]

        policy = plan(patterns, 0.55, pinned={"a": 0.1})

        assert policy.pattern_rates["a"] == 1.0
        assert rate(policy, patterns[1]) == 0.5

    def test_words_protect_without_a_name(self):
        patterns = [volume("a", 100, template="Audit: <*> read"), volume("b", 900)]

        policy = plan(patterns, 0.55, patterns_words=("audit",))

        assert policy.patterns == ("audit",)
        assert "a" not in policy.pattern_rates
        assert rate(policy, patterns[1]) == 0.5
        assert expected_outcome(patterns, policy).kept_bytes == pytest.approx(55_000.0)


class TestOverflow:
    def overflow(self, count, **more):
        return volume(OVERFLOW_SIGNATURE, count, template=OVERFLOW_TEMPLATE, **more)

    def test_is_paid_for_at_the_rate_of_its_severity(self):
        """A bucket kept in full, unbudgeted, is how other samplers overspend."""
        patterns = [*service(200), self.overflow(1_000_000)]

        policy = plan(patterns, 0.1)

        assert OVERFLOW_SIGNATURE not in policy.pattern_rates
        assert policy.severity_rates["INFO"] < 0.2
        assert expected_outcome(patterns, policy).kept_share <= 0.1

    def test_is_taken_for_as_many_patterns_as_have_names(self):
        patterns = [volume(i, 1000, template=f"t{i}") for i in range(10)]

        policy = plan([*patterns, self.overflow(10_000)], 0.1)

        assert {rate(policy, pattern) for pattern in patterns} == {0.1}
        assert policy.severity_rates["INFO"] == 0.1

    def test_its_protected_part_raises_no_rate(self):
        patterns = [volume("a", 900), self.overflow(50, protected=True), self.overflow(50)]

        policy = plan(patterns, 0.1, patterns_words=("audit",))

        assert OVERFLOW_SIGNATURE not in policy.pattern_rates
        assert expected_outcome(patterns, policy).kept_share == pytest.approx(0.1, rel=1e-3)


class TestSize:
    def test_a_policy_for_100_000_patterns_is_below_200_kb_gzipped(self):
        patterns = service(100_000)

        policy = plan(patterns, 0.1, families={p.template: p.template for p in patterns})

        body = gzip.compress(json.dumps(policy.to_dict()).encode(), mtime=0)
        assert len(body) < 200_000
        assert len(policy.pattern_rates) == MAX_PATTERN_RATES
        outcome = expected_outcome(patterns, policy)
        assert 0.0999 <= outcome.kept_share <= 0.1
        assert outcome.visible_share > 0.98

    @pytest.mark.parametrize("limit", [0, 1, 10, 100])
    def test_so_many_are_named_at_most_and_the_target_holds(self, limit):
        patterns = service(300)

        policy = plan(patterns, 0.1, max_pattern_rates=limit)

        assert len(policy.pattern_rates) <= limit
        assert 0.0999 <= expected_outcome(patterns, policy).kept_share <= 0.1

    def test_those_are_named_that_need_it_most(self):
        """Of many rare patterns and a few heavy ones only the heavy ones need a name."""
        patterns = [volume(i, 1 + i % 3, template=f"t{i}") for i in range(1000)]
        patterns += [volume(f"heavy{i}", 100_000, template=f"h{i}") for i in range(5)]

        policy = plan(patterns, 0.1, max_pattern_rates=10)

        assert set(policy.pattern_rates) == {f"heavy{i}" for i in range(5)}
        assert policy.severity_rates["INFO"] == 1.0

    def test_a_large_pattern_that_has_its_severitys_rate_anyway_needs_no_name(self):
        large = [volume(i, 1000, template=f"t{i}") for i in range(500)]
        rare = [volume(f"rare{i}", 5, template=f"r{i}") for i in range(10)]

        policy = plan([*large, *rare], 0.1, max_pattern_rates=10)

        assert policy.pattern_rates == {f"rare{i}": 1.0 for i in range(10)}

    def test_a_family_is_named_whole_or_not_at_all(self):
        names = [f"name{chr(97 + i)}" for i in range(8)]
        patterns = [volume(name, 5000, template=f"user {name} came in") for name in names]
        patterns += [volume(i, 1, template=f"t{i}") for i in range(50)]

        few = plan(patterns, 0.1, max_pattern_rates=7)
        enough = plan(patterns, 0.1, max_pattern_rates=8)

        assert not set(few.pattern_rates) & set(names)
        assert set(enough.pattern_rates) == set(names)


class TestPolicy:
    def test_says_what_it_was_told(self):
        policy = plan(
            service(20),
            version=7,
            keep_first=3,
            max_logs_per_minute=600,
            anomaly_boost=2.0,
            mode="shadow",
            generated_by="openai",
            created_at="2026-11-23T00:00:00+00:00",
            summary="A shop.",
        )

        assert policy.policy_id == "test"
        assert (policy.version, policy.keep_first, policy.max_logs_per_minute) == (7, 3, 600)
        assert (policy.anomaly_boost, policy.mode, policy.generated_by) == (2.0, "shadow", "openai")
        assert policy.created_at == "2026-11-23T00:00:00+00:00"
        assert policy.reasoning.startswith("A shop. To keep 10 % of ")

    def test_is_read_back_unchanged(self):
        policy = plan(service(200))

        assert SamplingPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy

    @pytest.mark.parametrize("limit", [1000, 50])
    def test_order_does_not_show(self, limit):
        patterns = service(400)
        shuffled = random.Random(3).sample(patterns, len(patterns))

        one = plan(patterns, 0.07, max_pattern_rates=limit)
        other = plan(shuffled, 0.07, max_pattern_rates=limit)

        assert json.dumps(other.to_dict()) == json.dumps(one.to_dict())

    def test_reasoning_has_the_numbers_of_the_outcome(self):
        patterns = service(300)
        policy = plan(patterns)
        outcome = expected_outcome(patterns, policy)

        assert f"{outcome.records:,.0f} records" in policy.reasoning
        assert f"{100 * outcome.visible_share:.3g} % of the patterns visible" in policy.reasoning
        assert f"{100 * outcome.mean_error:.3g} % off" in policy.reasoning


class TestRelativeError:
    @pytest.mark.parametrize("n", [1, 2, 3, 7, 20, 60])
    @pytest.mark.parametrize("p", [1e-6, 0.01, 0.1, 1 / 3, 0.5, 0.9, 0.999])
    def test_equals_the_sum_over_the_binomial_distribution(self, n, p):
        expected = math.fsum(
            math.comb(n, k) * p**k * (1 - p) ** (n - k) * abs(k / p - n) / n for k in range(n + 1)
        )

        assert relative_error(n, p) == pytest.approx(expected, rel=1e-9)

    @pytest.mark.parametrize(("n", "p"), [(81, 0.5), (1000, 0.021), (10_000, 0.998), (5000, 0.3)])
    def test_the_normal_approximation_is_good_to_half_a_percent(self, n, p):
        logs = [
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(p)
            + (n - k) * math.log1p(-p)
            for k in range(n + 1)
        ]
        expected = math.fsum(math.exp(log) * abs(k / p - n) / n for k, log in enumerate(logs))

        assert relative_error(n, p) == pytest.approx(expected, rel=5e-3)

    @pytest.mark.parametrize("n", [1e9, 1e12, 1e15, 1e18])
    def test_a_huge_count_at_a_tiny_rate_is_poisson(self, n):
        """With mean 5 the deviation is 2 exp(-5) 5^6 / 5!; logarithms of n! would be all noise."""
        expected = 2 * math.exp(-5.0) * 5.0**6 / math.factorial(5) / 5.0

        assert relative_error(n, 5.0 / n * (1 + 1e-12)) == pytest.approx(expected, rel=1e-6)

    def test_a_huge_count_of_which_little_is_dropped_is_as_far_off_as_the_drops(self):
        expected = 2 * math.exp(-5.0) * 5.0**6 / math.factorial(5) / 1e9

        assert relative_error(1e9, 1.0 - 5e-9 * (1 + 1e-6)) == pytest.approx(expected, rel=1e-4)

    def test_bounds(self):
        assert relative_error(1e18, 1.0) == 0.0
        assert relative_error(5, 0.0) == 1.0
        assert relative_error(1e18, 1e-12) == pytest.approx(math.sqrt(2 / math.pi / 1e6), rel=1e-3)
        assert relative_error(0.3, 0.999999) < 1e-3


class TestOutcome:
    def test_is_what_a_simulation_comes_to(self):
        """Ten thousand runs; the bounds are five standard errors of their means."""
        patterns = [
            volume("a", 40),
            volume("b", 3),
            volume("c", 200, "DEBUG"),
            volume("d", 4, "ERROR"),
            volume("e", 8, "WARNING"),
        ]
        rates = {"a": 0.2, "b": 0.3, "c": 0.02, "e": 0.5}
        policy = SamplingPolicy(pattern_rates=rates)
        rng = random.Random(17)
        visible, errors = [], []
        for _ in range(10_000):
            kept = {
                p.signature: sum(rng.random() < rates.get(p.signature, 1.0) for _ in range(p.count))
                for p in patterns
            }
            visible.append(sum(number > 0 for number in kept.values()))
            errors.append(
                sum(
                    abs(kept[p.signature] / rates.get(p.signature, 1.0) - p.count) / p.count
                    for p in patterns
                )
                / len(patterns)
            )

        outcome = expected_outcome(patterns, policy)

        assert outcome.visible_patterns == pytest.approx(*_mean_within(visible))
        assert outcome.mean_error == pytest.approx(*_mean_within(errors))

    def test_severities_of_a_signature_are_one_pattern(self):
        patterns = [volume("a", 2, "DEBUG"), volume("a", 1), volume("b", 10)]
        policy = SamplingPolicy(severity_rates={"DEBUG": 0.5, "INFO": 0.25}, sampling_rate=0.0)

        outcome = expected_outcome(patterns, policy)

        assert outcome.patterns == 2
        assert outcome.visible_patterns == pytest.approx(2 - 0.25 * 0.75 - 0.75**10)
        assert outcome.kept_records == pytest.approx(1.0 + 0.25 + 2.5)

    def test_errors_and_words_are_kept(self):
        patterns = [volume("a", 5, "ERROR"), volume("b", 5, template="audit read")]
        policy = SamplingPolicy(sampling_rate=0.0, patterns=("audit",))

        outcome = expected_outcome(patterns, policy)

        assert outcome.kept_share == outcome.visible_share == 1.0
        assert outcome.mean_error == 0.0

    def test_uniform_sampling_protects_nothing(self):
        patterns = [volume("a", 1, "ERROR"), volume("b", 99)]

        outcome = uniform_outcome(patterns, 0.1)

        assert outcome.kept_share == pytest.approx(0.1)
        assert outcome.visible_patterns == pytest.approx(0.1 + 1 - 0.9**99)

    def test_a_plan_beats_uniform_sampling_at_the_same_volume(self):
        patterns = service(1000)
        ours = expected_outcome(patterns, plan(patterns, 0.05))

        theirs = uniform_outcome(patterns, ours.kept_share)

        assert theirs.kept_bytes == pytest.approx(ours.kept_bytes)
        assert ours.visible_share > theirs.visible_share
        assert ours.mean_error < theirs.mean_error / 2

    def test_patterns_without_records_are_none(self):
        outcome = expected_outcome([volume("silent", 0)], SamplingPolicy())

        assert (outcome.patterns, outcome.kept_share, outcome.visible_share) == (0, 1.0, 1.0)


class TestRateReason:
    policy = SamplingPolicy(
        patterns=("audit",), pattern_rates={"a": 0.05}, severity_rates={"INFO": 0.1}
    )

    @pytest.mark.parametrize(
        ("pattern", "importance", "reason"),
        [
            (volume("a", 9, "ERROR"), None, "Kept: ERROR and above always is."),
            (
                volume("a", 9, template="audit x"),
                None,
                "Kept: its template holds a word that the policy protects.",
            ),
            (volume("b", 9), None, "10 %, the rate of INFO: the policy does not name it."),
            (
                volume("a", 4000, template="disk failed"),
                None,
                "5 %, about 200 of 4,000 records: importance 3, "
                'as INFO that speaks of failure ("failed").',
            ),
            (volume("a", 4000), 0.7, "5 %, about 200 of 4,000 records: importance 0.7, as INFO."),
        ],
    )
    def test_is_one_sentence(self, pattern, importance, reason):
        assert rate_reason(pattern, self.policy, importance) == reason


def _mean_within(values):
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return mean, None, 5.0 * math.sqrt(variance / len(values))
