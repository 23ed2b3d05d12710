"""
One HTTP exchange on requests, with a deadline for all of it, a bounded body, and no exception.

Rules. This is the only module that imports requests. Every exchange has its own connection, which
it closes: exchanges lie minutes apart, and so nothing (no pool, no lock, no TLS state) is there to
be inherited by a forked child. Whatever goes wrong becomes a `Problem`, in words that hold no
header and no key. Redirects are not followed, `.netrc` is not read, certificates are verified.
"""

from __future__ import annotations

import email.utils
import encodings.idna  # noqa: F401 - socket imports it in the first look-up, which is the worker's
import functools
import http.client
import io
import math
import os
import ssl
import time
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import requests
import requests.adapters
import requests.utils
from urllib3 import Timeout
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError

from lipservice._answers import HTTPAnswer, Problem

if TYPE_CHECKING:
    import socket

_CHUNK: Final = 64 * 1024
_CA_BUNDLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def prepared_url(url: str) -> str:
    """
    *url* as requests sends it, with an international host name already encoded.

    Raises:
        ValueError: requests cannot send it.
    """
    try:
        return requests.Request("GET", url).prepare().url or ""
    except (requests.RequestException, UnicodeError) as error:
        raise ValueError(type(error).__name__) from None


class Transport:
    """
    Sends requests to one origin. Thread-safe: nothing is shared between exchanges.

    Args:
        url: The origin, for the choice of proxy.
        headers: Sent with every request.
        connect: Most seconds to connect to one address.
        read: Most seconds without a byte.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        connect: float,
        read: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._headers = dict(headers)
        self._connect = connect
        self._read = read
        self._clock = clock
        self._proxies = dict(requests.utils.get_environ_proxies(url, no_proxy=None))
        self._verify = next((path for name in _CA_BUNDLES if (path := os.environ.get(name))), True)

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        limit: int,
        seconds: float,
        silence: float | None = None,
    ) -> HTTPAnswer:
        """
        Send one request and read its whole answer; never raises.

        Args:
            method: GET or POST.
            url: Absolute.
            headers: In addition to those of the transport.
            body: What to send.
            limit: Most bytes of the answer's body, as sent and as unpacked.
            seconds: For everything but name resolution, which the system alone can bound; with
                several addresses each costs at most `connect`.
            silence: Most seconds without a byte, in place of the transport's `read`.
        """
        deadline = self._clock() + max(0.0, seconds)
        left = functools.partial(_left, deadline, self._clock)
        adapter = _Adapter(left)
        try:
            prepared = requests.Request(
                method, url, headers={**self._headers, **headers}, data=body
            ).prepare()
            response = adapter.send(
                prepared,
                stream=True,
                timeout=self._timeout(left(), self._read if silence is None else silence),
                verify=self._verify,
                proxies=self._proxies,
            )
            with response:
                return _read_answer(response, limit)
        except Exception as error:
            problem = _problem_of(error)
            return HTTPAnswer(problem=problem, uncertain=not _never_connected(error))
        finally:
            adapter.close()

    def _timeout(self, left: float, silence: float) -> Any:
        # Declared as what requests' annotations leave out: its adapter takes a urllib3 Timeout.
        return Timeout(connect=min(self._connect, left), read=min(silence, left), total=left)


def _left(deadline: float, clock: Callable[[], float]) -> float:
    """Seconds left, never 0, which would mean "do not block" to a socket."""
    return max(0.001, deadline - clock())


# ---------------------------------------------------------------------- the deadline


class _Adapter(requests.adapters.HTTPAdapter):
    """Makes connections whose every read ends at the deadline, also through a proxy."""

    def __init__(self, left: Callable[[], float]) -> None:
        self._left = left
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _bound(self.poolmanager, self._left)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        _bound(manager, self._left)
        return manager


def _bound(manager: Any, left: Callable[[], float]) -> None:
    manager.pool_classes_by_scheme = {
        scheme: functools.partial(_pool, pool, left)
        for scheme, pool in manager.pool_classes_by_scheme.items()
    }


def _pool(make: Callable[..., Any], left: Callable[[], float], *args: Any, **kwargs: Any) -> Any:
    pool = make(*args, **kwargs)
    pool.ConnectionCls = functools.partial(_connection, pool.ConnectionCls, left)
    return pool


def _connection(
    make: Callable[..., Any], left: Callable[[], float], *args: Any, **kwargs: Any
) -> Any:
    connection = make(*args, **kwargs)
    connection.response_class = functools.partial(_Response, left)
    return connection


class _Response(http.client.HTTPResponse):
    """
    Reads through `_Reader`.

    http.client gives each read its own timeout, so a server that drips a byte a second, in the
    body or already in the headers, would hold it for ever.
    """

    def __init__(
        self, left: Callable[[], float], sock: socket.socket, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_Reader(raw, sock, left))


class _Reader(io.RawIOBase):
    """A socket's raw stream, each read of which is given only the time that is left."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, left: Callable[[], float]) -> None:
        self._raw = raw
        self._sock = sock
        self._left = left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._left()
        if left <= 0.001:
            raise TimeoutError("the deadline of the request has passed")
        timeout = self._sock.gettimeout()
        self._sock.settimeout(left if timeout is None else min(timeout, left))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


# ---------------------------------------------------------------------- the answer


class _BadBodyError(Exception):
    """The body is too large or cannot be unpacked; its text is fit for a log."""


def _read_answer(response: requests.Response, limit: int) -> HTTPAnswer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    status, retry_after = response.status_code, _retry_after(headers)
    try:
        body = _unpacked(_read_body(response, limit), headers.get("content-encoding", ""), limit)
    except _BadBodyError as error:
        problem = Problem("body", str(error), status)
        return HTTPAnswer(status, headers, b"", problem, retry_after, uncertain=True)
    return HTTPAnswer(status, headers, body, retry_after=retry_after)


def _read_body(response: requests.Response, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := response.raw.read(_CHUNK, decode_content=False):
        size += len(part)
        if size > limit:
            raise _BadBodyError(f"the answer is larger than {limit:,} bytes")
        parts.append(part)
    return b"".join(parts)


def _unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "x-gzip"}:
        raise _BadBodyError("the answer is packed in a way that was not asked for")
    inflater = zlib.decompressobj(wbits=31)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise _BadBodyError("the answer is no gzip although it says so") from None
    if len(plain) > limit:
        raise _BadBodyError(f"the answer is larger than {limit:,} bytes unpacked")
    if not inflater.eof or inflater.unused_data:
        raise _BadBodyError("the answer's gzip is cut off or followed by something else")
    return plain


def _retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """
    Seconds of the Retry-After header, in both its forms (RFC 9110, 10.2.3).

    A date is taken relative to the answer's own Date, so that this machine's clock matters only
    where the server sends none.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value) if len(value) < 10 else math.inf
    until, sent = _http_date(value), _http_date(headers.get("date", ""))
    if until is None:
        return None
    return max(0.0, until - (now() if sent is None else sent))


def _http_date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


# ---------------------------------------------------------------------- problems in words


def _problem_of(error: Exception) -> Problem:
    causes = _causes(error)
    if any(isinstance(cause, (TimeoutError, requests.Timeout)) for cause in causes):
        return Problem("timeout", "no whole answer in time")
    for cause in reversed(causes):
        if isinstance(cause, ssl.SSLError):
            detail = getattr(cause, "verify_message", None) or cause.reason or "no handshake"
            return Problem("connection", f"TLS failed: {detail}")
        if isinstance(cause, OSError) and cause.strerror:
            return Problem("connection", f"no connection: {cause.strerror}")
    if isinstance(error, (requests.RequestException, HTTPError)):
        return Problem("connection", f"no whole answer: {type(causes[-1]).__name__}")
    return Problem("internal", f"the request failed: {type(error).__name__}")


def _never_connected(error: Exception) -> bool:
    before = (NewConnectionError, ConnectTimeoutError)
    return any(isinstance(cause, before) for cause in _causes(error))


def _causes(error: BaseException) -> list[BaseException]:
    """*error* and what it was raised from, outermost first; urllib3 hides causes in attributes."""
    found: list[BaseException] = []
    todo: list[object] = [error]
    while todo and len(found) < 20:
        cause = todo.pop(0)
        if isinstance(cause, BaseException) and cause not in found:
            found.append(cause)
            todo += [
                getattr(cause, "reason", None),
                *cause.args,
                cause.__cause__,
                cause.__context__,
            ]
    return found
