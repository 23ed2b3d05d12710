"""How an error is answered: one form for all, with no trace of the inside."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from lipservice_server.errors import ServerError, UnauthorizedError
from lipservice_server.runtime import Runtime

_log = logging.getLogger(__name__)


def problem_response(runtime: Runtime, error: ServerError) -> Response:
    """The answer for one of our own errors."""
    runtime.metrics.answered("error", error.status)
    response = _response(error.status, error.code, error.message, error.details)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after)))
    if isinstance(error, UnauthorizedError):
        response.headers["WWW-Authenticate"] = 'Bearer realm="lipservice"'
    if error.status in (408, 413):
        # Bytes of the body may be on their way still: they must not be taken for a request.
        response.headers["Connection"] = "close"
    return response


def add_problems(app: Flask, runtime: Runtime) -> None:
    """Answer every error of *app* in this form."""

    def ours(error: ServerError) -> Response:
        return problem_response(runtime, error)

    def http(error: HTTPException) -> Response:
        status = error.code or 500
        runtime.metrics.answered("error", status)
        response = _response(status, error.name.lower().replace(" ", "_"), f"{error.name}.", ())
        for header, value in error.get_headers():
            if header == "Allow":
                response.headers[header] = value
        return response

    def unexpected(error: Exception) -> Response:
        _log.error("a request failed", exc_info=error)
        runtime.metrics.answered("error", 500)
        return _response(500, "error", "The server failed; its log says how.", ())

    app.register_error_handler(ServerError, ours)
    app.register_error_handler(HTTPException, http)
    app.register_error_handler(Exception, unexpected)


def _response(status: int, code: str, message: str, details: Sequence[dict[str, Any]]) -> Response:
    body = {"error": {"code": code, "message": message, "details": list(details)}}
    response = Response(json.dumps(body), status, mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
