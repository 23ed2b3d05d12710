"""Starlette and FastAPI: names by route, streams, background tasks, threads, websockets."""

import asyncio
from typing import Annotated

import pytest

from tests.middleware.pages import need

need("starlette", "fastapi")

import fastapi  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.background import BackgroundTask  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402
from starlette.middleware.base import BaseHTTPMiddleware  # noqa: E402
from starlette.responses import PlainTextResponse, StreamingResponse  # noqa: E402
from starlette.routing import Mount, Route, WebSocketRoute  # noqa: E402

from lipservice.middleware.asgi import SamplingASGIMiddleware  # noqa: E402
from lipservice.scope import current_scope  # noqa: E402
from tests.support.open_requests import open_requests  # noqa: E402


class Client:
    """What an ASGI server does with a connection, and what the application saw."""

    def __init__(self, story):
        self.story = story
        self.scopes = []

    def tell(self, unit, *steps):
        self.scopes.append(current_scope())
        self.story(unit, *steps)

    def ask(self, app, path, *, kind="http", received=({"type": "http.request", "body": b""},)):
        scope = {"type": kind, "path": path, "headers": [], "query_string": b"key=secret"}
        if kind == "http":
            scope["method"] = "GET"
        asked = iter(received)

        async def receive():
            for message in asked:
                return message
            return await asyncio.Event().wait()

        async def send(_message):
            await asyncio.sleep(0)

        async def main():
            await asyncio.create_task(app(scope, receive, send))

        try:
            asyncio.run(main())
        except LookupError:
            return "failed"
        return "fine"


@pytest.fixture
def client(story):
    return Client(story)


async def pass_on(request, call_next):
    return await call_next(request)


@pytest.mark.parametrize("within", [[], [Middleware(BaseHTTPMiddleware, dispatch=pass_on)]])
def test_starlette_s_views_streams_and_background_tasks_are_of_one_request(client, story, within):
    async def view(request):
        unit = request.path_params["unit"]
        client.tell(unit, "begin")

        async def parts():
            client.tell(unit, "work")
            yield b"a"

        return StreamingResponse(parts(), background=BackgroundTask(background, unit))

    def background(unit):
        client.tell(unit, "end")
        if unit == "bad":
            raise LookupError

    app = Starlette(
        routes=[Route("/plain/{unit}", view), Mount("/shop", routes=[Route("/cart/{unit}", view)])],
        middleware=[Middleware(SamplingASGIMiddleware), *within],
    )
    client.ask(app, "/plain/good")
    assert client.ask(app, "/plain/bad") == "failed"
    client.ask(app, "/shop/cart/good")

    story.check("bad")
    assert [scope.name for scope in client.scopes[::3]] == [
        "GET /plain/{unit}",
        "GET /plain/{unit}",
        "GET /cart/{unit}",
    ]
    assert [client.scopes[n] is client.scopes[n - n % 3] for n in range(9)] == [True] * 9


def test_a_task_that_is_left_behind_is_not_of_the_next_request(client, story):
    left = []

    async def view(request):
        unit = request.path_params["unit"]
        if unit == "good":
            left.append(asyncio.create_task(go_on()))
        client.tell(unit)
        if unit == "bad":
            go.set()
            await left[0]
            raise LookupError
        return PlainTextResponse("fine")

    async def go_on():
        await go.wait()
        story("left behind")

    app = SamplingASGIMiddleware(Starlette(routes=[Route("/{unit}", view)]))

    async def main():
        nonlocal go
        go = asyncio.Event()
        for path in ("/good", "/bad"):
            scope = {"type": "http", "method": "GET", "path": path, "headers": []}
            await asyncio.gather(
                asyncio.create_task(app(scope, never, never)), return_exceptions=True
            )

    async def never(*_):
        await asyncio.sleep(0)

    go = None
    asyncio.run(main())

    story.check("bad")


def test_a_task_of_the_lifespan_is_in_no_request(client, story):
    import contextlib

    seen = []

    async def tick():
        while True:
            seen.append(current_scope())
            await asyncio.sleep(0)

    @contextlib.asynccontextmanager
    async def lifespan(_app):
        task = asyncio.create_task(tick())
        yield
        task.cancel()

    async def view(request):
        for _ in range(3):
            await asyncio.sleep(0)
        client.tell("bad")
        raise LookupError

    app = SamplingASGIMiddleware(Starlette(routes=[Route("/bad", view)], lifespan=lifespan))

    async def main():
        stop = asyncio.Event()
        messages = iter([{"type": "lifespan.startup"}])

        async def receive():
            for message in messages:
                return message
            await stop.wait()
            return {"type": "lifespan.shutdown"}

        async def send(_message):
            await asyncio.sleep(0)

        lasting = asyncio.create_task(app({"type": "lifespan"}, receive, send))
        scope = {"type": "http", "method": "GET", "path": "/bad", "headers": []}
        await asyncio.sleep(0)
        with pytest.raises(LookupError):
            await asyncio.create_task(app(scope, receive, send))
        stop.set()
        await lasting

    asyncio.run(main())

    story.check("bad")
    assert set(seen) == {None}


def test_a_websocket_is_one_request_until_it_is_closed(client, story):
    async def socket(websocket):
        await websocket.accept()
        unit = websocket.path_params["unit"]
        for step in ("begin", "work", "end"):
            await websocket.receive_text()
            client.tell(unit, step)
        if unit == "bad":
            raise LookupError
        await websocket.close()

    app = SamplingASGIMiddleware(Starlette(routes=[WebSocketRoute("/{unit}", socket)]))
    texts = [{"type": "websocket.receive", "text": "x"}] * 3
    for unit in ("good", "bad"):
        received = [{"type": "websocket.connect"}, *texts]
        client.ask(app, f"/{unit}", kind="websocket", received=received)

    story.check("bad")
    assert {scope.name for scope in client.scopes} == {"WEBSOCKET /{unit}"}
    assert not open_requests()


def test_fastapi_s_threads_and_dependencies_are_of_the_request_which_is_called_by_its_route(
    client, story
):
    app = fastapi.FastAPI()
    app.add_middleware(SamplingASGIMiddleware)
    router = fastapi.APIRouter()

    def dependency(unit: str):
        client.tell(unit, "begin")
        yield unit
        client.tell(unit, "end")

    @router.get("/cart/{unit}")
    def cart(unit: str, told: Annotated[str, fastapi.Depends(dependency)]):
        client.tell(told, "work")
        if unit == "bad":
            client.tell(told, "end")
            raise LookupError
        return "fine"

    app.include_router(router, prefix="/shop")
    client.ask(app, "/shop/cart/good")
    assert client.ask(app, "/shop/cart/bad") == "failed"

    story.check("bad")
    assert {scope.name for scope in client.scopes} == {"GET /shop/cart/{unit}"}
    assert len(set(map(id, client.scopes))) == 2
