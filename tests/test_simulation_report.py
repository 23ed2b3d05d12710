"""Counting in bounded memory, the figures of a report, and the geometry of its charts."""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice.families import merge_families
from lipservice.planning import expected_outcome, plan_policy, uniform_outcome
from lipservice.policy import SamplingPolicy
from lipservice.severity import SEVERITIES
from lipservice.simulation import wording
from lipservice.simulation.charts import nice_ceiling, wrap
from lipservice.simulation.console import fit, safe, width_of
from lipservice.simulation.counting import PatternCounter
from lipservice.simulation.reading import Reading, Record
from lipservice.simulation.report import build_report, volumes_of
from lipservice.simulation.treemap import Box, squarify

# So long that each message of these words is a pattern of its own, and none has siblings.
WORDS = ("alpha", "bravo", "charly", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliet")


def counted(records, **options):
    counter = PatternCounter(**options)
    for record in records:
        counter.add(Record(*record))
    return counter


def report_of(counter, policy, families=None, **options):
    reading = Reading(names=["x"], lines=1, bytes=sum(p.bytes for p in counter.patterns()))
    return build_report(
        counter,
        reading,
        policy,
        families=families or {},
        **{
            "title": "x",
            "created_at": datetime(2024, 1, 2, tzinfo=timezone.utc),
            "cost_target": 0.1,
            "price_per_gb": 0.5,
            **options,
        },
    )


RECORDS = st.lists(
    st.tuples(
        st.none() | st.floats(0, 4e9),
        st.none() | st.sampled_from(SEVERITIES),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join),
        st.integers(1, 1000),
        st.just(1),
    ),
    max_size=60,
)


class TestCounting:
    @given(RECORDS, st.integers(1, 8))
    @settings(deadline=None)
    def test_counts_are_exact_and_memory_is_bounded(self, records, most):
        counter = counted(records, most_patterns=most)
        patterns = counter.patterns()
        expected = Counter(severity or "INFO" for _, severity, *_ in records)
        found = Counter()
        for pattern in patterns:
            found[pattern.severity] += pattern.count

        assert expected == found
        assert sum(size for *_, size, _ in records) == sum(p.bytes for p in patterns)
        assert most >= sum(not pattern.overflow for pattern in patterns)
        assert sum(severity is None for _, severity, *_ in records) == counter.unlevelled

    @given(RECORDS)
    @settings(deadline=None)
    def test_the_slices_of_time_hold_every_byte_that_has_a_time(self, records):
        report = report_of(counted(records), SamplingPolicy(sampling_rate=0.25))
        timed = [record for record in records if record[0] is not None]

        assert len(report.slices) <= 192
        assert sum(size for *_, size, _ in timed) == sum(s.seen_bytes for s in report.slices)
        for each in report.slices:
            assert each.error_bytes <= each.kept_bytes + 1e-9 <= each.seen_bytes + 2e-9

    def test_messages_that_differ_in_numbers_are_one_pattern(self):
        counter = counted((None, "INFO", f"user {n} of {n * 7}", 10, 1) for n in range(1000))

        assert [(p.count, p.bytes, p.template) for p in counter.patterns()] == [
            (1000, 10_000, "user <*> of <*>")
        ]


class TestFigures:
    @given(RECORDS, st.floats(0.02, 1.0))
    @settings(deadline=None, max_examples=60)
    def test_without_siblings_they_are_those_of_the_planner(self, records, target):
        """With one severity for each message: over several, the planner's error is a bound."""
        counter = counted((t, SEVERITIES[len(m) % 6], m, n, 1) for t, _, m, n, _ in records)
        volumes = volumes_of(counter.patterns())
        policy = plan_policy(volumes, target, policy_id="x")
        report = report_of(counter, policy, cost_target=target)
        expected = expected_outcome(volumes, policy)

        for name in (
            "patterns",
            "records",
            "bytes",
            "kept_records",
            "kept_bytes",
            "visible_patterns",
            "mean_error",
        ):
            assert getattr(report.outcome, name) == pytest.approx(getattr(expected, name))
        uniform = uniform_outcome(volumes, min(1.0, expected.kept_share))
        assert report.uniform.visible_patterns == pytest.approx(uniform.visible_patterns)

    def test_siblings_are_one_row_and_visible_if_any_of_them_is(self):
        names = ("alice", "bob", "carol", "dave", "erin")
        counter = counted((None, "INFO", f"user {name} logged in", 10, 1) for name in names * 4)
        families = merge_families(p.template for p in counter.patterns())
        report = report_of(counter, SamplingPolicy(sampling_rate=0.5), families)
        (row,) = report.rows

        assert (row.template, row.count, len(row.signatures)) == ("user <*> logged in", 20, 5)
        assert (report.outcome.patterns, report.signatures) == (1, 5)
        assert report.outcome.visible_patterns == pytest.approx(1 - 0.5**20)

    def test_siblings_with_different_rates_are_missed_together(self):
        counter = counted(
            (None, "INFO", f"{name} logged in", 10, 1) for name in ("ann", "bob", "bob")
        )
        rates = {p.signature: 0.5 if "ann" in p.template else 0.2 for p in counter.patterns()}
        families = {p.template: "<*> logged in" for p in counter.patterns()}
        report = report_of(counter, SamplingPolicy(pattern_rates=rates), families)

        assert report.outcome.visible_patterns == pytest.approx(1 - (1 - 0.5) * (1 - 0.2) ** 2)
        assert report.rows[0].rate == pytest.approx((0.5 + 2 * 0.2) / 3)

    def test_expected_figures_are_what_random_sampling_comes_to(self):
        """20,000 windows drawn with a fixed seed; five standard errors."""
        import random

        rng = random.Random(1)
        counts = {"alpha": 40, "bravo": 3, "charly": 1}
        records = [(None, "INFO", name, 10, 1) for name, n in counts.items() for _ in range(n)]
        report = report_of(counted(records), SamplingPolicy(sampling_rate=0.2))
        visible, errors, windows = 0, 0.0, 20_000
        for _ in range(windows):
            for n in counts.values():
                kept = sum(rng.random() < 0.2 for _ in range(n))
                visible += kept > 0
                errors += abs(kept / 0.2 - n) / n / len(counts)

        assert report.outcome.visible_patterns == pytest.approx(visible / windows, rel=0.02)
        assert report.outcome.mean_error == pytest.approx(errors / windows, rel=0.02)

    def test_a_policy_in_shadow_mode_or_with_a_cap_is_said_so(self):
        policy = SamplingPolicy(sampling_rate=0.5, mode="shadow", max_logs_per_minute=100)
        notes = " ".join(report_of(counted([(None, "INFO", "a", 1, 1)]), policy).notes)

        assert "shadow mode" in notes
        assert "at most 100 unprotected records a minute" in notes

    def test_nothing_is_extrapolated_from_a_few_seconds(self):
        records = [(1000.0 + n, "INFO", "a", 1, 1) for n in range(5)]
        money = report_of(counted(records), SamplingPolicy()).money

        assert (money.basis, money.why_not) == ("input", "it spans only 4 s")


class TestWords:
    @pytest.mark.parametrize(
        ("share", "words"),
        [(0, "0 %"), (1, "100 %"), (0.1, "10 %"), (0.00001, "<0.01 %"), (0.0005, "0.05 %"),
         (0.012, "1.2 %"), (0.03, "3 %"), (0.999, "99.9 %"), (0.99999, "99.9 %"), (0.96, "96 %")],
    )  # fmt: skip
    def test_a_share_is_never_a_false_nothing_or_everything(self, share, words):
        assert words == wording.percent(share)

    @pytest.mark.parametrize(
        ("size", "words"),
        [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.00 kB"), (999_999, "1.00 MB"),
         (12_345_678, "12.3 MB"), (9.99e15, "9.99 PB")],
    )  # fmt: skip
    def test_bytes_have_three_digits(self, size, words):
        assert words == wording.bytes_words(size)

    @given(st.text(max_size=60), st.integers(1, 40))
    def test_text_is_fitted_to_the_column(self, text, width):
        assert width == width_of(fit(safe(text), width))

    @given(st.text(max_size=120), st.integers(1, 30), st.integers(0, 5))
    def test_wrapped_text_stays_within_its_tile(self, text, columns, lines):
        wrapped = wrap(text, columns, lines)

        assert len(wrapped) <= lines
        assert all(width_of(line) <= max(columns, 2) for line in wrapped)

    @given(st.floats(1e-3, 1e15))
    def test_a_grid_is_round_and_above_the_highest(self, highest):
        ceiling, step = nice_ceiling(highest)

        assert ceiling >= highest
        assert 1 <= round(ceiling / step) <= 5


class TestTreemap:
    @given(
        st.lists(st.floats(1, 1e6), min_size=1, max_size=60), st.floats(1, 2000), st.floats(1, 2000)
    )
    @settings(deadline=None)
    def test_tiles_are_in_proportion_and_fill_the_box_without_overlap(self, amounts, width, height):
        amounts.sort(reverse=True)
        tiles = squarify(amounts, Box(0, 0, width, height))
        scale = width * height / math.fsum(amounts)

        assert len(amounts) == len(tiles)
        for amount, tile in zip(amounts, tiles, strict=True):
            assert tile.width * tile.height == pytest.approx(amount * scale, rel=1e-6)
            assert -1e-6 <= tile.x <= tile.x + tile.width <= width * (1 + 1e-6)
            assert -1e-6 <= tile.y <= tile.y + tile.height <= height * (1 + 1e-6)
        # Their areas add up to the box; so, if none sticks out, none can overlap another.
