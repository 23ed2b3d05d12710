"""
What stands between the dashboard and a hostile web: headers, cookies, CSRF, hosts, sign-in.

Rules: the session's id is a secret of its own and stored hashed; its cookie is `__Host-`, Secure,
HttpOnly and SameSite=Strict, except over plain HTTP on the loopback interface, where no browser
would keep such a cookie; a form is taken only with the session's token and from our own origin.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from flask import Request, Response

from lipservice_server.config import is_loopback
from lipservice_server.errors import ForbiddenError

#: Seconds that a session lives at most.
SESSION_SECONDS: Final = 12 * 3600
_SAFE_COOKIE: Final = "__Host-lipservice"
_LOOPBACK_COOKIE: Final = "lipservice-loopback"
_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP")
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    # Not no-referrer: browsers then send "Origin: null" with our own forms.
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at the page."""

    team_id: int
    #: For the audit log.
    actor: str
    #: The one service that the key belongs to; None: every service of the team.
    service_name: str | None
    #: Of the session, in hex.
    session_hash: str
    #: What every form of this session carries.
    csrf: str
    #: Whether nobody signed in: the loopback mode.
    open: bool
    notice: str


def harden(response: Response, *, secure: bool) -> Response:
    """*response* with the headers that every answer of the dashboard has."""
    for name, value in _HEADERS.items():
        response.headers[name] = value
    if secure:
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def new_session_id() -> str:
    """256 bits from the system's generator."""
    return secrets.token_urlsafe(32)


def hash_session_id(session_id: str) -> str:
    """What is stored of a session's id: with so much entropy a plain hash is enough."""
    return hashlib.sha256(session_id.encode()).hexdigest()


def csrf_token(session_id: str) -> str:
    """The token of a session's forms, which tells nothing of the id."""
    return hmac.new(session_id.encode(), b"lipservice form", hashlib.sha256).hexdigest()[:40]


def read_cookie(request: Request) -> str | None:
    """The session's id, or None."""
    value = request.cookies.get(_cookie_name(request))
    return value if value and len(value) <= 100 else None


def set_cookie(response: Response, request: Request, session_id: str) -> None:
    """Hand the session's id to the browser."""
    response.set_cookie(
        _cookie_name(request),
        session_id,
        max_age=SESSION_SECONDS,
        secure=request.is_secure,
        httponly=True,
        samesite="Strict",
        path="/",
    )


def clear_cookie(response: Response, request: Request) -> None:
    """Let the browser forget the session's id."""
    response.delete_cookie(
        _cookie_name(request),
        secure=request.is_secure,
        httponly=True,
        samesite="Strict",
        path="/",
    )


def check_form(request: Request, csrf: str | None) -> None:
    """
    Refuse a form that did not come from one of our own pages.

    *csrf* is the session's token; where it is None, there is no session yet: the origin alone is
    looked at.

    Raises:
        ForbiddenError: It came from elsewhere.
    """
    origin = request.headers.get("Origin") or request.headers.get("Referer") or ""
    if urlsplit(origin).netloc.lower() != request.host.lower():
        raise ForbiddenError("this form was not sent from the dashboard's own page")
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise ForbiddenError("this form was not sent from the dashboard's own page")
    if csrf is not None and not hmac.compare_digest(request.form.get("csrf", ""), csrf):
        raise ForbiddenError("the form is from an older session: go back, reload, send it again")


def check_transport(request: Request) -> None:
    """
    Refuse to take a key over a line that others can read.

    Raises:
        ForbiddenError: Plain HTTP, and not on the loopback interface.
    """
    if not request.is_secure and not _is_from_here(request):
        raise ForbiddenError(
            "signing in needs HTTPS. Behind a proxy that ends TLS, set LIPSERVICE_TRUSTED_PROXIES"
        )


def check_open(request: Request) -> None:
    """
    Refuse what does not come from this machine, in the mode without sign-in.

    The Host header is looked at, so that a page of another site whose name was made to point to
    127.0.0.1 (DNS rebinding) reads nothing; a header of a proxy says that the way was longer.

    Raises:
        ForbiddenError: It comes from elsewhere, or by another name.
    """
    if not _is_from_here(request) or any(name in request.headers for name in _FORWARDED):
        raise ForbiddenError(
            "the dashboard without sign-in answers on the loopback interface only, "
            "under localhost or 127.0.0.1"
        )


def _is_from_here(request: Request) -> bool:
    try:
        name = urlsplit(f"//{request.host}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name) and is_loopback(request.remote_addr or "")


def _cookie_name(request: Request) -> str:
    return _SAFE_COOKIE if request.is_secure else _LOOPBACK_COOKIE
