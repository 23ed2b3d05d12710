"""
Text that strangers wrote, made fit to be shown to a model or to a person.

Templates hold what an attacker put into a log message; a model's reasons hold what a template
talked it into. Both pass through `plain` before they go anywhere, and templates through
`masked_template` before they leave the machine.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

#: What stands for a secret in a masked template.
SECRET: Final = "<secret>"  # noqa: S105 - a mark, not a secret
_VARIABLE: Final = "<*>"
_CUT: Final = "…"

# Longest input that is looked at at all, as a multiple of what is kept: masking may shorten.
_SLACK: Final = 4

_BEARER = re.compile(r"(?i)\b(bearer|basic|digest|negotiate)\s+[^\s,;]+")
_URL_USER = re.compile(r"://[^\s/@]{1,200}@")
_MAIL = re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}\.[\w.-]{1,190}")
_NAMED = re.compile(
    r"(?i)((?:pass(?:word|wd|phrase|code)?|pwd|secret|token|api[_-]?key|private[_-]?key"
    r"|access[_-]?key|secret[_-]?key|auth(?:orization)?|credentials?|cookie|session(?:[_-]?id)?"
    r"|signature|otp|pin)[\"']?\s{0,3}[=:]\s{0,3})(\"[^\"]*\"|'[^']*'|[^\s,;&]+)"
)
_ITEM = re.compile(r"[^\s=:,;()\[\]{}\"'<>&|]+")
_CASE_CHANGE = re.compile(r"[a-z](?=[A-Z])|[A-Z](?=[a-z])")


def plain(text: object, limit: int) -> str:
    """
    *text* on one line, without control, format (bidi, zero-width), surrogate, private and
    unassigned characters, and at most *limit* characters long; "" for what is not a string.
    """
    if not isinstance(text, str):
        return ""
    short = " ".join(text[: limit * _SLACK].split())
    if not short.isprintable():  # as nearly all text is
        kept = "".join(char for char in short if _visible(char))
        short = " ".join(kept.split())
    return short if len(short) <= limit else short[: limit - 1].rstrip() + _CUT


def masked_template(template: str, limit: int) -> str:
    """
    *template* as a third party may see it: `plain`, and without what may be a secret.

    A template of our own SDKs holds no value with a digit, an address or a path (LSIG-1, V1 to
    V6). What remains are words used as values, and templates that others have made; so names such
    as `password=` lose their value here, and so does every item that has a digit or looks random.
    """
    text = plain(template, limit * _SLACK)
    text = _BEARER.sub(rf"\1 {SECRET}", text)
    text = _URL_USER.sub(f"://{SECRET}@", text)
    text = _MAIL.sub(_VARIABLE, text)
    text = _NAMED.sub(_mask_named, text)
    return plain(_ITEM.sub(_mask_item, text), limit)


def _visible(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] != "C" and category not in {"Zl", "Zp"}


def _mask_named(match: re.Match[str]) -> str:
    value = match[2]
    known = value.startswith((_VARIABLE, SECRET))
    return match[0] if known else f"{match[1]}{SECRET}"


def _mask_item(match: re.Match[str]) -> str:
    item = match[0]
    if any(char.isdigit() for char in item):
        return _VARIABLE
    return SECRET if _looks_random(item) else item


def _looks_random(item: str) -> bool:
    # Random letters of both cases change case at every second place; CamelCase at every fourth.
    return len(item) >= 20 and len(_CASE_CHANGE.findall(item)) * 5 > len(item) * 2
