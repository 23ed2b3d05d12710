"""The sentences that decide: why a rate is as it is, what a candidate would change. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lipservice.importance import builtin_importance, importance_reason
from lipservice.policy import SamplingPolicy
from lipservice.severity import PROTECTED_SEVERITIES, severity_name
from lipservice_server.boosts import covers, of_what
from lipservice_server.dashboard import numbers
from lipservice_server.dashboard.outcomes import Comparison
from lipservice_server.db import Row


class Step(NamedTuple):
    """One step of the decision about a record."""

    rule: str
    text: str
    #: Whether this is the step that decides.
    decides: bool


def why_rate(row: Row, policy: SamplingPolicy | None, details: Mapping[str, Any]) -> str:
    """
    Why a pattern has its rate, in one sentence.

    Args:
        row: The pattern, as the store gives it.
        policy: What is served for its service; None: none was made yet.
        details: What was noted when the active version was made.
    """
    severity = severity_name(row["severity"])
    if severity in PROTECTED_SEVERITIES:
        return "Kept: ERROR and above always is."
    if row["protected"]:
        return f"Kept: protected by {row['pinned_by']}{_because(row)}."
    if policy is not None and policy.protects(row["template"]):
        return "Kept: its template holds a word that the policy protects."
    if row["pinned_rate"] is not None:
        return f"{numbers.share(row['pinned_rate'])}, pinned by {row['pinned_by']}{_because(row)}."
    if policy is None or not policy.version:
        return "Kept: no policy has been made for this service yet."
    rate = policy.rate_for(row["signature"], severity)
    if row["signature"] not in policy.pattern_rates:
        return f"{numbers.share(rate)}, the rate of {severity}: the policy does not name it."
    judged = details.get("judgements", {}).get(row["signature"])
    if judged is None:
        importance = builtin_importance(row["template"], severity)
        why = f"as {importance_reason(row['template'], severity)}"
    else:
        importance, why = judged["importance"], f"says the model: {judged.get('reason', '')}"
    earned = "kept whole" if rate >= 1 else f"{numbers.share(rate)} is its part of the budget"
    return f"{earned[:1].upper()}{earned[1:]}: importance {importance:.2g}, {why.rstrip('.')}."


def decide(
    row: Row, policy: SamplingPolicy | None, severity: str, boosts: Sequence[Row] = ()
) -> list[Step]:
    """How a record of *row* at *severity* is decided, step by step, while *boosts* run."""
    rules = policy or SamplingPolicy()
    errors = severity in PROTECTED_SEVERITIES
    word = rules.protects(row["template"])
    rate = rules.rate_for(row["signature"], severity)
    kept_for_now = [boost for boost in boosts if covers(boost, row["signature"], severity)]
    decided = bool(errors or word or kept_for_now)
    steps = [
        Step("Errors", "ERROR and above is always kept." if errors
             else f"{severity} is below ERROR: go on.", errors),
        Step("First records", f"Every process keeps the first {rules.keep_first} records of a "
             "pattern.", False),
        Step("Protected words", "The template holds a protected word: always kept." if word
             else f"None of the policy's {numbers.plural(len(rules.patterns), 'word')} is in the "
             "template: go on.", word and not errors),
        Step("Rate", _rate_step(row, rules, severity, rate), not decided),
    ]  # fmt: skip
    if boosts:
        decides = bool(kept_for_now) and not (errors or word)
        steps.insert(-1, Step("Full fidelity", _boost_step(boosts, kept_for_now), decides))
    if rules.mode == "shadow":
        steps.append(
            Step("Shadow mode", "Nothing is dropped: what would be is only counted.", not decided)
        )
    return steps


def candidate(comparison: Comparison) -> str:
    """What a candidate would change, in one sentence."""
    return f"{comparison.summary[:1].upper()}{comparison.summary[1:]}."


def achieved(expected: float | None, reached: float | None) -> str:
    """Expected against achieved reduction, in one sentence."""
    if expected is None:
        return "This version says no expected reduction."
    if reached is None:
        return (
            f"Expected: {numbers.share(expected)} less volume. Too early to tell what it achieves."
        )
    gap = reached - expected
    told = f"Expected {numbers.share(expected)} less volume, achieved {numbers.share(reached)}"
    if abs(gap) <= 0.02:
        return f"{told}: as planned."
    points = f"{abs(gap) * 100:.0f} points"
    if gap > 0:
        return f"{told}: {points} more than planned."
    return f"{told}: {points} short. New volume, new patterns or shadow mode can be why."


def _because(row: Row) -> str:
    return f" (“{row['pin_reason']}”)" if row["pin_reason"] else ""


def _boost_step(boosts: Sequence[Row], kept_for_now: Sequence[Row]) -> str:
    if kept_for_now:
        last = max(kept_for_now, key=lambda boost: float(boost["until"]))
        return f"Everything of {of_what(last)} is kept until {numbers.moment(last['until'])}."
    loggers = ", ".join(of_what(boost) for boost in boosts if boost["logger"] is not None)
    if loggers:
        return f"Everything of {loggers} is kept for a while; for records of others: go on."
    return "What is kept whole for a while is something else: go on."


def _rate_step(row: Row, policy: SamplingPolicy, severity: str, rate: float) -> str:
    if row["signature"] in policy.pattern_rates:
        source = "by hand" if row["pinned_rate"] is not None else "the policy names this pattern"
    elif severity in policy.severity_rates:
        source = f"the rate of {severity}, as the policy does not name this pattern"
    else:
        source = "the policy's rate for everything else"
    kept = f"about 1 in {numbers.weight(1 / rate)}" if 0 < rate < 1 else ""
    return f"Kept with probability {numbers.share(rate)}{f' ({kept})' if kept else ''}: {source}."
