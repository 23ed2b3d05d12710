"""A model's words are taken as far as they are well formed, few, and paid for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice.optimizer import PatternVolume
from lipservice.policy import SamplingPolicy
from lipservice_server.policy_engine.words import accept_words

seeded = settings(max_examples=100, deadline=None, derandomize=True)


def _volume(template, count=10.0, severity="INFO", size=100.0):
    return PatternVolume(template, template, severity, count, size)


PATTERNS = [
    _volume("payment of <*> received"),
    _volume("payment refund sent"),
    _volume("user logged in", 1_000.0),
    _volume("audit trail written", 5.0),
    _volume("disk failure", 1e9, "ERROR"),
]


def _accept(words, *, by_hand=(), most=10, budget=5_000.0, patterns=PATTERNS):
    return accept_words(words, patterns, by_hand=by_hand, most=most, budget=budget)


def test_a_word_is_taken_where_its_patterns_are_paid_for():
    taken, clamps = _accept(["Payment", "audit"])

    assert taken == ("payment", "audit")
    assert clamps == ()


def test_words_share_one_budget_and_each_pattern_is_paid_for_once():
    """Of the words here payment costs 2,000 bytes, refund nothing more and audit 500."""
    taken, clamps = _accept(["payment", "refund", "audit"], budget=2_400.0)

    assert taken == ("payment", "refund")
    assert [(c.rule, c.subject) for c in clamps] == [
        ("word costs more than its share of the budget", "audit")
    ]


def test_a_word_of_an_always_kept_pattern_costs_nothing():
    assert _accept(["failure"], budget=0.0)[0] == ("failure",)


@pytest.mark.parametrize(
    "word",
    ["", "ab", "a" * 33, "two words", "<*>", "*", ".*", "pay|user", "\\w+", "(", "-payment", "=x="],
)
def test_what_is_no_plain_word_is_not_taken(word):
    taken, clamps = _accept([word, "audit"])

    assert taken == ("audit",)
    assert [c.rule for c in clamps] == ["not a single word of 3 to 32 letters"]


def test_a_word_that_no_template_holds_is_not_taken():
    taken, clamps = _accept(["swordfish", "pay"])

    assert taken == ()
    assert [c.rule for c in clamps] == ["word in no template"] * 2


def test_at_most_so_many_words_are_taken():
    taken, clamps = _accept(["audit", "payment", "refund"], most=2)

    assert taken == ("audit", "payment")
    assert [c.rule for c in clamps] == ["more words than allowed"]


def test_a_word_that_is_protected_by_hand_is_not_repeated():
    assert _accept(["AUDIT", "audit", "Audit"], by_hand=["audit"]) == ((), ())


@seeded
@given(
    st.lists(
        st.text(max_size=40) | st.sampled_from(["payment", "refund", "user", "logged", "in", "of"]),
        max_size=30,
    ),
    st.floats(0, 200_000),
    st.integers(0, 12),
)
def test_words_never_cost_more_than_their_budget(words, budget, most):
    taken, _ = _accept(words, budget=budget, most=most)

    policy = SamplingPolicy(patterns=taken)
    held = [p for p in PATTERNS if policy.protects(p.template) and not p.always_kept]
    assert sum(p.total_bytes for p in held) <= budget
    assert len(taken) <= most
    assert len(set(taken)) == len(taken)
