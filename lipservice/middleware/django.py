"""Django: `MIDDLEWARE = ["lipservice.middleware.django.sampling_middleware", ...]`, first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lipservice.exceptions import MissingExtraError
from lipservice.middleware._trace import from_traceparent
from lipservice.scope import request

try:
    from asgiref.sync import iscoroutinefunction
    from django.utils.decorators import sync_and_async_middleware
except ImportError as missing:
    raise MissingExtraError("django", "all") from missing


@sync_and_async_middleware  # type: ignore[untyped-decorator, unused-ignore]
def sampling_middleware(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """
    Open a request called "METHOD /path" around each of Django's, sync and async.

    It has failed when it logs an ERROR or answers with a status from 500 on, as Django does for
    an exception that no view handled.
    """
    if iscoroutinefunction(get_response):

        async def serve_async(http_request: Any) -> Any:
            async with _unit_of(http_request) as scope:
                response = await get_response(http_request)
                if response.status_code >= 500:
                    scope.keep()
                return response

        return serve_async

    def serve(http_request: Any) -> Any:
        with _unit_of(http_request) as scope:
            response = get_response(http_request)
            if response.status_code >= 500:
                scope.keep()
            return response

    return serve


def _unit_of(http_request: Any) -> request:
    return request(
        f"{http_request.method} {http_request.path}",
        trace_id=from_traceparent(http_request.headers.get("traceparent")),
    )
