"""The built-in importance: bounds, order, and the words that change it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice.importance import (
    LEAST_IMPORTANCE,
    MOST_IMPORTANCE,
    builtin_importance,
    importance_reason,
)
from lipservice.severity import SEVERITIES


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(), st.text())
def test_is_bounded_for_any_text_and_severity(template, severity):
    assert LEAST_IMPORTANCE <= builtin_importance(template, severity) <= MOST_IMPORTANCE
    assert importance_reason(template, severity)


@pytest.mark.parametrize("template", ["", "cache rebuilt", "ping", "payment failed"])
def test_never_falls_with_severity(template):
    weights = [builtin_importance(template, severity) for severity in SEVERITIES]

    assert weights == sorted(weights)


@pytest.mark.parametrize(
    ("template", "weight", "reason"),
    [
        ("cache rebuilt in <*>", 1.0, "INFO"),
        ("payment of <*> accepted", 3.0, 'INFO that speaks of money or audit ("payment")'),
        ("user <*> login", 3.0, 'INFO that speaks of security ("login")'),
        ("worker <*> started", 2.0, 'INFO that speaks of a change of state ("started")'),
        ("GET <*> healthz", 0.2, 'INFO that speaks of routine ("healthz")'),
        ("connection refused", 3.0, 'INFO that speaks of failure ("refused")'),
    ],
)
def test_words_that_change_it(template, weight, reason):
    assert builtin_importance(template, "INFO") == pytest.approx(weight)
    assert importance_reason(template, "INFO") == reason


def test_a_failed_health_check_is_a_failure():
    assert builtin_importance("health check failed", "INFO") == 3.0
    assert importance_reason("health check failed", "INFO").endswith('failure ("failed")')


@pytest.mark.parametrize(
    "template",
    ["FAILED", "db.query_failed:", "login-failed!", "(failed)", "x\tfailed", "é failed é"],
)
def test_a_word_is_found_in_any_case_and_between_any_punctuation(template):
    assert builtin_importance(template, "INFO") == 3.0


@pytest.mark.parametrize("template", ["failedx", "unfailed", "éfailed", "shipping", "restarter"])
def test_part_of_a_word_is_no_word(template):
    assert builtin_importance(template, "INFO") == 1.0


def test_severities_are_read_in_any_spelling():
    assert builtin_importance("x", "warn") == builtin_importance("x", "WARNING") == 3.0
    assert importance_reason("x", "warn") == "WARNING"


def test_reason_holds_no_more_of_the_template_than_one_known_word():
    reason = importance_reason("secret customer ACME payment failed <script>", "INFO")

    assert reason == 'INFO that speaks of failure ("failed")'
