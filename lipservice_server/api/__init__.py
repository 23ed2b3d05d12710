"""The HTTP API: endpoints, their models, errors and OpenAPI document."""

from __future__ import annotations

import json
from typing import Final

from flask import Blueprint, Flask, Response

from lipservice_server import metrics
from lipservice_server.api import schemas
from lipservice_server.api.active import FrontDoor, add_active
from lipservice_server.api.boosts import add_boosts
from lipservice_server.api.openapi import make_openapi
from lipservice_server.api.patterns import add_patterns
from lipservice_server.api.policies import add_policies
from lipservice_server.api.problems import add_problems
from lipservice_server.api.routing import Api, Endpoint
from lipservice_server.api.services import add_services
from lipservice_server.api.teams import add_teams
from lipservice_server.errors import DatabaseAwayError
from lipservice_server.runtime import Runtime

#: Where every path of the API begins.
PREFIX: Final = "/api/v1"


def add_api(app: Flask, runtime: Runtime) -> list[Endpoint]:
    """Add every endpoint to *app*; the endpoints as they were declared."""
    api = Api(runtime, Blueprint("api", __name__, url_prefix=PREFIX))
    add_active(api)
    add_policies(api)
    add_patterns(api)
    add_boosts(api)
    add_services(api)
    add_teams(api)
    state = Api(runtime, Blueprint("state", __name__))
    _add_state(state)
    endpoints = [*api.endpoints, *state.endpoints]
    _add_openapi(api, endpoints)
    app.register_blueprint(api.blueprint)
    app.register_blueprint(state.blueprint)
    add_problems(app, runtime)
    app.wsgi_app = FrontDoor(runtime, app.wsgi_app)  # type: ignore[method-assign]  # as Flask says
    return [*endpoints, api.endpoints[-1]]


def _add_state(api: Api) -> None:
    runtime = api.runtime

    def healthz() -> Response:
        return Response(b'{"status":"ok"}', mimetype="application/json")

    def readyz() -> Response:
        runtime.watcher.ensure_started()
        with runtime.admission.database.passing():
            runtime.store.db.rows("SELECT 1 AS one")
        if not runtime.watcher.ready:
            raise DatabaseAwayError("the schema is not in place yet")
        return Response(b'{"status":"ok"}', mimetype="application/json")

    def numbers() -> Response:
        runtime.metrics.away.set(int(runtime.watcher.away))
        return Response(runtime.metrics.render(), content_type=metrics.CONTENT_TYPE)

    api.bare(
        _public("/healthz", "healthz", "Whether the process answers.", schemas.Health), healthz
    )
    api.bare(
        _public("/readyz", "readyz", "Whether the database answers too.", schemas.Health), readyz
    )
    api.bare(_public("/metrics", "metrics", "Numbers for Prometheus.", None), numbers)


def _add_openapi(api: Api, endpoints: list[Endpoint]) -> None:
    own = _public("/openapi.json", "openapi", "This document.", None)
    text = json.dumps(make_openapi([*endpoints, own], PREFIX)).encode()

    def openapi() -> Response:
        return Response(text, mimetype="application/json")

    api.bare(own, openapi)


def _public(rule: str, name: str, summary: str, answer: type[schemas.Health] | None) -> Endpoint:
    return Endpoint(
        rule=rule, method="GET", name=name, summary=summary, scopes=(), query=None, body=None,
        answer=answer, status=200, whole_team=False,
    )  # fmt: skip
