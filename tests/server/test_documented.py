"""The API document's own examples, word for word, against the server as it is deployed."""

from __future__ import annotations

import json
import re

import pytest

from lipservice_server.config import load_settings
from lipservice_server.runtime import make_runtime
from tests.server.harness import key_in

_DOCUMENT = """
GET /api/v1/policies/active
Response:
{"policy_id": "policy_123", "sampling_rate": 0.1, "patterns": ["error", "warning"], "max_logs_per_minute": 1000,
 "severity_rates": {"ERROR": 1.0, "WARNING": 0.5, "INFO": 0.1, "DEBUG": 0.05}}
POST /api/v1/patterns/report
Request:
{"patterns": [{"signature": "abc123", "count": 100, "last_seen": "2023-01-01T12:00:00Z", "sampling_rate": 0.1}]}
Response:
{"status": "success", "patterns_processed": 1}
POST /api/v1/policies/generate
Request:
{"patterns": [{"signature": "abc123", "count": 100, "frequency": 0.1}], "cost_target": 0.5, "llm_provider": "openai"}
Response:
{"policy_id": "policy_124", "sampling_rate": 0.05, "patterns": ["error", "warning", "info"], "max_logs_per_minute": 500,
 "severity_rates": {"ERROR": 1.0, "WARNING": 0.8, "INFO": 0.05, "DEBUG": 0.01}, "cost_reduction": 0.75}
"""


def _examples():
    found = {}
    for part in re.split(r"\n(?=GET|POST)", _DOCUMENT.strip()):
        route, rest = part.split("\n", 1)
        bodies = re.findall(r"(Request|Response):\n(\{.*?\})\n?(?=Response|$)", rest, re.DOTALL)
        found[route] = {kind: json.loads(body) for kind, body in bodies}
    return found


EXAMPLES = _examples()


def _kinds(value):
    """The shape of a value: names and JSON types."""
    if isinstance(value, dict):
        return {name: _kinds(item) for name, item in value.items()}
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, (int, float)) else type(value).__name__


@pytest.fixture
def bound(live, database_url):
    """A running server, and a key that belongs to one service with a limit."""
    server = live({"DATABASE_URL": database_url})
    runtime = make_runtime(load_settings(server.environ))
    runtime.watcher.look()
    key = key_in(runtime, "docs", service="my-api")
    runtime.store.db.close()
    answer = server.session.patch(
        f"{server.url}/api/v1/service", headers={"Authorization": f"Bearer {key}"}, json={}
    )
    assert answer.status_code == 404
    assert server.post("/api/v1/patterns/report", key, json={"patterns": []}).status_code == 200
    answer = server.session.patch(
        f"{server.url}/api/v1/service",
        headers={"Authorization": f"Bearer {key}"},
        json={"max_logs_per_minute": 1000},
    )
    assert answer.status_code == 200, answer.text
    return server, key


def test_every_documented_example_is_taken_and_answered_as_written(bound):
    server, key = bound

    report = EXAMPLES["POST /api/v1/patterns/report"]
    answer = server.post("/api/v1/patterns/report", key, json=report["Request"])
    assert (answer.status_code, answer.json()) == (200, report["Response"])

    generate = EXAMPLES["POST /api/v1/policies/generate"]
    answer = server.post("/api/v1/policies/generate", key, json=generate["Request"], timeout=40)
    assert answer.status_code == 200, answer.text
    _has_shape(answer.json(), generate["Response"])
    assert 0 <= answer.json()["cost_reduction"] <= 1

    active = EXAMPLES["GET /api/v1/policies/active"]
    for _ in range(20):  # whichever worker answers
        answer = server.get("/api/v1/policies/active", key)
        assert answer.status_code == 200
        _has_shape(answer.json(), active["Response"])
        assert list(answer.json())[:5] == list(active["Response"])


def _has_shape(answer, promised):
    for name, value in promised.items():
        if isinstance(value, dict):
            assert set(value) <= set(answer[name])
            assert {_kinds(item) for item in answer[name].values()} == {"number"}
        else:
            assert _kinds(answer[name]) == _kinds(value), name
