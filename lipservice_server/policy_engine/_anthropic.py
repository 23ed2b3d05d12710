"""
Anthropic's messages through the anthropic client, with its structured output.

Imported only when it is called: the client takes most of a second to import.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import anthropic

from lipservice_server.policy_engine._call import (
    CallFailedError,
    Reply,
    admit,
    mapping,
    read_bounded,
    whole_number,
)
from lipservice_server.policy_engine.prompt import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lipservice_server.policy_engine.model import EngineSettings
    from lipservice_server.policy_engine.prompt import Prompt

_OWN_ENDPOINT: Final = "https://api.anthropic.com"
_CUT_OFF: Final = frozenset({"max_tokens", "model_context_window_exceeded"})


async def send(prompt: Prompt, settings: EngineSettings) -> Reply:
    """
    Ask once.

    Raises:
        CallFailedError: No usable answer; other errors of the client pass through.
    """
    http = anthropic.DefaultAsyncHttpxClient(
        follow_redirects=False, event_hooks={"response": [admit]}
    )
    client = anthropic.AsyncAnthropic(
        api_key=settings.anthropic_api_key,
        base_url=settings.anthropic_base_url or _OWN_ENDPOINT,
        timeout=settings.timeout_seconds,
        max_retries=0,
        default_headers={"Accept-Encoding": "identity"},
        http_client=http,
    )
    async with client:
        create = client.messages.with_streaming_response.create
        async with create(
            model=settings.anthropic_model,
            max_tokens=prompt.max_output_tokens,
            system=prompt.system,
            messages=[{"role": "user", "content": prompt.user}],
            extra_body=extra_body(settings),
        ) as response:
            body = await read_bounded(response.iter_bytes())
    return read_reply(body)


def extra_body(settings: EngineSettings) -> dict[str, Any]:
    """The fields that the oldest client we allow has no parameters for."""
    config: dict[str, Any] = {"format": {"type": "json_schema", "schema": SCHEMA}}
    if settings.anthropic_effort is not None:
        config["effort"] = settings.anthropic_effort
    body: dict[str, Any] = {"output_config": config}
    if settings.anthropic_thinking is not None:
        body["thinking"] = {"type": settings.anthropic_thinking}
    return body


def read_reply(body: bytes) -> Reply:
    """
    Read the envelope of an answer.

    Raises:
        CallFailedError: It is none, or the model refused, or was cut off.
    """
    try:
        envelope = json.loads(body)
        # By type: a block of thinking may stand before the text.
        blocks = [block["text"] for block in envelope["content"] if block["type"] == "text"]
        usage = mapping(envelope.get("usage"))
        reply = Reply(
            "".join(blocks), _input_tokens(usage), whole_number(usage.get("output_tokens"))
        )
        stop = envelope.get("stop_reason")
        stop = stop if isinstance(stop, str) else ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise CallFailedError("answered something that is no message") from None
    if stop == "refusal":
        raise CallFailedError("declined to answer", reply=reply)
    if stop in _CUT_OFF:
        raise CallFailedError("was cut off before its answer was complete", reply=reply)
    if not reply.text.strip():
        raise CallFailedError("gave an empty answer", reply=reply)
    return reply


def _input_tokens(usage: Mapping[str, Any]) -> int | None:
    """Tokens read in all: those of a prompt cache are counted apart from the others."""
    plain = whole_number(usage.get("input_tokens"))
    cached = ("cache_creation_input_tokens", "cache_read_input_tokens")
    return None if plain is None else plain + sum(whole_number(usage.get(n)) or 0 for n in cached)
