"""
API keys: how they look, how they are stored and compared.

A key is `lip_<env>_<id>_<secret>_<check>`: the id finds the row, the secret holds 256 bits from
the system's generator, the check lets a mistyped key be refused without a look into the database.
Stored is HMAC-SHA-256 of the whole key under the server's secret: with so much entropy a slow hash
adds nothing (OWASP ASVS 6.5.2), and a stolen database holds nothing that could be presented.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import string
import zlib
from typing import Final

_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY: Final = re.compile(r"lip_([a-z]{1,10})_([0-9A-Za-z]{8})_([0-9A-Za-z]{43})_([0-9A-Za-z]{6})")

#: What a key may be allowed, the least first.
SCOPES: Final = ("ingest", "read", "admin")


def make_key(environment: str = "live") -> tuple[str, str]:
    """A new key and its id; the key is to be shown once and kept nowhere."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(43))
    start = f"lip_{environment}_{prefix}_{secret}"
    return f"{start}_{_check(start)}", prefix


def prefix_of(key: str) -> str | None:
    """The id in *key*, or None where it is no key of ours."""
    match = _KEY.fullmatch(key)
    if match is None or _check(key[:-7]) != match[4]:
        return None
    return match[2]


def hash_key(key: str, secret: bytes) -> str:
    """What is stored of *key*, in hex."""
    return hmac.new(secret, key.encode(), hashlib.sha256).hexdigest()


def _check(start: str) -> str:
    number, digits = zlib.crc32(start.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits += _ALPHABET[digit]
    return digits
