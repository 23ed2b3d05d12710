"""One generation, from the patterns of a service to a policy."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec

from lipservice.exceptions import MissingExtraError
from lipservice_server.policy_engine.model import (
    EngineSettings,
    GenerationRequest,
    GenerationResult,
    Provider,
)


def provider_problem(provider: Provider, settings: EngineSettings) -> str | None:
    """
    Why *provider* cannot be asked with these settings, in words for the operator; None: it can.

    For a boundary (start-up, an API) that wants to say so early; `generate` itself falls back.
    """
    if provider == "builtin":
        return None
    if find_spec(provider) is None:
        return str(MissingExtraError(provider, "llm"))
    if provider == "openai" and not (settings.openai_api_key or settings.openai_base_url):
        return "no OpenAI key is set: OPENAI_API_KEY"
    if provider == "anthropic" and not settings.anthropic_api_key:
        return "no Anthropic key is set: ANTHROPIC_API_KEY"
    return None


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
    from lipservice_server.policy_engine import _pipeline  # noqa: PLC0415

    return _pipeline.run(request, settings=settings, clock=clock)
