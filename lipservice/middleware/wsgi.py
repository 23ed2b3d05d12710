"""WSGI: one request of the flight recorder for each request, until its body is closed."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from lipservice.middleware._trace import from_traceparent
from lipservice.middleware._unit import Steps, Unit, carried, name_of
from lipservice.scope import RecorderLimits, checked

_App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class SamplingWSGIMiddleware:
    """
    `application = SamplingWSGIMiddleware(application)`. Also for Flask:
    `app.wsgi_app = SamplingWSGIMiddleware(app.wsgi_app)`.

    A request is called "METHOD /path" (with Flask, as soon as it is answered, by its rule:
    "GET /cart/<int:number>") and has failed when it logs an ERROR, raises, or answers with a status
    from 500 on. It ends when its body has ended. A body that is a list or tuple, or a file that
    the server sends by itself, is handed on as it is: the application has nothing more to do.

    Args:
        app: The application.
        limits: Bounds of a request's flight recorder; default: `RecorderLimits()`.

    Raises:
        ConfigurationError: *limits* is no `RecorderLimits`.
    """

    def __init__(self, app: _App, *, limits: RecorderLimits | None = None) -> None:
        self._app = app
        self._limits = checked(limits)

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Serve one request."""
        if carried(environ) is not None:
            return self._app(environ, start_response)
        name = name_of(environ.get("REQUEST_METHOD", ""), _path_of(environ))
        unit = Unit(
            name,
            environ,
            trace_id=from_traceparent(environ.get("HTTP_TRACEPARENT")),
            limits=self._limits,
        )

        def start(status: str, headers: Any, *exc_info: Any, **named: Any) -> Any:
            rule = _rule_of(environ)
            if rule is not None and unit.scope.name == name:  # the application's own stays
                unit.scope.name = name_of(environ.get("REQUEST_METHOD", ""), rule)
            if status[:1] >= "5":
                unit.scope.keep()
            return start_response(status, headers, *exc_info, **named)

        try:
            body = unit.run(self._app, environ, start)
        except BaseException:
            unit.end()
            raise
        if _is_done(body, environ):
            unit.end()
            return body
        return Steps(body, unit)


def _path_of(environ: dict[str, Any]) -> str:
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    # PEP 3333 brings the bytes of the path as Latin-1.
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


def _rule_of(environ: dict[str, Any]) -> str | None:
    """A rule has few values, a path has many; Flask has it in the environ while it answers."""
    rule = getattr(getattr(environ.get("werkzeug.request"), "url_rule", None), "rule", None)
    return rule if isinstance(rule, str) else None


def _is_done(body: Iterable[bytes], environ: dict[str, Any]) -> bool:
    """Whether no code of the application will run while the server sends *body*."""
    if type(body) in (list, tuple) or isinstance(body, io.IOBase):
        return True
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
