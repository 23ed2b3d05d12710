"""Strangers' text is made harmless before a model or a person sees it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice_server.policy_engine.text import SECRET, masked_template, plain

seeded = settings(max_examples=100, deadline=None, derandomize=True)


@seeded
@given(st.text(max_size=3_000), st.integers(1, 300))
def test_plain_text_is_one_line_of_visible_characters_within_its_length(text, limit):
    result = plain(text, limit)

    assert len(result) <= limit
    assert all(unicodedata.category(c)[0] != "C" for c in result)
    assert not {"\u2028", "\u2029", "\n", "\r", "\t"} & set(result)


@seeded
@given(st.text(max_size=500))
def test_plain_text_is_left_alone_the_second_time(text):
    once = plain(text, 200)

    assert plain(once, 200) == once


@seeded
@given(st.text(max_size=3_000))
def test_a_masked_template_holds_no_digit_and_no_control_character(text):
    result = masked_template(text, 200)

    assert len(result) <= 200
    assert not any(c.isdigit() or unicodedata.category(c)[0] == "C" for c in result)


@pytest.mark.parametrize(
    "hidden",
    ["\u202e", "\u200b", "\u2066", "\ufeff", "\x1b", "\x00", "\U000e0041", "\ud800", "\ue000"],
)
def test_hidden_and_direction_changing_characters_vanish(hidden):
    assert plain(f"us{hidden}er", 50) == "user"


@pytest.mark.parametrize("value", [None, 7, b"bytes", ["list"], {}])
def test_what_is_no_string_becomes_empty(value):
    assert plain(value, 50) == ""


def test_a_cut_text_shows_that_it_was_cut():
    assert plain("a" * 100, 10) == "a" * 9 + "…"


@pytest.mark.parametrize(
    ("template", "secret"),
    [
        ("login password=hunter failed", "hunter"),
        ("login with password: 'open sesame' failed", "sesame"),
        ('{"api_key": "abcdef", "user": "x"}', "abcdef"),
        ("Authorization: Bearer abcdefgh", "abcdefgh"),
        ("sent Basic dXNlcjpwYXNz to upstream", "dXNlcjpwYXNz"),
        ("connecting to postgres://admin:letmein@db/main", "letmein"),
        ("set-cookie: SESSION=abcdef; path", "abcdef"),
        ("secret = swordfish", "swordfish"),
        ("key aGhXkLmPqRsTuVwXyZbQdEfGh was used", "aGhXkLmPqRsTuVwXyZbQdEfGh"),
        ("mail to alice@example.com bounced", "alice"),
        ("token eyJhbGciOiJIUzI1NiJ9.e30.abc expired", "eyJ"),
        ("client_secret=topsecretvalue", "topsecretvalue"),
    ],
)
def test_a_secret_does_not_leave_in_a_template(template, secret):
    assert secret not in masked_template(template, 200)


@pytest.mark.parametrize(
    "template",
    [
        "user <*> logged in from <*>",
        "token=<*> accepted",
        "AbstractRequestMappingHandlerAdapter started",
        "passed all checks",
        "authorization of <*> denied",
        "café größe 用户 登录",
    ],
)
def test_what_is_no_secret_stays_readable(template):
    assert masked_template(template, 200) == template


def test_masking_is_never_undone_by_the_cut():
    template = "x " * 90 + "password=" + "s" * 700

    assert "sss" not in masked_template(template, 200)


def test_a_very_long_template_takes_no_noticeable_time():
    """Each expression is linear, and only a bounded prefix is looked at."""
    for unit in ("a@", "password", "://", "a-", '"', "aA", "pass word="):
        assert len(masked_template(unit * 200_000, 200)) <= 200


def test_the_mask_says_what_it_is():
    assert masked_template("password=x", 200) == f"password={SECRET}"
