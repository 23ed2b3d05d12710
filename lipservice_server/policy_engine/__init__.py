"""
Makes policies: weights from an LLM or from the built-in rules, rates from the optimizer.

    generate(request, settings=..., clock=...) -> GenerationResult

`generate` never raises for anything that a provider does, and never waits longer than
`EngineSettings.timeout_seconds`: whatever goes wrong, it answers with a policy from the built-in
weights and says why. The mechanism and its threat model are in docs/server/generation.md.
"""

from __future__ import annotations

from lipservice_server.policy_engine.generation import generate
from lipservice_server.policy_engine.model import (
    DEFAULT_MEAN_BYTES,
    PROVIDERS,
    Clamp,
    EngineSettings,
    GenerationRequest,
    GenerationResult,
    PatternJudgement,
    PatternRow,
    Provider,
)
from lipservice_server.policy_engine.prompt import most_tokens
from lipservice_server.policy_engine.providers import provider_problem

__all__ = [
    "DEFAULT_MEAN_BYTES",
    "PROVIDERS",
    "Clamp",
    "EngineSettings",
    "GenerationRequest",
    "GenerationResult",
    "PatternJudgement",
    "PatternRow",
    "Provider",
    "generate",
    "most_tokens",
    "provider_problem",
]
