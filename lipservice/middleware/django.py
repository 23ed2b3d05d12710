"""Django: `MIDDLEWARE = ["lipservice.middleware.django.sampling_middleware", ...]`, first."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from functools import partial
from typing import Any

from lipservice.exceptions import MissingExtraError
from lipservice.middleware._trace import from_traceparent
from lipservice.middleware._unit import CARRIED, Steps, Unit, carried, leave, name_of
from lipservice.scope import RequestScope, request

try:
    from asgiref.sync import iscoroutinefunction
    from django.utils.decorators import sync_and_async_middleware
except ImportError as missing:
    raise MissingExtraError("django", "all") from missing


@sync_and_async_middleware  # type: ignore[untyped-decorator, unused-ignore]
def sampling_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """
    Open a request around each of Django's, sync and async, until its body has been streamed.

    It is called by its route ("GET /cart/<int:number>"; "METHOD /path" until that is known) and
    has failed when it logs an ERROR or answers with a status from 500 on, as Django does for an
    exception that no view handled. Within `SamplingWSGIMiddleware` or `SamplingASGIMiddleware` it
    joins their request and gives it the route's name.
    """
    if iscoroutinefunction(get_response):

        async def serve_async(http_request: Any) -> Any:
            if carried(_carrier_of(http_request)) is not None:
                return await get_response(http_request)
            return await _serve_async(get_response, http_request)

        async def name_async(http_request: Any, *_view: Any) -> None:
            _name_by_route(http_request)

        serve_async.process_view = name_async  # type: ignore[attr-defined]
        return serve_async

    def serve(http_request: Any) -> Any:
        if carried(_carrier_of(http_request)) is not None:
            return get_response(http_request)
        return _serve(get_response, http_request)

    def name(http_request: Any, *_view: Any) -> None:
        _name_by_route(http_request)

    serve.process_view = name  # type: ignore[attr-defined]
    return serve


def _serve(get_response: Callable[[Any], Any], http_request: Any) -> Any:
    path, trace_id = _name_of(http_request), _trace_id_of(http_request)
    unit = Unit(path, _carrier_of(http_request), trace_id=trace_id)
    try:
        response = unit.run(get_response, http_request)
        if response.status_code >= 500:
            unit.scope.keep()
    except BaseException:
        unit.end()
        raise
    if _has_code_left(response) and not response.is_async:
        response.streaming_content = Steps(response.streaming_content, unit)
        _close_by(response, partial(unit.run, _closing(response)), unit.end)
    else:
        unit.end()
    return response


async def _serve_async(get_response: Callable[[Any], Any], http_request: Any) -> Any:
    carrier = _carrier_of(http_request)
    unit = request(_name_of(http_request), trace_id=_trace_id_of(http_request), root=True)
    scope = carrier[CARRIED] = unit.__enter__()
    streams = False
    try:
        response = await get_response(http_request)
        if response.status_code >= 500:
            scope.keep()
        streams = _has_code_left(response)
        if streams:
            # The task that streams it goes on in the request until it is closed, or thrown away
            # because the client has gone: an ASGI server serves each request in its own task.
            watched = _watched_async if response.is_async else _watched
            response.streaming_content = watched(response.streaming_content, scope)
            end = weakref.finalize(response, leave, unit)
            end.atexit = False
            _close_by(response, _closing(response), end)
    finally:
        if not streams:
            carrier.pop(CARRIED, None)
            leave(unit)
    return response


async def _watched_async(parts: AsyncIterator[Any], scope: RequestScope) -> AsyncIterator[Any]:
    try:
        async for part in parts:
            yield part
    except Exception:
        scope.keep()
        raise


def _watched(parts: Iterator[Any], scope: RequestScope) -> Iterator[Any]:
    try:
        yield from parts
    except Exception:
        scope.keep()
        raise


def _closing(response: Any) -> Callable[[], object]:
    """What closes *response*, without keeping it alive."""
    own: Callable[[], object] | None = vars(response).get("close")
    return own or partial(type(response).close, weakref.proxy(response))


def _close_by(response: Any, close: Callable[[], object], end: Callable[[], object]) -> None:
    def close_and_end() -> None:
        try:
            close()
        finally:
            end()

    response.close = close_and_end


def _has_code_left(response: Any) -> bool:
    """Whether code of the application runs while *response* is being sent; a file has none."""
    streams = bool(getattr(response, "streaming", False))
    return streams and getattr(response, "file_to_stream", None) is None


def _carrier_of(http_request: Any) -> MutableMapping[str, Any]:
    """The `scope` of ASGI, or the `environ` of WSGI."""
    carrier: MutableMapping[str, Any] = getattr(http_request, "scope", http_request.META)
    return carrier


def _name_of(http_request: Any) -> str:
    return name_of(http_request.method, http_request.path)


def _name_by_route(http_request: Any) -> None:
    """A route has few values, a path has many; Django knows it just before the view."""
    scope: RequestScope | None = _carrier_of(http_request).get(CARRIED)
    route = getattr(http_request.resolver_match, "route", None)
    if scope is not None and isinstance(route, str):
        slash = "" if route.startswith(("/", "^")) else "/"
        scope.name = name_of(http_request.method, slash + route)


def _trace_id_of(http_request: Any) -> str | None:
    return from_traceparent(http_request.headers.get("traceparent"))
