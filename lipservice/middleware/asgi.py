"""ASGI, and with it Starlette, FastAPI, Django under ASGI, Quart, Litestar."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from lipservice.middleware._trace import from_traceparent
from lipservice.middleware._unit import CARRIED, carried, leave, name_of
from lipservice.scope import RecorderLimits, checked, request

_Message = MutableMapping[str, Any]
_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class SamplingASGIMiddleware:
    """
    `app = SamplingASGIMiddleware(app)`, or `app.add_middleware(SamplingASGIMiddleware)` in
    Starlette and FastAPI.

    A request is called "METHOD /path" (with Starlette and FastAPI, once it is answered, by its
    route: "GET /cart/{number}") and has failed when it logs an ERROR, raises, or answers with a
    status from 500 on. A websocket is one request until it is closed; it has failed, too, when
    the application closes it with the code 1011. Background tasks of the framework belong to
    their request.

    Args:
        app: The application.
        limits: Bounds of a request's flight recorder; default: `RecorderLimits()`.

    Raises:
        ConfigurationError: *limits* is no `RecorderLimits`.
    """

    def __init__(self, app: _App, *, limits: RecorderLimits | None = None) -> None:
        self._app = app
        self._limits = checked(limits)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"} or carried(scope) is not None:
            await self._app(scope, receive, send)
            return
        method = str(scope.get("method", "WEBSOCKET"))
        name = name_of(method, scope.get("path", ""))
        unit = request(
            name,
            trace_id=from_traceparent(_header(scope, b"traceparent")),
            limits=self._limits,
            root=True,
        )
        recorded = scope[CARRIED] = unit.__enter__()

        def name_by_route() -> None:
            route = _route_of(scope)
            if route is not None and recorded.name == name:  # the application's own stays
                recorded.name = name_of(method, route)

        async def watching(message: _Message) -> None:
            if _has_failed(message):
                name_by_route()
                recorded.keep()
            await send(message)

        try:
            await self._app(scope, receive, watching)
        except Exception:  # not CancelledError: the client has gone, say
            name_by_route()
            recorded.keep()
            raise
        finally:
            name_by_route()
            scope.pop(CARRIED, None)
            leave(unit)


def _has_failed(message: _Message) -> bool:
    kind = message["type"]
    if kind in {"http.response.start", "websocket.http.response.start"}:
        return bool(message["status"] >= 500)
    return bool(kind == "websocket.close" and message.get("code") == 1011)


def _route_of(scope: _Scope) -> str | None:
    """A route has few values, a path has many; Starlette and FastAPI leave it in the scope."""
    inner = scope.get("fastapi")
    # Newer versions of FastAPI have the route without the prefix of the router that it is in.
    whole = inner.get("effective_route_context") if isinstance(inner, Mapping) else None
    path = getattr(whole or scope.get("route"), "path", None)
    return path if isinstance(path, str) else None


def _header(scope: _Scope, name: bytes) -> str | None:
    for key, value in scope.get("headers", ()):
        if key.lower() == name:
            return bytes(value).decode("latin-1")
    return None
