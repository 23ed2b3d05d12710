"""What a person reads before approving a policy is true of the counts it was reckoned from."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice.optimizer import PatternVolume
from lipservice.planning import expected_outcome, plan_policy
from lipservice.policy import SamplingPolicy
from lipservice_server.policy_engine.difference import difference, replay

seeded = settings(max_examples=100, deadline=None, derandomize=True)


def _volume(name, count=1_000.0, severity="INFO", size=100.0, template=None):
    return PatternVolume(name, template or f"{name} happened", severity, count, size)


def _policy(rates=(), *, severities=(), default=1.0, words=(), **fields):
    return SamplingPolicy(
        pattern_rates=dict(rates),
        severity_rates=dict(severities),
        sampling_rate=default,
        patterns=tuple(words),
        **fields,
    )


_VOLUMES = st.lists(
    st.builds(
        PatternVolume,
        signature=st.sampled_from("abcdefgh"),
        template=st.sampled_from(["one thing", "audit thing", ""]),
        severity=st.sampled_from(["DEBUG", "INFO", "WARNING", "ERROR"]),
        count=st.integers(0, 10**6).map(float),
        mean_bytes=st.floats(1, 1_000),
    ),
    max_size=12,
    unique_by=lambda v: (v.signature, v.severity),
)
_POLICIES = st.builds(
    _policy,
    st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1)),
    severities=st.dictionaries(st.sampled_from(["DEBUG", "INFO", "WARNING"]), st.floats(0, 1)),
    default=st.floats(0, 1),
    words=st.sampled_from([(), ("audit",)]),
    keep_first=st.integers(0, 50),
    max_logs_per_minute=st.none() | st.integers(0, 10_000),
)


class TestDifference:
    def test_a_policy_does_not_differ_from_itself(self):
        policy, volumes = _policy({"a": 0.5}), [_volume("a"), _volume("b")]

        found = difference(policy, policy, volumes)

        assert (found.rarer, found.more_frequent, found.disappearing) == ((), (), ())
        assert (found.newly_protected, found.no_longer_protected) == ((), ())
        assert found.summary == "keeps as much of the volume; no pattern disappears"

    def test_the_summary_says_it_in_a_sentence(self):
        before = _policy(default=0.5)
        after = _policy({"a": 0.3, "b": 0.46, "c": 0.45}, default=0.5)
        volumes = [_volume(name) for name in "abcdefg"]

        assert difference(before, after, volumes).summary == (
            "keeps 4.1 % of the volume less; 3 patterns get rarer; no pattern disappears"
        )

    def test_what_rises_and_what_is_kept_whole_is_told_apart(self):
        before = _policy(default=0.1)
        after = _policy({"a": 1.0, "b": 0.2}, default=0.1)

        found = difference(before, after, [_volume("a"), _volume("b"), _volume("c")])

        assert [c.signature for c in found.more_frequent] == ["a", "b"]
        assert [c.signature for c in found.newly_protected] == ["a"]
        assert found.summary == (
            "keeps 33 % of the volume more; 2 patterns get more frequent; "
            "1 pattern is newly kept whole; no pattern disappears"
        )
        back = difference(after, before, [_volume("a"), _volume("b"), _volume("c")])
        assert [c.signature for c in back.no_longer_protected] == ["a"]

    def test_a_word_protects_in_the_difference_as_in_the_process(self):
        after = _policy(default=0.1, words=["Audit"])

        found = difference(
            _policy(default=0.1), after, [_volume("a", template="audit of <*>"), _volume("b")]
        )

        assert [c.signature for c in found.newly_protected] == ["a"]
        assert found.words_added == ("Audit",)
        assert difference(after, _policy(), []).words_removed == ("Audit",)

    def test_an_error_never_changes(self):
        found = difference(
            _policy(), _policy({"a": 0.0}, default=0.0), [_volume("a", severity="FATAL")]
        )

        assert (found.rarer, found.kept_bytes) == ((), 0.0)

    @pytest.mark.parametrize(("rate", "lost"), [(0.0, True), (0.0005, True), (0.001, False)])
    def test_a_pattern_disappears_where_it_is_likelier_unseen(self, rate, lost):
        """Of 1,000 records none is kept with probability .61 at .0005, and .37 at .001."""
        found = difference(_policy(), _policy({"a": rate}), [_volume("a")])

        assert ([c.signature for c in found.disappearing] == ["a"]) is lost
        assert ("1 pattern disappears" in found.summary) is lost

    def test_counts_too_poor_to_trust_are_named_the_largest_first(self):
        """At 4 expected records a count is some 40 % off, at 1,000 some 2 %."""
        after = _policy({"a": 0.004, "b": 0.0004, "c": 0.5})
        volumes = [_volume("a"), _volume("b", 10_000.0), _volume("c")]

        found = difference(_policy(), after, volumes)

        assert [c.signature for c in found.poorly_counted] == ["b", "a"]
        assert found.summary.endswith("2 patterns are counted too poorly to trust")
        assert difference(_policy(), after, volumes, poor=0.9).poorly_counted == ()

    def test_severity_rates_are_those_that_differ(self):
        before = _policy(severities={"INFO": 0.1, "DEBUG": 0.1}, default=0.5)
        after = _policy(severities={"INFO": 0.1, "DEBUG": 0.2, "WARNING": 0.7}, default=0.5)

        found = difference(before, after, [])

        assert found.severity_rates == {"DEBUG": (0.1, 0.2), "WARNING": (0.5, 0.7)}

    def test_the_largest_change_comes_first(self):
        volumes = [_volume("small", 10.0), _volume("large", 1e5), _volume("middle")]

        found = difference(_policy(), _policy(default=0.1), volumes)

        assert [c.signature for c in found.rarer] == ["large", "middle", "small"]

    @seeded
    @given(_VOLUMES, _POLICIES, _POLICIES)
    def test_it_adds_up_to_the_planners_expectations(self, volumes, before, after):
        found = difference(before, after, volumes)

        old, new = expected_outcome(volumes, before), expected_outcome(volumes, after)
        assert (found.before, found.after) == (old, new)
        assert math.isclose(found.kept_bytes, new.kept_bytes - old.kept_bytes, abs_tol=1e-6)
        for change in (*found.rarer, *found.more_frequent):
            assert 0.0 <= change.before <= 1.0
            assert 0.0 <= change.after <= 1.0
            assert (change.kept_bytes < 0) == (change in found.rarer) or change.kept_bytes == 0
        assert not set(found.rarer) & set(found.more_frequent)
        assert set(found.newly_protected) <= set(found.more_frequent)
        assert set(found.no_longer_protected) <= set(found.rarer)

    def test_it_is_quick_for_a_large_service(self):
        random = Random(1)
        volumes = [_volume(f"{n:x}", 10 ** random.uniform(0, 5)) for n in range(20_000)]
        policy = plan_policy(volumes, 0.05, policy_id="x", families={})

        found = difference(_policy(default=0.05), policy, volumes)

        assert found.before.patterns == 20_000


class TestReplay:
    def test_without_first_records_and_limit_it_is_the_planners_expectation(self):
        volumes = [_volume("a"), _volume("b", severity="ERROR"), _volume("c", severity="DEBUG")]
        policy = _policy({"a": 0.1}, default=0.5, keep_first=0)

        found = replay(policy, volumes)

        outcome = expected_outcome(volumes, policy)
        assert math.isclose(found.kept_bytes, outcome.kept_bytes)
        assert math.isclose(found.kept_share, outcome.kept_share)
        assert found.severities == {
            "INFO": (100.0, 1_000.0),
            "ERROR": (1_000.0, 1_000.0),
            "DEBUG": (500.0, 1_000.0),
        }
        assert {p.signature: p.kept for p in found.patterns} == {"a": 100, "b": 1_000, "c": 500}

    def test_each_process_keeps_the_first_records_of_a_pattern(self):
        policy = _policy(default=0.1, keep_first=10)

        found = replay(policy, [_volume("a"), _volume("rare", 7.0)], processes=4)

        assert found.first_records == 47.0
        assert {p.signature: p.kept for p in found.patterns} == {"a": 40 + 96, "rare": 7.0}

    def test_the_severities_of_a_pattern_share_its_first_records(self):
        volumes = [_volume("a", 900.0), _volume("a", 100.0, "DEBUG")]

        found = replay(_policy(default=0.0, keep_first=10), volumes)

        assert found.severities == {"INFO": (9.0, 900.0), "DEBUG": (1.0, 100.0)}
        assert found.kept_records == 10.0

    def test_the_limit_scales_what_is_not_protected(self):
        policy = _policy(keep_first=0, max_logs_per_minute=50)

        found = replay(policy, [_volume("a"), _volume("e", severity="ERROR")], window_seconds=600)

        assert found.limit_factor == 0.5
        assert found.severities == {"INFO": (500.0, 1_000.0), "ERROR": (1_000.0, 1_000.0)}

    def test_a_limit_that_is_not_reached_changes_nothing(self):
        found = replay(_policy(max_logs_per_minute=101), [_volume("a")], window_seconds=600)

        assert found.limit_factor == 1.0
        assert found.kept_records == 1_000.0

    @seeded
    @given(_VOLUMES, _POLICIES, st.integers(1, 50), st.none() | st.floats(1, 10**6))
    def test_no_more_is_kept_than_there_is_and_every_error_is(
        self, volumes, policy, processes, window
    ):
        found = replay(policy, volumes, processes=processes, window_seconds=window)

        errors = sum(v.count for v in volumes if v.severity == "ERROR")
        assert errors - 1e-6 <= found.kept_records <= found.records * (1 + 1e-9)
        assert math.isclose(found.kept_records, sum(p.kept for p in found.patterns), abs_tol=1e-6)
        if policy.max_logs_per_minute is not None and window is not None:
            protected = sum(
                v.count for v in volumes if v.severity == "ERROR" or policy.protects(v.template)
            )
            room = policy.max_logs_per_minute * window / 60
            assert found.kept_records <= protected + room + 1e-6
