"""The Python SDK obeys tests/conformance/02-decision.json, as every SDK does."""

import json
import logging
import random
from datetime import datetime
from pathlib import Path

import pytest

from lipservice._throttle import MinuteWindow
from lipservice.decision import Decision
from lipservice.integrations.stdlib import SamplingFilter
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import RecorderLimits, RequestScope, randomness_text, threshold_text
from lipservice.severity import severity_name

VECTORS = json.loads(
    (Path(__file__).parent / "conformance" / "02-decision.json").read_text(encoding="utf-8")
)


class Uniform(random.Random):
    """Draws one given number: the engine asks for 1 - u."""

    def __init__(self, uniform):
        super().__init__(0)
        self._drawn = 1.0 - uniform

    def random(self):
        return self._drawn


@pytest.mark.parametrize(("name", "severity"), VECTORS["severity_names"].items())
def test_severity_names(name, severity):
    assert severity_name(name) == severity


@pytest.mark.parametrize(
    "case", VECTORS["decisions"], ids=lambda c: f"{c['message']}-{c['severity']}-{c['seen_before']}"
)
def test_decisions(case):
    sampler = AdaptiveSampler(policy=SamplingPolicy.from_dict(VECTORS["policy"]), notices=False)
    for _ in range(case["seen_before"]):
        sampler.should_sample(case["message"], case["severity"])

    explanation = sampler.explain(case["message"], case["severity"])

    sampler.shutdown()
    assert (explanation.rule, explanation.rate) == (case["rule"], case["rate"])


@pytest.mark.parametrize("case", VECTORS["gaps"], ids=str)
def test_gaps(case):
    policy = SamplingPolicy(sampling_rate=case["rate"], keep_first=0)
    sampler = AdaptiveSampler(policy=policy, notices=False, rng=Uniform(case["uniform"]))
    if not sampler._counts_down:
        pytest.skip("this interpreter draws for each record")
    gap = 0
    while not sampler.should_sample("x", "INFO"):
        gap += 1

    sampler.shutdown()
    assert gap == case["dropped_before_the_next_kept"]


@pytest.mark.parametrize("case", VECTORS["requests"], ids=str)
def test_requests(case):
    scope = RequestScope(None, int(case["trace_id"][-14:], 16), RecorderLimits())

    assert threshold_text(case["rate"]) == case["threshold"]
    assert randomness_text(scope.randomness) == case["randomness"]
    assert scope.keeps(case["rate"]) is case["kept"]


def window(limit, kept):
    window = MinuteWindow(limit, lambda: 0.0)
    for _ in range(kept):
        window.take()
    return window


@pytest.mark.parametrize("case", VECTORS["limit"], ids=str)
def test_limit(case):
    guard = window(case["limit"], case["kept"])

    assert guard.chance() == case["chance"]
    assert guard.is_full() is (case["kept"] >= case["limit"])


def sampler_at_the_limit(rate, chance):
    """A sampler whose window has been filled by first records until the guard says *chance*."""
    limit, kept = next(
        (case["limit"], case["kept"])
        for case in VECTORS["limit"]
        if case["chance"] == chance and case["limit"] > 0
    )
    filling = SamplingPolicy(keep_first=kept, max_logs_per_minute=limit)
    sampler = AdaptiveSampler(policy=filling, notices=False, clock=lambda: 0.0)
    for _ in range(kept):
        assert sampler.should_sample("another pattern", "INFO")
    sampler.apply_policy(
        SamplingPolicy(sampling_rate=rate, keep_first=0, max_logs_per_minute=limit)
    )
    return sampler


@pytest.mark.parametrize("case", VECTORS["requests_at_the_limit"], ids=str)
def test_requests_at_the_limit(case):
    sampler = sampler_at_the_limit(case["rate"], case["chance"])
    scope = RequestScope(None, int(case["trace_id"][-14:], 16), RecorderLimits())

    decision = sampler.decide_scoped("user 7 logged in", "INFO", scope, is_format=False)

    sampler.shutdown()
    assert decision.rate == case["rate"] * case["chance"]
    assert threshold_text(decision.rate) == case["threshold"]
    assert isinstance(decision, Decision) is case["kept"]
    if case["kept"]:
        assert decision.weight == 1 / decision.rate


@pytest.mark.parametrize(
    "case",
    VECTORS["boosts"],
    ids=lambda c: f"{c['about']}-{c['logger']}-{c['message']}-{c['severity']}-{c['seen_before']}",
)
def test_boosts(case):
    policy = SamplingPolicy.from_dict({**VECTORS["policy"], "boosts": case["boosts"]})
    now = datetime.fromisoformat(case["now"].replace("Z", "+00:00")).timestamp()
    sampler = AdaptiveSampler(policy=policy, notices=False, now=lambda: now, clock=lambda: 0.0)
    for _ in range(case["seen_before"]):
        sampler.should_sample(case["message"], case["severity"])
    level = logging.getLevelName(case["severity"])
    record = logging.LogRecord(case["logger"], level, "", 0, case["message"], (), None)

    kept = SamplingFilter(sampler=sampler).filter(record)

    explanation = sampler.explain(case["message"], case["severity"])
    sampler.shutdown()
    if case["rule"] == "rate":
        assert (explanation.rule, explanation.rate) == ("rate", case["rate"])
        assert not kept or record.lipservice_rule == "rate"
    else:
        assert kept
        assert (record.lipservice_rule, record.lipservice_rate) == (case["rule"], 1.0)
