"""The Python SDK obeys tests/conformance/02-decision.json, as every SDK does."""

import json
import random
from pathlib import Path

import pytest

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
