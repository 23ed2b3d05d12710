"""
One generation, from the patterns of a service to a policy.

The order is the safeguard. A model only proposes, and before the optimizer hears of it its answer
has been bounded; what people have set, and what is always kept, it cannot touch at all:

    1. built-in weights, and the policy that they give
    2. a model's factors on the weights, 1/4 to 4, and its words, for at most a tenth of the budget
    3. ERROR and above, what people protect or pin, and new warnings are paid for
    4. the optimizer spends the rest, no rate below a quarter of its rate in 1
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lipservice.importance import builtin_importance, importance_reason
from lipservice.planning import expected_outcome, plan_policy
from lipservice_server.policy_engine.consult import Verdict, consult
from lipservice_server.policy_engine.model import GenerationResult, PatternJudgement
from lipservice_server.policy_engine.volumes import (
    judged,
    split_families,
    unprotected_budget,
    volumes_of,
)
from lipservice_server.policy_engine.words import accept_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from lipservice.optimizer import PatternVolume
    from lipservice.policy import SamplingPolicy
    from lipservice_server.policy_engine.model import (
        Clamp,
        EngineSettings,
        GenerationRequest,
        PatternRow,
    )


def generate(
    request: GenerationRequest, *, settings: EngineSettings, clock: Callable[[], datetime]
) -> GenerationResult:
    """
    Make a policy for *request*.

    Args:
        request: The patterns, the target, and what people have set by hand.
        settings: Keys, endpoints and bounds, from the operator only.
        clock: Gives the present time (aware); stamps the policy and tells what is new.

    Returns:
        The policy, its expected reduction in numbers, and what to write into the audit log.
        A provider's failure of any kind gives a policy from the built-in weights, with
        `fallback_reason` set. Safe to call from several threads at once.
    """
    return settle(request, consult(request, settings), settings=settings, now=clock())


def settle(
    request: GenerationRequest, verdict: Verdict, *, settings: EngineSettings, now: datetime
) -> GenerationResult:
    """Make the policy for *request* when a model has given its *verdict*, or none; pure."""
    volumes = volumes_of(request, now)
    words, clamps = _model_words(verdict, request, settings, volumes)
    policy = _plan(request, verdict, volumes, words, now)
    return GenerationResult(
        policy=policy,
        cost_reduction=1.0 - expected_outcome(volumes, policy).kept_share,
        judgements=MappingProxyType(
            {row.signature: _judgement(row, verdict) for row in request.patterns}
        ),
        words=policy.patterns,
        summary=verdict.summary or policy.reasoning,
        provider_used=verdict.source,
        fallback_reason=verdict.fallback_reason,
        tokens_in=verdict.tokens_in,
        tokens_out=verdict.tokens_out,
        prompt_hash=verdict.prompt_hash,
        model=verdict.model,
        clamps=(*verdict.clamps, *clamps),
        answer=verdict.answer,
    )


def _model_words(
    verdict: Verdict,
    request: GenerationRequest,
    settings: EngineSettings,
    volumes: Sequence[PatternVolume],
) -> tuple[tuple[str, ...], tuple[Clamp, ...]]:
    return accept_words(
        verdict.words,
        volumes,
        by_hand=request.words,
        most=settings.max_words,
        budget=settings.max_words_share * unprotected_budget(volumes, request),
    )


def _plan(
    request: GenerationRequest,
    verdict: Verdict,
    volumes: Sequence[PatternVolume],
    words: Sequence[str],
    now: datetime,
) -> SamplingPolicy:
    fixed = _fixed(request, verdict, now)
    builtin = plan_policy(volumes, request.cost_target, patterns_words=request.words, **fixed)
    if verdict.source == "builtin":
        return builtin
    return plan_policy(
        judged(volumes, verdict.factors, builtin),
        request.cost_target,
        patterns_words=(*request.words, *words),
        generated_by=verdict.source,
        **fixed,
    )


def _fixed(request: GenerationRequest, verdict: Verdict, now: datetime) -> dict[str, Any]:
    """What no weight bears on."""
    return {
        "policy_id": request.policy_id or _policy_id(request),
        "families": split_families(request.patterns),
        # Protections are named here too, so that they hold while their pattern is not seen.
        "pinned": {**request.pins, **dict.fromkeys(request.protected, 1.0)},
        "version": request.version,
        "keep_first": request.keep_first,
        "max_logs_per_minute": request.max_logs_per_minute,
        "created_at": now.isoformat(),
        "summary": _summary(verdict, request),
        **_carried_on(request.previous),
    }


def _policy_id(request: GenerationRequest) -> str:
    name = request.service_name[:150] or "service"
    return name if request.version is None else f"{name}-{request.version}"


def _carried_on(previous: SamplingPolicy | None) -> dict[str, Any]:
    """What a person has chosen for the service and no generation changes."""
    if previous is None:
        return {}
    return {"mode": previous.mode, "anomaly_boost": previous.anomaly_boost}


def _summary(verdict: Verdict, request: GenerationRequest) -> str:
    """Where the weights come from, in words; the optimizer adds the numbers."""
    if verdict.fallback_reason is not None:
        return f"The weights are the built-in ones, because {verdict.fallback_reason}."
    if verdict.source == "builtin":
        return "The weights are the built-in ones."
    changed = sum(factor != 1.0 for factor in verdict.factors.values())
    said = f" It says: {verdict.summary}" if verdict.summary else ""
    return (
        f"{verdict.model} was shown {verdict.shown} of {len(request.patterns)} patterns and "
        f"changed the weight of {changed}.{said}"
    )


def _judgement(row: PatternRow, verdict: Verdict) -> PatternJudgement:
    weight = builtin_importance(row.template, row.severity)
    factor = verdict.factors.get(row.signature)
    if factor is None:
        reason = importance_reason(row.template, row.severity)
        return PatternJudgement(weight, reason, "builtin")
    reason = verdict.reasons.get(row.signature) or f"{verdict.model} gave no reason"
    return PatternJudgement(weight * factor, reason, verdict.source)
