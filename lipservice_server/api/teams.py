"""The key's team: its settings, keys, tokens and audit log."""

from __future__ import annotations

from typing import Any, Final

from lipservice_server.api import schemas
from lipservice_server.api.routing import Api, Call
from lipservice_server.db import Row
from lipservice_server.errors import InvalidError
from lipservice_server.keys import make_key
from lipservice_server.runtime import Runtime

_DAY: Final = 86_400
_ID: Final = "<int(max=9007199254740991):key_id>"


def add_teams(api: Api) -> None:
    """Declare the endpoints."""
    _add_team(api)
    _add_keys(api)
    _add_token(api)
    _add_audit(api)


def _add_team(api: Api) -> None:
    runtime, store = api.runtime, api.runtime.store

    @api.endpoint(
        "GET",
        "/team",
        scopes=("read",),
        summary="The key's team.",
        answer=schemas.TeamAnswer,
        whole_team=True,
    )
    def team(call: Call) -> dict[str, Any]:
        return _team(runtime, store.teams.get(call.identity.team_id))

    @api.endpoint(
        "PATCH",
        "/team",
        scopes=("admin",),
        summary="Change the team's price per GB and its daily budgets for models.",
        body=schemas.TeamChange,
        answer=schemas.TeamAnswer,
        whole_team=True,
    )
    def team_change(call: Call) -> dict[str, Any]:
        changes = call.body.model_dump(exclude_unset=True)
        _check_budgets(runtime, changes)
        row = store.teams.update(
            call.identity.team_id, changes, actor=call.identity.actor, now=runtime.clock()
        )
        return _team(runtime, row)


def _check_budgets(runtime: Runtime, changes: dict[str, Any]) -> None:
    """The operator pays for models: a team may lower its budget, not raise it."""
    for name in ("llm_daily_calls", "llm_daily_tokens"):
        most = getattr(runtime.settings, name)
        if (changes.get(name) or 0) > most:
            raise InvalidError(f"{name}: the operator allows at most {most:,}")


def _team(runtime: Runtime, row: Row) -> dict[str, Any]:
    usage = runtime.store.teams.usage(row["id"], int(runtime.clock()) // _DAY)
    settings = runtime.settings
    own = {
        name: getattr(settings, name) if row[name] is None else row[name]
        for name in ("price_per_gb", "llm_daily_calls", "llm_daily_tokens")
    }
    return row | own | {"llm_calls_today": usage["calls"], "llm_tokens_today": usage["tokens"]}


def _add_keys(api: Api) -> None:
    runtime, store = api.runtime, api.runtime.store

    @api.endpoint(
        "GET",
        "/keys",
        scopes=("admin",),
        summary="The team's keys, without themselves.",
        answer=schemas.Keys,
        whole_team=True,
    )
    def keys(call: Call) -> dict[str, Any]:
        return {"keys": store.keys.all(call.identity.team_id)}

    @api.endpoint(
        "POST",
        "/keys",
        scopes=("admin",),
        summary="Make a key; it is shown in this answer and never again.",
        body=schemas.NewKey,
        answer=schemas.MadeKey,
        status=201,
        whole_team=True,
        errors=(409,),
    )
    def key_create(call: Call) -> dict[str, Any]:
        body: schemas.NewKey = call.body
        now = runtime.clock()
        ends = None if body.expires_at is None else int(body.expires_at.timestamp())
        if ends is not None and ends <= now:
            raise InvalidError("expires_at: lies in the past")
        key, prefix = make_key()
        row = store.keys.add(
            call.identity.team_id,
            name=body.name,
            prefix=prefix,
            hashed=runtime.ring.hash(key),
            scopes=sorted(set(body.scopes)),
            service_name=body.service_name,
            expires_at=ends,
            actor=call.identity.actor,
            now=now,
        )
        runtime.ring.reload()
        return row | {"key": key}

    @api.endpoint(
        "POST",
        f"/keys/{_ID}/rotate",
        scopes=("admin",),
        summary="Make a key's successor; the old one works beside it for a while.",
        body=schemas.Rotation,
        answer=schemas.MadeKey,
        status=201,
        whole_team=True,
        errors=(404, 409),
    )
    def key_rotate(call: Call, key_id: int) -> dict[str, Any]:
        overlap = call.body.overlap_seconds
        seconds = runtime.settings.rotation_seconds if overlap is None else overlap
        now = runtime.clock()
        key, prefix = make_key()
        row = store.keys.replace(
            call.identity.team_id,
            key_id,
            prefix=prefix,
            hashed=runtime.ring.hash(key),
            ends_at=int(now) + seconds,
            actor=call.identity.actor,
            now=now,
        )
        runtime.ring.reload()
        return row | {"key": key}

    @api.endpoint(
        "DELETE",
        f"/keys/{_ID}",
        scopes=("admin",),
        summary="End a key at once; every worker refuses it within seconds.",
        answer=schemas.KeyLine,
        whole_team=True,
        errors=(404,),
    )
    def key_revoke(call: Call, key_id: int) -> dict[str, Any]:
        row = store.keys.revoke(
            call.identity.team_id, key_id, actor=call.identity.actor, now=runtime.clock()
        )
        runtime.ring.reload()
        return row


def _add_token(api: Api) -> None:
    runtime = api.runtime

    @api.endpoint(
        "POST",
        "/auth/token",
        scopes=("ingest", "read"),
        summary="A short-lived token with the rights of the key that asks.",
        answer=schemas.Token,
    )
    def token(call: Call) -> dict[str, Any]:
        if not call.request.environ["HTTP_AUTHORIZATION"][7:].strip().startswith("lip_"):
            raise InvalidError("a token is got for a key, not for another token")
        text, life = runtime.ring.issue_token(call.identity)
        return {
            "access_token": text,
            "expires_in": life,
            "scope": " ".join(sorted(call.identity.scopes)),
        }


def _add_audit(api: Api) -> None:
    store = api.runtime.store

    @api.endpoint(
        "GET",
        "/audit",
        scopes=("admin",),
        summary="Who did what to what, the newest first.",
        query=schemas.AuditQuery,
        answer=schemas.AuditPage,
        whole_team=True,
    )
    def audit(call: Call) -> dict[str, Any]:
        query = call.query
        return {
            "lines": store.audit.page(
                call.identity.team_id, before=query.before, limit=query.limit, action=query.action
            )
        }
