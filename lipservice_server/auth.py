"""
Who is asking: API keys and the short-lived tokens that are got for them.

All live keys are in every worker's memory, so that a request costs one HMAC and no query, and so
that keys go on working while the database is away. A change raises a serial that the worker's
watcher sees within `LIPSERVICE_CACHE_SECONDS`; a key that is not in memory is looked up once.

Tokens are JWTs after RFC 8725: one algorithm (HS256, under a key of its own), issuer, audience and
type checked, expiry required and short. A token dies with its key.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt

from lipservice_server.db import Row
from lipservice_server.errors import UnauthorizedError
from lipservice_server.keys import hash_key, prefix_of
from lipservice_server.secret import derive
from lipservice_server.store import Store

_ISSUER: Final = "lipservice"
_AUDIENCE: Final = "lipservice-api"
_TYPE: Final = "at+jwt"
_REQUIRED: Final = ["iss", "aud", "sub", "iat", "exp"]
_REFUSED: Final = "a valid key is needed: Authorization: Bearer <key>"
#: Seconds for which an unknown key is refused without another look, and how many are remembered.
_UNKNOWN_SECONDS: Final = 5.0
_UNKNOWN_MOST: Final = 10_000


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is asking, and what they may do."""

    key_id: int
    team_id: int
    scopes: frozenset[str]
    #: The one service that the key belongs to; None: every service of the team.
    service_name: str | None
    #: For the audit log: `key <id>`.
    actor: str
    #: Unix time after which it ends; None: never.
    expires_at: float | None
    hash: str
    prefix: str


class KeyRing:
    """The live keys of all teams. Safe to share between threads."""

    def __init__(
        self,
        store: Store,
        secret: bytes,
        *,
        token_seconds: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._pepper = derive(secret, "api keys")
        self._signing = derive(secret, "tokens")
        self._token_seconds = token_seconds
        self._clock = clock
        self._by_prefix: dict[str, Identity] = {}
        self._by_id: dict[int, Identity] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def hash(self, key: str) -> str:
        """What is stored of *key*."""
        return hash_key(key, self._pepper)

    def reload(self) -> None:
        """Read every live key anew."""
        self.replace(self._store.keys.live())

    def replace(self, rows: Sequence[Row]) -> None:
        """Put these keys in the place of those in memory."""
        identities = [_identity(row) for row in rows]
        by_prefix = {identity.prefix: identity for identity in identities}
        by_id = {identity.key_id: identity for identity in identities}
        with self._lock:
            self._by_prefix, self._by_id = by_prefix, by_id
            self._unknown.clear()

    def authenticate(self, header: str | None) -> Identity:
        """
        The identity behind an Authorization header.

        Raises:
            UnauthorizedError: There is none: the key is missing, malformed, unknown, revoked or
                expired.
            DatabaseAwayError: The key is not in memory and cannot be looked up.
        """
        if header is None or header[:7].lower() != "bearer ":
            raise UnauthorizedError(_REFUSED)
        credential = header[7:].strip()
        if credential.startswith("lip_"):
            identity = self._from_key(credential)
        else:
            identity = self._from_token(credential)
        if identity.expires_at is not None and identity.expires_at <= self._clock():
            raise UnauthorizedError("the key has expired")
        return identity

    def issue_token(self, identity: Identity) -> tuple[str, int]:
        """A token for an identity, and its life in seconds."""
        now = int(self._clock())
        life = self._token_seconds
        if identity.expires_at is not None:
            life = max(1, min(life, int(identity.expires_at) - now))
        claims = {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": f"key:{identity.key_id}",
            "team": identity.team_id,
            "scope": " ".join(sorted(identity.scopes)),
            "iat": now,
            "exp": now + life,
        }
        token = jwt.encode(claims, self._signing, algorithm="HS256", headers={"typ": _TYPE})
        return token, life

    def _from_key(self, key: str) -> Identity:
        # The id is where make_key puts it; what does not fit is not found.
        parts = key.split("_", 4)
        prefix = parts[2] if len(parts) == 5 else ""
        identity = self._by_prefix.get(prefix)
        if identity is None:
            identity = self._look_up(key)
        if not hmac.compare_digest(self.hash(key), identity.hash):
            raise UnauthorizedError(_REFUSED)
        return identity

    def _look_up(self, key: str) -> Identity:
        """A key that was made a moment ago, in another worker."""
        prefix = prefix_of(key)
        now = self._clock()
        if prefix is None or self._unknown.get(prefix, 0) > now:
            raise UnauthorizedError(_REFUSED)
        row = self._store.keys.live_one(prefix)
        with self._lock:
            if row is not None:
                identity = _identity(row)
                self._by_prefix = {**self._by_prefix, prefix: identity}
                self._by_id = {**self._by_id, identity.key_id: identity}
                return identity
            self._unknown[prefix] = now + _UNKNOWN_SECONDS
            if len(self._unknown) > _UNKNOWN_MOST:
                self._unknown.popitem(last=False)
        raise UnauthorizedError(_REFUSED)

    def _from_token(self, token: str) -> Identity:
        claims = self._claims(token)
        key_id = claims["sub"].removeprefix("key:")
        identity = self._by_id.get(int(key_id)) if key_id.isdecimal() else None
        if identity is None or identity.team_id != claims.get("team"):
            raise UnauthorizedError("the token's key is no longer valid")
        scopes = identity.scopes & frozenset(str(claims.get("scope", "")).split())
        return Identity(
            key_id=identity.key_id,
            team_id=identity.team_id,
            scopes=scopes,
            service_name=identity.service_name,
            actor=identity.actor,
            expires_at=identity.expires_at,
            hash=identity.hash,
            prefix=identity.prefix,
        )

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            if len(token) > 4096 or jwt.get_unverified_header(token).get("typ") != _TYPE:
                raise UnauthorizedError(_REFUSED)
            claims: dict[str, Any] = jwt.decode(
                token,
                self._signing,
                algorithms=["HS256"],
                audience=_AUDIENCE,
                issuer=_ISSUER,
                options={"require": _REQUIRED, "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise UnauthorizedError(_REFUSED) from error
        self._check_life(claims)
        return claims

    def _check_life(self, claims: dict[str, Any]) -> None:
        """Times by our own clock, and no token that lives longer than we make them."""
        now, issued, ends = self._clock(), claims["iat"], claims["exp"]
        for moment in (issued, ends):
            if isinstance(moment, bool) or not isinstance(moment, int):
                raise UnauthorizedError(_REFUSED)
        if not issued - 60 <= now < ends or ends - issued > self._token_seconds:
            raise UnauthorizedError("the token has expired")


def _identity(row: Row) -> Identity:
    return Identity(
        key_id=int(row["id"]),
        team_id=int(row["team_id"]),
        scopes=frozenset(row["scopes"].split()),
        service_name=row["service_name"],
        actor=f"key {row['prefix']}",
        expires_at=row["expires_at"],
        hash=row["hash"],
        prefix=row["prefix"],
    )
