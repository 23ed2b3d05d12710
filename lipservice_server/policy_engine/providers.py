"""Asks the provider that a request names, and tells what it cost whether or not it answered."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from lipservice.exceptions import MissingExtraError
from lipservice_server.policy_engine._call import CallFailedError, Reply, run_within

if TYPE_CHECKING:
    from lipservice_server.policy_engine.model import EngineSettings, Provider
    from lipservice_server.policy_engine.prompt import Prompt

_NAMES: Final = {"openai": "OpenAI", "anthropic": "Anthropic"}


@dataclass(frozen=True, slots=True)
class Asked:
    """The outcome of asking: the text of an answer, or why there is none, and the tokens."""

    #: The model's text; None: there was no usable one.
    text: str | None
    #: Why there is none, as a clause: "OpenAI refused the key (401)".
    failure: str | None
    #: Tokens to book; the most it can have been where the provider did not say.
    tokens_in: int
    tokens_out: int


def provider_problem(provider: Provider, settings: EngineSettings) -> str | None:
    """
    Why *provider* cannot be asked with these settings, in words for the operator; None: it can.

    For a boundary (start-up, an API) that wants to say so early; `generate` itself falls back.
    """
    if provider == "builtin":
        return None
    if provider == "openai" and not (settings.openai_api_key or settings.openai_base_url):
        return "no OpenAI key is set (OPENAI_API_KEY)"
    if provider == "anthropic" and not settings.anthropic_api_key:
        return "no Anthropic key is set (ANTHROPIC_API_KEY)"
    return None if find_spec(provider) else str(MissingExtraError(provider, "llm"))


def model_of(provider: Provider, settings: EngineSettings) -> str:
    """Name of the model that *provider* would be asked for; "" for the built-in rules."""
    models = {"openai": settings.openai_model, "anthropic": settings.anthropic_model}
    return models.get(provider, "")


def ask(provider: Provider, prompt: Prompt, settings: EngineSettings) -> Asked:
    """Ask *provider* within the settings' time; whatever it does, this returns."""
    start = time.monotonic()
    if problem := provider_problem(provider, settings):
        return Asked(None, problem, 0, 0)
    # Imported here and not in the call's thread: a fork while that thread holds an import lock
    # would leave the child waiting for it for ever.
    try:
        send = import_module(f"lipservice_server.policy_engine._{provider}").send
    except ImportError as error:
        return Asked(None, f"the {provider} client cannot be imported: {error!s:.200}", 0, 0)
    remaining = settings.timeout_seconds - (time.monotonic() - start)
    if remaining <= 0:
        return Asked(None, f"importing the {provider} client took all the time", 0, 0)
    try:
        reply = run_within(remaining, lambda: send(prompt, settings))
    except CallFailedError as error:
        reason = f"{_NAMES[provider]} {error.reason}"
        return Asked(None, reason, *_cost_of_failure(error, prompt))
    return Asked(reply.text, None, *_cost(reply, prompt))


def _cost(reply: Reply, prompt: Prompt) -> tuple[int, int]:
    tokens_in, tokens_out = reply.tokens_in, reply.tokens_out
    return (
        prompt.most_input_tokens if tokens_in is None else tokens_in,
        prompt.max_output_tokens if tokens_out is None else tokens_out,
    )


def _cost_of_failure(error: CallFailedError, prompt: Prompt) -> tuple[int, int]:
    if error.unpaid:
        return 0, 0
    return _cost(error.reply or Reply("", None, None), prompt)
