"""A service's patterns, settings that point at the local server, and the server itself."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from lipservice_server.policy_engine import EngineSettings, GenerationRequest, PatternRow
from tests.support.llm_server import llm_server

NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)

#: What no log line, result or error may ever show.
KEYS = ("sk-test-SECRETOPENAI", "sk-ant-SECRETANTHROPIC")

_TEMPLATES = [
    ("user <*> logged in from <*>", "INFO", 40_000, 120.0),
    ("payment of <*> for order <*> failed", "WARNING", 300, 180.0),
    ("heartbeat from <*>", "DEBUG", 90_000, 60.0),
    ("cache miss for <*>", "DEBUG", 60_000, 80.0),
    ("request <*> served in <*> ms", "INFO", 120_000, 150.0),
    ("connection to <*> refused", "WARNING", 900, 140.0),
    ("cannot write to <*>: disk full", "ERROR", 50, 200.0),
    ("out of memory", "CRITICAL", 3, 90.0),
    ("config reloaded", "INFO", 12, 50.0),
    ("retry <*> of <*>", "INFO", 7_000, 70.0),
]


def service_rows() -> tuple[PatternRow, ...]:
    return tuple(
        PatternRow(f"{number:016x}", count, template, severity, size)
        for number, (template, severity, count, size) in enumerate(_TEMPLATES)
    )


def request_for(provider: str = "openai", **changes) -> GenerationRequest:
    fields = {"patterns": service_rows(), "cost_target": 0.1, **changes}
    return GenerationRequest("shop", provider=provider, **fields)


@pytest.fixture(scope="session")
def _clients_are_imported():
    """So that importing them, which takes seconds on a busy machine, eats no test's time."""
    import anthropic  # noqa: F401
    import openai  # noqa: F401


@pytest.fixture
def server(_clients_are_imported):
    with llm_server() as running:
        yield running


@pytest.fixture
def settings_for(server):
    def make(**changes) -> EngineSettings:
        fields = {
            "openai_api_key": KEYS[0],
            "openai_base_url": server.openai_url,
            "anthropic_api_key": KEYS[1],
            "anthropic_base_url": server.url,
            **changes,
        }
        return EngineSettings(**fields)

    return make


@pytest.fixture
def clock():
    return lambda: NOW
