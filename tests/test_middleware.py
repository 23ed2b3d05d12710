"""
Each framework opens a request where its unit of work begins: real frameworks, real servers.

The application logs three lines and then answers well or fails; at the rate 0 only a failed unit's
lines may be seen, whole, and none of another unit's, although several run at once.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import random
import shutil
import socket
import subprocess
import threading
import time
import wsgiref.simple_server
from socketserver import ThreadingMixIn

import pytest
import requests

from lipservice.integrations.stdlib import SamplingFilter
from lipservice.middleware import _trace
from lipservice.middleware.asgi import SamplingASGIMiddleware
from lipservice.middleware.jobs import (
    instrument_celery,
    instrument_huey,
    lambda_handler,
    recorded,
)
from lipservice.middleware.wsgi import SamplingWSGIMiddleware
from lipservice.policy import SamplingPolicy
from lipservice.sampler import AdaptiveSampler
from lipservice.scope import WATCHED

STEPS = ("begin", "work", "end")


@pytest.fixture
def story():
    """The logger of the application, and what its handler got, by unit."""
    sampler = AdaptiveSampler(
        policy=SamplingPolicy(sampling_rate=0.0, keep_first=0), notices=False, rng=random.Random(1)
    )
    written = []
    handler = logging.Handler()
    handler.emit = lambda record: written.append(record.getMessage())
    handler.addFilter(SamplingFilter(sampler=sampler))
    logger = logging.getLogger("middleware.story")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(handler)

    def tell(unit):
        for step in STEPS:
            logger.info("%s of %s", step, unit)

    tell.written = written
    yield tell
    logger.removeHandler(handler)
    sampler.shutdown()
    assert not WATCHED


def check(story, failed):
    """Exactly the failed units told their story, each whole and in order."""
    for unit in failed:
        own = [line for line in story.written if line.endswith(f" of {unit}")]
        assert own == [f"{step} of {unit}" for step in STEPS]
    assert len(story.written) == len(STEPS) * len(failed)


def ask_all(url):
    """Twelve requests at once, of which every third fails; the names of those that did."""
    units = [("bad" if number % 3 == 0 else "good", f"u{number}") for number in range(12)]

    def ask(unit):
        kind, name = unit
        status = requests.get(f"{url}/{kind}/{name}", timeout=20).status_code
        assert status == (500 if kind == "bad" else 200)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, units))
    return [name for kind, name in units if kind == "bad"]


class _ThreadingServer(ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class _SilentHandler(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *args):
        pass

    def get_stderr(self):
        import io

        return io.StringIO()


@contextlib.contextmanager
def wsgi_server(app):
    server = wsgiref.simple_server.make_server(
        "127.0.0.1", 0, app, server_class=_ThreadingServer, handler_class=_SilentHandler
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@contextlib.contextmanager
def asgi_server(app):
    uvicorn = pytest.importorskip("uvicorn")
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join(20)
    sock.close()


def test_wsgi(story):
    def app(environ, start_response):
        _, kind, unit = environ["PATH_INFO"].split("/")
        start_response("500 Oh" if kind == "bad" else "200 OK", [("Content-Type", "text/plain")])

        def body():  # logs while the body is being written
            story(unit)
            yield b"done"

        return body()

    with wsgi_server(SamplingWSGIMiddleware(app)) as url:
        failed = ask_all(url)
        # The status was told before the lines: they are kept as they come.
        check(story, failed)


def test_wsgi_releases_when_the_application_raises(story):
    def app(environ, start_response):
        story("u1")
        raise LookupError

    with wsgi_server(SamplingWSGIMiddleware(app)) as url:
        assert requests.get(url, timeout=20).status_code == 500
        check(story, ["u1"])


def test_flask(story):
    flask = pytest.importorskip("flask")
    app = flask.Flask("story")
    app.logger.disabled = True

    @app.get("/<kind>/<unit>")
    def view(kind, unit):
        story(unit)
        if kind == "bad":
            raise LookupError(unit)
        return "fine"

    app.wsgi_app = SamplingWSGIMiddleware(app.wsgi_app)
    with wsgi_server(app) as url:
        check(story, ask_all(url))


def test_django(story):
    pytest.importorskip("django")
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import path

    def view(_request, kind, unit):
        story(unit)
        if kind == "bad":
            raise LookupError(unit)
        return HttpResponse("fine")

    urls = type("urls", (), {"urlpatterns": [path("<kind>/<unit>", view)]})
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            LOGGING_CONFIG=None,
            MIDDLEWARE=["lipservice.middleware.django.sampling_middleware"],
            ROOT_URLCONF=urls,
            SECRET_KEY="story",
        )
        django.setup(set_prefix=False)
    logging.getLogger("django").propagate = False
    with wsgi_server(get_wsgi_application()) as url:
        check(story, ask_all(url))
    logging.getLogger("django").propagate = True


@pytest.mark.parametrize("framework", ["starlette", "fastapi"])
def test_asgi_frameworks(story, framework):
    module = pytest.importorskip(framework)
    del module
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Route

    async def answer(kind, unit):
        story(unit)
        await asyncio.sleep(0.01)
        if kind == "bad":
            raise LookupError(unit)
        return PlainTextResponse("fine")

    if framework == "starlette":

        async def view(request):
            return await answer(**request.path_params)

        app = Starlette(routes=[Route("/{kind}/{unit}", view)])
    else:
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/{kind}/{unit}")
        async def path(kind: str, unit: str):
            return await answer(kind, unit)

    app.add_middleware(SamplingASGIMiddleware)
    with asgi_server(app) as url:
        check(story, ask_all(url))


def test_celery(story):
    celery = pytest.importorskip("celery")
    from celery.contrib.testing.worker import start_worker

    app = celery.Celery("story", broker="memory://", backend="cache+memory://")
    app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=False)
    instrument_celery()

    @app.task(name="unit")
    def unit(kind, name):
        story(name)
        if kind == "bad":
            raise LookupError(name)

    with start_worker(
        app, perform_ping_check=False, pool="threads", concurrency=3, loglevel="CRITICAL"
    ):
        results = [
            unit.delay("bad" if number % 3 == 0 else "good", f"u{number}") for number in range(9)
        ]
        for result in results:
            with contextlib.suppress(LookupError):
                result.get(timeout=20)
        deadline = time.monotonic() + 10
        while WATCHED and time.monotonic() < deadline:
            time.sleep(0.01)
    check(story, ["u0", "u3", "u6"])


def test_huey(story):
    huey_module = pytest.importorskip("huey")
    huey = huey_module.MemoryHuey("story")
    instrument_huey(huey)

    @huey.task()
    def unit(kind, name):
        story(name)
        if kind == "bad":
            raise LookupError(name)

    consumer = huey.create_consumer(workers=3, periodic=False, initial_delay=0.01, max_delay=0.05)
    logging.getLogger("huey").propagate = False
    consumer.start()
    for number in range(9):
        unit("bad" if number % 3 == 0 else "good", f"u{number}")
    deadline = time.monotonic() + 20
    while (len(huey) or len(story.written) < 9) and time.monotonic() < deadline:
        time.sleep(0.02)
    consumer.stop(graceful=True)
    logging.getLogger("huey").propagate = True
    check(story, ["u0", "u3", "u6"])


def test_rq(story, tmp_path):
    pytest.importorskip("rq")
    if shutil.which("redis-server") is None:
        import os

        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed")
        pytest.skip("redis-server is not installed")
    import redis
    from rq import Queue, SimpleWorker

    path = tmp_path / "redis.sock"
    process = subprocess.Popen(
        ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not path.exists():
            time.sleep(0.02)
        connection = redis.Redis(unix_socket_path=str(path))
        _rq_story.append(story)
        queue = Queue(connection=connection)
        for number in range(6):
            queue.enqueue(_rq_job, "bad" if number % 3 == 0 else "good", f"u{number}")
        logging.getLogger("rq.worker").propagate = False
        SimpleWorker([queue], connection=connection).work(burst=True, logging_level="CRITICAL")
        check(story, ["u0", "u3"])
        connection.close()
    finally:
        _rq_story.clear()
        process.terminate()
        process.wait(10)


_rq_story = []


@recorded("job")
def _rq_job(kind, name):
    _rq_story[0](name)
    if kind == "bad":
        raise LookupError(name)


def test_a_lambda_invocation_is_a_request_decided_by_x_ray_s_trace(story, monkeypatch):
    monkeypatch.setenv(
        "_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8"
    )
    seen = []

    @lambda_handler
    def handler(event, context):
        from lipservice.scope import current_scope

        seen.append((current_scope().name, f"{current_scope().randomness:014x}"))
        story(event["unit"])
        if event["unit"] == "u1":
            raise LookupError
        return "fine"

    context = type("Context", (), {"function_name": "checkout"})()
    assert handler({"unit": "u0"}, context) == "fine"
    with pytest.raises(LookupError):
        handler({"unit": "u1"}, context)

    check(story, ["u1"])
    assert seen[0] == ("checkout", "be46a994272793")


def test_a_recorded_coroutine_function_stays_one(story):
    @recorded()
    async def job(unit):
        story(unit)
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(job("u1"))
    check(story, ["u1"])


@pytest.mark.parametrize(
    ("header", "trace_id"),
    [
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
        ("00-XYZ-1-1", None),
        ("", None),
        (None, None),
        ("garbage", None),
    ],
)
def test_traceparent(header, trace_id):
    assert _trace.from_traceparent(header) == trace_id
