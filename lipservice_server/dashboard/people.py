"""Who and what has access: sign-in and sign-out, instances, keys, the audit log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flask import Response, redirect, request
from pydantic import ValidationError

from lipservice_server.api.schemas import NewKey
from lipservice_server.api.services import _instance
from lipservice_server.dashboard import guard
from lipservice_server.db import Row
from lipservice_server.errors import (
    ForbiddenError,
    InvalidError,
    LimitedError,
    UnauthorizedError,
)
from lipservice_server.keys import SCOPES, make_key
from lipservice_server.limits import Limits
from lipservice_server.policy_cache import deal

if TYPE_CHECKING:
    from lipservice_server.dashboard.pages import Pages, Visit

_DAY: Final = 86_400
_PAGE: Final = 50
#: Refused sign-ins of one address a minute.
_ATTEMPTS: Final = 10


def add_people(pages: Pages) -> None:
    """Declare the pages and forms."""
    _add_sign_in(pages)
    _add_instances(pages)
    _add_keys(pages)
    _add_audit(pages)


def _add_sign_in(pages: Pages) -> None:
    attempts = Limits({"failure": _ATTEMPTS}, workers=1)
    runtime = pages.runtime

    def form() -> Response:
        if runtime.settings.dashboard == "loopback":
            return _to("/dashboard/")
        return pages.render("sign-in.html", None, back=_back(request.args.get("next")))

    def enter() -> Response:
        guard.check_form(request, None)
        guard.check_transport(request)
        back, address = _back(request.form.get("next")), request.remote_addr or ""
        try:
            attempts.check("failure", address)
        except LimitedError as error:
            return _refused(back, f"Too many attempts. {error.message}.", 429)
        try:
            identity = runtime.ring.authenticate(f"Bearer {request.form.get('key', '').strip()}")
            if "admin" not in identity.scopes:
                raise ForbiddenError("this key may not administer: sign in with an admin key")
        except (UnauthorizedError, ForbiddenError) as error:
            _count_refusal(attempts, address)
            forbidden = isinstance(error, ForbiddenError)
            told = error.message if forbidden else "no live key looks like this one"
            return _refused(back, f"{told[0].upper()}{told[1:]}.", error.status)
        old = guard.read_cookie(request)
        if old is not None:
            pages.sessions.end(guard.hash_session_id(old))
        pages.begin(identity.team_id, identity.key_id)
        return _to(back)

    def _refused(back: str, problem: str, status: int) -> Response:
        return pages.render("sign-in.html", None, status=status, back=back, problem=problem)

    pages.add("/sign-in", form, name="sign_in")
    pages.add("/sign-in", enter, name="sign_in_form", post=True)

    @pages.page("/sign-out", post=True, service=False)
    def sign_out(visit: Visit) -> Response:
        pages.sessions.end(visit.viewer.session_hash)
        response = _to("/dashboard/sign-in")
        guard.clear_cookie(response, request)
        response.headers["Clear-Site-Data"] = '"cache", "storage"'
        return response


def _count_refusal(attempts: Limits, address: str) -> None:
    try:
        attempts.take("failure", address)
    except LimitedError:
        return  # the next attempt is told


def _back(wanted: str | None) -> str:
    """Where to go after signing in: a page of ours, whatever the address says."""
    if wanted and wanted.startswith("/dashboard/") and wanted.isprintable() and "\\" not in wanted:
        return wanted[:2_000]
    return "/dashboard/"


def _to(path: str) -> Response:
    response = redirect(path, 303)
    assert isinstance(response, Response)  # noqa: S101  flask's and ours are one class
    return response


def _add_instances(pages: Pages) -> None:
    @pages.page("/instances")
    def instances(visit: Visit) -> Response:
        number = visit.whole("page", 1, least=1, most=10_000)
        rows, total = visit.store.instances.page(
            visit.team_id, visit.name, limit=_PAGE, offset=(number - 1) * _PAGE
        )
        limit = visit.named["max_logs_per_minute"]
        live = visit.store.instances.live(visit.named["id"], now=visit.now)
        shares = {} if limit is None else deal(limit, live)
        return visit.show(
            "instances.html",
            tab="instances",
            rows=[_instance(row, shares, visit.now) for row in rows],
            total=total,
            live=len(live),
            limit=limit,
            page=number,
            pages=max(1, -(-total // _PAGE)),
        )


def _add_keys(pages: Pages) -> None:
    runtime, store = pages.runtime, pages.runtime.store

    @pages.page("/keys", service=False, whole_team=True)
    def keys(visit: Visit) -> Response:
        return _show_keys(visit)

    @pages.page("/keys/make", post=True, service=False, whole_team=True)
    def key_make(visit: Visit) -> Response:
        wanted = _new_key()
        days = _life(visit.field("days"))
        key, prefix = make_key()
        row = store.keys.add(
            visit.team_id,
            name=wanted.name,
            prefix=prefix,
            hashed=runtime.ring.hash(key),
            scopes=sorted(set(wanted.scopes)),
            service_name=wanted.service_name,
            expires_at=None if days is None else int(visit.now + days * _DAY),
            actor=visit.viewer.actor,
            now=visit.now,
        )
        runtime.ring.reload()
        return _show_keys(visit, made=row, key=key)

    @pages.page("/keys/rotate", post=True, service=False, whole_team=True)
    def key_rotate(visit: Visit) -> Response:
        key, prefix = make_key()
        row = store.keys.replace(
            visit.team_id,
            _id(visit.field("key")),
            prefix=prefix,
            hashed=runtime.ring.hash(key),
            ends_at=int(visit.now) + runtime.settings.rotation_seconds,
            actor=visit.viewer.actor,
            now=visit.now,
        )
        runtime.ring.reload()
        return _show_keys(visit, made=row, key=key)

    @pages.page("/keys/ask", service=False, whole_team=True)
    def key_ask(visit: Visit) -> Response:
        row = store.keys.get(visit.team_id, _id(visit.arg("key")))
        return visit.show("key-ask.html", tab="keys", row=row)

    @pages.page("/keys/revoke", post=True, service=False, whole_team=True)
    def key_revoke(visit: Visit) -> Response:
        row = store.keys.revoke(
            visit.team_id, _id(visit.field("key")), actor=visit.viewer.actor, now=visit.now
        )
        runtime.ring.reload()
        visit.tell(f"The key {row['prefix']} is revoked. Every worker refuses it within seconds.")
        return visit.go("keys")


def _show_keys(visit: Visit, **values: Any) -> Response:
    rows = visit.store.keys.all(visit.team_id)
    return visit.show(
        "keys.html",
        tab="keys",
        rows=[row | {"state": _state(row, visit.now)} for row in rows[:200]],
        total=len(rows),
        scopes=SCOPES,
        **values,
    )


def _state(row: Row, now: float) -> str:
    if row["revoked_at"] is not None:
        return "revoked"
    if row["expires_at"] is not None and row["expires_at"] <= now:
        return "expired"
    return "rotated" if row["replaced_by"] is not None else "live"


def _new_key() -> NewKey:
    try:
        return NewKey.model_validate(
            {
                "name": request.form.get("name", "").strip(),
                "scopes": request.form.getlist("scope"),
                "service_name": request.form.get("for_service", "").strip() or None,
            }
        )
    except ValidationError:
        raise InvalidError(
            "a key has a name of 1 to 100 characters and at least one of the scopes"
        ) from None


def _life(days: str) -> int | None:
    if not days:
        return None
    if not (days.isascii() and days.isdecimal() and 1 <= int(days[:6]) <= 3_650):
        raise InvalidError("a key lives 1 to 3,650 days, or without an end")
    return int(days)


def _id(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise InvalidError("a key is named by its number")
    return int(text)


def _add_audit(pages: Pages) -> None:
    @pages.page("/audit", service=False, whole_team=True)
    def audit(visit: Visit) -> Response:
        before = visit.whole("before", 0, least=0, most=2**53) or None
        kind = visit.arg("kind")[:40]
        lines = visit.store.audit.page(visit.team_id, before=before, limit=_PAGE, action=kind)
        return visit.show(
            "audit.html",
            tab="audit",
            lines=lines,
            kind=kind,
            more=lines[-1]["id"] if len(lines) == _PAGE else None,
        )
