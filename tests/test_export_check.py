"""`lipservice check-posthog` tells the truth, above all where PostHog itself answers 200."""

from __future__ import annotations

import pytest

from lipservice.cli.main import main
from tests.support.otlp_receiver import Receiver


@pytest.fixture(scope="module")
def shared():
    with Receiver() as running:
        yield running


@pytest.fixture
def receiver(shared):
    shared.reset()
    return shared


@pytest.fixture
def check(receiver, capsys, monkeypatch):
    for name in ("POSTHOG_API_KEY", "POSTHOG_TEAM_ID", "POSTHOG_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, endpoint=None):
        code = main(["check-posthog", "--endpoint", endpoint or receiver.url, *arguments])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_a_record_arrives(check, receiver):
    code, said = check("--api-key", "phc_x", "--team-id", "7", "--service-name", "shop")

    (got,) = receiver.records()
    assert code == 0
    assert "belongs to a project" in said
    assert "taken" in said
    assert got["attributes"]["check"] in said
    assert (got["resource"]["service.name"], got["resource"]["team_id"]) == ("shop", "7")


def test_a_key_that_nobody_has_is_found_although_the_record_is_taken(check):
    code, said = check("--api-key", "phc_wrong")

    assert code == 1
    assert "belongs to no project" in said
    assert "thrown away" in said


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"kind": "status", "status": 401}, "key is not accepted"),
        (
            {"kind": "status", "status": 429, "headers": {"Retry-After": "900"}},
            "left alone for 900 s",
        ),
        ({"kind": "status", "status": 404}, "no such route"),
        ({"kind": "redirect"}, "set endpoint="),
        ({"kind": "partial", "rejected": 1}, "rejected by the receiver: bad"),
        ({"kind": "status", "status": 503}, "answered 503"),
        ({"kind": "reset"}, "no connection"),
    ],
)
def test_what_goes_wrong_is_said_in_words(check, receiver, rule, words):
    receiver.misbehave(rule)
    # Not PostHog's route: only the record is sent.
    code, said = check("--api-key", "phc_x", endpoint=receiver.url.replace("/i/v1/", "/v1/"))

    assert code == 1
    assert words in said
    assert "do not arrive" in said


def test_nobody_there(check):
    code, said = check("--api-key", "phc_x", endpoint="http://127.0.0.1:1")

    assert code == 1
    assert "Connection refused" in said


def test_a_personal_key_is_wrong_usage(check):
    code, said = check("--api-key", "phx_abc")

    assert code == 2
    assert "personal API key" in said


def test_the_environment_is_read(check, monkeypatch, receiver):
    monkeypatch.setenv("POSTHOG_API_KEY", "phc_env")
    code, _ = check()

    assert code == 0
    assert receiver.stats()["seen"][-1]["headers"]["Authorization"] == "Bearer phc_env"


def test_the_key_is_never_printed(check):
    for key in ("phc_sesame", "phc_wrong"):
        assert key not in check("--api-key", key)[1]
