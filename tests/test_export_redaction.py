"""Secrets do not leave the process, and the quick look never overlooks what the careful one finds."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lipservice.export.redaction import FOLD, Nothing, Redactor, is_card

R = Redactor()

SECRETS = {
    "card 4111 1111 1111 1111 ok": "card [card] ok",
    "card 4111-1111-1111-1111.": "card [card].",
    "378282246310005": "[card]",
    "amex 3782 822463 10005": "amex [card]",
    "to bob.smith+x@mail.example.co.uk now": "to [email] now",
    "Authorization: Bearer abcdefgh12345678": "Authorization: Bearer [redacted]",
    "sent bearer abcdefgh12345678": "sent bearer [token]",
    "jwt eyJhbGciOi.eyJzdWIiOiIx.SflKxwRJSM": "jwt [key]",
    "AKIAIOSFODNN7EXAMPLE": "[key]",
    "token ghp_" + "a1B2" * 9: "token [key]",
    "AIza" + "a" * 35: "[key]",
    "xoxb-123456789012-abcdefGHIJ": "[key]",
    "sk_live_" + "a1b2c3d4" * 3: "[key]",
    "sk-ant-api03-" + "a" * 30: "[key]",
    "phx_" + "a1" * 15: "[key]",
    "postgres://bob:hunter2@db/x": "postgres://bob:[redacted]@db/x",
    "login with password=hunter2, ok": "login with password=[redacted], ok",
    '{"password": "hunter 2", "a": 1}': '{"password": "[redacted]", "a": 1}',
    "PASSWORD: hunter2": "PASSWORD: [redacted]",
    "api_key='abc def'": "api_key='[redacted]'",
    "AccountKey=abc123==;x": "AccountKey=[redacted];x",
    "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nrest": "[private key]\nrest",
}

INNOCENT = [
    "user 5 logged in after 12 ms",
    "order 4111111111111112 shipped",
    "at 1700000000000000000 ns",
    "uuid 123e4567-e89b-12d3-a456-426614174000",
    "took 1234567890123 us",
    "compass heading 90, passing by",
    "@decorator and a@b",
    "used 512 tokens of 4096",
    "GET /api/v1/items?page=2 HTTP/1.1",
    "git@",
    "2026-01-02 03:04:05,678 0000",
]


@pytest.mark.parametrize(("text", "clean"), SECRETS.items())
def test_secrets_are_replaced(text, clean):
    assert R.text(text) == clean


@pytest.mark.parametrize("text", INNOCENT)
def test_what_is_none_stays(text):
    assert R.text(text) == text


@pytest.mark.parametrize("text", SECRETS)
def test_redaction_is_stable(text):
    """A second pass (a record that goes through two exporters) changes nothing more."""
    assert R.text(R.text(text)) == R.text(text)


pieces = st.sampled_from(
    [*SECRETS, *INNOCENT, *"@:=-. 4/\n'\"", "secret", "Token=x", "é", "\x40", "4000 0000"]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.one_of(pieces, st.text(max_size=5)), max_size=4).map("".join))
def test_the_quick_look_overlooks_nothing(text):
    encoded = text.encode("utf-8", "replace")
    framed = (b"\x0a" + bytes([min(127, len(encoded))]) + encoded + b"\x32").translate(FOLD)
    forms = R.forms_in(framed)

    if R.text(text) != text:
        assert forms
        assert R.has_any(framed, forms)
        assert R.has_any(encoded.translate(FOLD), forms)


def test_a_number_or_a_size_is_not_taken_for_an_address():
    """An "@" is also the byte of a size of 64 and of every double from 2 to 32."""
    assert R.forms_in(b"\x32\x40\x0a\x10aaaa\x12") == ()
    for number in (2.0, 12.5, 16.25, 31.9):
        assert R.forms_in(b"ms\x12\x09\x21" + struct.pack("<d", number) + b"2\x0e\x0a.com") == ()


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "user_password",
        "PasswordHash",
        "db-password",
        "access_token",
        "accessToken",
        "token",
        "Authorization",
        "http.request.header.cookie",
        "set-cookie",
        "client_secret",
        "apiKey",
        "api_key",
        "x-api-key",
        "private_key",
        "aws_secret_access_key",
        "csrf_token",
        "credentials",
        "auth",
        "passphrase",
        "pwd",
        "cvv",
        "jwt",
    ],
)
def test_names_of_secrets(name):
    assert R.is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "user_id",
        "path",
        "tokens",
        "max_tokens",
        "token_count",
        "author",
        "authentic",
        "key",
        "primary_key",
        "cache_key",
        "keyboard",
        "compass",
        "passenger",
        "session_id",
        "sessionId",
        "posthogDistinctId",
        "request_id",
        "status",
        "duration_ms",
        "pinned",
        "spinner",
    ],
)
def test_names_that_are_not(name):
    assert not R.is_secret(name)


def test_further_names_and_forms():
    mine = Redactor(keys=["Tax-ID"], patterns=[r"EMP-\d+"])

    assert mine.is_secret("tax_id")
    assert not mine.is_secret("tax_id_kind")
    assert mine.text("by EMP-123") == "by [redacted]"
    assert mine.forms_in(b"anything")


def test_switched_off_nothing_is_taken_out():
    off = Nothing()

    assert not off.is_secret("password")
    assert off.text("password=x") == "password=x"
    assert off.forms_in(b"password=x") == ()
    assert not off.is_card(4111111111111111)


@pytest.mark.parametrize(
    ("digits", "card"),
    [
        ("4111111111111111", True),
        ("4111111111111112", False),
        ("5555555555554444", True),
        ("2223003122003222", True),
        ("6011111111111117", True),
        ("3530111333300000", True),
        ("30569309025904", True),
        ("1111111111111117", False),
        ("1700000000000000000", False),
    ],
)
def test_cards(digits, card):
    assert is_card(digits) is card


@pytest.mark.timeout(20)
def test_no_text_makes_it_slow():
    """Every repetition is bounded or cannot overlap: worst cases stay far from quadratic."""
    for worst in (
        "a" * 16_000,
        "a@" * 8_000,
        "4 " * 8_000,
        "://" + ":a" * 8_000,
        "password" * 2_000,
        "-----BEGIN PRIVATE KEY-----" * 600,
        "eyJ" * 5_000,
        "a.b-" * 4_000 + "@",
        "bearer " * 2_000,
        'password="' * 1_500,
    ):
        R.text(worst)
