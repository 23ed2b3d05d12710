"""
Adapters open a request where a unit of work begins, and leave nothing of it behind, whatever the
server does. Here they are called by hand, as a server that misbehaves would; tests/middleware has
the real servers and frameworks.
"""

import asyncio
import concurrent.futures
import contextvars
import gc
import io
import threading
import wsgiref.util

import pytest

import lipservice
from lipservice.exceptions import ConfigurationError
from lipservice.middleware import _trace
from lipservice.middleware.asgi import SamplingASGIMiddleware
from lipservice.middleware.jobs import lambda_handler, recorded
from lipservice.middleware.wsgi import SamplingWSGIMiddleware
from lipservice.scope import current_scope
from tests.middleware.stories import telling
from tests.support.open_requests import open_requests


@pytest.fixture
def story():
    """The application's log: see `Story`."""
    with telling() as told:
        yield told


def environ(unit="u1", **more):
    return {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": f"/{unit}", **more}


def start_response(_status, _headers, _exc_info=None):
    return lambda _data: None


def in_a_context_of_its_own(function, *args):
    """As in a thread of a server that serves nothing but this."""
    return contextvars.Context().run(function, *args)


# ---------------------------------------------------------------------------- WSGI


def streaming(story, *, fails=False):
    """An application that works while its answer is being sent."""

    def app(env, start):
        unit = env["PATH_INFO"][1:]
        start("200 OK", [])
        return body(unit)

    def body(unit):
        story(unit, "begin")
        yield b"a"
        story(unit, "work")
        yield b"b"
        story(unit, "end")
        if fails:
            raise LookupError(unit)

    return SamplingWSGIMiddleware(app)


def failing(story):
    """An application that fails at once."""

    def app(env, _start):
        story(env["PATH_INFO"][1:])
        raise LookupError

    return SamplingWSGIMiddleware(app)


def test_wsgi_a_body_that_no_one_closes_leaves_nothing_in_the_server_s_thread(story):
    answer = streaming(story)(environ("u1"), start_response)
    assert current_scope() is None
    assert list(answer) == [b"a", b"b"]
    assert current_scope() is None

    with pytest.raises(LookupError):
        failing(story)(environ("u2"), start_response)

    del answer
    story.check("u2")


def test_wsgi_a_body_that_is_not_even_begun_ends_its_request_when_it_is_thrown_away(story):
    answer = streaming(story)(environ(), start_response)
    assert len(open_requests()) == 1

    del answer

    assert not open_requests()


def test_wsgi_what_a_thrown_away_generator_still_says_is_not_said_in_the_next_request(story):
    def app(env, start):
        unit = env["PATH_INFO"][1:]
        if unit == "u2":
            story(unit, "begin")
            answers.clear()  # now the first one's generator ends
            gc.collect()
            story(unit, "work", "end")
            raise LookupError
        start("200 OK", [])
        return body(unit)

    def body(unit):
        try:
            yield b"a"
        finally:
            story(unit, "roll back")

    served = SamplingWSGIMiddleware(app)
    answers = [served(environ("u1"), start_response)]
    next(iter(answers[0]))

    with pytest.raises(LookupError):
        served(environ("u2"), start_response)

    story.check("u2")


def test_wsgi_a_body_that_is_closed_half_way_is_no_failure_and_ends_its_request(story):
    closed = []

    def app(_env, start):
        start("200 OK", [])
        return body()

    def body():
        try:
            yield b"a"
            yield b"b"
        finally:
            closed.append(current_scope())
            story("u1", "roll back")

    answer = SamplingWSGIMiddleware(app)(environ(), start_response)
    next(answer)
    (scope,) = [answer._unit.scope]
    answer.close()
    answer.close()  # harmless

    assert closed == [scope]
    assert not open_requests()
    story.check()


def test_wsgi_a_body_that_fails_half_way_tells_its_whole_story(story):
    answer = streaming(story, fails=True)(environ(), start_response)
    with pytest.raises(LookupError):
        list(answer)
    answer.close()

    story.check("u1")


def test_wsgi_a_body_may_be_sent_by_another_thread_than_the_one_that_made_it(story):
    answer = streaming(story, fails=True)(environ(), start_response)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(in_a_context_of_its_own, next, answer).result()
    with pytest.raises(LookupError):
        list(answer)
    answer.close()

    assert first == b"a"
    story.check("u1")


def test_wsgi_a_body_may_be_closed_by_another_thread_while_it_waits_for_its_next_part(story):
    class Body:
        def __init__(self):
            self.waits, self.woken = threading.Event(), threading.Event()

        def __iter__(self):
            return self

        def __next__(self):
            self.waits.set()
            assert self.woken.wait(30)
            story("u1")
            raise LookupError

        def close(self):
            self.woken.set()

    body = Body()
    answer = SamplingWSGIMiddleware(lambda _env, _start: body)(environ(), start_response)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        part = pool.submit(next, answer)
        assert body.waits.wait(30)
        answer.close()
        assert isinstance(part.exception(30), LookupError)

    assert current_scope() is None
    assert not open_requests()


@pytest.mark.parametrize("begun", [False, True])
def test_wsgi_an_application_that_raises_tells_its_story_before_or_after_its_status(story, begun):
    def app(_env, start):
        if begun:
            start("200 OK", [])
        story("u1")
        raise LookupError

    with pytest.raises(LookupError):
        SamplingWSGIMiddleware(app)(environ(), start_response)

    story.check("u1")


def test_wsgi_a_worker_that_exits_in_the_middle_tells_the_story(story):
    def app(_env, _start):
        story("u1")
        raise SystemExit(1)  # as gunicorn's time limit does

    with pytest.raises(SystemExit):
        SamplingWSGIMiddleware(app)(environ(), start_response)

    story.check("u1")


def test_wsgi_a_status_from_500_on_in_the_middle_of_the_body_is_a_failure(story):
    def app(_env, start):
        def body():
            start("200 OK", [])
            story("u1")
            try:
                raise LookupError
            except LookupError as error:
                start("502 Bad Gateway", [], exc_info=(LookupError, error, None))
            yield b""

        return body()

    def start(_status, _headers, exc_info=None):
        return None

    answer = SamplingWSGIMiddleware(app)(environ(), start)
    list(answer)
    answer.close()

    story.check("u1")


@pytest.mark.parametrize("make", [list, tuple, lambda parts: io.BytesIO(b"".join(parts))])
def test_wsgi_a_body_without_code_is_handed_on_as_it_is(make):
    body = make([b"fine"])

    def app(_env, start):
        start("200 OK", [])
        return body

    env = environ()
    answer = SamplingWSGIMiddleware(app)(env, start_response)

    assert answer is body  # so that the server can tell its length
    assert not open_requests()
    assert "lipservice.request" not in env


def test_wsgi_a_file_that_the_server_sends_itself_is_handed_on_as_it_is():
    wrapped = wsgiref.util.FileWrapper(io.BytesIO(b"fine"))
    env = environ(**{"wsgi.file_wrapper": wsgiref.util.FileWrapper})

    assert SamplingWSGIMiddleware(lambda _env, _start: wrapped)(env, start_response) is wrapped
    assert not open_requests()


def test_wsgi_a_body_that_is_none_is_the_server_s_error_as_without_us():
    answer = SamplingWSGIMiddleware(lambda _env, _start: None)(environ(), start_response)
    with pytest.raises(TypeError, match="not iterable"):
        list(answer)
    answer.close()

    assert not open_requests()


def test_wsgi_within_a_request_that_someone_left_open_a_request_is_its_own(story):
    with lipservice.request("stale") as stale:
        story("u1")
        with pytest.raises(LookupError):
            failing(story)(environ("u2"), start_response)
        assert current_scope() is stale
        assert not stale.failed

    story.check("u2")


def test_wsgi_two_adapters_around_one_another_make_one_request():
    seen = []

    def app(env, _start):
        seen.append((current_scope(), env["lipservice.request"], len(open_requests())))
        return []

    SamplingWSGIMiddleware(SamplingWSGIMiddleware(app))(environ(), start_response)

    assert seen[0][0] is seen[0][1]
    assert seen[0][2] == 1


def test_wsgi_an_environ_that_comes_a_second_time_brings_no_old_request_along(story):
    env = environ("u1")
    held = streaming(story)(env, start_response)
    list(held)

    env["PATH_INFO"] = "/u2"
    with pytest.raises(LookupError):
        failing(story)(env, start_response)

    del held
    story.check("u2")


def test_wsgi_the_name_is_method_and_path_as_utf_8_without_the_query():
    names = []

    def app(_env, _start):
        names.append(current_scope().name)
        return []

    env = environ(SCRIPT_NAME="/shop", QUERY_STRING="key=secret")
    env["PATH_INFO"] = "/größe".encode().decode("latin-1")
    SamplingWSGIMiddleware(app)(env, start_response)

    assert names == ["GET /shop/größe"]


# ---------------------------------------------------------------------------- ASGI


def http(unit="u1", **more):
    return {"type": "http", "method": "GET", "path": f"/{unit}", "headers": [], **more}


async def receive():
    return {"type": "http.request", "body": b"", "more_body": False}


async def send(_message):
    await asyncio.sleep(0)


def serve(app, scope):
    asyncio.run(SamplingASGIMiddleware(app)(scope, receive, send))


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        (http(), {"type": "http.response.start", "status": 503}),
        ({"type": "websocket", "path": "/u1"}, {"type": "websocket.close", "code": 1011}),
        (
            {"type": "websocket", "path": "/u1"},
            {"type": "websocket.http.response.start", "status": 500},
        ),
    ],
    ids=["status", "websocket closed", "websocket refused"],
)
def test_asgi_an_answer_that_says_the_server_failed_is_a_failure(story, scope, message):
    async def app(_scope, _receive, send):
        story("u1")
        await send(message)

    serve(app, scope)

    story.check("u1")


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        (http(), {"type": "http.response.start", "status": 404}),
        ({"type": "websocket", "path": "/u1"}, {"type": "websocket.close"}),
    ],
    ids=["status", "websocket closed"],
)
def test_asgi_another_answer_is_none(story, scope, message):
    async def app(_scope, _receive, send):
        story("u1")
        await send(message)

    serve(app, scope)

    story.check()


@pytest.mark.parametrize("scope", [http(), {"type": "websocket", "path": "/u1"}])
def test_asgi_an_application_that_raises_tells_its_story(story, scope):
    async def app(_scope, _receive, _send):
        story("u1")
        raise LookupError

    with pytest.raises(LookupError):
        serve(app, scope)

    story.check("u1")
    assert "lipservice.request" not in scope


def test_asgi_a_task_that_is_cancelled_because_its_client_has_gone_is_no_failure(story):
    async def main():
        begun = asyncio.Event()

        async def app(_scope, _receive, _send):
            story("u1")
            begun.set()
            await asyncio.sleep(3600)

        task = asyncio.create_task(SamplingASGIMiddleware(app)(http(), receive, send))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert not open_requests()
    story.check()


def test_asgi_a_coroutine_that_is_thrown_away_in_the_middle_of_another_request_leaves_that_alone():
    class Never:
        def __await__(self):
            yield

    async def app(_scope, _receive, _send):
        await Never()

    coroutine = SamplingASGIMiddleware(app)(http(), receive, send)
    in_a_context_of_its_own(coroutine.send, None)

    with lipservice.request() as other:
        coroutine.close()
        assert current_scope() is other
        assert len(open_requests()) == 1


def test_asgi_within_a_context_that_holds_an_earlier_request_a_request_is_its_own(story):
    async def app(scope, _receive, _send):
        unit = scope["path"][1:]
        story(unit)
        if unit == "u1":  # what some servers do at the end of an answer
            following.append(asyncio.create_task(served(http("u2"), receive, send)))
        else:
            raise LookupError

    served = SamplingASGIMiddleware(app)
    following = []

    async def main():
        await served(http("u1"), receive, send)
        with pytest.raises(LookupError):
            await following[0]

    asyncio.run(main())

    story.check("u2")


def test_asgi_two_adapters_around_one_another_make_one_request():
    seen = []

    async def app(scope, _receive, _send):
        seen.append((current_scope(), scope["lipservice.request"], len(open_requests())))

    serve(SamplingASGIMiddleware(app), http())

    assert seen[0][0] is seen[0][1]
    assert seen[0][2] == 1


def test_asgi_the_lifespan_belongs_to_no_request_and_may_fail():
    seen = []

    async def app(_scope, _receive, _send):
        seen.append(current_scope())
        raise LookupError

    with pytest.raises(LookupError):
        serve(app, {"type": "lifespan"})

    assert seen == [None]


def test_asgi_the_name_is_the_path_until_a_route_is_known():
    names = []

    async def app(scope, _receive, _send):
        names.append(current_scope().name)
        scope["route"] = type("Route", (), {"path": "/cart/{number}"})()
        scopes.append(current_scope())

    scopes = []
    serve(app, http("cart/17", query_string=b"key=secret"))
    serve(app, {"type": "websocket", "path": "/cart/17"})

    assert names == ["GET /cart/17", "WEBSOCKET /cart/17"]
    assert [scope.name for scope in scopes] == ["GET /cart/{number}", "WEBSOCKET /cart/{number}"]


def test_asgi_a_name_that_the_application_gives_stays():
    seen = []

    async def app(scope, _receive, _send):
        scope["route"] = type("Route", (), {"path": "/cart/{number}"})()
        scope["lipservice.request"].name = "checkout"
        seen.append(current_scope())

    serve(app, http("cart/17"))

    assert seen[0].name == "checkout"


@pytest.mark.parametrize("adapter", ["wsgi", "asgi"])
def test_a_traceparent_decides(adapter):
    header = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    seen = []

    def app(_env, _start):
        seen.append(current_scope().randomness)
        return []

    async def async_app(_scope, _receive, _send):
        seen.append(current_scope().randomness)

    if adapter == "wsgi":
        SamplingWSGIMiddleware(app)(environ(HTTP_TRACEPARENT=header), start_response)
    else:
        serve(async_app, http(headers=[(b"traceparent", header.encode())]))

    assert seen == [0xCE929D0E0E4736]


# ---------------------------------------------------------------------------- jobs


def test_a_lambda_invocation_is_a_request_decided_by_x_ray_s_trace(story, monkeypatch):
    monkeypatch.setenv(
        "_X_AMZN_TRACE_ID", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8"
    )
    seen = []

    @lambda_handler
    def handler(event, _context):
        seen.append((current_scope().name, f"{current_scope().randomness:014x}"))
        story(event["unit"])
        if event["unit"] == "u1":
            raise LookupError
        return {"statusCode": event["status"]}

    context = type("Context", (), {"function_name": "checkout"})()
    with lipservice.request("stale"):
        assert handler({"unit": "u0", "status": 404}, context) == {"statusCode": 404}
    with pytest.raises(LookupError):
        handler({"unit": "u1"}, context)
    handler({"unit": "u2", "status": 502}, context)

    story.check("u1", "u2")
    assert seen[0] == ("checkout", "be46a994272793")


def test_a_lambda_handler_may_be_any_callable():
    class Handler:
        def __call__(self, _event, _context):
            return current_scope().name

    assert lambda_handler(Handler())({}, None) == "tests.test_middleware.Handler"


def test_a_recorded_coroutine_function_stays_one(story):
    @recorded()
    async def job(unit):
        story(unit)
        raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(job("u1"))
    story.check("u1")


def test_a_recorded_call_is_called_by_its_function_and_belongs_to_the_request_it_is_made_in():
    @recorded()
    def job():
        return current_scope()

    assert job().name.endswith(
        "test_middleware.test_a_recorded_call_is_called_by_its_function_and_belongs_to_the_request_it_is_made_in.<locals>.job"
    )
    with lipservice.request() as outer:
        assert job() is outer


def test_recorded_refuses_what_runs_after_its_call_and_a_decorator_without_parentheses():
    def generator():
        yield

    async def async_generator():
        yield

    for function in (generator, async_generator):
        with pytest.raises(ConfigurationError, match="is a generator function"):
            recorded()(function)
    with pytest.raises(ConfigurationError, match=r"write @recorded\(\)"):
        recorded(lambda: None)


# ---------------------------------------------------------------------------- threads


def test_a_pool_s_job_is_in_the_request_only_if_it_was_given_its_context():
    with concurrent.futures.ThreadPoolExecutor(1) as pool, lipservice.request() as scope:
        assert pool.submit(current_scope).result() is None
        assert pool.submit(contextvars.copy_context().run, current_scope).result() is scope
        assert pool.submit(current_scope).result() is None


def test_what_the_documentation_says_of_asyncio_s_threads_and_tasks_holds():
    async def main():
        loop = asyncio.get_running_loop()
        with lipservice.request() as scope:
            plain = await loop.run_in_executor(None, current_scope)
            copied = await loop.run_in_executor(None, contextvars.copy_context().run, current_scope)
            thread = await asyncio.to_thread(current_scope)
            task = await asyncio.create_task(seen())
        return scope, plain, copied, thread, task

    async def seen():
        return current_scope()

    scope, plain, copied, thread, task = asyncio.run(main())

    assert plain is None
    assert copied is thread is task is scope


@pytest.mark.parametrize(
    ("header", "trace_id"),
    [
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "4bf92f3577b34da6a3ce929d0e0e4736",
        ),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
        ("00-XYZ-1-1", None),
        ("", None),
        (None, None),
        (["00"], None),
        ("garbage", None),
    ],
)
def test_traceparent(header, trace_id):
    assert _trace.from_traceparent(header) == trace_id
