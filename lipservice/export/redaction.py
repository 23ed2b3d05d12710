"""
Pure: what must not leave the process.

Two rules take secrets out: an attribute whose *name* says that its value is one, and texts in
which a known form of secret stands. Searching each text for each form would cost more than the
rest of the export, so it is done in two steps: `forms_in` looks through many texts at once for the
few literals without which no form can match, in a form (`FOLD`) by which the encoder also remembers
the texts that have none; only records that have one are searched with the regular expressions.

Forms, after the providers' own descriptions of their keys: payment cards (ISO/IEC 7812 prefix and
Luhn digit), e-mail addresses, Bearer and Basic credentials, JSON web tokens, PEM private keys,
keys of AWS, Google Cloud, Azure, GitHub, GitLab, Slack, Stripe, OpenAI, Anthropic and PostHog
(personal), user:password in URLs, and `password=...` and the like in running text.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

# In attribute names: secret wherever they stand, and secret as the last word.
_STRONG: Final = frozenset(
    {
        *("password", "passwd", "passphrase", "passcode", "secret", "secrets", "secretkey"),
        *("authorization", "cookie", "cookies", "credential", "credentials"),
        *("apikey", "privatekey", "accesskey"),
    }
)
_LAST: Final = frozenset(
    {*("token", "pwd", "auth", "pin", "cvv", "cvc", "csrf", "jwt", "bearer", "otp", "ssn")}
)
_COMPOUND: Final = frozenset({"api", "private", "access", "secret", "signing", "encryption"})
_WORDS: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")

_NAMES_IN_TEXT: Final = (
    r"pass(?:word|wd|phrase|code)|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|"
    r"accountkey|sharedaccesskey|authorization|credentials?|cookie"
)
# key=value, key: value, "key": "value"; what stands between is kept. All repetitions are bounded:
# a text made to be searched slowly must not hold the interpreter.
_ASSIGNED: Final = re.compile(
    rf"(?i)((?:{_NAMES_IN_TEXT})[\w-]{{0,32}}[\"']?\s{{0,4}}(?:=>|=|:)\s{{0,4}}"
    r"(?:(?:bearer|basic)\s{1,4})?)"
    r"(?!(?:(?:bearer|basic)\s{1,4})?[\"']?\[redacted\])"
    r"(?:(\")(?:[^\"\\]|\\.){0,4096}\"|(')(?:[^'\\]|\\.){0,4096}'|[^\s,;&\"'\)\]}]{1,4096})"
)
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)(\s{1,4})[A-Za-z0-9._~+/=-]{8,}")
_PEM: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,32}PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_KEYS: Final = re.compile(
    r"\b(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[\w-]{20,}"
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}"
    r"|[srp]k_live_[A-Za-z0-9]{16,}"
    r"|sk-[A-Za-z0-9_-]{20,}"
    r"|phx_[A-Za-z0-9]{20,}"
    r"|eyJ[\w-]{5,4096}\.[\w-]{5,4096}\.[\w-]{0,4096}"
    r")"
)
_URL_LOGIN: Final = re.compile(r"(://[^\s/:@]{0,256}:)[^\s/@]{1,256}(?=@)")
_LOCAL_PART: Final = re.compile(r"[A-Za-z0-9._%+-]{1,64}\Z")
_DOMAIN: Final = re.compile(r"@(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,8}[A-Za-z]{2,24}\b")
_ENCODED_DOMAIN: Final = re.compile(rb"@(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,8}[A-Za-z]{2}")
# In one piece, in groups of four, or as American Express and Diners print them.
_CARD: Final = re.compile(
    r"(?<![0-9.])(?:[2-6][0-9]{12,18}"
    r"|[2-6][0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{1,4}(?:\1[0-9]{1,3})?"
    r"|3[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5})(?![0-9])"
)


def _without_assigned(text: str) -> str:
    return _ASSIGNED.sub(r"\1\2\3[redacted]\2\3", text)


def _without_bearer(text: str) -> str:
    return _BEARER.sub(r"\1\2[token]", text)


def _without_pem(text: str) -> str:
    return _PEM.sub("[private key]", text)


def _without_keys(text: str) -> str:
    return _KEYS.sub("[key]", text)


def _without_addresses(text: str) -> str:
    text = _URL_LOGIN.sub(r"\1[redacted]", text)
    parts: list[str] = []
    done = 0
    # From the "@" to both sides: a search for local parts would try each character of the text.
    for domain in _DOMAIN.finditer(text):
        at = domain.start()
        local = _LOCAL_PART.search(text, max(done, at - 64), at)
        if local:
            parts += (text[done : local.start()], "[email]")
            done = domain.end()
    return "".join((*parts, text[done:]))


def _without_cards(text: str) -> str:
    return _CARD.sub(_without_card, text)


# Each form, and literals without which it cannot match: in lower case, with 0 for every digit.
_FORMS: Final = (
    (
        (*(b"pass", b"pwd", b"secret", b"token", b"key", b"uthoriz", b"redential", b"cookie"),),
        _without_assigned,
    ),
    ((b"bearer", b"basic"), _without_bearer),
    ((b"-----begin",), _without_pem),
    (
        (
            *(b"akia", b"asia", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"_pat_", b"glpat-"),
            *(b"aiza", b"ya00.", b"xox", b"k_live_", b"sk-", b"phx_", b"eyj"),
        ),
        _without_keys,
    ),
    ((b"@",), _without_addresses),
    # At least thirteen digits in a row, or two groups of four and more.
    (
        (b"0000000000000", b"0000 0000", b"0000-0000"),
        _without_cards,
    ),
)
_AT: Final = b"@"
_NEEDLES: Final = tuple(needle for needles, _ in _FORMS for needle in needles if needle != _AT)
#: A table for `bytes.translate`: lower case, and 0 for every digit.
FOLD: Final = bytes(
    ord("0") if 48 <= byte <= 57 else byte + 32 if 65 <= byte <= 90 else byte for byte in range(256)
)


class Redactor:
    """
    Takes secrets out. Immutable after construction, hence safe to share between threads.

    Args:
        keys: Further attribute names (whole, any case) whose values are secret.
        patterns: Further forms of secrets; each is searched in every text.
    """

    def __init__(
        self, keys: Collection[str] = (), patterns: Collection[str | re.Pattern[str]] = ()
    ) -> None:
        self._keys = frozenset(_plain(key) for key in keys)
        self._patterns = tuple(re.compile(pattern) for pattern in patterns)

    def is_secret(self, name: str) -> bool:
        """Whether the value of an attribute called *name* is a secret."""
        if _plain(name) in self._keys:
            return True
        words = [word.lower() for word in _WORDS.findall(name[-256:])]
        if not words:
            return False
        if not _STRONG.isdisjoint(words) or words[-1] in _LAST:
            return True
        return words[-1] == "key" and len(words) > 1 and words[-2] in _COMPOUND

    def forms_in(self, folded: bytes) -> tuple[bytes, ...]:
        """Of which forms *folded* (UTF-8 by `FOLD`) may hold a secret; none is certain."""
        found = [needle for needle in _NEEDLES if folded.find(needle) >= 0]
        if self._patterns or _has_at(folded):
            found.append(_AT)
        return tuple(found)

    def has_any(self, folded: bytes, forms: tuple[bytes, ...]) -> bool:
        """Whether *folded* may hold a secret of one of *forms*."""
        if self._patterns or (_AT in forms and _has_at(folded)):
            return True
        return any(form is not _AT and folded.find(form) >= 0 for form in forms)

    def text(self, text: str) -> str:
        """*text* with each secret replaced by its kind in brackets."""
        folded = text.encode("utf-8", "replace").translate(FOLD)
        for needles, without in _FORMS:
            if any(folded.find(needle) >= 0 for needle in needles):
                text = without(text)
        for pattern in self._patterns:
            text = pattern.sub("[redacted]", text)
        return text

    def is_card(self, number: int) -> bool:
        """Whether *number* is that of a payment card."""
        return is_card(str(number))


class Nothing(Redactor):
    """Leaves everything in: the redactor of those who switched it off."""

    def is_secret(self, name: str) -> bool:  # noqa: ARG002, D102
        return False

    def forms_in(self, encoded: bytes) -> tuple[bytes, ...]:  # noqa: ARG002, D102
        return ()

    def text(self, text: str) -> str:  # noqa: D102
        return text

    def is_card(self, number: int) -> bool:  # noqa: ARG002, D102
        return False


def _has_at(encoded: bytes) -> bool:
    """Whether an "@" stands in an address (as the byte of a number or a size it does not)."""
    position = encoded.find(_AT)
    if position < 0:
        return False
    if encoded.find(b"://") >= 0:  # perhaps the login of an address
        return True
    while position >= 0:
        if _ENCODED_DOMAIN.match(encoded, position):
            return True
        position = encoded.find(_AT, position + 1)
    return False


def is_card(digits: str) -> bool:
    """Whether *digits* has a card scheme's prefix and length, and the right Luhn digit."""
    return _has_scheme(digits) and _luhn(digits)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _without_card(match: re.Match[str]) -> str:
    digits = "".join(filter(str.isdigit, match[0]))
    return "[card]" if is_card(digits) else match[0]


def _has_scheme(digits: str) -> bool:
    size, prefix = len(digits), int(digits[:4].ljust(4, "0"))
    if digits[0] == "4":  # Visa
        return size in {13, 16, 19}
    if size == 16 and (5100 <= prefix <= 5599 or 2221 <= prefix <= 2720):  # Mastercard
        return True
    if size == 15 and prefix // 100 in {34, 37}:  # American Express
        return True
    if size == 14 and (prefix // 100 in {36, 38} or 3000 <= prefix <= 3059):  # Diners Club
        return True
    # Discover, JCB, UnionPay
    return 16 <= size <= 19 and (
        prefix == 6011 or 6440 <= prefix <= 6599 or 3528 <= prefix <= 3589 or prefix // 100 == 62
    )


def _luhn(digits: str) -> bool:
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit)
        if index % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0
