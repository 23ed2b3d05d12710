"""What real servers do to a request that goes wrong: nothing of it gets into the next one."""

import socket

import requests

from tests.middleware.pages import Project, need, wait_for

POLICY = '{"sampling_rate": 0, "keep_first": 0}'

WSGI = """
import logging, time
import lipservice
from lipservice.middleware.wsgi import SamplingWSGIMiddleware

lipservice.configure_adaptive_logging(
    service_name="shop", policy_file="policy.json", notices=False
)
logger = logging.getLogger("shop")

def application(environ, start_response):
    kind, number = environ["PATH_INFO"].strip("/").split("/")
    number = int(number)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return body(kind, number)

def body(kind, number):
    logger.info("cart %d is loaded", number)
    yield b"-" * 100_000
    logger.info("prices of cart %d are up to date", number)
    if kind == "bad":
        raise LookupError(f"cart {number} is lost")
    if kind == "endless":
        time.sleep(60)
    if kind == "long":
        try:
            while True:
                yield b"-" * 100_000
        finally:
            open("given up", "w").close()
    yield b"fine"

application = SamplingWSGIMiddleware(application)
"""

ASGI = """
import asyncio, logging
import lipservice
from lipservice.middleware.asgi import SamplingASGIMiddleware

lipservice.configure_adaptive_logging(
    service_name="shop", policy_file="policy.json", notices=False
)
logger = logging.getLogger("shop")

async def application(scope, receive, send):
    kind, number = scope["path"].strip("/").split("/")
    number = int(number)
    logger.info("cart %d is loaded", number)
    headers = [(b"content-length", b"4")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    logger.info("prices of cart %d are up to date", number)
    await send({"type": "http.response.body", "body": b"fine"})
    if kind == "bad":
        raise LookupError(f"cart {number} is lost")

app = SamplingASGIMiddleware(application)
"""


def project(page, source, folder):
    made = Project(page, folder)
    (folder / "app.py").write_text(source, encoding="utf-8")
    (folder / "policy.json").write_text(POLICY, encoding="utf-8")
    return made


def ask(address, path):
    try:
        return requests.get(f"http://{address}/{path}", timeout=30).content
    except requests.RequestException as error:
        return error


def test_gunicorn_a_client_that_goes_away_in_the_middle_of_a_stream_leaves_nothing(tmp_path):
    need("gunicorn")
    shop = project("wsgi", WSGI, tmp_path)
    with shop.web_server("gunicorn", "--workers", "1", "--threads", "1") as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), 10) as client:
            client.sendall(b"GET /long/1 HTTP/1.1\r\nHost: shop\r\n\r\n")
            client.recv(1000)
        ask(address, "bad/2")
        wait_for((tmp_path / "given up").exists)
        assert len(ask(address, "good/3")) == 100_004
        ask(address, "bad/4")

    assert shop.stories() == {n: ["loaded", "prices", "lost"] for n in (2, 4)}


def test_gunicorn_a_worker_that_is_stopped_by_its_time_limit_tells_its_story(tmp_path):
    need("gunicorn")
    shop = project("wsgi", WSGI, tmp_path)
    options = ("--workers", "1", "--threads", "1", "--worker-class", "sync", "--timeout", "1")
    with shop.web_server("gunicorn", *options) as address:
        ask(address, "good/1")
        ask(address, "endless/2")
        ask(address, "good/3")

    assert shop.stories() == {2: ["loaded", "prices"]}


def test_uvicorn_requests_that_are_sent_at_once_on_one_connection_are_two(tmp_path):
    need("uvicorn")
    shop = project("asgi", ASGI, tmp_path)
    with shop.web_server("uvicorn", "--workers", "1") as address:
        host, port = address.split(":")
        for good, bad in ((1, 2), (3, 4), (5, 6)):
            with socket.create_connection((host, int(port)), 10) as client:
                client.sendall(
                    f"GET /good/{good} HTTP/1.1\r\nHost: shop\r\n\r\n"
                    f"GET /bad/{bad} HTTP/1.1\r\nHost: shop\r\n\r\n".encode()
                )
                while client.recv(10_000):
                    pass  # the error ends the connection

    assert shop.stories() == {n: ["loaded", "prices", "lost"] for n in (2, 4, 6)}
