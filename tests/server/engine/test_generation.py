"""A generation without surprises: what people set wins, the target is met, the numbers are true."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lipservice.exceptions import ConfigurationError
from lipservice.importance import builtin_importance
from lipservice.planning import expected_outcome, plan_policy
from lipservice.policy import SamplingPolicy
from lipservice_server.policy_engine import (
    EngineSettings,
    GenerationRequest,
    PatternRow,
    generate,
)
from lipservice_server.policy_engine.consult import Verdict
from lipservice_server.policy_engine.generation import settle
from lipservice_server.policy_engine.volumes import volumes_of
from tests.server.engine.conftest import NOW, request_for, service_rows

OLD = NOW - timedelta(days=40)


def _generate(request):
    return generate(request, settings=EngineSettings(), clock=lambda: NOW)


def _row(name):
    return next(row for row in service_rows() if name in row.template)


class TestBuiltin:
    def test_it_is_what_the_planner_makes_of_the_built_in_weights(self):
        request = request_for("builtin")

        policy = _generate(request).policy

        planned = plan_policy(volumes_of(request, NOW), 0.1, policy_id="shop")
        assert policy.pattern_rates == planned.pattern_rates
        assert policy.severity_rates == planned.severity_rates

    @pytest.mark.parametrize("target", [0.02, 0.1, 0.5, 1.0])
    def test_the_kept_share_of_bytes_meets_the_target(self, target):
        result = _generate(request_for("builtin", cost_target=target))

        assert 1 - result.cost_reduction == pytest.approx(target, rel=0.01)

    def test_the_expected_reduction_is_that_of_its_own_policy(self):
        request = request_for("builtin")

        result = _generate(request)

        outcome = expected_outcome(volumes_of(request, NOW), result.policy)
        assert result.cost_reduction == 1 - outcome.kept_share

    def test_every_pattern_has_its_weight_and_a_reason(self):
        request = request_for("builtin")

        judgements = _generate(request).judgements

        assert set(judgements) == {row.signature for row in request.patterns}
        refused = judgements[_row("refused").signature]
        assert refused.importance == builtin_importance(_row("refused").template, "WARNING")
        assert refused.source == "builtin"
        assert "refused" in refused.reason

    def test_nobody_is_asked_and_the_policy_says_so(self):
        result = _generate(request_for("builtin"))

        assert result.provider_used == "builtin"
        assert result.fallback_reason is None
        assert result.policy.reasoning.startswith("The weights are the built-in ones.")
        assert (result.prompt_hash, result.model, result.answer) == ("", "", "")

    def test_the_policy_bears_the_time_the_number_and_the_name(self):
        policy = _generate(request_for("builtin", version=7)).policy

        assert policy.created_at == NOW.isoformat()
        assert policy.version == 7
        assert policy.policy_id == "shop-7"

    def test_the_documented_bare_form_needs_nothing_but_a_signature_and_a_count(self):
        request = GenerationRequest("shop", (PatternRow("abc123", 100),), 0.5)

        result = _generate(request)

        assert result.cost_reduction == pytest.approx(0.5, rel=0.01)

    def test_nothing_counted_yet_gives_a_policy_too(self):
        result = _generate(GenerationRequest("shop", (), 0.1))

        assert result.policy.severity_rates["ERROR"] == 1.0
        assert result.cost_reduction == 0.0


class TestPeople:
    def test_a_pin_is_exact_and_a_protection_is_whole(self):
        pinned, protected = _row("heartbeat").signature, _row("request").signature
        request = request_for(
            "builtin", pins={pinned: 0.123456}, protected=frozenset({protected}), cost_target=0.6
        )

        policy = _generate(request).policy

        assert policy.pattern_rates[pinned] == 0.123456
        assert policy.pattern_rates[protected] == 1.0

    def test_they_hold_for_a_pattern_that_was_not_seen_in_the_window(self):
        request = request_for("builtin", pins={"gone": 0.25}, protected=frozenset({"away"}))

        rates = _generate(request).policy.pattern_rates

        assert (rates["gone"], rates["away"]) == (0.25, 1.0)

    def test_a_pin_cannot_drop_an_error(self):
        full = _row("disk full").signature

        policy = _generate(request_for("builtin", pins={full: 0.0})).policy

        assert policy.rate_for(full, "ERROR") == 1.0

    def test_the_rest_of_the_budget_goes_to_the_others(self):
        """A pin at zero frees what its pattern would have had."""
        heavy = _row("request").signature

        result = _generate(request_for("builtin", pins={heavy: 0.0}))

        assert 1 - result.cost_reduction == pytest.approx(0.1, rel=0.01)

    def test_a_pin_leaves_the_siblings_of_its_pattern_a_family(self):
        """Five values make a family; the pinned one counts though it needs no rate."""
        names = ["alice", "bob", "carol", "dave", "erin"]
        rows = tuple(PatternRow(n, 10_000, f"user {n} logged on") for n in names)
        rows += (PatternRow("other", 10_000, "something else"),)

        rates = _generate(
            GenerationRequest("shop", rows, 0.05, pins={"erin": 0.01})
        ).policy.pattern_rates

        plain = _generate(GenerationRequest("shop", rows, 0.05)).policy.pattern_rates
        assert plain["alice"] < plain["other"] / 3
        assert 0 < rates["alice"] < rates["other"] / 3

    def test_their_words_are_in_the_policy(self):
        policy = _generate(request_for("builtin", words=("config", "Audit"))).policy

        assert policy.patterns == ("config", "Audit")

    def test_mode_and_boost_of_the_policy_in_force_are_carried_on(self):
        previous = SamplingPolicy(mode="shadow", anomaly_boost=2.5)

        policy = _generate(request_for("builtin", previous=previous)).policy

        assert (policy.mode, policy.anomaly_boost) == ("shadow", 2.5)


class TestModel:
    def test_its_judgement_moves_rates_and_is_explained(self, server, settings_for):
        request = request_for("openai", cost_target=0.02)
        builtin = _generate(request_for("builtin", cost_target=0.02)).policy

        result = generate(request, settings=settings_for(), clock=lambda: NOW)

        payment, heartbeat = _row("payment").signature, _row("heartbeat").signature
        login = _row("logged in").signature
        policy = result.policy
        assert policy.rate_for(login, "INFO") > 1.2 * builtin.rate_for(login, "INFO")
        assert policy.rate_for(heartbeat, "DEBUG") < 0.8 * builtin.rate_for(heartbeat, "DEBUG")
        assert result.judgements[payment].reason == "shows a failure"
        assert result.judgements[payment].source == "openai"
        assert result.words == ("payment",)
        assert result.summary == "Failures and payments matter most here."
        assert "Failures and payments matter most here." in policy.reasoning
        assert policy.generated_by == "openai"
        assert len(result.prompt_hash) == 64
        assert result.model == "gpt-5.4-mini"

    def test_what_it_does_not_mention_keeps_the_built_in_weight(self, server, settings_for):
        result = generate(request_for("openai"), settings=settings_for(), clock=lambda: NOW)

        reloaded = result.judgements[_row("reloaded").signature]
        assert reloaded.source == "builtin"
        assert reloaded.importance == builtin_importance("config reloaded", "INFO")

    def test_judging_all_alike_changes_nothing(self):
        """Weights are relative."""
        request = request_for("openai")
        builtin = settle(request, Verdict(), settings=EngineSettings(), now=NOW)
        factors = {row.signature: 4.0 for row in request.patterns}

        alike = settle(
            request, Verdict("openai", factors=factors), settings=EngineSettings(), now=NOW
        )

        assert alike.policy.pattern_rates == pytest.approx(builtin.policy.pattern_rates, rel=2e-3)

    def test_it_cannot_join_what_the_built_in_rules_keep_apart(self):
        """
        "failed" and "ready" are one family of templates; a model that levels their weights must
        not get the rare failure the rate of the frequent routine.
        """
        states = ["ready", "idle", "busy", "done", "warm", "failed"]
        rows = tuple(
            PatternRow(state, 20 if state == "failed" else 200_000, f"worker state is now {state}")
            for state in states
        )
        request = GenerationRequest("shop", rows, 0.01, "openai")
        builtin = settle(request, Verdict(), settings=EngineSettings(), now=NOW).policy
        # 2 for the others is of the magnitude of 3, which "failed" has by itself.
        factors = dict.fromkeys(states, 2.0) | {"failed": 1.0}

        policy = settle(
            request, Verdict("openai", factors=factors), settings=EngineSettings(), now=NOW
        ).policy

        assert policy.rate_for("failed", "INFO") >= builtin.rate_for("failed", "INFO") / 4 * 0.998
        assert policy.rate_for("failed", "INFO") > 20 * policy.rate_for("ready", "INFO")

    def test_it_cannot_starve_a_pattern_by_splitting_families(self):
        """Each part of a split family wants a budget of its own; only the floors hold it then."""
        names = [
            "alpha",
            "beta",
            "gamma",
            "delta",
            "omega",
            "sigma",
            "kappa",
            "theta",
            "zeta",
            "eta",
        ]
        rows = [PatternRow("victim", 10**6, "the one that matters")]
        rows += [
            PatternRow(f"{a}{b}", 10**5, f"{a * 2}ish thing is {b}") for a in names for b in names
        ]
        request = GenerationRequest("shop", tuple(rows), 0.01, "openai")
        builtin = settle(request, Verdict(), settings=EngineSettings(), now=NOW).policy
        factors = {row.signature: 2.0 ** (n % 5 - 2) for n, row in enumerate(rows)}
        factors["victim"] = 0.25

        policy = settle(
            request, Verdict("openai", factors=factors), settings=EngineSettings(), now=NOW
        ).policy

        assert policy.rate_for("victim", "INFO") >= builtin.rate_for("victim", "INFO") / 4 * 0.998


class TestNewWarnings:
    def _rows(self, first_seen, count=50):
        return (
            *(
                PatternRow(r.signature, r.count, r.template, r.severity, r.mean_bytes, OLD)
                for r in service_rows()
            ),
            PatternRow("new", count, "lease of <*> is odd", "WARNING", 100.0, first_seen),
        )

    @pytest.mark.parametrize(("age", "kept"), [(1, True), (23, True), (25, False), (900, False)])
    def test_a_warning_of_the_last_day_is_kept_whole(self, age, kept):
        rows = self._rows(NOW - timedelta(hours=age), count=500)

        policy = _generate(request_for("builtin", patterns=rows, cost_target=0.01)).policy

        assert (policy.rate_for("new", "WARNING") == 1.0) is kept

    def test_not_where_it_would_take_the_budget(self):
        rows = self._rows(NOW, count=10**6)

        policy = _generate(request_for("builtin", patterns=rows)).policy

        assert policy.rate_for("new", "WARNING") < 1.0

    def test_not_in_a_service_that_is_new_itself(self):
        rows = tuple(
            PatternRow(r.signature, r.count, r.template, r.severity, r.mean_bytes, NOW)
            for r in service_rows()
        )

        policy = _generate(request_for("builtin", patterns=rows)).policy

        plain = _generate(request_for("builtin")).policy
        assert policy.pattern_rates == plain.pattern_rates

    def test_a_pin_wins_over_novelty(self):
        rows = self._rows(NOW)

        policy = _generate(request_for("builtin", patterns=rows, pins={"new": 0.1})).policy

        assert policy.rate_for("new", "WARNING") == 0.1


class TestSeverities:
    def test_the_errors_of_a_mixed_pattern_are_paid_for_first(self):
        mixed = PatternRow(
            "m", 1_000, "job <*>", "INFO", severity_distribution={"INFO": 9, "ERR": 1}
        )

        volumes = volumes_of(GenerationRequest("shop", (mixed,), 0.5), NOW)

        assert {v.severity: v.count for v in volumes} == {"INFO": 900.0, "ERROR": 100.0}
        policy = _generate(GenerationRequest("shop", (mixed,), 0.5)).policy
        assert policy.rate_for("m", "INFO") == pytest.approx(400 / 900, rel=1e-3)

    @pytest.mark.parametrize("distribution", [{}, {"INFO": 0}, {"WARNING": 0.0, "ERROR": 0}])
    def test_without_counts_all_records_have_the_patterns_severity(self, distribution):
        row = PatternRow("m", 10, "x", "warn", severity_distribution=distribution)

        (volume,) = volumes_of(GenerationRequest("shop", (row,), 0.5), NOW)

        assert (volume.severity, volume.count) == ("WARNING", 10)


class TestBoundary:
    @pytest.mark.parametrize(
        "changes",
        [
            {"cost_target": 0.0},
            {"cost_target": 1.01},
            {"cost_target": float("nan")},
            {"cost_target": True},
            {"provider": "gemini"},
            {"pins": {"x": 1.5}},
            {"pins": {"x": float("nan")}},
            {"window_seconds": 0},
            {"tokens_allowed": -1},
            {"patterns": (PatternRow("a", 1), PatternRow("a", 2))},
        ],
    )
    def test_a_request_out_of_range_is_refused(self, changes):
        fields = {"patterns": (), "cost_target": 0.1, **changes}

        with pytest.raises(ConfigurationError):
            GenerationRequest("shop", **fields)

    @pytest.mark.parametrize(
        "fields",
        [
            {"signature": ""},
            {"signature": "x" * 129},
            {"count": -1},
            {"count": float("inf")},
            {"count": 10**400},
            {"count": True},
            {"mean_bytes": 0},
            {"mean_bytes": float("nan")},
            {"first_seen": NOW.replace(tzinfo=None)},
            {"severity_distribution": {"INFO": -1}},
        ],
    )
    def test_a_row_out_of_range_is_refused(self, fields):
        with pytest.raises(ConfigurationError):
            PatternRow(**{"signature": "a", "count": 1, **fields})

    @pytest.mark.parametrize(
        "fields",
        [
            {"timeout_seconds": 0},
            {"timeout_seconds": float("inf")},
            {"max_prompt_patterns": 0},
            {"max_template_length": 0},
            {"max_output_tokens": 0},
            {"max_words": -1},
            {"max_words_share": 1.5},
        ],
    )
    def test_settings_out_of_range_are_refused(self, fields):
        with pytest.raises(ConfigurationError, match=next(iter(fields))):
            EngineSettings(**fields)
