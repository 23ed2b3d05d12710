"""`lipservice explain` names the rule and rate that a policy gives a message."""

import json
import os
import subprocess
import sys

import pytest

from lipservice.signature import compute_signature
from tests.support.policy_server import PolicyServer

POLICY = {
    "policy_id": "p",
    "version": 12,
    "sampling_rate": 0.05,
    "severity_rates": {"DEBUG": 0.01},
    "pattern_rates": {compute_signature("user 1 logged in"): 0.25},
    "patterns": ["payment"],
}


def explain(*arguments, **environ):
    done = subprocess.run(
        [sys.executable, "-m", "lipservice.cli.main", "explain", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environ},
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def policy_file(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(POLICY))
    return str(path)


@pytest.mark.parametrize(
    ("message", "severity", "rule", "rate"),
    [
        ("user 99 logged in", "info", "rate", 0.25),
        ("something else", "info", "rate", 0.05),
        ("something else", "debug", "rate", 0.01),
        ("payment 5 taken", "debug", "protected", 1.0),
        ("something else", "error", "error", 1.0),
    ],
)
def test_the_rule_and_the_rate_are_those_of_the_policy(policy_file, message, severity, rule, rate):
    code, out, err = explain(message, "--severity", severity, "--policy", policy_file, "--json")

    told = json.loads(out)
    assert (code, err) == (0, "")
    assert (told["rule"], told["rate"], told["policy"]) == (rule, rate, "12")


def test_it_says_it_in_words(policy_file):
    _, out, _ = explain("user 99 logged in", "--policy", policy_file)

    assert "INFO user <*> logged in" in out
    assert "kept with probability 0.25" in out
    assert "first 10 records" in out


def test_without_a_policy_it_says_so(policy_file):
    environ = {"LIPSERVICE_URL": ""}

    assert "lipservice.explain(message)" in explain("user 99 logged in", **environ)[1]
    assert "without any policy" not in explain("user 99 logged in", "--policy", policy_file)[1]


def test_a_pattern_that_the_policy_does_not_name_may_be_a_word_that_varies(policy_file):
    hint = "where a word of the message varies"

    assert hint in explain("user eve logged in", "--policy", policy_file)[1]
    assert hint not in explain("user 99 logged in", "--policy", policy_file)[1]
    assert hint not in explain("payment for eve taken", "--policy", policy_file)[1]


def test_a_policy_file_that_cannot_be_read_is_one_line_and_exit_code_2(tmp_path):
    code, out, err = explain("x", "--policy", str(tmp_path / "absent.json"))

    assert (code, out) == (2, "")
    assert "absent.json" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("severity", "policy", "rule", "rate"),
    [
        ("info", {}, "rate", 0.25),
        ("error", {}, "error", 1.0),
        ("info", {"protected": [compute_signature("user 1 logged in")]}, "protected", 1.0),
        ("info", {"boosts": [{"severity": "INFO", "until": "2999-01-01T00:00:00Z"}]}, "boosted", 1.0),
        ("info", {"boosts": [{"severity": "INFO", "until": "2020-01-01T00:00:00Z"}]}, "rate", 0.25),
        ("info", {"boosts": [{"logger": "shop", "until": "2999-01-01T00:00:00Z"}]}, "rate", 0.25),
    ],
)  # fmt: skip
def test_a_signature_is_explained_as_a_message_of_its_pattern(
    tmp_path, severity, policy, rule, rate
):
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({**POLICY, **policy}))
    signature = compute_signature("user 1 logged in")

    told = [
        json.loads(explain(each, "--severity", severity, "--policy", str(path), "--json")[1])
        for each in (signature, "user 1 logged in")
    ]

    for each in told:
        assert (each["signature"], each["rule"], each["rate"]) == (signature, rule, rate)


def test_with_a_policy_file_no_server_is_asked(policy_file):
    code, out, err = explain(
        "user 99 logged in", "--policy", policy_file, LIPSERVICE_URL="http://127.0.0.1:9"
    )

    assert (code, err) == (0, "")
    assert "probability 0.25" in out
    assert "instances" not in out


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        ("ok", "need a key that may read"),  # an older server: there is no such address
        ("403", "need a key that may read"),
        ("500", "HTTP 500"),
        ("close", "no counts from the server: "),
        ("list", "no counts from the server: "),
        ("nested", "no counts from the server: "),
        ("html", "no counts from the server: "),
    ],
)
def test_a_server_that_tells_no_counts_is_one_line_and_no_error(behaviour, said):
    with PolicyServer() as server:
        server.policy = POLICY
        if behaviour != "ok":
            server.behave(behaviour, "other")
        code, out, err = explain("user 99 logged in", "--url", server.url)

    assert (code, err) == (0, "")
    assert "kept with probability 0.25" in out
    assert said in out.splitlines()[-1]


class Strange(PolicyServer):
    """Answers every question with one JSON object."""

    answer: object = None

    def _answer_well(self, connection, request):
        if request.kind == "policy":
            super()._answer_well(connection, request)
        else:
            self._send_json(connection, 200, self.answer)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"patterns": [1]},
        {"patterns": None, "points": [{"count": "x"}]},
        {"template": "x", "severity": "INFO", "first_seen": "soon", "last_seen": 7, "points": []},
    ],
)
def test_a_server_whose_answer_makes_no_sense_is_one_line_and_no_error(answer):
    with Strange() as server:
        server.policy, server.answer = POLICY, answer
        code, out, err = explain("user 99 logged in", "--url", server.url)

    assert (code, err) == (0, "")
    assert "its answer cannot be read" in out.splitlines()[-1]


def test_a_server_without_a_policy_is_one_line_and_exit_code_2():
    with PolicyServer() as server:
        server.behave("401")
        code, out, err = explain("user 99 logged in", "--url", server.url)

    assert (code, out) == (2, "")
    assert "no policy from" in err
    assert len(err.splitlines()) == 1


def test_what_the_terminal_s_encoding_lacks_is_replaced(policy_file):
    code, out, err = explain(
        "caf\xe9 opened", "--policy", policy_file, PYTHONIOENCODING="ascii", PYTHONUTF8="0"
    )

    assert (code, err) == (0, "")
    assert "INFO caf? opened" in out
