"""Makes the WSGI application. Nothing is global: tests and workers each make their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from lipservice_server.api import add_api
from lipservice_server.config import Settings, check_dashboard, load_settings
from lipservice_server.dashboard import add_dashboard
from lipservice_server.runtime import Runtime, make_runtime

_KEY = "lipservice"


def create_app(
    settings: Settings | None = None, *, clock: Callable[[], float] = time.time
) -> Flask:
    """
    The policy server as a WSGI application.

    Opens no connection and starts no thread: the first request in a process does, so the
    application may be made before a fork.

    Args:
        settings: None: read from the environment.
        clock: Unix time, for tests.

    Raises:
        ConfigurationError: A setting is wrong; the message names it.
    """
    used = load_settings() if settings is None else settings
    check_dashboard(used)
    app = Flask("lipservice_server", static_folder=None)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.strict_slashes = False
    runtime = make_runtime(used, clock=clock)
    app.extensions[_KEY] = runtime
    app.extensions["lipservice_endpoints"] = add_api(app, runtime)
    add_dashboard(app, runtime)
    if used.trusted_proxies:
        proxied: Any = ProxyFix(
            app.wsgi_app, x_for=used.trusted_proxies, x_proto=used.trusted_proxies
        )
        app.wsgi_app = proxied  # type: ignore[method-assign]  # as Flask documents
    return app


def runtime_of(app: Flask) -> Runtime:
    """The parts that *app* was put together from."""
    runtime: Runtime = app.extensions[_KEY]
    return runtime
