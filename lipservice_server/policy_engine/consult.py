"""
Asks a model for its judgement of a request's patterns, and bounds what comes back.

Whatever happens, there is a `Verdict`: with factors on the built-in weights, or without and then
with the reason. Nothing is raised.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from lipservice_server.policy_engine.answer import Answer, AnswerRefusedError, read_answer
from lipservice_server.policy_engine.prompt import build_prompt, choose_rows
from lipservice_server.policy_engine.providers import ask, model_of, provider_problem
from lipservice_server.policy_engine.text import plain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lipservice_server.policy_engine.model import (
        Clamp,
        EngineSettings,
        GenerationRequest,
        PatternRow,
        Provider,
    )
    from lipservice_server.policy_engine.prompt import Prompt
    from lipservice_server.policy_engine.providers import Asked

_MAX_KEPT_ANSWER: Final = 20_000
_NONE: Final[Mapping[str, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model thinks, bounded; by default: nobody was asked."""

    #: Who judged in the end.
    source: Provider = "builtin"
    #: Factor on the built-in weight by signature; a signature that is not named has 1.
    factors: Mapping[str, float] = field(default_factory=lambda: _NONE)
    #: Reason by signature, plain text.
    reasons: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    #: Words as proposed, not judged yet.
    words: tuple[str, ...] = ()
    summary: str = ""
    #: Why a model was to be asked and does not judge.
    fallback_reason: str | None = None
    clamps: tuple[Clamp, ...] = ()
    #: How many patterns the model was shown.
    shown: int = 0
    model: str = ""
    prompt_hash: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    #: The answer as it came, for the audit log.
    answer: str = ""


def consult(request: GenerationRequest, settings: EngineSettings) -> Verdict:
    """Ask the request's provider; see the module's text."""
    if request.provider == "builtin":
        return Verdict()
    if problem := provider_problem(request.provider, settings):
        return Verdict(fallback_reason=problem)
    prompt = build_prompt(request, settings)
    if prompt is None:
        return Verdict(fallback_reason=_why_no_prompt(request))
    asked = ask(request.provider, prompt, settings)
    return verdict_of(asked, prompt, request.provider, model_of(request.provider, settings))


def _why_no_prompt(request: GenerationRequest) -> str:
    if choose_rows(request, 1):
        return "the tokens that the team may spend today do not pay for another prompt"
    return "no pattern has a template that a model could judge"


def verdict_of(asked: Asked, prompt: Prompt, provider: Provider, model: str) -> Verdict:
    """The verdict in what was *asked* of *provider*; pure."""
    blank = Verdict(
        shown=len(prompt.rows),
        model=model,
        prompt_hash=prompt.digest(model),
        tokens_in=asked.tokens_in,
        tokens_out=asked.tokens_out,
        answer=plain(asked.text, _MAX_KEPT_ANSWER),
    )
    if asked.text is None:
        return replace(blank, fallback_reason=asked.failure)
    try:
        answer = read_answer(asked.text, len(prompt.rows))
    except AnswerRefusedError as error:
        return replace(blank, fallback_reason=f"the answer of {model} was not usable: {error}")
    return _with_answer(replace(blank, source=provider), answer, prompt.rows)


def _with_answer(blank: Verdict, answer: Answer, rows: Sequence[PatternRow]) -> Verdict:
    """Numbers of the prompt become signatures again."""
    names = [row.signature for row in rows]
    return replace(
        blank,
        factors={names[i]: factor for i, factor in answer.factors.items()},
        reasons={names[i]: reason for i, reason in answer.reasons.items()},
        words=answer.words,
        summary=answer.summary,
        clamps=tuple(_named(clamp, names) for clamp in answer.clamps),
    )


def _named(clamp: Clamp, names: Sequence[str]) -> Clamp:
    subject = clamp.subject
    known = subject.isascii() and subject.isdigit() and int(subject) < len(names)
    return replace(clamp, subject=names[int(subject)]) if known else clamp
