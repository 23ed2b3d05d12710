"""
`GET /api/v1/policies/active`: nearly all requests that a server gets are this one.

It is answered in front of Flask, from memory: `FrontDoor` wraps the WSGI application and takes this
one path. Flask's routing and response objects would cost several times what the answer does. The
route is declared in Flask too, with the same function behind it, so that the map of all routes, the
OpenAPI document and the other methods (405) know it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from flask import Response, request
from pydantic import ValidationError

from lipservice_server.api import schemas
from lipservice_server.api.bodies import drain, explain
from lipservice_server.api.problems import problem_response
from lipservice_server.api.routing import Api, Endpoint, Scope, admit
from lipservice_server.errors import BusyError, ForbiddenError, InvalidError, ServerError
from lipservice_server.runtime import Runtime

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_RULE: Final = "/policies/active"
_PATH: Final = f"/api/v1{_RULE}"
_SCOPES: Final[tuple[Scope, ...]] = ("ingest", "read")
_HEADERS: Final = [
    ("Content-Type", "application/json"),
    ("Cache-Control", "private, no-cache"),
    ("Vary", "Accept-Encoding, Authorization"),
]
_GZIP: Final = [*_HEADERS, ("Content-Encoding", "gzip")]

Answer = tuple[str, list[tuple[str, str]], bytes]


class FrontDoor:
    """The WSGI application, with the active policy answered in front of it."""

    def __init__(self, runtime: Runtime, inner: WSGIApplication) -> None:
        self._runtime = runtime
        self._inner = inner

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        if environ["PATH_INFO"] != _PATH or environ["REQUEST_METHOD"] != "GET":
            return self._pass_on(environ, start_response)
        try:
            status, headers, body = answer(self._runtime, environ)
        except ServerError as error:
            return problem_response(self._runtime, error)(environ, start_response)
        start_response(status, headers)
        return [body]

    def _pass_on(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Let Flask answer; where it refused, read the rest of the body away first."""
        if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._inner(environ, start_response)
        statuses: list[str] = []

        def noting(status: str, headers: Any, exc_info: Any = None) -> Any:
            statuses.append(status)
            return start_response(status, headers, exc_info)

        answered = self._inner(environ, noting)
        if statuses and statuses[-1] >= "4":
            admission = self._runtime.admission
            with suppress(BusyError), admission.drains.passing():
                drain(environ, admission.drained)
        return answered


def add_active(api: Api) -> None:
    """Declare the endpoint."""
    runtime = api.runtime

    def active() -> Response:
        status, headers, body = answer(runtime, request.environ)
        return Response(body, status, headers)

    api.bare(
        Endpoint(
            rule=_RULE,
            method="GET",
            name="active",
            summary="The active policy of a service, with the share of one instance.",
            scopes=_SCOPES,
            query=schemas.ActiveQuery,
            body=None,
            answer=schemas.ActivePolicy,
            status=200,
            whole_team=False,
        ),
        active,
    )


def answer(runtime: Runtime, environ: dict[str, Any]) -> Answer:
    """
    Status, headers and body for a request.

    Raises:
        ServerError: As the API answers it.
    """
    runtime.watcher.ensure_started()
    identity = admit(
        runtime, environ.get("HTTP_AUTHORIZATION"), environ.get("REMOTE_ADDR", ""), _SCOPES
    )
    runtime.limits.take("poll", identity.key_id)
    named, instance_id = read_query(environ.get("QUERY_STRING", ""))
    own = identity.service_name
    name = named or own
    if name is None:
        raise InvalidError("service_name is needed: this key belongs to no single service")
    if own is not None and name != own:
        raise ForbiddenError("this key belongs to another service")
    entry = runtime.cache.peek((identity.team_id, name))
    if entry is None:
        with runtime.admission.database.passing():
            entry = runtime.cache.load((identity.team_id, name))
    body = entry.body(instance_id)
    if _matches(environ.get("HTTP_IF_NONE_MATCH"), body.etag):
        runtime.metrics.answered("active", 304)
        return "304 Not Modified", [("ETag", body.etag), *_HEADERS[1:]], b""
    runtime.metrics.answered("active", 200)
    if body.gzipped is not None and "gzip" in environ.get("HTTP_ACCEPT_ENCODING", ""):
        return "200 OK", [*_GZIP, *body.gzipped_headers], body.gzipped
    return "200 OK", [*_HEADERS, *body.plain_headers], body.plain


@lru_cache(maxsize=20_000)
def read_query(text: str) -> tuple[str | None, str | None]:
    """
    The two parameters of a query string; instances ask the same again and again.

    Raises:
        InvalidError: One is wrong, unknown or given twice.
    """
    given: dict[str, str] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError:
        raise InvalidError("the query is not UTF-8, or has too many parameters") from None
    for name, value in pairs:
        if name in given:
            raise InvalidError(f"{name[:40]} is given more than once")
        given[name] = value
    try:
        query = schemas.ActiveQuery.model_validate_strings(given, strict=False)
    except ValidationError as error:
        raise explain(error) from None
    return query.service_name, query.instance_id


def _matches(header: str | None, etag: str) -> bool:
    """If-None-Match, compared weakly as RFC 9110 (13.1.2) has it."""
    if header is None:
        return False
    if header in (etag, "*"):
        return True
    wanted = etag.removeprefix("W/")
    return any(part.strip().removeprefix("W/") == wanted for part in header.split(","))
