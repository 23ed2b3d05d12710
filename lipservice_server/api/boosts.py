"""Boosts: keep everything of a pattern, logger or severity, or of the service, for a while."""

from __future__ import annotations

from typing import Any, Final

from lipservice_server.api import schemas
from lipservice_server.api.routing import Api, Call
from lipservice_server.boosts import begin_boost, end_boost
from lipservice_server.errors import InvalidError

_ID: Final = "<int(max=9007199254740991):boost_id>"


def add_boosts(api: Api) -> None:
    """Declare the endpoints."""
    runtime, store = api.runtime, api.runtime.store

    @api.endpoint(
        "GET",
        "/boosts",
        scopes=("read",),
        summary="What is kept whole for a while, or was; of all services where none is named.",
        query=schemas.BoostsQuery,
        answer=schemas.Boosts,
        errors=(404,),
    )
    def boosts(call: Call) -> dict[str, Any]:
        query: schemas.BoostsQuery = call.query
        rows = store.boosts.page(
            call.identity.team_id,
            _service(call),
            ended=query.ended,
            before=query.before,
            limit=query.limit,
            now=runtime.clock(),
        )
        return {"boosts": rows}

    @api.endpoint(
        "POST",
        "/boosts",
        scopes=("admin",),
        summary="Keep everything of a pattern, logger, severity or the service for some minutes.",
        query=schemas.ServiceQuery,
        body=schemas.NewBoost,
        answer=schemas.BoostLine,
        status=201,
        errors=(404, 409),
    )
    def boost_begin(call: Call) -> dict[str, Any]:
        body: schemas.NewBoost = call.body
        if body.service_name and call.query.service_name not in (None, body.service_name):
            raise InvalidError("service_name differs between the query and the body")
        return begin_boost(
            runtime,
            call.identity.team_id,
            call.service(body.service_name),
            body,
            actor=call.identity.actor,
        )

    @api.endpoint(
        "DELETE",
        f"/boosts/{_ID}",
        scopes=("admin",),
        summary="End a boost now; ending it again changes nothing.",
        query=schemas.ServiceQuery,
        answer=schemas.BoostLine,
        errors=(404,),
    )
    def boost_end(call: Call, boost_id: int) -> dict[str, Any]:
        return end_boost(
            runtime,
            call.identity.team_id,
            boost_id,
            service_name=_service(call),
            actor=call.identity.actor,
        )


def _service(call: Call) -> str | None:
    """The service that is named, else the key's own; None: all of the team's."""
    whole = call.query.service_name is None and call.identity.service_name is None
    return None if whole else call.service()
