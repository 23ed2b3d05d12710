"""Django, sync and async: names by route, and answers that are streamed."""

import asyncio
import gc
import io
import logging

import pytest

from tests.middleware.pages import need

need("django")

import django  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import FileResponse, HttpResponse, StreamingHttpResponse  # noqa: E402
from django.urls import include, path, re_path  # noqa: E402

from lipservice.middleware.asgi import SamplingASGIMiddleware  # noqa: E402
from lipservice.middleware.wsgi import SamplingWSGIMiddleware  # noqa: E402
from lipservice.scope import current_scope, request  # noqa: E402
from tests.support.open_requests import open_requests  # noqa: E402

# Django leaves the body of a request open whose answer fails.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning")

_told = []  # the story of the test that runs, then what views leave


def plain(_request, unit):
    _told.append(current_scope())
    _told[0](unit)
    if unit == "bad":
        raise LookupError
    return HttpResponse("fine", status=503 if unit == "away" else 200)


async def plain_async(request, unit):
    await asyncio.sleep(0)
    return plain(request, unit)


def parts(unit):
    try:
        _told[0](unit, "begin")
        yield b"a"
        _told[0](unit, "work", "end")
        if unit == "bad":
            raise LookupError
        yield b"b"
    finally:
        _told.append(current_scope())


async def async_parts(unit):
    for part in parts(unit):
        await asyncio.sleep(0)
        yield part


def stream(_request, unit):
    _told.append(current_scope())
    return StreamingHttpResponse(parts(unit))


async def stream_async(_request, unit):
    _told.append(current_scope())
    return StreamingHttpResponse(async_parts(unit))


async def held(request, unit):
    _told.append(await stream_async(request, unit))
    return _told[-1]


def file(_request):
    return FileResponse(io.BytesIO(b"fine"))


def route(prefix, view, asynchronous):
    return [
        path(f"{prefix}/<str:unit>", view),
        path(f"async/{prefix}/<str:unit>", asynchronous),
    ]


class Urls:
    urlpatterns = (
        *route("plain", plain, plain_async),
        *route("stream", stream, stream_async),
        re_path(r"^numbers/(?P<unit>\d+)$", plain),
        path("shop/", include([path("cart/<unit>", plain)])),
        path("async/held/<str:unit>", held),
        path("file", file),
    )


@pytest.fixture(scope="module", autouse=True)
def _configured():
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["*"],
            LOGGING_CONFIG=None,
            MIDDLEWARE=["lipservice.middleware.django.sampling_middleware"],
            ROOT_URLCONF=Urls,
            SECRET_KEY="story",
        )
        django.setup(set_prefix=False)


@pytest.fixture(autouse=True)
def _this_story(story):
    _told[:] = [story]
    logging.getLogger("django").propagate = False
    yield
    _told.clear()
    gc.collect()


def answer_of(application, where, *, read=True):
    """What a WSGI server gets."""
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": where,
        "SERVER_NAME": "shop",
        "SERVER_PORT": "80",
        "QUERY_STRING": "key=secret",
        "wsgi.input": io.BytesIO(),
    }
    before = current_scope()
    answer = application(environ, lambda *_: None)
    assert current_scope() is before
    if not read:
        return answer
    try:
        return b"".join(answer)
    finally:
        answer.close()


def ask_async(application, where, *, until=None):
    """As an ASGI server, in a task of its own; a client that goes away after *until* parts."""
    scope = {
        "type": "http",
        "method": "GET",
        "path": where,
        "headers": [(b"host", b"shop")],
        "query_string": b"key=secret",
    }

    async def main():
        sent = asyncio.Queue()
        gone = asyncio.Event()
        asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive():
            for message in asked:
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            if message.get("body"):
                sent.put_nowait(message["body"])
                if sent.qsize() == until:
                    gone.set()
                    await asyncio.sleep(60)

        await asyncio.create_task(application(scope, receive, send))
        return sent.qsize()

    try:
        return asyncio.run(main())
    finally:
        gc.collect()


def test_requests_are_called_by_their_route_which_has_few_values():
    application = get_wsgi_application()
    for where in ("/plain/17", "/numbers/17", "/shop/cart/17", "/async/plain/17"):
        answer_of(application, where)

    assert [scope.name for scope in _told[1:]] == [
        "GET /plain/<str:unit>",
        r"GET ^numbers/(?P<unit>\d+)$",
        "GET /shop/cart/<unit>",
        "GET /async/plain/<str:unit>",
    ]


@pytest.mark.parametrize("prefix", ["", "/async"])
@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_an_exception_and_a_status_from_500_on_are_failures(story, server, prefix):
    application = get_wsgi_application() if server == "wsgi" else get_asgi_application()
    ask = answer_of if server == "wsgi" else ask_async
    for unit in ("good", "bad", "fine", "away"):
        ask(application, f"{prefix}/plain/{unit}")

    story.check("bad", "away")
    assert [scope.name for scope in _told[1:]] == [f"GET {prefix}/plain/<str:unit>"] * 4
    assert not open_requests()


def test_a_streamed_answer_belongs_to_its_request_until_it_is_closed(story):
    application = get_wsgi_application()
    assert answer_of(application, "/stream/good") == b"ab"
    with pytest.raises(LookupError):
        answer_of(application, "/stream/bad")

    story.check("bad")
    assert _told[1] is _told[2]
    assert not open_requests()


def test_a_streamed_answer_that_no_one_closes_ends_its_request(story):
    application = get_wsgi_application()
    answer = answer_of(application, "/stream/good", read=False)
    next(iter(answer))
    assert current_scope() is None

    with pytest.raises(LookupError):
        answer_of(application, "/stream/bad")
    del answer
    gc.collect()

    story.check("bad")
    assert not open_requests()


def test_what_a_streamed_answer_still_says_as_it_is_closed_belongs_to_it():
    answer = answer_of(get_wsgi_application(), "/stream/good", read=False)
    next(iter(answer))
    answer.close()

    assert _told[1] is _told[2]
    assert not open_requests()


@pytest.mark.parametrize("prefix", ["", "/async"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume synchronous iterators")
def test_a_streamed_answer_under_asgi_belongs_to_its_request(story, prefix):
    application = get_asgi_application()
    ask_async(application, f"{prefix}/stream/good")
    with pytest.raises(LookupError):
        ask_async(application, f"{prefix}/stream/bad")
    gc.collect()  # the error held it

    story.check("bad")
    assert _told[1] is _told[2]
    assert not open_requests()


def test_a_client_of_an_async_stream_that_goes_away_is_no_failure_and_ends_the_request(story):
    assert ask_async(get_asgi_application(), "/async/stream/good", until=1) == 1

    story.check()
    assert not open_requests()


def test_a_file_is_still_sent_by_the_server():
    class Wrapped:
        def __init__(self, file, _size):
            self.file = file

    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/file",
        "SERVER_NAME": "shop",
        "SERVER_PORT": "80",
        "wsgi.input": io.BytesIO(),
        "wsgi.file_wrapper": Wrapped,
    }
    for application in (get_wsgi_application(), SamplingWSGIMiddleware(get_wsgi_application())):
        answer = application({**environ}, lambda *_: None)
        assert isinstance(answer, Wrapped)
        assert not open_requests()
        answer.file.close()


def test_within_the_wsgi_adapter_it_joins_and_names_the_request(story):
    application = SamplingWSGIMiddleware(get_wsgi_application())
    answer_of(application, "/plain/good")
    answer_of(application, "/plain/bad")
    with pytest.raises(LookupError):
        answer_of(application, "/stream/bad")

    assert [line for line in story.written if line.startswith("begin")] == ["begin of bad"] * 2
    assert _told[1].name == "GET /plain/<str:unit>"
    assert _told[3] is _told[4]


def test_within_the_asgi_adapter_it_joins_and_names_the_request(story):
    application = SamplingASGIMiddleware(get_asgi_application())
    ask_async(application, "/plain/good")
    with pytest.raises(LookupError):
        ask_async(application, "/async/stream/bad")

    story.check("bad")
    assert _told[1].name == "GET /plain/<str:unit>"
    assert _told[2] is _told[3]


def test_an_async_stream_that_something_holds_on_to_ends_its_request_when_it_is_closed():
    ask_async(get_asgi_application(), "/async/held/good")

    assert any(isinstance(each, StreamingHttpResponse) for each in _told)
    assert not open_requests()


@pytest.mark.parametrize("prefix", ["", "/async"])
@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_a_request_that_someone_left_open_is_not_joined(story, server, prefix):
    application = get_wsgi_application() if server == "wsgi" else get_asgi_application()
    ask = answer_of if server == "wsgi" else ask_async
    with request("stale") as stale:
        story("stale")
        ask(application, f"{prefix}/plain/bad")
        assert current_scope() is stale
        assert not stale.failed

    story.check("bad")
