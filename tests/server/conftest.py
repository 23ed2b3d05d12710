"""Fixtures: the same suite on SQLite and PostgreSQL, in process and through gunicorn."""

from __future__ import annotations

import pytest

from lipservice_server.app import create_app, runtime_of
from lipservice_server.config import Settings
from tests.server.harness import Postgres, RedisServer, make_team, start_server


@pytest.fixture(scope="session")
def postgres():
    cluster = Postgres()
    yield cluster
    cluster.end()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory):
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """An empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/lipservice.db"
    return request.getfixturevalue("postgres").new_database()


class Clock:
    """Unix time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def settings(database_url, tmp_path):
    return Settings(
        database_url=database_url,
        data_dir=str(tmp_path / "data"),
        cache_seconds=0.05,
        failures_per_minute=10**6,
        share_seconds=0.05,
    )


@pytest.fixture
def make_app(clock):
    """Makes applications that are put away at the end."""
    made = []

    def make(settings):
        app = create_app(settings, clock=clock)
        made.append(app)
        runtime_of(app).watcher.prepare()
        return app

    yield make
    for app in made:
        runtime = runtime_of(app)
        runtime.watcher.stop()
        runtime.store.db.close()


@pytest.fixture
def app(make_app, settings):
    return make_app(settings)


@pytest.fixture
def runtime(app):
    return runtime_of(app)


class Caller:
    """A test client that holds a key."""

    def __init__(self, app, key: str | None) -> None:
        self._client, self.key = app.test_client(), key

    def __call__(self, method: str, path: str, **kwargs):
        headers = dict(kwargs.pop("headers", {}))
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        return self._client.open(path, method=method, headers=headers, **kwargs)

    def get(self, path: str, **kwargs):
        return self("GET", path, **kwargs)

    def post(self, path: str, **kwargs):
        return self("POST", path, **kwargs)


@pytest.fixture
def caller(app):
    """Makes callers: `caller("team")` holds an admin key of this team."""

    def make(team: str | None = "a", **kwargs) -> Caller:
        return Caller(app, make_team(app, team, **kwargs) if team is not None else None)

    return make


@pytest.fixture
def admin(caller):
    return caller("a")


@pytest.fixture
def live(tmp_path):
    """Starts gunicorn servers that are stopped at the end."""
    started = []

    def start(environ=None, **kwargs):
        server = start_server(tmp_path, environ or {}, **kwargs)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()
