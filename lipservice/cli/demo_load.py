"""The traffic of `lipservice demo`: a loopback server, and visitors who go through the shop."""

from __future__ import annotations

import http.client
import random
import threading
from collections.abc import Callable
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from lipservice.cli.demo_shop import PRODUCTS

_SEARCHES: Final = ("chair", "lamp", "red", "kettle", "old+clock", "mirror", "warm", "nothing")
_TIMEOUT: Final = 10.0
# Of a hundred requests so many are of this kind; the rest looks at products.
_PAGES: Final = (("health", 12), ("search", 18), ("buy", 9), ("absent", 1))


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # The accept queue: visitors are many, and each request is a connection of its own.
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A visitor who left is no error."""


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """The shop logs its requests itself."""

    def address_string(self) -> str:
        """No name is looked up."""
        return str(self.client_address[0])


class LoopbackServer:
    """Serves a WSGI application on a free port of the loopback interface."""

    def __init__(self, application: Callable[..., Any]) -> None:
        # Not bind_and_activate by name: server_bind would look the host's name up.
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.set_app(application)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for the requests that are under way."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Visitors:
    """Threads that send requests, one after the other, until they are stopped."""

    def __init__(self, port: int, number: int, rng: random.Random) -> None:
        self._port = port
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(random.Random(rng.random()),), daemon=True)
            for _ in range(number)
        ]
        #: Requests that got no answer.
        self.failed = 0

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, and wait for the last answers."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _visit(self, rng: random.Random) -> None:
        while not self._stopped.is_set():
            method, path = _choose(rng)
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
            try:
                connection.request(method, path)
                connection.getresponse().read()
            except OSError:
                self.failed += 1
            finally:
                connection.close()


def _choose(rng: random.Random) -> tuple[str, str]:
    """The next request of a visitor; few products get most of the interest."""
    product = min(int(rng.paretovariate(0.6)), PRODUCTS)
    draw = rng.randrange(100)
    for page, share in _PAGES:
        if draw < share:
            return {
                "health": ("GET", "/health"),
                "search": ("GET", f"/search?q={rng.choice(_SEARCHES)}"),
                "buy": ("POST", f"/buy/{product}"),
                "absent": ("GET", f"/old-page-{rng.randrange(1000)}"),
            }[page]
        draw -= share
    return "GET", f"/product/{product}"
