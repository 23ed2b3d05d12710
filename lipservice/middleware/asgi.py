"""ASGI, and with it Starlette, FastAPI, Django under ASGI, Quart, Litestar."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from lipservice.middleware._trace import from_traceparent
from lipservice.scope import RecorderLimits, request

_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[_Message]], _Send], Awaitable[None]
]


class SamplingASGIMiddleware:
    """
    `app = SamplingASGIMiddleware(app)`, or `app.add_middleware(SamplingASGIMiddleware)` in
    Starlette and FastAPI.

    A request is called "METHOD /path" and has failed when it logs an ERROR, raises, or answers
    with a status from 500 on. Background tasks of the framework belong to it.

    Args:
        app: The application.
        limits: Bounds of a request's flight recorder; default: `RecorderLimits()`.
    """

    def __init__(self, app: _App, *, limits: RecorderLimits | None = None) -> None:
        self._app = app
        self._limits = limits

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[_Message]],
        send: _Send,
    ) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        name = f"{scope.get('method', 'WEBSOCKET')} {scope.get('path', '')}"
        trace_id = from_traceparent(_header(scope, b"traceparent"))
        async with request(name, trace_id=trace_id, limits=self._limits) as unit:

            async def watching(message: _Message) -> None:
                if message["type"] == "http.response.start" and message["status"] >= 500:
                    unit.keep()
                await send(message)

            await self._app(scope, receive, watching)


def _header(scope: MutableMapping[str, Any], name: bytes) -> str | None:
    for key, value in scope.get("headers", ()):
        if key.lower() == name:
            return bytes(value).decode("latin-1")
    return None
