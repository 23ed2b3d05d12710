"""The OpenAPI document, made from the declared endpoints and their models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import models_json_schema

from lipservice._version import __version__
from lipservice_server.api import schemas
from lipservice_server.api.routing import Endpoint

_REF: Final = "#/components/schemas/{model}"
_PATH_PART: Final = re.compile(r"<(?:(?P<kind>\w+)(?:\([^)]*\))?:)?(?P<name>\w+)>")
_PROBLEMS: Final = {
    400: "The request is broken.",
    401: "No valid key.",
    403: "The key lacks a scope, or belongs to another service.",
    404: "There is no such thing in this team.",
    408: "The body took too long to arrive.",
    409: "The state does not allow it.",
    411: "Content-Length is missing.",
    413: "The body is too large.",
    415: "The body's type or encoding is not supported.",
    422: "The request is wrong; the answer names the fields.",
    429: "Too many requests.",
    503: "The database is away, or too much is in flight; try again after Retry-After seconds.",
}


def make_openapi(endpoints: Sequence[Endpoint], prefix: str) -> dict[str, Any]:
    """The document for *endpoints*, whose rules begin with *prefix*."""
    definitions = _definitions(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        start = "" if endpoint.rule in ("/healthz", "/readyz", "/metrics") else prefix
        path = start + _PATH_PART.sub(r"{\g<name>}", endpoint.rule)
        paths.setdefault(path, {})[endpoint.method.lower()] = _operation(endpoint, definitions)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LipService policy server",
            "version": __version__,
            "description": "Takes in pattern counts, makes sampling policies, serves them.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key, or a token got for one.",
                }
            },
        },
    }


def _definitions(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    answers = {schemas.ErrorAnswer} | {e.answer for e in endpoints if e.answer is not None}
    bodies = {
        e.body for e in endpoints if isinstance(e.body, type) and issubclass(e.body, BaseModel)
    }
    models = [(model, "serialization") for model in sorted(answers, key=_name)]
    models += [(model, "validation") for model in sorted(bodies, key=_name)]
    _, schema = models_json_schema(models, ref_template=_REF)  # type: ignore[arg-type]
    found: dict[str, Any] = dict(schema.get("$defs", {}))
    for endpoint in endpoints:
        if endpoint.body is not None and endpoint.body.__name__ not in found:
            whole = TypeAdapter(endpoint.body).json_schema(ref_template=_REF)
            found.update(whole.pop("$defs", {}))
            found[endpoint.body.__name__] = whole
    return found


def _name(model: type[BaseModel]) -> str:
    return model.__name__


def _operation(endpoint: Endpoint, definitions: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": _path_parameters(endpoint) + _query_parameters(endpoint, definitions),
        "responses": _responses(endpoint),
    }
    if endpoint.scopes:
        operation["security"] = [{"key": []}]
        operation["description"] = f"Scope: {' or '.join(endpoint.scopes)} (admin may do all)."
    if endpoint.body is not None:
        needed = bool(definitions[endpoint.body.__name__].get("required"))
        operation["requestBody"] = {
            "required": needed,
            "content": {"application/json": {"schema": _ref(endpoint.body.__name__)}},
        }
    return operation


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    parameters = []
    for match in _PATH_PART.finditer(endpoint.rule):
        schema: dict[str, Any] = {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"}
        if match["kind"] == "int":
            schema = {"type": "integer", "minimum": 0, "maximum": 2**53 - 1}
        parameters.append({"name": match["name"], "in": "path", "required": True, "schema": schema})
    return parameters


def _query_parameters(endpoint: Endpoint, definitions: dict[str, Any]) -> list[dict[str, Any]]:
    if endpoint.query is None:
        return []
    schema = endpoint.query.model_json_schema(ref_template=_REF)
    definitions.update(schema.get("$defs", {}))
    needed = set(schema.get("required", ()))
    return [
        {"name": name, "in": "query", "required": name in needed, "schema": _without_null(about)}
        for name, about in schema["properties"].items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is absent is absent: there is no way to write null in a query."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if not kinds:
        return schema
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return rest | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds})


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done."}
    if endpoint.answer is not None:
        done["content"] = {"application/json": {"schema": _ref(endpoint.answer.__name__)}}
    elif endpoint.name == "metrics":
        done["content"] = {"text/plain": {"schema": {"type": "string"}}}
    statuses = set(endpoint.errors)
    if endpoint.scopes:
        statuses |= {400, 401, 403, 422, 429, 503}
    if endpoint.body is not None:
        statuses |= {408, 411, 413, 415}
    if endpoint.name == "readyz":
        statuses |= {503}
    if _PATH_PART.search(endpoint.rule):
        statuses |= {404}
    responses = {str(endpoint.status): done}
    if endpoint.name == "active":
        responses["304"] = {"description": "The policy is the one that If-None-Match names."}
    for status in sorted(statuses):
        responses[str(status)] = {
            "description": _PROBLEMS[status],
            "content": {"application/json": {"schema": _ref("ErrorAnswer")}},
        }
    return responses


def _ref(name: str) -> dict[str, str]:
    return {"$ref": _REF.format(model=name)}
