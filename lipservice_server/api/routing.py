"""
How an endpoint is declared: one decorator that admits, checks and documents.

Every route of the API goes through `endpoint`, which knows the scopes that it needs and the models
of what it takes and answers. From the same declarations the OpenAPI document and the tests' tenancy
matrix are made, so a route cannot be forgotten by either.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from flask import Blueprint, Request, Response, request
from pydantic import BaseModel, TypeAdapter, ValidationError

from lipservice_server.admission import Gate
from lipservice_server.api.bodies import explain, find_double_keys, parse, read_body
from lipservice_server.auth import Identity
from lipservice_server.errors import ForbiddenError, InvalidError, UnauthorizedError
from lipservice_server.limits import Kind
from lipservice_server.runtime import Runtime

Scope = Literal["ingest", "read", "admin"]
View = Callable[..., Any]
_V = TypeVar("_V", bound=View)

#: What each scope allows beside itself.
_STRONGER: Final = {
    "ingest": frozenset({"ingest", "admin"}),
    "read": frozenset({"read", "admin"}),
    "admin": frozenset({"admin"}),
}
_FLAGS: Final = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route, as it was declared."""

    rule: str
    method: str
    name: str
    summary: str
    #: Any of these scopes is enough; empty: no key is needed.
    scopes: tuple[Scope, ...]
    query: type[BaseModel] | None
    #: The body's model or typed dictionary.
    body: Any
    answer: type[BaseModel] | None
    status: int
    #: Whether a key that belongs to one service is refused.
    whole_team: bool
    #: Other statuses than the ones that every endpoint has.
    errors: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One request, admitted and checked."""

    identity: Identity
    query: Any
    body: Any
    request: Request

    def service(self, named: str | None = None) -> str:
        """
        The service that the request is about: named by it, else the key's own.

        Raises:
            InvalidError: Neither names one.
            ForbiddenError: The key belongs to another.
        """
        own = self.identity.service_name
        name = named or getattr(self.query, "service_name", None) or own
        if name is None:
            raise InvalidError("service_name is needed: this key belongs to no single service")
        if own is not None and name != own:
            raise ForbiddenError("this key belongs to another service")
        return str(name)


@dataclass(slots=True)
class Api:
    """The endpoints of one app."""

    runtime: Runtime
    blueprint: Blueprint
    endpoints: list[Endpoint] = field(default_factory=list)

    def endpoint(
        self,
        method: str,
        rule: str,
        *,
        scopes: tuple[Scope, ...],
        summary: str,
        query: type[BaseModel] | None = None,
        body: Any = None,
        answer: type[BaseModel] | None = None,
        status: int = 200,
        whole_team: bool = False,
        limit: Kind = "request",
        gate: Gate | None = None,
        errors: tuple[int, ...] = (),
    ) -> Callable[[_V], _V]:
        """Declare a view that is given a `Call` and answers with what *answer* describes."""

        def declare(view: _V) -> _V:
            name = view.__name__.strip("_")
            declared = Endpoint(
                rule=rule, method=method, name=name, summary=summary, scopes=scopes, query=query,
                body=body, answer=answer, status=status, whole_team=whole_team, errors=errors,
            )  # fmt: skip
            handler = _handler(self.runtime, declared, view, limit, gate)
            self.blueprint.add_url_rule(rule, endpoint=name, view_func=handler, methods=[method])
            self.endpoints.append(declared)
            return view

        return declare

    def bare(self, declared: Endpoint, handler: View) -> None:
        """Add a view that admits, checks and answers by itself, for what must be fastest."""
        self.blueprint.add_url_rule(
            declared.rule, endpoint=declared.name, view_func=handler, methods=[declared.method]
        )
        self.endpoints.append(declared)


def admit(
    runtime: Runtime, header: str | None, address: str, scopes: tuple[Scope, ...]
) -> Identity:
    """
    Who asks, where they may.

    Raises:
        UnauthorizedError: No valid key.
        ForbiddenError: The key lacks the scope.
        LimitedError: Too many refused keys from this address.
    """
    try:
        identity = runtime.ring.authenticate(header)
    except UnauthorizedError:
        runtime.limits.take("failure", address)
        raise
    for scope in scopes:
        if not identity.scopes.isdisjoint(_STRONGER[scope]):
            return identity
    raise ForbiddenError(f"the key needs the scope {' or '.join(scopes)}")


def json_answer(body: bytes, status: int = 200) -> Response:
    """A JSON answer that no cache keeps."""
    response = Response(body, status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response


def _handler(
    runtime: Runtime, declared: Endpoint, view: View, limit: Kind, gate: Gate | None
) -> View:
    adapter = None if declared.body is None else TypeAdapter(declared.body)
    entry = runtime.admission.database if gate is None else gate
    settings = runtime.settings

    def handle(**path: Any) -> Response:
        started = time.perf_counter()
        runtime.watcher.ensure_started()
        identity = admit(
            runtime,
            request.environ.get("HTTP_AUTHORIZATION"),
            request.remote_addr or "",
            declared.scopes,
        )
        if declared.whole_team and identity.service_name is not None:
            raise ForbiddenError("this key belongs to one service")
        runtime.limits.take(limit, identity.key_id)
        query = read_query(declared.query, request)
        body = None
        if adapter is not None:
            raw = (
                b"{}"
                if _is_empty(request)
                else read_body(
                    request,
                    most=settings.max_body_bytes,
                    most_compressed=settings.max_compressed_bytes,
                    deadlines=runtime.admission.bodies,
                )
            )
            body = parse(adapter, raw)
            find_double_keys(raw)
        with entry.passing():
            value = view(Call(identity, query, body, request), **path)
        response = _answer(declared, value)
        runtime.metrics.answered(declared.name, response.status_code, time.perf_counter() - started)
        return response

    handle.__name__ = declared.name
    return handle


def _is_empty(request: Request) -> bool:
    """Whether there is no body: an endpoint whose fields are all optional needs none."""
    return not request.content_length and "HTTP_TRANSFER_ENCODING" not in request.environ


def _answer(declared: Endpoint, value: Any) -> Response:
    if declared.answer is None:
        return json_answer(b"", declared.status) if value is None else value
    model = declared.answer.model_validate(value)
    return json_answer(model.model_dump_json().encode(), declared.status)


def read_query(model: type[BaseModel] | None, request: Request) -> BaseModel | None:
    """
    The query's parameters; each at most once, none unknown.

    Raises:
        InvalidError: One is wrong; the message names it.
    """
    given: dict[str, Any] = {}
    for name, values in request.args.lists():
        if len(values) > 1:
            raise InvalidError(f"{name[:40]} is given more than once")
        given[name] = values[0]
    if model is None:
        if given:
            raise InvalidError(f"there is no parameter {next(iter(given))[:40]!r}")
        return None
    try:
        return model.model_validate_strings(given, strict=False)
    except ValidationError as error:
        raise explain(error) from None
