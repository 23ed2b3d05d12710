"""
A real OTLP/HTTP receiver in a process of its own, which decodes, stores, and misbehaves on request.

It answers like PostHog's (rust/capture-logs): 401 without a token or with a personal key, 413 above
2 MiB on the wire or unpacked, 400 for a body that cannot be read or, on request, that holds one
bad record. The test's side is `Receiver`; run as a program this file is the server.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LIMIT = 2 * 1024 * 1024


class Receiver:
    """Starts the server and asks it what came. Use as a context manager."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}/i/v1/logs"

    def __enter__(self) -> Receiver:  # noqa: PYI034
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def reset(self) -> None:
        """Forget all records and behave."""
        self._ask("/_reset", {})

    def misbehave(self, *rules: dict[str, Any]) -> None:
        """
        Answer by the first rule that applies to a request, or well if none does.

        A rule has a `kind` (status, reset, hang, drip, garbage, truncate, redirect, slow, partial,
        poison, limit, accept_then_reset), and `times` (so many requests; default: all) or `share`
        (that part of the requests, drawn with a fixed seed).
        """
        self._ask("/_rules", {"rules": rules})

    def records(self) -> list[dict[str, Any]]:
        """Every record that was acknowledged, in the order of arrival."""
        return self._ask("/_records")

    def stats(self) -> dict[str, Any]:
        """Counts of requests, answers, records and bytes, and each request's headers and size."""
        return self._ask("/_stats")

    def wait_for(self, records: int, seconds: float = 20.0) -> list[dict[str, Any]]:
        """The records, once there are so many."""
        deadline = time.monotonic() + seconds
        while self.stats()["records"] < records and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.records()

    def _ask(self, path: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


# ---------------------------------------------------------------------- the server


class State:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.rules: list[dict[str, Any]] = []
        self.draw = random.Random(7)
        self.bodies: list[bytes] = []
        self.requests: list[dict[str, Any]] = []
        self.answers: dict[str, int] = {}
        self.count = 0

    def rule(self) -> dict[str, Any]:
        with self.lock:
            for rule in self.rules:
                if rule.get("times", 1) <= 0:
                    continue
                if "share" in rule and self.draw.random() >= rule["share"]:
                    continue
                if "times" in rule:
                    rule["times"] -= 1
                return rule
        return {}


def parse(body: bytes) -> Any:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    return ExportLogsServiceRequest.FromString(body)


def records_of(body: bytes) -> list[dict[str, Any]]:
    found = []
    for resource_logs in parse(body).resource_logs:
        resource = pairs(resource_logs.resource.attributes)
        for scope_logs in resource_logs.scope_logs:
            for record in scope_logs.log_records:
                found.append(
                    {
                        "body": record.body.string_value,
                        "severity_number": record.severity_number,
                        "severity_text": record.severity_text,
                        "time_unix_nano": record.time_unix_nano,
                        "attributes": pairs(record.attributes),
                        "dropped_attributes_count": record.dropped_attributes_count,
                        "trace_id": record.trace_id.hex(),
                        "span_id": record.span_id.hex(),
                        "flags": record.flags,
                        "scope": scope_logs.scope.name,
                        "resource": resource,
                    }
                )
    return found


def pairs(attributes: Any) -> dict[str, Any]:
    names = [pair.key for pair in attributes]
    assert len(set(names)) == len(names), f"not unique: {names}"
    return {pair.key: value_of(pair.value) for pair in attributes}


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: value_of(pair.value) for pair in value.kvlist_value.values}
    if kind == "bytes_value":
        return {"$bytes": value.bytes_value.hex()}
    return getattr(value, kind)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state: State

    def log_message(self, *_args: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.state
        with state.lock:
            bodies = list(state.bodies)
            stats = {
                "requests": len(state.requests),
                "answers": dict(state.answers),
                "records": state.count,
                "seen": list(state.requests[-2000:]),
            }
        if self.path == "/_records":
            self.say(200, [record for body in bodies for record in records_of(body)])
        else:
            self.say(200, stats)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/_reset":
            self.state.reset()
            self.say(200, {})
        elif self.path == "/_rules":
            with self.state.lock:
                self.state.rules = json.loads(body)["rules"]
            self.say(200, {})
        else:
            self.take(body)

    def take(self, body: bytes) -> None:
        with self.state.lock:
            self.state.requests.append(
                {"path": self.path, "size": len(body), "headers": dict(self.headers.items())}
            )
        rule = self.state.rule()
        act = getattr(self, f"act_{rule.get('kind', 'well')}")
        act(rule, body)

    def act_well(self, rule: dict[str, Any], body: bytes) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.path.startswith("/flags"):
            self.answer(401 if json.loads(body)["token"] == "phc_wrong" else 200, b"{}")
        elif not token or token.startswith("phx_"):
            self.answer(401, b'{"error":"Invalid project API key"}')
        elif len(body) > LIMIT:
            self.answer(413, b"")
        else:
            self.store(rule, body)

    def store(self, rule: dict[str, Any], body: bytes) -> None:
        plain = (
            zlib.decompressobj(31).decompress(body, LIMIT + 1) if body[:2] == b"\x1f\x8b" else body
        )
        if len(plain) > min(LIMIT, rule.get("bytes", LIMIT)):
            self.answer(413, b"")
            return
        try:
            count = sum(
                len(scope.log_records)
                for resource in parse(plain).resource_logs
                for scope in resource.scope_logs
            )
        except Exception:
            self.answer(400, b'{"error":"cannot decode"}')
            return
        if rule.get("text") and rule["text"].encode() in plain:
            self.answer(400, b'{"error":"Bad input format provided"}')
            return
        with self.state.lock:
            self.state.bodies.append(plain)
            self.state.count += count
        if rule.get("kind") == "accept_then_reset":
            self.act_reset(rule, body)
            return
        rejected = rule.get("rejected", 0)
        if rejected:
            inner = b"\x08" + bytes([rejected]) + b"\x12\x03bad"
            self.answer(200, b"\x0a" + bytes([len(inner)]) + inner, "application/x-protobuf")
        else:
            self.answer(200, b"{}")

    act_poison = act_limit = act_partial = act_accept_then_reset = store

    def act_status(self, rule: dict[str, Any], _body: bytes) -> None:
        self.answer(rule["status"], b"no", headers=rule.get("headers", {}))

    def act_redirect(self, rule: dict[str, Any], _body: bytes) -> None:
        self.answer(rule.get("status", 301), b"", headers={"Location": "https://elsewhere.test/x"})

    def act_reset(self, _rule: dict[str, Any], _body: bytes) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def act_hang(self, rule: dict[str, Any], _body: bytes) -> None:
        time.sleep(rule.get("seconds", 30))
        self.close_connection = True

    def act_slow(self, rule: dict[str, Any], body: bytes) -> None:
        time.sleep(rule.get("seconds", 0.2))
        self.store({}, body)

    def act_drip(self, rule: dict[str, Any], _body: bytes) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * int(rule.get("bytes", 300)):
                self.wfile.write(bytes([byte]))
                time.sleep(0.1)

    def act_garbage(self, _rule: dict[str, Any], _body: bytes) -> None:
        self.wfile.write(b"\x00\xff<html>what?\r\n\r\n")
        self.close_connection = True

    def act_truncate(self, _rule: dict[str, Any], _body: bytes) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        self.close_connection = True

    def say(self, status: int, content: Any) -> None:
        self.reply(status, json.dumps(content).encode(), "application/json", {})

    def answer(
        self,
        status: int,
        body: bytes,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        with self.state.lock:
            self.state.answers[str(status)] = self.state.answers.get(str(status), 0) + 1
        self.reply(status, body, kind, headers or {})

    def reply(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512  # with the default of 5 the kernel drops connections under load

    def handle_error(self, *_args: object) -> None:
        pass  # a client that hung up is what the tests are about


def serve() -> None:
    Handler.state = State()
    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # ends with the process that started this one


if __name__ == "__main__":
    serve()
