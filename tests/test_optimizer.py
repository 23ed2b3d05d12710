"""The optimizer: against a general solver, an oracle of its own kind, and the KKT conditions."""

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice.exceptions import ConfigurationError
from lipservice.optimizer import PatternVolume, fill, optimize_rates

sizes = st.floats(1e-3, 1e5)
counts = st.one_of(st.integers(1, 50), st.integers(1, 10**6), st.floats(0.01, 1e4))
weights = st.floats(0.01, 100.0)
floors = st.one_of(st.just(0.0), st.floats(0.0, 1.0), st.just(1.0))
targets = st.floats(0.0, 1.0)
seeded = settings(max_examples=120, deadline=None, derandomize=True)


def volume(name, count, size=100.0, weight=1.0, floor=0.0, severity="INFO", **more):
    return PatternVolume(
        str(name), f"template {name}", severity, count, size, weight, floor, **more
    )


@st.composite
def problems(draw, floors=floors, most=12):
    number = draw(st.integers(1, most))
    return [
        volume(i, draw(counts), draw(sizes), draw(weights), draw(floors)) for i in range(number)
    ]


def rates_in_order(patterns, plan):
    return [plan.rates[pattern.signature] for pattern in patterns]


def objective(patterns, rates):
    return math.fsum(
        p.importance * (1.0 - r) / (r * p.count) for p, r in zip(patterns, rates, strict=True)
    )


def cost(patterns, rates):
    return math.fsum(p.total_bytes * r for p, r in zip(patterns, rates, strict=True))


def rates_by_bisection(patterns, budget):
    """An oracle that shares no step with the optimizer: bisection on the multiplier's logarithm."""

    def rates(log_multiplier):
        multiplier = math.exp(log_multiplier)
        return [
            min(1.0, max(p.floor, math.sqrt(p.importance / (p.mean_bytes * multiplier)) / p.count))
            for p in patterns
        ]

    low, high = -500.0, 500.0
    for _ in range(200):
        middle = (low + high) / 2.0
        if cost(patterns, rates(middle)) > budget:
            low = middle
        else:
            high = middle
    return rates(high)


class TestOptimum:
    @seeded
    @given(problems(), targets)
    def test_equals_bisection_on_the_multiplier(self, patterns, target):
        plan = optimize_rates(patterns, target)

        if plan.feasible and plan.kept_share < 1.0:
            expected = rates_by_bisection(patterns, plan.target_bytes)
            assert rates_in_order(patterns, plan) == pytest.approx(expected, rel=1e-6, abs=1e-12)

    @pytest.mark.parametrize("seed", range(25))
    def test_no_general_solver_finds_better(self, seed):
        optimize = pytest.importorskip("scipy.optimize")
        rng = random.Random(seed)
        patterns = [
            volume(
                i,
                rng.randint(1, 400),
                rng.uniform(20.0, 500.0),
                rng.choice([0.3, 1.0, 3.0]),
                rng.choice([0.0, 0.0, rng.uniform(0.0, 0.2)]),
            )
            for i in range(rng.randint(2, 8))
        ]
        plan = optimize_rates(patterns, rng.uniform(0.25, 0.9))
        ours = rates_in_order(patterns, plan)

        found = optimize.minimize(
            lambda rates: objective(patterns, rates),
            [plan.kept_share] * len(patterns),
            jac=lambda rates: [
                -p.importance / (r * r * p.count) for p, r in zip(patterns, rates, strict=True)
            ],
            bounds=[(max(p.floor, 1e-6), 1.0) for p in patterns],
            constraints=optimize.LinearConstraint(
                [p.total_bytes / plan.target_bytes for p in patterns], -math.inf, 1.0
            ),
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-12},
        )

        assert plan.feasible
        assert cost(patterns, ours) <= plan.target_bytes * (1.0 + 1e-12)
        assert objective(patterns, ours) <= found.fun * (1.0 + 1e-9) + 1e-12
        if found.success:
            assert list(found.x) == pytest.approx(ours, rel=1e-2, abs=1e-3)

    @seeded
    @given(problems(), targets)
    def test_satisfies_the_kkt_conditions(self, patterns, target):
        plan = optimize_rates(patterns, target)
        price = plan.multiplier
        if not 0.0 < price < math.inf:
            return
        for p, rate in zip(patterns, rates_in_order(patterns, plan), strict=True):
            gain = p.importance / (rate * rate * p.count) if rate else math.inf
            byte_price = price * p.total_bytes
            if rate < 1.0:  # one more byte would not pay
                assert gain <= byte_price * (1.0 + 1e-6)
            if rate > p.floor:  # one byte less would not pay
                assert gain >= byte_price * (1.0 - 1e-6)

    @seeded
    @given(problems(floors=st.just(0.0)), st.floats(0.01, 0.99))
    def test_multiplier_is_what_one_more_byte_is_worth(self, patterns, target):
        plan = optimize_rates(patterns, target)
        total = plan.total_bytes
        step = 1e-6
        more = optimize_rates(patterns, target + step)
        change = objective(patterns, rates_in_order(patterns, plan)) - objective(
            patterns, rates_in_order(patterns, more)
        )

        worth = change / (step * total)

        assert more.multiplier * (1.0 - 1e-3) <= worth + 1e-12 / (step * total)
        assert worth - 1e-9 / (step * total) <= plan.multiplier * (1.0 + 1e-3)

    def test_expected_kept_records_go_with_the_square_root_of_importance_over_size(self):
        patterns = [
            volume("a", 1000.0, 100.0, 1.0),
            volume("b", 5000.0, 100.0, 4.0),
            volume("c", 9000.0, 400.0, 1.0),
        ]

        rates = optimize_rates(patterns, 0.01).rates

        assert rates["b"] * 5000 == pytest.approx(2 * rates["a"] * 1000)
        assert rates["c"] * 9000 == pytest.approx(rates["a"] * 1000 / 2)

    def test_equal_patterns_have_the_target_as_their_rate(self):
        """Every corner falls together: ties are no special case."""
        plan = optimize_rates([volume(i, 70) for i in range(1000)], 0.125)

        assert set(plan.rates.values()) == {0.125}


class TestBudget:
    @seeded
    @given(problems(), targets)
    def test_is_met_and_never_exceeded(self, patterns, target):
        plan = optimize_rates(patterns, target)

        assert plan.kept_bytes == pytest.approx(cost(patterns, rates_in_order(patterns, plan)))
        if plan.feasible:
            assert plan.kept_bytes <= plan.target_bytes * (1.0 + 1e-12)
            assert plan.kept_bytes == pytest.approx(plan.target_bytes, rel=1e-9)

    @seeded
    @given(problems(), targets, targets)
    def test_more_budget_lowers_no_rate(self, patterns, one, other):
        less = optimize_rates(patterns, min(one, other))
        more = optimize_rates(patterns, max(one, other))

        for signature, rate in less.rates.items():
            assert more.rates[signature] >= rate * (1.0 - 1e-9)

    @seeded
    @given(problems(), targets)
    def test_floors_hold(self, patterns, target):
        plan = optimize_rates(patterns, target)

        for pattern in patterns:
            assert pattern.floor <= plan.rates[pattern.signature] <= 1.0

    def test_floors_that_cost_more_than_the_target_stay_and_the_plan_says_so(self):
        patterns = [volume("a", 100, floor=0.5), volume("b", 100, floor=0.25)]

        plan = optimize_rates(patterns, 0.125)

        assert plan.rates == {"a": 0.5, "b": 0.25}
        assert not plan.feasible
        assert plan.shortfall_bytes == pytest.approx(7500.0 - 2500.0)
        assert plan.multiplier == math.inf

    def test_floors_that_cost_just_the_target_are_feasible(self):
        """Sums that differ in their last bit only are the same sum."""
        rng = random.Random(2)
        for _ in range(200):
            share = rng.random()
            patterns = [volume(i, rng.uniform(1, 9), floor=share) for i in range(9)]

            plan = optimize_rates(patterns, share)

            assert plan.feasible
            assert list(plan.rates.values()) == pytest.approx([share] * 9)

    def test_everything_is_kept_if_the_target_says_so(self):
        plan = optimize_rates([volume("a", 100), volume("b", 5, weight=0.0)], 1.0)

        assert plan.rates == {"a": 1.0, "b": 1.0}
        assert plan.multiplier == 0.0

    def test_nothing_is_kept_of_what_is_not_protected_if_the_target_says_so(self):
        plan = optimize_rates([volume("a", 100), volume("b", 5)], 0.0)

        assert plan.rates == {"a": 0.0, "b": 0.0}
        assert plan.feasible


class TestProtected:
    def test_is_kept_and_paid_for_first(self):
        patterns = [
            volume("audit", 100, protected=True),
            volume("broken", 200, severity="ERROR"),
            volume("a", 700),
        ]

        plan = optimize_rates(patterns, 0.5)

        assert plan.rates["audit"] == plan.rates["broken"] == 1.0
        assert plan.rates["a"] == pytest.approx(200 / 700)
        assert plan.protected_bytes == 30_000.0
        assert plan.kept_bytes == pytest.approx(50_000.0)
        assert plan.kept_records == pytest.approx(500.0)

    def test_exceeding_the_target_leaves_the_others_at_their_floors(self):
        patterns = [volume("broken", 300, severity="FATAL"), volume("a", 700, floor=0.01)]

        plan = optimize_rates(patterns, 0.1)

        assert plan.rates == {"broken": 1.0, "a": 0.01}
        assert plan.shortfall_bytes == pytest.approx(30_700.0 - 10_000.0)

    def test_errors_of_a_signature_are_apart_from_its_other_records(self):
        """The rate of a signature is for what is not always kept; severities below share it."""
        patterns = [
            volume("a", 60, severity="DEBUG"),
            volume("a", 40, severity="INFO"),
            volume("a", 50, severity="ERROR"),
            volume("b", 100),
        ]

        plan = optimize_rates(patterns, 0.4)

        assert plan.rates["a"] == pytest.approx(plan.rates["b"])
        assert plan.rates["a"] == pytest.approx(50 / 200)


class TestSharedRates:
    def test_cells_of_a_signature_are_one_pattern(self):
        split = [volume("a", 70, 150.0, 3.0, 0.9, "WARNING"), volume("a", 30, 50.0, 1.0)]
        whole = volume("a", 100, 120.0, 2.4, 0.9)
        others = [volume("b", 50), volume("c", 900)]

        assert optimize_rates([whole, *others], 0.2).rates["a"] == 0.9
        assert optimize_rates([*split, *others], 0.2).rates == pytest.approx(
            optimize_rates([whole, *others], 0.2).rates
        )

    def test_members_of_a_family_share_the_rate_of_their_sum(self):
        members = [volume(name, 20) for name in "abcde"]
        families = dict.fromkeys("abcde", "family")
        other = volume("other", 100)

        plan = optimize_rates([*members, other], 0.1, families=families)

        assert {plan.rates[name] for name in "abcde"} == {plan.rates["other"]}
        assert plan.rates["a"] == pytest.approx(0.1)

    def test_a_family_does_not_gain_importance_by_its_size(self):
        members = [volume(i, 10) for i in range(50)]
        other = volume("other", 500)

        plan = optimize_rates([*members, other], 0.1, families={str(i): "f" for i in range(50)})

        assert plan.rates["0"] == pytest.approx(plan.rates["other"])


class TestInvariance:
    @seeded
    @given(problems(), targets, st.randoms(use_true_random=False))
    def test_order_does_not_matter(self, patterns, target, rng):
        shuffled = rng.sample(patterns, len(patterns))

        one, other = optimize_rates(patterns, target), optimize_rates(shuffled, target)

        assert other.rates == pytest.approx(dict(one.rates), rel=1e-9)

    @seeded
    @given(problems(), targets, st.sampled_from(["count", "mean_bytes", "importance"]))
    def test_units_do_not_matter(self, patterns, target, field):
        scaled = [replace(p, **{field: getattr(p, field) * 1024.0}) for p in patterns]

        one, other = optimize_rates(patterns, target), optimize_rates(scaled, target)

        assert other.rates == pytest.approx(dict(one.rates), rel=1e-9)
        assert other.kept_share == pytest.approx(one.kept_share)

    def test_repeats_are_the_same_to_the_last_bit(self):
        rng = random.Random(7)
        patterns = [volume(i, rng.randint(1, 9999), rng.uniform(1, 999)) for i in range(500)]

        assert optimize_rates(patterns, 0.1) == optimize_rates(patterns, 0.1)


class TestExtremes:
    def test_a_pattern_without_records_or_size_is_kept(self):
        patterns = [volume("silent", 0), volume("empty", 10, 0.0), volume("a", 100)]

        plan = optimize_rates(patterns, 0.25)

        assert plan.rates == {"silent": 1.0, "empty": 1.0, "a": 0.25}

    def test_no_pattern_at_all(self):
        plan = optimize_rates([], 0.1)

        assert plan.rates == {}
        assert plan.feasible
        assert plan.kept_share == 1.0

    def test_importance_zero_waits_until_all_others_are_kept_in_full(self):
        patterns = [
            volume("a", 100),
            volume("idle", 100, weight=0.0, floor=0.1),
            volume("also idle", 300, weight=0.0),
        ]

        assert optimize_rates(patterns, 0.1).rates == pytest.approx(
            {"a": 0.4, "idle": 0.1, "also idle": 0.0}
        )
        plan = optimize_rates(patterns, 0.4)
        assert plan.rates == pytest.approx({"a": 1.0, "idle": 0.25, "also idle": 0.25})
        assert plan.kept_bytes == pytest.approx(plan.target_bytes)
        assert plan.multiplier == 0.0

    @seeded
    @given(
        st.lists(
            st.builds(
                volume,
                st.integers(0, 10**6),
                st.sampled_from([0.0, 1e-9, 1.0, 3.0, 1e9, 1e18]),
                st.sampled_from([0.0, 1e-12, 1.0, 1e6]),
                st.sampled_from([0.0, 1e-12, 1.0, 1e12]),
                st.sampled_from([0.0, 1e-15, 0.5, 1.0]),
            ),
            max_size=20,
        ),
        st.sampled_from([0.0, 1e-15, 1e-3, 0.5, 1.0 - 1e-15, 1.0]),
    )
    def test_magnitudes_that_differ_without_measure(self, patterns, target):
        """Twenty-seven orders of magnitude in one sum: the budget and the bounds still hold."""
        plan = optimize_rates(patterns, target)

        assert all(0.0 <= rate <= 1.0 for rate in plan.rates.values())
        if plan.feasible:
            assert plan.kept_bytes <= plan.target_bytes * (1.0 + 1e-9)
        if math.isfinite(plan.multiplier) and plan.multiplier > 0.0:
            assert plan.kept_bytes == pytest.approx(plan.target_bytes, rel=1e-9)

    def test_a_small_slope_is_not_lost_beside_large_ones_that_have_ended(self):
        """Subtracting the slope of a bowl that is full would leave only rounding errors here."""
        patterns = [volume("large", 1, 1e12, 1e4), volume("small", 1e6, 1e-8, 1e-8)]

        filling = fill(
            [p.total_bytes for p in patterns],
            [p.importance / p.count for p in patterns],
            [0.0, 0.0],
            1e12 + 0.0078125,
        )

        assert filling.rates[0] == 1.0
        assert filling.rates[1] == pytest.approx(0.78125)

    def test_three_thousand_patterns(self):
        rng = random.Random(5)
        patterns = [
            volume(i, int(rng.paretovariate(0.7)), rng.uniform(40, 400), rng.choice([0.3, 1, 3]))
            for i in range(3000)
        ]

        plan = optimize_rates(patterns, 0.01)

        assert plan.kept_bytes == pytest.approx(plan.target_bytes, rel=1e-12)
        expected = rates_by_bisection(patterns, plan.target_bytes)
        assert rates_in_order(patterns, plan) == pytest.approx(expected, rel=1e-6)


class TestInput:
    @pytest.mark.parametrize("target", [-0.1, 1.1, math.nan, math.inf])
    def test_target_is_a_share(self, target):
        with pytest.raises(ConfigurationError, match="cost_target"):
            optimize_rates([], target)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("count", -1),
            ("count", math.inf),
            ("mean_bytes", math.nan),
            ("importance", -0.5),
            ("floor", 1.5),
        ],
    )
    def test_numbers_out_of_range_are_named(self, field, value):
        with pytest.raises(ConfigurationError, match=field):
            replace(volume("a", 1), **{field: value})

    def test_bytes_must_add_up_to_a_number(self):
        with pytest.raises(ConfigurationError, match="count \\* mean_bytes"):
            optimize_rates([volume("a", 1e200, 1e200)], 0.1)

    def test_severities_are_read_in_any_spelling(self):
        assert volume("a", 1, severity="warn").severity == "WARNING"
        assert volume("a", 1, severity="Fatal").always_kept
