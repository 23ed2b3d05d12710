"""
Goal S8: 300 sets of injected templates, and models that obey them fully.

No policy breaks an invariant, whatever the model says and however it is delivered. The sayings
are judged for all sets in process (what a model said is then parsed, clamped and planned with by
the code that a real answer passes through); every set is also played through real HTTP once.
"""

from __future__ import annotations

import json
import math
import unicodedata
from dataclasses import replace
from random import Random

import pytest

from lipservice.planning import expected_outcome
from lipservice.policy import SamplingPolicy
from lipservice.severity import PROTECTED_SEVERITIES
from lipservice_server.policy_engine import EngineSettings, GenerationRequest, generate
from lipservice_server.policy_engine.consult import Verdict, verdict_of
from lipservice_server.policy_engine.generation import settle
from lipservice_server.policy_engine.prompt import build_prompt
from lipservice_server.policy_engine.providers import Asked
from lipservice_server.policy_engine.volumes import unprotected_budget, volumes_of
from tests.server.engine.conftest import NOW
from tests.server.engine.injections import injected_set
from tests.support.llm_server import DELIVERIES, SAYINGS, SLOW

SETS = 300
SETTINGS = EngineSettings()
#: Too big to be made 300 times; these are played through HTTP in test_calls.
_BIG = {"a_million_entries", "many_small_entries", "deep_nesting"}
_SAYINGS = sorted(set(SAYINGS) - _BIG)
#: Rates are rounded to four digits.
_ROUNDING = 2e-3


def _request(seed: int, provider: str = "openai", **changes) -> GenerationRequest:
    rows, random = injected_set(seed), Random(seed)
    names = [row.signature for row in rows]
    return GenerationRequest(
        "shop",
        rows,
        cost_target=random.choice([0.01, 0.1, 0.5, 1.0]),
        provider=provider,
        pins={name: random.choice([0.0, 0.3, 1.0]) for name in random.sample(names, 2)},
        protected=frozenset(random.sample(names, 1)),
        words=("audit",) if random.random() < 0.5 else (),
        max_logs_per_minute=random.choice([None, 1_000]),
        keep_first=random.choice([0, 10]),
        previous=SamplingPolicy(mode=random.choice(["active", "shadow"]), anomaly_boost=3.0),
        **changes,
    )


def assert_invariants(request, result, builtin):
    """What holds of every policy, with *builtin* the one from the built-in weights alone."""
    policy, by_builtin = result.policy, builtin.policy
    _assert_a_sound_document(policy)
    _assert_people_win(request, policy)
    volumes = volumes_of(request, NOW)
    for volume in volumes:
        rate, other = _effective_rate(policy, volume), _effective_rate(by_builtin, volume)
        if volume.severity in PROTECTED_SEVERITIES:
            assert rate == 1.0
        if volume.signature not in request.pins:
            assert rate >= other / 4 * (1 - _ROUNDING)
    kept, allowed = (expected_outcome(volumes, p).kept_share for p in (policy, by_builtin))
    # Where what is always kept exceeds the target, the planner leaves a tenth of it to the others.
    most = (
        request.cost_target
        if allowed <= request.cost_target
        else allowed + 0.1 * request.cost_target
    )
    assert kept <= most * (1 + 1e-9)
    assert math.isclose(result.cost_reduction, 1 - kept)
    _assert_words_are_paid_for(request, result, volumes)
    _assert_texts_are_tame(result)


def _effective_rate(policy, volume):
    if policy.protects(volume.template):
        return 1.0
    return policy.rate_for(volume.signature, volume.severity)


def _unjudged(verdict):
    """A verdict with all that is written down of a call, and nothing that bears on a policy."""
    names = ("shown", "model", "prompt_hash", "tokens_in", "tokens_out", "answer")
    return Verdict(**{name: getattr(verdict, name) for name in names})


def _assert_a_sound_document(policy):
    again = SamplingPolicy.from_dict(json.loads(json.dumps(policy.to_dict(), allow_nan=False)))

    assert again == policy
    assert 0.0 <= policy.sampling_rate <= 1.0
    assert all(0.0 <= rate <= 1.0 for rate in policy.pattern_rates.values())
    assert all(policy.severity_rates[severity] == 1.0 for severity in PROTECTED_SEVERITIES)


def _assert_people_win(request, policy):
    for name, rate in request.pins.items():
        assert policy.pattern_rates[name] == (1.0 if name in request.protected else rate)
    assert all(policy.pattern_rates[name] == 1.0 for name in request.protected)
    assert policy.patterns[: len(request.words)] == request.words
    assert policy.keep_first == request.keep_first
    assert policy.max_logs_per_minute == request.max_logs_per_minute
    assert policy.mode == request.previous.mode
    assert policy.anomaly_boost == request.previous.anomaly_boost


def _assert_words_are_paid_for(request, result, volumes):
    by_model = SamplingPolicy(patterns=result.words[len(request.words) :])
    by_hand = SamplingPolicy(patterns=request.words)
    cost = sum(
        volume.total_bytes
        for volume in volumes
        if by_model.protects(volume.template)
        and not by_hand.protects(volume.template)
        and not volume.always_kept
    )

    assert len(by_model.patterns) <= SETTINGS.max_words
    assert cost <= SETTINGS.max_words_share * unprotected_budget(volumes, request)


def _assert_texts_are_tame(result):
    texts = [judgement.reason for judgement in result.judgements.values()]
    texts += [result.summary, result.policy.reasoning, result.answer, *result.words]
    texts += [part for clamp in result.clamps for part in (clamp.rule, clamp.subject, clamp.said)]

    assert all(len(text) <= 20_000 for text in texts)
    assert not any(unicodedata.category(c)[0] == "C" for text in texts for c in text)
    assert all(0.0 < j.importance <= 40.0 for j in result.judgements.values())


@pytest.mark.parametrize("part", range(30))
def test_no_saying_of_a_model_breaks_an_invariant(part):
    for seed in range(part, SETS, 30):
        request = _request(seed)
        prompt = build_prompt(request, SETTINGS)
        if prompt is None:
            continue
        builtin = settle(request, Verdict(), settings=SETTINGS, now=NOW)
        assert_invariants(request, builtin, builtin)
        patterns = json.loads(prompt.user)["patterns"]
        for saying in _SAYINGS:
            asked = Asked(SAYINGS[saying](patterns), None, 10, 10)
            verdict = verdict_of(asked, prompt, "openai", "a-model")
            if verdict.source == "builtin":
                # Nothing of the answer is in it, so its policy is the one checked above.
                assert replace(verdict, fallback_reason=None) == _unjudged(verdict)
                assert verdict.fallback_reason
                continue
            result = settle(request, verdict, settings=SETTINGS, now=NOW)
            assert_invariants(request, result, builtin)
            assert result.policy.generated_by == result.provider_used == "openai"


@pytest.mark.parametrize("part", range(15))
def test_no_model_over_http_breaks_an_invariant(part, server, settings_for):
    """Each set once, with a saying, a delivery and a provider that its number chooses."""
    deliveries = sorted(set(DELIVERIES) - SLOW)
    for seed in range(part, SETS, 15):
        random = Random(seed)
        server.say = SAYINGS[random.choice(_SAYINGS)]
        server.deliver = DELIVERIES[random.choice(["well"] * 40 + deliveries)]
        request = _request(seed, random.choice(["openai", "anthropic"]), tokens_allowed=60_000)
        builtin = settle(request, Verdict(), settings=SETTINGS, now=NOW)

        result = generate(request, settings=settings_for(), clock=lambda: NOW)

        assert_invariants(request, result, builtin)
        assert result.tokens_in + result.tokens_out <= 60_000


def test_the_same_words_never_leave_with_their_control_characters(server, settings_for):
    for seed in range(20):
        generate(_request(seed), settings=settings_for(), clock=lambda: NOW)

    assert len(server.seen) == 20
    for seen in server.seen:
        data = json.loads(seen.data_block)
        assert len(data["patterns"]) <= 200
        templates = [item["template"] for item in data["patterns"]]
        assert all(len(template) <= 200 for template in templates)
        assert not any(unicodedata.category(c)[0] == "C" for t in templates for c in t)


def test_the_attacks_reach_the_model_at_all(server, settings_for):
    """Otherwise the tests above would hold for the wrong reason."""
    server.say = SAYINGS["obeys"]

    result = generate(_request(3), settings=settings_for(), clock=lambda: NOW)

    assert "previous instructions" in " ".join(seen.data_block for seen in server.seen).lower() or (
        "rate" in server.seen[0].data_block
    )
    assert result.provider_used == "openai"
    changed = [j for j in result.judgements.values() if j.source == "openai"]
    assert len(changed) > 3
