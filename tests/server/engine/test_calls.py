"""The real clients against a local server that misbehaves: bounded, silent about keys, accounted."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time

import pytest

from lipservice.exceptions import ConfigurationError
from lipservice_server.policy_engine import EngineSettings, generate, provider_problem
from lipservice_server.policy_engine.prompt import SCHEMA, build_prompt
from tests.server.engine.conftest import KEYS, NOW, request_for
from tests.support.llm_server import DELIVERIES, SAYINGS, SLOW

PROVIDERS = ("openai", "anthropic")
#: Deliveries by which an answer does arrive.
USABLE = {"well", "no_usage", "absurd_usage", "usage_of_junk"}

pytestmark = pytest.mark.parametrize("provider", PROVIDERS)


def _outcome(provider, settings, **changes):
    return generate(request_for(provider, **changes), settings=settings, clock=lambda: NOW)


def _settings(settings_for, delivery):
    return settings_for(timeout_seconds=1.0 if delivery in SLOW else 20.0)


@pytest.mark.parametrize("delivery", sorted(DELIVERIES))
def test_a_policy_comes_out_whatever_the_provider_does(provider, delivery, server, settings_for):
    server.deliver = DELIVERIES[delivery]
    builtin = _outcome("builtin", settings_for())

    result = _outcome(provider, _settings(settings_for, delivery))

    if delivery in USABLE:
        assert result.provider_used == provider
        assert result.fallback_reason is None
        assert result.policy.generated_by == provider
    else:
        assert result.provider_used == "builtin"
        assert result.fallback_reason
        assert result.fallback_reason in result.policy.reasoning
        assert result.policy.generated_by == "builtin"
        assert result.policy.pattern_rates == builtin.policy.pattern_rates
        assert result.policy.severity_rates == builtin.policy.severity_rates


@pytest.mark.parametrize("delivery", sorted(DELIVERIES))
def test_no_key_comes_out_again_and_nothing_stays_behind(
    provider, delivery, server, settings_for, caplog
):
    """Errors of providers echo the key, and clients log at DEBUG what they send."""
    server.deliver = DELIVERIES[delivery]
    settings = _settings(settings_for, delivery)

    with caplog.at_level(logging.DEBUG):
        result = _outcome(provider, settings)

    shown = [repr(result), repr(settings), str(result.policy.to_dict()), caplog.text]
    shown += [repr(record.__dict__) for record in caplog.records]
    assert not any(key in text for key in KEYS for text in shown)
    _assert_call_has_ended()


def _assert_call_has_ended():
    """An overdue call is cancelled; within a moment its thread is gone."""
    for _ in range(500):
        if not any(thread.name == "lipservice-llm" for thread in threading.enumerate()):
            return
        time.sleep(0.02)
    pytest.fail("the call's thread still runs")


@pytest.mark.parametrize("delivery", sorted(SLOW))
def test_the_deadline_is_for_the_whole_answer(provider, delivery, server, settings_for):
    """A byte each 50 ms never lets a read time out; only a deadline over everything ends it."""
    server.deliver = DELIVERIES[delivery]

    result = _outcome(provider, settings_for(timeout_seconds=0.5))

    assert "no whole answer in time" in result.fallback_reason


def test_no_more_is_read_than_an_answer_can_have(provider, server, settings_for):
    server.deliver = DELIVERIES["endless"]

    result = _outcome(provider, settings_for())

    assert result.fallback_reason.endswith("answered far more than was asked for")


@pytest.mark.parametrize("delivery", ["redirect", "moved"])
def test_no_redirect_is_followed(provider, delivery, server, settings_for):
    server.deliver = DELIVERIES[delivery]

    result = _outcome(provider, settings_for())

    assert "redirect" in result.fallback_reason
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "delivery", [name for name in DELIVERIES if name.startswith("status_4") and "429" not in name]
)
def test_a_refused_request_is_not_repeated(provider, delivery, server, settings_for):
    server.deliver = DELIVERIES[delivery]

    result = _outcome(provider, settings_for())

    assert len(server.seen) == 1
    assert (result.tokens_in, result.tokens_out) == (0, 0)


@pytest.mark.parametrize(
    "delivery", ["status_429", "status_500", "status_502", "status_503", "status_504", "status_529"]
)
def test_a_busy_provider_is_asked_once_more_and_not_oftener(
    provider, delivery, server, settings_for
):
    server.deliver = DELIVERIES[delivery]

    result = _outcome(provider, settings_for())

    assert len(server.seen) == 2
    assert result.provider_used == "builtin"
    assert (result.tokens_in, result.tokens_out) == (0, 0)


@pytest.mark.parametrize("delivery", ["status_429", "status_503"])
def test_the_second_try_may_succeed(provider, delivery, server, settings_for):
    server.first = [DELIVERIES[delivery]]

    result = _outcome(provider, settings_for())

    assert result.provider_used == provider
    assert len(server.seen) == 2


@pytest.mark.parametrize("delivery", ["status_429_long", "status_429_date", "status_429_junk"])
def test_a_pause_beyond_the_deadline_is_not_waited_for(provider, delivery, server, settings_for):
    server.deliver = DELIVERIES[delivery]

    result = _outcome(provider, settings_for())

    assert len(server.seen) == 1
    assert "(429)" in result.fallback_reason


@pytest.mark.parametrize("saying", sorted(SAYINGS))
def test_a_policy_comes_out_whatever_the_model_says(provider, saying, server, settings_for):
    server.say = SAYINGS[saying]
    server.keeps_limit = False

    result = _outcome(provider, settings_for())

    judged = result.provider_used == provider
    assert judged != (result.fallback_reason is not None)
    assert result.policy.rate_for("x", "ERROR") == 1.0


def test_the_usage_is_booked_as_the_provider_says(provider, server, settings_for):
    result = _outcome(provider, settings_for())

    (seen,) = server.seen
    assert result.tokens_in == len(json.dumps(seen.body)) // 4 + 1
    assert 0 < result.tokens_out < 1_000


@pytest.mark.parametrize(
    "delivery",
    ["no_usage", "absurd_usage", "reset_in_body", "cut", "endless", "hang", "html", "empty_object"],
)
def test_where_the_usage_is_unknown_the_most_it_can_be_is_booked(
    provider, delivery, server, settings_for
):
    server.deliver = DELIVERIES[delivery]
    settings = _settings(settings_for, delivery)
    prompt = build_prompt(request_for(provider), settings)

    result = _outcome(provider, settings)

    booked = (result.tokens_in, result.tokens_out)
    assert booked == (prompt.most_input_tokens, prompt.max_output_tokens)


def test_an_endpoint_that_ignores_the_limit_is_booked_as_it_says(provider, server, settings_for):
    """It cannot be prevented; it must not be hidden."""
    server.say = SAYINGS["many_words"]
    server.keeps_limit = False

    result = _outcome(provider, settings_for(), tokens_allowed=20_000)

    assert result.tokens_out > 20_000


@pytest.mark.parametrize("delivery", ["truncated", "refusal"])
def test_a_useless_answer_is_paid_for_too(provider, delivery, server, settings_for):
    server.deliver = DELIVERIES[delivery]

    result = _outcome(provider, settings_for())

    assert result.fallback_reason
    assert 0 < result.tokens_in < 5_000


@pytest.mark.parametrize("delivery", ["well", "no_usage", "truncated", "html", "cut", "hang"])
@pytest.mark.parametrize("allowed", [0, 1_000, 3_500, 4_400, 20_000])
def test_the_days_tokens_are_never_passed(provider, delivery, allowed, server, settings_for):
    server.deliver = DELIVERIES[delivery]

    result = _outcome(provider, settings_for(timeout_seconds=1.0), tokens_allowed=allowed)

    assert result.tokens_in + result.tokens_out <= allowed
    if allowed < 3_500:
        assert server.seen == []
        assert "tokens" in result.fallback_reason


def test_an_address_where_nobody_listens_costs_nothing(provider, settings_for):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        settings = settings_for(openai_base_url=url, anthropic_base_url=url)

        result = _outcome(provider, settings)

    assert result.fallback_reason.endswith("could not be reached")
    assert (result.tokens_in, result.tokens_out) == (0, 0)


def test_the_model_is_asked_with_the_strict_schema_and_without_tools(
    provider, server, settings_for
):
    _outcome(provider, settings_for())

    (seen,) = server.seen
    if provider == "openai":
        assert seen.path == "/v1/chat/completions"
        form = seen.body["response_format"]
        assert form["type"] == "json_schema"
        assert form["json_schema"]["strict"] is True
        assert form["json_schema"]["schema"] == SCHEMA
        roles = [message["role"] for message in seen.body["messages"]]
        assert roles == ["system", "user"]
    else:
        assert seen.path == "/v1/messages"
        assert seen.body["output_config"]["format"] == {"type": "json_schema", "schema": SCHEMA}
        assert seen.body["thinking"] == {"type": "disabled"}
        assert [message["role"] for message in seen.body["messages"]] == ["user"]
    assert not {"tools", "tool_choice", "functions", "temperature", "stream"} & set(seen.body)


def test_settings_say_which_optional_fields_are_sent(provider, server, settings_for):
    settings = settings_for(
        openai_output_limit="max_completion_tokens",
        openai_reasoning_effort="low",
        anthropic_effort=None,
        anthropic_thinking=None,
    )

    _outcome(provider, settings)

    (seen,) = server.seen
    if provider == "openai":
        assert seen.body["max_completion_tokens"] > 0
        assert seen.body["reasoning_effort"] == "low"
        assert "max_tokens" not in seen.body
    else:
        assert set(seen.body["output_config"]) == {"format"}
        assert "thinking" not in seen.body


def test_the_own_endpoints_fields_are_those_of_its_newer_models(provider):
    """Not sent anywhere: these are the fields for the provider's own address."""
    prompt = build_prompt(request_for(provider), EngineSettings())
    if provider == "openai":
        from lipservice_server.policy_engine._openai import fields_of

        fields = fields_of(prompt, EngineSettings())["extra_body"]
        assert fields["max_completion_tokens"] == prompt.max_output_tokens
        assert fields["reasoning_effort"] == "none"
        assert "max_tokens" not in fields
    else:
        from lipservice_server.policy_engine._anthropic import extra_body

        assert extra_body(EngineSettings())["output_config"]["effort"] == "low"


def test_a_request_cannot_be_made_without_a_key(provider, server):
    settings = EngineSettings(anthropic_base_url=server.url)

    result = _outcome(provider, settings)

    assert "key" in provider_problem(provider, settings)
    assert "key" in result.fallback_reason
    assert server.seen == []


def test_without_the_client_the_reason_says_how_to_get_it(provider, settings_for, monkeypatch):
    monkeypatch.setitem(sys.modules, provider, None)

    result = _outcome(provider, settings_for())

    assert result.fallback_reason == (f"{provider} is not installed: pip install 'lipservice[llm]'")
    assert provider_problem(provider, settings_for()) == result.fallback_reason


def test_the_engine_imports_no_client_before_it_asks(provider):
    code = (
        "import sys, lipservice_server.policy_engine as engine;"
        f"assert {provider!r} not in sys.modules; assert 'httpx' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_call_may_be_made_where_an_event_loop_runs(provider, server, settings_for):
    import asyncio

    async def inside():
        return _outcome(provider, settings_for())

    assert asyncio.run(inside()).provider_used == provider


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "gopher://x", "//host", "localhost:80", "http://a:b@host", "", "x"],
)
def test_an_endpoint_is_a_plain_web_address(provider, url):
    with pytest.raises(ConfigurationError, match=f"{provider}_base_url"):
        EngineSettings(**{f"{provider}_base_url": url})
