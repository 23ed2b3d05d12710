"""
One POST on a kept connection, with a deadline for all of it, and what its answer means.

On http.client and not on requests (lipservice/_transport.py) for two reasons. Exports follow each
other closely: requests costs a millisecond of CPU each, more than the records. And urllib3 logs
each request through `logging`, whose lock `dictConfig` holds while it closes our handler, which
waits for this very request. http.client logs nothing, so nothing of ours can come back either.

Rule: nothing is raised, redirects are not followed, a whole exchange keeps to its deadline
(except for name resolution, which the system alone can bound).
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import http.client
import io
import os
import select
import socket
import ssl
import time
import urllib.request
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

from lipservice._answers import HTTPAnswer, Problem

try:
    import certifi  # comes with requests, but is not ours to require
except ImportError:
    certifi = None  # type: ignore[assignment]
# The sending thread imports nothing: a process forked in the middle of an import has half a module
# for ever. socket would look this up at the first host name, and remember that there is none.
codecs.lookup("idna")

_ANSWER_LIMIT: Final = 64 * 1024
#: Seconds of silence asked for by a receiver that are honoured, at most.
LONGEST_RETRY_AFTER: Final = 3600.0
#: A connection that idled longer is not trusted: balancers drop them without a word.
_IDLE: Final = 45.0


_inherited: Final[list[http.client.HTTPConnection]] = []


class Connection:
    """
    Posts to one address. Not thread-safe: the worker's own.

    Args:
        url: Where to post.
        clock: Monotonic seconds.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._secure else 80)
        self._path = parts.path or "/"
        self._authority = parts.netloc
        self._proxy = _proxy_for(parts.scheme, self._host)
        self._clock = clock
        self._tls: ssl.SSLContext | None = None
        self._open: http.client.HTTPConnection | None = None
        self._used_at = 0.0

    def post(self, body: bytes, headers: Mapping[str, str], seconds: float) -> HTTPAnswer:
        """Send *body* and read the whole answer within *seconds*; never raises."""
        deadline = self._clock() + seconds
        try:
            return self._exchange(body, headers, deadline)
        except Exception as error:
            self.close()
            return HTTPAnswer(problem=_problem_of(error), uncertain=True)

    def close(self) -> None:
        """Close the connection if one is open."""
        connection, self._open = self._open, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is gone either way
                connection.close()

    def forget(self) -> None:
        """
        In a forked child: let go of the parent's connection, without a word to anyone.

        Only the descriptor is closed. The objects around it may hold locks that a thread of the
        parent had, so they are kept and never touched again.
        """
        connection, self._open, self._tls = self._open, None, None
        if connection is not None:
            _inherited.append(connection)
            if connection.sock is not None:
                connection.sock.close()

    def _exchange(self, body: bytes, headers: Mapping[str, str], deadline: float) -> HTTPAnswer:
        connection = self._connection(deadline)
        left = self._left(deadline)
        connection.sock.settimeout(left)
        connection.response_class = _bounded_response(  # type: ignore[assignment]
            lambda: self._left(deadline)
        )
        connection.request("POST", self._target(), body=body, headers=dict(headers))
        response = connection.getresponse()
        content = response.read(_ANSWER_LIMIT + 1)
        if len(content) > _ANSWER_LIMIT or response.will_close:
            self.close()
        self._used_at = self._clock()
        answer_headers = {name.lower(): value for name, value in response.getheaders()}
        return HTTPAnswer(response.status, answer_headers, content[:_ANSWER_LIMIT])

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0.0:
            raise TimeoutError
        return left

    def _connection(self, deadline: float) -> http.client.HTTPConnection:
        if self._open is not None and (
            self._clock() - self._used_at > _IDLE or _is_dropped(self._open.sock)
        ):
            self.close()
        if self._open is None:
            connection = self._make(self._left(deadline))
            self._open = connection
            connection.connect()
        return self._open

    def _make(self, timeout: float) -> http.client.HTTPConnection:
        host, port, credentials = self._proxy or (self._host, self._port, "")
        connection: http.client.HTTPConnection
        if self._secure:
            self._tls = self._tls or _tls_context()
            connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=self._tls)
            if self._proxy:
                headers = {"Proxy-Authorization": credentials} if credentials else None
                connection.set_tunnel(self._host, self._port, headers)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        connection.set_debuglevel(0)  # a debug level set on the class would print our traffic
        return connection

    def _target(self) -> str:
        if self._proxy and not self._secure:
            return f"http://{self._authority}{self._path}"
        return self._path


def _bounded_response(
    left: Callable[[], float],
) -> Callable[..., http.client.HTTPResponse]:
    def response(sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:
        return http.client.HTTPResponse(_Bounded(sock, left), *args, **kwargs)  # type: ignore[arg-type]

    return response


class _Bounded(io.RawIOBase):
    """
    A socket, each read of which is given only the time that is left.

    http.client gives each read the whole timeout anew, so a receiver that drips a byte a second
    would hold it for ever.
    """

    def __init__(self, sock: socket.socket, left: Callable[[], float]) -> None:
        self._sock = sock
        self._left = left

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._left())
        return self._sock.recv_into(buffer)


def _is_dropped(sock: socket.socket | None) -> bool:
    """Whether the other side has closed, or has said something that nobody asked for."""
    if sock is None:
        return True
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            return bool(poll.poll(0))
        return bool(select.select([sock], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def _tls_context() -> ssl.SSLContext:
    """The system's certificates, or the bundle that the environment names, as requests does."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        path = os.environ.get(name)
        if path:
            return ssl.create_default_context(cafile=path)
    context = ssl.create_default_context()
    if certifi is not None:
        with contextlib.suppress(OSError):  # the bundle is gone: the system's may do
            context.load_verify_locations(certifi.where())
    return context


def _proxy_for(scheme: str, host: str) -> tuple[str, int, str] | None:
    """(host, port, Proxy-Authorization) of the environment's proxy for *host*, if any."""
    address = urllib.request.getproxies_environment().get(scheme)
    bypass = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # public, unlisted
    if not address or bypass(host):
        return None
    parts = urlsplit(address if "://" in address else f"http://{address}")
    if not parts.hostname:
        return None
    credentials = ""
    if parts.username:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        credentials = "Basic " + base64.b64encode(pair.encode()).decode()
    return parts.hostname, parts.port or 80, credentials


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, TimeoutError):
        return Problem("timeout", "no whole answer in time")
    if isinstance(error, ssl.SSLError):
        detail = getattr(error, "verify_message", None) or error.reason or type(error).__name__
        return Problem("connection", f"TLS failed: {detail}")
    if isinstance(error, OSError) and error.strerror:
        return Problem("connection", f"no connection: {error.strerror}")
    return Problem("connection", f"no whole answer: {type(error).__name__}")


# ---------------------------------------------------------------------- what an answer means


class Action(Enum):
    """What to do with a batch after an answer."""

    #: The receiver has it.
    DELIVERED = "delivered"
    #: Trouble that may pass.
    RETRY = "retry"
    #: Send halves: too large, or one bad record fails all.
    SPLIT = "split"
    #: The key is refused: nothing that is sent now can arrive.
    STOP = "stop"
    #: The receiver will never take it.
    DROP = "drop"


class Verdict(NamedTuple):
    """What an answer means."""

    action: Action
    #: Why a record that cannot be delivered is lost, as counted.
    reason: str
    #: For people; holds no secret.
    text: str
    #: Seconds that the receiver wants to be left alone.
    retry_after: float | None = None


def judge(answer: HTTPAnswer, now: float) -> Verdict:
    """
    What *answer* means, after the OTLP specification and PostHog's receiver.

    Args:
        answer: Of one request.
        now: Seconds since the epoch, for a Retry-After that is a date.
    """
    if answer.problem is not None:
        return Verdict(Action.RETRY, "gave_up", answer.problem.text)
    status, text = answer.status, f"the receiver answered {answer.status}{_said(answer.body)}"
    if 200 <= status < 300:
        return Verdict(Action.DELIVERED, "", text)
    if status in {400, 413, 422}:
        # PostHog fails a whole batch for one bad record; halves find it.
        return Verdict(Action.SPLIT, "too_large" if status == 413 else "refused", text)
    if status in {401, 403}:
        return Verdict(Action.STOP, "unauthorized", text)
    if status in {408, 425, 429} or (status >= 500 and status not in {501, 505}):
        wait = retry_after(answer.headers.get("retry-after", ""), now)
        return Verdict(Action.RETRY, "gave_up", text, wait)
    if 300 <= status < 400:
        place = answer.headers.get("location", "elsewhere")[:200]
        text = f"the receiver redirects to {place}, which would lose the records: set endpoint="
        return Verdict(Action.DROP, "redirected", text)
    return Verdict(Action.DROP, "rejected", text)


def retry_after(value: str, now: float) -> float | None:
    """Seconds of a Retry-After header (RFC 9110 10.2.3), bounded; None where it says nothing."""
    value = value.strip()
    try:
        seconds = float(value) if value[:1].isdigit() else _until(value, now)
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER)


def _until(date: str, now: float) -> float:
    return parsedate_to_datetime(date).timestamp() - now


def _said(body: bytes) -> str:
    """The beginning of an answer's body, fit for one line of a log."""
    text = body[:200].decode("utf-8", "replace")
    text = "".join(char if char.isprintable() else " " for char in text).strip()
    return f": {text}" if text else ""
