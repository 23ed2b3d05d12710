"""`lipservice explain` names the rule and rate that a policy gives a message."""

import json
import subprocess
import sys

import pytest

from lipservice.signature import compute_signature

POLICY = {
    "policy_id": "p",
    "version": 12,
    "sampling_rate": 0.05,
    "severity_rates": {"DEBUG": 0.01},
    "pattern_rates": {compute_signature("user 1 logged in"): 0.25},
    "patterns": ["payment"],
}


def explain(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "lipservice.cli.main", "explain", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
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


def test_a_policy_file_that_cannot_be_read_is_one_line_and_exit_code_2(tmp_path):
    code, out, err = explain("x", "--policy", str(tmp_path / "absent.json"))

    assert (code, out) == (2, "")
    assert "absent.json" in err
    assert len(err.splitlines()) == 1
