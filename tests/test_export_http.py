"""One POST keeps to its deadline whatever the receiver does, and says in words what went wrong."""

from __future__ import annotations

import http.client
import socket
import threading
import time

import pytest

from lipservice.export import http as export_http
from lipservice.export.http import Action, Connection, judge
from tests.support.otlp_receiver import Receiver


@pytest.fixture(scope="module")
def receiver():
    with Receiver() as running:
        yield running


@pytest.fixture(autouse=True)
def _behave(request):
    if "receiver" in request.fixturenames:
        request.getfixturevalue("receiver").reset()


@pytest.fixture
def connection(receiver):
    made = Connection(receiver.url)
    yield made
    made.close()


HEADERS = {"Authorization": "Bearer phc_x", "Content-Type": "application/x-protobuf"}


def test_a_connection_is_kept(connection, receiver):
    answers = [connection.post(b"", HEADERS, 5.0) for _ in range(3)]
    sock = connection._open.sock
    connection.post(b"", HEADERS, 5.0)

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert connection._open.sock is sock
    assert receiver.stats()["requests"] == 4


def test_one_that_the_receiver_has_closed_is_replaced(connection, receiver):
    connection.post(b"", HEADERS, 5.0)
    connection._open.sock.shutdown(socket.SHUT_RDWR)

    assert connection.post(b"", HEADERS, 5.0).status == 200


def test_one_that_idled_for_long_is_replaced(receiver):
    now = [0.0]
    connection = Connection(receiver.url, lambda: now[0])
    connection.post(b"", HEADERS, 5.0)
    sock = connection._open.sock
    now[0] += 60.0
    connection.post(b"", HEADERS, 5.0)

    assert connection._open.sock is not sock
    connection.close()


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "reset"},
        {"kind": "garbage"},
        {"kind": "hang", "seconds": 3},
        {"kind": "drip"},
        {"kind": "accept_then_reset"},
    ],
    ids=lambda rule: rule["kind"],
)
def test_trouble_becomes_a_problem_in_time(connection, receiver, rule):
    receiver.misbehave({**rule, "times": 1})
    started = time.monotonic()
    answer = connection.post(b"", HEADERS, 0.7)
    took = time.monotonic() - started

    assert answer.problem is not None
    assert answer.problem.text.isprintable()
    assert judge(answer, 0.0).action is Action.RETRY
    assert took < 2.5, "the deadline of 0.7 s was not kept"
    assert connection.post(b"", HEADERS, 5.0).status == 200


def test_a_cut_answer_still_says_that_the_records_were_taken(connection, receiver):
    """A retry would send them twice."""
    receiver.misbehave({"kind": "truncate", "times": 1})

    assert judge(connection.post(b"", HEADERS, 2.0), 0.0).action is Action.DELIVERED
    assert connection.post(b"", HEADERS, 5.0).status == 200


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    answer = Connection(f"http://127.0.0.1:{port}/").post(b"x", HEADERS, 2.0)

    assert answer.problem.text == "no connection: Connection refused"


def test_a_receiver_that_does_not_read():
    """The send is bounded too."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answer = Connection(f"http://127.0.0.1:{port}/").post(b"x" * 20_000_000, HEADERS, 0.5)

    assert answer.problem.kind == "timeout"


def test_a_certificate_that_cannot_be_checked_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].close(), daemon=True).start()
        port = server.getsockname()[1]
        answer = Connection(f"https://127.0.0.1:{port}/").post(b"x", HEADERS, 2.0)

    assert answer.problem is not None


def test_a_large_answer_is_cut():
    def serve(server):
        peer, _ = server.accept()
        peer.recv(65536)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000)
        peer.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        connection = Connection(f"http://127.0.0.1:{server.getsockname()[1]}/")
        answer = connection.post(b"x", HEADERS, 5.0)

    assert answer.status == 200
    assert len(answer.body) == 64 * 1024
    assert connection._open is None


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_the_environments_proxy_is_used(receiver, monkeypatch, name):
    monkeypatch.setenv(name, f"http://bob:x@127.0.0.1:{receiver.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    connection = Connection("http://collector.test:4318/v1/logs")

    answer = connection.post(b"", HEADERS, 5.0)
    connection.close()

    assert answer.status == 200
    assert receiver.stats()["seen"][-1]["path"] == "http://collector.test:4318/v1/logs"


def test_no_proxy_is_respected(receiver, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    connection = Connection(receiver.url)

    assert connection.post(b"", HEADERS, 5.0).status == 200
    connection.close()


def test_nothing_is_printed_even_if_the_application_debugs_http(receiver, monkeypatch, capsys):
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    connection = Connection(receiver.url)
    connection.post(b"", HEADERS, 5.0)
    connection.close()

    assert capsys.readouterr().out == ""


def test_a_child_lets_go_of_the_parents_connection_without_a_word(receiver):
    connection = Connection(receiver.url)
    connection.post(b"", HEADERS, 5.0)
    sock = connection._open.sock
    connection.forget()

    assert sock.fileno() == -1
    assert connection._open is None
    assert export_http._inherited
    export_http._inherited.clear()
