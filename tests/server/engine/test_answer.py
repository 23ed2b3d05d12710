"""Whatever a model answers, what comes of it is bounded."""

from __future__ import annotations

import json
import math
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice_server.policy_engine.answer import MOST_FACTOR, AnswerRefusedError, read_answer

seeded = settings(max_examples=100, deadline=None, derandomize=True)

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5)
    ),
    max_leaves=20,
)
_ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "i": st.integers(-3, 12) | _JSON,
        "importance": st.integers(-3, 12) | st.floats() | _JSON,
        "reason": st.text(max_size=400) | _JSON,
    },
)
_DOCUMENT = st.fixed_dictionaries(
    {
        "patterns": st.lists(_ENTRY | _JSON, max_size=15) | _JSON,
        "words": st.lists(st.text(max_size=80) | _JSON, max_size=50) | _JSON,
        "summary": st.text(max_size=2_000) | _JSON,
    }
)


def _answer(entries, words=(), summary="s"):
    return json.dumps({"patterns": entries, "words": list(words), "summary": summary})


def _entry(number, importance, reason="because"):
    return {"i": number, "importance": importance, "reason": reason}


def _assert_bounded(answer, shown):
    assert answer.factors
    for number, factor in answer.factors.items():
        assert type(number) is int
        assert 0 <= number < shown
        assert 1 / MOST_FACTOR <= factor <= MOST_FACTOR
    assert set(answer.reasons) == set(answer.factors)
    texts = [*answer.reasons.values(), *answer.words, answer.summary]
    assert all(len(text) <= 500 for text in texts)
    assert not any(unicodedata.category(c)[0] == "C" for text in texts for c in text)
    assert len(answer.words) <= 30
    assert len(answer.clamps) <= 201


@seeded
@given(_DOCUMENT)
def test_any_document_is_refused_or_bounded(document):
    try:
        answer = read_answer(json.dumps(document), 10)
    except AnswerRefusedError:
        return

    _assert_bounded(answer, 10)


@seeded
@given(st.text(max_size=2_000))
def test_any_text_is_refused_or_bounded(text):
    try:
        answer = read_answer(text, 10)
    except AnswerRefusedError:
        return

    _assert_bounded(answer, 10)


def test_the_scale_goes_from_a_quarter_to_four_times_the_weight():
    answer = read_answer(_answer([_entry(n, n + 1) for n in range(5)]), 5)

    assert answer.factors == {0: 0.25, 1: 0.5, 2: 1.0, 3: 2.0, 4: 4.0}
    assert answer.clamps == ()


@pytest.mark.parametrize(("said", "factor"), [(-7, 0.25), (0, 0.25), (6, 4.0), (1e300, 4.0)])
def test_an_importance_out_of_range_is_clamped_and_reported(said, factor):
    answer = read_answer(_answer([_entry(0, said)]), 1)

    assert answer.factors == {0: factor}
    assert [(c.rule, c.subject) for c in answer.clamps] == [("importance out of range", "0")]


@pytest.mark.parametrize("said", [True, False, "5", None, [5], {"value": 5}])
def test_an_importance_that_is_no_number_is_left_out(said):
    answer = read_answer(_answer([_entry(0, said), _entry(1, 5)]), 2)

    assert answer.factors == {1: 4.0}
    assert [(c.rule, c.subject) for c in answer.clamps] == [("importance is no finite number", "0")]


@pytest.mark.parametrize("literal", ["1e400", "-1e999", "9" * 400])
def test_an_importance_beyond_floats_is_left_out(literal):
    text = f'{{"patterns": [{{"i": 0, "importance": {literal}, "reason": ""}}, {{"i": 1, "importance": 5, "reason": ""}}], "words": [], "summary": ""}}'

    answer = read_answer(text, 2)

    assert answer.factors == {1: 4.0}


@pytest.mark.parametrize("number", [-1, 2, 10**30, 0.0, True, "0", None, [0]])
def test_an_unknown_number_is_left_out(number):
    answer = read_answer(_answer([_entry(number, 1), _entry(1, 5)]), 2)

    assert answer.factors == {1: 4.0}
    assert len(answer.clamps) == 1


def test_a_number_given_twice_is_believed_neither_time():
    answer = read_answer(_answer([_entry(0, 1), _entry(1, 5), _entry(0, 5)]), 2)

    assert answer.factors == {1: 4.0}
    assert [c.rule for c in answer.clamps] == ["number given twice"] * 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "no JSON",
        "null",
        "7",
        "[]",
        "{}",
        '{"patterns": []}',
        '{"patterns": {}, "words": [], "summary": ""}',
        '{"patterns": [], "words": "x", "summary": ""}',
        '{"patterns": [], "words": [], "summary": null}',
        _answer([]),
        _answer([_entry(7, 5)]),
        _answer([_entry(0, 5)])[:-1],
        "```json\n" + _answer([_entry(0, 5)]) + "\n```",
        _answer([_entry(0, math.nan)]),
        _answer([_entry(0, math.inf)]),
        '{"patterns": [{"i": 0, "i": 0, "importance": 5}], "words": [], "summary": ""}',
        '{"summary": "a", "patterns": [{"i": 0, "importance": 5}], "words": [], "summary": ""}',
        '{"patterns": [{"i": 0, "importance": ' + "9" * 5_000 + '}], "words": [], "summary": ""}',
        "[" * 100_000,
        '{"patterns":' * 50_000,
        _answer([_entry(0, 5)] * 1_000),
        " " * 500_000 + _answer([_entry(0, 5)]),
    ],
)
def test_an_answer_that_is_not_of_the_schema_is_refused_whole(text):
    with pytest.raises(AnswerRefusedError):
        read_answer(text, 3)


def test_the_refusal_does_not_quote_the_answer():
    with pytest.raises(AnswerRefusedError) as caught:
        read_answer("<script>alert(1)</script>", 3)

    assert "script" not in str(caught.value)


def test_entries_beyond_the_audit_logs_room_are_counted():
    entries = [_entry(0, 5)] + [_entry(n, 5) for n in range(300, 520)]

    answer = read_answer(_answer(entries), 200)

    assert len(answer.clamps) == 201
    assert answer.clamps[-1].subject == "20 further entries"
