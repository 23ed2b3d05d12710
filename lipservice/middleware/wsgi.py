"""WSGI: one request of the flight recorder for each request, until its body is closed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lipservice.middleware._trace import from_traceparent
from lipservice.scope import RecorderLimits, RequestScope, request

_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class SamplingWSGIMiddleware:
    """
    `application = SamplingWSGIMiddleware(application)`. Also for Flask:
    `app.wsgi_app = SamplingWSGIMiddleware(app.wsgi_app)`.

    A request is called "METHOD /path" and has failed when it logs an ERROR, raises, or answers
    with a status from 500 on.

    Args:
        app: The application.
        limits: Bounds of a request's flight recorder; default: `RecorderLimits()`.
    """

    def __init__(self, app: _App, *, limits: RecorderLimits | None = None) -> None:
        self._app = app
        self._limits = limits

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Serve one request."""
        unit = request(
            f"{environ.get('REQUEST_METHOD', '')} {environ.get('PATH_INFO', '')}",
            trace_id=from_traceparent(environ.get("HTTP_TRACEPARENT")),
            limits=self._limits,
        )
        scope = unit.__enter__()
        try:
            return _Body(self._app(environ, _watching(start_response, scope)), unit)
        except BaseException:
            unit.__exit__(*sys.exc_info())
            raise


def _watching(start_response: Callable[..., Any], scope: RequestScope) -> Callable[..., Any]:
    def start(status: str, headers: Any, *exc_info: Any) -> Any:
        if status.startswith("5"):
            scope.keep()
        return start_response(status, headers, *exc_info)

    return start


class _Body:
    """The answer's body; its end is the end of the request."""

    def __init__(self, body: Iterable[bytes], unit: request) -> None:
        self._body = body
        self._unit = unit

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except BaseException:
            self._unit.__exit__(*sys.exc_info())
            raise

    def close(self) -> None:
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException:
            self._unit.__exit__(*sys.exc_info())
            raise
        self._unit.__exit__(None, None, None)
