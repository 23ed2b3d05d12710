"""
A small real policy server on loopback that can also misbehave in every way we could think of.

    with PolicyServer() as server:
        client = LipServiceClient(server.url, "key")
        server.behave("503")          # from now on, for every request
        server.behave("hang", "report")  # only for reports
        server.script("reset", "503")    # for the next requests, one each

It counts what it acknowledges the way the real server must: once per report id.
`python -m tests.support.policy_server [PORT]` serves until it is interrupted.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import json
import socket
import ssl
import struct
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

#: The behaviours of RELIABILITY.md's goal G1.
G1_BEHAVIOURS = (
    "refused", "reset", "hang", "drip", "301",
    "400", "401", "403", "404", "408", "413", "429", "500", "502", "503",
    "truncated", "garbage", "html", "null", "list",
)  # fmt: skip
#: More that a client must survive.
OTHER_BEHAVIOURS = (
    "drip_headers", "close", "empty", "204", "304", "422", "endless_headers", "bad_status_line",
    "bad_length", "huge", "bomb", "bad_gzip", "cut_gzip", "brotli", "nested", "not_utf8",
    "chunked_cut", "continue_for_ever",
)  # fmt: skip
#: Those that end only by the client's own time-out.
ENDLESS_BEHAVIOURS = frozenset({"hang", "drip", "drip_headers", "continue_for_ever"})

POLICY: dict[str, Any] = {
    "policy_id": "policy_123",
    "sampling_rate": 0.1,
    "patterns": ["error", "warning"],
    "max_logs_per_minute": 1000,
    "severity_rates": {"ERROR": 1.0, "WARNING": 0.5, "INFO": 0.1, "DEBUG": 0.05},
}


@dataclass
class Request:
    """What came in."""

    method: str
    target: str
    headers: dict[str, str]
    raw: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def body(self) -> bytes:
        packed = self.headers.get("content-encoding") == "gzip"
        return gzip.decompress(self.raw) if packed else self.raw

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        path = self.target.partition("?")[0]
        return {"active": "policy", "report": "report", "generate": "generate"}.get(
            path.rpartition("/")[2], "other"
        )


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> bool:
    """Look until *condition()* holds; whether it does."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


class PolicyServer:
    """Serves in its own threads on a free port; a context manager."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, port: int = 0) -> None:
        self.policy: dict[str, Any] = dict(POLICY)
        self.retry_after: str | None = None
        self.date: str | None = None
        self.etag: str | None = None  # instead of the right one
        self.think = 0.0  # seconds before each answer
        self.most_patterns: int | None = None  # a larger report gets 413
        self.poison: set[str] = set()  # a report with one of these signatures gets 422
        self.requests: list[Request] = []
        self.bytes_sent = 0
        self.reports: dict[str, dict[str, Any]] = {}  # acknowledged or counted, by id
        self.conflicts: list[str] = []  # ids that came again with another body
        self._digests: dict[str, str] = {}
        self._behaviours: dict[str, str] = {}
        self._script: deque[str] = deque()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._stopped_holding = threading.Event()
        self._tls = tls
        self._listener = self._bind(port)
        self.port: int = self._listener.getsockname()[1]
        self._listener.listen(512)

    # -------------------------------------------------------------- for tests

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    def behave(self, behaviour: str, kind: str = "") -> None:
        """Answer like this from now on: all requests, or those of a kind."""
        if not kind:
            self._behaviours.clear()
        if behaviour == "refused":
            self._refuse()
        elif not self._listening:
            self._listen_again()
        self._behaviours[kind] = behaviour

    def script(self, *behaviours: str) -> None:
        """Answer the next requests like this, one each."""
        self._script.extend(behaviours)

    def of_kind(self, kind: str) -> list[Request]:
        return [request for request in list(self.requests) if request.kind == kind]

    def let_go(self) -> None:
        """End the answers that hang or drip."""
        held, self._stopped_holding = self._stopped_holding, threading.Event()
        held.set()

    @property
    def counted(self) -> dict[str, int]:
        """Records counted of each signature."""
        totals: dict[str, int] = {}
        for report in list(self.reports.values()):
            for pattern in report["patterns"]:
                signature = pattern["signature"]
                totals[signature] = totals.get(signature, 0) + pattern["count"]
        return totals

    # -------------------------------------------------------------- life

    def start(self) -> PolicyServer:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def close(self) -> None:
        self._stopped.set()
        self.let_go()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> PolicyServer:  # noqa: PYI034 - nobody derives from it
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    _listening = True

    @staticmethod
    def _bind(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        return listener

    def _refuse(self) -> None:
        """Keep the port but listen no more: connections are refused."""
        if self._listening:
            self._listening = False
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = self._bind(self.port)

    def _listen_again(self) -> None:
        self._listening = True
        self._listener.listen(512)
        self.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection:
            connection.settimeout(30)
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                request = _read_request(connection)
                if request is None:
                    return
                with self._lock:
                    self.requests.append(request)
                    behaviour = self._behaviour_for(request.kind)
                self._stopped_holding.wait(self.think)
                self._answer(connection, request, behaviour)

    def _behaviour_for(self, kind: str) -> str:
        if self._script:
            return self._script.popleft()
        return self._behaviours.get(kind) or self._behaviours.get("") or "ok"

    # -------------------------------------------------------------- answers

    def _answer(self, connection: socket.socket, request: Request, behaviour: str) -> None:
        counts, _, way = behaviour.partition("+")
        if counts == "count":  # it is counted, but the answer does not arrive
            self._take_report(request)
            behaviour = way
        if behaviour == "ok":
            self._answer_well(connection, request)
        elif behaviour.isdigit():
            self._answer_status(connection, int(behaviour))
        else:
            getattr(self, f"_do_{behaviour}")(connection)

    def _answer_well(self, connection: socket.socket, request: Request) -> None:
        if request.kind == "policy":
            self._answer_policy(connection, request)
        elif request.kind == "report":
            self._send_json(connection, *self._take_report(request))
        elif request.kind == "generate":
            self._send_json(connection, 200, {**self.policy, "cost_reduction": 0.75})
        else:
            self._send_json(connection, 404, {"error": "no such address"})

    def _answer_policy(self, connection: socket.socket, request: Request) -> None:
        body = json.dumps(self.policy).encode()
        etag = self.etag or f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = {"ETag": etag, "Content-Type": "application/json"}
        if request.headers.get("if-none-match") == etag:
            self._send(connection, 304, b"", headers)
        elif "gzip" in request.headers.get("accept-encoding", "") and len(body) > 500:
            headers["Content-Encoding"] = "gzip"
            self._send(connection, 200, gzip.compress(body), headers)
        else:
            self._send(connection, 200, body, headers)

    def _take_report(self, request: Request) -> tuple[int, dict[str, Any]]:
        report = request.json
        patterns = report["patterns"]
        if self.most_patterns is not None and len(patterns) > self.most_patterns:
            return 413, {"error": "too large"}
        if self.poison & {pattern["signature"] for pattern in patterns}:
            return 422, {"error": "a pattern is refused"}
        with self._lock:
            return self._count_once(report, hashlib.sha256(request.raw).hexdigest())

    def _count_once(self, report: dict[str, Any], digest: str) -> tuple[int, dict[str, Any]]:
        report_id = report["report_id"]
        if self._digests.setdefault(report_id, digest) != digest:
            self.conflicts.append(report_id)
            return 409, {"error": "another body"}
        self.reports[report_id] = report
        return 200, {"status": "success", "patterns_processed": len(report["patterns"])}

    def _answer_status(self, connection: socket.socket, status: int) -> None:
        headers = {"Location": self.url + "/loop"} if status in {301, 302, 307, 308} else {}
        if self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        if self.date is not None:
            headers["Date"] = self.date
        body = b"" if status in {204, 304} else b'{"error": "as asked for"}'
        self._send(connection, status, body, headers)

    def _send_json(self, connection: socket.socket, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self._send(connection, status, body, {"Content-Type": "application/json"})

    def _send(
        self, connection: socket.socket, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        lines = [f"HTTP/1.1 {status} Whatever"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if status != 304:
            lines.append(f"Content-Length: {len(body)}")
        self._write(connection, "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)

    def _write(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        with self._lock:
            self.bytes_sent += len(data)

    # -------------------------------------------------------------- misbehaviour

    def _do_refused(self, connection: socket.socket) -> None:
        self._do_reset(connection)  # was accepted in the moment before

    def _do_reset(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _do_close(self, connection: socket.socket) -> None:
        pass

    def _do_hang(self, connection: socket.socket) -> None:
        self._stopped_holding.wait(600)

    def _drip(self, connection: socket.socket, data: bytes) -> None:
        held = self._stopped_holding
        for place in range(len(data)):
            self._write(connection, data[place : place + 1])
            if held.wait(0.05):
                return

    def _do_drip(self, connection: socket.socket) -> None:
        self._write(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        self._drip(connection, b" " * 100_000)

    def _do_drip_headers(self, connection: socket.socket) -> None:
        self._drip(connection, b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 60_000)

    def _do_endless_headers(self, connection: socket.socket) -> None:
        self._write(connection, b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100_000)

    def _do_continue_for_ever(self, connection: socket.socket) -> None:
        held = self._stopped_holding
        while not held.wait(0.01):
            self._write(connection, b"HTTP/1.1 100 Continue\r\n\r\n")

    def _do_bad_status_line(self, connection: socket.socket) -> None:
        self._write(connection, b"\x16\x03\x01\x00\xff hello\r\n\r\n")

    def _do_bad_length(self, connection: socket.socket) -> None:
        self._write(connection, b"HTTP/1.1 200 OK\r\nContent-Length: -7, x\r\n\r\n{}")

    def _do_truncated(self, connection: socket.socket) -> None:
        body = json.dumps(self.policy).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self._write(connection, head + body[: len(body) // 2])

    def _do_chunked_cut(self, connection: socket.socket) -> None:
        self._write(connection, b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"a":')

    def _do_empty(self, connection: socket.socket) -> None:
        self._send(connection, 200, b"", {})

    def _do_garbage(self, connection: socket.socket) -> None:
        self._send(connection, 200, bytes(range(256)) * 40, {"Content-Type": "application/json"})

    def _do_html(self, connection: socket.socket) -> None:
        self._send(connection, 200, b"<html>Please log in</html>", {"Content-Type": "text/html"})

    def _do_null(self, connection: socket.socket) -> None:
        self._send(connection, 200, b"null", {"Content-Type": "application/json"})

    def _do_list(self, connection: socket.socket) -> None:
        self._send(connection, 200, b"[1, 2]", {"Content-Type": "application/json"})

    def _do_nested(self, connection: socket.socket) -> None:
        self._send(connection, 200, b'{"a":' + b"[" * 200_000, {"Content-Type": "application/json"})

    def _do_not_utf8(self, connection: socket.socket) -> None:
        self._send(connection, 200, b'{"policy_id": "\xff\xfe"}', {})

    def _do_huge(self, connection: socket.socket) -> None:
        self._write(connection, b"HTTP/1.1 200 OK\r\nContent-Length: 400000000\r\n\r\n")
        for _ in range(400):
            self._write(connection, b" " * 1_000_000)

    def _do_bomb(self, connection: socket.socket) -> None:
        self._send(connection, 200, _bomb(), {"Content-Encoding": "gzip"})

    def _do_bad_gzip(self, connection: socket.socket) -> None:
        self._send(connection, 200, b"not gzip at all", {"Content-Encoding": "gzip"})

    def _do_cut_gzip(self, connection: socket.socket) -> None:
        body = gzip.compress(json.dumps(self.policy).encode())[:-9]
        self._send(connection, 200, body, {"Content-Encoding": "gzip"})

    def _do_brotli(self, connection: socket.socket) -> None:
        self._send(connection, 200, b"{}", {"Content-Encoding": "br"})


@functools.cache
def _bomb() -> bytes:
    """200 MB of zeroes in 194 kB."""
    packer = zlib.compressobj(wbits=31)
    return b"".join([*(packer.compress(bytes(1_000_000)) for _ in range(200)), packer.flush()])


def _read_request(connection: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, raw = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    while len(raw) < int(headers.get("content-length", 0)):
        part = connection.recv(65536)
        if not part:
            return None
        raw += part
    return Request(method, target, headers, raw)


if __name__ == "__main__":
    with PolicyServer(port=int(sys.argv[1]) if sys.argv[1:] else 0) as server:
        print(server.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
