"""
OpenAI's chat completions through the openai client, also for compatible endpoints.

The older of OpenAI's two interfaces, because the compatible servers speak it.
Imported only when it is called: the client takes a third of a second to import.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import openai

from lipservice_server.policy_engine._call import (
    CallFailedError,
    Reply,
    admit,
    mapping,
    read_bounded,
    whole_number,
)
from lipservice_server.policy_engine.prompt import SCHEMA, SCHEMA_NAME

if TYPE_CHECKING:
    from lipservice_server.policy_engine.model import EngineSettings
    from lipservice_server.policy_engine.prompt import Prompt

_OWN_ENDPOINT: Final = "https://api.openai.com/v1"
# Endpoints on one's own machine often want no key; the client insists on having one.
_NO_KEY: Final = "none"


async def send(prompt: Prompt, settings: EngineSettings) -> Reply:
    """
    Ask once.

    Raises:
        CallFailedError: No usable answer; other errors of the client pass through.
    """
    http = openai.DefaultAsyncHttpxClient(follow_redirects=False, event_hooks={"response": [admit]})
    client = openai.AsyncOpenAI(
        api_key=settings.openai_api_key or _NO_KEY,
        base_url=settings.openai_base_url or _OWN_ENDPOINT,
        timeout=settings.timeout_seconds,
        max_retries=0,
        default_headers={"Accept-Encoding": "identity"},
        http_client=http,
    )
    async with client:
        create = client.chat.completions.with_streaming_response.create
        async with create(**fields_of(prompt, settings)) as response:
            body = await read_bounded(response.iter_bytes())
    return read_reply(body)


def fields_of(prompt: Prompt, settings: EngineSettings) -> dict[str, Any]:
    """The arguments of the client's method."""
    schema = {"name": SCHEMA_NAME, "strict": True, "schema": SCHEMA}
    # The oldest client that we allow has no parameters for these.
    extra: dict[str, Any] = {_limit_name(settings): prompt.max_output_tokens}
    effort = _effort(settings)
    if effort is not None:
        extra["reasoning_effort"] = effort
    return {
        "model": settings.openai_model,
        "messages": [
            {"role": "system", "content": prompt.system},
            {"role": "user", "content": prompt.user},
        ],
        "response_format": {"type": "json_schema", "json_schema": schema},
        "extra_body": extra,
    }


def _limit_name(settings: EngineSettings) -> str:
    if settings.openai_output_limit != "auto":
        return settings.openai_output_limit
    return "max_completion_tokens" if settings.openai_base_url is None else "max_tokens"


def _effort(settings: EngineSettings) -> str | None:
    if settings.openai_reasoning_effort != "auto":
        return settings.openai_reasoning_effort
    return "none" if settings.openai_base_url is None else None


def read_reply(body: bytes) -> Reply:
    """
    Read the envelope of an answer.

    Raises:
        CallFailedError: It is none, or the model refused, or was cut off.
    """
    try:
        envelope = json.loads(body)
        choice = envelope["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        usage, text = mapping(envelope.get("usage")), message.get("content")
        reply = Reply(
            text if isinstance(text, str) else "",
            whole_number(usage.get("prompt_tokens")),
            whole_number(usage.get("completion_tokens")),
        )
        refused = bool(message.get("refusal"))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise CallFailedError("answered something that is no chat completion") from None
    if refused or finish == "content_filter":
        raise CallFailedError("declined to answer", reply=reply)
    if finish == "length":
        raise CallFailedError("was cut off before its answer was complete", reply=reply)
    if not reply.text.strip():
        raise CallFailedError("gave an empty answer", reply=reply)
    return reply
